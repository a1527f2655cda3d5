use proptest::prelude::*;
use reelfs_journal::{Epoch, MarkerKind, Seq, Tags, Timestamp, VolumeIndex};
use uuid::Uuid;

use super::{BaseTape, Glance, Glances, Happening, History, Resolver, Stretch, What};
use crate::error::Result;
use crate::point::Point;
use crate::volumes::Volumes;
use crate::when::Zone;

const EPOCH: Epoch = Epoch(1);
const BASE: Uuid = Uuid::from_u128(9);

/// Records lie ten nanoseconds apart; those whose numbers end in 7 go on in the next.
struct Records;

impl Glances for Records {
    fn glance(&self, _: Epoch, stretch: &Stretch, visit: &mut dyn FnMut(Glance) -> bool) -> Result<()> {
        for seq in stretch.first.0..=stretch.last.0 {
            if !visit(Glance { seq: Seq(seq), time: time(seq), more: seq % 10 == 7 }) {
                break;
            }
        }
        Ok(())
    }
}

fn time(seq: u64) -> Timestamp {
    Timestamp(i64::try_from(seq).expect("small") * 10)
}

fn stretch(first: u64, last: u64) -> Stretch {
    let (first_time, sealed) = (time(first), Timestamp(time(last).0 + 5));
    Stretch { first: Seq(first), last: Seq(last), first_time, sealed, name: format!("docs-{first:03}-{last:03}") }
}

fn base_tape() -> BaseTape {
    BaseTape { volume: VolumeIndex(0), base: BASE, began: Seq(3), digest: [1; 32], name: "base".to_owned() }
}

fn base_end(seq: u64) -> Happening {
    let what = What::BaseEnd { base: BASE, began: Seq(3), digest: [1; 32] };
    Happening { seq: Seq(seq), time: time(seq), volume: VolumeIndex(0), what }
}

fn marker(seq: u64, kind: MarkerKind, name: &str) -> Happening {
    let (name, note) = (name.to_owned(), String::new());
    // an adoption doubts everything since the record before it
    let since = Timestamp(time(seq).0 - 4);
    Happening {
        seq: Seq(seq),
        time: time(seq),
        volume: VolumeIndex(0),
        what: What::Marker { kind, name, note, tags: Tags::default(), since },
    }
}

fn history(stretches: Vec<Stretch>) -> History {
    let told = vec![
        marker(8, MarkerKind::Named, "a"),
        base_end(6),
        marker(22, MarkerKind::AdoptBegin, ""),
        marker(25, MarkerKind::AdoptEnd, ""),
        marker(28, MarkerKind::Named, "a"),
    ];
    History::new(EPOCH, stretches, &[base_tape()], told)
}

fn resolve(history: &History, point: Point) -> std::result::Result<u64, u8> {
    let histories = std::slice::from_ref(history);
    let resolver = Resolver { group: "docs", volumes: &Volumes::only(), histories, glances: &Records, zone: Zone::UTC };
    resolver.resolve(&point).map(|target| target.seq.0).map_err(|error| error.code())
}

#[test]
fn the_last_marker_may_be_of_an_epoch_before() {
    let later = History::new(Epoch(2), vec![stretch(31, 40)], &[base_tape()], vec![base_end(33)]);
    let histories = [history(vec![stretch(1, 30)]), later];
    let (volumes, glances) = (Volumes::only(), &Records);
    let resolver = Resolver { group: "docs", volumes: &volumes, histories: &histories, glances, zone: Zone::UTC };
    let found = resolver.resolve(&Point::LastMarker).map(|target| (target.epoch, target.seq));
    assert_eq!(found.map_err(|error| error.code()), Ok((EPOCH, Seq(28))));
}

#[test]
fn every_kind_of_point() {
    let history = history(vec![stretch(11, 20), stretch(1, 10), stretch(21, 30)]);
    let named = |back| Point::Marker { name: "a".to_owned(), back };
    assert_eq!(resolve(&history, Point::Latest), Ok(30));
    assert_eq!(resolve(&history, Point::Oldest), Ok(6));
    assert_eq!(resolve(&history, Point::LastBase), Ok(6));
    assert_eq!(resolve(&history, Point::LastMarker), Ok(28));
    assert_eq!(resolve(&history, named(0)), Ok(28));
    assert_eq!(resolve(&history, named(1)), Ok(8));
    assert_eq!(resolve(&history, named(2)), Err(10));
    assert_eq!(resolve(&history, Point::Tape("docs-011".to_owned())), Ok(20));
    assert_eq!(resolve(&history, Point::Tape("docs-9".to_owned())), Err(10));
    assert_eq!(resolve(&history, Point::Seq(Seq(10))), Ok(10));
    assert_eq!(resolve(&history, Point::Seq(Seq(17))), Err(13), "in the middle of an operation");
    assert_eq!(resolve(&history, Point::Seq(Seq(5))), Err(13), "before the base is complete");
    assert_eq!(resolve(&history, Point::Seq(Seq(31))), Err(13), "after the end");
}

