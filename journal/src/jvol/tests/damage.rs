//! What is torn, what is damaged, what is not ours.

use super::*;
use crate::checksum;
use crate::jvol::geometry::{PAGE, SLOT};
use crate::jvol::superblock::Superblock;

/// Three records of 100 bytes that are known to be durable, then two of 200 bytes that are not.
fn five() -> (Fixture, JvolGeometry) {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let geometry = jvol.geometry();
    for _ in 0..3 {
        fixture.append(&jvol, &[100]).expect("append");
    }
    jvol.close().expect("close");
    let jvol = fixture.open();
    for _ in 0..2 {
        fixture.append(&jvol, &[200]).expect("append");
    }
    drop(jvol);
    (fixture, geometry)
}

/// Bytes of a record's journal data before those of its write: wall time, uid, pid, mtime.
const HEAD: u64 = 28;

fn place(geometry: &JvolGeometry, lengths: &[u64]) -> u64 {
    geometry.data_offset + lengths.iter().map(|length| JvolGeometry::aligned(length + HEAD)).sum::<u64>()
}

#[test]
fn control_without_data_is_a_torn_tail() {
    let (fixture, geometry) = five();
    fixture.scribble(place(&geometry, &[100, 100, 100, 200]) + 50, &[0; 60]);
    let mut jvol = fixture.open();
    assert_eq!(jvol.torn(), Some(Seq(5)));
    assert_eq!(held(&jvol), [100, 100, 100, 200]);
    assert!(matches!(fixture.append(&jvol, &[1]), Err(JournalError::Torn { seq: Seq(5), .. })));
    drop(jvol);
    jvol = fixture.open();
    assert_eq!(jvol.torn(), Some(Seq(5)), "opening repaired it");
    jvol.cut_tail().expect("cut");
    assert_eq!(jvol.torn(), None);
    fixture.append(&jvol, &[9]).expect("append");
    drop(jvol);
    let jvol = fixture.open();
    assert_eq!((jvol.torn(), held(&jvol)), (None, vec![100, 100, 100, 200, 9]));
}

#[test]
fn data_without_control_was_never_appended() {
    let (fixture, geometry) = five();
    fixture.scribble(geometry.slot_offset(5), &[0; SLOT as usize]);
    let jvol = fixture.open();
    assert_eq!((jvol.torn(), held(&jvol)), (None, vec![100, 100, 100, 200]));
}

#[test]
fn a_later_record_does_not_come_back_when_its_number_is_reached_again() {
    let (fixture, geometry) = five();
    fixture.scribble(geometry.slot_offset(4), &[0; SLOT as usize]);
    let mut jvol = fixture.open();
    assert_eq!((jvol.torn(), held(&jvol)), (Some(Seq(4)), vec![100, 100, 100]));
    jvol.cut_tail().expect("cut");
    // of the same length, so that the data of the old record 5 is where the new one would have it
    fixture.append(&jvol, &[200]).expect("append");
    drop(jvol);
    let jvol = fixture.open();
    assert_eq!((jvol.torn(), held(&jvol)), (None, vec![100, 100, 100, 200]));
}

#[test]
fn an_operation_cut_in_two_is_taken_back_whole() {
    let (fixture, geometry) = five();
    let jvol = fixture.open();
    fixture.append(&jvol, &[10, 20, 30]).expect("append");
    drop(jvol);
    fixture.scribble(geometry.slot_offset(8), &[0; SLOT as usize]);
    let mut jvol = fixture.open();
    assert_eq!((jvol.torn(), held(&jvol)), (Some(Seq(6)), vec![100, 100, 100, 200, 200]));
    jvol.cut_tail().expect("cut");
    drop(jvol);
    let jvol = fixture.open();
    assert_eq!((jvol.torn(), jvol.pointers().next), (None, Seq(6)));
}

