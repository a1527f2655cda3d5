use std::borrow::Cow;
use std::fs;
use std::io::Write;

use super::*;

const SUSPENSION: Suspension =
    Suspension { reason: Reason::JournalFull, seq: Seq(77), time: Timestamp(-5_000_000_000) };

fn id(ino: u64) -> FileId {
    FileId { ino, generation: 9 }
}

fn write(ino: u64, offset: u64, length: usize) -> Change<'static> {
    let mtime = FileTime::default();
    Change::Write { file: id(ino), offset, data: Cow::Owned(vec![1; length]), size: 0, mtime }
}

fn set_size(ino: u64, size: u64) -> Change<'static> {
    Change::SetSize { file: id(ino), size, mtime: FileTime::default() }
}

#[test]
fn a_map_comes_back_as_it_was_and_an_entry_cut_short_is_left_out() {
    let state = tempfile::tempdir().expect("a directory");
    assert!(DirtyMap::load(state.path()).expect("none").is_none());
    let mut map = DirtyMap::reserve(state.path()).and_then(|place| place.begin(SUSPENSION)).expect("a map");
    for change in [write(1, UNIT - 1, 2), write(1, 0, 1), write(2, 0, 10), set_size(2, UNIT + 1), write(3, 5 * UNIT, 1)]
    {
        map.note(&change).expect("noted");
    }
    map.note(&set_size(3, 4 * UNIT)).expect("noted");
    map.note(&write(3, 6 * UNIT, 1)).expect("after the cut everything is dirty already");
    let length = fs::metadata(&map.path).expect("the log").len();
    OpenOptions::new().append(true).open(&map.path).and_then(|mut log| log.write_all(&[7; 5])).expect("torn");
    let again = DirtyMap::load(state.path()).expect("readable").expect("there");
    assert_eq!((again.suspension, &again.objects), (SUSPENSION, &map.objects));
    assert_eq!(fs::metadata(&map.path).expect("the log").len(), length);
    assert_eq!(again.objects[&id(1)], Dirt { units: [0, 1].into(), cut: None });
    assert_eq!(again.objects[&id(2)], Dirt { units: [0].into(), cut: Some(UNIT + 1) });
    assert_eq!(again.objects[&id(3)], Dirt { units: [].into(), cut: Some(4 * UNIT) });
    assert_eq!(again.counts(), DirtyCounts { directories: 0, objects: 3, bytes: 3 * UNIT });
    again.remove().expect("removed");
    assert!(suspension(state.path()).expect("none").is_none());
}

#[test]
fn what_is_dirty_already_is_not_written_again() {
    let state = tempfile::tempdir().expect("a directory");
    let mut map = DirtyMap::reserve(state.path()).and_then(|place| place.begin(SUSPENSION)).expect("a map");
    for _ in 0..3 {
        map.note(&write(1, 3 * UNIT, 100)).expect("noted");
        map.note(&set_size(2, 10)).expect("noted");
        map.note(&set_size(2, 20)).expect("noted");
    }
    assert_eq!(fs::metadata(&map.path).expect("the log").len() as usize, 3 * ENTRY);
}

#[test]
fn a_bent_entry_is_noticed() {
    let state = tempfile::tempdir().expect("a directory");
    let mut map = DirtyMap::reserve(state.path()).and_then(|place| place.begin(SUSPENSION)).expect("a map");
    map.note(&write(1, 0, 1)).expect("noted");
    let mut bytes = fs::read(&map.path).expect("the log");
    bytes[ENTRY + 9] ^= 1;
    fs::write(&map.path, bytes).expect("bent");
    assert!(DirtyMap::load(state.path()).expect("readable").expect("there").torn);
}
