//! The redo after a power cut, where it is not plain: little room, no privileges, edits by hand, a disk that refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use reelfs_journal::{Clock, ClockReading, Epoch, Jvol, NodeKind, RENAME_EXCHANGE, SystemClock};
use reelfs_volume::{
    Lost, NewEpoch, OnFull, OpenError, OpenOptions, Opened, Primary, Reason, Requester, Session, SetAttr,
};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use support::{Disk, FileSystem, Sandbox, cut_after, tools, wait};
use uuid::Uuid;

const WHO: Requester = Requester { uid: 0, gid: 0, pid: 1 };

/// The clock of a machine that was booted then.
#[derive(Debug)]
struct Booted(Instant);

impl Clock for Booted {
    fn read(&self) -> ClockReading {
        ClockReading { boot: self.0.elapsed(), ..SystemClock.read() }
    }
}

/// A volume with its journal, opened without a kernel.
struct Site {
    disk: Option<Disk>,
    sandbox: Sandbox,
    pvol: PathBuf,
}

impl Site {
    fn new(sandbox: Sandbox, disk: Option<Disk>) -> Site {
        Jvol::create(&sandbox.path("test.jvol"), 64 << 20, Uuid::from_u128(7), &mut |_, _| {}).unwrap();
        let pvol = disk.as_ref().map_or_else(|| sandbox.directory("pvol"), |disk| disk.directory("pvol"));
        Site { disk, sandbox, pvol }
    }

    fn in_memory() -> Site {
        Site::new(Sandbox::in_memory(), None)
    }

    fn on_disk(file_system: FileSystem, mebibytes: u64) -> Site {
        let sandbox = Sandbox::new();
        let disk = Disk::new(&sandbox, "disk", file_system, mebibytes);
        Site::new(sandbox, Some(disk))
    }

    fn open(&self, session: Option<Session>, booted: Instant) -> Result<Opened, OpenError> {
        Primary::start(OpenOptions {
            root: File::open(&self.pvol).unwrap().into(),
            jvol: self.sandbox.path("test.jvol"),
            group: Uuid::from_u128(7),
            state: self.sandbox.state(),
            epoch: Epoch(1),
            session,
            strict: false,
            on_full: OnFull::Block,
            clock: Arc::new(Booted(booted)),
        })
    }

    fn first(&self) -> Opened {
        self.open(None, wait::now()).unwrap()
    }

    /// A session that finds these files on disk.
    fn second(&self, files: &[&str]) -> Opened {
        let first = self.first();
        files.iter().for_each(|name| _ = create(&first, name, 0o644));
        let closed = first.primary.close(&first.session).unwrap();
        drop(first);
        self.open(Some(closed), wait::now()).unwrap()
    }
}

/// The session as the next boot of the machine finds it; the volume is told nothing more.
fn cut(opened: Opened) -> Session {
    let session = Session { boot: "another".to_owned(), ..opened.session.clone() };
    drop(opened);
    session
}

fn create(opened: &Opened, name: &str, mode: u32) -> u64 {
    let who = Requester { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), pid: 1 };
    opened.primary.create(&who, opened.primary.root(), name.as_ref(), mode, 0).unwrap().id.ino
}

fn lookup(opened: &Opened, name: &str) -> u64 {
    opened.primary.lookup(opened.primary.root(), name.as_ref()).unwrap().id.ino
}

fn write(opened: &Opened, ino: u64, offset: u64, bytes: &[u8]) {
    for (index, piece) in bytes.chunks(1 << 20).enumerate() {
        let at = offset + (index as u64 * (1 << 20));
        assert_eq!(opened.primary.write(&WHO, ino, at, piece, false), Ok(u32::try_from(piece.len()).unwrap()));
    }
}

fn sync(opened: &Opened, ino: u64) -> rustix::io::Result<()> {
    let (say, hear) = channel();
    opened.primary.sync_file(&WHO, ino, Box::new(move |result| say.send(result).unwrap()));
    hear.recv().unwrap()
}

