//! Groups of several volumes: all of them at one record, or one of them alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reelfs_journal::{FileId, MarkerKind, NodeKind, Seq, Timestamp, VolumeIndex};

use super::model::{Model, Tree, differences, tree_of};
use super::world::{World, name};
use super::{Bench, Deck, Method, Plan, Request, Summary, run};
use crate::error::{Error, Result};
use crate::log::{Filter, tell};
use crate::point::Point;
use crate::restore::Phase;
use crate::when::Zone;
use reelfs_volume::restore_mark;

const DATA: VolumeIndex = VolumeIndex(0);

/// A volume `data` with a file and a base, and a volume `web` with a file of the same id and a base; all on tapes.
fn pair() -> (Bench, VolumeIndex, FileId) {
    pair_in(Bench::new())
}

fn pair_in(mut bench: Bench) -> (Bench, VolumeIndex, FileId) {
    let world = &mut bench.world;
    let file = world.create(world.model.root, "a", NodeKind::File);
    world.write(file, 0, b"0");
    world.begin_base();
    world.end_base();
    let web = world.join("web");
    let twin = world.create(world.model.root, "b", NodeKind::File);
    assert_eq!(twin, file, "ids of two volumes have nothing to do with each other");
    world.write(twin, 0, b"0");
    world.begin_base();
    world.end_base();
    world.export();
    (bench, web, file)
}

fn open(tapes: &[PathBuf], wanted: &str) -> Result<Deck> {
    Deck::open(tapes, Some(&wanted.parse().expect("a scope")), &mut |_, _| {})
}

pub fn restore_all(bench: &Bench, wanted: &str, point: &Point, change: impl FnOnce(&mut Request)) -> Result<Summary> {
    let deck = open(&bench.tapes(), wanted)?;
    restore_deck(&deck, &bench.target(), point, change)
}

fn restore_deck(deck: &Deck, target: &Path, point: &Point, change: impl FnOnce(&mut Request)) -> Result<Summary> {
    let mut request = Request { to: target.to_owned(), ..Request::default() };
    change(&mut request);
    let plan = Plan::new(deck, deck.resolve(point, Zone::UTC)?)?;
    run(deck, &plan, &request, &mut |_| {})
}

fn refusal(bench: &Bench, wanted: &str, point: &Point) -> Error {
    let error = restore_all(bench, wanted, point, |_| {}).expect_err("not to be had");
    assert!(!bench.target().exists(), "a refusal changes nothing");
    error
}

pub fn clear(bench: &Bench) {
    std::fs::remove_dir_all(bench.target()).expect("cleared");
}

