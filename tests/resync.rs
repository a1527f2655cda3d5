//! What a resync tells is what stands: random changes, made while nothing is journaled, come back on a replica.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod support;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use model::replay::records;
use model::replica::replica;
use model::shrink::smallest;
use model::step::sequence;
use model::{Directory, Door, Draw};
use reelfs_journal::{Digest, Epoch, Jvol, NodeKind, Record, SystemClock};
use reelfs_volume::{OnFull, OpenOptions, Opened, Primary, Reason, Requester, ResyncError, Session, SetAttr};
use support::{Disk, FileSystem, Mount, Sandbox, Tree, tools, wait};
use uuid::Uuid;

const ROOT: Requester = Requester { uid: 0, gid: 0, pid: 1 };

fn start(sandbox: &Sandbox, session: Option<Session>) -> Opened {
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
        clock: Arc::new(SystemClock),
    };
    Primary::start(options).expect("the volume opens")
}

fn resync(primary: &Primary) {
    primary.resync(&mut || false, &mut |_, _| {}).expect("brought back");
}

/// Plays a stretch of steps; whatever a step answers, the volume is what it is.
fn play(door: &mut Door<'_>, pvol: &Path, handles: &mut usize, draws: &[Draw]) {
    for draw in draws {
        let mut seen = Directory::new(pvol).seen();
        seen.handles = *handles;
        let Some(step) = draw.step(&seen) else { continue };
        let answer = door.play(&step);
        match step {
            model::Step::Open { .. } if answer.is_ok() => *handles += 1,
            model::Step::Close { .. } => *handles -= 1,
            _ => {}
        }
    }
}

fn suspend_and_come_back(number: usize, draws: &[Draw]) -> Result<(), String> {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    let begin = Tree::of(&pvol);
    let mut opened = start(&sandbox, None);
    for (turn, part) in draws.chunks(draws.len().div_ceil(3).max(1)).enumerate() {
        let (before, rest) = part.split_at(part.len() / 3);
        let (meanwhile, after) = rest.split_at(rest.len() * 2 / 3);
        let mut handles = 0;
        if number % 3 == 2 && turn == 1 {
            let session = opened.session.clone();
            play(&mut Door::new(&opened.primary, (0, 0)), &pvol, &mut handles, before);
            opened.primary.suspend(Reason::User).expect("suspended");
            handles = 0;
            play(&mut Door::new(&opened.primary, (0, 0)), &pvol, &mut handles, meanwhile);
            // killed
            drop(opened);
            opened = start(&sandbox, Some(session));
            resync(&opened.primary);
            continue;
        }
        let mut door = Door::new(&opened.primary, (0, 0));
        play(&mut door, &pvol, &mut handles, before);
        opened.primary.suspend(Reason::User).expect("suspended");
        play(&mut door, &pvol, &mut handles, meanwhile);
        resync(&opened.primary);
        play(&mut door, &pvol, &mut handles, after);
    }
    let restored = replica(records(opened.primary.jvol()), &opened.primary, &begin, &sandbox)?;
    Tree::of(&pvol).same(&restored, "the volume and the replica")
}

#[test]
fn random_changes_while_suspended_come_back_on_a_replica() {
    for number in 0..tools::rounds(100, 5_000) {
        let draws = sequence(number, 120);
        let fails = |draws: &[Draw]| suspend_and_come_back(number, draws).err();
        if let Some(reason) = fails(&draws) {
            let (left, reason) = smallest(&draws, reason, fails);
            panic!("sequence {number}, {} steps: {reason}", left.len());
        }
    }
}

