//! Openings that are cut off when they have begun something that the next one must end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reelfs_journal::disk::{self, Call, Label, Operation, Verdict, Watcher};
use reelfs_journal::{Change, Epoch, Jvol, MarkerKind, NodeKind, Record, SystemClock, Timestamp};
use reelfs_volume::{NewEpoch, OnFull, OpenError, OpenOptions, Opened, Primary, Reason, Requester, Session};
use rustix::io::Errno;
use support::{Sandbox, cut_after, wait};
use uuid::Uuid;

/// In nanoseconds.
const HOUR: i64 = 3_600_000_000_000;
const WHO: Requester = Requester { uid: 0, gid: 0, pid: 1 };

/// A volume in memory with its journal, opened without a kernel.
struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::in_memory();
        Jvol::create(&sandbox.path("test.jvol"), 64 << 20, Uuid::from_u128(7), &mut |_, _| {}).unwrap();
        let pvol = sandbox.directory("pvol");
        Site { sandbox, pvol }
    }

    fn open(&self, session: Option<Session>) -> Result<Opened, OpenError> {
        Primary::start(OpenOptions {
            root: File::open(&self.pvol).unwrap().into(),
            jvol: self.sandbox.path("test.jvol"),
            group: Uuid::from_u128(7),
            state: self.sandbox.state(),
            epoch: Epoch(1),
            session,
            strict: false,
            on_full: OnFull::Block,
            clock: Arc::new(SystemClock),
        })
    }

    /// A session that finds this file on disk.
    fn second(&self, name: &str) -> Opened {
        let first = self.open(None).unwrap();
        first.primary.create(&WHO, first.primary.root(), name.as_ref(), 0o644, 0).unwrap();
        let closed = first.primary.close(&first.session).unwrap();
        drop(first);
        self.open(Some(closed)).unwrap()
    }
}

/// The session as the next boot of the machine finds it; the volume is told nothing more.
fn cut(opened: Opened) -> Session {
    let session = Session { boot: "another".to_owned(), ..opened.session.clone() };
    drop(opened);
    session
}

fn write(opened: &Opened, name: &str, bytes: &[u8]) {
    let ino = opened.primary.lookup(opened.primary.root(), name.as_ref()).unwrap().id.ino;
    assert_eq!(opened.primary.write(&WHO, ino, 0, bytes, false), Ok(u32::try_from(bytes.len()).unwrap()));
}

#[test]
fn a_new_epoch_that_was_cut_off_begins_again_though_the_dirty_map_is_gone() {
    let mut without_map = 0;
    for calls in 0.. {
        let site = Site::new();
        let opened = site.second("file");
        opened.primary.suspend(Reason::User).unwrap();
        write(&opened, "file", b"noted, and not journaled");
        let closed = opened.primary.close(&opened.session).unwrap();
        drop(opened);
        // as if it had been closed an hour from now: the clock has gone back
        let later =
            |closed: &Session| Session { clean: closed.clean.map(|at| Timestamp(at.0 + HOUR)), ..closed.clone() };
        let again = cut_after(calls, || site.open(Some(later(&closed))));
        assert!(again.as_ref().map_or(true, |again| again.replaced == Some(NewEpoch::ClockWentBack)));
        let is_open = again.is_ok();
        drop(again);
        let has_map = site.sandbox.state().join("dirty").exists();
        without_map += u64::from(!has_map);
        // and the clock is right again
        let last = site.open(Some(closed)).unwrap();
        let is_told = last.replaced == Some(NewEpoch::CutOff) || last.primary.suspension().is_some();
        assert!(is_told, "cut at call {calls}, map {has_map}: {:?}", last.replaced);
        if is_open {
            assert!(calls > 10 && without_map > 1, "{calls} cuts, {without_map} without a map");
            return;
        }
    }
}

/// What the journal says last about tellings: that one has begun.
fn ends_inside_a_telling(primary: &Primary) -> bool {
    let pointers = primary.jvol().pointers();
    let mut reader = primary.jvol().read(pointers.out, pointers.next.previous()).unwrap();
    let mut is_inside = false;
    while let Some(record) = reader.next() {
        let (control, data) = record.unwrap();
        if let Change::Marker { kind, .. } = Record::decode(control, data).unwrap().change {
            is_inside = kind.begins_bracket() || (is_inside && !kind.ends_bracket());
        }
    }
    is_inside
}

