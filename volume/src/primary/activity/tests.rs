use super::*;

const FILE: FileId = FileId { ino: 7, generation: 1 };

fn bytes(from: u64, to: u64) -> Need {
    Need::Bytes { file: FILE, from, to, size: to }
}

#[test]
fn what_a_record_named_is_hot_until_the_floor_passes_it() {
    let activity = Activity::default();
    activity.begin(Seq(5), Timestamp(100));
    let entries = [Active::Names { directory: 3 }, Active::Bytes { file: 7, first: 1, units: 2 }];
    activity.took(Seq(6), &entries, Timestamp(100));
    let dir = FileId { ino: 3, generation: 0 };
    assert!(activity.is_hot(&Need::Names(dir)) && activity.is_hot(&Need::Attributes(dir)));
    assert!(activity.is_hot(&bytes(ACTIVE_UNIT, 3 * ACTIVE_UNIT)) && activity.is_hot(&Need::Attributes(FILE)));
    assert!(!activity.is_hot(&bytes(0, ACTIVE_UNIT + 1)) && !activity.is_hot(&bytes(ACTIVE_UNIT, 3 * ACTIVE_UNIT + 1)));
    assert!(!activity.is_hot(&Need::Names(FILE)));
    activity.took(Seq(9), &[Active::Bytes { file: 7, first: 0, units: 1 }], Timestamp(100));
    assert!(activity.is_hot(&bytes(0, 3 * ACTIVE_UNIT)));
    activity.raise_floor(Seq(7));
    assert!(!activity.is_hot(&Need::Names(dir)));
    assert!(!activity.is_hot(&bytes(ACTIVE_UNIT, 2 * ACTIVE_UNIT)) && activity.is_hot(&bytes(0, 1)));
}

#[test]
fn a_file_that_is_often_cold_is_named_in_wider_stretches() {
    let activity = Activity::default();
    let mut named = Vec::new();
    for turn in 0..3 {
        let at = 77 * ACTIVE_UNIT;
        let entry = activity.widen(7, (at, at + 1, 1 << 40), Cost { bytes: 1 << 30, records: 0 });
        activity.took(Seq(turn), &[entry], Timestamp(0));
        let Active::Bytes { first, units, .. } = entry else { panic!("bytes") };
        named.push((first, units));
    }
    assert_eq!(named, [(77, 1), (76, 4), (64, 16)]);
    assert_eq!(activity.widen(8, (0, 10, 10), Cost::default()), Active::Bytes { file: 8, first: 0, units: 1 });
}

#[test]
fn what_is_in_use_is_carried_over_cheapest_first_and_the_rest_is_cold() {
    let activity = Activity::default();
    activity.begin(Seq(5), Timestamp(100));
    let (used, unused, late) = (FileId { ino: 3, generation: 0 }, FileId { ino: 4, generation: 0 }, bytes(0, 1));
    let names = [used.ino, unused.ino].map(|directory| Active::Names { directory });
    let long = Active::Bytes { file: 7, first: 0, units: 64 };
    let short = Active::Bytes { file: 7, first: 100, units: 2 };
    activity.took(Seq(6), &[names[0], names[1], long, short], Timestamp(100));
    let inside = bytes(101 * ACTIVE_UNIT, 102 * ACTIVE_UNIT);
    assert!(activity.lets(&Need::Names(used)) && activity.lets(&late) && activity.lets(&inside));
    // of what is named beyond the end of a file nothing has to be told
    assert_eq!(activity.in_use(Seq(7), Cost { bytes: 101 * ACTIVE_UNIT, records: 1_000 }, 9).0.len(), 3);
    assert!(activity.is_hot(&Need::Names(unused)), "to ask is not to use");
    let limit = |bytes| Cost { bytes, records: 1_000 };
    let (entries, cost) = activity.in_use(Seq(7), limit(10 * ACTIVE_UNIT), 9);
    assert_eq!(entries, [names[0], short], "the long one costs too much");
    assert!(cost.bytes >= 2 * ACTIVE_UNIT && cost.bytes <= 10 * ACTIVE_UNIT, "{cost:?}");
    assert_eq!(activity.in_use(Seq(7), limit(1 << 30), 9).0, [names[0], short, long]);
    assert_eq!(activity.in_use(Seq(7), limit(1 << 30), 1).0, [names[0]]);
    assert_eq!(activity.in_use(Seq(6), limit(1 << 30), 9).0, [], "nothing goes");

    activity.carry(Seq(7), (Seq(9), &entries, Timestamp(90)), cost);
    assert!(activity.is_hot(&Need::Names(used)) && activity.is_hot(&inside));
    // the record may not be durable, and what was before it still counts; nor does its time count before it
    assert!(activity.is_late(Timestamp(100)) && !activity.is_late(Timestamp(99)));
    activity.carry(Seq(8), (Seq(12), &entries, Timestamp(300)), cost);
    assert!(activity.is_late(Timestamp(300)) && !activity.is_late(Timestamp(299)) && activity.is_hot(&inside));
    // somebody else took everything back meanwhile
    activity.raise_floor(Seq(10));
    activity.carry(Seq(9), (Seq(13), &[names[1]], Timestamp(400)), cost);
    assert!(!activity.is_hot(&Need::Names(unused)));
    activity.took(Seq(14), &[short], Timestamp(400));
    assert!(!activity.is_hot(&Need::Names(unused)) && !activity.is_hot(&late));
    // once more it is carried over only when it was used since
    assert_eq!(activity.in_use(Seq(15), limit(1 << 30), 9).0, []);
    assert!(activity.lets(&inside));
    assert_eq!(activity.in_use(Seq(15), limit(1 << 30), 9).0, [short]);
}

#[test]
fn a_file_in_use_stays_one_that_is_named_widely() {
    let activity = Activity::default();
    let wide = |activity: &Activity| match activity.widen(7, (0, 1, 1 << 40), Cost { bytes: 1 << 30, records: 0 }) {
        Active::Bytes { units, .. } => units,
        _ => panic!("bytes"),
    };
    activity.took(Seq(6), &[Active::Bytes { file: 7, first: 0, units: 1 }], Timestamp(0));
    assert!(activity.lets(&bytes(0, 1)));
    activity.raise_floor(Seq(7));
    assert!(!activity.is_hot(&bytes(0, 1)));
    assert_eq!(wide(&activity), 4);
    activity.raise_floor(Seq(8));
    assert_eq!(wide(&activity), 1, "nobody has used it since");
}

#[test]
fn a_clock_that_goes_back_makes_everything_wait_for_a_record() {
    let activity = Activity::default();
    activity.begin(Seq(5), Timestamp(100));
    assert!(activity.is_late(Timestamp(100)) && !activity.is_late(Timestamp(99)));
    activity.took(Seq(6), &[], Timestamp(50));
    assert!(activity.is_late(Timestamp(99)));
    activity.raise_floor(Seq(7));
    assert!(!activity.is_late(Timestamp(99)));
}
