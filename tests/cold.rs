//! Cold objects: going through an old tree for the first time costs few flushes, for one record foresees many of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use reelfs_journal::{Change, Digest, Epoch, Jvol, NodeKind, Record, SystemClock};
use reelfs_volume::{OnFull, OpenOptions, Opened, Primary, Requester, Session, SetAttr};
use rustix::io::Errno;
use support::{Sandbox, wait};
use uuid::Uuid;

const DIRECTORIES: u64 = 500;
const FILES: u64 = 10;
const WHO: Requester = Requester { uid: 0, gid: 0, pid: 1 };

fn start(sandbox: &Sandbox, session: Option<Session>) -> Opened {
    let (jvol, group) = (sandbox.path("test.jvol"), Uuid::from_u128(7));
    if session.is_none() {
        Jvol::create(&jvol, 64 << 20, group, &mut |_, _| {}).unwrap();
    }
    Primary::start(OpenOptions {
        root: File::open(sandbox.path("pvol")).unwrap().into(),
        jvol,
        group,
        state: sandbox.state(),
        epoch: Epoch(1),
        session,
        strict: false,
        on_full: OnFull::Block,
        clock: Arc::new(SystemClock),
    })
    .unwrap()
}

/// An old tree of 5,000 files in 500 directories: flat, or in two levels.
fn old_tree(sandbox: &Sandbox, is_deep: bool) {
    let pvol = sandbox.directory("pvol");
    for directory in 0..DIRECTORIES {
        let place =
            if is_deep { format!("tree/{}/{}", directory / 25, directory) } else { format!("tree/{directory}") };
        fs::create_dir_all(pvol.join(&place)).unwrap();
        for file in 0..FILES {
            fs::write(pvol.join(&place).join(file.to_string()), "a line\n").unwrap();
        }
    }
}

/// Goes through a tree depth first, as `rm -rf` and `chmod -R` do: `before` a directory's entries and `after` them, `file` for the
/// others; each gets the directory's number, a name in it, and the object's number.
struct Visitor<'v> {
    primary: &'v Primary,
    before: &'v dyn Fn(u64, &OsStr, u64),
    file: &'v dyn Fn(u64, &OsStr, u64),
    after: &'v dyn Fn(u64, &OsStr, u64),
}

impl Visitor<'_> {
    fn go(&self, parent: u64, name: &OsStr, real: &Path) {
        let ino = self.primary.lookup(parent, name).unwrap().id.ino;
        if !real.is_dir() {
            return (self.file)(parent, name, ino);
        }
        (self.before)(parent, name, ino);
        let names: Vec<_> = fs::read_dir(real).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.iter().for_each(|child| self.go(ino, child, &real.join(child)));
        (self.after)(parent, name, ino);
    }
}

/// What is done to a directory before what is in it, to a file, and to a directory after what is in it.
type Deeds<'p> = [Box<dyn Fn(u64, &OsStr, u64) + 'p>; 3];

/// Flushes of the journal that a way through the old tree costs, and how long it takes.
fn flushes(is_deep: bool, what: &str, visit: &dyn Fn(&Primary) -> Deeds<'_>) -> u64 {
    let sandbox = Sandbox::in_memory();
    old_tree(&sandbox, is_deep);
    let opened = start(&sandbox, None);
    let primary = &*opened.primary;
    let (before, began) = (primary.jvol().file_sync_count(), wait::now());
    let [first, file, last] = visit(primary);
    let visitor = Visitor { primary, before: &*first, file: &*file, after: &*last };
    visitor.go(primary.root(), "tree".as_ref(), &sandbox.path("pvol/tree"));
    let (flushes, took) = (primary.jvol().file_sync_count() - before, began.elapsed());
    println!("{what}: {flushes} flushes, {took:?}");
    // the journal is also flushed every second
    flushes.saturating_sub(took.as_secs() + 1)
}

fn assert_few(objects: u64, what: &str, visit: &dyn Fn(&Primary) -> Deeds<'_>) {
    for is_deep in [false, true] {
        let flushes = flushes(is_deep, what, visit);
        assert!(flushes <= objects / 64, "{what}: {flushes} flushes for {objects} cold objects");
    }
}

#[test]
fn an_old_tree_is_removed() {
    assert_few(DIRECTORIES, "rm -rf", &|primary| {
        [
            Box::new(|_, _, _| {}),
            Box::new(|parent, name, _| primary.unlink(&WHO, parent, name).unwrap()),
            Box::new(|parent, name, _| primary.rmdir(&WHO, parent, name).unwrap()),
        ]
    });
}

#[test]
fn the_mode_of_an_old_tree_is_changed() {
    assert_few(DIRECTORIES * (FILES + 1), "chmod -R", &|primary| {
        let change = move |_: u64, _: &OsStr, ino: u64| {
            let asked = SetAttr { mode: Some(0o750), ..SetAttr::default() };
            primary.set_attr(&WHO, ino, asked).unwrap();
        };
        [Box::new(change), Box::new(change), Box::new(|_, _, _| {})]
    });
}

#[test]
fn a_line_is_appended_to_each_of_many_old_files() {
    assert_few(DIRECTORIES * FILES, "append", &|primary| {
        [
            Box::new(|_, _, _| {}),
            Box::new(|_, _, ino| _ = primary.write(&WHO, ino, 7, b"another\n", false).unwrap()),
            Box::new(|_, _, _| {}),
        ]
    });
}

