use std::mem;
use std::sync::{Arc, mpsc};

use super::*;

const PARENT: FileId = FileId { ino: 9, generation: 0xdead_beef };

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("a legal name")
}

#[test]
fn what_a_killed_process_left_is_there_until_it_is_cleared() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("inflight");
    let (table, left) = InFlight::open(&path).expect("open");
    assert_eq!(left, []);
    table.clear();
    let longest = name(&[b'\xff'; 255]);
    let creating = table.begin_create(PARENT, &longest);
    let begun = table.begin();
    let appended = table.begin();
    appended.appended(Seq(7), Seq(8));
    appended.appended(Seq(9), Seq(9));
    let settled = table.begin();
    settled.appended(Seq(5), Seq(6));
    drop(settled);
    let numbered = table.begin_create(PARENT, &name(b"a"));
    numbered.appended(Seq(10), Seq(10));
    for slot in [creating, begun, appended, numbered] {
        mem::forget(slot);
    }
    drop(table);

    for _ in 0..2 {
        let (_, mut left) = InFlight::open(&path).expect("open");
        left.sort_by_key(|state| matches!(state, InFlightState::Appended { .. }));
        assert_eq!(
            left,
            [
                InFlightState::Creating { parent: PARENT, name: longest.clone() },
                InFlightState::Creating { parent: PARENT, name: name(b"a") },
                InFlightState::Appended { first: Seq(7), last: Seq(9) },
                InFlightState::Appended { first: Seq(10), last: Seq(10) },
            ]
        );
    }
    let (table, _) = InFlight::open(&path).expect("open");
    drop(table.begin_create(PARENT, &longest));
    table.clear();
    drop(table);
    assert_eq!(InFlight::open(&path).expect("open").1, []);
}

#[test]
fn nonsense_is_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("inflight");
    let mut bytes = vec![0xff; SLOTS * SLOT_WORDS * 8];
    bytes[0] = 1; // a create whose name is 255 bytes of 0xff: legal
    bytes[512] = 1;
    bytes[513] = 0; // no name
    bytes[1024] = 2;
    bytes[1032..1040].fill(9);
    bytes[1040..1048].fill(3); // ends before it begins
    std::fs::write(&path, &bytes).expect("write");
    assert_eq!(InFlight::open(&path).expect("open").1.len(), 1);
    std::fs::write(&path, b"short").expect("write");
    assert_eq!(InFlight::open(&path).expect("open").1, []);
    assert_eq!(std::fs::metadata(&path).expect("stat").len(), FILE_LEN);
}

#[test]
fn the_lowest_unsettled_number_holds_the_seal_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (table, _) = InFlight::open(&directory.path().join("inflight")).expect("open");
    let table = Arc::new(table);
    assert_eq!(table.lowest_unsettled(), None);
    let (early, late) = (table.begin(), table.begin());
    assert_eq!(table.lowest_unsettled(), None);
    late.appended(Seq(6), Seq(9));
    early.appended(Seq(4), Seq(5));
    assert_eq!(table.lowest_unsettled(), Some(Seq(4)));
    assert!(table.wait_settled(Seq(3), Duration::ZERO));
    assert!(!table.wait_settled(Seq(4), Duration::from_millis(5)));
    drop(early);
    assert_eq!(table.lowest_unsettled(), Some(Seq(6)));
    assert!(table.wait_settled(Seq(5), Duration::ZERO));
    let (sender, woken) = mpsc::channel();
    std::thread::spawn({
        let table = Arc::clone(&table);
        move || sender.send(table.wait_settled(Seq(9), Duration::from_secs(3600)))
    });
    while !table.settled.notify_one() {
        std::thread::yield_now();
    }
    drop(late);
    assert_eq!(woken.recv_timeout(Duration::from_secs(60)), Ok(true));
}

#[test]
fn what_is_left_to_the_next_opening_is_known_to_whoever_waits() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (table, _) = InFlight::open(&directory.path().join("inflight")).expect("open");
    table.clear();
    // one without a number holds nobody up
    let creating = table.begin_create(PARENT, &name(b"a"));
    creating.leave();
    drop(creating);
    assert!(!table.has_left(Seq(u64::MAX - 1)) && table.wait_settled(Seq(9), Duration::ZERO));
    let slot = table.begin();
    slot.appended(Seq(7), Seq(8));
    slot.leave();
    assert!(!table.has_left(Seq(7)), "its operation goes on");
    drop(slot);
    assert!(table.has_left(Seq(7)) && !table.wait_settled(Seq(7), Duration::ZERO));
    assert!(!table.has_left(Seq(6)) && table.wait_settled(Seq(6), Duration::ZERO));
    table.clear();
    assert!(!table.has_left(Seq(7)) && table.wait_settled(Seq(7), Duration::ZERO));
}

#[test]
fn the_sixty_fifth_waits_for_a_slot() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (table, _) = InFlight::open(&directory.path().join("inflight")).expect("open");
    let table = Arc::new(table);
    let mut slots: Vec<Slot<'_>> = (0..SLOTS).map(|_| table.begin()).collect();
    let (sender, taken) = mpsc::channel();
    // not scoped: a test that fails must not wait for it
    std::thread::spawn({
        let table = Arc::clone(&table);
        move || {
            let _slot = table.begin();
            sender.send(())
        }
    });
    assert!(taken.recv_timeout(Duration::from_millis(20)).is_err());
    slots.pop();
    taken.recv_timeout(Duration::from_secs(60)).expect("a slot came free");
}

#[test]
fn numbers_that_became_nobody_s_are_forgotten_and_earlier_ones_stay() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("inflight");
    let (table, _) = InFlight::open(&path).expect("open");
    let [write, longer, apart] = [(); 3].map(|()| table.begin());
    write.appended(Seq(10), Seq(10));
    write.numbered_anew(Seq(12), Seq(13));
    longer.appended(Seq(5), Seq(6));
    longer.appended(Seq(20), Seq(20));
    longer.numbered_anew(Seq(7), Seq(7));
    apart.appended(Seq(15), Seq(16));
    apart.appended(Seq(30), Seq(30));
    apart.numbered_anew(Seq(31), Seq(31));
    let created = table.begin_create(PARENT, &name(b"a"));
    created.appended(Seq(40), Seq(40));
    created.numbered_anew(Seq(39), Seq(39));
    assert_eq!(table.lowest_unsettled(), Some(Seq(5)));
    for slot in [write, longer, apart, created] {
        mem::forget(slot);
    }
    drop(table);
    let (_, mut left) = InFlight::open(&path).expect("open");
    let range = |state: &InFlightState| match state {
        InFlightState::Appended { first, last } => (first.0, last.0),
        InFlightState::Creating { .. } => (0, 0),
    };
    left.sort_by_key(range);
    assert_eq!(left.iter().map(range).collect::<Vec<_>>(), [(0, 0), (5, 7), (12, 13), (15, 16), (39, 39)]);
}
