//! Suspended and brought back: applications go on when the journal is full, and the pair comes back with only what changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use reelfs::lock::GroupLock;
use reelfs::pair_state::{PairState, PairVerb, Verdict, verdict};
use reelfs::state::StateDir;
use serde_json::Value;
use support::{Mount, Outcome, Random, Sandbox, Tree, tools};

/// A group of a policy, with a base tape and a mount.
struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
    point: PathBuf,
}

impl Site {
    fn new(policy: &str, size: &str, prepare: impl FnOnce(&Path)) -> Site {
        let sandbox = Sandbox::new();
        let (pvol, tapes, point) = (sandbox.directory("pvol"), sandbox.directory("tapes"), sandbox.directory("mnt"));
        prepare(&pvol);
        let arguments = [
            "group",
            "create",
            "susp",
            "--pvol",
            text(&pvol),
            "--size",
            size,
            "--on-full",
            policy,
            "--export-at",
            "never",
        ];
        sandbox.reelfs(arguments).ok();
        sandbox.base("susp", &tapes);
        Site { sandbox, pvol, tapes, point }
    }

    fn mount(&self) -> Mount {
        Mount::new(&self.sandbox, "susp", &self.point, &[])
    }

    fn status(&self) -> Value {
        self.sandbox.reelfs(["status", "susp", "--json"]).ok().json()["groups"][0].clone()
    }

    fn resync(&self) -> Value {
        last_line(&self.sandbox.reelfs(["pair", "resync", "susp", "--json"]).ok())
    }

    /// After an export the tapes say what the PVOL is.
    fn assert_twin(&self, when: &str) {
        tools::run("sync", &["-f", text(&self.point)]);
        self.sandbox.export("susp", &self.tapes);
        let restored = self.sandbox.restore(&self.tapes, "latest", "restored");
        Tree::of(&self.pvol).assert_same(&Tree::of(&restored), when);
        fs::remove_dir_all(restored).unwrap();
    }
}

fn old_tree(pvol: &Path) {
    let mut random = Random::new("old", 0);
    for number in 0..40 {
        let directory = pvol.join(format!("d{}", number % 5));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{number}")), random.bytes(100_000)).unwrap();
    }
    fs::write(pvol.join("large"), random.bytes(8 << 20)).unwrap();
}