#[test]
fn random_writes_to_a_large_old_file_soon_find_it_hot() {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    File::create(pvol.join("large")).and_then(|file| file.set_len(14 << 20)).unwrap();
    let opened = start(&sandbox, None);
    let ino = opened.primary.lookup(opened.primary.root(), "large".as_ref()).unwrap().id.ino;
    let before = opened.primary.jvol().file_sync_count();
    let mut random = support::Random::new("random writes", 0);
    for _ in 0..2_000 {
        let page = random.below(14 << 8);
        opened.primary.write(&WHO, ino, page * 4096, &[7; 4096], false).unwrap();
    }
    let flushes = opened.primary.jvol().file_sync_count() - before;
    // 8 MiB of payload are flushed by themselves, and what is left each second
    assert!(flushes <= 16, "{flushes} flushes");
}

#[test]
fn who_writes_on_while_the_journal_is_freed_waits_for_no_disk() {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    for name in ["used", "once"] {
        File::create(pvol.join(name)).and_then(|file| file.set_len(1 << 20)).unwrap();
    }
    let opened = start(&sandbox, None);
    let (primary, root) = (&opened.primary, opened.primary.root());
    let [used, once] = ["used", "once"].map(|name| primary.lookup(root, name.as_ref()).unwrap().id.ino);
    let write = |ino| primary.write(&WHO, ino, 4096, &[7; 4096], false);
    let name = |name: &str| primary.make(&WHO, root, name.as_ref(), NodeKind::Directory, 0o755, 0).map(|_| ());
    let free = |kept| {
        primary.prepare_to_free(kept, kept).unwrap();
        primary.jvol().free(kept, Digest([1; 32])).unwrap();
    };
    write(used).and_then(|_| write(once)).and_then(|_| name("first")).unwrap();
    // from here on a change of something cold is refused instead of waiting
    primary.let_cold_changes_park();
    let kept = primary.jvol().pointers().next;
    write(used).and_then(|_| name("second")).unwrap();
    free(kept);
    assert_eq!((write(used), name("third")), (Ok(4096), Ok(())), "in use, and had to wait for the disk");
    let last = primary.jvol().pointers().next;
    // what was not used since is not carried over a second time
    let kept = primary.jvol().pointers().next;
    write(used).unwrap();
    free(kept);
    assert_eq!((write(used), write(once)), (Ok(4096), Err(Errno::INPROGRESS)));
    // when nobody has written since, nothing is said: an export would have something to export for ever
    let kept = primary.jvol().pointers().next;
    assert!(kept > last);
    free(kept);
    assert_eq!(primary.jvol().pointers().next, kept);
    assert_eq!(write(used), Err(Errno::INPROGRESS));
    primary.warm().unwrap();
    assert_eq!(write(used), Ok(4096));
}

/// Records that say what is active, each decoded as every reader of a journal or tape does.
fn named(primary: &Primary) -> Vec<usize> {
    let pointers = primary.jvol().pointers();
    let mut reader = primary.jvol().read(pointers.out, pointers.next.previous()).unwrap();
    let mut named = Vec::new();
    while let Some(record) = reader.next() {
        let (control, data) = record.unwrap();
        if let Change::Active { entries } = Record::decode(control, data).unwrap().change {
            named.push(entries.len());
        }
    }
    named
}

#[test]
fn the_end_of_the_longest_file_can_be_named() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.directory("pvol").join("old"), "a line\n").unwrap();
    let opened = start(&sandbox, None);
    let (primary, end) = (&opened.primary, i64::MAX.cast_unsigned());
    let ino = primary.lookup(primary.root(), "old".as_ref()).unwrap().id.ino;
    // some file systems have files as long as that
    let refused = |result: Result<(), Errno>| assert!(matches!(result, Ok(()) | Err(Errno::FBIG)), "{result:?}");
    let set = |size| primary.set_attr(&WHO, ino, SetAttr { size: Some(size), ..SetAttr::default() }).map(drop);
    for size in [end, end - 1, end - 65_536] {
        refused(set(size));
    }
    assert_eq!(set(end + 1), Err(Errno::FBIG));
    for offset in [end - 1, end - 65_536, end - 65_537] {
        refused(primary.write(&WHO, ino, offset, b"x", false).map(drop));
    }
    assert!(!named(primary).is_empty());
}

#[test]
fn thousands_that_wait_for_the_disk_are_named_each_once() {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    File::create(pvol.join("large")).and_then(|file| file.set_len(1 << 40)).unwrap();
    let opened = start(&sandbox, None);
    let primary = &opened.primary;
    primary.let_cold_changes_park();
    let ino = primary.lookup(primary.root(), "large".as_ref()).unwrap().id.ino;
    let most = reelfs_journal::ACTIVE_MAX as u64;
    let write_all =
        |each| (0..=most).map(|turn| primary.write(&WHO, ino, turn * 65_536 * each, b"x", false)).collect::<Vec<_>>();
    assert!(write_all(0).iter().all(|written| *written == Err(Errno::INPROGRESS)));
    primary.warm().unwrap();
    assert!(named(primary).iter().sum::<usize>() < 10, "one range was asked for: {:?}", named(primary));
    assert!(write_all(1_000).iter().skip(1).all(|written| *written == Err(Errno::INPROGRESS)));
    primary.warm().unwrap();
    assert!(named(primary).iter().sum::<usize>() as u64 > most && named(primary).iter().all(|len| *len as u64 <= most));
    assert!(write_all(1_000).iter().all(|written| *written == Ok(1)));
}
