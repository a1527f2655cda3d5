//! The spare: the disk of the journal goes away under a mount, the group goes on in a spare, and what was lost is never hidden.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Disk, FileSystem, Mount, Random, Sandbox, Tree, tools};

/// A mounted group whose journal lies on a disk of its own, with a spare in a pool elsewhere.
struct Site {
    // before the sandbox that it lies in
    disk: Disk,
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
    pool: PathBuf,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::new();
        let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 96);
        let (pvol, tapes, pool) = (sandbox.directory("pvol"), sandbox.directory("tapes"), sandbox.directory("pool"));
        fs::write(pvol.join("old"), Random::new("spare", 0).bytes(50_000)).unwrap();
        sandbox.reelfs(["journal", "pool", "add", "spares", text(&pool), "--size", "32MiB"]).ok();
        let create = ["group", "create", "docs", "--pvol", text(&pvol), "--journal", text(disk.path())];
        sandbox.reelfs(create.into_iter().chain(["--size", "16MiB", "--spare-pool", "spares"])).ok();
        sandbox.base("docs", &tapes);
        Site { disk, sandbox, pvol, tapes, pool }
    }

    fn mount(&self) -> Mount {
        self.sandbox.mount("docs", "mnt")
    }

    fn break_disk(&self) {
        tools::run("xfs_io", &["-x", "-c", "shutdown", text(self.disk.path())]);
    }

    fn status(&self) -> Value {
        self.sandbox.reelfs(["status", "docs", "--json"]).ok().json()["groups"][0].clone()
    }

    /// After an export the tapes say what the PVOL is.
    fn assert_twin(&self, when: &str) {
        self.sandbox.export("docs", &self.tapes);
        let restored = self.sandbox.restore(&self.tapes, "latest", "restored");
        Tree::of(&self.pvol).assert_same(&Tree::of(&restored), when);
        fs::remove_dir_all(restored).unwrap();
    }

    fn is_in_the_spare(&self) -> bool {
        let shown = self.sandbox.reelfs(["group", "show", "docs", "--json"]).ok().json();
        shown["journal"].as_str().unwrap().starts_with(text(&fs::canonicalize(&self.pool).unwrap()))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

#[test]
fn what_the_journal_held_is_lost_and_a_resync_brings_the_pair_back() {
    if !tools::holds(tools::root(), "root, for a disk that breaks") {
        return;
    }
    let site = Site::new();
    let mount = site.mount();
    fs::write(mount.join("lost"), "on no tape yet").unwrap();
    let number = site.sandbox.reelfs(["journal", "show", "docs", "--json"]).ok().json()["journal_in"].as_u64().unwrap();
    site.break_disk();
    // applications go on
    for round in 0..20 {
        fs::write(mount.join(&format!("after{round}")), Random::new("after", round).bytes(9_000)).unwrap();
    }
    fs::File::open(mount.join("after3")).unwrap().sync_all().unwrap();
    let status = site.status();
    assert_eq!((&status["state"], &status["reason"]), (&"SUSP".into(), &"error".into()), "{status}");
    assert!(site.is_in_the_spare());
    assert!(mount.log().contains("the disk of the journal fails: a spare takes over"), "{}", mount.log());
    assert!(mount.log().contains("what the journal held is lost"), "{}", mount.log());
    let table = site.sandbox.reelfs(["group", "show", "docs", "--json"]).ok().json();
    assert_eq!((&table["spare_pool"], &table["journal_volumes"][0]["pool"]), (&"spares".into(), &"spares".into()));
    let shown = site.sandbox.reelfs(["journal", "show", "docs", "--json"]).ok().json();
    assert!(shown["journal_out"].as_u64().unwrap() >= number, "no number is given twice: {shown}");
    // it stays so over a restart
    mount.umount();
    let mount = site.mount();
    assert_eq!(site.status()["reason"], "error");
    fs::write(mount.join("lost"), "written again").unwrap();
    let resynced = site.sandbox.reelfs(["pair", "resync", "docs"]).ok();
    assert!(resynced.stdout.contains("had lost what it held; epoch 2 begins"), "{resynced}");
    assert_eq!((&site.status()["state"], &site.status()["epoch"]), (&"PAIR".into(), &2.into()));
    fs::write(mount.join("journaled"), "again").unwrap();
    fs::remove_file(mount.join("after7")).unwrap();
    site.assert_twin("after a spare and a new epoch");
    mount.kill();
    let mount = site.mount();
    fs::write(mount.join("more"), "of it").unwrap();
    mount.umount();
    site.assert_twin("after a kill in the new epoch");
    site.sandbox.reelfs(["group", "delete", "docs", "--yes"]).ok();
    let pools = site.sandbox.reelfs(["journal", "pool", "list", "--json"]).ok().json();
    assert_eq!(pools["pools"][0]["free"], 1, "{pools}");
}

#[test]
fn a_sync_that_finds_the_loss_is_answered_when_the_volume_is_on_its_disk() {
    if !tools::holds(tools::root(), "root, for a disk that breaks") {
        return;
    }
    for is_made_now in [false, true] {
        let site = Site::new();
        let mount = site.mount();
        let file = fs::File::create(mount.join("database")).unwrap();
        if !is_made_now {
            file.sync_all().unwrap(); // from then on the journal alone is enough for its syncs
        }
        file.write_all_at(b"on no tape yet", 0).unwrap();
        site.break_disk();
        file.sync_all().expect("a database gives up at EIO, and there is a spare");
        let status = site.status();
        assert_eq!((&status["state"], &status["reason"]), (&"SUSP".into(), &"error".into()), "{status}");
        assert!(mount.log().contains("what the journal held is lost"), "{}", mount.log());
        file.write_all_at(b"goes on", 20).unwrap();
        file.sync_all().unwrap();
        site.sandbox.reelfs(["pair", "resync", "docs"]).ok();
        site.assert_twin("after the resync");
        drop(file);
        mount.umount();
    }
}

#[test]
fn when_everything_is_on_tapes_nothing_is_lost_and_the_pair_stays() {
    if !tools::holds(tools::root(), "root, for a disk that breaks") {
        return;
    }
    let site = Site::new();
    let mount = site.mount();
    fs::write(mount.join("before"), "on a tape").unwrap();
    site.sandbox.export("docs", &site.tapes);
    site.break_disk();
    fs::write(mount.join("after"), "in the spare").unwrap();
    fs::File::open(mount.join("after")).unwrap().sync_all().unwrap();
    assert_eq!((&site.status()["state"], &site.status()["epoch"]), (&"PAIR".into(), &1.into()));
    assert!(site.is_in_the_spare());
    site.assert_twin("after a spare took over");
    mount.umount();
    let mount = site.mount();
    fs::write(mount.join("later"), "in the spare").unwrap();
    mount.umount();
    site.assert_twin("after the spare was opened anew");
}

/// The second volume of a group, mounted by the process of the first.
fn second_volume(site: &Site) -> (PathBuf, PathBuf) {
    let (pvol, point) = (site.sandbox.directory("logs"), site.sandbox.directory("mnt-logs"));
    site.sandbox.reelfs(["pair", "create", "docs/logs", "--pvol", text(&pvol)]).ok();
    site.sandbox.base("docs", &site.tapes);
    (pvol, point)
}

#[test]
fn a_loss_suspends_every_volume_and_one_epoch_brings_all_back() {
    if !tools::holds(tools::root(), "root, for a disk that breaks") {
        return;
    }
    let site = Site::new();
    let (logs, point) = second_volume(&site);
    let mount = site.sandbox.mount("docs/data", "mnt");
    site.sandbox.reelfs(["mount", "docs/logs", text(&point)]).ok();
    fs::write(mount.join("lost"), "on no tape yet").unwrap();
    fs::write(point.join("lost"), "on no tape either").unwrap();
    let early = fs::File::options().write(true).open(mount.join("lost")).unwrap();
    // from its second sync on a file needs the journal alone
    early.sync_all().unwrap();
    early.write_at(b"unsynced", 0).unwrap();
    site.break_disk();
    // a sync finds out, unless one in the background just was in time, and gets an error
    let _ = early.sync_all();
    drop(early);
    // with a change of the one volume all are suspended; the other has not been asked anything since
    fs::write(mount.join("after"), "noted").unwrap();
    let suspended = "suspended: nothing is journaled any more";
    assert_eq!(mount.log().matches(suspended).count(), 2, "{}", mount.log());
    fs::write(point.join("after"), "noted too").unwrap();
    fs::File::open(point.join("after")).unwrap().sync_all().unwrap();
    let status = site.status();
    for volume in status["volumes"].as_array().unwrap() {
        assert_eq!((&volume["state"], &volume["reason"]), (&"SUSP".into(), &"error".into()), "{status}");
    }
    let rows = status["data_volumes"].as_array().unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (&row["index"], &row["name"], &row["status"])).collect();
    let susp = Value::from("SUSP");
    assert_eq!(rows, [(&0.into(), &"data".into(), &susp), (&1.into(), &"logs".into(), &susp)]);
    let resynced = site.sandbox.reelfs(["pair", "resync", "docs/data"]).ok();
    assert!(resynced.stdout.contains("epoch 2 begins"), "{resynced}");
    let status = site.status();
    assert_eq!((&status["state"], &status["epoch"]), (&"PAIR".into(), &2.into()), "{status}");
    // a sync in the new epoch is one of the spare
    let journaled = fs::File::create(point.join("journaled")).unwrap();
    for round in 0..3 {
        journaled.write_at(b"again", round * 5).unwrap();
        journaled.sync_all().unwrap();
    }
    drop(journaled);
    fs::write(mount.join("journaled"), "again").unwrap();
    site.sandbox.export("docs", &site.tapes);
    let restored = site.sandbox.restore(&site.tapes, "latest", "restored");
    Tree::of(&site.pvol).assert_same(&Tree::of(&restored.join("data")), "the volume that found out");
    Tree::of(&logs).assert_same(&Tree::of(&restored.join("logs")), "the other volume");
    mount.umount();
}
