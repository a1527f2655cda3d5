//! Power cuts: whatever part of volume and journal had reached the disk, the next opening makes them one again.
//!
//! Without a kernel: every page, size and attribute of every file set back to any of its states since the session began, new names
//! taken away, and the journal cut anywhere after its last flush.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::Door;
use model::replay::records;
use model::replica::replica;
use model::shrink::smallest;
use model::step::sequence;
use reelfs_journal::{Clock, ClockReading, Digest, Epoch, Jvol, Seq, SystemClock};
use reelfs_volume::{Lost, OnFull, OpenError, OpenOptions, Opened, Primary, Reason, Requester, Session};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use support::{Random, Sandbox, Tree, cut_after, tools, tree, wait};
use uuid::Uuid;

const PAGE: usize = 4096;

/// The clock of a machine that was booted so long ago.
#[derive(Debug)]
struct Booted(Duration);

impl Clock for Booted {
    fn read(&self) -> ClockReading {
        ClockReading { boot: self.0, ..SystemClock.read() }
    }
}

fn start(sandbox: &Sandbox, session: Option<Session>) -> Opened {
    try_start(sandbox, session, Duration::ZERO).expect("the volume opens")
}

fn try_start(sandbox: &Sandbox, session: Option<Session>, booted: Duration) -> Result<Opened, OpenError> {
    let (jvol, group) = (sandbox.path("test.jvol"), Uuid::from_u128(7));
    if session.is_none() {
        Jvol::create(&jvol, Jvol::SIZE_MIN, group, &mut |_, _| {}).expect("a journal volume");
    }
    let options = OpenOptions {
        root: File::open(sandbox.path("pvol")).expect("the volume").into(),
        jvol,
        group,
        state: sandbox.state(),
        epoch: Epoch(1),
        session,
        strict: false,
        on_full: OnFull::Block,
        clock: Arc::new(Booted(booted)),
    };
    Primary::start(options)
}

/// A state that a file had.
struct Version {
    bytes: Vec<u8>,
    mode: u32,
    mtime: (i64, i64),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Every state of every regular file, by inode number, and the names that stood at the beginning.
#[derive(Default)]
struct History(BTreeMap<u64, Vec<Version>>, BTreeSet<PathBuf>);

impl History {
    fn note(&mut self, pvol: &Path, tree: &Tree) {
        for path in tree.nodes().keys().map(|path| pvol.join(path)) {
            let stat = fs::symlink_metadata(&path).expect("it is there");
            if stat.is_file() {
                let versions = self.0.entry(stat.ino()).or_default();
                versions.push(Version {
                    bytes: fs::read(&path).expect("it can be read"),
                    mode: stat.mode() & 0o7777,
                    mtime: (stat.mtime(), stat.mtime_nsec()),
                    xattrs: tree::xattrs(&path),
                });
            }
        }
    }

    /// Leaves of each file what the disk might have: any state of each page, any size, any attributes.
    fn cut(&self, pvol: &Path, tree: &Tree, random: &mut Random) {
        for path in tree.nodes().keys().map(|path| pvol.join(path)) {
            let stat = fs::symlink_metadata(&path).expect("it is there");
            let Some(versions) = self.0.get(&stat.ino()).filter(|_| stat.is_file()) else { continue };
            let mut bytes = vec![0; random.one_of(versions).bytes.len()];
            for (page, place) in bytes.chunks_mut(PAGE).enumerate() {
                let version = &random.one_of(versions).bytes;
                let there = version.get(page * PAGE..).unwrap_or_default();
                let length = there.len().min(place.len());
                place[..length].copy_from_slice(&there[..length]);
            }
            let file = File::options().write(true).open(&path).expect("root may");
            file.set_len(0).and_then(|()| file.write_all_at(&bytes, 0)).expect("room");
            fs::set_permissions(&path, fs::Permissions::from_mode(random.one_of(versions).mode)).expect("root may");
            let wanted = &random.one_of(versions).xattrs;
            for name in tree::xattrs(&path).keys().filter(|name| !wanted.contains_key(*name)) {
                rustix::fs::removexattr(&path, name.as_slice()).expect("it has it");
            }
            for (name, value) in wanted {
                rustix::fs::setxattr(&path, name.as_slice(), value, XattrFlags::empty()).expect("it can have it");
            }
            let (tv_sec, tv_nsec) = random.one_of(versions).mtime;
            let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
            let times = Timestamps { last_access: omit, last_modification: Timespec { tv_sec, tv_nsec } };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).expect("root may");
        }
    }
}

