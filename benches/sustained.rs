//! What can be written without end: many times the journal's size, beside somebody who frees it, against the disk alone.
//!
//! `REELFS_BENCH_GIB` says how much is written, 20 unless set. The data is written twice, so half of the disk's speed is the limit
//! of any journal. A second writer of 4 KiB measures what a request has to wait meanwhile, on the disk alone too. Whoever frees
//! the journal reads each record as a replica does, and forgets it; with `REELFS_BENCH_CONSUMER=export` it writes tapes. With
//! `REELFS_BENCH_DISK=memory` there is no disk at all: what comes out then is what the processors allow. With
//! `REELFS_FLOOR="target/release/examples/floor --twice {source} {point}"` the same goes through a file system too that does nothing
//! but write what it is told twice, with somebody beside who reads it once and looks at none of it.

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "workload/block.rs"]
#[expect(dead_code, reason = "other memory than whole pages")]
mod block;
mod paired;
#[path = "subjects/mod.rs"]
#[expect(dead_code, reason = "the floor alone")]
mod subjects;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use block::Block;
use reelfs::consumer::{Ask, Consumer, Pointers, Way};
use reelfs::follow::Source as _;
use reelfs::follow::journal::JournalSource;
use reelfs::follow::replica::Stands;
use reelfs::group_file::GroupFile;
use reelfs::output::Output;
use reelfs::request::{self, Request};
use reelfs::state::StateDir;
use subjects::Subject;
use support::{Disk, FileSystem, Random, Sandbox, tools, wait};

/// Length of the file that is written over and over.
const LENGTH: u64 = 4 << 30;
/// Length of the file that takes everything a second time: that of the journal.
const SECOND: u64 = 1 << 30;
/// Of the disk's own speed.
const LEAST: f64 = 0.45;
/// Of 1,000 writes of 4 KiB, 999 take no longer.
const MOST_OF_999: Duration = Duration::from_millis(50);
/// No write takes longer.
const MOST: Duration = Duration::from_secs(1);

/// What a minute of writing was like.
struct Written {
    /// MiB a second, the sync at the end included.
    speed: f64,
    /// How long 999 of 1,000 writes of 4 KiB took at most.
    of_999: Duration,
    /// The longest write of all.
    longest: Duration,
    /// How many writes of 4 KiB there were.
    small: usize,
}

/// How far the writing is.
#[derive(Default)]
struct Course {
    pieces: AtomicU64,
    is_over: AtomicBool,
}

