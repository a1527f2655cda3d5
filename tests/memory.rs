//! What the mount process needs of memory when the volume is large and the kernel knows all of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::path::Path;

use support::{Mount, Sandbox, tools, wait};

/// What a file takes that the kernel knows, in bytes, at most.
const EACH: usize = 176;
/// What a mount takes of its own that knows little, at most: how much of the program's file is mapped besides is the page cache's
/// business (20 MiB more in one run than in another), and the ring of the journal is as large as it is.
const EMPTY: usize = 32 << 20;
/// What it takes at most with a million files.
const MILLION: usize = 256 << 20;

/// A field of a file of the daemon's below `/proc`, in bytes.
fn field(mount: &Mount, file: &str, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/{file}", mount.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kibibytes: usize = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes << 10
}

/// What is its own and no file's, counted page by page.
fn own(mount: &Mount) -> usize {
    field(mount, "smaps_rollup", "Anonymous")
}

fn peak(mount: &Mount) -> usize {
    field(mount, "status", "VmHWM")
}

fn descriptors(mount: &Mount) -> usize {
    fs::read_dir(format!("/proc/{}/fd", mount.pid().as_raw_nonzero())).unwrap().count()
}

fn fill(pvol: &Path, directories: std::ops::Range<usize>) {
    for number in directories {
        let directory = pvol.join(format!("d{number}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..1000 {
            File::create(directory.join(format!("f{}", number * 1000 + file))).unwrap();
        }
    }
}

/// Lists and stats everything in these directories; gives how many files there are.
fn walk(root: &Path, directories: std::ops::Range<usize>) -> usize {
    let below = |number| walkdir::WalkDir::new(root.join(format!("d{number}")));
    let entries = directories.flat_map(|number| below(number).into_iter());
    entries.map(|entry| usize::from(entry.unwrap().metadata().unwrap().is_file())).sum()
}

/// Makes the kernel forget what it knows of a mount and nobody uses.
fn forget(mount: &Mount) {
    rustix::mount::mount_remount(mount.path(), rustix::mount::MountFlags::empty(), c"").unwrap();
}

#[test]
fn a_file_that_the_kernel_knows_takes_little() {
    if !tools::root() {
        return;
    }
    let (few, many) = (10, tools::rounds(50, 1000));
    let all = many + many / 2;
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    fill(&pvol, 0..all);
    sandbox.group("large", &pvol);
    let mount = sandbox.mount("large", "mnt");
    // what the first few need is of other things
    assert_eq!(walk(mount.path(), 0..few), few * 1000);
    let (peak_of_few, own_of_few) = (peak(&mount), own(&mount));
    let timed = |root: &Path| {
        let begin = wait::now();
        assert_eq!(walk(root, 0..many), many * 1000);
        begin.elapsed()
    };
    let (first, again, bare) = (timed(mount.path()), timed(mount.path()), timed(&pvol));
    println!("walked: {first:?}, again {again:?}, the directory itself {bare:?}");
    let (peak_of_many, own_of_many) = (peak(&mount), own(&mount));
    let each = (own_of_many - own_of_few) / ((many - few) * 1000);
    println!(
        "{} KiB at most with {} files known, {} KiB with {}; {each} bytes for each; {} descriptors",
        peak_of_few >> 10,
        few * 1000,
        peak_of_many >> 10,
        many * 1000,
        descriptors(&mount)
    );
    assert!(own_of_few <= EMPTY && each <= EACH, "{own_of_few} bytes, and {each} for each file");
    // what is forgotten makes room for what comes next
    forget(&mount);
    assert_eq!(walk(mount.path(), many..all), (all - many) * 1000);
    assert!(own(&mount) <= own_of_many + (1 << 20), "{} bytes after {own_of_many}", own(&mount));
    forget(&mount);
    let second = timed(mount.path());
    println!("forgotten and walked again: {} KiB at most; {second:?}", peak(&mount) >> 10);
    assert!(peak(&mount) <= MILLION, "{} bytes", peak(&mount));
    mount.umount();
}