#[test]
fn what_was_cut_away_later_needs_no_room_again() {
    if !tools::root() {
        return;
    }
    let site = Site::on_disk(FileSystem::Ext4, 40);
    let opened = site.second(&["log", "table"]);
    let [log, table] = ["log", "table"].map(|name| lookup(&opened, name));
    write(&opened, log, 0, &vec![1; 20 << 20]);
    opened.primary.set_attr(&WHO, log, SetAttr { size: Some(5), ..SetAttr::default() }).unwrap();
    write(&opened, table, 0, &vec![2; 20 << 20]);
    sync(&opened, table).unwrap();
    let session = cut(opened);
    fs::write(site.pvol.join("log"), "").unwrap();
    drop(site.open(Some(session), wait::now()).unwrap());
    assert_eq!(fs::read(site.pvol.join("log")).unwrap(), [1; 5]);
    assert!(fs::read(site.pvol.join("table")).unwrap() == vec![2; 20 << 20]);
}

#[test]
fn an_attribute_that_gave_way_to_another_needs_no_room_again() {
    if !tools::root() {
        return;
    }
    let site = Site::on_disk(FileSystem::Ext4, 40);
    let opened = site.second(&["file"]);
    let file = lookup(&opened, "file");
    // most of what an inode can have
    let value = vec![b'v'; usize::try_from(site.pvol.metadata().unwrap().blksize()).unwrap() * 3 / 4];
    opened.primary.setxattr(&WHO, file, "user.old".as_ref(), &value, 0).unwrap();
    opened.primary.removexattr(&WHO, file, "user.old".as_ref()).unwrap();
    opened.primary.setxattr(&WHO, file, "user.new".as_ref(), &value, 0).unwrap();
    drop(site.open(Some(cut(opened)), wait::now()).unwrap());
    let mut there = vec![0; value.len()];
    assert_eq!(rustix::fs::getxattr(site.pvol.join("file"), "user.old", &mut there), Err(Errno::NODATA));
    assert_eq!(rustix::fs::getxattr(site.pvol.join("file"), "user.new", &mut there), Ok(value.len()));
}

/// This thread is no longer root.
fn become_nobody() {
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_gid(rustix::fs::Gid::from_raw(65534)).unwrap();
    rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(65534)).unwrap();
}

#[test]
fn a_link_whose_file_is_read_back_takes_nothing_from_one_that_grows_meanwhile() {
    if !tools::root() {
        return;
    }
    let site = Site::in_memory();
    let script = "chmod 755 .; mkdir -m 777 pvol/others; chown 65534:65534 pvol state test.jvol";
    tools::shell(site.sandbox.root(), script);
    let nobody = || {
        become_nobody();
        let opened = site.first();
        let (file, others) = (create(&opened, "file", 0o644), lookup(&opened, "others"));
        std::thread::scope(|scope| {
            scope.spawn(|| (0..4000).for_each(|at| write(&opened, file, at * 64, &[7; 64])));
            // the time of a directory of somebody else's is not ours to set, and is read back with all that was touched
            for _ in 0..1000 {
                opened.primary.link(&WHO, file, others, "link".as_ref()).unwrap();
                opened.primary.unlink(&WHO, others, "link".as_ref()).unwrap();
            }
        });
        drop(site.open(Some(cut(opened)), wait::now()).unwrap());
    };
    std::thread::scope(|scope| scope.spawn(nobody).join()).unwrap();
    assert!(fs::read(site.pvol.join("file")).unwrap() == [7; 4000 * 64]);
}

