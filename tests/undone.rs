//! A create that is undone while the volume's disk takes no times: the time that it left on the directory is in the journal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use reelfs_journal::disk::{self, Call, Label, Verdict, Watcher};
use reelfs_journal::{Change, Clock, ClockReading, Epoch, FileId, FileTime, Jvol, Record, SystemClock};
use reelfs_volume::{OnFull, OpenOptions, Opened, Primary, Reason, Requester, Session};
use rustix::io::Errno;
use support::{Sandbox, tools, wait};
use uuid::Uuid;

const NOBODY: Requester = Requester { uid: 65_534, gid: 65_534, pid: 1 };
const ROOT: Requester = Requester { uid: 0, gid: 0, pid: 1 };

/// An hour ahead of the clock of file times: no change time is ever news, as where that clock has missed its ticks.
struct HourAhead;

impl Clock for HourAhead {
    fn read(&self) -> ClockReading {
        let mut reading = SystemClock.read();
        reading.wall.0 += 3_600_000_000_000;
        reading
    }
}

/// These calls fail.
struct Failing(&'static [Label]);

impl Watcher for Failing {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if self.0.contains(&call.label) { Verdict::Fail(Errno::IO) } else { Verdict::Proceed }
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

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

    fn open(&self, session: Option<Session>) -> Opened {
        let options = OpenOptions {
            root: File::open(&self.pvol).unwrap().into(),
            jvol: self.sandbox.path("test.jvol"),
            group: Uuid::from_u128(7),
            state: self.sandbox.state(),
            epoch: Epoch(1),
            session,
            strict: false,
            on_full: OnFull::Block,
            clock: Arc::new(HourAhead),
        };
        Primary::start(options).unwrap()
    }

    fn root_mtime(&self) -> FileTime {
        let root = std::fs::metadata(&self.pvol).unwrap();
        FileTime { seconds: root.mtime(), nanos: root.mtime_nsec().try_into().unwrap() }
    }

    /// The modification time of the root as the journal tells it.
    fn told(&self, root: FileId) -> Option<FileTime> {
        let jvol = Jvol::open(&self.sandbox.path("test.jvol"), Uuid::from_u128(7)).unwrap();
        let pointers = jvol.pointers();
        let mut reader = jvol.read(pointers.out, pointers.next.previous()).unwrap();
        let mut told = None;
        while let Some(record) = reader.next() {
            let (control, data) = record.unwrap();
            match Record::decode(control, data).unwrap().change {
                Change::Create { parent, parent_mtime, .. } if parent == root => told = Some(parent_mtime),
                Change::SetAttr { file, attributes } | Change::Entry { file, attributes, .. } if file == root => {
                    told = Some(attributes.mtime);
                }
                _ => {}
            }
        }
        told
    }
}

fn is_told_after(failing: &'static [Label], is_suspended: bool) {
    if !tools::holds(tools::root(), "root, for owners") {
        return;
    }
    let site = Site::new();
    let opened = site.open(None);
    let (primary, root) = (&opened.primary, opened.primary.root());
    let id = primary.create(&ROOT, root, "a".as_ref(), 0o644, 0).unwrap().id;
    if is_suspended {
        primary.suspend(Reason::User).unwrap();
    }
    let before = site.root_mtime();
    wait::file_times();
    let had = disk::watch_thread(Some(Arc::new(Failing(failing))));
    let is_later = || {
        let made = primary.create(&NOBODY, root, "b".as_ref(), 0o644, 0);
        assert!(made.is_err(), "{made:?}");
        site.root_mtime() > before
    };
    assert!(wait::until(std::time::Duration::from_secs(10), is_later), "the directory keeps its time");
    disk::watch_thread(had);
    assert!(!site.pvol.join("b").exists());
    let _ = primary.write(&ROOT, id.ino, 0, b"later", false);
    let root = primary.root_id();
    let session = opened.session.clone();
    drop(opened);
    let opened = site.open(Some(session));
    if is_suspended {
        opened.primary.resync(&mut || false, &mut |_, _| {}).unwrap();
    }
    drop(opened);
    assert_eq!(site.told(root), Some(site.root_mtime()), "failing: {failing:?}");
}

#[test]
fn while_the_journal_goes_on() {
    is_told_after(&[Label::MakeOwner, Label::ApplyParentTimes], false);
}

#[test]
fn when_the_journal_has_failed_too() {
    is_told_after(&[Label::JvolData, Label::ApplyParentTimes], false);
}

#[test]
fn while_suspended_however_many() {
    if !tools::holds(tools::root(), "root, for owners") {
        return;
    }
    let site = Site::new();
    let primary = site.open(None).primary;
    primary.suspend(Reason::User).unwrap();
    let (ended, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        disk::watch_thread(Some(Arc::new(Failing(&[Label::MakeOwner, Label::ApplyParentTimes]))));
        // more than can be under way
        let refused =
            (0..70).filter(|_| primary.create(&NOBODY, primary.root(), "b".as_ref(), 0o644, 0).is_err()).count();
        disk::watch_thread(None);
        let made = primary.create(&ROOT, primary.root(), "c".as_ref(), 0o644, 0).is_ok();
        ended.send((refused, made)).unwrap();
    });
    let waited = wait.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(waited, Ok((70, true)), "a create waits for ever");
}

#[test]
fn where_nothing_can_be_removed_the_mount_ends_before_it_hangs() {
    if !tools::holds(tools::root(), "root, for owners") {
        return;
    }
    let site = Site::new();
    let opened = site.open(None);
    let (session, primary) = (opened.session.clone(), opened.primary);
    let (ended, wait) = std::sync::mpsc::channel();
    let creating = std::thread::spawn(move || {
        disk::watch_thread(Some(Arc::new(Failing(&[Label::MakeOwner, Label::UnmakeObject]))));
        let create = |number: u32| primary.create(&NOBODY, primary.root(), format!("n{number}").as_ref(), 0o644, 0);
        let refused = (0..70).filter(|&number| create(number).is_err()).count();
        disk::watch_thread(None);
        ended.send((refused, primary.create(&ROOT, primary.root(), "c".as_ref(), 0o644, 0).err())).unwrap();
    });
    let waited = wait.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(waited, Ok((70, Some(Errno::ROFS))), "a create waits for ever, or goes on");
    creating.join().unwrap();
    let left = std::fs::read_dir(&site.pvol).unwrap().count();
    assert!((20..=40).contains(&left), "{left} of them stand there");
    let opened = site.open(Some(session));
    let root = opened.primary.root_id();
    assert!(opened.primary.create(&ROOT, root.ino, "c".as_ref(), 0o644, 0).is_ok());
    drop(opened);
    assert_eq!(site.told(root), Some(site.root_mtime()), "what stands there is told");
}

#[test]
fn when_the_dirty_map_has_no_room_for_it() {
    is_told_after(&[Label::DirtyMapAppend, Label::ApplyParentTimes], true);
}