#[test]
fn a_time_is_the_last_record_not_after_it() {
    let history = history(vec![stretch(1, 10), stretch(11, 20), stretch(21, 30)]);
    let at = |nanoseconds| resolve(&history, Point::Time(Timestamp(nanoseconds)));
    assert_eq!(at(80), Ok(8));
    assert_eq!(at(89), Ok(8));
    assert_eq!(at(179), Ok(16), "half an operation does not count");
    assert_eq!(at(104), Ok(10), "between two tapes");
    assert_eq!(at(108), Ok(10), "after the seal of one tape, before the first record of the next");
    assert_eq!(at(59), Err(13), "before the base is complete");
    assert_eq!(at(60), Ok(6));
    assert_eq!(at(305), Ok(30), "quiet until the seal");
    assert_eq!(at(306), Err(13), "nobody vouches for that");
    assert_eq!(at(0), Err(13));
}

#[test]
fn what_lies_inside_a_bracket_was_never_a_state() {
    let history = history(vec![stretch(1, 30)]);
    let at = |nanoseconds| resolve(&history, Point::Time(Timestamp(nanoseconds)));
    assert_eq!(at(215), Ok(21));
    assert_eq!(at(216), Err(13), "somebody may have changed it by then");
    assert_eq!(at(249), Err(13));
    assert_eq!(at(250), Ok(25));
    for seq in 22..25 {
        assert_eq!(resolve(&history, Point::Seq(Seq(seq))), Err(13), "{seq}");
    }
    assert_eq!(resolve(&history, Point::Seq(Seq(25))), Ok(25));
    // a bracket that is still open at the end: the last certain point is before it
    let open = History::new(
        EPOCH,
        vec![stretch(1, 24)],
        &[base_tape()],
        vec![base_end(6), marker(22, MarkerKind::RecoveryBegin, "")],
    );
    assert_eq!(resolve(&open, Point::Latest), Ok(21));
}

#[test]
fn a_gap_asks_for_the_tape_only_where_it_is_needed() {
    let history = history(vec![stretch(1, 10), stretch(21, 30)]);
    assert_eq!(history.gaps(), [(Seq(11), Seq(20))]);
    assert_eq!(history.windows().count(), 1);
    assert_eq!(resolve(&history, Point::Seq(Seq(9))), Ok(9));
    assert_eq!(resolve(&history, Point::Seq(Seq(15))), Err(15));
    assert_eq!(resolve(&history, Point::Seq(Seq(30))), Err(15));
    assert_eq!(resolve(&history, Point::Latest), Err(15), "never something else instead");
    assert_eq!(resolve(&history, Point::Time(Timestamp(150))), Err(15));
    assert_eq!(resolve(&history, Point::Time(Timestamp(104))), Ok(10));
    // the base's own window is broken
    let broken = History::new(EPOCH, vec![stretch(5, 10)], &[base_tape()], vec![base_end(6)]);
    assert_eq!(resolve(&broken, Point::Seq(Seq(9))), Err(15));
    // the tape with the base's files is not here
    let missing = History::new(EPOCH, vec![stretch(1, 10)], &[], vec![base_end(6)]);
    assert_eq!(resolve(&missing, Point::Latest), Err(15));
    // another tape under the same name is not it
    let other = BaseTape { digest: [2; 32], ..base_tape() };
    let wrong = History::new(EPOCH, vec![stretch(1, 10)], &[other], vec![base_end(6)]);
    assert_eq!(resolve(&wrong, Point::Latest), Err(15));
}

#[test]
fn the_newest_usable_base_is_taken() {
    let second = Uuid::from_u128(10);
    let tapes = [
        base_tape(),
        BaseTape { base: second, began: Seq(12), digest: [2; 32], name: "second".to_owned(), ..base_tape() },
    ];
    let what = What::BaseEnd { base: second, began: Seq(12), digest: [2; 32] };
    let told = vec![base_end(6), Happening { what, ..base_end(15) }];
    let history = History::new(EPOCH, vec![stretch(1, 30)], &tapes, told.clone());
    let base = |seq| history.base_for(VolumeIndex(0), Seq(seq)).map(|base| base.base);
    assert_eq!((base(5), base(6), base(14), base(15)), (None, Some(BASE), Some(BASE), Some(second)));
    // and after a gap it is the only way
    let history = History::new(EPOCH, vec![stretch(1, 8), stretch(12, 30)], &tapes, told);
    assert_eq!(resolve(&history, Point::Latest), Ok(30));
    assert_eq!(resolve(&history, Point::Seq(Seq(14))), Err(13));
    assert_eq!(resolve(&history, Point::LastBase), Ok(15));
    assert_eq!(history.windows().count(), 2);
}

