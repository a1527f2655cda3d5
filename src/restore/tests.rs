//! Restores from tapes that were written by hand, compared with a model of the volume.

mod logs;
mod model;
mod random;
mod refusals;
mod through;
mod volumes;
mod world;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reelfs_journal::{Change, MarkerKind, NodeKind, Seq};
use tempfile::TempDir;

use super::{Deck, Method, Plan, Request, Summary, run};
use crate::error::Result;
use crate::point::Point;
use crate::when::Zone;
use model::{Tree, differences, tree_of};
use world::{World, name};

/// A world with its directory of tapes and room for targets.
struct Bench {
    directory: TempDir,
    world: World,
}

impl Bench {
    fn new() -> Bench {
        Bench::in_directory(tempfile::tempdir().expect("temporary directory"))
    }

    /// In memory where that is possible: for those who restore a thousand times, and for whom no disk needs to hold it.
    fn in_memory() -> Bench {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Bench::in_directory(directory.expect("temporary directory"))
    }

    fn in_directory(directory: TempDir) -> Bench {
        let tapes = directory.path().join("tapes");
        std::fs::create_dir(&tapes).expect("directory");
        let world = World::new(&tapes);
        Bench { directory, world }
    }

    /// A small tree, a base copy, some changes after it, two update tapes.
    fn filled() -> Bench {
        let mut bench = Bench::new();
        let world = &mut bench.world;
        let root = world.model.root;
        let directory = world.create(root, "dir", NodeKind::Directory);
        let file = world.create(directory, "file", NodeKind::File);
        world.write(file, 0, b"before the base");
        world.begin_base();
        world.end_base();
        world.marker(MarkerKind::Named, "first");
        world.write(file, 7, b"THE");
        world.export();
        world.create(root, "link", NodeKind::Symlink(b"dir/file".to_vec()));
        world.marker(MarkerKind::Named, "second");
        world.export();
        world.write(file, 0, b"AFTER");
        world.marker(MarkerKind::Named, "first");
        world.export();
        bench
    }

