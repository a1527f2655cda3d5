//! A base copy through the journal: in stages, while the volume is in use, killed again and again, and no base tape anywhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reelfs::restore::Deck;
use reelfs_journal::{Change, MarkerKind, Seq};
use rustix::fs::{CWD, RenameFlags};
use serde_json::Value;
use support::{Mount, Outcome, Random, Sandbox, Tree, tools, wait};

const MIB: u64 = 1 << 20;
/// The journal: the smallest that there is.
const JVOL: u64 = 16 * MIB;
/// Files of the volume, and their sizes: together ten times the journal.
const LARGE: u64 = 40;
const LARGE_SIZE: u64 = 4 * MIB;
const SMALL: u64 = 600;
/// What may be told again after a kill: less than what the journal takes at a time.
const STAGE: u64 = JVOL / 2;

struct Site {
    sandbox: Sandbox,
    fast: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
    point: PathBuf,
}

impl Site {
    fn new(furnish: impl FnOnce(&Path)) -> Site {
        let (sandbox, fast) = (Sandbox::new(), Sandbox::in_memory());
        let (pvol, tapes, point) = (sandbox.directory("pvol"), fast.directory("tapes"), sandbox.directory("mnt"));
        furnish(&pvol);
        sandbox.group_of_size("back", &pvol, "16MiB");
        Site { sandbox, fast, pvol, tapes, point }
    }

    fn mount(&self) -> Mount {
        Mount::new(&self.sandbox, "back", &self.point, &[])
    }

    fn through(&self) -> Outcome {
        self.sandbox.reelfs(["base", "copy", "back", "--through-journal", "--to", text(&self.tapes)])
    }

    fn resync(&self, options: &[&str]) -> Outcome {
        self.sandbox.reelfs(["pair", "resync", "back"].iter().chain(options))
    }

    fn state(&self) -> Value {
        self.sandbox.reelfs(["status", "back", "--json"]).ok().json()["groups"][0]["state"].clone()
    }

    fn written(&self) -> u64 {
        self.sandbox.tapes(&self.tapes).iter().map(|tape| fs::metadata(tape).unwrap().len()).sum()
    }

    fn assert_twin(&self, what: &str) {
        self.sandbox.export("back", &self.tapes);
        self.assert_restored("latest", &Tree::of(&self.pvol), what);
    }

    fn assert_restored(&self, point: &str, tree: &Tree, what: &str) {
        let restored = self.fast.restore(&self.tapes, point, "restored");
        tree.assert_same(&Tree::of(&restored), what);
        fs::remove_dir_all(restored).unwrap();
    }