#[test]
fn without_root_comes_back_what_the_daemon_may_not_write_or_does_not_own() {
    if !tools::root() {
        return;
    }
    let site = Site::in_memory();
    let script = "chmod 755 .; chown -R 65534:65534 pvol state test.jvol; touch pvol/others; chmod 666 pvol/others";
    tools::shell(site.sandbox.root(), script);
    let nobody = || {
        become_nobody();
        let opened = site.first();
        // as git makes its objects
        let object = create(&opened, "object", 0o444);
        write(&opened, object, 0, b"written once");
        let kept = create(&opened, "kept", 0o600);
        opened.primary.setxattr(&WHO, kept, "user.a".as_ref(), b"b", 0).unwrap();
        write(&opened, kept, 0, b"written");
        opened.primary.set_attr(&WHO, kept, SetAttr { mode: Some(0), ..SetAttr::default() }).unwrap();
        // a time that is not ours to set is read back into the journal
        write(&opened, lookup(&opened, "others"), 0, b"written");
        sync(&opened, object).unwrap();
        drop(site.open(Some(cut(opened)), wait::now()).map_err(|error| error.to_string())?);
        Ok::<(), String>(())
    };
    std::thread::scope(|scope| scope.spawn(nobody).join()).unwrap().unwrap();
    assert_eq!(fs::read(site.pvol.join("object")).unwrap(), b"written once");
    assert_eq!(fs::read(site.pvol.join("others")).unwrap(), b"written");
    assert_eq!(site.pvol.join("object").metadata().unwrap().permissions().mode() & 0o7777, 0o444);
    assert_eq!(site.pvol.join("kept").metadata().unwrap().permissions().mode() & 0o7777, 0);
}

#[test]
fn edits_by_hand_outlive_a_redo_that_was_cut_off_by_the_next_power_cut() {
    if !tools::root() {
        return;
    }
    let site = Site::on_disk(FileSystem::Xfs, 320);
    let disk = site.disk.as_ref().unwrap();
    let opened = site.first();
    let files = ["first", "second", "large"].map(|name| create(&opened, name, 0o644));
    files.into_iter().for_each(|file| write(&opened, file, 0, &vec![1; 10 << 20]));
    let session = cut(opened);
    let edit = |name: &str| {
        wait::pause(Duration::from_millis(50));
        let boot = wait::now();
        wait::pause(Duration::from_millis(50));
        fs::write(site.pvol.join(name), "by hand").unwrap();
        wait::pause(Duration::from_millis(50));
        boot
    };
    fs::write(site.pvol.join("large"), "lost").unwrap();
    let boot = edit("first");
    disk.fill(1 << 10);
    site.open(Some(session.clone()), boot).unwrap_err();
    let boot = edit("second");
    fs::remove_file(disk.path().join("filler")).unwrap();
    let again = site.open(Some(session), boot).unwrap();
    assert_eq!(again.recovered.map(|recovered| recovered.left), Some(2));
    let sizes = ["first", "second", "large"].map(|name| site.pvol.join(name).metadata().unwrap().len());
    assert_eq!(sizes, [7, 7, 10 << 20]);
}

#[test]
fn a_clock_that_was_ahead_before_the_power_cut_takes_nothing() {
    let site = Site::in_memory();
    let opened = site.first();
    let file = create(&opened, "file", 0o644);
    write(&opened, file, 0, b"through the mount");
    let session = cut(opened);
    wait::pause(Duration::from_millis(50));
    // booted, says the clock, before all of that was written
    let again = site.open(Some(session), wait::now() - Duration::from_secs(1200)).unwrap();
    assert_eq!(again.recovered.map(|recovered| recovered.left), Some(0));
    assert_eq!((again.replaced, again.lost), (None, Some(Lost::PowerCut)));
}

#[test]
fn what_an_opening_told_and_did_not_end_cuts_nothing_off() {
    let site = Site::in_memory();
    let (mut calls, mut cuts, mut session) = (0, 0, None);
    loop {
        let opened = site.open(session, wait::now()).unwrap();
        let file = if calls == 0 { create(&opened, "file", 0o644) } else { lookup(&opened, "file") };
        let bytes = vec![u8::try_from(calls % 250).unwrap(); 9000];
        write(&opened, file, 0, &bytes);
        sync(&opened, file).unwrap();
        let killed = opened.session.clone();
        drop(opened);
        // the opening after a kill tells it whole, and the power goes while it does
        let path = site.pvol.join("file");
        wait::file_times();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let again = cut_after(calls, || site.open(Some(killed.clone()), wait::now()));
        if let Ok(again) = again {
            assert!(again.adopted.files == 1 && cuts > 10, "{:?} after {cuts} cuts", again.adopted);
            return;
        }
        let cut = Session { boot: "another".to_owned(), ..killed };
        let last = site.open(Some(cut), wait::now()).unwrap();
        assert!(
            fs::read(&path).unwrap() == bytes,
            "{} bytes after a cut at call {calls}",
            path.metadata().unwrap().len()
        );
        session = Some(last.primary.close(&last.session).unwrap());
        (calls, cuts) = (calls + 1, cuts + 1);
    }
}

