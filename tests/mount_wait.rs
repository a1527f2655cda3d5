//! `reelfs mount --wait`: who gives it a time gets an answer within it, and nothing stays behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use support::{Sandbox, mount, wait};

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

#[test]
fn a_mount_that_is_not_live_in_time_is_ended_and_the_next_one_finds_everything() {
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mnt"));
    sandbox.group("late", &pvol);
    // the process behind the mount waits for ever for somebody who reads its log
    let log = sandbox.state().join("groups/late/daemon.log");
    rustix::fs::mknodat(CWD, &log, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let mounted = ["mount", "late", text(&point), "--wait", "300ms"];
    let begin = wait::now();
    sandbox.reelfs(mounted).refused(17, &["not mounted within 300ms", "without --wait"]);
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    assert!(!mount::is_mounted(&point), "it is mounted all the same");
    fs::remove_file(&log).unwrap();

    sandbox.reelfs(mounted.map(|word| if word == "300ms" { "1m" } else { word })).ok();
    fs::write(point.join("file"), "written").unwrap();
    sandbox.reelfs(["umount", text(&point)]).ok();
    assert_eq!(fs::read_to_string(pvol.join("file")).unwrap(), "written");
}

#[test]
fn a_time_that_is_none_or_a_mount_that_stays_in_the_foreground_is_refused() {
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mnt"));
    sandbox.group("words", &pvol);
    let refused = [
        (["--wait", "soon"], "--wait"),
        (["--wait=1s", "-f"], "cannot be used with"),
        (["--wait=1s", "--print-unit"], "cannot be used with"),
    ];
    for (words, sentence) in refused {
        sandbox.reelfs(["mount", "words", text(&point)].into_iter().chain(words)).refused(2, &[sentence]);
    }
    assert!(!mount::is_mounted(&point));
}
