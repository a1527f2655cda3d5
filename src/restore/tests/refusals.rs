//! What restore refuses, with which code, and that nothing has changed then.

use reelfs_journal::{NodeKind, Seq, Timestamp};

use super::world::World;
use super::{Bench, restore_from, tree_of};
use crate::point::Point;

#[test]
fn outside_the_window_is_13_with_the_nearest_points() {
    let bench = Bench::filled();
    let first = bench.world.first_point.expect("a base");
    let last = bench.world.last();
    let after_seal = Timestamp(World::time_of(last).0 + 501);
    let points = [
        Point::Seq(first.previous()),
        Point::Seq(last.next()),
        Point::Time(World::time_of(Seq(1))),
        Point::Time(Timestamp(0)),
        Point::Time(after_seal),
    ];
    for point in points {
        let error = bench.restore(&point).expect_err("outside");
        assert_eq!(error.code(), 13, "{point}: {error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--at seq:")), "{point}: {error:?}");
        assert!(!bench.target().exists(), "{point}");
    }
}

#[test]
fn unknown_markers_and_tapes_are_10() {
    let bench = Bench::filled();
    for point in [
        Point::Marker { name: "none".to_owned(), back: 0 },
        Point::Marker { name: "first".to_owned(), back: 2 },
        Point::Tape("docs-9".to_owned()),
    ] {
        assert_eq!(bench.restore(&point).expect_err("unknown").code(), 10);
    }
}

#[test]
fn a_missing_tape_is_15_only_when_the_point_needs_it() {
    let bench = Bench::filled();
    let (base, middle) = (&bench.world.written[0], &bench.world.written[2]);
    std::fs::remove_file(middle).expect("removed");
    let error = bench.restore(&Point::Latest).expect_err("a gap");
    assert_eq!(error.code(), 15, "{error}");
    assert!(!bench.target().exists());
    let first = bench.world.first_point.expect("a base");
    bench.assert_exact(first);
    std::fs::remove_file(base).expect("removed");
    assert_eq!(bench.restore(&Point::Seq(first)).expect_err("no base").code(), 15);
}

#[test]
fn a_damaged_tape_is_19_when_it_is_needed_and_a_warning_when_not() {
    let bench = Bench::filled();
    let last = &bench.world.written[3];
    let whole = std::fs::read(last).expect("read");
    for damage in 0..3 {
        let mut bytes = whole.clone();
        match damage {
            0 => bytes.truncate(whole.len() / 2),
            1 => bytes.truncate(0),
            _ => bytes[whole.len() / 3] ^= 1,
        }
        std::fs::write(last, &bytes).expect("damaged");
        let error = bench.restore(&Point::Latest).expect_err("damaged");
        assert_eq!(error.code(), 19, "{damage}: {error}");
        assert!(!bench.target().exists());
        let first = bench.world.first_point.expect("a base");
        bench.assert_exact(first);
        let deck = super::Deck::open(&bench.tapes(), None, &mut |_, _| {}).expect("tapes");
        assert_eq!(deck.warnings.len(), 1, "{damage}: {:?}", deck.warnings);
    }
    let base = &bench.world.written[0];
    let mut bytes = std::fs::read(base).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x80;
    std::fs::write(base, &bytes).expect("damaged");
    assert_eq!(bench.restore(&Point::Oldest).expect_err("damaged base").code(), 19);
    assert!(!bench.target().exists());
}

#[test]
fn another_group_of_the_same_name_and_a_diverged_history_are_21() {
    let bench = Bench::filled();
    let other = bench.directory.path().join("other");
    std::fs::create_dir(&other).expect("directory");
    let mut foreign = World::new(&other);
    foreign.uuid = uuid::Uuid::from_u128(5);
    foreign.begin_base();
    foreign.end_base();
    foreign.export();
    let both = [bench.world.tapes.clone(), other];
    let error = restore_from(&both, &bench.target(), &Point::Latest, |_| {}).expect_err("foreign");
    assert_eq!(error.code(), 21, "{error}");

    let third = bench.directory.path().join("third");
    std::fs::create_dir(&third).expect("directory");
    let mut forked = World::new(&third);
    let root = forked.model.root;
    forked.create(root, "other", NodeKind::File);
    forked.begin_base();
    forked.end_base();
    while forked.last() < Seq(bench.world.last().0 - 3) {
        let file = forked.create(root, &format!("file{}", forked.last()), NodeKind::File);
        forked.write(file, 0, b"x");
    }
    forked.export();
    let both = [bench.world.tapes.clone(), third];
    let error = restore_from(&both, &bench.target(), &Point::Latest, |_| {}).expect_err("diverged");
    assert_eq!(error.code(), 21, "{error}");
    assert!(!bench.target().exists());
}

#[test]
fn histories_that_part_inside_a_tape_are_diverged_and_other_cuts_of_one_are_not() {
    let bench = Bench::filled();
    let other = bench.directory.path().join("other");
    for (forks, cuts) in [(false, false), (false, true), (true, false), (true, true)] {
        std::fs::create_dir(&other).expect("directory");
        bench.world.export_twin(&other, forks, cuts);
        let both = [bench.world.tapes.clone(), other.clone()];
        let restored = restore_from(&both, &bench.target(), &Point::Latest, |_| {});
        if forks {
            assert_eq!(restored.expect_err("diverged").code(), 21);
            assert!(!bench.target().exists());
        } else {
            let (seq, _) = restored.expect("another cut of the same history");
            assert_eq!(tree_of(&bench.target()), bench.world.states[&seq].tree());
            std::fs::remove_dir_all(bench.target()).expect("cleared");
        }
        std::fs::remove_dir_all(&other).expect("cleared");
    }
}