    fn tapes(&self) -> Vec<PathBuf> {
        vec![self.world.tapes.clone()]
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn restore_with(&self, point: &Point, change: impl FnOnce(&mut Request)) -> Result<(Seq, Summary)> {
        restore_from(&self.tapes(), &self.target(), point, change)
    }

    fn restore(&self, point: &Point) -> Result<Seq> {
        Ok(self.restore_with(point, |_| {})?.0)
    }

    /// Restores, takes the tree, clears the target.
    fn tree_at(&self, point: &Point, method: Method) -> Tree {
        let (seq, _) = self.restore_with(point, |request| request.method = method).expect("restored");
        if let Point::Seq(wanted) = point {
            assert_eq!(seq, *wanted);
        }
        let tree = tree_of(&self.target());
        std::fs::remove_dir_all(self.target()).expect("cleared");
        tree
    }

    fn assert_exact(&self, seq: Seq) {
        let wanted = self.world.states[&seq].tree();
        for method in [Method::Newest, Method::Replay] {
            let differences = differences(&wanted, &self.tree_at(&Point::Seq(seq), method));
            assert!(differences.is_empty(), "at {seq} by {method:?}:\n{}", differences.join("\n"));
        }
    }
}

fn restore_from(
    tapes: &[PathBuf],
    target: &Path,
    point: &Point,
    change: impl FnOnce(&mut Request),
) -> Result<(Seq, Summary)> {
    let deck = Deck::open(tapes, None, &mut |_, _| {})?;
    let mut request = Request { to: target.to_owned(), tapes: tapes.to_vec(), ..Request::default() };
    change(&mut request);
    super::check(&request.to, &request.tapes, deck.uuid)?;
    let plan = Plan::new(&deck, deck.resolve(point, Zone::UTC)?)?;
    let summary = run(&deck, &plan, &request, &mut |_| {})?;
    Ok((plan.target.seq, summary))
}

#[test]
fn every_point_from_the_end_of_the_base_is_exact() {
    let bench = Bench::filled();
    let first = bench.world.first_point.expect("a base");
    for seq in (first.0..=bench.world.last().0).map(Seq) {
        bench.assert_exact(seq);
    }
}

#[test]
fn points_are_what_they_say() {
    let bench = Bench::filled();
    let states = &bench.world.states;
    let last = bench.world.last();
    assert_eq!(bench.tree_at(&Point::Latest, Method::Newest), states[&last].tree());
    let first = bench.world.first_point.expect("a base");
    assert_eq!(bench.tree_at(&Point::Oldest, Method::Newest), states[&first].tree());
    assert_eq!(bench.tree_at(&Point::LastBase, Method::Newest), states[&first].tree());
    let marker = |text: &str, back| Point::Marker { name: text.to_owned(), back };
    assert_eq!(bench.tree_at(&marker("first", 0), Method::Newest), states[&last].tree());
    assert_eq!(bench.tree_at(&marker("first", 1), Method::Newest), states[&first.next()].tree());
    // a time between two records is the earlier one; the time of a record is that record
    let time = World::time_of(Seq(last.0 - 1));
    let between = Point::Time(reelfs_journal::Timestamp(time.0 + 1));
    assert_eq!(bench.tree_at(&between, Method::Newest), states[&Seq(last.0 - 1)].tree());
    assert_eq!(bench.tree_at(&Point::Time(time), Method::Newest), states[&Seq(last.0 - 1)].tree());
    // quiet until the seal: the tape vouches for it
    let sealed = Point::Time(reelfs_journal::Timestamp(World::time_of(last).0 + 500));
    assert_eq!(bench.tree_at(&sealed, Method::Newest), states[&last].tree());
}

#[test]
fn amended_records_count_as_what_they_did_and_groups_as_one() {
    let mut bench = Bench::new();
    let world = &mut bench.world;
    let root = world.model.root;
    let file = world.create(root, "file", NodeKind::File);
    world.begin_base();
    world.short_write(file, 0, b"asked for this", 5);
    let never = world.write_change(file, 3, b"never");
    world.failed(never);
    world.end_base();
    world.short_write(file, 5, b"asked for more", 3);
    let never = world.write_change(file, 0, b"NEVER");
    world.failed(never);
    let write = world.write_change(file, 0, b"!");
    let mtime = world.mtime();
    let attributes = Change::SetAttr { file, attributes: World::attributes(0o600, mtime) };
    world.group_of(vec![write, attributes]);
    world.export();
    let first = bench.world.first_point.expect("a base");
    for (seq, _) in bench.world.states.range(first..) {
        bench.assert_exact(*seq);
    }
    let middle = bench.world.last().previous();
    assert_eq!(bench.restore(&Point::Seq(middle)).expect_err("in the middle of an operation").code(), 13);
}

#[test]
fn what_happened_behind_the_mount_is_taken_in_whole() {
    let mut bench = Bench::new();
    let world = &mut bench.world;
    let root = world.model.root;
    let (a, b) = (world.create(root, "a", NodeKind::Directory), world.create(root, "b", NodeKind::Directory));
    let file = world.create(a, "file", NodeKind::File);
    let gone = world.create(a, "gone", NodeKind::File);
    world.write(file, 0, b"one");
    world.begin_base();
    world.end_base();
    world.behind(|world| {
        world.rename((a, name("file")), (b, name("moved")), false);
        world.unlink(a, name("gone"), gone);
        world.write(file, 1, b"NEW");
        // a directory moves into the other one, and something new stands where it was
        world.rename((root, name("a")), (b, name("inner")), false);
        let fresh = world.create(root, "a", NodeKind::File);
        world.write(fresh, 0, b"fresh");
    });
    world.write(file, 0, b"after");
    world.export();
    let first = bench.world.first_point.expect("a base");
    for (seq, _) in bench.world.states.range(first..) {
        bench.assert_exact(*seq);
    }
    let inside = Point::Seq(Seq(first.0 + 3));
    let error = bench.restore(&inside).expect_err("inside the bracket");
    assert_eq!(error.code(), 13, "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("seq:")), "{error:?}");
}

#[test]
fn an_interrupted_restore_is_cleared_and_done_anew() {
    let bench = Bench::filled();
    let target = bench.target();
    std::fs::create_dir(&target).expect("directory");
    let deck = Deck::open(&bench.tapes(), None, &mut |_, _| {}).expect("tapes");
    std::fs::write(target.join(reelfs_volume::restore_mark(deck.uuid)), "").expect("a mark");
    std::fs::create_dir(target.join("dir")).expect("half a restore");
    std::fs::write(target.join("dir/file"), "half").expect("half a restore");
    let (seq, summary) = bench.restore_with(&Point::Latest, |_| {}).expect("restored");
    assert!(summary.again);
    assert_eq!(tree_of(&target), bench.world.states[&seq].tree());
}

#[test]
fn parts_of_a_tree_come_with_the_directories_above_them() {
    let bench = Bench::filled();
    bench.restore_with(&Point::Latest, |request| request.paths = vec![b"dir/file".to_vec()]).expect("restored");
    let (found, all) = (tree_of(&bench.target()), bench.world.states[&bench.world.last()].tree());
    assert_eq!(found.keys().collect::<Vec<_>>(), [&b""[..], b"/dir", b"/dir/file"]);
    assert!(found.iter().all(|(path, seen)| all.get(path) == Some(seen)));
    std::fs::remove_dir_all(bench.target()).expect("cleared");
    let missing = bench.restore_with(&Point::Latest, |request| request.paths = vec![b"dir/none".to_vec()]);
    assert_eq!(missing.expect_err("not there").code(), 10);
    assert!(!bench.target().exists());
}

#[test]
fn tapes_in_any_order_given_twice_or_renamed_restore_the_same() {
    let bench = Bench::filled();
    let other = bench.directory.path().join("other");
    std::fs::create_dir(&other).expect("directory");
    for (index, tape) in bench.world.written.iter().rev().enumerate() {
        std::fs::copy(tape, other.join(format!("{index}.reel.tar.zst"))).expect("copied");
    }
    let target = bench.target();
    let tapes = [other, bench.world.tapes.clone()];
    let (seq, _) = restore_from(&tapes, &target, &Point::Latest, |_| {}).expect("restored");
    assert_eq!(tree_of(&target), bench.world.states[&seq].tree());
}

#[test]
fn safe_takes_privileges_and_devices_away_and_nothing_else() {
    let mut bench = Bench::filled();
    let world = &mut bench.world;
    let root = world.model.root;
    let file = world.create(root, "suid", NodeKind::File);
    world.write(file, 0, b"program");
    let mtime = world.mtime();
    world.change(Change::SetAttr { file, attributes: World::attributes(0o6755, mtime) });
    if rustix::process::geteuid().is_root() {
        world.create(root, "null", NodeKind::CharDevice((1 << 32) | 3));
    }
    world.export();
    let mut wanted = bench.world.states[&bench.world.last()].tree();
    wanted.remove(&b"/null"[..]);
    wanted.get_mut(&b"/suid"[..]).expect("the file").mode = 0o755;
    bench.restore_with(&Point::Latest, |request| request.safe = true).expect("restored");
    assert_eq!(differences(&wanted, &tree_of(&bench.target())), Vec::<String>::new());
    std::fs::remove_dir_all(bench.target()).expect("cleared");
    bench.restore(&Point::Latest).expect("restored");
    assert_eq!(tree_of(&bench.target())[&b"/suid"[..]].mode, 0o6755);
    assert_eq!(bench.target().join("null").exists(), rustix::process::geteuid().is_root());
}

#[test]
fn owners_are_counted_when_they_are_not_taken_over() {
    let mut bench = Bench::filled();
    let world = &mut bench.world;
    let file = world.create(world.model.root, "theirs", NodeKind::File);
    let mtime = world.mtime();
    let mut attributes = World::attributes(0o640, mtime);
    attributes.uid += 1;
    world.change(Change::SetAttr { file, attributes });
    world.export();
    let owner = |target: &Path| std::fs::metadata(target.join("theirs")).expect("the file").uid();
    let (_, summary) = bench.restore_with(&Point::Latest, |request| request.no_owner = true).expect("restored");
    assert_eq!((summary.owners_changed, owner(&bench.target())), (1, attributes.uid - 1));
    std::fs::remove_dir_all(bench.target()).expect("cleared");
    match bench.restore(&Point::Latest) {
        Ok(_) => assert_eq!(owner(&bench.target()), attributes.uid),
        Err(error) => assert_eq!(error.code(), 14, "only root gives files away: {error}"),
    }
}