fn damage(fixture: &Fixture) -> (u64, u64, RecordError) {
    match Jvol::open(&fixture.path(), GROUP) {
        Err(JournalError::Damaged { seq, offset, reason, .. }) => (seq.0, offset, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flipped_byte_below_the_watermark_is_damage_with_its_place() {
    let (fixture, geometry) = five();
    let second = place(&geometry, &[100]);
    fixture.flip(second + 77);
    assert_eq!(damage(&fixture), (2, second, RecordError::Checksum));
    fixture.flip(second + 77);
    let slot = geometry.slot_offset(2);
    fixture.flip(slot + 9);
    assert_eq!(damage(&fixture), (2, slot, RecordError::Range("sequence")));
    fixture.flip(slot + 9);
    // a length that is too long but possible shifts all that follow
    fixture.flip(slot + 36);
    assert_eq!(damage(&fixture), (2, second, RecordError::Checksum));
    fixture.flip(slot + 36);
    assert_eq!(held(&fixture.open()), [100, 100, 100, 200, 200]);
}

#[test]
fn damage_far_below_the_end_is_found_by_reading() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    for _ in 0..3000 {
        fixture.append(&jvol, &[4096]).expect("append");
    }
    let place = place(&jvol.geometry(), &[4096]);
    let length = jvol.geometry().slot_offset(2) + 36;
    jvol.close().expect("close");
    // numbers and lengths are compared all the way
    fixture.flip(length);
    assert_eq!(damage(&fixture), (2, place, RecordError::Checksum));
    fixture.flip(length);
    fixture.flip(place + 3000);
    let jvol = fixture.open();
    let mut records = jvol.read(Seq(1), Seq(3000)).expect("read");
    records.next().expect("there").expect("the first is whole");
    match records.next().expect("an error") {
        Err(JournalError::Damaged { seq, offset, reason, .. }) => {
            assert_eq!((seq, offset, reason), (Seq(2), place, RecordError::Checksum));
        }
        other => panic!("{other:?}"),
    }
    assert!(records.next().is_none());
    assert!(jvol.read(Seq(3), Seq(3000)).expect("read").next().expect("there").is_ok());
}

#[test]
fn everything_beyond_the_watermark_is_compared_however_much_it_is() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    for _ in 0..3000 {
        fixture.append(&jvol, &[4096]).expect("append");
    }
    let place = place(&jvol.geometry(), &[4096; 4]);
    drop(jvol);
    fixture.flip(place + 3000);
    let mut jvol = fixture.open();
    assert_eq!(jvol.torn(), Some(Seq(5)));
    jvol.cut_tail().expect("cut");
    for _ in 0..2000 {
        fixture.append(&jvol, &[50]).expect("append");
    }
    // positions known before the cut must not lead astray
    let mut records = jvol.read(Seq(1500), Seq(1500)).expect("read");
    assert!(records.next().expect("there").is_ok());
    assert_eq!(held(&jvol).len(), 2004);
}

#[test]
fn records_lost_below_the_watermark_are_damage_not_an_end() {
    let (fixture, geometry) = five();
    fixture.scribble(geometry.slot_offset(3), &[0; 3 * SLOT as usize]);
    assert_eq!(damage(&fixture), (3, geometry.slot_offset(3), RecordError::Range("sequence")));
}

#[test]
fn what_is_not_ours_is_refused_by_name() {
    let (fixture, geometry) = five();
    let other = Jvol::open(&fixture.path(), Uuid::from_u128(1));
    assert!(matches!(other, Err(JournalError::OtherGroup { found: GROUP, .. })));

    let file = OpenOptions::new().write(true).open(fixture.path()).expect("open the file");
    file.set_len(geometry.size - 1).expect("truncate");
    let cut = Jvol::open(&fixture.path(), GROUP);
    assert!(matches!(cut, Err(JournalError::Truncated { found, wanted, .. }) if found + 1 == wanted));
    file.set_len(100).expect("truncate");
    assert!(matches!(Jvol::open(&fixture.path(), GROUP), Err(JournalError::Foreign(_))));
    file.set_len(geometry.size).expect("extend");
    fixture.scribble(0, &[0; 2 * PAGE as usize]);
    assert!(matches!(Jvol::open(&fixture.path(), GROUP), Err(JournalError::Foreign(_))));
}

#[test]
fn another_version_is_told_before_anything_else_is_believed() {
    let fixture = Fixture::new();
    let mut newer = Superblock::new(GROUP, JvolGeometry::new(SIZE)).encode();
    newer[8..12].copy_from_slice(&2_u32.to_le_bytes());
    newer[12..16].fill(0);
    newer[100] = 0xff;
    let checksum = checksum::crc32c(&newer);
    newer[12..16].copy_from_slice(&checksum.to_le_bytes());
    fixture.scribble(PAGE, &newer);
    assert!(matches!(Jvol::open(&fixture.path(), GROUP), Err(JournalError::Version { found: 2, wanted: 1, .. })));
}

fn read(fixture: &Fixture, offset: u64) -> Vec<u8> {
    let bytes = std::fs::read(fixture.path()).expect("read the file");
    bytes[offset as usize..(offset + PAGE) as usize].to_vec()
}

fn writes_to(jvol: &Jvol) -> u64 {
    jvol.flusher.lock().writer.as_ref().expect("nobody flushes").slot as u64 * PAGE
}

#[test]
fn one_superblock_is_enough_and_none_is_damage() {
    let (fixture, _) = five();
    for broken in [0, PAGE] {
        // both whole: the one that counts may not be on the disk yet, and is the one to be written again
        let counts =
            Superblock::choose(&fixture.path(), [&read(&fixture, 0), &read(&fixture, PAGE)]).expect("valid").slot;
        assert_eq!(writes_to(&fixture.open()), counts as u64 * PAGE);
        fixture.flip(broken + 40);
        let jvol = fixture.open();
        assert_eq!(held(&jvol), [100, 100, 100, 200, 200]);
        assert_eq!(writes_to(&jvol), broken, "over the only whole one");
        jvol.close().expect("close");
        let repaired = fixture.open();
        assert_eq!(repaired.pointers().durable, Seq(5));
        fixture.flip(PAGE - broken + 40);
        assert_eq!(held(&fixture.open()), [100, 100, 100, 200, 200]);
        fixture.flip(PAGE - broken + 40);
    }
    fixture.flip(40);
    fixture.flip(PAGE + 40);
    assert_eq!(damage(&fixture), (0, 0, RecordError::Checksum));
}

#[test]
fn an_impossible_superblock_is_not_believed() {
    let geometry = JvolGeometry::new(SIZE);
    let good = Superblock::new(GROUP, geometry);
    for bad in [
        Superblock { out: 0, ..good.clone() },
        Superblock { durable: u64::MAX, ..good.clone() },
        Superblock { out: 9, ..good.clone() },
        Superblock { durable: geometry.control_slots + 1, ..good.clone() },
        Superblock { durable_position: geometry.data_size + 1, ..good.clone() },
        Superblock { geometry: JvolGeometry { data_size: 8, ..geometry }, ..good.clone() },
        Superblock { geometry: JvolGeometry::new(4096 * 8), ..good.clone() },
    ] {
        let fixture = Fixture::new();
        fixture.scribble(0, &bad.encode());
        fixture.scribble(PAGE, &bad.encode());
        assert_eq!(damage(&fixture), (0, 0, RecordError::Checksum), "{bad:?}");
    }
}