impl History {
    /// Takes names away that were new: their creation had not reached the disk.
    fn lose_names(&self, pvol: &Path, tree: &Tree, random: &mut Random) {
        let begin = &self.1;
        for path in tree.nodes().keys().filter(|path| !begin.contains(*path)).map(|path| pvol.join(path)) {
            if fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_file()) && random.below(2) == 0 {
                fs::remove_file(path).expect("it is there");
            }
        }
    }
}

/// Plays steps; gives the states of all files on the way.
fn play(opened: &Opened, pvol: &Path, draws: &[model::Draw]) -> History {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut door = Door::new(&opened.primary, owner);
    let mut history = History::default();
    history.note(pvol, &Tree::of(pvol));
    history.1 = Tree::of(pvol).nodes().keys().cloned().collect();
    for draw in draws {
        let Some(step) = draw.step(&model::Directory::new(pvol).seen()) else { continue };
        // many are refused, as they should be
        _ = door.play(&step);
        history.note(pvol, &Tree::of(pvol));
    }
    history
}

/// A journal as a power cut leaves it: with all that a flush had made durable, and some of what came after.
struct DurableJournal {
    image: Vec<u8>,
    kept: Seq,
}

impl DurableJournal {
    /// At least up to `durable`.
    fn of(jvol: &Jvol, durable: Seq, random: &mut Random) -> DurableJournal {
        let pointers = jvol.pointers();
        let mut image = fs::read(jvol.path()).expect("the journal volume");
        let lost = random.below(pointers.next.0 - durable.0);
        let kept = Seq(pointers.next.0 - 1 - lost);
        for seq in kept.next().0..pointers.next.0 {
            let slot = usize::try_from(8192 + seq % pointers.control_slots * 64).expect("a place in it");
            image[slot..slot + 64].fill(0);
        }
        DurableJournal { image, kept }
    }
}

/// What is older than the grain of file times when this returns is not taken for new.
fn grow_old() {
    wait::pause(Duration::from_millis(60));
}

