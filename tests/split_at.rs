//! A split at a marker: the marker is the last point that can be restored, of all volumes together.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reelfs::restore::Deck;
use reelfs_journal::{Change, MarkerKind, Seq};
use serde_json::Value;
use support::{Mount, Sandbox, tools, wait};

/// A group `shop` with the volumes `db` and `logs`, and a base copy.
struct Shop {
    sandbox: Sandbox,
    tapes: PathBuf,
    mount: Mount,
    logs: PathBuf,
}

impl Shop {
    fn new() -> Shop {
        let sandbox = Sandbox::new();
        let (tapes, logs) = (sandbox.directory("tapes"), sandbox.directory("mnt-logs"));
        sandbox.reelfs(["group", "create", "shop", "--size", "64MiB", "--on-full", "block"]).ok();
        for volume in ["db", "logs"] {
            let pvol = sandbox.directory(volume);
            fs::write(pvol.join("number"), 0u64.to_le_bytes()).unwrap();
            sandbox.reelfs(["pair", "create", &format!("shop/{volume}"), "--pvol", text(&pvol)]).ok();
        }
        let mount = sandbox.mount("shop/db", "mnt-db");
        sandbox.reelfs(["mount", "shop/logs", text(&logs)]).ok();
        sandbox.base("shop", &tapes);
        Shop { sandbox, tapes, mount, logs }
    }

    /// One application writes a number to the one volume and then to the other, and three more do what they like, all the while.
    fn trading<T>(&self, act: impl FnOnce() -> T) -> T {
        let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        let open = |place: &Path, name: &str| {
            File::options().create(true).truncate(false).write(true).open(place.join(name)).unwrap()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (one, two) = (open(self.mount.path(), "number"), open(&self.logs, "number"));
                for number in 1u64.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    one.write_all_at(&number.to_le_bytes(), 0).unwrap();
                    two.write_all_at(&number.to_le_bytes(), 0).unwrap();
                    rounds.store(number, Ordering::Relaxed);
                }
            });
            for (number, place) in [self.mount.path(), &self.logs, &self.logs].into_iter().enumerate() {
                let (file, is_over) = (open(place, &format!("busy{number}")), &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        file.write_all_at(&[7; 100], 0).unwrap();
                    }
                });
            }
            assert!(wait::until(Duration::from_secs(20), || rounds.load(Ordering::Relaxed) > 20), "no trade");
            let done = act();
            let now = rounds.load(Ordering::Relaxed);
            assert!(
                wait::until(Duration::from_secs(20), || rounds.load(Ordering::Relaxed) > now + 20),
                "nobody goes on"
            );
            is_over.store(true, Ordering::Relaxed);
            done
        })
    }

    fn split(&self, pair: &str, marker: &str) -> u64 {
        let at = format!("marker:{marker}");
        let said: Value = self.sandbox.reelfs(["pair", "split", pair, "--at", &at, "--json"]).ok().json();
        assert_eq!((&said["state"], &said["already"]), (&"SUSP".into(), &false.into()), "{said}");
        said["marker"]["seq"].as_u64().unwrap()
    }

    /// What the records from this one on are, as words: of markers their kinds.
    fn records_from(&self, seq: u64) -> Vec<String> {
        self.sandbox.export("shop", &self.tapes);
        let deck = Deck::open(std::slice::from_ref(&self.tapes), None, &mut |_, _| {}).unwrap();
        let mut words = Vec::new();
        deck.records(deck.epochs[0].epoch, Seq(seq), &mut |_, change| {
            words.push(match change {
                Some(Change::Marker { kind: MarkerKind::Named, name, .. }) => name,
                Some(Change::Marker { kind, .. }) => format!("{kind:?}"),
                other => other.map_or("nothing", |change| change.verb()).to_owned(),
            });
            Ok(words.len() < 3)
        })
        .unwrap();
        words
    }

    fn numbers(&self, point: &str, what: &str) -> (u64, u64) {
        let restored = self.sandbox.restore(&self.tapes, point, "restored");
        let number = |volume: &str| {
            let bytes = fs::read(restored.join(volume).join("number")).unwrap();
            u64::from_le_bytes(bytes.try_into().unwrap())
        };
        let (one, two) = (number("db"), number("logs"));
        assert!(two <= one && one <= two + 1, "{what}: {one} and {two}");
        fs::remove_dir_all(restored).unwrap();
        (one, two)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

#[test]
fn nothing_stands_between_the_marker_and_the_suspension_of_all_volumes() {
    if !tools::holds(tools::root(), "root, to mount") {
        return;
    }
    let shop = Shop::new();
    let seq = shop.trading(|| shop.split("shop", "last"));
    assert_eq!(shop.records_from(seq), ["last", "Suspended", "Suspended"]);
    let to = shop.sandbox.path("nowhere");
    let last =
        shop.sandbox.reelfs(["restore", "--tapes", text(&shop.tapes), "--to", text(&to), "--dry-run", "--json"]).ok();
    assert_eq!(last.json()["at"]["seq"].as_u64(), Some(seq), "{last}");
    let numbers = shop.numbers("marker:last", "at the marker");
    assert_eq!(shop.numbers("latest", "at the end"), numbers);
    // a second marker could not be restored to
    let again = shop.sandbox.reelfs(["pair", "split", "shop", "--at", "marker:again"]);
    again.refused(16, &["SUSP", "could not be restored to"]);
    shop.sandbox.reelfs(["pair", "resync", "shop"]).ok();
    // one volume alone, and the other goes on being journaled
    let seq = shop.trading(|| shop.split("shop/db", "half"));
    let words = shop.records_from(seq);
    assert_eq!(words[..2], ["half".to_owned(), "Suspended".to_owned()]);
    shop.numbers("marker:half", "at the second marker");
    let late = format!("seq:{}", seq + 2);
    shop.sandbox.try_restore(&shop.tapes, &late, "late").refused(13, &["volume db was suspended"]);
    shop.sandbox.reelfs(["umount", text(&shop.logs)]).ok();
    shop.mount.umount();
}

#[test]
fn a_point_that_a_split_cannot_set_is_refused() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("one", &pvol, "16MiB");
    sandbox.reelfs(["pair", "split", "one", "--at", "marker:m"]).refused(16, &["SMPL", "no base copy"]);
    sandbox.base("one", &tapes);
    for at in ["latest", "seq:5", "m", "marker:", "marker:a~1"] {
        assert_eq!(sandbox.reelfs(["pair", "split", "one", "--at", at]).code, 2, "{at}");
    }
    let points = sandbox.reelfs(["points", "--tapes", text(&tapes), "--json"]).ok();
    assert!(points.json_lines().iter().all(|line| line["kind"] != "marker"), "{points}");
    sandbox.reelfs(["pair", "split", "one", "--at", "marker:m"]).ok();
    sandbox.export("one", &tapes);
    sandbox.restore(&tapes, "marker:m", "restored");
}
