//! Growing: whatever the journal holds, wherever it wraps, it holds it afterwards, and a crash on the way changes nothing.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::jvol::grow::unfinished;

/// Appends of this shape until it is full.
fn fill(fixture: &Fixture, jvol: &Jvol, lengths: &[usize]) {
    while fixture.append(jvol, lengths).is_ok() {}
}

/// Goes round the rings until both wrap, and leaves them full.
fn wrapped_and_full(fixture: &Fixture) -> Jvol {
    let jvol = fixture.open();
    loop {
        for lengths in [&[300_001, 4096, 12][..], &[60; 700], &[9_000, 60, 60]] {
            fill(fixture, &jvol, lengths);
            let (tail, geometry) = (jvol.tail.lock(), jvol.geometry());
            if tail.next / geometry.control_slots > tail.out / geometry.control_slots
                && tail.position / geometry.data_size > tail.out_position / geometry.data_size
            {
                drop(tail);
                return jvol;
            }
            let kept = tail.slots_used() / 3;
            let first_kept = Seq(tail.next - kept);
            drop(tail);
            jvol.free(first_kept, Digest([7; 32])).expect("free");
        }
    }
}

#[test]
fn a_full_one_that_wraps_holds_the_same_records_and_takes_more() {
    let fixture = Fixture::new();
    let jvol = wrapped_and_full(&fixture);
    let (before, pointers) = (held(&jvol), jvol.pointers());
    let mut told = Vec::new();
    jvol.grow(3 * SIZE + 5000, &mut |done, total| told.push((done, total))).expect("grow");
    let (first, last) = (told[0], *told.last().expect("told"));
    assert!(first.0 == 0 && last.0 == last.1 && told.is_sorted(), "{first:?} {last:?}");
    let metadata = std::fs::metadata(fixture.path()).expect("stat");
    assert_eq!((metadata.len(), metadata.mode() & 0o7777), (3 * SIZE + 4096, 0o600));
    assert!(metadata.blocks() * 512 >= 3 * SIZE, "not allocated");
    assert!(!unfinished(&fixture.path()).exists());
    let grown = jvol.pointers();
    assert_eq!((grown.out, grown.next, grown.data_used), (pointers.out, pointers.next, pointers.data_used));
    assert_eq!(
        (grown.size, grown.last_time, grown.durable),
        (3 * SIZE + 4096, pointers.last_time, grown.next.previous())
    );
    assert_eq!((held(&jvol), jvol.out_digest()), (before.clone(), Digest([7; 32])));
    // both before and after it was opened anew
    let mut model = before;
    for round in 0..2 {
        let more = [700_000, 13 + round, 60];
        for _ in 0..10 {
            fixture.append(&jvol, &more).expect("there is room now");
            model.extend(more);
        }
    }
    assert_eq!(held(&jvol), model);
    jvol.sync(Seq(u64::MAX)).expect("sync");
    drop(jvol);
    let jvol = fixture.open();
    assert_eq!((held(&jvol), jvol.torn()), (model, None));
    jvol.free(jvol.pointers().next, Digest::ZERO).expect("free");
    fill(&fixture, &jvol, &[700_000, 60]);
    held(&jvol);
    jvol.close().expect("close");
    assert_eq!(fixture.open().torn(), None);
}

pub(super) fn spare_of(fixture: &Fixture, name: &str) -> (PathBuf, Spare) {
    let path = fixture.directory.path().join(name);
    Jvol::create(&path, 2 * SIZE, GROUP, &mut |_, _| {}).expect("create");
    let taken = path.clone();
    (path, Spare { take: Box::new(move |_| Ok(taken.clone())), settle: Box::new(|_| Ok(())) })
}

fn broken(jvol: &Jvol) {
    let error = jvol.store().file.error("sync", std::io::ErrorKind::Other.into());
    assert!(jvol.fail::<()>(Err(error)).is_err());
}

#[test]
fn a_spare_takes_over_with_everything_that_can_be_read() {
    let fixture = Fixture::new();
    let jvol = wrapped_and_full(&fixture);
    let mut model = held(&jvol);
    let (path, spare) = spare_of(&fixture, "spare.jvol");
    jvol.set_spare(spare);
    broken(&jvol);
    fixture.append(&jvol, &[700_000, 5]).expect("the spare takes it");
    model.extend([700_000, 5]);
    assert_eq!((jvol.path(), jvol.has_lost(), jvol.breaks_off()), (path.clone(), false, false));
    assert_eq!((held(&jvol), jvol.out_digest()), (model.clone(), Digest([7; 32])));
    jvol.sync(Seq(u64::MAX)).expect("sync");
    drop(jvol);
    assert_eq!(held(&Jvol::open(&path, GROUP).expect("open")), model);
}