/// One power cut: whatever mixture of pages, sizes, attributes and names it leaves, the next opening ends in a twin of the
/// journal, in the same epoch.
fn cut_anywhere(number: usize, draws: &[model::Draw]) -> Result<(), String> {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    sandbox.directory("state");
    let begin = Tree::of(&pvol);
    let (before, after) = draws.split_at(draws.len() / 2);
    let mut random = Random::new("power cut", number as u64);
    // a session that was closed, an edit behind the mount, and the session that is cut off
    let first = start(&sandbox, None);
    play(&first, &pvol, before);
    let closed = first.primary.close(&first.session).expect("closed");
    if let Some(path) = Tree::of(&pvol).nodes().keys().map(|path| pvol.join(path)).find(|path| path.is_file()) {
        fs::write(path, random.bytes(9_000)).expect("an edit behind the mount");
    }
    drop(first);
    let second = start(&sandbox, Some(closed));
    // with an export on the way, which brings the volume to its disk and frees what was there before the export began
    let (exported, after) = after.split_at(after.len() * (number % 3) / 4);
    let (before, meanwhile) = exported.split_at(exported.len() / 2);
    play(&second, &pvol, before);
    grow_old();
    let kept = second.primary.jvol().pointers().next;
    play(&second, &pvol, meanwhile);
    let mut taken = records(second.primary.jvol());
    second.primary.prepare_to_free(kept, kept).expect("a volume in memory");
    second.primary.jvol().free(kept, Digest([1; 32])).expect("nothing else uses it");
    let history = play(&second, &pvol, after);
    let stood = Tree::of(&pvol);
    let journal = DurableJournal::of(second.primary.jvol(), second.primary.jvol().pointers().durable, &mut random);
    let is_whole = journal.kept.next() == second.primary.jvol().pointers().next;
    let session = Session { boot: "another".to_owned(), ..second.session.clone() };
    taken.retain(|record| record.seq < kept);
    drop(second);
    // as the machine's end would: nothing more is said to the volume, and of the journal there is what had reached the disk
    fs::write(sandbox.path("test.jvol"), &journal.image).expect("room");
    history.cut(&pvol, &stood, &mut random);
    let loses_names = random.below(2) == 0;
    if loses_names {
        history.lose_names(&pvol, &stood, &mut random);
    }
    let mut third = start(&sandbox, Some(session.clone()));
    if number % 4 == 1 {
        // cut off in the middle: the session was not saved, and of what was told there is some
        let told = DurableJournal::of(third.primary.jvol(), journal.kept, &mut random);
        drop(third);
        fs::write(sandbox.path("test.jvol"), &told.image).expect("room");
        third = start(&sandbox, Some(session));
    }
    assert_eq!((third.replaced, third.lost, third.epoch), (None, Some(Lost::PowerCut), Epoch(1)));
    if is_whole && !loses_names {
        stood.same(&Tree::of(&pvol), &format!("after power cut {number}"))?;
    }
    taken.extend(records(third.primary.jvol()));
    let twin = replica(taken, &third.primary, &begin, &sandbox)?;
    Tree::of(&pvol).same(&twin, &format!("the volume and a replica, after power cut {number}"))?;
    third.primary.close(&third.session).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn any_mixture_of_old_and_new_becomes_a_twin_of_the_journal_and_keeps_the_epoch() {
    if !tools::holds(tools::root(), "root, to set back what it likes") {
        return;
    }
    for number in 0..tools::rounds(90, 3_000) {
        let draws = sequence(number, 90);
        let fails = |draws: &[model::Draw]| cut_anywhere(number, draws).err();
        if let Some(reason) = fails(&draws) {
            let (left, reason) = smallest(&draws, reason, fails);
            panic!("power cut {number}, {} steps: {reason}", left.len());
        }
    }
}

#[test]
fn what_the_journal_has_no_room_for_is_told_by_a_resync() {
    assert_eq!(without_room(None), Left::Open);
    let mut half = 0;
    for calls in 0.. {
        match without_room(Some(calls)) {
            Left::Open => {
                assert!(half > 0 && calls > 20, "{calls} cuts, {half} between the marker and the map");
                return;
            }
            Left::WithoutMap => half += 1,
            Left::Before | Left::Suspended => {}
        }
    }
}

/// How far an opening came.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Before,
    /// The journal says that it is suspended, or is about to, and the map has not got its name.
    WithoutMap,
    /// Begun, and no session is saved: the next one is a new epoch.
    Suspended,
    Open,
}