/// Everything that can happen to a tree.
fn change_everything(root: &Path) {
    let mut random = Random::new("changes", 0);
    let large = File::options().read(true).write(true).open(root.join("large")).unwrap();
    for _ in 0..20 {
        let (offset, length) = (random.below(8 << 20), 1 + random.below(9_000));
        large.write_all_at(&random.bytes(length), offset).unwrap();
    }
    large.set_len(5 << 20).unwrap();
    large.set_len(6 << 20).unwrap();
    // names across each other, and numbers given twice
    fs::rename(root.join("d0"), root.join("d1/moved")).unwrap();
    fs::rename(root.join("d1"), root.join("d0")).unwrap();
    for number in [2, 7, 12] {
        fs::remove_file(root.join(format!("d2/f{number}"))).unwrap();
        fs::write(root.join(format!("d2/new{number}")), random.bytes(5_000)).unwrap();
    }
    fs::rename(root.join("d2/new2"), root.join("d2/f17")).unwrap();
    fs::hard_link(root.join("d3/f3"), root.join("d4/linked")).unwrap();
    symlink("d4/linked", root.join("symbolic")).unwrap();
    fs::set_permissions(root.join("d3/f8"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("d3"), fs::Permissions::from_mode(0o750)).unwrap();
    rustix::fs::setxattr(root.join("d4/f4"), "user.word", b"said", rustix::fs::XattrFlags::empty()).unwrap();
    fs::remove_dir_all(root.join("d4/none")).unwrap_err();
    fs::create_dir(root.join("fresh")).unwrap();
    fs::create_dir(root.join("fresh/inner")).unwrap();
    fs::write(root.join("fresh/inner/file"), random.bytes(70_000)).unwrap();
    fs::remove_file(root.join("d3/f13")).unwrap();
}

#[test]
fn a_split_pair_comes_back_with_only_what_changed() {
    let site = Site::new("suspend", "64MiB", old_tree);
    let mount = site.mount();
    fs::write(site.point.join("before"), "journaled").unwrap();
    let before = site.sandbox.mark("susp", "before");
    assert!(before.stdout.contains("before"), "{before}");
    assert!(site.sandbox.reelfs(["pair", "resync", "susp"]).ok().stdout.contains("nothing had to be told again"));
    site.sandbox.reelfs(["pair", "split", "susp"]).ok();
    assert!(site.sandbox.reelfs(["pair", "split", "susp"]).ok().stdout.contains("already"));
    let state = site.status();
    assert_eq!((&state["state"], &state["reason"]), (&"SUSP".into(), &"user".into()));
    let shown = site.sandbox.reelfs(["pair", "show", "susp", "--check", "susp", "--json"]).ok().json();
    assert_eq!((&shown["state"], &shown["reason"]), (&"SUSP".into(), &"user".into()), "{shown}");
    site.sandbox.reelfs(["pair", "show", "susp", "--check", "PAIR"]).refused(16, &["susp is SUSP, not PAIR"]);
    site.sandbox.reelfs(["pair", "show", "susp", "--check", "WELL"]).refused(2, &["SMPL, COPY, PAIR, SUSP"]);
    site.sandbox
        .reelfs(["wait", "susp", "--state", "PAIR", "--timeout", "300ms"])
        .refused(17, &["is SUSP after 300ms"]);
    assert!(site.sandbox.reelfs(["pair", "list"]).ok().stdout.contains("SUSP    user: "));
    site.sandbox.reelfs(["mark", "susp", "never"]).refused(16, &["is SUSP", "reelfs pair resync susp"]);
    site.sandbox
        .reelfs(["base", "copy", "susp", "--to", text(&site.tapes)])
        .refused(16, &["is SUSP", "stands on journaled changes"]);
    change_everything(&site.point);
    // what was journaled until then can be exported and restored meanwhile, and the tape vouches for no more
    site.sandbox.export("susp", &site.tapes);
    let during = site.sandbox.restore(&site.tapes, "marker:before", "during");
    assert_eq!(fs::read_to_string(during.join("before")).unwrap(), "journaled");
    assert!(!during.join("fresh").exists());
    let now = tools::shell(&site.pvol, "date -u +%Y-%m-%dT%H:%M:%S.%NZ");
    site.sandbox
        .try_restore(&site.tapes, now.trim(), "never")
        .refused(13, &["is after the time that the last tape vouches for"]);
    let told = site.resync();
    assert_eq!(told["state"], "PAIR");
    site.sandbox.reelfs(["wait", "susp", "--state", "PAIR"]).ok();
    // 20 places of at most 9,000 bytes in `large` and what was cut off it; and the few new files
    let bytes = told["bytes"].as_u64().unwrap();
    assert!(bytes < 20 * 2 * (64 << 10) + (1 << 20) + 200_000, "{bytes} bytes were told again");
    assert_eq!(site.status()["state"], "PAIR");
    site.assert_twin("after the resync");
    let points = site.sandbox.reelfs(["points", "--tapes", text(&site.tapes)]).ok().stdout;
    assert!(points.contains("changed while nothing was journaled"), "{points}");
    fs::write(site.point.join("after"), "journaled again").unwrap();
    site.sandbox.mark("susp", "after");
    site.assert_twin("later");
    mount.umount();
}

#[test]
fn a_full_journal_suspends_and_the_applications_go_on() {
    let site = Site::new("suspend", "16MiB", old_tree);
    let mount = site.mount();
    let mut random = Random::new("full", 0);
    let mut file = File::create(site.point.join("written")).unwrap();
    for _ in 0..60 {
        file.write_all(&random.bytes(1 << 20)).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    let state = site.status();
    assert_eq!((&state["state"], &state["reason"]), (&"SUSP".into(), &"journal-full".into()), "{state}");
    change_everything(&site.point);
    // umount, and an edit behind the mount, keep it suspended and lose nothing
    mount.umount();
    fs::write(site.pvol.join("behind"), "an edit behind the mount").unwrap();
    fs::write(site.pvol.join("d3/f3"), "and one of a file that was there").unwrap();
    assert_eq!(site.status()["state"], "SUSP");
    let mount = site.mount();
    assert_eq!(site.status()["reason"], "journal-full");
    fs::write(site.point.join("more"), random.bytes(3 << 20)).unwrap();
    let written = 63 << 20;
    let told = site.resync();
    assert!(told["bytes"].as_u64().unwrap() < written * 11 / 10, "{told}");
    site.assert_twin("after the resync");
    mount.umount();
    assert_eq!(site.status()["state"], "PAIR");
}

#[test]
fn a_killed_daemon_stays_suspended_and_a_resync_cut_off_begins_again() {
    let site = Site::new("suspend", "16MiB", old_tree);
    let mount = site.mount();
    site.sandbox.reelfs(["pair", "split", "susp"]).ok();
    change_everything(&site.point);
    mount.kill();
    let mount = site.mount();
    let state = site.status();
    assert_eq!((&state["state"], &state["reason"]), (&"SUSP".into(), &"user".into()), "{state}");
    fs::write(site.point.join("large2"), Random::new("large2", 0).bytes(40 << 20)).unwrap();
    // the tape directory is away: the journal fills while the pair is brought back, and it stays suspended
    let away = site.sandbox.path("away");
    fs::rename(&site.tapes, &away).unwrap();
    site.sandbox.reelfs(["pair", "resync", "susp"]).refused(20, &["it stays suspended", "reelfs tape export"]);
    assert_eq!(site.status()["state"], "SUSP");
    fs::write(site.point.join("meanwhile"), "noted").unwrap();
    mount.kill();
    let mount = site.mount();
    fs::rename(&away, &site.tapes).unwrap();
    site.resync();
    site.assert_twin("after the second resync");
    mount.umount();
}

#[test]
fn writers_go_on_while_the_pair_is_brought_back() {
    let site = Site::new("suspend", "32MiB", old_tree);
    let mount = site.mount();
    site.sandbox.reelfs(["pair", "split", "susp"]).ok();
    change_everything(&site.point);
    fs::write(site.point.join("large2"), Random::new("large2", 0).bytes(60 << 20)).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..3u64 {
            let (point, is_over) = (&site.point, &is_over);
            scope.spawn(move || {
                let mut random = Random::new("meanwhile", number);
                let place = point.join(format!("w{number}"));
                fs::create_dir(&place).unwrap();
                let file = File::options().write(true).open(point.join("large2")).unwrap();
                for turn in 0.. {
                    if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    file.write_all_at(&random.bytes(3_000), random.below(60 << 20)).unwrap();
                    fs::write(place.join(format!("a{}", turn % 7)), random.bytes(2_000)).unwrap();
                    fs::rename(place.join(format!("a{}", turn % 7)), place.join(format!("b{}", turn % 5))).unwrap();
                    support::wait::pause(std::time::Duration::from_millis(2));
                }
            });
        }
        support::wait::pause(std::time::Duration::from_millis(50));
        let outcome = site.sandbox.reelfs(["pair", "resync", "susp", "--json"]);
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(last_line(&outcome.ok())["state"], "PAIR");
    });
    site.assert_twin("after a resync under fire");
    mount.umount();
}

