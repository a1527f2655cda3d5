//! Processors are kept from halting while requests come in rows, and no longer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{Mount, Sandbox, tools, wait};

const DEVICE: &str = "/dev/cpu_dma_latency";

/// Whether the process of a mount asks for it now.
fn is_held(mount: &Mount) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", mount.pid().as_raw_nonzero())).unwrap();
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(DEVICE)))
}

/// Whether it is ever held while somebody makes files one after the other.
fn is_held_in_a_row(mount: &Mount, patience: Duration) -> bool {
    let (place, is_over) = (mount.path().to_owned(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                fs::write(place.join("file"), "bytes").unwrap();
                fs::remove_file(place.join("file")).unwrap();
            }
        });
        let seen = wait::until(patience, || is_held(mount));
        is_over.store(true, Ordering::SeqCst);
        seen
    })
}

#[test]
fn it_is_held_while_requests_come_and_given_back() {
    if !tools::root() || !Path::new(DEVICE).exists() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.group("rows", &sandbox.directory("pvol"));
    let mount = Mount::new(&sandbox, "rows", &sandbox.directory("mnt"), &["-o", "awake=on"]);
    assert!(!is_held(&mount), "nobody has asked for anything");
    for _ in 0..2 {
        assert!(is_held_in_a_row(&mount, Duration::from_secs(20)), "requests in a row, and nobody keeps it");
        assert!(wait::until(Duration::from_secs(20), || !is_held(&mount)), "held for ever");
    }
    mount.umount();
    let mount = Mount::new(&sandbox, "rows", &sandbox.directory("mnt"), &["-o", "awake=off"]);
    assert!(!is_held_in_a_row(&mount, Duration::from_secs(1)), "nobody wanted it");
}

#[test]
fn a_word_that_is_none_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.group("rows", &sandbox.directory("pvol"));
    let place = sandbox.directory("mnt");
    sandbox.reelfs(["mount", "rows", place.to_str().unwrap(), "-o", "awake=always"]).refused(2, &["awake=auto|on|off"]);
}