    fn deck(&self) -> Deck {
        Deck::open(std::slice::from_ref(&self.tapes), None, &mut |_, _| {}).unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

/// A tree ten times the size of the journal, most of it in large files.
fn furnish(pvol: &Path) {
    let mut random = Random::new("furniture", 0);
    for number in 0..LARGE {
        fs::write(pvol.join(format!("large{number}")), random.bytes(LARGE_SIZE)).unwrap();
    }
    furnish_small(pvol);
}

/// Small files in directories, some with two names; holes, links, special attributes.
fn furnish_small(pvol: &Path) {
    let mut random = Random::new("furniture", 1);
    for number in 0..SMALL {
        let directory = pvol.join(format!("d{}/e{}", number % 5, number % 20));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join(format!("f{number}"));
        fs::write(&file, random.bytes(number * 37 % 9_000)).unwrap();
        match number % 20 {
            3 => fs::hard_link(&file, pvol.join(format!("d{}/link{number}", number % 3))).unwrap(),
            5 => symlink("nowhere", directory.join(format!("s{number}"))).unwrap(),
            9 => File::create(&file).and_then(|file| file.set_len(300_000)).unwrap(),
            7 => File::create(&file).and_then(|file| file.write_all_at(b"behind a hole", 200_000)).unwrap(),
            _ => {}
        }
    }
}

/// The same, with so much in every directory that names move while the copy goes by.
fn furnish_heavy(pvol: &Path) {
    furnish_small(pvol);
    for number in 0..20 {
        let bytes = Random::new("heavy", number).bytes(2 * MIB);
        fs::write(pvol.join(format!("d{}/e{number}/heavy", number % 5)), bytes).unwrap();
    }
}

/// Writers, until it is over; whatever fails because the daemon is dead is tried again later.
struct Fire<'a> {
    root: &'a Path,
    names_only: bool,
    is_over: AtomicBool,
    operations: AtomicU64,
}

impl<'a> Fire<'a> {
    fn new(root: &'a Path, names_only: bool) -> Fire<'a> {
        Fire { root, names_only, is_over: AtomicBool::new(false), operations: AtomicU64::new(0) }
    }

    fn burn(&self, number: u64) {
        let mut random = Random::new("fire", number);
        while !self.is_over.load(Ordering::Relaxed) {
            let done = if self.names_only || random.below(2) == 0 {
                self.change_names(&mut random)
            } else {
                let length = random.below(30_000);
                let bytes = random.bytes(length);
                let large = self.root.join(format!("large{}", random.below(LARGE)));
                let file = File::options().write(true).open(large);
                file.and_then(|file| file.write_all_at(&bytes, random.below(LARGE_SIZE)))
            };
            // a dead daemon, or another writer was faster
            if done.is_ok() {
                self.operations.fetch_add(1, Ordering::Relaxed);
            }
            wait::pause(Duration::from_millis(if self.names_only { 0 } else { 10 }));
        }
    }

    fn change_names(&self, random: &mut Random) -> std::io::Result<()> {
        let (one, two) = (self.some_file(random), self.some_file(random));
        let length = random.below(9_000);
        let bytes = random.bytes(length);
        match random.below(10) {
            0 | 1 => File::options().write(true).open(&one)?.write_all_at(&bytes, random.below(9_000)),
            2 => File::options().write(true).open(&one)?.set_len(random.below(20_000)),
            3 => fs::rename(&one, &two),
            4 => Ok(rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE)?),
            5 => {
                let (from, to) = (self.some_directory(random), self.some_directory(random));
                Ok(rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE)?)
            }
            6 => {
                // and back, or there would soon be nothing left to be moved
                let moved = self.root.join(format!("d{}/moved{}", random.below(5), random.below(5)));
                let place = self.some_directory(random);
                fs::rename(&moved, &place).or_else(|_| fs::rename(&place, &moved))
            }
            7 => fs::hard_link(&one, two.with_extension("link")),
            8 => fs::remove_file(&one),
            _ => fs::write(&one, &bytes).and_then(|()| fs::write(&two, &bytes)),
        }
    }

    fn some_directory(&self, random: &mut Random) -> PathBuf {
        let number = random.below(20);
        self.root.join(format!("d{}/e{number}", number % 5))
    }

    fn some_file(&self, random: &mut Random) -> PathBuf {
        let number = random.below(SMALL);
        let name = if random.below(4) == 0 { format!("new{}", number % 40) } else { format!("f{number}") };
        self.root.join(format!("d{}/e{}", number % 5, number % 20)).join(name)
    }

    /// While four writers are at it.
    fn during<T>(&self, act: impl FnOnce() -> T) -> T {
        struct PutOut<'f>(&'f AtomicBool);
        impl Drop for PutOut<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        self.is_over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let _out = PutOut(&self.is_over);
            (0..4).for_each(|number| drop(scope.spawn(move || self.burn(number))));
            act()
        })
    }
}

/// Bytes in the records on the tapes: told by these processes (by all without one), in adoptions left out; and by others.
fn journaled(deck: &Deck, daemons: &[u32]) -> (u64, u64) {
    let (mut told, mut others, mut is_adoption) = (0, 0, false);
    for tapes in &deck.epochs {
        deck.records(tapes.epoch, Seq(1), &mut |who, change| {
            match change {
                Some(Change::Marker { kind: MarkerKind::AdoptBegin, .. }) => is_adoption = true,
                Some(Change::Marker { kind: MarkerKind::AdoptEnd, .. }) => is_adoption = false,
                Some(Change::Write { data, .. }) if !daemons.is_empty() && !daemons.contains(&who.pid) => {
                    others += data.len() as u64;
                }
                Some(Change::Write { data, .. }) if !is_adoption => told += data.len() as u64,
                _ => {}
            }
            Ok(true)
        })
        .unwrap();
    }
    (told, others)
}

