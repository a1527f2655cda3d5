//! Power cuts: whatever part of the volume had reached the disk, what was synced is there again after the next mount.
//!
//! Once without a kernel, every page, size and attribute of every file set back to any of its states since the session
//! began; and for real, on a disk that stops in the middle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::Door;
use model::replay::records;
use model::replica::replica;
use model::shrink::smallest;
use model::step::sequence;
use reelfs_journal::{Clock, ClockReading, Digest, Epoch, Jvol, Seq, SystemClock};
use reelfs_volume::{Lost, OnFull, OpenError, OpenOptions, Opened, Primary, Reason, Requester, Session};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use support::{Disk, FileSystem, Mount, Random, Sandbox, Tree, tools, tree, wait};
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
    second.primary.prepare_to_free(kept).expect("a volume in memory");
    second.primary.jvol().free(kept, Digest::ZERO).expect("nothing else uses it");
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
        opened.primary.prepare_to_free(next).unwrap();
        opened.primary.jvol().free(next, Digest::ZERO).unwrap();
        next
    };
    let mut kept = free(&first);
    fill(&first, 2, 9);
    let session = Session { boot: "another".to_owned(), ..first.session.clone() };
    drop(first);
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

/// What a file may hold after the cut: what was acknowledged, or that with the change that was under way.
struct Kept {
    acknowledged: Vec<u8>,
    under_way: Option<Vec<u8>>,
}

/// One writer in a directory of its own, which syncs whatever it does, until its disk is gone.
struct Syncer {
    directory: String,
    random: Random,
    files: BTreeMap<String, Kept>,
    done: u64,
}

/// What a sync said, unless the disk was being stopped meanwhile: ext4 answers 0 to an fsync(2) whose transaction it throws
/// away at that moment (`jbd2_complete_transaction` takes one that is neither running nor committing for done).
fn acknowledged(synced: std::io::Result<()>, is_cut: &AtomicBool) -> std::io::Result<()> {
    if is_cut.load(Ordering::SeqCst) { Err(std::io::ErrorKind::Interrupted.into()) } else { synced }
}

impl Syncer {
    fn new(number: u64) -> Syncer {
        let random = Random::new("syncer", number);
        Syncer { directory: format!("syncer{number}"), random, files: BTreeMap::new(), done: 0 }
    }

    /// A directory and a few files, on disk before anything is cut.
    fn prepare(&mut self, root: &Path) {
        let place = root.join(&self.directory);
        fs::create_dir_all(&place).unwrap();
        for name in ["table", "log", "kept"] {
            let bytes = self.random.bytes(if name == "log" { 0 } else { 64 << 10 });
            fs::write(place.join(name), &bytes).unwrap();
            File::open(place.join(name)).and_then(|file| file.sync_all()).unwrap();
            self.files.insert(name.to_owned(), Kept { acknowledged: bytes, under_way: None });
        }
        File::open(place).and_then(|directory| directory.sync_all()).unwrap();
    }

    /// Changes one file through an open handle and syncs it.
    fn change(&mut self, root: &Path, name: &str, is_cut: &AtomicBool) -> std::io::Result<()> {
        let kept = self.files.get_mut(name).expect("prepared");
        let file = File::options().write(true).open(root.join(&self.directory).join(name))?;
        for _ in 0..1 + self.random.below(8) {
            let mut next = kept.acknowledged.clone();
            let length = 1 + self.random.below(8_000);
            let block = self.random.bytes(length);
            let end = next.len() as u64;
            let offset = if name == "log" { end } else { self.random.below(end.max(1)) };
            next.resize(next.len().max(usize::try_from(offset).unwrap() + block.len()), 0);
            next[usize::try_from(offset).unwrap()..][..block.len()].copy_from_slice(&block);
            kept.under_way = Some(next.clone());
            file.write_all_at(&block, offset)?;
            acknowledged(if self.random.below(2) == 0 { file.sync_data() } else { file.sync_all() }, is_cut)?;
            *kept = Kept { acknowledged: next, under_way: None };
            self.done += 1;
        }
        Ok(())
    }

    /// Replaces a file as careful programs do: a new one, synced, renamed over it, and the directory synced; or the file once
    /// more, which ext4 and XFS take for its new name too.
    fn replace(&mut self, root: &Path, is_cut: &AtomicBool) -> std::io::Result<()> {
        let place = root.join(&self.directory);
        let length = 1 + self.random.below(100_000);
        let bytes = self.random.bytes(length);
        let file = File::create(place.join("new"))?;
        file.write_all_at(&bytes, 0)?;
        acknowledged(file.sync_all(), is_cut)?;
        let kept = self.files.get_mut("kept").expect("prepared");
        kept.under_way = Some(bytes.clone());
        fs::rename(place.join("new"), place.join("kept"))?;
        let last = if self.random.below(2) == 0 { File::open(place)? } else { file };
        acknowledged(last.sync_all(), is_cut)?;
        *kept = Kept { acknowledged: bytes, under_way: None };
        self.done += 1;
        Ok(())
    }

