//! How many requests it takes to walk a tree: few for what the kernel learns, none for what it knows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use support::{Mount, Sandbox};

const DIRECTORIES: u64 = 100;
const FILES: u64 = 200;

/// Reads that the daemon has made, each of which took a request from the kernel. What else it reads is little.
fn requests(mount: &Mount) -> u64 {
    let counters = fs::read_to_string(format!("/proc/{}/io", mount.pid().as_raw_nonzero())).unwrap();
    counters.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
}

/// Lists each directory to its end and then stats what is in it, as `find`, `du` and `ls -l` do; gives how many files there are.
fn walk(root: &Path) -> u64 {
    let mut files = 0;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        for entry in entries {
            if fs::symlink_metadata(&entry).unwrap().is_dir() {
                directories.push(entry);
            } else {
                files += 1;
            }
        }
    }
    files
}

#[test]
fn a_listing_brings_the_attributes_and_what_is_known_is_not_asked_for() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    for number in 0..DIRECTORIES {
        let directory = pvol.join(format!("directory{number}"));
        fs::create_dir(&directory).unwrap();
        (0..FILES).for_each(|file| drop(File::create(directory.join(format!("a-file-in-it-{file}"))).unwrap()));
    }
    sandbox.group("walked", &pvol);
    let mount = sandbox.mount("walked", "mnt");
    let asked = |what: &str| {
        let before = requests(&mount);
        assert_eq!(walk(mount.path()), DIRECTORIES * FILES);
        let asked = requests(&mount) - before;
        println!("{what}: {asked} requests for {} files in {DIRECTORIES} directories", DIRECTORIES * FILES);
        asked
    };
    // attributes of a directory, and its pages of some hundred entries
    assert!(asked("first") <= DIRECTORIES * 8, "each file was asked for");
    // the kernel asks for the attributes of what it has read once more, for the time of access
    assert!(asked("second") <= DIRECTORIES * 2);
    assert!(asked("third") <= DIRECTORIES / 2);
    mount.umount();
}
