//! A journal that has lost what it held, and what a disk refuses while a pair is brought back: nothing waits for what nobody settles,
//! and nothing goes on as if it were durable.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use reelfs_journal::disk::{self, Call, Label, Verdict, Watcher};
use reelfs_journal::{
    Change, Epoch, FileId, FileTime, JournalError, Jvol, Record, Reserve, Seq, Spare, SystemClock, Timestamp,
    VolumeIndex,
};
use reelfs_volume::{OnFull, OpenOptions, Opened, Primary, Reason, Requester};
use rustix::io::Errno;
use support::Sandbox;
use uuid::Uuid;

const ROOT: Requester = Requester { uid: 0, gid: 0, pid: 1 };
const GROUP: Uuid = Uuid::from_u128(7);

/// One call with this label fails once it is armed.
struct Failing {
    label: Label,
    is_armed: AtomicBool,
}

impl Failing {
    fn next(label: Label) -> Arc<Failing> {
        Arc::new(Failing { label, is_armed: AtomicBool::new(false) })
    }

    fn arm(&self) {
        self.is_armed.store(true, Ordering::SeqCst);
    }
}

impl Watcher for Failing {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let fails = call.label == self.label && self.is_armed.swap(false, Ordering::SeqCst);
        if fails { Verdict::Fail(Errno::IO) } else { Verdict::Proceed }
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

/// The next write to the volume fails, and while it does the disk of the journal goes, with all that it held.
struct Breaking {
    jvol: OnceLock<(Arc<Jvol>, PathBuf)>,
    is_armed: AtomicBool,
    is_broken: AtomicBool,
}

impl Breaking {
    fn break_journal(&self) {
        let (jvol, path) = self.jvol.get().unwrap();
        let file = File::options().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        // all but the superblocks
        file.write_all_at(&vec![0; usize::try_from(length - 8192).unwrap()], 8192).unwrap();
        self.is_broken.store(true, Ordering::SeqCst);
        jvol.sync(Seq(u64::MAX)).unwrap_err();
        assert!(jvol.has_lost());
    }
}

impl Watcher for Breaking {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match call.label {
            Label::ApplyWrite if self.is_armed.swap(false, Ordering::SeqCst) => {
                self.break_journal();
                Verdict::Fail(Errno::NOSPC)
            }
            Label::JvolSync if self.is_broken.swap(false, Ordering::SeqCst) => Verdict::Fail(Errno::IO),
            _ => Verdict::Proceed,
        }
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

/// A volume in memory with its journal, opened without a kernel, whose calls somebody watches.
fn open(sandbox: &Sandbox, watcher: Arc<dyn Watcher>) -> Opened {
    open_with(sandbox, OnFull::Block, watcher)
}

fn open_with(sandbox: &Sandbox, on_full: OnFull, watcher: Arc<dyn Watcher>) -> Opened {
    let jvol = sandbox.path("test.jvol");
    Jvol::create(&jvol, Jvol::SIZE_MIN, GROUP, &mut |_, _| {}).unwrap();
    let options = OpenOptions {
        root: File::open(sandbox.directory("pvol")).unwrap().into(),
        jvol,
        group: GROUP,
        state: sandbox.state(),
        epoch: Epoch(1),
        session: None,
        strict: false,
        on_full,
        clock: Arc::new(SystemClock),
    };
    disk::watch_thread(Some(watcher));
    Primary::start(options).unwrap()
}

fn spare(sandbox: &Sandbox) -> Spare {
    let path = sandbox.path("spare.jvol");
    Jvol::create(&path, 2 * Jvol::SIZE_MIN, GROUP, &mut |_, _| {}).unwrap();
    Spare { take: Box::new(move |_| Ok(path.clone())), settle: Box::new(|_| Ok(())) }
}

#[test]
fn nothing_waits_for_a_failed_write_whose_record_was_lost_too() {
    let sandbox = Sandbox::in_memory();
    fs::create_dir_all(sandbox.state()).unwrap();
    let breaking = Arc::new(Breaking {
        jvol: OnceLock::new(),
        is_armed: AtomicBool::new(false),
        is_broken: AtomicBool::new(false),
    });
    let opened = open(&sandbox, breaking.clone());
    let Opened { primary, session, .. } = &opened;
    primary.jvol().set_spare(spare(&sandbox));
    let ino = primary.create(&ROOT, primary.root(), "file".as_ref(), 0o644, 0).unwrap().id.ino;
    primary.write(&ROOT, ino, 0, b"written", false).unwrap();
    assert!(breaking.jvol.set((primary.jvol().clone(), primary.jvol().path())).is_ok());
    breaking.is_armed.store(true, Ordering::SeqCst);
    primary.write(&ROOT, ino, 0, b"no room for it", false).unwrap_err();
    // whoever comes next finds the loss
    primary.write(&ROOT, ino, 0, b"noted", false).unwrap();
    assert_eq!(primary.suspension().map(|(since, _)| since.reason), Some(Reason::Error));
    primary.group().begin_later_epoch(Epoch(2), &[VolumeIndex::FIRST]).unwrap();
    let (primary, session) = (primary.clone(), session.clone());
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let sealed = primary.group().seal().is_ok();
        ended.send(sealed && primary.close(&session).is_ok()).unwrap();
    });
    assert_eq!(
        wait.recv_timeout(Duration::from_secs(20)),
        Ok(true),
        "an export, or the end of the mount, waits for ever"
    );
}

