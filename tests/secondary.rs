//! A pair made with its secondary: the first copy on tapes or as a replica, shown afterwards, and nothing changed when it cannot be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Outcome, Random, Sandbox, Tree, tools};

struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::new();
        let pvol = sandbox.directory("pvol");
        fs::create_dir(pvol.join("d")).unwrap();
        for number in 0..5 {
            fs::write(pvol.join(format!("d/f{number}")), Random::new("secondary", number).bytes(30_000)).unwrap();
        }
        sandbox.reelfs(["group", "create", "shop", "--size", "16MiB", "--export-at", "never"]).ok();
        Site { sandbox, pvol }
    }

    fn create(&self, to: &str, more: &[&str]) -> Outcome {
        let fixed = ["pair", "create", "shop/web", "--pvol", text(&self.pvol), "--to", to];
        self.sandbox.reelfs(fixed.iter().chain(more))
    }

    /// What `pair show` says of the only pair.
    fn shown(&self) -> Value {
        self.sandbox.reelfs(["pair", "show", "shop/web", "--json"]).ok().json()
    }

    fn pairs(&self) -> usize {
        self.sandbox.reelfs(["pair", "list", "--json"]).ok().json()["pairs"].as_array().unwrap().len()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_first_copy_goes_to_tapes_and_every_later_tape_goes_on() {
    let site = Site::new();
    let tapes = site.sandbox.directory("tapes");
    let made = site.create(&format!("media:{}", text(&tapes)), &["--json"]).ok();
    let made = made.json_lines().pop().unwrap();
    assert_eq!((&made["volume"], &made["secondary"]["kind"]), (&"web".into(), &"media".into()), "{made}");
    let shown = site.shown();
    assert_eq!(shown["state"], "PAIR", "{shown}");
    assert_eq!(shown["secondaries"], serde_json::json!([{ "kind": "media", "dir": text(&tapes) }]));
    let told = site.sandbox.reelfs(["pair", "list"]).ok();
    assert!(told.stdout.contains(&format!("-> media:{}", text(&tapes))), "{told}");
    fs::write(site.pvol.join("later"), "later").unwrap();
    site.sandbox.export("shop", &tapes);
    let restored = site.sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&site.pvol).assert_same(&Tree::of(&restored), "from its tapes");
}

#[test]
fn the_first_copy_is_a_replica_that_follow_keeps() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    // also while the group is mounted
    let other = site.sandbox.directory("other");
    site.sandbox.reelfs(["pair", "create", "shop/other", "--pvol", text(&other)]).ok();
    let mount = site.sandbox.mount("shop/other", "mnt");
    let replica = site.sandbox.path("replica");
    let told = site.create(text(&replica), &[]).ok();
    assert!(told.stdout.contains("reelfs follow shop/web --to"), "{told}");
    Tree::of(&site.pvol).assert_same(&Tree::of(&replica), "after the first copy");
    assert_eq!(site.shown()["secondaries"], serde_json::json!([{ "kind": "replica", "dir": text(&replica) }]));
    mount.umount();
    let mount = site.sandbox.mount("shop/web", "mnt");
    fs::write(mount.join("later"), "later").unwrap();
    mount.umount();
    site.sandbox.reelfs(["follow", "shop/web", "--once", "--to", text(&replica)]).ok();
    Tree::of(&site.pvol).assert_same(&Tree::of(&replica), "kept by follow");
}

#[test]
fn a_secondary_that_cannot_be_is_refused_before_anything_changes() {
    let site = Site::new();
    let (full, inside) = (site.sandbox.directory("full"), site.pvol.join("inside"));
    fs::write(full.join("file"), "mine").unwrap();
    fs::create_dir(&inside).unwrap();
    let state = site.sandbox.state();
    let (missing, below) = (site.sandbox.path("missing"), site.sandbox.path("missing/replica"));
    let media = |dir: &Path| format!("media:{}", text(dir));
    let before = fs::read(state.join("groups/shop/group.json")).unwrap();
    let tree = Tree::of(&site.pvol);
    for (to, code, sentence) in [
        (media(&missing), 10, "is not there"),
        (media(&inside), 2, "the PVOL"),
        (media(&full.join("file")), 2, "not a directory"),
        ("media:".to_owned(), 2, "names no directory"),
        ("s3:bucket".to_owned(), 2, "is no kind of secondary"),
        (text(&full).to_owned(), 14, "is not empty"),
        (text(&inside).to_owned(), 2, "the PVOL"),
        (text(site.sandbox.root()).to_owned(), 2, "the PVOL"),
        (text(&state.join("replica")).to_owned(), 2, "the state directory"),
        (text(&below).to_owned(), 10, "is not there"),
    ] {
        site.create(&to, &[]).refused(code, &[sentence]);
        assert_eq!(site.pairs(), 0, "{to}: it has joined");
        assert!(fs::read(state.join("groups/shop/group.json")).unwrap() == before, "{to}: the group has changed");
    }
    Tree::of(&site.pvol).assert_same(&tree, "the PVOL");
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    assert!(
        !missing.exists()
            && fs::read_dir(site.sandbox.root())
                .unwrap()
                .all(|entry| { entry.unwrap().path().extension() != Some(OsStr::new("replica")) })
    );
}
