//! Tapes of groups of several volumes: each record under its index, none of a volume that the label does not list.

use crate::support::*;
use reelfs_archive::{BaseWriter, Depth, Label, LabelVolume, SealedTape, TapeError, UpdateWriter};
use reelfs_journal::{
    Change, Digest, Epoch, FileId, MarkerKind, Name, NodeKind, Record, Seq, Tags, Timestamp, VolumeIndex,
};
use uuid::Uuid;

fn volume(index: u16, name: &str) -> LabelVolume {
    LabelVolume::new(VolumeIndex(index), name.parse().expect("a name"))
}

fn of_volume(mut record: Record<'static>, index: u16) -> Record<'static> {
    record.volume = VolumeIndex(index);
    record
}

fn writer(volumes: Vec<LabelVolume>) -> UpdateWriter<Vec<u8>> {
    let label = Label::update(group(), GROUP, before(0, Digest::ZERO), write_record(1, 5).time, volumes);
    UpdateWriter::new(Vec::new(), label, OPTIONS).expect("a writer")
}

fn marker(kind: MarkerKind) -> Record<'static> {
    let (name, note, since) = (String::new(), String::new(), Timestamp(0));
    let change = Change::Marker { kind, epoch: Epoch(1), name, note, tags: Tags::default(), since };
    Record { change, ..write_record(1, 0) }
}

#[test]
fn an_update_tape_takes_records_of_the_volumes_on_its_label_and_no_others() {
    let give = |volumes, record: Record<'_>| {
        let (control, data) = record_bytes(&record);
        writer(volumes).record(&control, &data)
    };
    let both = || vec![volume(0, "data"), volume(1, "web")];
    assert!(give(both(), of_volume(write_record(1, 5), 1)).is_ok());
    assert!(matches!(give(both(), of_volume(write_record(1, 5), 2)), Err(TapeError::Unfit(_))));
    assert!(matches!(give(vec![volume(1, "web")], write_record(1, 5)), Err(TapeError::Unfit(_))));
    // a named point is of the whole group and carries 0
    assert!(give(vec![volume(1, "web")], marker(MarkerKind::Named)).is_ok());
}

#[test]
fn a_tape_of_two_volumes_verifies_and_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut writer = writer(vec![volume(0, "data"), volume(7, "web")]);
    for seq in 1..=4 {
        let (control, data) = record_bytes(&of_volume(write_record(seq, 9), if seq % 2 == 0 { 7 } else { 0 }));
        writer.record(&control, &data).expect("a record");
    }
    let sealed = writer.seal(Timestamp(i64::MAX)).expect("a tape");
    let tape = SealedTape::open(file_with(directory.path(), &sealed.out)).expect("a tape");
    assert_eq!(tape.head().label.volumes, [volume(0, "data"), volume(7, "web")]);
    let tape = tape.verify(Depth::Records, &mut |_| {}).expect("a good tape");
    let volumes: Vec<u16> =
        tape.controls().map(|control| Record::peek_volume(&control.expect("control data")).0).collect();
    assert_eq!(volumes, [0, 7, 0, 7]);
}

#[test]
fn the_records_of_a_base_tape_carry_the_index_of_its_volume() {
    let directory = tempfile::tempdir().expect("a directory");
    let label = Label::base(group(), GROUP, Epoch(1), Uuid::from_u128(7), Seq(5), TIME, volume(3, "web"));
    let mut writer = BaseWriter::new(Vec::new(), label, OPTIONS).expect("a writer");
    let entry = Change::Entry {
        parent: FileId::NONE,
        name: Name::new(b"root").expect("a name"),
        file: FileId { ino: 2, generation: 0 },
        kind: NodeKind::Directory,
        attributes: reelfs_journal::Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Default::default() },
        xattrs: Vec::new(),
        size: 0,
    };
    writer.entry(&entry).expect("an entry");
    let sealed = writer.seal(TIME).expect("a tape");
    let tape = SealedTape::open(file_with(directory.path(), &sealed.out)).expect("a tape");
    let tape = tape.verify(Depth::Records, &mut |_| {}).expect("a good tape");
    let volumes: Vec<u16> =
        tape.controls().map(|control| Record::peek_volume(&control.expect("control data")).0).collect();
    assert_eq!(volumes, [3]);
}
