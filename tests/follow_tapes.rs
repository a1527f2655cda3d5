//! A replica that follows tapes: one after the other, whichever hold what it lacks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use support::follower::{follow, follower, kill};
use support::{History, Random, Sandbox, Tree, wait};

#[test]
fn tapes_are_followed_one_after_the_other_and_a_gap_is_told() {
    let mut history = History::new();
    let to = history.sandbox.path("replica");
    let some = history.copy_of_tapes("some");
    let arguments = ["--tapes", some.to_str().unwrap(), "--once"];
    fs::remove_file(history.tape_in(&some, 3)).unwrap();
    fs::remove_file(history.tape_in(&some, 4)).unwrap();
    follow(&history.sandbox, &arguments, &to).ok();
    history.states[0].assert_same(&Tree::of(&to), "at the first marker");
    // the tape after the next comes first
    fs::copy(history.tape(4), history.tape_in(&some, 4)).unwrap();
    follow(&history.sandbox, &arguments, &to).refused(15, &["a tape is missing"]);
    history.states[0].assert_same(&Tree::of(&to), "still there");
    fs::copy(history.tape(3), history.tape_in(&some, 3)).unwrap();
    let child = follower(&history.sandbox, &arguments[..2], &to);
    history.go_on(4);
    let copied = history.sandbox.path("part");
    fs::copy(history.tape(5), &copied).unwrap();
    fs::rename(&copied, history.tape_in(&some, 5)).unwrap();
    let is_there = wait::until(Duration::from_secs(60), || to.join("new4").exists());
    assert_eq!((is_there, kill(child, Signal::INT)), (true, Some(0)));
    follow(&history.sandbox, &arguments, &to).ok();
    history.states[3].assert_same(&Tree::of(&to), "with the new tape");
    let other = History::new();
    let foreign = ["--tapes", other.tapes.to_str().unwrap(), "--once"];
    follow(&history.sandbox, &foreign, &to).refused(21, &["another"]);
}

/// The newest tape of a directory.
fn newest(sandbox: &Sandbox, tapes: &Path) -> PathBuf {
    let is_update = |tape: &PathBuf| tape.to_string_lossy().contains(".upd.");
    sandbox.tapes(tapes).into_iter().filter(is_update).max().unwrap()
}

/// A bit of the bytes is another one; what says what the tape is reads as before.
fn rot(tape: &Path) -> Vec<u8> {
    let whole = fs::read(tape).unwrap();
    let mut rotten = whole.clone();
    rotten[whole.len() / 2] ^= 1;
    fs::write(tape, rotten).unwrap();
    whole
}

#[test]
fn a_tape_that_is_rotten_is_gone_round_or_waited_for() {
    let sandbox = Sandbox::new();
    let [pvol, tapes, others] = ["pvol", "tapes", "others"].map(|name| sandbox.directory(name));
    let to = sandbox.path("replica");
    sandbox.group_of_size("docs", &pvol, "64MiB");
    sandbox.base("docs", &tapes);
    sandbox.base("docs", &others);
    let one = ["--tapes", tapes.to_str().unwrap(), "--once"];
    let write = |name: &str| {
        let mount = sandbox.mount("docs", "mnt");
        fs::write(mount.join(name), Random::new(name, 0).bytes(300_000)).unwrap();
        mount.umount();
        sandbox.export("docs", &tapes);
        newest(&sandbox, &tapes)
    };
    write("begin");
    sandbox.export("docs", &others);
    follow(&sandbox, &one, &to).ok();
    // another tape holds the same records, and more
    rot(&write("first"));
    write("second");
    sandbox.export("docs", &others);
    follow(&sandbox, &one, &to).refused(19, &["altered"]);
    assert!(!to.join("first").exists());
    let both = ["--tapes", tapes.to_str().unwrap(), "--tapes", others.to_str().unwrap(), "--once"];
    follow(&sandbox, &both, &to).ok();
    Tree::of(&pvol).assert_same(&Tree::of(&to), "round the rotten tape");
    // nobody else has it: it is waited for
    let last = write("third");
    let whole = rot(&last);
    let child = follower(&sandbox, &one[..2], &to);
    let log = || fs::read_to_string(sandbox.path("follower.log")).unwrap();
    assert!(wait::until(Duration::from_secs(60), || log().contains("waiting for a whole one")), "{}", log());
    // beside it, under a name that comes later; and then in its place
    fs::write(last.with_file_name("zzz.upd.reel.tar.zst"), &whole).unwrap();
    let is_there = |name: &str| wait::until(Duration::from_secs(60), || to.join(name).exists());
    assert!(is_there("third"), "{}", log());
    let last = write("fourth");
    let whole = rot(&last);
    let copied = sandbox.path("part");
    fs::write(&copied, whole).unwrap();
    fs::rename(&copied, &last).unwrap();
    assert_eq!((is_there("fourth"), kill(child, Signal::INT)), (true, Some(0)), "{}", log());
    follow(&sandbox, &one, &to).ok();
    Tree::of(&pvol).assert_same(&Tree::of(&to), "with the whole tape");
}