#[test]
fn the_policy_fail_answers_enospc_and_reads_go_on() {
    let site = Site::new("fail", "16MiB", old_tree);
    let mount = site.mount();
    let error = fs::write(site.point.join("too-much"), vec![7; 40 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc_enospc()));
    assert_eq!(fs::read(site.point.join("large")).unwrap().len(), 8 << 20);
    let state = site.status();
    assert_eq!((&state["state"], &state["on_full"]), (&"PAIR".into(), &"fail".into()));
    site.sandbox.export("susp", &site.tapes);
    fs::write(site.point.join("room-again"), "room").unwrap();
    site.assert_twin("after room was made");
    mount.umount();
}

#[test]
fn every_verb_does_in_every_state_what_the_table_says() {
    for state in [PairState::Smpl, PairState::Pair, PairState::Susp] {
        for verb in PairVerb::ALL {
            let sandbox = Sandbox::new();
            let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
            let (group, tapes) = ("cell", text(&tapes));
            sandbox.group_of_size(group, &pvol, "16MiB");
            if state != PairState::Smpl {
                sandbox.reelfs(["base", "copy", group, "--to", tapes]).ok();
            }
            if state == PairState::Susp {
                sandbox.reelfs(["pair", "split", group]).ok();
            }
            let outcome = match verb {
                PairVerb::BaseCopy => sandbox.reelfs(["base", "copy", group, "--to", tapes]),
                PairVerb::Split => sandbox.reelfs(["pair", "split", group]),
                PairVerb::Resync => sandbox.reelfs(["pair", "resync", group]),
                PairVerb::ResyncFull => sandbox.reelfs(["pair", "resync", group, "--full"]),
                PairVerb::Mark => sandbox.reelfs(["mark", group, "here"]),
                PairVerb::Export => sandbox.reelfs(["tape", "export", group, "--to", tapes]),
                PairVerb::Delete => sandbox.reelfs(["pair", "delete", "cell/data"]),
            };
            let word = || sandbox.reelfs(["status", group, "--json"]).ok().json()["groups"][0]["state"].clone();
            match verdict(state, verb) {
                Verdict::Accepted => drop(outcome.ok()),
                Verdict::NoOp => {
                    let said = outcome.ok().stdout;
                    assert!(said.contains("already") || said.contains("nothing had to be"), "{said}");
                    assert_eq!(word(), state.word());
                }
                Verdict::Refused(why) => {
                    outcome.refused(16, &[state.word(), why]);
                    assert_eq!(word(), state.word());
                }
            }
        }
    }
}

/// The document, after the lines of progress.
fn last_line(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.stdout.lines().last().unwrap_or_default()).expect("a line of JSON")
}

fn libc_enospc() -> i32 {
    rustix::io::Errno::NOSPC.raw_os_error()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

#[test]
fn a_group_that_somebody_works_on_is_not_said_to_be_journaled() {
    let site = Site::new("suspend", "16MiB", old_tree);
    let mount = site.mount();
    site.sandbox.reelfs(["pair", "split", "susp"]).ok();
    mount.umount();
    let group = StateDir::resolve(Some(&site.sandbox.state())).unwrap().group(&"susp".parse().unwrap());
    let wait = |state: &str| site.sandbox.reelfs(["wait", "susp", "--state", state, "--timeout", "1s"]);
    for (verb, state) in [("reelfs tape export", "SUSP"), ("reelfs pair resync", "COPY")] {
        let _lock = GroupLock::take(&group, verb).unwrap();
        assert_eq!(site.status()["state"], state, "while {verb} works on it");
        wait("PAIR").refused(17, &["not PAIR"]);
    }
    wait("SUSP").ok();
}