fn assert_same(wanted: &Tree, directory: &Path, what: &str) {
    let differences = differences(wanted, &tree_of(directory));
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

/// What stands in the target is all volumes of this state, each in its directory.
pub fn assert_state(bench: &Bench, state: &BTreeMap<VolumeIndex, Model>, what: &str) {
    let mut wanted: Vec<String> = Vec::new();
    for (volume, model) in state {
        let label = bench.world.volumes.iter().find(|label| label.index == *volume).expect("a volume");
        let name = label.called().to_string();
        assert_same(&model.tree(), &bench.target().join(&name), &format!("{what}, {name}"));
        wanted.push(name);
    }
    let entries = std::fs::read_dir(bench.target()).expect("the target");
    let mut found: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    found.sort();
    assert_eq!(found, wanted, "{what}");
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn number_in(path: &Path) -> u64 {
    let text = std::fs::read_to_string(path).expect("a file");
    text.trim_start_matches('0').parse().unwrap_or(0)
}

/// An application that writes a number to `a` on one volume and then to `b` on the other, over and over, while both volumes
/// are busy otherwise.
fn application(world: &mut World, web: VolumeIndex, file: FileId, dice: &mut Dice) {
    let (mut first, mut round) = (true, 0_u64);
    for step in 0..500 {
        let other = if dice.roll(2) == 0 { DATA } else { web };
        match dice.roll(3) {
            0 => {
                world.switch(if first { DATA } else { web });
                round += u64::from(first);
                world.write(file, 0, format!("{round:08}").as_bytes());
                first = !first;
            }
            1 => {
                world.switch(other);
                let busy = world.create(world.model.root, &format!("f{step}"), NodeKind::File);
                world.write(busy, dice.roll(50), b"between");
            }
            _ => {
                world.switch(other);
                let never = world.write_change(file, 0, b"99999999");
                world.failed(never);
            }
        }
        if dice.roll(100) == 0 {
            world.export();
        }
    }
    world.marker(MarkerKind::Named, "end");
    world.export();
}

/// At any target `b` is never ahead of `a`, nor more than one behind.
#[test]
fn what_came_second_is_never_there_without_what_came_first() {
    let (mut bench, web, file) = pair_in(Bench::in_memory());
    let (mut dice, from) = (Dice(7), bench.world.last().0);
    application(&mut bench.world, web, file, &mut dice);
    let last = bench.world.last().0;
    let deck = open(&bench.tapes(), "docs").expect("tapes");
    let (mut restored, mut behind) = (0, [0; 2]);
    while restored < 1000 {
        let seq = Seq(from + dice.roll(last - from + 1));
        let at = Timestamp(World::time_of(seq).0 + i64::try_from(dice.roll(1000)).expect("small"));
        let point = if dice.roll(2) == 0 { Point::Time(at) } else { Point::Seq(seq) };
        match restore_deck(&deck, &bench.target(), &point, |_| {}) {
            Ok(_) => restored += 1,
            Err(error) => {
                let in_an_operation = point == Point::Seq(seq) && !bench.world.whole.contains_key(&seq);
                assert!(in_an_operation && error.code() == 13, "{point:?}: {error}");
                continue;
            }
        }
        let (a, b) = (number_in(&bench.target().join("data/a")), number_in(&bench.target().join("web/b")));
        assert!(b <= a && a <= b + 1, "{point:?}: a is {a}, b is {b}");
        behind[usize::try_from(a - b).expect("0 or 1")] += 1;
        if restored % 20 == 0 {
            let (_, state) = bench.world.whole.range(..=seq).next_back().expect("a state");
            assert_state(&bench, state, &format!("{point:?}"));
        }
        clear(&bench);
    }
    assert!(behind[0] > 100 && behind[1] > 100, "{behind:?}");
}

#[test]
fn every_point_of_every_volume_is_exact_by_both_methods() {
    let (mut bench, web, file) = pair();
    let world = &mut bench.world;
    let from = world.last();
    for round in 0..3 {
        for volume in [DATA, web] {
            world.switch(volume);
            let directory = world.create(world.model.root, &format!("d{round}"), NodeKind::Directory);
            world.short_write(file, 2, b"asked for this", 4 + round);
            let (root, old) = (world.model.root, name(&format!("d{round}")));
            world.rename((root, old), (root, name(&format!("e{round}{}", volume.0))), false);
            world.create(directory, "in it", NodeKind::File);
        }
    }
    world.export();
    for (seq, state) in bench.world.whole.range(from..) {
        for method in [Method::Newest, Method::Replay] {
            let what = format!("{seq} by {method:?}");
            restore_all(&bench, "docs", &Point::Seq(*seq), |request| request.method = method).expect(&what);
            assert_state(&bench, state, &what);
            clear(&bench);
            for (volume, wanted) in [(DATA, "docs/data"), (web, "docs/web")] {
                restore_all(&bench, wanted, &Point::Seq(*seq), |request| request.method = method).expect(&what);
                assert_same(&state[&volume].tree(), &bench.target(), &what);
                clear(&bench);
            }
        }
    }
}

#[test]
fn a_volume_without_a_base_keeps_the_whole_group_out_of_reach_and_no_other_volume() {
    let mut bench = Bench::new();
    let world = &mut bench.world;
    let file = world.create(world.model.root, "a", NodeKind::File);
    world.begin_base();
    world.end_base();
    world.write(file, 0, b"1");
    let before = world.last();
    let web = world.join("web");
    world.switch(DATA);
    world.write(file, 0, b"2");
    let inside = world.last();
    world.switch(web);
    world.export();
    let restore = |bench: &Bench, wanted, point| restore_all(bench, wanted, &point, |_| {}).map(|_| clear(bench));
    // the end of the tapes is inside: never something else instead
    let error = refusal(&bench, "docs", &Point::Latest);
    assert_eq!(error.code(), 13);
    assert!(error.to_string().contains("no base copy of volume web"), "{error}");
    restore(&bench, "docs/data", Point::Latest).expect("data has a base");
    let world = &mut bench.world;
    world.begin_base();
    world.end_base();
    let ended = world.last();
    world.export();
    let error = refusal(&bench, "docs", &Point::Seq(inside));
    assert_eq!(error.code(), 13);
    let hint = error.hint_text().expect("a hint");
    let nearest = [format!("--at seq:{before}"), format!("--at seq:{ended}")];
    assert!(nearest.iter().all(|point| hint.contains(point)) && hint.contains("docs/data"), "{hint}");
    assert_eq!(refusal(&bench, "docs", &Point::Time(Timestamp(World::time_of(inside).0 + 1))).code(), 13);
    assert_eq!(refusal(&bench, "docs/web", &Point::Seq(inside)).code(), 13);
    for (wanted, seq) in [("docs", before), ("docs", ended), ("docs/data", inside), ("docs/web", ended)] {
        restore(&bench, wanted, Point::Seq(seq)).expect(wanted);
    }
}

#[test]
fn brackets_of_two_volumes_may_interleave() {
    let (mut bench, web, file) = pair();
    let world = &mut bench.world;
    world.switch(web);
    let web_began = world.bracket(MarkerKind::AdoptBegin);
    world.switch(DATA);
    world.write(file, 0, b"1");
    let certain_for_data = world.last();
    let data_began = world.bracket(MarkerKind::AdoptBegin);
    world.switch(web);
    let web_ended = world.bracket(MarkerKind::AdoptEnd);
    world.switch(DATA);
    let data_ended = world.bracket(MarkerKind::AdoptEnd);
    world.marker(MarkerKind::Named, "after");
    world.export();
    for seq in web_began.0..data_ended.0 {
        let error = refusal(&bench, "docs", &Point::Seq(Seq(seq)));
        let culprit = if seq < web_ended.0 { "volume web" } else { "volume data" };
        assert!(error.code() == 13 && error.to_string().contains(culprit), "{seq}: {error}");
    }
    let one = |wanted, seq: Seq| {
        let deck = open(&bench.tapes(), wanted).expect("tapes");
        deck.resolve(&Point::Seq(seq), Zone::UTC).map(|target| target.seq).map_err(|error| error.code())
    };
    assert_eq!(one("docs/data", certain_for_data), Ok(certain_for_data));
    assert_eq!(one("docs/data", data_began), Err(13));
    assert_eq!(one("docs/data", web_ended), Err(13));
    assert_eq!(one("docs/web", certain_for_data), Err(13));
    assert_eq!(one("docs/web", web_ended), Ok(web_ended));
    assert_eq!(one("docs", data_ended), Ok(data_ended));
    for method in [Method::Newest, Method::Replay] {
        restore_all(&bench, "docs", &Point::Latest, |request| request.method = method).expect("restored");
        assert_state(&bench, &bench.world.whole[&bench.world.last()], "after both");
        clear(&bench);
    }
}

#[test]
fn a_volume_that_left_is_there_before_and_not_after() {
    let (mut bench, web, file) = pair();
    let world = &mut bench.world;
    world.switch(web);
    let before = world.last();
    world.leave(DATA);
    world.write(file, 0, b"alone");
    let after = world.last();
    world.export();
    for seq in [before, before.next(), after] {
        restore_all(&bench, "docs", &Point::Seq(seq), |_| {}).expect("restored");
        assert_state(&bench, &bench.world.whole[&seq], &format!("{seq}"));
        clear(&bench);
    }
    for point in [Point::Seq(after), Point::Latest] {
        let error = refusal(&bench, "docs/web", &point);
        assert_eq!(error.code(), 13);
        assert!(error.hint_text().is_some_and(|hint| hint.contains(&format!("seq:{before}"))), "{error:?}");
    }
    restore_all(&bench, "docs/web", &Point::Seq(before), |_| {}).expect("as it was at the end");
}

#[test]
fn an_interrupted_restore_of_several_volumes_is_done_anew() {
    let (bench, _, _) = pair();
    let (target, mark) = (bench.target(), restore_mark(bench.world.uuid));
    std::fs::create_dir_all(target.join("data/half")).expect("half a restore");
    std::fs::create_dir_all(target.join("old")).expect("half a restore");
    std::fs::write(target.join(&mark), "").expect("a mark");
    std::fs::write(target.join("data").join(&mark), "").expect("a mark");
    let summary = restore_all(&bench, "docs", &Point::Latest, |_| {}).expect("restored");
    assert!(summary.again);
    assert_state(&bench, &bench.world.whole[&bench.world.last()], "after the second");
}

#[test]
fn a_restore_that_stops_in_the_second_volume_leaves_marks_and_converges() {
    let (bench, _, _) = pair();
    let deck = open(&bench.tapes(), "docs").expect("tapes");
    let plan = Plan::new(&deck, deck.resolve(&Point::Latest, Zone::UTC).expect("a point")).expect("a plan");
    let (target, mark) = (bench.target(), restore_mark(bench.world.uuid));
    let request = Request { to: target.clone(), ..Request::default() };
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(&deck, &plan, &request, &mut |progress| {
            assert!(progress.phase != Phase::Write || !target.join("web").exists(), "stopped by the test");
        })
    }));
    assert!(stopped.is_err());
    let marked = ["", "data", "web"].map(|directory| target.join(directory).join(&mark).exists());
    assert_eq!(marked, [true, false, true]);
    let summary = restore_all(&bench, "docs", &Point::Latest, |_| {}).expect("restored");
    assert!(summary.again);
    assert_state(&bench, &bench.world.whole[&bench.world.last()], "after the second");
}

