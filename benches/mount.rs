//! What a mount costs: the same work on the backing directory, through bindfs, and through reelfs with its journal.

#[path = "../tests/support/mod.rs"]
mod support;

mod paired;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use paired::{Paired, Sample};
use support::{Disk, FileSystem, Mount, Random, Sandbox, mount, tools, wait};

const SUBJECTS: [&str; 3] = ["backing", "bindfs", "reelfs"];
/// Files of the tree that is unpacked and removed.
const FILES: u64 = 5_000;

/// A bindfs mount, taken down on drop.
struct Bindfs {
    child: Child,
    point: PathBuf,
}

impl Bindfs {
    fn new(source: &Path, point: &Path) -> Bindfs {
        let child = Command::new("bindfs").arg("-f").arg(source).arg(point).spawn().expect("bindfs starts");
        let live = || {
            fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(point.to_str().expect("UTF-8")))
        };
        assert!(wait::until(Duration::from_secs(10), live), "bindfs does not mount");
        Bindfs { child, point: point.to_owned() }
    }
}

impl Drop for Bindfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.point).status());
        drop(self.child.wait());
    }
}

/// A workload: it is prepared out of the measurement, and then measured.
struct Workload {
    name: &'static str,
    /// Times bindfs' that reelfs may take.
    limit: f64,
    prepare: fn(&Path, &Bench),
    run: fn(&Path, &Bench),
}

/// What the workloads share.
struct Bench {
    sandbox: Sandbox,
    tar: PathBuf,
    block: Vec<u8>,
}

fn nothing(_: &Path, _: &Bench) {}

fn file_of_64_mib(place: &Path, bench: &Bench) {
    let mut file = File::create(place.join("large")).expect("a file");
    (0..64).for_each(|_| file.write_all(&bench.block).expect("room"));
    file.sync_all().expect("a sync");
}

fn file_of_64_mib_once(place: &Path, bench: &Bench) {
    if !place.join("large").exists() {
        file_of_64_mib(place, bench);
    }
}

fn overwrite(place: &Path, bench: &Bench, length: usize, count: u64) -> File {
    let file = File::options().write(true).open(place.join("large")).expect("the prepared file");
    for turn in 0..count {
        let offset = turn * length as u64 % (64 << 20);
        file.write_all_at(&bench.block[..length], offset).expect("room");
    }
    file
}

fn sync_writes(place: &Path, bench: &Bench, appends: bool) {
    let path = place.join(if appends { "log" } else { "large" });
    let mut options = File::options();
    let mut file =
        if appends { options.append(true).create(true) } else { options.write(true) }.open(path).expect("a file");
    let mut random = Random::new("sync", 0);
    for _ in 0..200 {
        if appends {
            file.write_all(&bench.block[..4096]).expect("room");
            file.sync_all().expect("a sync");
        } else {
            file.write_all_at(&bench.block[..4096], random.below(16_000) * 4096).expect("room");
            file.sync_data().expect("a sync");
        }
    }
}

fn file_to_read(place: &Path, bench: &Bench) {
    file_of_64_mib_once(place, bench);
    read_whole(place);
}

fn read_whole(place: &Path) {
    let mut file = File::open(place.join("large")).expect("the prepared file");
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).expect("a read") > 0 {}
}

fn read_random(place: &Path) {
    let file = File::open(place.join("large")).expect("the prepared file");
    let (mut buffer, mut random) = ([0; 4096], Random::new("read", 0));
    for _ in 0..20_000 {
        file.read_exact_at(&mut buffer, random.below(16_000) * 4096).expect("a read");
    }
}

fn drop_caches(place: &Path, bench: &Bench) {
    file_of_64_mib_once(place, bench);
    drop(File::open(place.join("large")).and_then(|file| file.sync_all()));
    tools::run("sync", &[]);
    drop(fs::write("/proc/sys/vm/drop_caches", "3"));
}

fn untar(place: &Path, bench: &Bench) {
    let place = place.join("tree");
    fs::create_dir(&place).expect("a directory");
    tools::run("tar", &["-xf", bench.tar.to_str().expect("UTF-8"), "-C", place.to_str().expect("UTF-8")]);
}

fn remove_tree(place: &Path, _: &Bench) {
    tools::run("rm", &["-rf", place.join("tree").to_str().expect("UTF-8")]);
}

/// In an order in which each prepares for the next; a limit of 1.5 for what the journal must pay for twice.
const WORKLOADS: &[Workload] = &[
    Workload { name: "write 1 MiB, 64 times, new file", limit: 1.5, prepare: nothing, run: file_of_64_mib_unsynced },
    Workload {
        name: "overwrite 1 MiB, 64 times",
        limit: 1.5,
        prepare: file_of_64_mib,
        run: |place, bench| drop(overwrite(place, bench, 1 << 20, 64)),
    },
    Workload {
        name: "overwrite 4 KiB, 4,000 times",
        limit: 1.0,
        prepare: file_of_64_mib_once,
        run: |place, bench| drop(overwrite(place, bench, 4096, 4_000)),
    },
    Workload {
        name: "write 4 KiB + fdatasync, 200 times",
        limit: 1.5,
        prepare: file_of_64_mib_once,
        run: |place, bench| sync_writes(place, bench, false),
    },
    Workload {
        name: "append 4 KiB + fsync, 200 times",
        limit: 1.5,
        prepare: nothing,
        run: |place, bench| sync_writes(place, bench, true),
    },
    Workload { name: "read 64 MiB, warm", limit: 1.0, prepare: file_to_read, run: |place, _| read_whole(place) },
    Workload {
        name: "read 4 KiB at random, warm, 20,000 times",
        limit: 1.0,
        prepare: file_to_read,
        run: |place, _| read_random(place),
    },
    Workload { name: "read 64 MiB, cold", limit: 1.0, prepare: drop_caches, run: |place, _| read_whole(place) },
    Workload { name: "untar 5,000 files", limit: 1.0, prepare: nothing, run: untar },
    Workload { name: "rm -rf of them", limit: 1.0, prepare: nothing, run: remove_tree },
];

