//! A replica that follows: the twin of the primary whenever it stops, killed as often as one likes, from the journal and from tapes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reelfs_journal::disk::{FAILPOINT_VARIABLE, Label};
use rustix::fs::{CWD, RenameFlags, XattrFlags};
use rustix::process::Signal;
use support::follower::{follow, follower, kill};
use support::{Disk, FileSystem, History, Random, Sandbox, Tree, program, tools, wait};

fn same(pvol: &Path, replica: &Path, when: &str) {
    Tree::of(pvol).assert_same(&Tree::of(replica), when);
}

/// Names, bytes and attributes, all over a few directories.
fn act(root: &Path, random: &mut Random) {
    let directories = ["", "a", "b", "a/c"];
    let place = |random: &mut Random| {
        let directory = directories[usize::try_from(random.below(4)).unwrap()];
        root.join(directory).join(format!("n{}", random.below(8)))
    };
    let (one, two) = (place(random), place(random));
    let length = random.below(60_000);
    // much of it fails, because something else is there or nothing is
    match random.below(14) {
        0..=2 => drop(fs::write(&one, random.bytes(length))),
        3 | 4 => {
            if let Ok(file) = File::options().write(true).open(&one) {
                drop(file.write_all_at(&random.bytes(length / 4), random.below(100_000)));
            }
        }
        5 => drop(File::options().write(true).open(&one).and_then(|file| file.set_len(random.below(80_000)))),
        6 | 7 => drop(fs::rename(&one, &two)),
        8 => _ = rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE),
        9 => drop(fs::hard_link(&one, &two)),
        10 => drop(fs::remove_file(&one).or_else(|_| fs::remove_dir(&one))),
        11 => drop(fs::create_dir(&one)),
        12 => drop(fs::set_permissions(&one, fs::Permissions::from_mode(0o600 + u32::try_from(length % 64).unwrap()))),
        _ => {
            let value = random.bytes(8);
            _ = rustix::fs::setxattr(&one, "user.test", &value, XattrFlags::empty());
            drop(std::os::unix::fs::symlink("a/n1", &two));
        }
    }
}

/// A group `docs` with some files, a small journal, not mounted.
fn group(sandbox: &Sandbox) -> PathBuf {
    let pvol = sandbox.directory("pvol");
    for directory in ["a", "b", "a/c"] {
        fs::create_dir(pvol.join(directory)).unwrap();
    }
    let mut random = Random::new("follow", 0);
    (0..60).for_each(|_| act(&pvol, &mut random));
    sandbox.group_of_size("docs", &pvol, "64MiB");
    pvol
}

#[test]
fn a_replica_is_the_twin_while_mounted_and_while_not() {
    let sandbox = Sandbox::new();
    let (pvol, replica) = (group(&sandbox), sandbox.path("replica"));
    let mut random = Random::new("follow", 1);
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    same(&pvol, &replica, "after the first copy, not mounted");
    let mount = sandbox.mount("docs", "mnt");
    for round in 0..4 {
        (0..300).for_each(|_| act(mount.path(), &mut random));
        mount.sync();
        follow(&sandbox, &["docs", "--once"], &replica).ok();
        same(&pvol, &replica, &format!("mounted, round {round}"));
    }
    (0..300).for_each(|_| act(mount.path(), &mut random));
    mount.umount();
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    same(&pvol, &replica, "unmounted");
    let told = follow(&sandbox, &["--status", "--json"], &replica).ok().json();
    assert!(told["inside"].is_null() && told["applying"].is_null() && told["group"] == "docs", "{told}");
    // nothing is left of the first copy, here or in the group
    assert!(!sandbox.path("replica.replica/base").exists());
    let shown = sandbox.reelfs(["status", "docs", "--json"]).ok().json();
    assert_eq!(shown["groups"][0]["targets"].as_array().unwrap().len(), 0, "{shown}");
}