impl Course {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// Writes so many pieces of 1 MiB, one behind the other, and makes them durable, with small writes beside, and somebody who
/// consumes what is written until it is over.
fn write(directory: &Path, pieces: u64, consume: impl FnOnce(&Course) + Send) -> Written {
    let course = Course::default();
    std::thread::scope(|scope| {
        let small = scope.spawn(|| small_writes(directory, &course.is_over));
        let consumer = scope.spawn(|| consume(&course));
        let (took, longest) = large_writes(directory, pieces, &course);
        course.is_over.store(true, Ordering::SeqCst);
        consumer.join().expect("no panic");
        let small = small.join().expect("no panic");
        Written {
            speed: pieces as f64 / took.as_secs_f64(),
            of_999: small[(small.len() - 1) * 999 / 1_000],
            longest: longest.max(*small.last().expect("some writes")),
            small: small.len(),
        }
    })
}

fn large_writes(directory: &Path, pieces: u64, course: &Course) -> (Duration, Duration) {
    let file = File::options().create(true).truncate(false).write(true).open(directory.join("large")).expect("a file");
    // a tape of it is small, and whoever consumes it is not what is measured
    let mut piece = Block::compressible();
    let (begin, mut longest) = (wait::now(), Duration::ZERO);
    for number in 0..pieces {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        let before = wait::now();
        file.write_all_at(&piece, (number << 20) % LENGTH).expect("room");
        longest = longest.max(before.elapsed());
        course.pieces.store(number + 1, Ordering::SeqCst);
        // or the disk alone would be asked for the last pass only, and memory for the others
        if ((number + 1) << 20).is_multiple_of(LENGTH) {
            file.sync_all().expect("a sync");
        }
    }
    file.sync_all().expect("a sync");
    (begin.elapsed(), longest)
}

/// The same, and all of it a second time, one behind the other into a file that is there already: what any journal costs on this
/// disk that is no more than that, with somebody beside who reads and discards what is in it. The second writer is behind by 64 MiB at
/// most, and makes durable what he has every 16 MiB.
fn twice(directory: &Path, pieces: u64) -> f64 {
    let mut options = File::options();
    let second =
        options.create(true).truncate(true).read(true).write(true).open(directory.join("second")).expect("a file");
    let zeros = vec![0; 1 << 20];
    (0..SECOND >> 20).for_each(|piece| second.write_all_at(&zeros, piece << 20).expect("room"));
    second.sync_all().expect("a sync");
    let (send, receive) = mpsc::channel::<Block>();
    let (empty, emptied) = mpsc::channel::<Block>();
    (0..64).for_each(|_| drop(empty.send(Block::compressible())));
    let is_over = AtomicBool::new(false);
    let large = File::options().create(true).truncate(false).write(true).open(directory.join("large")).expect("a file");
    std::thread::scope(|scope| {
        scope.spawn(|| small_writes(directory, &is_over));
        let begin = wait::now();
        let (written, to_read) = mpsc::channel::<u64>();
        let reader = second.try_clone().expect("a descriptor");
        scope.spawn(move || {
            let mut piece = Block::compressible();
            to_read.iter().for_each(|at| reader.read_exact_at(&mut piece, at).expect("what was written"));
        });
        let journal = scope.spawn(move || {
            for (number, piece) in receive.iter().enumerate() {
                let at = ((number as u64) << 20) % SECOND;
                second.write_all_at(&piece, at).expect("room");
                written.send(at).expect("a reader");
                if (number + 1) % 16 == 0 {
                    second.sync_data().expect("a sync");
                }
                drop(empty.send(piece));
            }
            second.sync_data().expect("a sync");
        });
        for number in 0..pieces {
            let mut piece = emptied.recv().expect("the second writer");
            piece[..8].copy_from_slice(&number.to_le_bytes());
            large.write_all_at(&piece, (number << 20) % LENGTH).expect("room");
            if ((number + 1) << 20).is_multiple_of(LENGTH) {
                large.sync_all().expect("a sync");
            }
            send.send(piece).expect("a reader");
        }
        large.sync_all().expect("a sync");
        drop(send);
        journal.join().expect("no panic");
        let took = begin.elapsed();
        is_over.store(true, Ordering::SeqCst);
        pieces as f64 / took.as_secs_f64()
    })
}

/// Writes 4 KiB every few milliseconds until it is over: how long each write took, in order of length.
fn small_writes(directory: &Path, is_over: &AtomicBool) -> Vec<Duration> {
    let file = File::create(directory.join("small")).expect("a file");
    let (mut random, mut took) = (Random::new("small", 0), Vec::new());
    let piece = random.bytes(4096);
    loop {
        let before = wait::now();
        file.write_all_at(&piece, random.below(4_000) * 4096).expect("room");
        took.push(before.elapsed());
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        wait::pause(Duration::from_millis(2));
    }
    took.sort_unstable();
    took
}

/// The same through a file system that does nothing but write what it is told twice, when there is one, and somebody beside who
/// reads it once and looks at none of it.
fn through_floor(sandbox: &Sandbox, pieces: u64) -> Option<f64> {
    let floor = Subject::floor(sandbox)?;
    let consume = |course: &Course| {
        let second = File::open(sandbox.path("behind-floor/second")).expect("what the floor writes a second time");
        let (mut piece, mut read) = (Block::compressible(), 0);
        while !course.is_over() {
            if read == course.pieces.load(Ordering::SeqCst) {
                wait::pause(Duration::from_millis(1));
                continue;
            }
            second.read_exact_at(&mut piece, (read << 20) % SECOND).expect("what was written");
            read += 1;
        }
    };
    write(&floor.view, pieces.min(LENGTH >> 20), consume);
    let written = write(&floor.view, pieces, consume);
    ["large", "small"].into_iter().for_each(|name| drop(fs::remove_file(floor.view.join(name))));
    floor.end();
    Some(written.speed)
}

/// Exports again and again; a tape that is not the newest is removed at once.
fn export(sandbox: &Sandbox, tapes: &Path, course: &Course) {
    while !course.is_over() {
        sandbox.export("bench", tapes);
        sandbox.tapes(tapes).iter().rev().skip(2).for_each(|path| drop(fs::remove_file(path)));
        wait::pause(Duration::from_millis(20));
    }
}

/// Somebody who gets the records as a replica on this machine does, checks each of them, and forgets it. He reads on while what he
/// has read is freed.
struct Reader {
    source: JournalSource,
    reports: JournalSource,
    consumer: Consumer,
}

impl Reader {
    /// Takes the place of the directory of tapes, at the end of its base copy.
    fn enlist(sandbox: &Sandbox, tapes: &Path) -> Reader {
        let state = StateDir::resolve(Some(&sandbox.state())).expect("the state directory");
        let group = state.existing(&"bench".parse().expect("a name")).expect("the group");
        let file = GroupFile::load(&group).expect("its file");
        let (output, volume) = (Output::plain(false), file.volumes[0].index);
        let at = file.target(tapes).expect("a base copy").position();
        let consumer = Consumer {
            id: uuid::Uuid::from_u128(1),
            way: Way::Journal,
            dir: sandbox.path("nowhere"),
            volume: Some(volume),
            epoch: at.epoch,
            pointers: Pointers::at(at.seq),
            digest: at.digest,
            holds: true,
            inside: None,
            heard: reelfs_journal::Timestamp(0),
        };
        let mut source = JournalSource::new(group.clone(), volume, &output);
        source.enlist(&consumer).expect("enlisted");
        let ask = Request::Consumer(Ask::DropTapes { dir: tapes.to_owned() });
        request::run::<()>(&group, &ask, &output, &mut |_| {}).expect("forgotten");
        Reader { source, reports: JournalSource::new(group, volume, &output), consumer }
    }