/// The same through a mount, with tapes: whatever happens to the mount meanwhile.
fn a_pair_comes_back(number: usize, draws: &[Draw]) -> Result<(), String> {
    let (sandbox, fast) = (Sandbox::new(), Sandbox::in_memory());
    let (pvol, tapes) = (sandbox.directory("pvol"), fast.directory("tapes"));
    sandbox.group_of_size("back", &pvol, "16MiB");
    sandbox.base("back", &tapes);
    let point = sandbox.directory("mnt");
    let mut mount = Mount::new(&sandbox, "back", &point, &[]);
    let parts: Vec<&[Draw]> = draws.chunks(draws.len().div_ceil(4).max(1)).collect();
    for (turn, part) in parts.into_iter().enumerate() {
        let mut steps = Directory::new(&point);
        for draw in part {
            if let Some(step) = draw.step(&steps.seen()) {
                let _ = steps.play(&step);
            }
        }
        match (turn, number % 4) {
            (0, _) => drop(sandbox.reelfs(["pair", "split", "back"]).ok()),
            (1, 1) => {
                drop(steps);
                mount.kill();
                mount = Mount::new(&sandbox, "back", &point, &[]);
            }
            (1, 2) => {
                drop(steps);
                mount.umount();
                let mut behind = Directory::new(&pvol);
                for draw in draws.iter().rev().take(20) {
                    if let Some(step) = draw.step(&behind.seen()) {
                        let _ = behind.play(&step);
                    }
                }
                mount = Mount::new(&sandbox, "back", &point, &[]);
            }
            (1, 3) => {
                sandbox.reelfs(["pair", "resync", "back"]).ok();
                sandbox.reelfs(["pair", "split", "back"]).ok();
            }
            (2, _) => drop(sandbox.reelfs(["pair", "resync", "back"]).ok()),
            _ => {}
        }
    }
    sandbox.reelfs(["pair", "resync", "back"]).ok();
    mount.umount();
    sandbox.export("back", &tapes);
    let restored = fast.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).same(&Tree::of(&restored), "the volume and what was restored")
}

#[test]
fn random_changes_while_suspended_are_restored_from_tapes() {
    if !tools::holds(tools::root(), "root, to mount") {
        return;
    }
    for number in 0..tools::rounds(8, 400) {
        let draws = sequence(1_000 + number, 120);
        let fails = |draws: &[Draw]| a_pair_comes_back(number, draws).err();
        if let Some(reason) = fails(&draws) {
            let (left, reason) = smallest(&draws, reason, fails);
            panic!("sequence {number}, {} steps: {reason}", left.len());
        }
    }
}

/// A suspended volume.
fn suspended(prepare: impl FnOnce(&Primary)) -> (Sandbox, Opened, Tree) {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    let begin = Tree::of(&pvol);
    let opened = start(&sandbox, None);
    prepare(&opened.primary);
    opened.primary.suspend(Reason::User).unwrap();
    (sandbox, opened, begin)
}

fn assert_replica(sandbox: &Sandbox, opened: &Opened, begin: &Tree) {
    Taken::default().assert_replica(sandbox, opened, begin);
}

#[test]
fn attributes_of_the_root_alone_are_told() {
    let (sandbox, opened, begin) = suspended(|_| ());
    let primary = &opened.primary;
    primary.set_attr(&ROOT, primary.root(), SetAttr { mode: Some(0o711), ..SetAttr::default() }).unwrap();
    primary.setxattr(&ROOT, primary.root(), "user.word".as_ref(), b"said", 0).unwrap();
    resync(primary);
    assert_replica(&sandbox, &opened, &begin);
}

#[test]
fn attributes_of_an_object_of_which_no_name_is_known_are_told() {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    let begin = Tree::of(&pvol);
    let opened = start(&sandbox, None);
    let primary = &opened.primary;
    let file = primary.make(&ROOT, primary.root(), "one".as_ref(), NodeKind::File, 0o644, 0).unwrap().id.ino;
    let place = primary.make(&ROOT, primary.root(), "place".as_ref(), NodeKind::Directory, 0o755, 0).unwrap().id.ino;
    primary.link(&ROOT, file, place, "two".as_ref()).unwrap();
    primary.forget(file, 2);
    primary.forget(place, 1);
    primary.suspend(Reason::User).unwrap();
    let file = primary.lookup(primary.root(), "one".as_ref()).unwrap().id.ino;
    primary.setxattr(&ROOT, file, "user.word".as_ref(), b"said", 0).unwrap();
    primary.unlink(&ROOT, primary.root(), "one".as_ref()).unwrap();
    resync(primary);
    assert_replica(&sandbox, &opened, &begin);
}