fn pid(mount: &Mount) -> u32 {
    mount.pid().as_raw_nonzero().get().unsigned_abs()
}

fn size_of(tree: &Path) -> u64 {
    let mut seen = HashSet::new();
    let files = walkdir::WalkDir::new(tree).into_iter().map(|entry| entry.unwrap().metadata().unwrap());
    files.filter(|meta| meta.is_file() && seen.insert(meta.ino())).map(|meta| meta.len()).sum()
}

#[test]
fn a_copy_through_a_journal_a_tenth_of_the_volume_goes_on_after_five_kills_under_fire() {
    if !tools::holds(tools::root(), "root, to mount") {
        return;
    }
    let site = Site::new(furnish);
    let before = size_of(&site.pvol);
    assert!(before >= 10 * JVOL);
    let (first, mut daemons) = (site.mount(), Vec::new());
    let fire = Fire::new(&site.point, false);
    let mount = fire.during(|| {
        let mut mount = first;
        for kill in 1..=5u64 {
            let next = site.written() + before / 8;
            std::thread::scope(|scope| {
                let copy = scope.spawn(|| if kill == 1 { site.through() } else { site.resync(&[]) });
                let come_far = wait::until(Duration::from_secs(60), || site.written() >= next || copy.is_finished());
                assert!(come_far && !copy.is_finished(), "the copy ended before kill {kill}: {:?}", copy.join());
                daemons.push(pid(&mount));
                mount.kill();
                assert_eq!(copy.join().unwrap().code, 18, "whoever waited learns that the daemon has gone");
            });
            mount = site.mount();
            assert_eq!(site.state(), "COPY");
        }
        site.resync(&[]).ok();
        daemons.push(pid(&mount));
        mount
    });
    assert_eq!(site.state(), "PAIR");
    // few on a machine on which the copy ends soon: there were writers all the same
    assert!(fire.operations.load(Ordering::Relaxed) > 100, "no fire: {:?}", fire.operations);
    site.assert_twin("after five kills");
    mount.umount();
    let (told, others) = journaled(&site.deck(), &daemons);
    println!("{before} bytes before; {told} told by the copy, {others} journaled by the writers");
    assert!(told >= before * 9 / 10, "what was told is counted: {told}");
    let limit = before.max(size_of(&site.pvol)) + 5 * STAGE;
    assert!(told <= limit, "{told} bytes told, {limit} at most: the copy started over");
    assert!(site.sandbox.tapes(&site.tapes).iter().all(|tape| !text(tape).contains(".base.")), "no base tape");
}

#[test]
fn names_that_change_all_the_while_end_where_they_are() {
    if !tools::holds(tools::root(), "root, to mount") {
        return;
    }
    let site = Site::new(furnish_heavy);
    let first = site.mount();
    let fire = Fire::new(&site.point, true);
    let mount = fire.during(|| {
        let enough = |count| wait::until(Duration::from_secs(20), || fire.operations.load(Ordering::Relaxed) > count);
        assert!(enough(300), "no fire: {:?}", fire.operations);
        let mount = killed_midway(&site, first, 15 * MIB);
        site.resync(&[]).ok();
        let during = fire.operations.load(Ordering::Relaxed) - 300;
        assert!(during > 100, "only {during} changes while the copy ran");
        mount
    });
    site.assert_twin("after a copy under fire");
    // a second base, from records alone; the moments between are those of the first
    mount.sync();
    site.sandbox.mark("back", "between");
    let between = Tree::of(&site.pvol);
    fire.during(|| drop(site.resync(&["--full"]).ok()));
    assert_eq!(site.state(), "PAIR");
    site.assert_twin("after the second copy");
    site.assert_restored("marker:between", &between, "before the second copy");
    mount.umount();
}

