//! Tapes by themselves: written when a directory is due, kept as long as the settings say, and a group that comes back without
//! anybody's hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::program::{BINARY, with_environment};
use support::{Disk, FileSystem, Mount, Random, Sandbox, Tree, tools, wait};

const LIMIT: Duration = Duration::from_secs(60);

struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
}

impl Site {
    fn new(more: &[&str]) -> Site {
        let sandbox = Sandbox::new();
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        fs::write(pvol.join("old"), "was there").unwrap();
        let create = ["group", "create", "auto", "--pvol", text(&pvol), "--size", "16MiB"];
        sandbox.reelfs(create.iter().chain(more)).ok();
        sandbox.base("auto", &tapes);
        Site { sandbox, pvol, tapes }
    }

    fn count(&self) -> usize {
        self.sandbox.tapes(&self.tapes).len()
    }

    fn set(&self, settings: &[&str]) {
        self.sandbox.reelfs(["group", "set", "auto"].iter().chain(settings)).ok();
    }

    fn status(&self) -> Value {
        self.sandbox.reelfs(["status", "auto", "--json"]).ok().json()["groups"][0].clone()
    }

    #[track_caller]
    fn assert_twin(&self, to: &str) {
        let restored = self.sandbox.restore(&self.tapes, "latest", to);
        Tree::of(&restored).assert_same(&Tree::of(&self.pvol), to);
    }
}