fn descriptors() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("temporary")))
        .count()
}

#[test]
fn a_nameless_file_written_while_suspended_ends_with_its_last_handle() {
    let (_sandbox, opened, _) = suspended(|_| ());
    let primary = &opened.primary;
    for _ in 0..10 {
        let ino = primary.create(&ROOT, primary.root(), "temporary".as_ref(), 0o600, 0).unwrap().id.ino;
        primary.unlink(&ROOT, primary.root(), "temporary".as_ref()).unwrap();
        primary.write(&ROOT, ino, 0, b"written without a name", false).unwrap();
        primary.release(ino);
        primary.forget(ino, 1);
    }
    assert_eq!(descriptors(), 0);
}

#[test]
fn a_huge_hole_is_noted_as_a_cut_and_a_sparse_file_told_without_its_holes() {
    let (sandbox, opened, begin) = suspended(|_| ());
    let primary = &opened.primary;
    let ino = primary.make(&ROOT, primary.root(), "sparse".as_ref(), NodeKind::File, 0o644, 0).unwrap().id.ino;
    primary.write(&ROOT, ino, 1 << 30, b"at the end", false).unwrap();
    primary.allocate(&ROOT, ino, 3, 4096, 1 << 60).unwrap();
    primary.write(&ROOT, ino, 1 << 29, b"in the middle", false).unwrap();
    let told = primary.resync(&mut || false, &mut |_, _| {}).unwrap();
    assert!(told.bytes < 1 << 20, "{told:?}");
    assert_replica(&sandbox, &opened, &begin);
}

#[test]
fn a_number_used_again_while_suspended_is_owed_one_lookup_only_once() {
    if !tools::holds(tools::root(), "root, to mount a disk") {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "ext4", FileSystem::Ext4, 64);
    let within = Sandbox::within(disk.path());
    within.directory("pvol");
    let opened = start(&within, None);
    let primary = &opened.primary;
    primary.suspend(Reason::User).unwrap();
    let made = |name: &str| primary.make(&ROOT, primary.root(), name.as_ref(), NodeKind::File, 0o644, 0).unwrap().id;
    let first = made("first");
    primary.unlink(&ROOT, primary.root(), "first".as_ref()).unwrap();
    primary.forget(first.ino, 1);
    let second = made("second");
    assert_eq!(first.ino, second.ino, "ext4 gives the number again");
    resync(primary);
    // the kernel has it still, also when somebody else has no more use for it
    primary.lookup(primary.root(), "second".as_ref()).unwrap();
    primary.forget(second.ino, 1);
    assert_eq!(primary.stat(second.ino).unwrap().id, second);
    primary.close(&opened.session).unwrap();
}