#[test]
fn an_opening_that_is_cut_off_leaves_the_dirty_map_whole() {
    let site = Site::in_memory();
    let opened = site.second(&["file"]);
    opened.primary.suspend(Reason::User).unwrap();
    let closed = opened.primary.close(&opened.session).unwrap();
    drop(opened);
    wait::file_times();
    fs::write(site.pvol.join("file"), b"behind the mount").unwrap();
    let log = site.sandbox.state().join("dirty");
    let look = || (log.metadata().unwrap().ino(), fs::read(&log).unwrap());
    let begun = look();
    for calls in 0.. {
        let again = cut_after(calls, || site.open(Some(closed.clone()), wait::now()));
        let left = look();
        // written in place, it could be torn
        assert!(left.0 != begun.0 || left == begun, "cut at call {calls}: {} bytes", left.1.len());
        if let Ok(again) = again {
            assert!(left.1.len() > begun.1.len() && calls > 10, "{:?} at call {calls}", again.primary.suspension());
            return;
        }
        if left.0 != begun.0 {
            assert!(left.1.len() > begun.1.len(), "put in its place before it had what changed");
        }
    }
}

#[test]
fn a_power_cut_while_suspended_begins_an_epoch_also_when_its_opening_was_cut_off() {
    let mut without_map = 0;
    for calls in 0.. {
        let site = Site::in_memory();
        let opened = site.second(&["file"]);
        opened.primary.suspend(Reason::User).unwrap();
        write(&opened, lookup(&opened, "file"), 0, b"noted, and not journaled");
        let session = cut(opened);
        let again = cut_after(calls, || site.open(Some(session.clone()), wait::now()));
        let is_open = again.is_ok();
        drop(again);
        without_map += u64::from(!site.sandbox.state().join("dirty").exists());
        let last = site.open(Some(session), wait::now()).unwrap();
        assert_eq!(last.replaced, Some(NewEpoch::PowerCut), "after a cut at call {calls}");
        if is_open {
            assert!(calls > 10 && without_map > 1, "{calls} cuts, {without_map} without a map");
            return;
        }
    }
}

/// The amendment of a refused change could be lost with the power, and no replay would get past the change.
#[test]
fn what_would_be_moved_into_itself_is_not_journaled() {
    let site = Site::in_memory();
    let first = site.first();
    let root = first.primary.root();
    let make = |parent, name: &str| {
        let made = first.primary.make(&WHO, parent, name.as_ref(), NodeKind::Directory, 0o755, 0);
        made.unwrap().id.ino
    };
    let outer = make(root, "outer");
    let inner = make(outer, "inner");
    make(inner, "innermost");
    let before = first.primary.jvol().pointers().next;
    let rename = |from: (u64, &str), to: (u64, &str), flags| {
        first.primary.rename(&WHO, (from.0, from.1.as_ref()), (to.0, to.1.as_ref()), flags)
    };
    assert_eq!(rename((root, "outer"), (inner, "below"), 0), Err(Errno::INVAL));
    assert_eq!(rename((root, "outer"), (outer, "inner"), RENAME_EXCHANGE), Err(Errno::INVAL));
    assert_eq!(rename((inner, "innermost"), (root, "outer"), RENAME_EXCHANGE), Err(Errno::INVAL));
    assert_eq!(first.primary.jvol().pointers().next, before, "nothing was journaled");
    rename((inner, "innermost"), (outer, "inner"), RENAME_EXCHANGE).unwrap_err();
    rename((inner, "innermost"), (root, "moved"), 0).unwrap();
    rename((root, "moved"), (root, "outer"), RENAME_EXCHANGE).unwrap();
    assert!(site.pvol.join("moved/inner").is_dir() && site.pvol.join("outer").is_dir());
}