/// The whole of the volume goes through an existing pair, and the base tape is not needed any more.
#[test]
fn a_full_resync_makes_the_base_tape_needless_and_removed_names_end() {
    let site = Site::new(furnish_small);
    site.sandbox.base("back", &site.tapes);
    let mount = tools::root().then(|| site.mount());
    let place = if mount.is_some() { &site.point } else { &site.pvol };
    fs::remove_file(place.join("d0/e0/f0")).unwrap();
    fs::remove_dir_all(place.join("d1/e1")).unwrap();
    site.sandbox.mark("back", "before");
    let before = Tree::of(&site.pvol);
    let said = site.resync(&["--full", "--json"]).ok();
    let document: Value = serde_json::from_str(said.stdout.lines().last().unwrap()).unwrap();
    let (state, base) = (&document["state"], document["base"].as_u64().unwrap());
    assert_eq!(state, "PAIR", "{document}");
    fs::rename(place.join("d2"), place.join("d3/d2")).unwrap();
    drop(mount.map(Mount::umount));
    site.assert_twin("with the base tape");
    site.assert_restored("marker:before", &before, "with the base tape");
    for tape in site.sandbox.tapes(&site.tapes).iter().filter(|tape| text(tape).contains(".base.")) {
        fs::remove_file(tape).unwrap();
    }
    site.assert_restored("latest", &Tree::of(&site.pvol), "without the base tape");
    site.assert_restored(&format!("seq:{base}"), &before, "at the end of the base");
    site.fast.try_restore(&site.tapes, &format!("seq:{}", base - 1), "early").refused(13, &["before the oldest"]);
    site.fast.try_restore(&site.tapes, "marker:before", "early").refused(13, &["before the oldest"]);
    let points = site.sandbox.reelfs(["points", "--tapes", text(&site.tapes), "--json"]).ok();
    let of_base = |line: &Value| line["kind"] == "base" && line["seq"].as_u64() == Some(base);
    let line = points.json_lines().into_iter().find(of_base).expect("the base is a point");
    assert!(line["note"].as_str().unwrap().contains("in the journal"), "{line}");
    let log = site.sandbox.reelfs(["log", "--tapes", text(&site.tapes), "--since", &format!("seq:{base}")]).ok();
    assert!(log.stdout.contains("d3/d2"), "{log}");
}

#[test]
fn a_copy_without_room_waits_and_goes_on_and_every_verb_does_what_the_table_says_meanwhile() {
    use reelfs::pair_state::{PairState, PairVerb, Verdict, verdict};
    let large = |pvol: &Path| fs::write(pvol.join("large"), Random::new("large", 0).bytes(20 * MIB)).unwrap();
    for verb in PairVerb::ALL {
        let site = Site::new(large);
        let refused = site.sandbox.reelfs(["base", "copy", "back", "--through-journal"]);
        refused.refused(20, &["no room", "goes on when it is started again", "reelfs tape export"]);
        assert_eq!(site.state(), "COPY");
        let tapes = text(&site.tapes);
        // the directory gets the copy from its beginning on
        let export = || site.sandbox.export("back", &site.tapes);
        let run = |arguments: &[&str]| site.sandbox.reelfs(arguments);
        let outcome = match verb {
            PairVerb::BaseCopy => run(&["base", "copy", "back", "--to", tapes]),
            PairVerb::Split => run(&["pair", "split", "back"]),
            PairVerb::Resync => {
                export();
                run(&["pair", "resync", "back"])
            }
            PairVerb::ResyncFull => {
                export();
                run(&["pair", "resync", "back", "--full"])
            }
            PairVerb::Mark => run(&["mark", "back", "here"]),
            PairVerb::Export => export(),
            PairVerb::Delete => run(&["pair", "delete", "back/data"]),
        };
        match verdict(PairState::Copy, verb) {
            Verdict::Accepted => drop(outcome.ok()),
            Verdict::NoOp => panic!("{verb:?} while copying is not nothing"),
            Verdict::Refused(why) => drop(outcome.refused(16, &["COPY", why])),
        }
        let ends = matches!(verb, PairVerb::BaseCopy | PairVerb::Resync | PairVerb::ResyncFull);
        assert_eq!(site.state(), if ends { "PAIR" } else { "COPY" }, "after {verb:?}");
        if !ends {
            export();
            site.through().ok();
        }
        site.assert_twin("in the end");
        // all of it once; straight to tape in the end, the records before are not needed
        let told = journaled(&site.deck(), &[]).0;
        assert_eq!(told, if verb == PairVerb::BaseCopy { 0 } else { 20 * MIB }, "{verb:?}");
    }
}