/// Takes the records out of the journal, as exports would, and makes room with that.
#[derive(Default)]
struct Taken(Vec<Record<'static>>);

impl Taken {
    fn take(&mut self, primary: &Primary) -> bool {
        let (seal, before) = (primary.group().seal().unwrap(), primary.jvol().pointers().out);
        self.0.extend(records(primary.jvol()).into_iter().filter(|record| record.seq <= seal.last));
        primary.jvol().free(seal.last.next(), Digest([7; 32])).unwrap(); // some: none is a journal that lost records
        primary.jvol().pointers().out > before
    }

    fn assert_replica(mut self, sandbox: &Sandbox, opened: &Opened, begin: &Tree) {
        self.0.extend(records(opened.primary.jvol()));
        let restored = replica(self.0, &opened.primary, begin, sandbox).unwrap();
        Tree::of(&sandbox.path("pvol")).assert_same(&restored, "after the resync");
    }
}

#[test]
fn names_larger_than_the_room_are_told_when_there_is_room_and_those_of_an_attempt_count_no_more() {
    let (sandbox, opened, begin) = suspended(|primary| {
        let ino = primary.make(&ROOT, primary.root(), "filled".as_ref(), NodeKind::File, 0o644, 0).unwrap().id.ino;
        for _ in 0..10 {
            primary.write(&ROOT, ino, 0, &[7; 1 << 20], false).unwrap();
        }
    });
    let primary = &opened.primary;
    let root = primary.root();
    let place = primary.make(&ROOT, root, "place".as_ref(), NodeKind::Directory, 0o755, 0).unwrap().id.ino;
    for number in 0..100 {
        let name = format!("f{number}");
        let ino = primary.make(&ROOT, place, name.as_ref(), NodeKind::Fifo, 0o644, 0).unwrap().id.ino;
        primary.setxattr(&ROOT, ino, "trusted.word".as_ref(), &[b'v'; 60_000], 0).unwrap();
    }
    // room for so many names, not for so large ones; what was told of them is not so any more
    let mut taken = Taken::default();
    let mut attempts = 0;
    let mut make_room = || {
        attempts += 1;
        if attempts == 1 {
            for number in 0..100 {
                primary.unlink(&ROOT, place, format!("f{number}").as_ref()).unwrap();
            }
            primary.rmdir(&ROOT, root, "place".as_ref()).unwrap();
            primary.make(&ROOT, root, "place".as_ref(), NodeKind::Fifo, 0o644, 0).unwrap();
        }
        taken.take(primary)
    };
    primary.resync(&mut make_room, &mut |_, _| {}).expect("brought back");
    assert!(attempts > 0, "it did not fit at once");
    taken.assert_replica(&sandbox, &opened, &begin);
}

#[test]
fn a_failed_resync_leaves_the_group_suspended_and_the_next_one_brings_it_back() {
    let (sandbox, opened, begin) = suspended(|_| ());
    let primary = &opened.primary;
    let ino = primary.make(&ROOT, primary.root(), "large".as_ref(), NodeKind::File, 0o644, 0).unwrap().id.ino;
    for megabyte in 0..20 {
        primary.write(&ROOT, ino, megabyte << 20, &[7; 1 << 20], false).unwrap();
    }
    let refused = primary.resync(&mut || false, &mut |_, _| {});
    assert!(matches!(refused, Err(ResyncError::NoRoom)), "{refused:?}");
    assert!(primary.suspension().is_some());
    primary.set_attr(&ROOT, ino, SetAttr { size: Some(1_000), ..SetAttr::default() }).unwrap();
    primary.make(&ROOT, primary.root(), "meanwhile".as_ref(), NodeKind::Fifo, 0o644, 0).unwrap();
    let mut taken = Taken::default();
    primary.resync(&mut || taken.take(primary), &mut |_, _| {}).expect("brought back");
    taken.assert_replica(&sandbox, &opened, &begin);
}

#[test]
fn a_resync_that_fails_at_its_end_leaves_the_group_suspended() {
    let (sandbox, opened, begin) = suspended(|_| ());
    let primary = &opened.primary;
    let ino = primary.make(&ROOT, primary.root(), "file".as_ref(), NodeKind::File, 0o644, 0).unwrap().id.ino;
    primary.write(&ROOT, ino, 0, b"bytes", false).unwrap();
    let (map, away) = (sandbox.state().join("dirty"), sandbox.path("away"));
    let mut spoil = |_, _| {
        if map.exists() {
            std::fs::rename(&map, &away).unwrap();
        }
    };
    let refused = primary.resync(&mut || false, &mut spoil);
    assert!(matches!(refused, Err(ResyncError::Failed { .. })), "{refused:?}");
    assert!(primary.suspension().is_some());
    std::fs::rename(&away, &map).unwrap();
    primary.write(&ROOT, ino, 0, b"noted", false).unwrap();
    resync(primary);
    assert_replica(&sandbox, &opened, &begin);
}

#[test]
fn an_edit_behind_a_killed_mount_of_a_file_that_is_dirty_already_is_told() {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    let begin = Tree::of(&pvol);
    let opened = start(&sandbox, None);
    let primary = &opened.primary;
    let ino = primary.make(&ROOT, primary.root(), "file".as_ref(), NodeKind::File, 0o644, 0).unwrap().id.ino;
    primary.write(&ROOT, ino, 0, &[1; 300_000], false).unwrap();
    primary.suspend(Reason::User).unwrap();
    primary.write(&ROOT, ino, 0, b"noted", false).unwrap();
    // killed
    let session = opened.session.clone();
    drop(opened);
    wait::file_times();
    File::options().write(true).open(pvol.join("file")).unwrap().write_all_at(b"by hand", 200_000).unwrap();
    let opened = start(&sandbox, Some(session));
    resync(&opened.primary);
    assert_replica(&sandbox, &opened, &begin);
}

/// While the pair is brought back a power cut has no journal to bring back what was synced.
#[test]
fn a_sync_is_of_the_file_itself_until_the_pair_is_back() {
    if !tools::holds(tools::root(), "root, to mount a disk") {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "ext4", FileSystem::Ext4, 128);
    let within = Sandbox::within(disk.path());
    within.directory("pvol");
    let opened = start(&within, None);
    let primary = &opened.primary;
    let ino = primary.make(&ROOT, primary.root(), "file".as_ref(), NodeKind::File, 0o644, 0).unwrap().id.ino;
    let sync = || {
        let (answer, wait) = std::sync::mpsc::channel();
        primary.sync_file(&ROOT, ino, Box::new(move |result| answer.send(result).unwrap()));
        wait.recv().unwrap().unwrap();
    };
    primary.write(&ROOT, ino, 0, b"bytes", false).unwrap();
    sync();
    primary.suspend(Reason::User).unwrap();
    primary.write(&ROOT, ino, 0, b"noted", false).unwrap();
    let mut synced = false;
    let mut meanwhile = |_, _| {
        if !std::mem::replace(&mut synced, true) {
            primary.write(&ROOT, ino, 0, &[9; 1 << 20], false).unwrap();
            sync();
            // what is not on the disk yet has no place there
            let stat = std::fs::metadata(within.path("pvol/file")).unwrap();
            let mapped = support::tools::run("filefrag", &["-v", within.path("pvol/file").to_str().unwrap()]);
            assert!(stat.blocks() * 512 >= 1 << 20 && !mapped.contains("delalloc"), "{mapped}");
        }
    };
    primary.resync(&mut || false, &mut meanwhile).expect("brought back");
    primary.close(&opened.session).unwrap();
}

#[test]
fn names_change_while_bytes_of_closed_files_are_told() {
    let sandbox = Sandbox::in_memory();
    let pvol = sandbox.directory("pvol");
    let files = 1_000;
    (0..files).for_each(|number| std::fs::write(pvol.join(format!("f{number}")), b"before").unwrap());
    let opened = start(&sandbox, None);
    let (primary, root) = (&opened.primary, opened.primary.root());
    primary.suspend(Reason::User).unwrap();
    for number in 0..files {
        let ino = primary.lookup(root, format!("f{number}").as_ref()).unwrap().id.ino;
        primary.write(&ROOT, ino, 0, b"meanwhile", false).unwrap();
        // as when its last handle is closed: nothing of it is open any more
        primary.open(ino, true).unwrap();
        primary.release(ino);
    }
    let (ended, wait) = std::sync::mpsc::channel();
    let changing = primary.clone();
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let over = is_over.clone();
    let names = std::thread::spawn(move || {
        // as many as the journal has room for
        for _ in (0..1_500).take_while(|_| !over.load(std::sync::atomic::Ordering::SeqCst)) {
            let made = changing.make(&ROOT, changing.root(), "new".as_ref(), NodeKind::Directory, 0o755, 0).unwrap();
            changing.rmdir(&ROOT, changing.root(), "new".as_ref()).unwrap();
            changing.forget(made.id.ino, 1);
        }
    });
    let telling = primary.clone();
    std::thread::spawn(move || {
        ended.send(telling.resync(&mut || false, &mut |_, _| {}).map(|_| ()).map_err(|error| error.to_string()))
    });
    let told = wait.recv_timeout(std::time::Duration::from_secs(60));
    is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(told, Ok(Ok(())), "who changes names and who tells wait for one another");
    names.join().unwrap();
}