    fn consume(&mut self, course: &Course) {
        let Reader { source, reports, consumer } = self;
        let (report, read) = mpsc::channel::<Consumer>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Ok(first) = read.recv() {
                    let last = read.try_iter().last().unwrap_or(first);
                    reports.report(&last, true).expect("reported");
                }
            });
            read_on(source, consumer, course, &report);
            drop(report);
        });
    }
}

fn read_on(source: &mut JournalSource, consumer: &mut Consumer, course: &Course, report: &Sender<Consumer>) {
    while !course.is_over() {
        let Some(stretch) = source.next(&consumer.position()).expect("what is new") else {
            wait::pause(Duration::from_millis(20));
            continue;
        };
        let (at, end) = (consumer.position(), reelfs_journal::Timestamp(i64::MAX));
        let outline = stretch
            .outline(at, Stands::Outside, (stretch.last, end), &reelfs_journal::Amended::default())
            .expect("records");
        if let Some(cut) = outline.cuts.last() {
            (consumer.pointers, consumer.digest) = (Pointers::at(cut.position.seq), cut.position.digest);
            report.send(consumer.clone()).expect("somebody reports");
        }
    }
}

fn main() -> ExitCode {
    let pieces = std::env::var("REELFS_BENCH_GIB").ok().and_then(|text| text.parse().ok()).unwrap_or(20_u64) << 10;
    let exports = std::env::var("REELFS_BENCH_CONSUMER").is_ok_and(|word| word == "export");
    let is_in_memory = std::env::var("REELFS_BENCH_DISK").is_ok_and(|word| word == "memory");
    let outer = if is_in_memory { Sandbox::in_memory() } else { Sandbox::new() };
    let disk = (!is_in_memory && tools::root() && tools::present(&["mkfs.ext4"]))
        .then(|| Disk::new(&outer, "disk", FileSystem::Ext4, 16 << 10));
    disk.iter().for_each(Disk::leave_cache_of_image);
    let sandbox = Sandbox::within(disk.as_ref().map_or(outer.root(), Disk::path));
    println!("{}\n", paired::machine(sandbox.root()));
    let (bare, pvol, tapes) = (sandbox.directory("bare"), sandbox.directory("pvol"), outer.directory("tapes"));
    sandbox.group_of_size("bench", &pvol, "1GiB");
    sandbox.base("bench", &tapes);
    // the first pass allocates, on the disk and in the memory that a host lends: of that each subject has its own luck
    large_writes(&bare, pieces.min(LENGTH >> 20), &Course::default());
    let alone = write(&bare, pieces, |_| {});
    let twice = twice(&bare, pieces);
    ["large", "second"].into_iter().for_each(|name| drop(fs::remove_file(bare.join(name))));
    let floor = through_floor(&sandbox, pieces);
    let mount = sandbox.mount("bench", "mnt");
    let mut reader = (!exports).then(|| Reader::enlist(&sandbox, &tapes));
    let mut consume = |course: &Course| match &mut reader {
        Some(reader) => reader.consume(course),
        None => export(&sandbox, &tapes, course),
    };
    write(mount.path(), pieces.min(LENGTH >> 20), &mut consume);
    let journaled = write(mount.path(), pieces, &mut consume);
    mount.umount();
    let share = journaled.speed / alone.speed;
    let beside = if exports { "exported" } else { "read" };
    println!(
        "| {} GiB in writes of 1 MiB, JVOL of 1 GiB, {beside} beside | the disk alone | the mount | asked |",
        pieces >> 10
    );
    println!("|---|---|---|---|");
    println!("| MiB/s, with the sync | {:.0} | {:.0}: {share:.2} | at least {LEAST} |", alone.speed, journaled.speed);
    println!(
        "| the same, everything written twice, read once and no more | {twice:.0}: {:.2} | | |",
        twice / alone.speed
    );
    if let Some(floor) = floor {
        println!("| the same through a file system that does no more | {floor:.0}: {:.2} | | |", floor / alone.speed);
    }
    let (first, second) = (alone.of_999, journaled.of_999);
    println!("| writes of 4 KiB beside: 99.9 % within | {first:.1?} | {second:.1?} | {MOST_OF_999:?} |");
    println!("| how many these were | {} | {} | |", alone.small, journaled.small);
    println!("| the longest write | {:.1?} | {:.1?} | {MOST:?} |", alone.longest, journaled.longest);
    let is_held = share >= LEAST && journaled.of_999 <= MOST_OF_999 && journaled.longest <= MOST;
    ExitCode::from(u8::from(!is_held && paired::is_judged()))
}
