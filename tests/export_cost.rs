//! What an export costs: it reads what is new, and gives room with every tape that it has written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use support::{Disk, FileSystem, Mount, Random, Sandbox, tools};

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

fn write(mount: &Mount, name: &str, mebibytes: u64) {
    fs::write(mount.join(name), Random::new(name, 0).bytes(mebibytes << 20)).unwrap();
}

/// Bytes that the process behind a mount has read, from wherever.
fn has_read(mount: &Mount) -> u64 {
    let table = fs::read_to_string(format!("/proc/{}/io", mount.pid().as_raw_nonzero())).unwrap();
    table.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn an_export_does_not_read_what_another_directory_still_needs() {
    let sandbox = Sandbox::new();
    let (late, often) = (sandbox.directory("late"), sandbox.directory("often"));
    sandbox.group_of_size("cost", &sandbox.directory("pvol"), "64MiB");
    let mount = sandbox.mount("cost", "mnt");
    sandbox.base("cost", &late);
    sandbox.export("cost", &late);
    write(&mount, "large", 32);
    sandbox.export("cost", &often);
    let before = has_read(&mount);
    for number in 0..4 {
        fs::write(mount.join("small"), [number; 100]).unwrap();
        sandbox.export("cost", &often);
    }
    let read = has_read(&mount) - before;
    assert!(read < 4 << 20, "four exports of a few records read {read} bytes");
    // and what the other one gets is whole
    sandbox.export("cost", &late);
    mount.umount();
    sandbox.reelfs(["tape", "verify", text(&late)]).ok();
    sandbox.reelfs(["tape", "verify", text(&often)]).ok();
}

#[test]
fn an_export_that_stops_half_way_has_made_room_with_every_tape() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 16);
    let tapes = disk.directory("tapes");
    sandbox.group_of_size("room", &sandbox.directory("pvol"), "16MiB");
    sandbox.base("room", &tapes);
    let mount = sandbox.mount("room", "mnt");
    write(&mount, "large", 11);
    let used = || {
        let status = sandbox.reelfs(["status", "room", "--json"]).ok().json();
        status["groups"][0]["journal"]["used_ratio"].as_f64().unwrap()
    };
    let before = used();
    assert!(before > 0.6, "{before}");
    // what is left is room for two tapes of a quarter of the journal
    fs::write(disk.path().join("other"), vec![1; 3 << 20]).unwrap();
    sandbox
        .reelfs(["tape", "export", "room", "--to", text(&tapes)])
        .refused(22, &["is full", "No space left", "make room"]);
    let made = sandbox.tapes(&tapes).len() - 1;
    let after = used();
    assert!((1..=3).contains(&made), "{made} tapes");
    assert!(after < before - 0.2 * made as f64, "{made} tapes and {after} of the journal used after {before}");
    fs::remove_file(disk.path().join("other")).unwrap();
    mount.umount();
}

/// Whoever frees the journal names what is in use once more. That must not be what the next one finds new.
#[test]
fn a_group_that_nobody_writes_to_comes_to_rest_however_many_export_it() {
    let sandbox = Sandbox::new();
    let (pvol, shelves) = (sandbox.directory("pvol"), ["one", "two"].map(|name| sandbox.directory(name)));
    sandbox.group("docs", &pvol);
    let mount = sandbox.mount("docs", "mnt");
    shelves.iter().for_each(|shelf| drop(sandbox.base("docs", shelf)));
    for round in 0..3 {
        for shelf in &shelves {
            fs::write(mount.join("file"), format!("round {round}")).unwrap();
            sandbox.export("docs", shelf);
        }
    }
    let last = || sandbox.reelfs(["status", "--json"]).ok().json()["groups"][0]["journal"]["last"].clone();
    let all = || shelves.each_ref().map(|shelf| sandbox.tapes(shelf).len());
    let round = || shelves.iter().for_each(|shelf| drop(sandbox.export("docs", shelf)));
    round();
    let before = (last(), all());
    (0..3).for_each(|_| round());
    assert_eq!((last(), all()), before, "it exports what exporting it has left");
    mount.umount();
}
