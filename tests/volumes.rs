//! Several volumes in one group: one journal, one order, one point in time for all of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::program::{BINARY, with_environment};
use support::random::Random;
use support::tree::Tree;
use support::{Mount, Sandbox, wait};

/// A group `shop` with the volumes `db` and `logs`.
struct Shop {
    sandbox: Sandbox,
    tapes: PathBuf,
}

impl Shop {
    fn new() -> Shop {
        let sandbox = Sandbox::in_memory();
        let tapes = sandbox.directory("tapes");
        sandbox
            .reelfs(["group", "create", "shop", "--size", "64MiB", "--on-full", "block", "--export-at", "never"])
            .ok();
        for volume in ["db", "logs"] {
            let pvol = sandbox.directory(volume);
            sandbox.reelfs(["pair", "create", &format!("shop/{volume}"), "--pvol", text(&pvol)]).ok();
        }
        Shop { sandbox, tapes }
    }

    /// Both mounted: the first in the foreground of our child, the second by the same process.
    fn mount(&self) -> (Mount, PathBuf) {
        let first = self.sandbox.mount("shop/db", "mnt-db");
        let second = self.sandbox.path("mnt-logs");
        // after a kill the dead mount is in its place
        if !support::mount::is_mounted(&second) {
            self.sandbox.directory("mnt-logs");
        }
        self.sandbox.reelfs(["mount", "shop/logs", text(&second)]).ok();
        (first, second)
    }

    fn status(&self) -> Value {
        self.sandbox.reelfs(["status", "shop", "--json"]).ok().json()["groups"][0].clone()
    }

    /// Unmounts both, exports the rest, and compares what a restore of the group gives with each volume.
    fn assert_restores(&self, first: Mount, second: &Path) {
        self.sandbox.reelfs(["umount", text(second)]).ok();
        first.umount();
        self.sandbox.export("shop", &self.tapes);
        let both = self.sandbox.restore(&self.tapes, "latest", "both");
        for volume in ["db", "logs"] {
            assert_twin(&self.sandbox.path(volume), &both.join(volume));
        }
    }