/// A recovery without room, perhaps after one that was cut off after so many calls.
fn without_room(cut: Option<u64>) -> Left {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    sandbox.directory("state");
    let begin = Tree::of(&pvol);
    let first = start(&sandbox, None);
    let who = Requester { uid: 0, gid: 0, pid: 1 };
    let root = first.primary.root();
    let large = first.primary.create(&who, root, "large".as_ref(), 0o644, 0).unwrap().id.ino;
    let fill = |opened: &Opened, byte: u8, until: u64| {
        for at in 0..until {
            opened.primary.write(&who, large, at << 20, &vec![byte; 1 << 20], false).unwrap();
        }
    };
    fill(&first, 1, 9);
    let mut taken = records(first.primary.jvol());
    let free = |opened: &Opened| {
        let next = opened.primary.jvol().pointers().next;
        opened.primary.prepare_to_free(next, next).unwrap();
        opened.primary.jvol().free(next, Digest([1; 32])).unwrap();
        next
    };
    let mut kept = free(&first);
    fill(&first, 2, 9);
    let session = Session { boot: "another".to_owned(), ..first.session.clone() };
    drop(first);
    let mut left = Left::Open;
    if let Some(calls) = cut {
        let is_there = |name: &str| sandbox.state().join(name).exists();
        let opened = cut_after(calls, || try_start(&sandbox, Some(session.clone()), Duration::ZERO));
        left = match opened {
            Ok(_) => return Left::Open,
            Err(_) if is_there("dirty") => return Left::Suspended,
            Err(_) if is_there("dirty.new") => Left::WithoutMap,
            Err(_) => Left::Before,
        };
    }
    let again = start(&sandbox, Some(session));
    assert_eq!((again.replaced, again.lost), (None, Some(Lost::PowerCut)));
    assert!(again.recovered.is_some_and(|recovered| recovered.suspended && recovered.told == 0));
    let (suspension, counts) = again.primary.suspension().expect("suspended");
    assert_eq!((suspension.reason, counts.objects), (Reason::Error, 1));
    again.primary.write(&who, lookup(&again, "large"), 0, b"while suspended", false).unwrap();
    let mut make_room = || {
        taken.retain(|record| record.seq < kept);
        taken.extend(records(again.primary.jvol()));
        kept = free(&again);
        true
    };
    again.primary.resync(&mut make_room, &mut |_, _| {}).unwrap();
    taken.retain(|record| record.seq < kept);
    taken.extend(records(again.primary.jvol()));
    let twin = replica(taken, &again.primary, &begin, &sandbox).unwrap();
    Tree::of(&pvol).assert_same(&twin, "the volume and a replica");
    left
}

fn lookup(opened: &Opened, name: &str) -> u64 {
    opened.primary.lookup(opened.primary.root(), name.as_ref()).unwrap().id.ino
}

#[test]
fn what_was_edited_since_the_power_came_back_stays_and_a_redo_cut_off_goes_on() {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    sandbox.directory("state");
    let opened = start(&sandbox, None);
    let who = Requester { uid: 0, gid: 0, pid: 1 };
    for name in ["kept", "edited"] {
        let made = opened.primary.create(&who, opened.primary.root(), name.as_ref(), 0o644, 0).unwrap();
        opened.primary.write(&who, made.id.ino, 0, b"written through the mount", false).unwrap();
    }
    let session = Session { boot: "another".to_owned(), ..opened.session.clone() };
    drop(opened);
    fs::write(pvol.join("kept"), "lost").unwrap();
    wait::pause(Duration::from_millis(50));
    let boot = wait::now();
    wait::pause(Duration::from_millis(50));
    fs::write(pvol.join("edited"), "by hand, before the mount").unwrap();
    let after_the_edit = boot.elapsed() + Duration::from_millis(10);
    wait::pause(Duration::from_millis(50));
    // a first attempt that could not be finished: the state that it leaves is that of one that is not done
    let first = try_start(&sandbox, Some(session.clone()), boot.elapsed()).unwrap();
    assert_eq!(first.recovered.map(|recovered| recovered.left), Some(1));
    drop(first);
    for turn in 0..2 {
        assert_eq!(fs::read_to_string(pvol.join("edited")).unwrap(), "by hand, before the mount", "{turn}");
        assert_eq!(fs::read_to_string(pvol.join("kept")).unwrap(), "written through the mount", "{turn}");
        if turn == 0 {
            // cut off half-way: begun long ago, and what it did carries later times than the boot
            let ago = boot.elapsed() - after_the_edit;
            let begun = SystemClock.read().wall.0 - i64::try_from(ago.as_nanos()).unwrap();
            fs::write(sandbox.state().join("redo"), format!("0 {begun}\n")).unwrap();
            fs::write(pvol.join("kept"), "half-way").unwrap();
            wait::pause(Duration::from_millis(50));
            let again = try_start(&sandbox, Some(session.clone()), boot.elapsed()).unwrap();
            assert!(!sandbox.state().join("redo").exists());
            drop(again);
        }
    }
}