#[test]
fn a_telling_that_was_cut_off_is_ended_though_nothing_is_left_to_be_told() {
    let mut inside = 0;
    for calls in 0.. {
        let site = Site::new();
        let first = site.open(None).unwrap();
        first.primary.make(&WHO, first.primary.root(), "d".as_ref(), NodeKind::Directory, 0o755, 0).unwrap();
        let closed = first.primary.close(&first.session).unwrap();
        drop(first);
        // as a power cut may leave the list for one opening: the directory is told in full
        let list = site.sandbox.state().join("directories");
        let whole = std::fs::read(&list).unwrap();
        std::fs::write(&list, &whole[..16]).unwrap();
        let is_open = cut_after(calls, || site.open(Some(closed.clone()))).is_ok();
        if is_open {
            assert!(inside > 0, "no cut came inside the telling");
            return;
        }
        std::fs::write(&list, &whole).unwrap();
        let jvol = Jvol::open(&site.sandbox.path("test.jvol"), Uuid::from_u128(7)).unwrap();
        inside += u64::from(jvol.pointers().next.0 > closed.first.unwrap().0);
        drop(jvol);
        let session = Session { boot: "another".to_owned(), ..closed };
        let last = site.open(Some(session)).unwrap();
        assert!(!ends_inside_a_telling(&last.primary), "cut at call {calls}");
    }
}

#[test]
fn the_note_of_a_redo_is_gone_for_good_when_changes_are_taken() {
    let site = Site::new();
    let (mut session, mut removed) = (cut(site.second("file")), 0);
    for calls in 0.. {
        let again = cut_after(calls, || site.open(Some(session.clone())));
        let note = site.sandbox.state().join("redo");
        if let Ok(again) = again {
            assert!(removed > 0, "no cut came between the removal and its sync");
            drop(again);
            return;
        }
        removed += u64::from(!note.exists());
        let (synced, last) = parents_synced(|| site.open(Some(session.clone())).unwrap());
        assert!(!note.exists() && synced, "cut at call {calls}");
        session = cut(last);
    }
}

/// Whether the removal of the note was made durable meanwhile.
fn parents_synced<T>(run: impl FnOnce() -> T) -> (bool, T) {
    struct Syncs(AtomicBool);
    impl Watcher for Syncs {
        fn before(&self, _call: &Call<'_>) -> Verdict {
            Verdict::Proceed
        }
        fn after(&self, call: &Call<'_>, is_done: bool) {
            self.0.fetch_or(is_done && call.label == Label::RedoNoteNameSync, Ordering::SeqCst);
        }
    }
    let syncs = Arc::new(Syncs(AtomicBool::new(false)));
    let before = disk::watch_thread(Some(syncs.clone()));
    let done = run();
    disk::watch_thread(before);
    (syncs.0.load(Ordering::SeqCst), done)
}

#[test]
fn nothing_is_done_again_that_the_journal_could_still_lose() {
    let mut told = 0;
    for calls in 0.. {
        let site = Site::new();
        let opened = site.second("file");
        write(&opened, "file", b"active, and told by the opening");
        let before = opened.primary.jvol().pointers().next;
        let session = cut(opened);
        // killed: what it told may be in the memory of the machine alone
        let is_open = cut_after(calls, || site.open(Some(session.clone()))).is_ok();
        if is_open {
            assert!(told > 0, "no opening was killed behind what it told");
            return;
        }
        let jvol = Jvol::open(&site.sandbox.path("test.jvol"), Uuid::from_u128(7)).unwrap();
        told += u64::from(jvol.pointers().next > before);
        drop(jvol);
        let (early, last) = applied_early(|| site.open(Some(session)));
        assert!(last.is_ok() && !early, "cut at call {calls}");
    }
}

/// Whether a file of the volume was changed before the journal was synced.
fn applied_early<T>(run: impl FnOnce() -> T) -> (bool, T) {
    #[derive(Default)]
    struct Order {
        synced: AtomicBool,
        early: AtomicBool,
    }
    impl Watcher for Order {
        fn before(&self, call: &Call<'_>) -> Verdict {
            let is_change = matches!(call.label, Label::ApplyWrite | Label::ApplySetSize);
            self.early.fetch_or(is_change && !self.synced.load(Ordering::SeqCst), Ordering::SeqCst);
            Verdict::Proceed
        }
        fn after(&self, call: &Call<'_>, is_done: bool) {
            self.synced.fetch_or(is_done && call.label == Label::JvolSync, Ordering::SeqCst);
        }
    }
    let order = Arc::new(Order::default());
    let before = disk::watch_thread(Some(order.clone()));
    let done = run();
    disk::watch_thread(before);
    (order.early.load(Ordering::SeqCst), done)
}