#[test]
fn a_journal_that_fills_is_exported_by_the_mount_itself() {
    let site = Site::new(&["--on-full", "block"]);
    let mount = site.sandbox.mount("auto", "mnt");
    let before = site.count();
    let mut random = Random::new("triggers", 0);
    let mut file = File::create(mount.join("written")).unwrap();
    // three times what the journal holds, and nobody exports it by hand
    for _ in 0..48 {
        file.write_all(&random.bytes(1 << 20)).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    assert!(site.count() >= before + 3, "{}", site.count());
    assert_eq!(site.status()["state"], "PAIR");
    mount.umount();
    site.sandbox.export("auto", &site.tapes);
    site.assert_twin("after many laps");
}

#[test]
fn each_setting_writes_a_tape_of_a_live_mount() {
    let site = Site::new(&["--export-at", "never"]);
    let mount = site.sandbox.mount("auto", "mnt");
    for (number, (on, off)) in [
        (["--export-every", "1s"], ["--export-every", "never"]),
        (["--export-age", "1s"], ["--export-age", "never"]),
        (["--export-size", "100KiB"], ["--export-size", "never"]),
        (["--export-at", "1%"], ["--export-at", "never"]),
    ]
    .into_iter()
    .enumerate()
    {
        let before = site.count();
        fs::write(mount.join(&format!("file{number}")), vec![7; 300_000]).unwrap();
        wait::pause(Duration::from_millis(1_500));
        assert_eq!(site.count(), before, "nothing is due before {on:?}");
        site.set(&on);
        assert!(wait::until(LIMIT, || site.count() > before), "{on:?} writes none:\n{}", mount.log());
        site.set(&off);
        // behind one that had begun
        site.sandbox.export("auto", &site.tapes);
    }
    fs::remove_dir_all(&site.tapes).unwrap();
    site.set(&["--export-age", "1s"]);
    fs::write(mount.join("more"), "waits").unwrap();
    let log = || mount.log().matches("no tape could be written").count();
    assert!(wait::until(LIMIT, || log() > 0), "a directory that is gone is said:\n{}", mount.log());
    wait::pause(Duration::from_millis(1_500));
    assert_eq!(log(), 1, "and is not tried all the time");
    mount.umount();
}

#[test]
fn old_tapes_go_and_never_one_that_a_kept_tape_stands_on() {
    let site = Site::new(&[]);
    let tape = |name: &str| {
        fs::write(site.pvol.join(name), vec![1; 50_000]).unwrap();
        site.sandbox.mark("auto", name);
        site.sandbox.export("auto", &site.tapes);
    };
    site.sandbox.reelfs(["tape", "prune", "auto"]).refused(2, &["keeps all tapes", "--keep-tapes"]);
    ["one", "two", "three"].into_iter().for_each(tape);
    let all = site.count();
    site.set(&["--keep-tapes", "1"]);
    let pruned = site.sandbox.reelfs(["tape", "prune", "auto", "--json"]).ok().json();
    assert_eq!((&pruned["bytes"], &pruned["needed"]), (&0.into(), &(all - 1).into()), "one base: {pruned}");
    site.set(&["--keep-tapes", "3"]);
    site.sandbox.base("auto", &site.tapes);
    let after_base = site.count();
    let plan = || site.sandbox.reelfs(["tape", "prune", "auto", "--dry-run", "--json"]).ok().json();
    // a kept tape lies before the new base, so the old one is needed
    assert_eq!(plan()["tapes"].as_array().unwrap().len(), 0, "{}", plan());
    site.set(&["--keep-tapes", "all"]);
    ["four", "five"].into_iter().for_each(tape);
    site.set(&["--keep-tapes", "3"]);
    let planned = plan();
    assert_eq!(site.count(), after_base + 2, "a dry run removes nothing");
    assert_eq!(planned["tapes"].as_array().unwrap().len(), all, "{planned}");
    // an export prunes by itself
    tape("six");
    assert_eq!(site.count(), after_base + 3 - all);
    site.assert_twin("latest");
    site.sandbox.restore(&site.tapes, "marker:four", "four");
    site.sandbox.try_restore(&site.tapes, "marker:one", "one").refused(10, &["one"]);
    // by age and by bytes: all but what the newest stands on
    site.sandbox.base("auto", &site.tapes);
    site.set(&["--keep-tapes", "all", "--keep-size", "1KiB"]);
    let by_bytes = plan()["tapes"].as_array().unwrap().len();
    wait::pause(Duration::from_millis(2_100));
    site.set(&["--keep-size", "all", "--keep-age", "1s"]);
    let by_age = plan()["tapes"].as_array().unwrap().len();
    assert!(by_bytes >= 4 && by_bytes == by_age, "{by_bytes} {by_age}");
    site.sandbox.reelfs(["tape", "prune", "auto"]).ok();
    site.assert_twin("after the rest");
    tape("seven");
    site.assert_twin("and after one more");
}

#[test]
fn a_tape_that_a_site_or_a_replica_has_not_applied_stays() {
    let site = Site::new(&[]);
    let tape = |name: &str| {
        fs::write(site.pvol.join(name), vec![1; 50_000]).unwrap();
        site.sandbox.mark("auto", name);
        site.sandbox.export("auto", &site.tapes);
    };
    let plan = || site.sandbox.reelfs(["tape", "prune", "auto", "--dry-run", "--json"]).ok().json();
    let goes = || plan()["tapes"].as_array().unwrap().len();
    let waits = |who: &str| {
        let plan = plan();
        let kept = plan["kept"].as_array().unwrap().iter();
        kept.filter(|kept| kept["why"].as_str().unwrap().contains(who)).count()
    };
    // what closing the group leaves behind a marker is on its tape too
    let acknowledge = || {
        let shown = site.sandbox.reelfs(["journal", "show", "auto", "--json"]).ok().json();
        let tapes =
            shown["consumers"].as_array().unwrap().iter().find(|known| known["kind"] == "tapes").unwrap().clone();
        site.sandbox.reelfs(["tape", "ack", "auto", "--upto", &tapes["already_read"].to_string()]).ok();
    };
    tape("one");
    acknowledge();
    tape("two");
    site.sandbox.base("auto", &site.tapes);
    ["three", "four"].into_iter().for_each(tape);
    site.set(&["--keep-tapes", "2"]);
    // the end of the first base and "one" are applied; "two" and what came before the end of the second base are not
    assert_eq!((goes(), waits("the site has acknowledged only up to record")), (3, 1), "{}", plan());
    let told = site.sandbox.reelfs(["tape", "prune", "auto", "--dry-run"]).ok();
    assert!(told.stdout.contains("stays: the site has acknowledged only"), "{told}");
    let link = site.sandbox.path("link");
    std::os::unix::fs::symlink(&site.tapes, &link).unwrap();
    let told = site.sandbox.reelfs(["tape", "prune", "auto", "--dry-run", "--tapes", text(&link)]).ok();
    assert!(told.stdout.contains("stays: the site has acknowledged only"), "by another name: {told}");
    tape("five");
    assert_eq!((goes(), waits("the site")), (0, 1), "an export prunes as well, and leaves it");
    acknowledge();
    assert_eq!((goes(), waits("the site")), (1, 0), "{}", plan());
    site.sandbox.reelfs(["tape", "prune", "auto"]).ok();

    let replica = site.sandbox.path("replica");
    let follow = || drop(site.sandbox.reelfs(["follow", "auto", "--once", "--to", text(&replica)]).ok());
    follow();
    tape("six");
    site.sandbox.base("auto", &site.tapes);
    ["seven", "eight"].into_iter().for_each(tape);
    acknowledge();
    let waiting = waits("replica");
    assert!(waiting > 0, "{}", plan());
    follow();
    assert_eq!((goes(), waits("replica")), (waiting, 0), "{}", plan());
    site.sandbox.reelfs(["tape", "prune", "auto"]).ok();
    site.assert_twin("latest");
}

#[test]
fn nothing_goes_for_a_base_that_does_not_read_back() {
    let site = Site::new(&[]);
    let tape = |name: &str| {
        fs::write(site.pvol.join(name), vec![1; 50_000]).unwrap();
        site.sandbox.mark("auto", name);
        site.sandbox.export("auto", &site.tapes);
    };
    fs::write(site.pvol.join("large"), support::Random::new("base", 0).bytes(300_000)).unwrap();
    tape("one");
    let before: Vec<_> = site.sandbox.tapes(&site.tapes);
    site.sandbox.base("auto", &site.tapes);
    let is_new_base =
        |tape: &PathBuf| !before.contains(tape) && tape.to_str().is_some_and(|name| name.contains(".base."));
    let base = site.sandbox.tapes(&site.tapes).into_iter().find(is_new_base).unwrap();
    ["two", "three"].into_iter().for_each(tape);
    let whole = fs::read(&base).unwrap();
    let mut rotten = whole.clone();
    rotten[whole.len() / 2] ^= 1;
    fs::write(&base, &rotten).unwrap();
    let all = site.count();
    site.set(&["--keep-tapes", "1"]);
    let prune = ["tape", "prune", "auto"];
    let refusal = site.sandbox.reelfs(prune);
    refusal.refused(19, &["does not read back", "reelfs base copy auto"]);
    tape("four");
    assert_eq!(site.count(), all + 1, "an export removes nothing either");
    // what the refusal says helps: the older base counts, and all is there
    fs::remove_file(&base).unwrap();
    site.assert_twin("latest");
    fs::write(&base, &whole).unwrap();
    site.sandbox.reelfs(prune).ok();
    assert!(site.count() < all);
    site.assert_twin("from the new base");
}

#[test]
fn a_base_that_only_one_volume_needs_is_kept_too() {
    let site = Site::new(&[]);
    let other = site.sandbox.directory("other");
    site.sandbox.reelfs(["pair", "create", "auto/other", "--pvol", text(&other)]).ok();
    let base = |volume: &str| {
        fs::write(site.pvol.join("before"), volume).unwrap();
        fs::write(other.join("before"), volume).unwrap();
        site.sandbox.base(&format!("auto/{volume}"), &site.tapes);
        site.sandbox.export("auto", &site.tapes);
    };
    ["other", "data", "data"].into_iter().for_each(base);
    let all = site.count();
    site.set(&["--keep-tapes", "1"]);
    let prune = || site.sandbox.reelfs(["tape", "prune", "auto", "--json"]).ok().json();
    let first = prune();
    // what lies before the base of the other volume goes, and nothing that this one needs
    assert!(!first["tapes"].as_array().unwrap().is_empty() && site.count() >= 4, "{first} of {all}");
    let is_twin = |to: &str| {
        let restored = site.sandbox.restore(&site.tapes, "latest", to);
        Tree::of(&restored.join("data")).assert_same(&Tree::of(&site.pvol), to);
        Tree::of(&restored.join("other")).assert_same(&Tree::of(&other), to);
    };
    is_twin("one base old");
    // with a newer one of each, all that is older goes
    site.set(&["--keep-tapes", "all"]);
    base("other");
    let left = site.count();
    site.set(&["--keep-tapes", "1"]);
    assert_eq!(prune()["tapes"].as_array().unwrap().len() + site.count(), left);
    assert!(site.count() < left, "{left}");
    is_twin("both new");
}

#[test]
fn protect_brings_a_group_back_when_its_tape_disk_is_back() {
    let site = Site::new(&["--on-full", "suspend"]);
    let point = site.sandbox.directory("mnt");
    let mut command = Command::new(BINARY);
    with_environment(&mut command, &site.sandbox.state());
    command.arg("protect").args([&site.pvol, &point]).arg("--tapes").arg(&site.tapes).args(["--every", "2s"]);
    let mount = Mount::from_command(command, &site.sandbox, &point).unwrap_or_else(|log| panic!("{log}"));
    let away = site.sandbox.path("away");
    fs::rename(&site.tapes, &away).unwrap();
    let mut random = Random::new("protect", 0);
    for number in 0..5 {
        fs::write(mount.join(&format!("large{number}")), random.bytes(6 << 20)).unwrap();
    }
    assert!(wait::until(LIMIT, || site.status()["state"] == "SUSP"), "{}", mount.log());
    fs::write(mount.join("large0"), "noted").unwrap();
    fs::rename(&away, &site.tapes).unwrap();
    assert!(wait::until(LIMIT, || site.status()["state"] == "PAIR"), "{}", mount.log());
    fs::write(mount.join("after"), "journaled").unwrap();
    let log = mount.umount();
    assert!(log.contains("has been told again"), "{log}");
    site.assert_twin("back");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

#[test]
fn the_mountpoint_of_a_tape_disk_that_is_away_gets_no_tape() {
    if !tools::root() || !tools::present(&["mkfs.ext4"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    sandbox.group("auto", &pvol);
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 64);
    let to = text(disk.path());
    sandbox.base("auto", disk.path());
    let mount = sandbox.mount("auto", "mnt");
    fs::write(mount.join("first"), "on the disk").unwrap();
    sandbox.export("auto", disk.path());
    fs::write(mount.join("second"), "while it is away").unwrap();
    disk.umount();
    let known = || sandbox.reelfs(["journal", "show", "auto", "--json"]).ok().json();
    let before = known();
    for command in [["tape", "export", "auto", "--to", to], ["base", "copy", "auto", "--to", to]] {
        sandbox.reelfs(command).refused(10, &["the tape disk is not at", "reelfs tape forget auto"]);
    }
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    assert_eq!(known()["consumers"], before["consumers"]);
    disk.mount();
    sandbox.export("auto", disk.path());
    // the tapes were carried away, and another disk is in its place
    let carried = sandbox.directory("carried");
    let carry = || {
        for tape in sandbox.tapes(disk.path()) {
            fs::copy(&tape, carried.join(tape.file_name().unwrap())).unwrap();
            fs::remove_file(tape).unwrap();
        }
    };
    carry();
    fs::write(mount.join("third"), "on the same disk, which is empty").unwrap();
    sandbox.export("auto", disk.path());
    carry();
    disk.umount();
    let other = Disk::new(&sandbox, "other", FileSystem::Ext4, 64);
    rustix::mount::mount_bind(other.path(), disk.path()).unwrap();
    fs::write(mount.join("fourth"), "on another one").unwrap();
    sandbox.export("auto", disk.path());
    mount.umount();
    sandbox.export("auto", disk.path());
    carry();
    rustix::mount::unmount(disk.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    let restored = sandbox.restore(&carried, "latest", "restored");
    Tree::of(&restored).assert_same(&Tree::of(&pvol), "from all the disks");
}

#[test]
fn a_directory_that_is_gone_for_good_is_forgotten() {
    let site = Site::new(&[]);
    let broken = site.sandbox.directory("broken");
    site.sandbox.base("auto", &broken);
    let mount = site.sandbox.mount("auto", "mnt");
    site.sandbox.export("auto", &site.tapes);
    fs::write(mount.join("file"), "bytes").unwrap();
    fs::remove_dir_all(&broken).unwrap();
    let first = || site.sandbox.reelfs(["journal", "show", "auto", "--json"]).ok().json()["journal_out"].clone();
    let kept = first();
    site.sandbox.export("auto", &site.tapes);
    assert_eq!(first(), kept, "the other directory lacks it");
    let forget = ["tape", "forget", "auto", "--tapes"];
    let forget = |more: &[&str]| site.sandbox.reelfs(forget.iter().chain(more));
    forget(&["nowhere"]).refused(10, &["has no directory of tapes nowhere", text(&broken), text(&site.tapes)]);
    let told = forget(&[text(&broken), "-n", "--json"]).ok().json();
    assert_eq!((&told["dir"], &told["dry_run"]), (&text(&broken).into(), &true.into()), "{told}");
    assert_eq!(first(), kept, "only said");
    forget(&[text(&broken)]).ok();
    assert!(first().as_u64() > kept.as_u64(), "{} is free", first());
    forget(&[text(&broken)]).refused(10, &["has no directory"]);
    let last = forget(&[text(&site.tapes)]).ok();
    assert!(last.stdout.contains("reelfs base copy auto --to DIR"), "{last}");
    mount.umount();
}

#[test]
fn a_directory_that_went_elsewhere_behind_a_link_stays_one() {
    let site = Site::new(&[]);
    let elsewhere = site.sandbox.path("elsewhere");
    let mount = site.sandbox.mount("auto", "mnt");
    fs::rename(&site.tapes, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &site.tapes).unwrap();
    fs::write(mount.join("file"), "bytes").unwrap();
    // whoever comes first has it adopted
    site.set(&["--keep-tapes", "100"]);
    site.sandbox.reelfs(["tape", "prune", "auto", "--tapes", text(&site.tapes)]).ok();
    site.sandbox.export("auto", &site.tapes);
    let shown = site.sandbox.reelfs(["journal", "show", "auto", "--json"]).ok().json();
    let known: Vec<&Value> = shown["consumers"].as_array().unwrap().iter().map(|known| &known["dir"]).collect();
    assert_eq!(known, [&Value::from(text(&elsewhere))], "{shown}");
    mount.umount();
}