#[test]
fn a_base_in_the_journal_needs_the_records_from_its_beginning_on_and_no_tape() {
    let told = || {
        let what = What::BaseEnd { base: BASE, began: Seq(5), digest: [0; 32] };
        vec![Happening { seq: Seq(9), time: time(9), volume: VolumeIndex(0), what }]
    };
    let whole = History::new(EPOCH, vec![stretch(5, 20)], &[], told());
    assert_eq!(resolve(&whole, Point::Oldest), Ok(9));
    assert_eq!(resolve(&whole, Point::Seq(Seq(8))), Err(13));
    assert_eq!(resolve(&whole, Point::Latest), Ok(20));
    let cut = History::new(EPOCH, vec![stretch(6, 20)], &[], told());
    assert_eq!(cut.windows().count(), 0, "its first record says what the root is");
    let gap = History::new(EPOCH, vec![stretch(1, 5), stretch(7, 20)], &[], told());
    assert_eq!(resolve(&gap, Point::Latest), Err(15), "record 6 is missing");
}

/// What happens to a volume: the record at which it joins, where base copies of it begin and end, whether their tapes are
/// here, and where it leaves.
type Fate = (u64, Vec<(u64, u64, bool)>, Option<u64>);

fn fate() -> impl Strategy<Value = Fate> {
    let bases = proptest::collection::vec((0..40_u64, 1..6_u64, proptest::bool::weighted(0.8)), 0..4);
    (1..40_u64, bases, proptest::option::of(1..30_u64))
}

/// The history of these volumes: record numbers are made unique by giving each volume its own last digit.
fn history_of(fates: &[Fate], runs: Vec<Stretch>) -> History {
    let (mut told, mut tapes) = (Vec::new(), Vec::new());
    for (index, (joins, bases, stays)) in fates.iter().enumerate() {
        let volume = VolumeIndex(u16::try_from(index).expect("few"));
        let at = |step: u64| step * 10 + index as u64;
        let happens = |step, what| Happening { seq: Seq(at(step)), time: time(at(step)), volume, what };
        told.push(happens(*joins, What::Lives));
        let leaves = stays.map(|stays| joins + stays);
        for &(begins, lasts, is_here) in bases {
            let (began, ended) = (joins + begins, joins + begins + lasts);
            if leaves.is_some_and(|leaves| ended >= leaves) {
                continue;
            }
            let (base, digest) = (Uuid::from_u128(u128::from(at(began))), [1; 32]);
            told.push(happens(ended, What::BaseEnd { base, began: Seq(at(began)), digest }));
            let name = format!("base-{}", at(began));
            tapes.extend(is_here.then(|| BaseTape { volume, base, began: Seq(at(began)), digest, name }));
        }
        told.extend(leaves.map(|leaves| Happening { volume, ..marker(at(leaves), MarkerKind::VolumeLeft, "") }));
    }
    History::new(EPOCH, runs, &tapes, told)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_open_is_what_bases_of_all_volumes_lead_to(
        fates in proptest::collection::vec(fate(), 1..4),
        gap in 1..90_u64,
    ) {
        let history = history_of(&fates, vec![stretch(1, gap * 10), stretch(gap * 10 + 20, 1000)]);
        for (seq, at) in history.runs.iter().filter_map(|run| run.from) {
            prop_assert_eq!(at, time(seq.0), "{:?}", history);
        }
        for seq in (1..=gap * 10).chain(gap * 10 + 20..=1000).map(Seq) {
            let run = history.run(seq).expect("a run");
            let shut = history.brackets.iter().any(|bracket| bracket.why.is_out_of_reach() && bracket.holds(seq));
            let is_open = run.from.is_some_and(|(from, _)| from <= seq) && !shut;
            prop_assert_eq!(is_open, history.is_reached(seq), "{}: {:?}", seq, history);
            // the same by time, which the brackets tell as well
            let by_time = history.brackets.iter().any(|bracket| bracket.holds_time(time(seq.0)));
            if run.from.is_some_and(|(from, _)| from <= seq) {
                prop_assert_eq!(!by_time, is_open, "{} by time: {:?}", seq, history);
            }
        }
    }
}
