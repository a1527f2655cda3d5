//! What a mount costs: the same work on the backing directory, through bindfs, and through reelfs with its journal.
//!
//! `REELFS_PEER="passthrough_hp -f {source} {point}"` measures against that instead of bindfs; `REELFS_BEFORE=PROGRAM` measures an
//! earlier build of reelfs beside this one, in the same run.

#[path = "../tests/support/mod.rs"]
mod support;

mod paired;
mod subjects;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use paired::{Paired, Sample};
use subjects::Subject;
use support::{Disk, FileSystem, Random, Sandbox, tools, wait};

/// Files of the tree that is unpacked and removed.
const FILES: u64 = 5_000;

/// A workload: it is prepared out of the measurement, and then measured.
struct Workload {
    name: &'static str,
    /// Times the peer's that reelfs may take; none where the figure is told without a judgement.
    limit: Option<f64>,
    /// What `prepare` leaves is on tapes before the work begins: to reelfs every object is cold.
    is_cold: bool,
    prepare: fn(&Path, &Bench),
    run: fn(&Path, &Bench),
}

/// What the workloads share.
struct Bench {
    tar: PathBuf,
    block: Vec<u8>,
    /// A directory on the disk that everything is on.
    disk: PathBuf,
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
    Workload {
        name: "write 1 MiB, 64 times, new file",
        limit: Some(1.5),
        is_cold: false,
        prepare: nothing,
        run: file_of_64_mib_unsynced,
    },
    Workload {
        name: "overwrite 1 MiB, 64 times",
        limit: Some(1.5),
        is_cold: false,
        prepare: file_of_64_mib,
        run: |place, bench| drop(overwrite(place, bench, 1 << 20, 64)),
    },
    Workload {
        name: "overwrite 4 KiB, 4,000 times",
        limit: Some(1.0),
        is_cold: false,
        prepare: file_of_64_mib_once,
        run: |place, bench| drop(overwrite(place, bench, 4096, 4_000)),
    },
    Workload {
        name: "write 4 KiB + fdatasync, 200 times",
        limit: Some(1.5),
        is_cold: false,
        prepare: file_of_64_mib_once,
        run: |place, bench| sync_writes(place, bench, false),
    },
    Workload {
        name: "append 4 KiB + fsync, 200 times",
        limit: Some(1.5),
        is_cold: false,
        prepare: nothing,
        run: |place, bench| sync_writes(place, bench, true),
    },
    Workload {
        name: "read 64 MiB, warm",
        limit: Some(1.0),
        is_cold: false,
        prepare: file_to_read,
        run: |place, _| read_whole(place),
    },
    Workload {
        name: "read 4 KiB at random, warm, 20,000 times",
        limit: Some(1.0),
        is_cold: false,
        prepare: file_to_read,
        run: |place, _| read_random(place),
    },
    Workload {
        name: "read 64 MiB, cold",
        limit: Some(1.0),
        is_cold: false,
        prepare: drop_caches,
        run: |place, _| read_whole(place),
    },
    Workload { name: "untar 5,000 files", limit: Some(1.0), is_cold: false, prepare: nothing, run: untar },
    Workload { name: "rm -rf of them", limit: Some(1.0), is_cold: false, prepare: nothing, run: remove_tree },
    Workload { name: "chmod -R of 5,000 old files", limit: None, is_cold: true, prepare: old_tree, run: change_modes },
    Workload {
        name: "append to each of 5,000 old files",
        limit: None,
        is_cold: true,
        prepare: old_tree,
        run: append_all,
    },
    Workload { name: "rm -rf of 5,000 old files", limit: None, is_cold: true, prepare: old_tree, run: remove_old },
];

/// 500 directories of 10 small files, made anew.
fn old_tree(place: &Path, _: &Bench) {
    let place = place.join("old");
    drop(fs::remove_dir_all(&place));
    for number in 0..FILES {
        let directory = place.join(format!("{}", number / 10));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(number.to_string()), "a line\n").expect("a file");
    }
}