#[test]
fn a_spare_that_gets_less_than_everything_begins_empty_and_says_so() {
    let fixture = Fixture::new();
    let jvol = wrapped_and_full(&fixture);
    let before = jvol.pointers();
    let (path, spare) = spare_of(&fixture, "spare.jvol");
    jvol.set_spare(spare);
    let place = jvol.geometry().data_place(jvol.locate(before.out.0 + 100).expect("held"));
    fixture.flip(place);
    broken(&jvol);
    assert!(matches!(jvol.sync(Seq(u64::MAX)), Err(JournalError::Lost(_))));
    assert!(matches!(jvol.sync(before.out), Err(JournalError::Lost(_))), "lost records were said to be durable");
    assert!(matches!(fixture.append(&jvol, &[1]), Err(JournalError::Lost(_))));
    jvol.accept_loss();
    assert_eq!(fixture.append(&jvol, &[1, 2]).expect("append").first, before.next);
    assert!(jvol.breaks_off() && held(&jvol) == [1, 2]);
    drop(jvol);
    let jvol = Jvol::open(&path, GROUP).expect("open");
    assert_eq!((held(&jvol), jvol.torn(), jvol.breaks_off()), (vec![1, 2], None, true));
}

#[test]
fn it_never_shrinks_and_a_refusal_changes_nothing() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    fixture.append(&jvol, &[5, 6]).expect("append");
    let before = std::fs::read(fixture.path()).expect("read the file");
    for size in [0, SIZE - 1, SIZE, SIZE + 4095] {
        assert!(matches!(jvol.grow(size, &mut |_, _| {}), Err(JournalError::NoGrowth { .. })), "{size}");
    }
    // no disk has so much room
    let full = jvol.grow(1 << 60, &mut |_, _| {});
    assert!(matches!(full, Err(JournalError::Io { operation: "preallocate", .. })), "{full:?}");
    assert!(!unfinished(&fixture.path()).exists());
    assert!(before == std::fs::read(fixture.path()).expect("read the file"), "the file changed");
    fixture.append(&jvol, &[7]).expect("append");
    assert_eq!(held(&jvol), [5, 6, 7]);
}

#[test]
fn appends_syncs_frees_and_reads_go_on_meanwhile() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (fixture, jvol, is_over) = (&fixture, &jvol, &is_over);
        scope.spawn(move || {
            for round in 0.. {
                match fixture.append(jvol, &[70_000 + round % 9000, 60, 0]) {
                    Ok(appended) if round % 8 == 0 => drop(jvol.sync(appended.last).expect("sync")),
                    Ok(_) => {}
                    Err(JournalError::Full) => jvol.free(jvol.pointers().next, Digest::ZERO).expect("free"),
                    Err(error) => panic!("{error}"),
                }
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        scope.spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                let pointers = jvol.pointers();
                let Ok(mut records) = jvol.read(pointers.out, pointers.next.previous()) else { continue };
                while let Some(record) = records.next() {
                    match record {
                        Ok((control, data)) => drop(Record::decode(control, data).expect("decodes")),
                        Err(JournalError::NotHeld { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        for times in 2..8 {
            jvol.grow(times * SIZE, &mut |_, _| {}).expect("grow");
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let before = held(&jvol);
    drop(jvol);
    let jvol = fixture.open();
    assert_eq!((held(&jvol), jvol.torn(), jvol.pointers().size), (before, None, 7 * SIZE));
}

/// A crash at any moment leaves under the name either the old file or the new one, each of them whole: what stands beside, whatever
/// it is, is never looked at and is replaced.
#[test]
fn what_a_crash_leaves_beside_is_replaced() {
    let fixture = Fixture::new();
    let jvol = wrapped_and_full(&fixture);
    let before = held(&jvol);
    std::fs::write(unfinished(&fixture.path()), vec![0xee; 3 << 20]).expect("write");
    drop(jvol);
    let jvol = fixture.open();
    let seen = AtomicBool::new(false);
    jvol.grow(2 * SIZE, &mut |done, _| {
        // a kill while zeros are written: the name leads to the old one still
        if done > SIZE && !seen.swap(true, Ordering::SeqCst) {
            assert_eq!(held(&fixture.open()), before);
        }
    })
    .expect("grow");
    assert!(seen.into_inner());
    drop(jvol);
    assert_eq!((held(&fixture.open()), fixture.open().pointers().size), (before, 2 * SIZE));
}

#[test]
fn it_changes_hands_empty_and_only_from_its_owner() {
    let fixture = Fixture::new();
    let jvol = wrapped_and_full(&fixture);
    drop(jvol);
    let before = std::fs::read(fixture.path()).expect("read the file");
    assert_eq!(Jvol::owner(&fixture.path()).expect("ours"), JvolOwner { group: GROUP, size: SIZE });
    let other = Uuid::from_u128(5);
    assert!(matches!(Jvol::hand_over(&fixture.path(), other, Uuid::nil()), Err(JournalError::OtherGroup { .. })));
    assert!(before == std::fs::read(fixture.path()).expect("read the file"), "a refusal changed it");
    Jvol::hand_over(&fixture.path(), GROUP, Uuid::nil()).expect("given back");
    assert_eq!(Jvol::owner(&fixture.path()).expect("nobody's").group, Uuid::nil());
    Jvol::hand_over(&fixture.path(), Uuid::nil(), other).expect("taken");
    let jvol = Jvol::open(&fixture.path(), other).expect("open");
    assert_eq!((jvol.torn(), jvol.pointers().next, jvol.pointers().last_time), (None, Seq(1), Timestamp(i64::MIN)));
    fixture.append(&jvol, &[60; 700]).expect("append");
    drop(jvol);
    let jvol = Jvol::open(&fixture.path(), other).expect("open");
    assert_eq!((held(&jvol).len(), jvol.torn()), (700, None));
}