#[test]
fn what_the_disk_refused_after_a_sync_comes_back() {
    if tools::root() {
        refuse(|opened, _| drop(opened.primary.close(&opened.session).unwrap_err()));
        // killed before anybody was told
        refuse(|_, file| drop(File::open(file).and_then(|file| file.sync_all()).unwrap_err()));
    }
}

/// Lets the disk refuse what was synced, and `end`s the daemon.
fn refuse(end: impl FnOnce(&Opened, &Path)) {
    // a disk whose room below it goes
    let outer = Sandbox::new();
    let below = Memory::new(outer.directory("below"), "size=40M");
    let inner = Sandbox::within(&below.0);
    let site = Site::new(Sandbox::new(), Some(Disk::new(&inner, "disk", FileSystem::Ext4, 30)));
    let opened = site.first();
    let file = create(&opened, "file", 0o644);
    write(&opened, file, 0, &vec![0x5A; 4 << 20]);
    sync(&opened, file).unwrap();
    take_room(&inner.path("disk.img"), 0x5A);
    let bytes = vec![7; 4 << 20];
    write(&opened, file, 0, &bytes);
    assert_eq!(sync(&opened, file), Ok(()), "the journal has it");
    let path = site.pvol.join("file");
    end(&opened, &path);
    let session = opened.session.clone();
    drop(opened);
    tools::run("mount", &["-o", "remount,size=200M", below.0.to_str().unwrap()]);
    rustix::fs::fadvise(File::open(&path).unwrap(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(fs::read(&path).unwrap() != bytes, "the disk refused nothing");
    let again = site.open(Some(session), wait::now()).unwrap();
    assert_eq!((again.replaced, again.lost), (None, Some(Lost::DiskRefused)));
    assert!(fs::read(&path).unwrap() == bytes);
    let closed = again.primary.close(&again.session).unwrap();
    drop(again);
    assert_eq!(site.open(Some(closed), wait::now()).unwrap().replaced, None);
}

#[test]
fn what_leaves_the_journal_has_left_the_cache_of_the_disk() {
    if !tools::root() {
        return;
    }
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        let site = Site::on_disk(file_system, 320);
        let opened = site.first();
        let file = create(&opened, "file", 0o644);
        write(&opened, file, 0, &[1; 4096]);
        opened.primary.sync_volume().unwrap();
        write(&opened, file, 0, &[2; 4096]);
        // the log of the file system gets the time of that write, which leaves XFS nothing to flush for
        File::create(site.pvol.join("other")).and_then(|other| other.sync_all()).unwrap();
        let before = flushes(&site.pvol);
        opened.primary.sync_volume().unwrap();
        assert!(flushes(&site.pvol) > before);
    }
}

/// How often the disk below a file was told to empty its cache.
fn flushes(path: &Path) -> u64 {
    let device = path.metadata().unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let figures = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    figures.split_whitespace().nth(15).expect("Linux 5.5").parse().unwrap()
}

/// So much memory with a file system of its own.
struct Memory(PathBuf);

impl Memory {
    fn new(place: PathBuf, size: &str) -> Memory {
        tools::run("mount", &["-t", "tmpfs", "-o", size, "tmpfs", place.to_str().unwrap()]);
        Memory(place)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Takes the blocks that hold this byte from an image that lies in memory, and all room that is left: they cannot be written
/// any more, and the others can.
fn take_room(image: &Path, byte: u8) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let length = file.metadata().unwrap().len();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length).unwrap();
    file.sync_all().unwrap();
    for (index, block) in fs::read(image).unwrap().chunks(4096).enumerate() {
        if block.iter().all(|&is| is == byte) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, flags, index as u64 * 4096, 4096).unwrap();
        }
    }
    let room = rustix::fs::fstatvfs(&file).unwrap();
    let filler = File::create(image.with_extension("filler")).unwrap();
    rustix::fs::fallocate(filler, FallocateFlags::empty(), 0, room.f_bavail * room.f_frsize).unwrap();
}