/// What the kernel has counted of the reading of a process.
fn counter(process: u32, name: &str) -> u64 {
    let counters = fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    counters.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

#[test]
fn who_waits_for_the_time_of_a_tape_does_not_read_it_again() {
    const LENGTH: u64 = 8 << 20;
    let sandbox = Sandbox::new();
    let [pvol, tapes] = ["pvol", "tapes"].map(|name| sandbox.directory(name));
    let to = sandbox.path("replica");
    sandbox.group_of_size("docs", &pvol, "64MiB");
    sandbox.base("docs", &tapes);
    let mount = sandbox.mount("docs", "mnt");
    fs::write(mount.join("first"), b"first").unwrap();
    sandbox.export("docs", &tapes);
    follow(&sandbox, &["--tapes", tapes.to_str().unwrap(), "--once"], &to).ok();
    fs::write(mount.join("large"), Random::new("large", 0).bytes(LENGTH)).unwrap();
    mount.umount();
    sandbox.export("docs", &tapes);
    let child = follower(&sandbox, &["--tapes", tapes.to_str().unwrap(), "--delay", "15s"], &to);
    let read = || counter(child.id(), "rchar: ");
    // once to see what is in it, and nothing of it is old enough
    assert!(wait::until(Duration::from_secs(60), || read() > LENGTH));
    wait::pause(Duration::from_secs(1));
    let before = read();
    wait::pause(Duration::from_secs(3));
    let (again, length) = (read() - before, || fs::metadata(to.join("large")).map_or(0, |found| found.len()));
    assert!(again < LENGTH || length() > 0, "{again} bytes");
    assert!(wait::until(Duration::from_secs(60), || length() == LENGTH), "it comes when its time has come");
    assert_eq!(kill(child, Signal::INT), Some(0));
    follow(&sandbox, &["--tapes", tapes.to_str().unwrap(), "--once"], &to).ok();
    Tree::of(&pvol).assert_same(&Tree::of(&to), "after the delay");
}

#[test]
fn who_waits_for_tapes_looks_now_and_then() {
    let history = History::new();
    let to = history.sandbox.path("replica");
    let child = follower(&history.sandbox, &["--tapes", history.tapes.to_str().unwrap()], &to);
    assert!(wait::until(Duration::from_secs(60), || to.join("new3").exists()));
    let looks = || counter(child.id(), "syscr: ");
    // its first copy is done some moments later
    let is_idle = || {
        let before = looks();
        wait::pause(Duration::from_secs(2));
        looks() - before < 200
    };
    assert!(wait::until(Duration::from_secs(30), is_idle), "its own looks wake it up");
    assert_eq!(kill(child, Signal::INT), Some(0));
}