#[test]
fn nothing_is_written_for_one_volume_when_the_tapes_of_another_are_damaged() {
    let (bench, _, _) = pair();
    let base_of_web = &bench.world.written[1];
    let mut bytes = std::fs::read(base_of_web).expect("a tape");
    // in its README, which is not read before all of it is
    bytes[600] ^= 1;
    std::fs::write(base_of_web, bytes).expect("damaged");
    let deck = open(&bench.tapes(), "docs").expect("tapes");
    deck.resolve(&Point::Latest, Zone::UTC).expect("nobody knows yet");
    let error = refusal(&bench, "docs", &Point::Latest);
    assert_eq!(error.code(), 19, "{error}");
}

#[test]
fn paths_begin_with_the_name_of_their_volume() {
    let (bench, _, _) = pair();
    restore_all(&bench, "docs", &Point::Latest, |request| request.paths = vec![b"web/b".to_vec()]).expect("restored");
    let found: Vec<_> = tree_of(&bench.target()).into_keys().collect();
    assert_eq!(found, [&b""[..], b"/web", b"/web/b"]);
    clear(&bench);
    for path in ["b", "other/b", "data/b", ""] {
        let paths = vec![path.as_bytes().to_vec()];
        let error = restore_all(&bench, "docs", &Point::Latest, |request| request.paths = paths).expect_err(path);
        assert_eq!(error.code(), 10, "{path}: {error}");
        assert_eq!(error.to_string().starts_with("volume data: "), path == "data/b", "{path}: {error}");
        assert!(!bench.target().exists());
    }
    restore_all(&bench, "docs/web", &Point::Latest, |request| request.paths = vec![b"b".to_vec()]).expect("restored");
}