/// Writes what is journaled and then neither done nor taken back: the journal's disk fails in between.
fn leave_in_flight(opened: &Opened, name: &str) {
    struct Refuses(Arc<Primary>, AtomicBool);
    impl Watcher for Refuses {
        fn before(&self, call: &Call<'_>) -> Verdict {
            match call.label {
                Label::ApplyWrite => {
                    self.1.store(true, Ordering::SeqCst);
                    let jvol = self.0.jvol();
                    assert!(jvol.sync(jvol.pointers().next.previous()).is_err());
                    Verdict::Fail(Errno::NOSPC)
                }
                // what is active is on disk before that
                Label::JvolSync if self.1.load(Ordering::SeqCst) => Verdict::Fail(Errno::IO),
                _ => Verdict::Proceed,
            }
        }
        fn after(&self, _call: &Call<'_>, _is_done: bool) {}
    }
    let ino = opened.primary.lookup(opened.primary.root(), name.as_ref()).unwrap().id.ino;
    let before = disk::watch_thread(Some(Arc::new(Refuses(opened.primary.clone(), AtomicBool::new(false)))));
    let written = opened.primary.write(&WHO, ino, 0, b"in flight", false);
    disk::watch_thread(before);
    assert!(written.is_err());
}

/// What was in flight is refused once more, and the journal's disk fails in the middle of what is told.
struct RefusesTelling;

impl Watcher for RefusesTelling {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match (call.label, &call.operation) {
            (Label::ApplyWrite, _) => Verdict::Fail(Errno::NOSPC),
            (Label::JvolData, Operation::Write { bytes, .. }) if bytes.len() > 100_000 => Verdict::Fail(Errno::IO),
            _ => Verdict::Proceed,
        }
    }
    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

#[test]
fn what_changed_before_an_opening_that_was_cut_off_is_told_by_the_next_one() {
    let site = Site::new();
    let opened = site.second("file");
    opened.primary.create(&WHO, opened.primary.root(), "other".as_ref(), 0o644, 0).unwrap();
    leave_in_flight(&opened, "file");
    let session = opened.session.clone();
    drop(opened);
    wait::file_times();
    let edited = vec![7; 20 << 20];
    std::fs::write(site.pvol.join("other"), &edited).unwrap();
    wait::file_times();
    let before = disk::watch_thread(Some(Arc::new(RefusesTelling)));
    let again = site.open(Some(session.clone()));
    disk::watch_thread(before);
    assert!(again.is_err(), "it ends in the middle of what it tells");
    drop(again);
    let last = site.open(Some(session)).unwrap();
    assert!(!ends_inside_a_telling(&last.primary));
    assert_eq!(told_last(&last.primary), edited.len() as u64, "the other file is told again, all of it");
}

/// Bytes that the last adoption tells.
fn told_last(primary: &Primary) -> u64 {
    let pointers = primary.jvol().pointers();
    let mut reader = primary.jvol().read(pointers.out, pointers.next.previous()).unwrap();
    let mut told = 0;
    while let Some(record) = reader.next() {
        let (control, data) = record.unwrap();
        match Record::decode(control, data).unwrap().change {
            Change::Marker { kind: MarkerKind::AdoptBegin, .. } => told = 0,
            Change::Write { data, .. } => told += data.len() as u64,
            _ => {}
        }
    }
    told
}

/// What somebody who reads the journal has of a file that it names.
fn as_told(primary: &Primary, name: &str) -> Vec<u8> {
    let id = primary.lookup(primary.root(), name.as_ref()).unwrap().id;
    let pointers = primary.jvol().pointers();
    let mut reader = primary.jvol().read(pointers.out, pointers.next.previous()).unwrap();
    let mut bytes = Vec::new();
    while let Some(record) = reader.next() {
        let (control, data) = record.unwrap();
        match Record::decode(control, data).unwrap().change {
            Change::SetSize { file, size, .. } if file == id => bytes.resize(usize::try_from(size).unwrap(), 0),
            Change::Write { file, offset, data, size, .. } if file == id => {
                bytes.resize(usize::try_from(size).unwrap(), 0);
                bytes[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(&data);
            }
            _ => {}
        }
    }
    bytes
}

#[test]
fn what_a_telling_cut_off_is_told_though_others_have_ended_since() {
    for calls in 0.. {
        let site = Site::new();
        let first = site.open(None).unwrap();
        first.primary.create(&WHO, first.primary.root(), "file".as_ref(), 0o644, 0).unwrap();
        let closed = first.primary.close(&first.session).unwrap();
        drop(first);
        // older than anything that the power may take, by more than a grain of the times of files
        wait::file_times();
        wait::pause(Duration::from_millis(40));
        let opened = site.open(Some(closed)).unwrap();
        opened.primary.create(&WHO, opened.primary.root(), "busy".as_ref(), 0o644, 0).unwrap();
        write(&opened, "busy", b"active");
        let session = opened.session.clone();
        drop(opened);
        wait::file_times();
        std::fs::write(site.pvol.join("file"), vec![7; 300_000]).unwrap();
        wait::file_times();
        let before = disk::watch_thread(Some(Arc::new(RefusesTelling)));
        assert!(site.open(Some(session.clone())).is_err(), "it ends in the middle of what it tells");
        disk::watch_thread(before);
        let is_open = cut_after(calls, || site.open(Some(session.clone()))).is_ok();
        let last = site.open(Some(Session { boot: "another".to_owned(), ..session })).unwrap();
        let file = std::fs::read(site.pvol.join("file")).unwrap();
        assert!(as_told(&last.primary, "file") == file, "cut at call {calls}");
        if is_open {
            assert!(calls > 30, "few openings were cut off: {calls}");
            return;
        }
    }
}