/// A disk without room for files of this label.
struct Full(Label);

impl Watcher for Full {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if call.label == self.0 { Verdict::Fail(Errno::NOSPC) } else { Verdict::Proceed }
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

#[test]
fn who_finds_journal_and_state_directory_full_uses_nothing_up_however_often_he_tries() {
    for label in [Label::DirtyMapCreate, Label::DirtyMapReserve] {
        let sandbox = Sandbox::in_memory();
        fs::create_dir_all(sandbox.state()).unwrap();
        let opened = open_with(&sandbox, OnFull::Suspend, Arc::new(Full(label)));
        let Opened { primary, session, .. } = &opened;
        let ino = primary.create(&ROOT, primary.root(), "file".as_ref(), 0o644, 0).unwrap().id.ino;
        let write = || primary.write(&ROOT, ino, 0, &[7; 100_000], false);
        let refused = std::iter::repeat_with(write).find_map(Result::err);
        assert_eq!(refused, Some(Errno::NOSPC));
        let before = primary.jvol().pointers().next;
        (0..2_000).for_each(|_| assert_eq!(write(), Err(Errno::NOSPC)));
        assert_eq!(primary.jvol().pointers().next, before, "markers of what did not come about");
        disk::watch_thread(None);
        write().unwrap();
        assert_eq!(primary.suspension().map(|(since, _)| since.reason), Some(Reason::JournalFull));
        primary.close(session).unwrap();
    }
}

#[test]
fn a_sync_that_waited_while_the_records_were_lost_says_so() {
    let sandbox = Sandbox::in_memory();
    let (path, spare) = (sandbox.path("test.jvol"), sandbox.path("spare.jvol"));
    Jvol::create(&path, Jvol::SIZE_MIN, GROUP, &mut |_, _| {}).unwrap();
    Jvol::create(&spare, 2 * Jvol::SIZE_MIN, GROUP, &mut |_, _| {}).unwrap();
    let jvol = Arc::new(Jvol::open(&path, GROUP).unwrap());
    let (moving, has_begun) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    jvol.set_spare(Spare {
        take: Box::new(move |_| Ok(spare.clone())),
        settle: Box::new(move |_| {
            moving.send(()).unwrap();
            waits.lock().unwrap().recv().unwrap();
            Ok(())
        }),
    });
    append(&jvol);
    // the disk goes, with all that it held
    File::options().write(true).open(&path).unwrap().write_all_at(&vec![0; 1 << 20], 8192).unwrap();
    let breaks = {
        let jvol = jvol.clone();
        std::thread::spawn(move || {
            disk::watch_thread(Some(Arc::new(Breaks)));
            jvol.sync(Seq(u64::MAX)).unwrap_err();
        })
    };
    has_begun.recv().unwrap();
    let (begins, begun) = mpsc::channel();
    let syncs = {
        let jvol = jvol.clone();
        std::thread::spawn(move || {
            begins.send(()).unwrap();
            jvol.sync(Seq(1))
        })
    };
    begun.recv().unwrap();
    // most likely it waits for the lock by now; when it does not, it finds the loss by itself
    support::wait::pause(Duration::from_millis(50));
    go_on.send(()).unwrap();
    let synced = syncs.join().unwrap();
    breaks.join().unwrap();
    assert!(matches!(synced, Err(JournalError::Lost(_))), "{synced:?}");
}

/// Journal volumes cannot be made durable any more.
struct Breaks;

impl Watcher for Breaks {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if call.label == Label::JvolSync { Verdict::Fail(Errno::IO) } else { Verdict::Proceed }
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

fn append(jvol: &Jvol) {
    let (seq, time, volume) = (Seq::ZERO, Timestamp(0), VolumeIndex::FIRST);
    let file = FileId { ino: 1, generation: 1 };
    let change = Change::SetSize { file, size: 1, mtime: FileTime::default() };
    let record = Record { seq, more: false, time, wall: time, uid: 0, pid: 0, volume, change };
    jvol.append(&mut [record.encode()], &SystemClock, Reserve::Keep, |_, _| {}).unwrap();
}

/// The labels of all that is done.
#[derive(Default)]
struct Labels(std::sync::Mutex<Vec<Label>>);

impl Watcher for Labels {
    fn before(&self, call: &Call<'_>) -> Verdict {
        self.0.lock().unwrap().push(call.label);
        Verdict::Proceed
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

#[test]
fn an_opening_makes_durable_what_it_goes_by_before_it_writes() {
    let sandbox = Sandbox::in_memory();
    let labels = Arc::new(Labels::default());
    let opened = open(&sandbox, labels.clone());
    // the superblock alone may have been read from memory, and what it calls free be held by the one on the disk
    let order = labels.0.lock().unwrap().clone();
    let at = |label: Label| order.iter().position(|done| *done == label).unwrap();
    let first = |of: &[Label]| order.iter().position(|done| of.contains(done)).unwrap();
    assert!(at(Label::JvolSuperblock) < at(Label::JvolSync), "{order:?}");
    assert!(at(Label::JvolSync) < first(&[Label::JvolData, Label::JvolControl, Label::JvolRingHead]), "{order:?}");
    opened.primary.close(&opened.session).unwrap();
}

#[test]
fn a_new_epoch_whose_dirty_map_may_come_back_takes_no_changes() {
    let sandbox = Sandbox::in_memory();
    fs::create_dir_all(sandbox.state()).unwrap();
    let failing = Failing::next(Label::DirtyMapRemoveSync);
    let opened = open(&sandbox, failing.clone());
    let primary = &opened.primary;
    primary.suspend(Reason::User).unwrap();
    failing.arm();
    primary.group().begin_later_epoch(Epoch(2), &[VolumeIndex::FIRST]).unwrap();
    let refused = primary.create(&ROOT, primary.root(), "file".as_ref(), 0o644, 0);
    assert_eq!(refused.map(|made| made.id), Err(Errno::ROFS), "a sync would be answered with the journal alone");
}

#[test]
fn what_the_disk_refuses_at_the_end_of_a_resync_is_done_again_by_the_next_opening() {
    let sandbox = Sandbox::in_memory();
    fs::create_dir_all(sandbox.state()).unwrap();
    let failing = Failing::next(Label::VolumeSync);
    let opened = open(&sandbox, failing.clone());
    let primary = &opened.primary;
    primary.suspend(Reason::User).unwrap();
    let ino = primary.create(&ROOT, primary.root(), "file".as_ref(), 0o644, 0).unwrap().id.ino;
    failing.arm();
    primary.resync(&mut || false, &mut |_, _| {}).unwrap_err();
    assert!(!failing.is_armed.load(Ordering::SeqCst), "nothing was synced");
    assert_eq!(primary.write(&ROOT, ino, 0, b"later", false), Err(Errno::ROFS), "the kernel says it once");
    assert!(sandbox.state().join("redo").exists(), "nobody would know");
}