#[test]
fn a_replica_begins_at_a_base_that_the_journal_holds() {
    let sandbox = Sandbox::new();
    let (pvol, replica) = (group(&sandbox), sandbox.path("replica"));
    sandbox.reelfs(["base", "copy", "docs", "--through-journal"]).ok();
    let base = || {
        let file = fs::read_to_string(sandbox.state().join("groups/docs/group.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&file).unwrap()["volumes"][0]["base"].clone()
    };
    let told = base();
    assert!(told["began"].is_u64(), "{told}");
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    same(&pvol, &replica, "from the base in the journal");
    assert_eq!(base(), told, "the volume was not read once more");
}

#[test]
fn killed_at_any_moment_it_goes_on_and_is_the_twin() {
    let sandbox = Sandbox::new();
    let (pvol, replica) = (group(&sandbox), sandbox.path("replica"));
    let mount = sandbox.mount("docs", "mnt");
    let (mut random, mut kills) = (Random::new("follow", 2), Random::new("kill", 2));
    let mut killed_inside = 0;
    for round in 0..tools::rounds(24, 200) {
        let child = follower(&sandbox, &["docs"], &replica);
        // the first ones hit the first copy
        let length = Duration::from_millis(if round < 4 { 20 + kills.below(200) } else { 200 + kills.below(500) });
        let begin = wait::now();
        while begin.elapsed() < length {
            act(mount.path(), &mut random);
        }
        kill(child, Signal::KILL);
        let told = follow(&sandbox, &["--status", "--json"], &replica);
        let is_inside = told.code == 0 && !told.json()["applying"].is_null();
        killed_inside += usize::from(is_inside);
        if is_inside || round % 6 == 5 {
            mount.sync();
            follow(&sandbox, &["docs", "--once"], &replica).ok();
            same(&pvol, &replica, &format!("after kill {round}"));
        }
    }
    assert!(killed_inside > 0, "no kill hit a batch");
    let child = follower(&sandbox, &["docs"], &replica);
    sandbox.reelfs(["mark", "docs", "end", "--wait", "applied", "--wait-timeout", "60s"]).ok();
    follow(&sandbox, &["docs", "--once"], &replica).refused(11, &["another reelfs follows"]);
    assert_eq!(kill(child, Signal::TERM), Some(0), "{}", fs::read_to_string(sandbox.path("follower.log")).unwrap());
    mount.umount();
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    same(&pvol, &replica, "at the end");
}

#[test]
fn somebody_elses_hand_in_a_replica_is_told_and_nothing_is_done() {
    let history = History::new();
    let arguments = ["--tapes", history.tapes.to_str().unwrap(), "--once"];
    let hand = |name: &str, what: &dyn Fn(&Path), sentence: &str| {
        let to = history.sandbox.path(name);
        follow(&history.sandbox, &arguments, &to).ok();
        follow(&history.sandbox, &arguments, &to).ok();
        wait::pause(Duration::from_millis(20));
        what(&to);
        follow(&history.sandbox, &arguments, &to).refused(14, &["changed by somebody", sentence]);
    };
    hand("added", &|to| fs::write(to.join("d/mine"), "x").unwrap(), "d/mine");
    hand("written", &|to| fs::write(to.join("d/was-there"), "x").unwrap(), "d/was-there");
    hand("removed", &|to| fs::remove_file(to.join("new1")).unwrap(), "gone");
    hand("replaced", &|to| fs::rename(to.join("new1"), to.join("new2")).unwrap(), "gone");
    let full = history.sandbox.directory("full");
    fs::write(full.join("mine"), "x").unwrap();
    follow(&history.sandbox, &arguments, &full).refused(14, &["not empty"]);
}

#[test]
fn a_suspension_and_its_resync_are_followed() {
    let sandbox = Sandbox::new();
    let (pvol, replica) = (group(&sandbox), sandbox.path("replica"));
    let mut random = Random::new("follow", 3);
    let mount = sandbox.mount("docs", "mnt");
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    for round in 0..3 {
        (0..200).for_each(|_| act(mount.path(), &mut random));
        mount.sync();
        sandbox.reelfs(["pair", "split", "docs"]).ok();
        let before = Tree::of(&pvol);
        (0..400).for_each(|_| act(mount.path(), &mut random));
        mount.sync();
        follow(&sandbox, &["docs", "--once"], &replica).ok();
        before.assert_same(&Tree::of(&replica), "as it was when it was suspended");
        sandbox.reelfs(["pair", "resync", "docs"]).ok();
        follow(&sandbox, &["docs", "--once"], &replica).ok();
        same(&pvol, &replica, &format!("after resync {round}"));
    }
    mount.umount();
}

#[test]
fn the_journal_keeps_what_a_replica_has_not_confirmed_until_it_is_forgotten() {
    let sandbox = Sandbox::new();
    let (pvol, replica, tapes) = (group(&sandbox), sandbox.path("replica"), sandbox.directory("tapes"));
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    let mount = sandbox.mount("docs", "mnt");
    let shown = || sandbox.reelfs(["journal", "show", "docs", "--json"]).ok().json();
    let restored = || shown()["consumers"][0]["already_restored"].as_u64().unwrap();
    fs::write(mount.join("file"), "one").unwrap();
    let before = restored();
    sandbox.base("docs", &tapes);
    sandbox.export("docs", &tapes);
    assert_eq!(shown()["journal_out"].as_u64().unwrap(), before + 1, "{}", shown());
    sandbox.mark("docs", "here");
    sandbox.reelfs(["wait", "docs", "--applied", "marker:here", "--timeout", "1s"]).refused(17, &["not applied"]);
    let child = follower(&sandbox, &["docs"], &replica);
    sandbox.reelfs(["wait", "docs", "--applied", "marker:here", "--timeout", "60s"]).ok();
    sandbox.reelfs(["mark", "docs", "there", "--wait", "applied", "--wait-timeout", "60s"]).ok();
    assert!(restored() > before);
    kill(child, Signal::TERM);
    same(&pvol, &replica, "at a marker that was waited for");
    fs::write(mount.join("file"), "two").unwrap();
    let kept = restored();
    sandbox.export("docs", &tapes);
    assert_eq!(shown()["journal_out"].as_u64().unwrap(), kept + 1);
    follow(&sandbox, &["docs", "--forget"], &replica).ok();
    assert!(shown()["journal_out"].as_u64().unwrap() > kept + 1, "{}", shown());
    follow(&sandbox, &["docs", "--once"], &replica).refused(15, &["freed"]);
    follow(&sandbox, &["docs", "--forget"], &replica).refused(10, &["knows nothing of"]);
    sandbox.reelfs(["wait", "docs", "--applied", "latest"]).refused(16, &["nobody"]);
    mount.umount();
}

#[test]
fn a_far_site_acknowledges_and_space_waits_for_it_where_that_is_wanted() {
    let sandbox = Sandbox::new();
    let (_, tapes) = (group(&sandbox), sandbox.directory("tapes"));
    sandbox.base("docs", &tapes);
    let mount = sandbox.mount("docs", "mnt");
    let shown = || sandbox.reelfs(["journal", "show", "docs", "--json"]).ok().json();
    let number = |field: &str| shown()[field].as_u64().unwrap();
    let ack = |arguments: &[&str]| sandbox.reelfs(["tape", "ack", "docs"].iter().chain(arguments));
    let first = number("journal_out") - 1;
    ack(&["--upto", &first.to_string(), "--require", "yes"]).ok();
    fs::write(mount.join("file"), "one").unwrap();
    sandbox.export("docs", &tapes);
    assert_eq!(number("journal_out"), first + 1, "kept for the site");
    ack(&["--upto", &(number("journal_in") + 5).to_string()]).refused(13, &["on no tape"]);
    let exported =
        shown()["consumers"].as_array().unwrap().iter().find_map(|known| known["already_read"].as_u64()).unwrap();
    ack(&["--upto", &exported.to_string()]).ok();
    assert_eq!(number("journal_out"), exported + 1);
    let back = ack(&["--upto", &first.to_string(), "--json"]).ok().json();
    assert_eq!(back["already_restored"].as_u64().unwrap(), exported, "never back");
    sandbox.reelfs(["wait", "docs", "--applied", &format!("seq:{exported}"), "--timeout", "5s"]).ok();
    ack(&["--upto", &exported.to_string(), "--require", "no"]).ok();
    fs::write(mount.join("file"), "two").unwrap();
    sandbox.export("docs", &tapes);
    assert!(number("journal_out") > exported + 1, "an exported tape counts as confirmed");
    mount.umount();
}

#[test]
fn each_volume_of_a_group_has_a_replica_of_its_own() {
    let sandbox = Sandbox::new();
    sandbox.reelfs(["group", "create", "shop", "--size", "64MiB", "--on-full", "block"]).ok();
    let mut random = Random::new("follow", 4);
    let pvols = ["db", "logs"].map(|volume| {
        let pvol = sandbox.directory(volume);
        ["a", "b", "a/c"].iter().for_each(|directory| fs::create_dir(pvol.join(directory)).unwrap());
        (0..60).for_each(|_| act(&pvol, &mut random));
        sandbox.reelfs(["pair", "create", &format!("shop/{volume}"), "--pvol", pvol.to_str().unwrap()]).ok();
        pvol
    });
    let (replicas, tapes) = (["db-replica", "logs-replica"].map(|name| sandbox.path(name)), sandbox.directory("tapes"));
    follow(&sandbox, &["shop", "--once"], &replicas[0]).refused(2, &["several volumes", "shop/db, shop/logs"]);
    assert!(!replicas[0].exists());
    sandbox.base("shop", &tapes);
    let compare = |when: &str| {
        for ((volume, pvol), replica) in ["shop/db", "shop/logs"].iter().zip(&pvols).zip(&replicas) {
            follow(&sandbox, &[volume, "--once"], replica).ok();
            same(pvol, replica, &format!("{volume} {when}"));
        }
    };
    compare("after the first copy");
    let db = sandbox.mount("shop/db", "mnt-db");
    let logs = sandbox.directory("mnt-logs");
    sandbox.reelfs(["mount", "shop/logs", logs.to_str().unwrap()]).ok();
    let mut both = |count: u64| (0..count).for_each(|_| [db.path(), &logs].iter().for_each(|at| act(at, &mut random)));
    both(200);
    db.sync();
    compare("mounted");
    // the one is suspended and told again while the other goes on
    sandbox.reelfs(["pair", "split", "shop/logs"]).ok();
    both(200);
    db.sync();
    let before = Tree::of(&replicas[1]);
    follow(&sandbox, &["shop/db", "--once"], &replicas[0]).ok();
    same(&pvols[0], &replicas[0], "while the other is suspended");
    sandbox.reelfs(["pair", "resync", "shop/logs"]).ok();
    both(50);
    before.assert_same(&Tree::of(&replicas[1]), "nobody followed");
    db.sync();
    compare("after a resync");
    sandbox.export("shop", &tapes);
    sandbox.reelfs(["umount", logs.to_str().unwrap()]).ok();
    db.umount();
    follow(&sandbox, &["shop/logs", "--once"], &replicas[0]).refused(21, &["a replica of volume db"]);
    let (from_tapes, arguments) = (sandbox.path("from-tapes"), ["--tapes", tapes.to_str().unwrap(), "--once"]);
    follow(&sandbox, &arguments, &from_tapes).refused(2, &["several volumes", "shop/db, shop/logs"]);
    follow(&sandbox, &["shop/logs", arguments[0], arguments[1], arguments[2]], &from_tapes).ok();
    same(&pvols[1], &from_tapes, "from tapes");
    assert_eq!(follow(&sandbox, &["--status", "--json"], &from_tapes).ok().json()["volume"], "logs");
    // who leaves takes those along for whom the journal keeps its records
    sandbox.reelfs(["pair", "delete", "shop/logs"]).ok();
    let shown = sandbox.reelfs(["journal", "show", "shop", "--json"]).ok().json();
    let known = shown["consumers"].as_array().unwrap().iter().filter(|known| known["kind"] == "replica");
    assert_eq!(known.map(|known| known["volume"].clone()).collect::<Vec<_>>(), ["db"], "{shown}");
    follow(&sandbox, &["shop/logs", "--once"], &replicas[1]).refused(10, &["has left the group"]);
    follow(&sandbox, &["shop", "--once"], &replicas[0]).ok();
    same(&pvols[0], &replicas[0], "alone");
}

/// Places at which a first copy is killed.
const FIRST: [Label; 5] =
    [Label::ReplicaRemove, Label::ObjectsCreate, Label::ObjectsWrite, Label::ObjectsSync, Label::ObjectsNameSync];
/// Places at which a batch is.
const LATER: [Label; 7] = [
    Label::ReplicaCreate,
    Label::ReplicaWrite,
    Label::ReplicaSync,
    Label::ReplicaRename,
    Label::ReplicaNameSync,
    Label::ObjectsAppend,
    Label::ObjectsAppendSync,
];

/// Follows once, and is killed at this place.
fn killed_at(sandbox: &Sandbox, label: Label, when: &str, to: &Path) {
    let mut command = std::process::Command::new(program::BINARY);
    program::with_environment(&mut command, &sandbox.state());
    command.args(["follow", "docs", "--once", "--to"]).arg(to);
    command.env(FAILPOINT_VARIABLE, format!("{}:{when}", label.name()));
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.signal(), Some(9), "{} {when}: {status}", label.name());
}

#[test]
fn a_first_copy_that_was_killed_can_be_forgotten() {
    if !tools::has_failpoints() {
        return;
    }
    let sandbox = Sandbox::new();
    group(&sandbox);
    let tapes = sandbox.directory("tapes");
    sandbox.base("docs", &tapes);
    let mount = sandbox.mount("docs", "mnt");
    let replica = sandbox.path("replica");
    let out = || sandbox.reelfs(["journal", "show", "docs", "--json"]).ok().json()["journal_out"].as_u64().unwrap();
    for (label, is_removed) in FIRST.into_iter().zip([false, true].into_iter().cycle()) {
        fs::write(mount.join("file"), label.name()).unwrap();
        killed_at(&sandbox, label, "before", &replica);
        if is_removed {
            fs::remove_dir_all(sandbox.path("replica.replica")).unwrap();
        }
        follow(&sandbox, &["docs", "--forget"], &replica).ok();
        follow(&sandbox, &["docs", "--forget"], &replica).refused(10, &["knows nothing of"]);
        let before = out();
        fs::write(mount.join("file"), "more").unwrap();
        sandbox.export("docs", &tapes);
        sandbox.export("docs", &tapes);
        assert!(out() > before, "nobody is left to be waited for");
    }
    mount.umount();
}

#[test]
fn killed_where_it_notes_what_it_has_it_goes_on_and_is_the_twin() {
    if !tools::has_failpoints() {
        return;
    }
    let sandbox = Sandbox::new();
    let pvol = group(&sandbox);
    let mut random = Random::new("follow", 5);
    let mount = sandbox.mount("docs", "mnt");
    let killed = |label: Label, when: &str, to: &Path| killed_at(&sandbox, label, when, to);
    for (round, label) in FIRST.into_iter().enumerate() {
        for when in ["before", "after"] {
            let replica = sandbox.path(&format!("replica-{round}-{when}"));
            killed(label, when, &replica);
            follow(&sandbox, &["docs", "--once"], &replica).ok();
            same(&pvol, &replica, &format!("{} {when}", label.name()));
            follow(&sandbox, &["docs", "--forget"], &replica).ok();
        }
    }
    let replica = sandbox.path("replica");
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    for label in LATER {
        for when in ["before", "after", "before:2", "after:2"] {
            // a batch is noted at its beginning and at its end, and its objects once
            if when.ends_with('2') && label.name().starts_with("Objects") {
                continue;
            }
            (0..40).for_each(|_| act(mount.path(), &mut random));
            fs::write(mount.join(&format!("{}-{when}", label.name())), "new").unwrap();
            mount.sync();
            killed(label, when, &replica);
            follow(&sandbox, &["docs", "--once"], &replica).ok();
            same(&pvol, &replica, &format!("{} {when}", label.name()));
        }
    }
    mount.umount();
}

#[test]
fn it_goes_on_after_a_power_cut_of_the_primary() {
    if !tools::root() || !tools::present(&["mkfs.ext4", "xfs_io"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 200);
    let (pvol, journal, replica) = (disk.directory("pvol"), disk.directory("journal"), sandbox.path("replica"));
    let [pvol_text, journal, point] = [&pvol, &journal, disk.path()].map(|path| path.to_str().unwrap());
    let (create, how) = (["group", "create", "docs", "--pvol", pvol_text, "--journal", journal], ["--size", "64MiB"]);
    sandbox.reelfs(create.into_iter().chain(how).chain(["--on-full", "block", "--export-at", "never"])).ok();
    let mount = sandbox.mount("docs", "mnt");
    fs::write(mount.path().join("first"), "in the replica from the beginning").unwrap();
    mount.umount();
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    let first = fs::metadata(replica.join("first")).unwrap().ino();
    let mut random = Random::new("follow", 7);
    for round in 0..tools::rounds(4, 40) {
        let mount = sandbox.mount("docs", "mnt");
        let child = follower(&sandbox, &["docs"], &replica);
        for number in 0..400 {
            act(mount.path(), &mut random);
            if number == 300 {
                mount.sync();
            }
        }
        tools::run("xfs_io", &["-x", "-c", "shutdown", point]);
        mount.kill();
        kill(child, Signal::KILL);
        disk.umount();
        disk.mount();
        sandbox.mount("docs", "mnt").umount();
        assert_eq!(sandbox.reelfs(["group", "show", "docs", "--json"]).ok().json()["epoch"], 1, "round {round}");
        follow(&sandbox, &["docs", "--once"], &replica).ok();
        same(&pvol, &replica, &format!("after cut {round}"));
        assert_eq!(fs::metadata(replica.join("first")).unwrap().ino(), first, "round {round}: made anew");
    }
}