fn change_modes(place: &Path, _: &Bench) {
    tools::run("chmod", &["-R", "g+w", place.join("old").to_str().expect("UTF-8")]);
}

fn append_all(place: &Path, _: &Bench) {
    for number in 0..FILES {
        let path = place.join("old").join(format!("{}/{number}", number / 10));
        File::options().append(true).open(path).and_then(|mut file| file.write_all(b"a line\n")).expect("room");
    }
}

fn remove_old(place: &Path, _: &Bench) {
    tools::run("rm", &["-rf", place.join("old").to_str().expect("UTF-8")]);
}

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
    let bench = Bench { block: Random::new("block", 0).bytes(1 << 20), tar, disk: sandbox.root().to_owned() };
    let mut subjects = vec![Subject::bare(&sandbox), Subject::peer(&sandbox), Subject::reelfs(&sandbox)];
    subjects.extend(Subject::before(&sandbox));
    let missed = print_table(&bench, &subjects);
    println!("\ntimes as multiples of the backing directory's: median of {} rounds (least-most)", paired::rounds());
    subjects.into_iter().for_each(Subject::end);
    std::process::ExitCode::from(u8::from(missed > 0))
}

/// Measures what is asked for and prints a row for each; how many limits were passed.
fn print_table(bench: &Bench, subjects: &[Subject]) -> u32 {
    let names: Vec<&'static str> = subjects.iter().map(|subject| subject.name).collect();
    let has_before = names.contains(&"before");
    println!(
        "| work | backing directory | peer | reelfs | reelfs / peer | limit | {}processor: peer, reelfs | flushes |",
        if has_before { "reelfs / before | " } else { "" }
    );
    println!("|---|---|---|---|---|---|{}---|---|", if has_before { "---|" } else { "" });
    let mut missed = 0;
    // `cargo bench --bench mount -- untar` measures the rows that say untar
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |workload: &&Workload| asked.is_empty() || asked.iter().any(|word| workload.name.contains(word));
    for workload in WORKLOADS.iter().filter(wanted) {
        let paired = Paired::measure(&names, paired::rounds(), |subject| measure(bench, workload, &subjects[subject]));
        subjects.iter().for_each(Subject::export);
        let ratio = paired.ratio("reelfs", "peer");
        let verdict = workload.limit.map(|limit| paired::verdict(workload.name, ratio, limit, &mut missed));
        let before = if has_before { format!("{} | ", paired.ratio("reelfs", "before")) } else { String::new() };
        let flushes: Vec<String> = names.iter().map(|name| paired.flushes(name).to_string()).collect();
        println!(
            "| {} | {:.1} ms | {} | {} | {ratio} | {} | {before}{} ms, {} ms | {} |",
            workload.name,
            paired.median("backing").as_secs_f64() * 1e3,
            paired.ratio("peer", "backing"),
            paired.ratio("reelfs", "backing"),
            verdict.unwrap_or_else(|| "told only".to_owned()),
            paired.processor("peer").as_millis(),
            paired.processor("reelfs").as_millis(),
            flushes.join(", "),
        );
    }
    missed
}

/// One workload on one subject. What removes a tree needs one, and what unpacks one needs its place empty.
fn measure(bench: &Bench, workload: &Workload, subject: &Subject) -> Sample {
    let place = &subject.view;
    let is_there = place.join("tree").exists();
    match (workload.name.starts_with("untar"), workload.name.starts_with("rm -rf of them")) {
        (true, _) if is_there => remove_tree(place, bench),
        (_, true) if !is_there => untar(place, bench),
        _ => {}
    }
    (workload.prepare)(place, bench);
    if workload.is_cold {
        subject.export();
    }
    let (used, before, begin) = (subject.processor_time(), flushes(&bench.disk), wait::now());
    (workload.run)(place, bench);
    let took = begin.elapsed();
    Sample { took, flushes: flushes(&bench.disk) - before, processor: subject.processor_time() - used }
}
