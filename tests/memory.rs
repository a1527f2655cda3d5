//! What the mount process needs of memory when the volume is large and the kernel knows all of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};

use support::{Mount, Sandbox, tools};

/// What a file takes that the kernel knows, in bytes, at most.
const EACH: usize = 256;
/// What a mount takes that knows nothing, at most.
const EMPTY: usize = 32 << 20;

/// A field of the process's status, in bytes.
fn field(mount: &Mount, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kibibytes: usize = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes << 10
}

#[test]
fn a_file_that_the_kernel_knows_takes_little() {
    let files = tools::rounds(28_000, 1_000_000);
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    for number in 0..files {
        let directory = pvol.join(format!("d{}", number / 1000));
        if number % 1000 == 0 {
            fs::create_dir(&directory).unwrap();
        }
        File::create(directory.join(format!("f{number}"))).unwrap();
    }
    sandbox.group("large", &pvol);
    let mount = sandbox.mount("large", "mnt");
    let opened = field(&mount, "VmHWM");
    // what the first few need is of other things
    walkdir::WalkDir::new(mount.join("d0")).into_iter().for_each(|entry| {
        entry.unwrap().metadata().unwrap();
    });
    let few = field(&mount, "VmHWM");
    let mut seen = 0;
    for entry in walkdir::WalkDir::new(mount.path()) {
        seen += usize::from(entry.unwrap().metadata().unwrap().is_file());
    }
    assert_eq!(seen, files);
    let (most, now) = (field(&mount, "VmHWM"), field(&mount, "VmRSS"));
    println!(
        "{files} files: {} KiB at the mount, {} KiB with a thousand known, {} KiB at most, {} KiB now",
        opened >> 10,
        few >> 10,
        most >> 10,
        now >> 10
    );
    let each = (most - few) / (files - 1000);
    assert!(few <= EMPTY && each <= EACH, "{few} bytes, and {each} for each file");
    mount.umount();
}