    /// Makes a file and syncs it alone: ext4 and XFS keep its name too.
    fn make(&mut self, root: &Path, is_cut: &AtomicBool) -> std::io::Result<()> {
        let (name, length) = (format!("made{}", self.done), 1 + self.random.below(9_000));
        let bytes = self.random.bytes(length);
        let file = File::create(root.join(&self.directory).join(&name))?;
        file.write_all_at(&bytes, 0)?;
        acknowledged(file.sync_all(), is_cut)?;
        self.files.insert(name, Kept { acknowledged: bytes, under_way: None });
        self.done += 1;
        Ok(())
    }

    fn run(&mut self, root: &Path, is_cut: &AtomicBool) {
        loop {
            let result = match self.random.below(5) {
                0 => self.replace(root, is_cut),
                1 => self.change(root, "log", is_cut),
                2 => self.change(root, "kept", is_cut),
                3 => self.make(root, is_cut),
                _ => self.change(root, "table", is_cut),
            };
            if result.is_err() {
                return;
            }
        }
    }

    fn check(&mut self, pvol: &Path) -> Result<(), String> {
        for (name, kept) in &mut self.files {
            let path = pvol.join(&self.directory).join(name);
            let there = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            if there != kept.acknowledged && kept.under_way.as_ref() != Some(&there) {
                let (is, was) = (there.len(), kept.acknowledged.len());
                let place = there.iter().zip(&kept.acknowledged).position(|(a, b)| a != b);
                return Err(format!("{}: {is} bytes, acknowledged {was}, parts at {place:?}", path.display()));
            }
            *kept = Kept { acknowledged: there, under_way: None };
        }
        Ok(())
    }
}

/// One who changes old files and names all over a tree, and never syncs.
struct Churner {
    random: Random,
    done: u64,
}

impl Churner {
    fn place(&mut self, root: &Path) -> PathBuf {
        let (directory, file) = (self.random.below(20), self.random.below(24));
        root.join(format!("old/{directory}/{file}"))
    }

    fn prepare(&mut self, root: &Path) {
        for directory in 0..20 {
            fs::create_dir_all(root.join(format!("old/{directory}"))).unwrap();
            for file in 0..20 {
                let length = self.random.below(9_000);
                fs::write(root.join(format!("old/{directory}/{file}")), self.random.bytes(length)).unwrap();
            }
        }
        fs::write(root.join("old/large"), self.random.bytes(6 << 20)).unwrap();
    }

    fn write(&mut self, path: &Path, at: u64) -> std::io::Result<()> {
        let length = 1 + self.random.below(5_000);
        let bytes = self.random.bytes(length);
        File::options().write(true).open(path)?.write_all_at(&bytes, at)
    }

    fn change(&mut self, root: &Path) -> std::io::Result<()> {
        let path = self.place(root);
        match self.random.below(12) {
            0 | 1 => {
                let at = self.random.below(6 << 20);
                self.write(&root.join("old/large"), at)
            }
            2 | 3 => {
                let end = fs::metadata(&path)?.len();
                self.write(&path, end)
            }
            4 => self.write(&path, 0),
            5 => fs::remove_file(path),
            6 => fs::rename(path, self.place(root)),
            7 => fs::hard_link(path, self.place(root)),
            8 => fs::set_permissions(
                path,
                fs::Permissions::from_mode(0o600 | u32::try_from(self.random.below(64)).unwrap()),
            ),
            9 => File::options().write(true).open(path)?.set_len(self.random.below(20_000)),
            10 => rustix::fs::setxattr(path, "user.n", &self.random.bytes(20), XattrFlags::empty()).map_err(Into::into),
            _ => {
                let length = self.random.below(20_000);
                fs::write(path, self.random.bytes(length))
            }
        }
    }

    fn run(&mut self, root: &Path) {
        loop {
            match self.change(root).map_err(|error| error.kind()) {
                Ok(()) => self.done += 1,
                Err(ErrorKind::NotFound | ErrorKind::AlreadyExists) => {}
                Err(_) => return,
            }
        }
    }
}

/// A group whose disk stops while it is written to, and comes back with what had reached it.
struct Site {
    disk: Disk,
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
    point: PathBuf,
    syncers: Vec<Syncer>,
    churner: Churner,
    random: Random,
}

/// What lies on the disk that stops.
#[derive(Clone, Copy, PartialEq)]
enum OnIt {
    Both,
    Pvol,
    Journal,
}

impl Site {
    fn new(file_system: FileSystem, mebibytes: u64, on_it: OnIt) -> Site {
        let sandbox = Sandbox::new();
        let disk = Disk::new(&sandbox, "disk", file_system, mebibytes);
        let place = |name, is_on_it| if is_on_it { disk.directory(name) } else { sandbox.directory(name) };
        let (pvol, tapes) = (place("pvol", on_it != OnIt::Journal), sandbox.directory("tapes"));
        let journals = place("journal", on_it != OnIt::Pvol);
        let place = ["--pvol", text(&pvol), "--journal", text(&journals), "--size", "64MiB"];
        sandbox.reelfs(["group", "create", "cut"].into_iter().chain(place)).ok();
        let point = sandbox.directory("mnt");
        let syncers = (0..3).map(Syncer::new).collect();
        let churner = Churner { random: Random::new("churner", 0), done: 0 };
        Site { disk, sandbox, pvol, tapes, point, syncers, churner, random: Random::new("when", on_it as u64) }
    }