#[test]
fn a_volume_that_is_not_there_is_named() {
    let (bench, _, _) = pair();
    let error = open(&bench.tapes(), "docs/mail").err().expect("no such volume");
    assert_eq!(error.code(), 10);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("docs/data, docs/web")), "{error:?}");
}

#[test]
fn a_volume_that_is_only_on_the_labels_counts_unless_the_beginning_is_here() {
    let (mut bench, _, file) = pair();
    let world = &mut bench.world;
    world.switch(DATA);
    world.write(file, 0, b"1");
    world.begin_base();
    world.end_base();
    world.export();
    // the first update tape, and with it every record of web, is elsewhere
    std::fs::remove_file(&bench.world.written[2]).expect("taken away");
    let error = refusal(&bench, "docs", &Point::Latest);
    assert!(matches!(error.code(), 13 | 15) && error.to_string().contains("web"), "{error}");
    restore_all(&bench, "docs/data", &Point::Latest, |_| {}).expect("data has all it needs");
    assert_same(&bench.world.model.tree(), &bench.target(), "data alone");
}

#[test]
fn a_volume_that_was_never_mounted_keeps_nobody_from_anything() {
    let mut bench = Bench::filled();
    bench.world.volumes.push(reelfs_archive::LabelVolume::new(VolumeIndex(1), "web".parse().expect("a name")));
    bench.world.marker(MarkerKind::Named, "third");
    bench.world.export();
    restore_all(&bench, "docs", &Point::Latest, |_| {}).expect("web never had anything");
    assert_same(&bench.world.model.tree(), &bench.target().join("data"), "data");
}

#[test]
fn the_log_says_which_volume_when_there_are_several() {
    let (mut bench, _, file) = pair();
    let world = &mut bench.world;
    let from = world.last().next();
    world.write(file, 0, b"1");
    world.rename((world.model.root, name("b")), (world.model.root, name("c")), false);
    world.switch(DATA);
    world.write(file, 0, b"2");
    world.marker(MarkerKind::AcquisitionStop, "");
    world.marker(MarkerKind::Named, "both");
    world.export();
    let lines = |wanted: &str, glob: Option<&str>| {
        let deck = open(&bench.tapes(), wanted).expect("tapes");
        let mut lines = Vec::new();
        let filter = Filter::new(glob).expect("a pattern").from(from);
        let told = tell(&deck, &filter, &mut |event| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let other = event.other.as_deref().map(|other| format!(" -> {}", text(other))).unwrap_or_default();
            lines.push(format!("{} {}{other}", event.op, text(&event.path)));
            Ok(())
        });
        told.expect("told");
        lines
    };
    let all = ["write web/b", "rename web/b -> web/c", "write data/a", "marker data", "marker "];
    assert_eq!(lines("docs", None), all);
    assert_eq!(lines("docs", Some("web/*")), all[..2]);
    assert_eq!(lines("docs/web", None), ["write b", "rename b -> c", "marker "]);
    assert_eq!(lines("docs/data", None), ["write a", "marker ", "marker "]);
}
