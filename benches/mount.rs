//! What a mount costs: the same work on the backing directory, through bindfs, and through reelfs with its journal.
//!
//! `REELFS_PEER="passthrough_hp -f {source} {point}"` measures against that instead of bindfs; `REELFS_BEFORE=PROGRAM` measures an
//! earlier build of reelfs beside this one, in the same run, and `REELFS_FLOOR="target/release/examples/floor {source} {point}"` a
//! file system that does nothing but answer (`fuse/examples/floor.rs`): nobody who is asked for each change can be faster.

#[path = "../tests/support/mod.rs"]
mod support;

mod paired;
mod subjects;
mod workload;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Random, tools};
use workload::{Bench, FILES, Limit, Workload};

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

fn overwrite(place: &Path, piece: &[u8], count: u64) {
    let file = File::options().write(true).open(place.join("large")).expect("the prepared file");
    for turn in 0..count {
        let offset = turn * piece.len() as u64 % (64 << 20);
        file.write_all_at(piece, offset).expect("room");
    }
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

fn eight_files(place: &Path, bench: &Bench) {
    for number in 0..8 {
        let path = place.join(format!("part{number}"));
        if !path.exists() {
            let mut file = File::create(path).expect("a file");
            (0..8).for_each(|_| file.write_all(&bench.block).expect("room"));
            file.sync_all().expect("a sync");
        }
    }
}

fn eight_writers(place: &Path, bench: &Bench) {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let path = place.join(format!("part{number}"));
                let file = File::options().write(true).open(path).expect("the prepared file");
                let mut random = Random::new("sync", number);
                for _ in 0..60 {
                    file.write_all_at(&bench.block[..4096], random.below(2_000) * 4096).expect("room");
                    file.sync_data().expect("a sync");
                }
            });
        }
    });
}

fn no_tree(place: &Path, bench: &Bench) {
    if place.join("tree").exists() {
        remove_tree(place, bench);
    }
}

fn a_tree(place: &Path, bench: &Bench) {
    if !place.join("tree").exists() {
        untar(place, bench);
    }
}

fn tree_walked_once(place: &Path, bench: &Bench) {
    a_tree(place, bench);
    walk(place);
}

/// Six times: once is over too soon to be measured.
fn walk(place: &Path) {
    for _ in 0..6 {
        tools::run("find", &[place.join("tree").to_str().expect("UTF-8"), "-newer", "/proc/version"]);
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

/// With somebody who writes 4 KiB at random into the same file, one write behind the other, and opened it when a reader had it open.
fn beside_a_writer(place: &Path, bench: &Bench, read: fn(&Path)) {
    let is_over = AtomicBool::new(false);
    let _reader = File::open(place.join("large")).expect("the prepared file");
    let file = File::options().write(true).open(place.join("large")).expect("the prepared file");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new("write", 0);
            while !is_over.load(Ordering::Relaxed) {
                file.write_all_at(&bench.block[..4096], random.below(16_000) * 4096).expect("room");
            }
        });
        read(place);
        is_over.store(true, Ordering::Relaxed);
    });
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
    Workload::new("write 1 MiB, 64 times, new file", Limit::OfPeer(1.5), file_of_64_mib_unsynced),
    Workload::new("overwrite 1 MiB, 64 times", Limit::OfPeer(1.5), |place, bench| {
        overwrite(place, &bench.block, 64);
    })
    .prepared(file_of_64_mib),
    Workload::new("overwrite 1 MiB from within a page of memory, 64 times", Limit::None, |place, bench| {
        overwrite(place, bench.block.of_malloc(), 64);
    })
    .prepared(file_of_64_mib),
    Workload::new("overwrite 4 KiB, 4,000 times", Limit::OfPeer(1.0), |place, bench| {
        overwrite(place, &bench.block[..4096], 4_000);
    })
    .prepared(file_of_64_mib_once),
    Workload::new(
        "write 4 KiB + fdatasync, 200 times",
        Limit::OfBacking { scheduled: 1.0, on_one: 0.77 },
        |place, bench| sync_writes(place, bench, false),
    )
    .prepared(file_of_64_mib_once),
    Workload::new(
        "append 4 KiB + fsync, 200 times",
        Limit::OfBacking { scheduled: 0.67, on_one: 0.67 },
        |place, bench| sync_writes(place, bench, true),
    ),
    Workload::new(
        "write 4 KiB + fdatasync, 8 threads, 60 times each",
        Limit::OfBacking { scheduled: 1.0, on_one: 1.0 },
        eight_writers,
    )
    .prepared(eight_files),
    Workload::new("read 64 MiB, warm", Limit::OfPeer(1.0), |place, _| read_whole(place)).prepared(file_to_read),
    Workload::new(
        "read 4 KiB at random, warm, 20,000 times",
        Limit::OfBacking { scheduled: 1.11, on_one: 1.11 },
        |place, _| read_random(place),
    )
    .prepared(file_to_read),
    Workload::new("read 64 MiB, cold", Limit::OfBacking { scheduled: 1.05, on_one: 1.05 }, |place, _| {
        read_whole(place);
    })
    .prepared(drop_caches),
    Workload::new("read 64 MiB, warm, beside a writer", Limit::OfPeer(1.0), |place, bench| {
        beside_a_writer(place, bench, read_whole);
    })
    .prepared(file_to_read),
    Workload::new("read 4 KiB at random, 20,000 times, beside a writer", Limit::OfPeer(1.0), |place, bench| {
        beside_a_writer(place, bench, read_random);
    })
    .prepared(file_to_read),
    Workload::new("untar 5,000 files", Limit::OfPeer(1.0), untar).prepared(no_tree),
    Workload::new("find in them, again", Limit::OfBacking { scheduled: 3.3, on_one: 1.67 }, |place, _| walk(place))
        .prepared(tree_walked_once),
    Workload::new("rm -rf of them", Limit::OfBacking { scheduled: 2.0, on_one: 1.33 }, remove_tree).prepared(a_tree),
    Workload::new("chmod -R of 5,000 old files", Limit::None, change_modes).prepared(old_tree).cold(),
    Workload::new("append to each of 5,000 old files", Limit::None, append_all).prepared(old_tree).cold(),
    Workload::new("rm -rf of 5,000 old files", Limit::None, remove_old).prepared(old_tree).cold(),
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

fn main() -> std::process::ExitCode {
    workload::main(WORKLOADS)
}