#[test]
fn a_damaged_copy_does_no_harm_when_another_is_whole() {
    let bench = Bench::filled();
    let copies = bench.directory.path().join("copies");
    std::fs::create_dir(&copies).expect("directory");
    for tape in &bench.world.written {
        let copy = copies.join(tape.file_name().expect("a name"));
        std::fs::copy(tape, copy).expect("copied");
        let mut bytes = std::fs::read(tape).expect("read");
        let place = bytes.len() / 4;
        bytes[place] ^= 4;
        std::fs::write(tape, bytes).expect("damaged");
    }
    for both in [[bench.world.tapes.clone(), copies.clone()], [copies.clone(), bench.world.tapes.clone()]] {
        let (seq, _) = restore_from(&both, &bench.target(), &Point::Latest, |_| {}).expect("restored");
        assert_eq!(tree_of(&bench.target()), bench.world.states[&seq].tree());
        std::fs::remove_dir_all(bench.target()).expect("cleared");
    }
}

fn damage(tape: &std::path::Path) {
    let mut bytes = std::fs::read(tape).expect("read");
    let place = bytes.len() / 3;
    bytes[place] ^= 1;
    std::fs::write(tape, bytes).expect("damaged");
}

fn marker(name: &str) -> Point {
    Point::Marker { name: name.to_owned(), back: 0 }
}

#[test]
fn a_marker_on_good_tapes_is_reached_though_a_later_tape_is_damaged() {
    let bench = Bench::filled();
    damage(&bench.world.written[3]);
    let seq = bench.restore(&marker("second")).expect("restored");
    assert_eq!(tree_of(&bench.target()), bench.world.states[&seq].tree());
}

#[test]
fn what_a_damaged_tape_may_hold_is_19_and_names_it() {
    for (number, points) in [
        (3, vec![Point::Latest, Point::LastMarker, Point::LastQuiet, Point::LastBase, marker("none")]),
        (2, vec![Point::Latest, Point::LastMarker, marker("second"), marker("none")]),
    ] {
        let bench = Bench::filled();
        let tape = &bench.world.written[number];
        let name = tape.file_name().and_then(|name| name.to_str()).expect("a name");
        let within =
            Seq(name.rsplit('-').next().and_then(|last| last.split('.').next()?.parse().ok()).expect("a record"));
        damage(tape);
        for point in points.into_iter().chain([Point::Seq(within), Point::Tape(name.to_owned())]) {
            let error = bench.restore(&point).expect_err("damaged");
            assert_eq!(error.code(), 19, "{number} {point}: {error}");
            assert!(error.to_string().contains(name), "{number} {point}: {error}");
            assert!(!bench.target().exists(), "{number} {point}");
        }
        let other = Point::Tape("docs-9".to_owned());
        assert_eq!(bench.restore(&other).expect_err("no such tape").code(), 10);
    }
}

#[test]
fn a_damaged_tape_is_left_out_when_others_hold_its_records() {
    let bench = Bench::filled();
    let other = bench.directory.path().join("other");
    std::fs::create_dir(&other).expect("directory");
    bench.world.export_twin(&other, false, false);
    for tape in std::fs::read_dir(&other).expect("a directory") {
        damage(&tape.expect("an entry").path());
    }
    let both = [bench.world.tapes.clone(), other];
    for point in [Point::Latest, Point::LastMarker, Point::LastBase] {
        let (seq, _) = restore_from(&both, &bench.target(), &point, |_| {}).expect("restored");
        assert_eq!(tree_of(&bench.target()), bench.world.states[&seq].tree());
        std::fs::remove_dir_all(bench.target()).expect("cleared");
    }
    let error = restore_from(&both, &bench.target(), &marker("none"), |_| {}).expect_err("no such marker");
    assert_eq!(error.code(), 10, "{error}");
}

#[test]
fn the_log_goes_on_after_a_damaged_tape() {
    let bench = Bench::filled();
    let count = || {
        let deck = super::Deck::open(&bench.tapes(), None, &mut |_, _| {}).expect("tapes");
        let mut seqs = Vec::new();
        deck.records(deck.epochs[0].epoch, Seq(1), &mut |who, _| {
            seqs.push(who.seq);
            Ok(true)
        })
        .expect("readable");
        (seqs.len() as u64, seqs.last().copied(), deck.histories[0].gaps(), deck.warnings.len())
    };
    let last = bench.world.last();
    assert_eq!(count(), (last.0, Some(last), Vec::new(), 0));
    damage(&bench.world.written[2]);
    let (seen, end, gaps, warnings) = count();
    let [(from, to)] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!((seen, end, warnings), (last.0 - (to.0 + 1 - from.0), Some(last), 1));
}

#[test]
fn a_target_that_is_not_empty_is_14_and_stays_as_it_is() {
    let bench = Bench::filled();
    std::fs::create_dir(bench.target()).expect("directory");
    std::fs::write(bench.target().join("mine"), "data").expect("a file");
    let before = tree_of(&bench.target());
    assert_eq!(bench.restore(&Point::Latest).expect_err("not empty").code(), 14);
    assert_eq!(tree_of(&bench.target()), before);
}

#[test]
fn a_directory_without_tapes_is_10() {
    let bench = Bench::new();
    assert_eq!(bench.restore(&Point::Latest).expect_err("no tape").code(), 10);
    let nowhere = [bench.directory.path().join("nowhere")];
    assert_eq!(restore_from(&nowhere, &bench.target(), &Point::Latest, |_| {}).expect_err("nowhere").code(), 10);
}

#[test]
fn a_base_that_never_ended_leads_nowhere() {
    let mut bench = Bench::new();
    bench.world.begin_base();
    bench.world.export();
    assert_eq!(bench.restore(&Point::Latest).expect_err("no base").code(), 13);
}
