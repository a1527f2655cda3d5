//! The n-th disk call fails, for every n of six scripts, once and for ever: nothing is acknowledged that is not so, nothing
//! hangs, and when the disk is whole again the group opens and its tapes are the volume.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod simulated;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use model::{Door, ModelFs, Step};
use reelfs::open_group::OpenGroup;
use reelfs_journal::Tags;
use reelfs_journal::disk::{self, Label};
use reelfs_volume::Reason;
use rustix::io::Errno;
use simulated::site::primary;
use simulated::{Failer, Fault, Site};
use support::{Tree, tools, wait};

/// What a script does.
#[derive(Debug, Clone)]
enum Act {
    Step(Step),
    Mark,
    Suspend,
    Resync,
    Export,
    /// The daemon is killed, and comes back.
    Kill,
    /// It ends in order, and comes back.
    Reopen,
    /// Somebody edits a file behind the mount: only between two of the others.
    Edit(&'static str),
    /// File times go on: what comes next leaves others than what came before.
    Tick,
}

use Act::{Edit, Export, Kill, Mark, Reopen, Resync, Suspend, Tick};

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

fn create(name: &str) -> Act {
    Act::Step(Step::Create { path: path(name), mode: 0o644 })
}

fn mkdir(name: &str) -> Act {
    Act::Step(Step::Mkdir { path: path(name), mode: 0o755 })
}

fn write(name: &str, offset: u64, length: usize) -> Act {
    let bytes = (0..length).map(|at| (at as u64 * 7 + offset + length as u64).to_le_bytes()[0]).collect();
    Act::Step(Step::Write { path: path(name), offset, bytes })
}

fn size(name: &str, size: u64) -> Act {
    Act::Step(Step::SetSize { path: path(name), size })
}

fn sync(name: &str) -> Act {
    Act::Step(Step::Sync { path: path(name) })
}

fn rename(from: &str, to: &str, flags: u32) -> Act {
    Act::Step(Step::Rename { from: path(from), to: path(to), flags })
}

fn link(from: &str, to: &str) -> Act {
    Act::Step(Step::Link { from: path(from), to: path(to) })
}

fn unlink(name: &str) -> Act {
    Act::Step(Step::Unlink { path: path(name) })
}

fn rmdir(name: &str) -> Act {
    Act::Step(Step::Rmdir { path: path(name) })
}

fn punch(name: &str, offset: u64, length: u64) -> Act {
    Act::Step(Step::Allocate { path: path(name), mode: 3, offset, length })
}

fn bytes() -> Vec<Act> {
    let begin = [create("a"), write("a", 0, 9_000), sync("a"), write("a", 4_000, 3_000), size("a", 5_000), sync("a")];
    let end =
        [punch("a", 100, 3_000), create("b"), write("b", 70_000, 20_000), sync(""), sync("b"), Mark, size("b", 3)];
    [&begin[..], &end].concat()
}

fn names() -> Vec<Act> {
    let symlink = Act::Step(Step::Symlink { path: path("d/s"), target: b"../a".to_vec() });
    let fifo = Act::Step(Step::Mknod { path: path("p"), kind: 'p', mode: 0o600 });
    let begin = [create("a"), write("a", 0, 100), mkdir("d"), mkdir("d/e"), link("a", "d/l"), symlink, fifo, sync("d")];
    let end = [
        rename("a", "d/e/x", 0),
        create("c"),
        rename("c", "d/l", 0),
        rename("d/e", "p", 2),
        unlink("p/x"),
        rmdir("p"),
        sync(""),
    ];
    [&begin[..], &end].concat()
}

fn attributes() -> Vec<Act> {
    let chmod = |name: &str, mode| Act::Step(Step::Chmod { path: path(name), mode });
    let chown = Act::Step(Step::Chown { path: path("a"), uid: 1_000, gid: 1_001 });
    let touch = Act::Step(Step::Touch { path: path("d"), mtime: (1_763_600_000, 5) });
    let xattr =
        |value: &[u8]| Act::Step(Step::SetXattr { path: path("a"), name: "user.one", value: value.to_vec(), flags: 0 });
    let gone = Act::Step(Step::RemoveXattr { path: path("a"), name: "user.one" });
    let begin = [create("a"), mkdir("d"), chmod("a", 0o4755), write("a", 0, 50), chown, touch, xattr(b"1"), sync("a")];
    [&begin[..], &[xattr(b"22"), gone, chmod("d", 0o700), sync("a"), Mark]].concat()
}

fn suspension() -> Vec<Act> {
    let begin =
        [create("a"), write("a", 0, 9_000), mkdir("d"), sync("a"), Suspend, write("a", 100, 200), create("d/n")];
    let end = [write("d/n", 0, 70_000), rename("a", "d/a", 0), sync("d/a"), Resync, write("d/a", 0, 10), sync("d/a")];
    [&begin[..], &end].concat()
}

fn openings() -> Vec<Act> {
    let begin = [create("a"), write("a", 0, 9_000), mkdir("d"), Kill];
    let middle = [Tick, write("a", 10, 20), create("d/b"), sync("d/b")];
    let end = [Reopen, Edit("d/by-hand"), Reopen, write("d/b", 0, 5_000), unlink("a"), Kill, write("d/b", 1, 1)];
    [&begin[..], &middle, &end].concat()
}

fn tapes() -> Vec<Act> {
    let begin = [create("a"), write("a", 0, 9_000), Export, write("a", 5, 50), mkdir("d"), sync("a"), Export, Reopen];
    [&begin[..], &[create("d/b"), Export, Suspend, write("a", 0, 9), Resync, Export]].concat()
}

/// A script and its name.
type Script = (&'static str, fn() -> Vec<Act>);

const SCRIPTS: [Script; 6] = [
    ("bytes", bytes),
    ("names", names),
    ("attributes", attributes),
    ("suspension", suspension),
    ("openings", openings),
    ("tapes", tapes),
];

/// What was acknowledged, and what nobody can say.
struct Ledger {
    model: ModelFs,
    uncertain: BTreeSet<PathBuf>,
    /// A sync was refused: no later one of the same file may say that it is durable.
    unsynced: BTreeSet<PathBuf>,
}

fn paths(step: &Step) -> Vec<&Path> {
    match step {
        Step::Link { from, to } | Step::Rename { from, to, .. } => vec![from, to],
        Step::Create { path, .. }
        | Step::Mkdir { path, .. }
        | Step::Symlink { path, .. }
        | Step::Mknod { path, .. }
        | Step::Unlink { path }
        | Step::Rmdir { path }
        | Step::Write { path, .. }
        | Step::SetSize { path, .. }
        | Step::Allocate { path, .. }
        | Step::Chmod { path, .. }
        | Step::Chown { path, .. }
        | Step::Touch { path, .. }
        | Step::SetXattr { path, .. }
        | Step::RemoveXattr { path, .. }
        | Step::Sync { path } => vec![path],
        other => panic!("{other:?} is in no script"),
    }
}

/// Less was written than asked for, and said to be: what comes next of it would have met the fault.
fn is_short(step: &Step, done: u64) -> bool {
    matches!(step, Step::Write { bytes, .. } if (bytes.len() as u64) > done)
}

impl Ledger {
    fn is_uncertain(&self, path: &Path) -> bool {
        self.uncertain.iter().any(|known| path.starts_with(known))
    }

    /// Plays a step for real and for the model; what failed is uncertain from now on, with all that follows from it.
    fn play(&mut self, group: &OpenGroup, step: &Step) -> Result<(), String> {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let real = Door::new(&primary(group), owner).play(step);
        let touched = paths(step);
        if let (Step::Sync { path }, Ok(_)) = (step, &real)
            && self.unsynced.contains(path)
        {
            return Err(format!("{} was synced after a sync that failed", path.display()));
        }
        let known = !touched.iter().any(|path| self.is_uncertain(path));
        match real {
            Ok(done) if known && !is_short(step, done) => _ = self.model.play(step),
            Ok(_) => self.uncertain.extend(touched.iter().map(|path| path.to_path_buf())),
            Err(Errno::IO | Errno::NOSPC | Errno::ROFS) => {
                if let Step::Sync { path } = step {
                    self.unsynced.insert(path.clone());
                } else {
                    self.uncertain.extend(touched.iter().map(|path| path.to_path_buf()));
                }
            }
            // a step before it failed, and so this one was about what is not there, or is something else
            Err(_) if !self.uncertain.is_empty() => {
                self.uncertain.extend(touched.iter().map(|path| path.to_path_buf()));
            }
            Err(error) => return Err(format!("{step:?} answers {error}")),
        }
        Ok(())
    }

    /// What was acknowledged stands in the volume.
    fn check(&mut self, pvol: &Path) -> Result<(), String> {
        let real = Tree::of(pvol);
        let told = self.model.tree(&real);
        for (path, node) in told.nodes().iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
            let linked =
                told.nodes().iter().any(|(other, known)| known.same_as == node.same_as && self.is_uncertain(other));
            if self.is_uncertain(path) || linked {
                continue;
            }
            let found = real.nodes().get(path).ok_or_else(|| format!("{} is gone", path.display()))?;
            let same = (node.kind, node.mode, node.owner, node.size, &node.content, &node.xattrs)
                == (found.kind, found.mode, found.owner, found.size, &found.content, &found.xattrs);
            if !same {
                return Err(format!("{} stands otherwise than acknowledged:\n{node:?}\n{found:?}", path.display()));
            }
        }
        let gone = real.nodes().keys().find(|path| !told.nodes().contains_key(*path) && !self.is_uncertain(path));
        gone.map_or(Ok(()), |path| Err(format!("{} was never acknowledged, or removed", path.display())))
    }
}

/// Plays a script; a group that cannot be opened ends it, and so does one whose state says so.
fn play(site: &Site, acts: &[Act], ledger: &mut Ledger) -> Result<(), String> {
    let mut open = site.open().ok();
    for act in acts {
        let Some(group) = &open else { return Ok(()) };
        match act {
            Act::Step(step) => ledger.play(group, step)?,
            Mark => _ = group.journal().mark("here", "", &Tags::default(), Vec::new()),
            Suspend => _ = primary(group).suspend(Reason::User),
            Resync => _ = primary(group).resync(&mut || false, &mut |_, _| {}),
            Export => _ = site.export(group),
            Kill => {
                open = None;
                open = open.or_else(|| site.open().ok());
            }
            Reopen => {
                _ = group.close();
                open = None;
                open = open.or_else(|| site.open().ok());
            }
            Tick => wait::file_times(),
            Edit(name) => {
                open = None;
                // after a kill, change times tell an edit only from the next tick on
                wait::file_times();
                if site.pvol.join(name).parent().is_some_and(Path::is_dir) {
                    fs::write(site.pvol.join(name), "by hand").map_err(|error| error.to_string())?;
                }
                ledger.uncertain.insert(path(name));
                open = open.or_else(|| site.open().ok());
            }
        }
    }
    if let Some(group) = open.filter(|_| acts.len().is_multiple_of(2)) {
        _ = group.close();
    }
    Ok(())
}

/// One run of a script; gives how many calls it made.
fn run(acts: &[Act], fault: Fault, for_ever: bool, at: u64) -> Result<(u64, Option<Label>), String> {
    let mut site = Site::new();
    if acts.iter().any(|act| matches!(act, Export)) {
        let group = site.open().map_err(|error| error.chain())?;
        site.base(&group).map_err(|error| error.chain())?;
        group.close().map_err(|error| error.chain())?;
    }
    let root = Tree::of(&site.pvol).nodes()[Path::new("")].clone();
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut ledger =
        Ledger { model: ModelFs::new(&root, owner), uncertain: BTreeSet::new(), unsynced: BTreeSet::new() };
    let failer = Arc::new(Failer::new(fault, for_ever, at));
    let before = disk::watch_thread(Some(failer.clone()));
    let played = play(&site, acts, &mut ledger);
    failer.clear();
    disk::watch_thread(before);
    played?;
    let (calls, met) = (failer.calls(), failer.met());
    let told = |error: String| format!("{error} (it was met at {met:?})");
    let group = site.open().map_err(|error| told(format!("does not open again: {}", error.chain())))?;
    ledger.check(&site.pvol).map_err(told)?;
    site.check_twin(&group).map_err(told)?;
    ledger.check(&site.pvol).map_err(told)?;
    group.close().map_err(|error| told(format!("does not close: {}", error.chain())))?;
    Ok((calls, met))
}

/// Every n of a script, on all processors.
fn every_call(name: &str, acts: &[Act], fault: Fault, for_ever: bool) -> Vec<String> {
    let (calls, _) = run(acts, fault, for_ever, 0).unwrap_or_else(|error| panic!("{name} without a fault: {error}"));
    let (next, met) = (AtomicU64::new(1), AtomicUsize::new(0));
    let worker = || {
        let mut failures = Vec::new();
        while let at @ 1.. = next.fetch_add(1, Ordering::Relaxed)
            && at <= calls
        {
            match run(acts, fault, for_ever, at) {
                Ok((_, label)) => _ = met.fetch_add(usize::from(label.is_some()), Ordering::Relaxed),
                Err(error) => failures.push(format!("{name}, {fault:?}, for ever {for_ever}, call {at}: {error}")),
            }
        }
        failures
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    println!("{name}, {fault:?}, for ever {for_ever}: {calls} calls, {} met", met.into_inner());
    failures
}

fn fails_everywhere(number: usize) {
    if !tools::holds(tools::root(), "root, for owners") {
        return;
    }
    let (name, acts) = SCRIPTS[number];
    let acts = acts();
    let mut failures = Vec::new();
    for fault in Fault::ALL {
        for for_ever in [false, true] {
            failures.extend(every_call(name, &acts, fault, for_ever));
        }
    }
    let shown = failures.iter().take(12).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures:\n{shown}", failures.len());
}

#[test]
fn bytes_are_written() {
    fails_everywhere(0);
}

#[test]
fn names_change() {
    fails_everywhere(1);
}

#[test]
fn attributes_change() {
    fails_everywhere(2);
}

#[test]
fn a_group_is_suspended_and_brought_back() {
    fails_everywhere(3);
}

#[test]
fn a_group_is_opened_and_killed() {
    fails_everywhere(4);
}

#[test]
fn tapes_are_made() {
    fails_everywhere(5);
}
