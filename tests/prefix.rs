//! Any prefix: the tree that the records build up to any number is the tree that was there at that number.
//!
//! Once without a kernel against a model, and once through a real mount against a plain directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod support;

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::replay::{Replay, records};
use model::shrink::smallest;
use model::step::sequence;
use model::{Directory, Door, Draw, ModelFs, Step};
use reelfs_journal::{Change, Epoch, Jvol, Seq, SystemClock};
use reelfs_volume::{OnFull, OpenOptions, Opened, Primary, Requester, Volume};
use rustix::io::Errno;
use support::{Disk, FileSystem, Mount, Sandbox, Tree, tools};
use uuid::Uuid;

/// Steps of a sequence.
const STEPS: usize = 60;

/// Plays sequences on all processors; the first that fails is made small and told.
fn play_all(count: usize, play: impl Fn(usize, &[Draw]) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let fails = |number: usize, draws: &[Draw]| match catch_unwind(AssertUnwindSafe(|| play(number, draws))) {
        Ok(result) => result.err(),
        Err(panic) => Some(message(&*panic)),
    };
    let worker = || {
        while let number @ 0.. = next.fetch_add(1, Ordering::Relaxed)
            && number < count
        {
            let draws = sequence(number, STEPS);
            if let Some(reason) = fails(number, &draws) {
                next.store(count, Ordering::Relaxed);
                let (left, reason) = smallest(&draws, reason, |draws| fails(number, draws));
                return Some(format!("sequence {number}, {} of {STEPS} steps: {reason}", left.len()));
            }
        }
        None
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("a worker catches its panics")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a word"))
}

/// An open primary volume in a sandbox, as nobody but this test uses it.
fn open_primary(sandbox: &Sandbox, pvol: &Path) -> Opened {
    let (jvol, group) = (sandbox.path("test.jvol"), Uuid::from_u128(7));
    Jvol::create(&jvol, Jvol::SIZE_MIN, group, &mut |_, _| {}).expect("a journal volume");
    let options = OpenOptions {
        root: File::open(pvol).expect("the volume").into(),
        jvol,
        group,
        state: sandbox.state(),
        epoch: Epoch(1),
        session: None,
        strict: false,
        on_full: OnFull::Block,
        clock: Arc::new(SystemClock),
    };
    Primary::start(options).expect("the volume opens")
}

/// The tree after the last record of each step.
struct Moment {
    last: Seq,
    tree: Tree,
    step: String,
}

fn play_on_the_door(draws: &[Draw]) -> Result<(), String> {
    let sandbox = Sandbox::in_memory();
    let (pvol, svol) = (sandbox.directory("pvol"), sandbox.directory("svol"));
    let opened = open_primary(&sandbox, &pvol);
    let primary = &*opened.primary;
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (mut door, begin) = (Door::new(primary, owner), Tree::of(&pvol));
    let mut model = ModelFs::new(&begin.nodes()[Path::new("")], owner);
    let last = |primary: &Primary| primary.jvol().pointers().next.previous();
    let mut moments = vec![Moment { last: last(primary), tree: begin, step: "the beginning".to_owned() }];
    let mut played = Vec::new();
    for draw in draws {
        let Some(step) = draw.step(&model.seen()) else { continue };
        let shown = show(&step);
        played.push(shown.clone());
        let real = door.play(&step);
        let script = || played.join("\n  ");
        // tmpfs has no FALLOC_FL_ZERO_RANGE; then nothing may have happened
        if !(real == Err(Errno::OPNOTSUPP) && matches!(step, Step::Allocate { mode: 16 | 17, .. })) {
            let expected = model.play(&step);
            if real.is_ok() != expected.is_ok() || (real.is_ok() && real != expected) {
                return Err(format!("answers {real:?}, the model {expected:?}:\n  {}", script()));
            }
        }
        let tree = Tree::of(&pvol);
        model.tree(&tree).same(&tree, "the model and the volume").map_err(|text| format!("{text}\n{}", script()))?;
        moments.push(Moment { last: last(primary), tree, step: shown });
    }
    let records = records(primary.jvol());
    opened.primary.close(&opened.session).map_err(|error| error.to_string())?;
    compare_prefixes(records, &moments, primary, &svol).map_err(|text| format!("{text}\n  {}", played.join("\n  ")))
}

/// Applies record after record to an empty directory and compares wherever a restore may stop.
fn compare_prefixes(
    records: Vec<reelfs_journal::Record<'static>>,
    moments: &[Moment],
    primary: &Primary,
    svol: &Path,
) -> Result<(), String> {
    let replay = Replay::new(records);
    let root = reelfs_volume::Stat::at(File::open(svol).expect("the replica"), b"").expect("a directory");
    let root_id = root_id(primary);
    let replica = Volume::replica(File::open(svol).expect("the replica").into(), root_id).expect("a replica");
    let begin = &moments[0].tree.nodes()[Path::new("")];
    let mut attributes = root.attributes();
    attributes.mode = begin.mode;
    attributes.mtime.seconds = begin.mtime.0;
    attributes.mtime.nanos = u32::try_from(begin.mtime.1).expect("below a second");
    replica.set_attributes(root_id, &attributes).expect("the root's attributes");
    let mut at = 0;
    for record in replay.records() {
        replay.apply(record, &replica)?;
        while moments[at].last < record.seq && at + 1 < moments.len() {
            at += 1;
        }
        // what is about to change has not changed
        if record.more || matches!(record.change, Change::Active { .. }) {
            continue;
        }
        let tree = Tree::of(svol);
        let what = format!("the volume after {} and the replica at {}", moments[at].step, record.seq);
        let is_end = record.seq >= moments[at].last;
        let is_same = moments[at].tree.same(&tree, &what);
        // the record of an operation that failed stands before its amendment
        let is_before = at > 0 && replay.is_amended(record.seq) && moments[at - 1].tree.same(&tree, &what).is_ok();
        match is_same {
            Err(_) if !is_end && is_before => {}
            result => result?,
        }
    }
    Ok(())
}

fn root_id(primary: &Primary) -> reelfs_journal::FileId {
    primary.stat(primary.root()).expect("the root").id
}

fn show(step: &Step) -> String {
    let mut text = format!("{step:?}");
    if let Some(at) = text.find("bytes: [") {
        let count = text[at..].matches(',').count() + 1;
        text.replace_range(at.., &format!("{count} bytes }}"));
    }
    text
}

#[test]
fn every_prefix_of_the_records_is_a_state_of_the_model() {
    play_all(tools::rounds(500, 20_000), |_, draws| play_on_the_door(draws));
}

/// A generator that draws nonsense proves nothing: most steps are played, most of them succeed, and every kind is among them.
#[test]
fn sequences_are_worth_playing() {
    let sandbox = Sandbox::in_memory();
    let root = Tree::of(&sandbox.directory("empty")).nodes()[Path::new("")].clone();
    let (mut played, mut done, mut kinds) = (0, 0, std::collections::BTreeSet::new());
    for number in 0..100 {
        let mut model = ModelFs::new(&root, (0, 0));
        for draw in sequence(number, STEPS) {
            let Some(step) = draw.step(&model.seen()) else { continue };
            played += 1;
            if model.play(&step).is_ok() {
                done += 1;
                kinds.insert(format!("{step:?}").split(' ').next().unwrap_or_default().to_owned());
            }
        }
    }
    assert!(played > 100 * STEPS * 2 / 3, "{played} of {} steps", 100 * STEPS);
    assert!(done > played / 2, "{done} of {played} succeed");
    assert_eq!(kinds.len(), 22, "{kinds:?}");
}

/// What both halves rest on: the recorded requester is the one who asked.
#[test]
fn records_name_their_requester() {
    let sandbox = Sandbox::in_memory();
    let opened = open_primary(&sandbox, &sandbox.directory("pvol"));
    let who = Requester { uid: 4_711, gid: 12, pid: 99 };
    let primary = &opened.primary;
    let stat = primary.make(&who, primary.root(), "d".as_ref(), reelfs_journal::NodeKind::Directory, 0o700, 0o22);
    let stat = stat.expect("a directory");
    assert_eq!((stat.uid, stat.gid, stat.mode), (4_711, 12, 0o700));
    let records = records(primary.jvol());
    let made = records.iter().find(|record| record.change.verb() == "mkdir").expect("it was journaled");
    assert_eq!((made.uid, made.pid), (4_711, 99));
    opened.primary.close(&opened.session).expect("a clean stop");
}

/// A sequence through the kernel: what a mount answers is what the file system below it answers, and what was there
/// after every step can be restored at its number.
fn play_on_the_mount(sandbox: &Sandbox, number: usize, draws: &[Draw]) -> Result<(), String> {
    let fast = Sandbox::in_memory();
    let (pvol, plain) = (sandbox.directory("pvol"), sandbox.directory("plain"));
    let tapes = fast.directory("tapes");
    let group = format!("prefix{number}");
    sandbox.group_of_size(&group, &pvol, "16MiB");
    sandbox.base(&group, &tapes);
    let mount = Mount::new(sandbox, &group, &sandbox.directory("mnt"), &[]);
    let (mut real, mut reference) = (Directory::new(mount.path()), Directory::new(&plain));
    let mut moments = Vec::new();
    let mut played = Vec::new();
    for draw in draws {
        let Some(step) = draw.step(&reference.seen()) else {
            continue;
        };
        played.push(show(&step));
        let (answer, expected) = (real.play(&step), reference.play(&step));
        let script = || played.join("\n  ");
        if answer != expected {
            return Err(format!("the mount answers {answer:?}, the file system {expected:?}:\n  {}", script()));
        }
        let (through, below) = (Tree::of(mount.path()), Tree::of(&pvol));
        through.same(&below, "the mount and the volume below").map_err(|text| format!("{text}\n  {}", script()))?;
        let reference = Tree::of(&plain).without_times();
        let same = reference.same(&below.clone().without_times(), "the plain directory and the volume");
        same.map_err(|text| format!("{text}\n  {}", script()))?;
        let marked = sandbox.reelfs(["mark", &group, &format!("step{}", moments.len()), "--json"]).ok().json();
        let seq = marked["seq"].as_u64().ok_or_else(|| format!("no number in {marked}"))? - 1;
        moments.push((seq, below, script()));
    }
    drop(real);
    sandbox.export(&group, &tapes);
    mount.umount();
    for (seq, tree, script) in moments {
        let point = format!("seq:{seq}");
        let restored = fast.restore(&tapes, &point, "restored");
        tree.same(&Tree::of(&restored), &point).map_err(|text| format!("{text}\n  {script}"))?;
        fs::remove_dir_all(restored).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[test]
fn a_mount_is_a_directory_and_every_step_can_be_restored() {
    play_all(tools::rounds(50, 2_000), |number, draws| play_on_the_mount(&Sandbox::new(), number, draws));
}

#[test]
fn the_same_on_xfs() {
    if !tools::root() || !tools::present(&["mkfs.xfs"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "xfs", FileSystem::Xfs, 512);
    for number in 1_000..1_000 + tools::rounds(2, 200) {
        let result = play_on_the_mount(&Sandbox::within(disk.path()), number, &sequence(number, STEPS));
        assert!(result.is_ok(), "sequence {number}: {}", result.unwrap_err());
    }
}