fn file_of_64_mib_unsynced(place: &Path, bench: &Bench) {
    let mut file = File::create(place.join("new")).expect("a file");
    (0..64).for_each(|_| file.write_all(&bench.block).expect("room"));
}

/// Flushes of the disk that a directory lies on, as `/proc/diskstats` counts them.
fn flushes(directory: &Path) -> u64 {
    let device = fs::metadata(directory).expect("a directory").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stats = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let of_it = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some(&major.to_string()) && words.next() == Some(&minor.to_string())
    };
    let line = stats.lines().find(of_it).unwrap_or_default();
    line.split_whitespace().nth(18).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn prepare_tree(sandbox: &Sandbox) -> PathBuf {
    let tree = sandbox.directory("source");
    let mut random = Random::new("source", 0);
    for number in 0..FILES {
        let directory = tree.join(format!("part{}/unit{}", number % 13, number % 131));
        fs::create_dir_all(&directory).expect("a directory");
        let length = random.below(1 + 60 * (number % 17) * (number % 17));
        fs::write(directory.join(format!("file{number}")), random.bytes(length)).expect("a file");
    }
    tools::shell(sandbox.root(), "tar -cf source.tar -C source .");
    sandbox.path("source.tar")
}

fn main() -> std::process::ExitCode {
    // a file system with a journal, made for this: others have hours behind them, and ext4 without a journal looks for an inode
    // the longer the more were removed just now
    let outer = Sandbox::new();
    let disk = (tools::root() && tools::present(&["mkfs.ext4"]))
        .then(|| Disk::new(&outer, "disk", FileSystem::Ext4, 12 << 10));
    let sandbox = disk.as_ref().map_or_else(Sandbox::new, |disk| Sandbox::within(disk.path()));
    println!("{}\n", paired::machine(sandbox.root()));
    let tar = prepare_tree(&sandbox);
    let places = [sandbox.directory("backing"), sandbox.directory("behind-bindfs"), sandbox.directory("behind-reelfs")];
    sandbox.group_of_size("bench", &places[2], "4GiB");
    let tapes = sandbox.directory("tapes");
    sandbox.base("bench", &tapes);
    let reelfs = Mount::new(&sandbox, "bench", &sandbox.directory("reelfs"), &[]);
    let bindfs = Bindfs::new(&places[1], &sandbox.directory("bindfs"));
    let views = [places[0].clone(), bindfs.point.clone(), reelfs.path().to_owned()];
    let bench = Bench { block: Random::new("block", 0).bytes(1 << 20), sandbox, tar };
    println!("| work | backing directory | bindfs | reelfs | reelfs / bindfs | limit | flushes |");
    println!("|---|---|---|---|---|---|---|");
    let mut missed = 0;
    // `cargo bench --bench mount -- untar` measures the rows that say untar
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |workload: &&Workload| asked.is_empty() || asked.iter().any(|word| workload.name.contains(word));
    for workload in WORKLOADS.iter().filter(wanted) {
        let paired = Paired::measure(&SUBJECTS, paired::rounds(), |subject| measure(&bench, workload, &views[subject]));
        bench.sandbox.export("bench", &tapes);
        let ratio = paired.ratio("reelfs", "bindfs");
        println!(
            "| {} | {:.1} ms | {} | {} | {ratio} | {} | {}, {}, {} |",
            workload.name,
            paired.median("backing").as_secs_f64() * 1e3,
            paired.ratio("bindfs", "backing"),
            paired.ratio("reelfs", "backing"),
            paired::verdict(workload.name, ratio, workload.limit, &mut missed),
            paired.flushes("backing"),
            paired.flushes("bindfs"),
            paired.flushes("reelfs"),
        );
    }
    drop(bindfs);
    reelfs.umount();
    assert!(!mount::is_mounted(&views[2]), "the mount is still there");
    println!("\ntimes as multiples of the backing directory's: median of {} rounds (least-most)", paired::rounds());
    std::process::ExitCode::from(u8::from(missed > 0))
}

/// One workload on one subject. What removes a tree needs one, and what unpacks one needs its place empty.
fn measure(bench: &Bench, workload: &Workload, place: &Path) -> Sample {
    let is_there = place.join("tree").exists();
    match (workload.name.starts_with("untar"), workload.name.starts_with("rm")) {
        (true, _) if is_there => remove_tree(place, bench),
        (_, true) if !is_there => untar(place, bench),
        _ => {}
    }
    (workload.prepare)(place, bench);
    let (begin, before) = (wait::now(), flushes(bench.sandbox.root()));
    (workload.run)(place, bench);
    Sample { took: begin.elapsed(), flushes: flushes(bench.sandbox.root()) - before }
}