    fn mount(&self) -> Mount {
        Mount::new(&self.sandbox, "cut", &self.point, &[])
    }

    /// Works for a while, then cuts; with an export on the way, which frees the journal: its records are not needed again
    /// only if the PVOL is on disk.
    fn work_until_cut(&mut self, mount: Mount, with_export: bool) {
        let (is_cut, pause) = (AtomicBool::new(false), Duration::from_millis(50 + self.random.below(300)));
        std::thread::scope(|scope| {
            for syncer in &mut self.syncers {
                let (root, is_cut) = (&*self.point, &is_cut);
                scope.spawn(move || syncer.run(root, is_cut));
            }
            let churner = &mut self.churner;
            let root = &*self.point;
            scope.spawn(move || churner.run(root));
            wait::pause(pause);
            if with_export {
                self.sandbox.export("cut", &self.tapes);
                wait::pause(Duration::from_millis(20));
            }
            is_cut.store(true, Ordering::SeqCst);
            // without flushing its own journal: what was not asked to be durable may go
            tools::run("xfs_io", &["-x", "-c", "shutdown", text(self.disk.path())]);
            wait::pause(Duration::from_millis(20));
            mount.kill();
        });
        self.disk.umount();
        self.disk.mount();
    }

    fn check(&mut self, when: &str) {
        for syncer in &mut self.syncers {
            let checked = syncer.check(&self.pvol);
            assert!(checked.is_ok(), "{when}, {} changes: {}", syncer.done, checked.unwrap_err());
        }
    }
}

fn cut_for_real(mut site: Site, rounds: usize) {
    let mut epoch = 1;
    let mut mount = site.mount();
    site.syncers.iter_mut().for_each(|syncer| syncer.prepare(&site.point));
    site.churner.prepare(&site.point);
    site.sandbox.base("cut", &site.tapes);
    for round in 0..rounds {
        let when = format!("round {round}");
        // while nothing is journaled, a sync is one of the file, and there is nothing to do again
        let is_split = round % 4 == 2;
        if is_split {
            site.sandbox.reelfs(["pair", "split", "cut"]).ok();
        }
        site.work_until_cut(mount, round % 2 == 1);
        mount = site.mount();
        let log = mount.log();
        let is_redone = log.contains("of the journal done again on the PVOL");
        assert!(log.contains("the machine stopped") && is_redone != is_split, "{when}:\n{log}");
        // the map of a suspension is not on disk change by change
        assert_eq!(log.contains("begins, and the next export writes a new base"), is_split, "{when}:\n{log}");
        epoch += u64::from(is_split);
        assert_eq!(site.sandbox.reelfs(["group", "show", "cut", "--json"]).ok().json()["epoch"], epoch, "{when}");
        site.check(&when);
        // what the PVOL is now is what the tapes say
        site.sandbox.export("cut", &site.tapes);
        let restored = site.sandbox.restore(&site.tapes, "latest", "restored");
        Tree::of(&site.pvol).assert_same(&Tree::of(&restored), &when);
        fs::remove_dir_all(restored).unwrap();
    }
    // a group that is deleted instead of mounted again keeps nothing back either
    site.work_until_cut(mount, false);
    site.sandbox.reelfs(["group", "delete", "cut", "--yes"]).ok();
    site.check("deleted");
    assert!(site.syncers.iter().all(|syncer| syncer.done > 0), "nothing was ever acknowledged");
    assert!(site.churner.done > 0);
}

fn can_cut() -> bool {
    tools::root() && tools::present(&["mkfs.ext4", "mkfs.xfs", "xfs_io"])
}

#[test]
fn ext4_stops_with_the_journal_on_it() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Ext4, 200, OnIt::Both), tools::rounds(10, 200));
    }
}

#[test]
fn ext4_stops_and_the_journal_is_elsewhere() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Ext4, 100, OnIt::Pvol), tools::rounds(10, 200));
    }
}

#[test]
fn xfs_stops_with_the_journal_on_it() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Xfs, 400, OnIt::Both), tools::rounds(10, 200));
    }
}

#[test]
fn xfs_stops_and_the_journal_is_elsewhere() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Xfs, 320, OnIt::Pvol), tools::rounds(10, 200));
    }
}

#[test]
fn ext4_stops_and_only_the_journal_is_on_it() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Ext4, 140, OnIt::Journal), tools::rounds(10, 200));
    }
}

#[test]
fn xfs_stops_and_only_the_journal_is_on_it() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Xfs, 400, OnIt::Journal), tools::rounds(10, 200));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}