#[test]
fn a_suspension_in_the_middle_is_brought_back_and_the_copy_goes_on() {
    if !tools::holds(tools::root(), "root, to mount") {
        return;
    }
    let site = Site::new(furnish);
    let first = site.mount();
    killed_midway(&site, first, 40 * MIB).umount();
    // nobody can write tapes, and the journal fills: the pair is suspended with half of it told
    let away = site.fast.path("away");
    fs::rename(&site.tapes, &away).unwrap();
    set_policy(&site, "suspend");
    let mount = site.mount();
    fs::write(site.point.join("d0/filling"), Random::new("filling", 0).bytes(20 * MIB)).unwrap();
    assert_eq!(site.state(), "SUSP");
    fs::rename(site.point.join("d1"), site.point.join("d0/d1")).unwrap();
    fs::remove_dir_all(site.point.join("d2")).unwrap();
    fs::write(site.point.join("large39"), "written anew").unwrap();
    fs::rename(site.point.join("large38"), site.point.join("d3/large38")).unwrap();
    site.resync(&[]).refused(20, &["it stays suspended"]);
    fs::rename(&away, &site.tapes).unwrap();
    site.resync(&[]).ok();
    assert_eq!(site.state(), "PAIR");
    site.assert_twin("after the suspension");
    mount.umount();
}

/// In a later epoch an export writes a base tape of what has no base; what went through the journal has one.
#[test]
fn a_copy_through_the_journal_is_a_base_in_a_new_epoch_too() {
    let site = Site::new(furnish_small);
    site.through().ok();
    let (moved, copy) = (site.sandbox.path("moved"), site.sandbox.path("copy"));
    let bytes = Random::new("other", 0).bytes(12 * MIB);
    fs::create_dir(&copy).unwrap();
    fs::write(copy.join("other"), &bytes).unwrap();
    fs::rename(&site.pvol, &moved).unwrap();
    fs::rename(&copy, &site.pvol).unwrap();
    assert_eq!(site.state(), "PAIR");
    site.through().ok();
    let tapes = site.sandbox.tapes(&site.tapes);
    assert!(tapes.len() > 2, "exported in stages: {tapes:?}");
    assert!(tapes.iter().all(|tape| !text(tape).contains(".base.")), "{tapes:?}");
    site.assert_twin("the other directory");
}

#[test]
fn several_volumes_go_through_one_journal() {
    let (sandbox, fast) = (Sandbox::new(), Sandbox::in_memory());
    let tapes = fast.directory("tapes");
    sandbox.reelfs(["group", "create", "two", "--size", "16MiB"]).ok();
    for (number, volume) in [(0, "one"), (1, "other")] {
        let pvol = sandbox.directory(volume);
        fs::write(pvol.join("large"), Random::new(volume, number).bytes(9 * MIB)).unwrap();
        fs::write(pvol.join(volume), "its own").unwrap();
        sandbox.reelfs(["pair", "create", &format!("two/{volume}"), "--pvol", text(&pvol)]).ok();
    }
    let copy = |pair: &str| {
        sandbox.reelfs(["base", "copy", pair, "--through-journal", "--to", text(&tapes)]).ok();
    };
    copy("two/one");
    copy("two");
    sandbox.export("two", &tapes);
    let restored = fast.restore(&tapes, "latest", "restored");
    for volume in ["one", "other"] {
        Tree::of(&sandbox.path(volume)).assert_same(&Tree::of(&restored.join(volume)), volume);
    }
}

/// A copy of which so much came onto tapes before the daemon was killed; and the daemon after it.
fn killed_midway(site: &Site, mount: Mount, bytes: u64) -> Mount {
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| site.through());
        let next = wait::until(Duration::from_secs(60), || site.written() > bytes || copy.is_finished());
        assert!(next && !copy.is_finished());
        mount.kill();
        copy.join().unwrap();
    });
    site.mount()
}

/// What the group does when the journal is full, as if it had been made so.
fn set_policy(site: &Site, policy: &str) {
    let path = site.sandbox.state().join("groups/back/group.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    file["on_full"] = policy.into();
    fs::write(path, file.to_string()).unwrap();
}