    fn base(&self) {
        self.sandbox.base("shop", &self.tapes);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

fn assert_twin(here: &Path, there: &Path) {
    Tree::of(here).assert_same(&Tree::of(there), "restored");
}

fn last_seq(shop: &Shop) -> u64 {
    shop.status()["journal"]["last"].as_u64().expect("a number")
}

/// The application of a shop: an order goes into the one volume, and only then what was sent into the other.
fn trade(db: &Path, logs: &Path, rounds: std::ops::Range<u64>) {
    let orders = fs::File::options().create(true).truncate(false).write(true).open(db.join("orders")).unwrap();
    let sent = fs::File::options().create(true).truncate(false).write(true).open(logs.join("sent")).unwrap();
    for round in rounds {
        orders.write_all_at(&round.to_le_bytes(), 0).unwrap();
        sent.write_all_at(&round.to_le_bytes(), 0).unwrap();
        if round % 7 == 0 {
            fs::write(db.join(format!("order-{round}")), "ordered").unwrap();
            fs::write(logs.join(format!("sent-{round}")), "sent").unwrap();
            fs::remove_file(logs.join(format!("sent-{round}"))).unwrap();
            fs::remove_file(db.join(format!("order-{round}"))).unwrap();
        }
    }
}

fn number(path: &Path) -> u64 {
    fs::read(path).map_or(0, |bytes| bytes.try_into().map_or(0, u64::from_le_bytes))
}

/// What was sent had been ordered; and what was ordered for good, sent or about to be.
fn assert_in_order(restored: &Path, at: u64) {
    let (ordered, sent) = (number(&restored.join("db/orders")), number(&restored.join("logs/sent")));
    assert!(sent <= ordered && ordered <= sent + 1, "at {at}: ordered {ordered}, sent {sent}");
    for entry in fs::read_dir(restored.join("logs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(round) = name.strip_prefix("sent-") {
            assert!(restored.join("db").join(format!("order-{round}")).exists(), "at {at}: {name} without its order");
        }
    }
}

#[test]
fn what_followed_on_the_other_volume_is_never_restored_alone() {
    let shop = Shop::new();
    let (first, second) = shop.mount();
    trade(first.path(), &second, 1..2);
    shop.base();
    let from = last_seq(&shop);
    trade(first.path(), &second, 2..400);
    shop.sandbox.export("shop", &shop.tapes);
    trade(first.path(), &second, 400..800);
    shop.sandbox.export("shop", &shop.tapes);
    let to = last_seq(&shop);
    shop.sandbox.reelfs(["umount", text(&second)]).ok();
    first.umount();

    let mut random = Random::new("volumes", 1);
    let targets = if std::env::var_os("REELFS_CI").is_some() { 1000 } else { 50 };
    let mut seen = 0;
    for _ in 0..targets {
        let at = from + random.below(to - from);
        let target = shop.sandbox.path("restored");
        let outcome = shop.sandbox.try_restore(&shop.tapes, &format!("seq:{at}"), "restored");
        if outcome.code == 13 {
            assert!(outcome.stderr.contains("middle of one operation"), "{outcome}");
            continue;
        }
        outcome.ok();
        seen += 1;
        assert_in_order(&target, at);
        fs::remove_dir_all(target).unwrap();
    }
    assert!(seen > targets / 2, "only {seen} of {targets} targets could be restored");
}

#[test]
fn volumes_are_mounted_restored_and_unmounted_one_by_one() {
    let shop = Shop::new();
    let (first, second) = shop.mount();
    fs::write(first.path().join("a"), "a").unwrap();
    fs::write(second.join("b"), "b").unwrap();
    let state = shop.status();
    assert_eq!(state["volumes"][0]["mount"]["mountpoint"], text(first.path()));
    assert_eq!(state["volumes"][1]["mount"]["mountpoint"], text(&second));
    assert_eq!(state["volumes"][0]["mount"]["pid"], state["volumes"][1]["mount"]["pid"]);
    shop.sandbox
        .reelfs(["mount", "shop/logs", text(&shop.sandbox.directory("third"))])
        .refused(11, &["mounted already"]);
    shop.sandbox.reelfs(["mount", "shop", text(&shop.sandbox.directory("third"))]).refused(2, &["several volumes"]);
    shop.base();

    // one goes, the other stays; what is edited behind it is found when it comes back
    shop.sandbox.reelfs(["umount", text(&second)]).ok();
    fs::write(shop.sandbox.path("logs").join("behind"), "behind").unwrap();
    fs::write(first.path().join("c"), "c").unwrap();
    assert_eq!(shop.status()["volumes"][1]["mount"], Value::Null);
    shop.sandbox.reelfs(["mount", "shop/logs", text(&second)]).ok();
    assert_eq!(fs::read_to_string(second.join("behind")).unwrap(), "behind");
    fs::write(second.join("d"), "d").unwrap();
    shop.sandbox.export("shop", &shop.tapes);
    // the first one leaves first: the process stays for the other
    shop.sandbox.reelfs(["umount", text(first.path())]).ok();
    fs::write(second.join("e"), "e").unwrap();
    shop.sandbox.reelfs(["umount", text(&second)]).ok();
    shop.sandbox.export("shop", &shop.tapes);

    let both = shop.sandbox.restore(&shop.tapes, "latest", "both");
    for volume in ["db", "logs"] {
        assert_twin(&shop.sandbox.path(volume), &both.join(volume));
    }
    let target = shop.sandbox.path("logs-alone");
    let tapes = text(&shop.tapes);
    shop.sandbox
        .reelfs(["restore", "--group", "shop/logs", "--tapes", tapes, "--to", text(&target), "--at", "latest", "--yes"])
        .ok();
    assert_twin(&shop.sandbox.path("logs"), &target);
}

#[test]
fn a_killed_process_leaves_both_volumes_to_recover() {
    let shop = Shop::new();
    let (first, second) = shop.mount();
    trade(first.path(), &second, 1..20);
    shop.base();
    trade(first.path(), &second, 20..60);
    first.kill();
    let (first, second) = shop.mount();
    trade(first.path(), &second, 60..80);
    shop.assert_restores(first, &second);
}

#[test]
fn one_volume_is_suspended_alone_and_brought_back() {
    let shop = Shop::new();
    let (first, second) = shop.mount();
    trade(first.path(), &second, 1..20);
    shop.base();
    shop.sandbox.reelfs(["pair", "split", "shop/logs"]).ok();
    trade(first.path(), &second, 20..60);
    let state = shop.status();
    assert_eq!((&state["volumes"][0]["state"], &state["volumes"][1]["state"]), (&"PAIR".into(), &"SUSP".into()));
    shop.sandbox.export("shop", &shop.tapes);
    shop.sandbox.try_restore(&shop.tapes, &format!("seq:{}", last_seq(&shop)), "never").refused(13, &["suspended"]);
    shop.sandbox.reelfs(["pair", "resync", "shop"]).ok();
    trade(first.path(), &second, 60..80);
    shop.assert_restores(first, &second);
}

#[test]
fn a_volume_joins_and_leaves_while_the_others_go_on() {
    let shop = Shop::new();
    let (first, second) = shop.mount();
    trade(first.path(), &second, 1..20);
    shop.base();
    let third = shop.sandbox.directory("mail");
    fs::write(third.join("old"), "old").unwrap();
    shop.sandbox.reelfs(["pair", "create", "shop/mail", "--pvol", text(&third)]).ok();
    shop.sandbox.reelfs(["pair", "create", "shop/mail", "--pvol", text(&third)]).refused(14, &["already"]);
    let inside = third.join("inside");
    fs::create_dir(&inside).unwrap();
    shop.sandbox.reelfs(["pair", "create", "shop/inside", "--pvol", text(&inside)]).refused(2, &["overlaps"]);
    shop.sandbox.reelfs(["pair", "create", "shop", "--pvol", text(&third)]).refused(2, &["names no volume"]);
    let point = shop.sandbox.directory("mnt-mail");
    shop.sandbox.reelfs(["mount", "shop/mail", text(&point)]).ok();
    fs::write(point.join("new"), "new").unwrap();
    shop.sandbox.reelfs(["base", "copy", "shop/mail", "--to", text(&shop.tapes)]).ok();
    fs::write(point.join("newer"), "newer").unwrap();
    shop.sandbox.export("shop", &shop.tapes);
    let all = shop.sandbox.restore(&shop.tapes, "latest", "all");
    assert_twin(&third, &all.join("mail"));
    assert_eq!(number(&all.join("db/orders")), 19);

    shop.sandbox.reelfs(["pair", "delete", "shop/mail"]).refused(11, &["mounted"]);
    shop.sandbox.reelfs(["umount", text(&point)]).ok();
    shop.sandbox.reelfs(["pair", "delete", "shop/mail"]).ok();
    trade(first.path(), &second, 20..40);
    shop.sandbox.reelfs(["umount", text(&second)]).ok();
    first.umount();
    shop.sandbox.export("shop", &shop.tapes);
    assert_eq!(fs::read_to_string(third.join("newer")).unwrap(), "newer", "its directory stays");
    let rest = shop.sandbox.restore(&shop.tapes, "latest", "rest");
    assert!(!rest.join("mail").exists(), "it had left");
    assert_eq!(number(&rest.join("logs/sent")), 39);
}

#[test]
fn a_new_epoch_of_one_volume_is_one_of_all() {
    let shop = Shop::new();
    let (first, second) = shop.mount();
    trade(first.path(), &second, 1..20);
    shop.base();
    shop.sandbox.reelfs(["umount", text(&second)]).ok();
    first.umount();
    // another directory in the place of one, while the other is as it was
    let logs = shop.sandbox.path("logs");
    fs::rename(&logs, shop.sandbox.path("old-logs")).unwrap();
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("sent"), 19_u64.to_le_bytes()).unwrap();
    let (first, second) = shop.mount();
    assert_eq!(shop.status()["epoch"], 2);
    shop.sandbox.export("shop", &shop.tapes);
    trade(first.path(), &second, 20..40);
    shop.assert_restores(first, &second);
}

#[test]
fn what_an_unmounted_volume_has_is_exported_while_the_other_one_is_suspended() {
    let shop = Shop::new();
    let (first, second) = shop.mount();
    trade(first.path(), &second, 1..2);
    shop.base();
    shop.sandbox.reelfs(["pair", "split", "shop/db"]).ok();
    fs::write(first.path().join("orders"), "not journaled").unwrap();
    let export_and_compare = |to: &str| {
        shop.sandbox.export("shop", &shop.tapes);
        let (tapes, target) = (text(&shop.tapes), shop.sandbox.path(to));
        // the last moment at which both can be restored is another one
        let volume = ["restore", "--tapes", tapes, "--group", "shop/logs", "--at", "latest", "--to", text(&target)];
        shop.sandbox.reelfs(volume).ok();
        assert_twin(&shop.sandbox.path("logs"), &target);
    };
    fs::write(second.join("sent"), "journaled").unwrap();
    shop.sandbox.reelfs(["umount", text(&second)]).ok();
    export_and_compare("behind-its-umount");
    // a process that has the suspended one alone from the beginning
    shop.sandbox.reelfs(["mount", "shop/logs", text(&second)]).ok();
    fs::write(second.join("sent"), "journaled again").unwrap();
    shop.sandbox.reelfs(["umount", text(&second)]).ok();
    first.umount();
    let first = shop.sandbox.mount("shop/db", "mnt-db");
    export_and_compare("in-another-process");
    first.umount();
}

#[test]
fn a_volume_that_is_copied_is_not_mounted_under_the_copy() {
    let shop = Shop::new();
    fs::write(shop.sandbox.path("logs").join("large"), Random::new("large", 0).bytes(192 << 20)).unwrap();
    let first = shop.sandbox.mount("shop/db", "mnt-db");
    let second = shop.sandbox.directory("mnt-logs");
    let mut command = std::process::Command::new(BINARY);
    with_environment(&mut command, &shop.sandbox.state());
    command.args(["base", "copy", "shop/logs", "--to", text(&shop.tapes)]);
    let mut copy = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let is_copying = || {
        let told = shop.sandbox.reelfs(["status", "shop"]).ok().stdout;
        told.contains("reelfs base copy (") && !told.contains("(0 of")
    };
    assert!(wait::until(Duration::from_secs(60), is_copying), "it is over");
    let mount = ["mount", "shop/logs", text(&second)];
    shop.sandbox.reelfs(mount).refused(11, &["somebody copies", "reelfs status shop"]);
    assert!(copy.wait().unwrap().success());
    shop.sandbox.reelfs(mount).ok();
    fs::write(second.join("sent"), "journaled").unwrap();
    shop.base();
    shop.assert_restores(first, &second);
}

#[test]
fn of_two_groups_that_are_made_of_one_directory_one_is_refused() {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    let make = |name: &str| {
        let mut command = std::process::Command::new(BINARY);
        with_environment(&mut command, &sandbox.state());
        command.args(["group", "create", name, "--pvol", text(&pvol), "--size", "256MiB"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let made = [make("one"), make("other")].map(|mut command| command.wait().unwrap().code());
    assert!(made == [Some(0), Some(2)] || made == [Some(2), Some(0)], "{made:?}");
    assert_eq!(sandbox.reelfs(["status", "--json"]).ok().json()["groups"].as_array().unwrap().len(), 1);
}
