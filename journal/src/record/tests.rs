use std::borrow::Cow;

use uuid::Uuid;

use super::*;
use crate::{Active, AmendOutcome, Attributes, Epoch, FileTime, MarkerKind, Name, NodeKind, Tags, Xattr};

fn record(change: Change<'_>) -> Record<'_> {
    Record {
        seq: Seq(7),
        more: true,
        time: Timestamp(1_700_000_000_123_456_789),
        wall: Timestamp(-5),
        uid: 1000,
        pid: 42,
        volume: VolumeIndex(3),
        change,
    }
}

const FILE: FileId = FileId { ino: 11, generation: 0xA0B0_C0D0 };
const MTIME: FileTime = FileTime { seconds: -2, nanos: 999_999_999 };

fn active() -> Vec<Active> {
    vec![
        Active::Names { directory: 2 },
        Active::Attributes { object: 258 },
        Active::Bytes { file: 11, first: 3, units: 4 },
    ]
}

fn changes() -> Vec<Change<'static>> {
    let name = Name::new(b"caf\xe9").expect("a legal name");
    let attributes = Attributes { mode: 0o4755, uid: 1, gid: 2, mtime: MTIME };
    let xattrs = vec![Xattr { name: b"user.a".to_vec(), value: b"x\ny".to_vec() }];
    let parent = FileId { ino: 2, generation: 1 };
    let mut changes = vec![
        Change::Write { file: FILE, offset: 4096, data: Cow::Borrowed(b"hello"), size: 4101, mtime: MTIME },
        Change::SetSize { file: FILE, size: 9, mtime: MTIME },
        Change::Zero { file: FILE, offset: 1, length: 2, size: 3, mtime: MTIME },
        Change::Punch { file: FILE, offset: 1, length: 2, mtime: MTIME },
        Change::Allocate { file: FILE, offset: 1, length: 2, size: 3, mtime: MTIME },
        Change::Link { file: FILE, parent, name: name.clone(), parent_mtime: MTIME },
        Change::Unlink { file: FILE, parent, name: name.clone(), parent_mtime: MTIME },
        Change::Rename {
            file: FILE,
            parent,
            name: name.clone(),
            new_parent: FILE,
            new_name: name.clone(),
            replaced: FileId::NONE,
            flags: 2,
            parent_mtime: MTIME,
        },
        Change::Drop { file: FILE },
        Change::SetAttr { file: FILE, attributes },
        Change::SetXattr { file: FILE, xattr: xattrs[0].clone() },
        Change::RemoveXattr { file: FILE, name: b"user.a".to_vec() },
        Change::Sync { file: FILE },
        Change::Active { entries: active() },
        Change::Amend { amended: Seq(6), outcome: AmendOutcome::Void },
        Change::Amend { amended: Seq(6), outcome: AmendOutcome::Short { length: 3, size: 8 } },
        Change::BaseBegin { base: Uuid::from_u128(5), root: FILE },
        Change::BaseData { file: FILE, stream_offset: 512, stream_length: 7, size: 9 },
        Change::BaseEnd { base: Uuid::from_u128(5), began: Seq(3), digest: [9; 32] },
        Change::ListBegin { directory: FILE },
        Change::ListEnd { directory: FILE },
        Change::Marker {
            kind: MarkerKind::Named,
            epoch: Epoch(1),
            name: "before".into(),
            note: "pg 17".into(),
            tags: Tags::default(),
            since: Timestamp(1),
        },
    ];
    for kind in [
        NodeKind::File,
        NodeKind::Directory,
        NodeKind::Symlink(b"../x".to_vec()),
        NodeKind::Fifo,
        NodeKind::Socket,
        NodeKind::CharDevice(1 << 32 | 3),
        NodeKind::BlockDevice(8 << 32),
    ] {
        let (name, xattrs) = (name.clone(), xattrs.clone());
        changes.push(Change::Create {
            parent,
            name: name.clone(),
            file: FILE,
            kind: kind.clone(),
            attributes,
            xattrs: xattrs.clone(),
            parent_mtime: MTIME,
        });
        changes.push(Change::Entry { parent, name, file: FILE, kind, attributes, xattrs, size: 77 });
    }
    changes
}

#[test]
fn every_kind_survives_its_bytes() {
    for change in changes() {
        let record = record(change);
        let encoded = record.encode();
        let data = encoded.data().concat();
        assert_eq!(Record::data_len(encoded.control()), Ok(data.len()));
        assert_eq!(Record::decode(encoded.control(), &data), Ok(record.clone()), "{}", record.change.verb());
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for change in changes() {
        let record = record(change);
        let encoded = record.encode();
        let whole: Vec<u8> = [encoded.control().as_slice(), encoded.data()[0], encoded.data()[1]].concat();
        for bit in 0..whole.len() * 8 {
            let mut bent = whole.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let (control, data) = bent.split_at(CONTROL_LEN);
            let control: &[u8; CONTROL_LEN] = control.try_into().expect("64 bytes");
            assert!(Record::decode(control, data).is_err(), "{} bit {bit}", record.change.verb());
        }
    }
}

#[test]
fn every_truncation_is_noticed_even_with_a_matching_checksum() {
    for change in changes() {
        let record = record(change);
        let encoded = record.encode();
        let data = encoded.data().concat();
        for length in PREFIX_LEN..data.len() {
            let mut control = *encoded.control();
            control[36..40].copy_from_slice(&u32::try_from(length).expect("small").to_le_bytes());
            control[4..8].fill(0);
            let checksum = checksum::crc32c_append(checksum::crc32c(&data[..length]), &control);
            control[4..8].copy_from_slice(&checksum.to_le_bytes());
            assert!(Record::decode(&control, &data[..length]).is_err(), "{} at {length}", record.change.verb());
        }
    }
}

/// The table of docs/FORMAT-journal.md, byte for byte.
#[test]
fn golden_bytes() {
    let record = record(changes().remove(0));
    let encoded = record.encode();
    let control = encoded.control();
    assert_eq!(control[..4], [1, 1, 3, 0]);
    assert_eq!(control[8..16], 7u64.to_le_bytes());
    assert_eq!(control[16..24], 1_700_000_000_123_456_789i64.to_le_bytes());
    assert_eq!(control[24..32], 11u64.to_le_bytes());
    assert_eq!(control[32..36], 0xA0B0_C0D0u32.to_le_bytes());
    assert_eq!(control[36..40], 33u32.to_le_bytes());
    assert_eq!(control[40..48], 4096u64.to_le_bytes());
    assert_eq!(control[48..56], 5u64.to_le_bytes());
    assert_eq!(control[56..64], 4101u64.to_le_bytes());
    let data = encoded.data().concat();
    assert_eq!(data[..8], (-5i64).to_le_bytes());
    assert_eq!(data[8..16], [0xE8, 3, 0, 0, 42, 0, 0, 0]);
    assert_eq!(data[16..28], [(-2i64).to_le_bytes().as_slice(), &999_999_999u32.to_le_bytes()].concat());
    assert_eq!(&data[28..], b"hello");
    let mut zeroed = *control;
    zeroed[4..8].fill(0);
    let checksum = checksum::crc32c_append(checksum::crc32c(&data), &zeroed);
    assert_eq!(control[4..8], checksum.to_le_bytes());
}

#[test]
fn golden_bytes_of_what_is_active() {
    let active = record(Change::Active { entries: active() });
    let encoded = active.encode();
    assert_eq!(encoded.control()[..4], [50, 1, 3, 0]);
    assert_eq!(encoded.control()[24..36], [0; 12]);
    assert_eq!(encoded.control()[40..], [0; 24]);
    let data = encoded.data().concat();
    let zeros = [0; 7].as_slice();
    let parts: [&[u8]; 10] =
        [&[3, 0], &[0, 2], zeros, &[1, 2, 1], &zeros[1..], &[2, 11], zeros, &[3], zeros, &[4, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(data[PREFIX_LEN..], parts.concat());
    let mut bent = data.clone();
    *bent.last_mut().expect("bytes") = 0x80; // more units than a file can have
    assert!(Record::decode(&sealed(encoded.control(), &bent), &bent).is_err());
}

#[test]
fn a_volume_that_left_is_kind_11_and_carries_its_index() {
    let left = |kind| {
        let (epoch, tags, since) = (Epoch(1), Tags::default(), Timestamp(0));
        record(Change::Marker { kind, epoch, name: String::new(), note: String::new(), tags, since })
    };
    let encoded = left(MarkerKind::VolumeLeft);
    let encoded = encoded.encode();
    assert_eq!(encoded.data()[0][PREFIX_LEN], 11);
    assert_eq!(encoded.control()[..4], [80, 1, 3, 0]);
    assert_eq!(Record::peek_volume(encoded.control()), VolumeIndex(3));
    let concerned = |kind| [0, 3].map(|index| left(kind).concerns(VolumeIndex(index)));
    assert_eq!(concerned(MarkerKind::VolumeLeft), [false, true]);
    assert_eq!(concerned(MarkerKind::AdoptBegin), [false, true]);
    assert_eq!(concerned(MarkerKind::Named), [true, true]);
    assert_eq!(concerned(MarkerKind::EpochStart), [true, true]);
    assert_eq!(concerned(MarkerKind::Quiet), [true, true]);
    assert_eq!(left(MarkerKind::Quiet).encode().data()[0][PREFIX_LEN], 13);
}

#[test]
fn only_what_happens_to_a_volume_is_a_change() {
    let is_change = |change| Record::is_change(record(change).encode().control());
    let file = FileId { ino: 7, generation: 1 };
    assert!(is_change(Change::Punch { file, offset: 0, length: 1, mtime: FileTime::default() }));
    assert!(is_change(Change::Drop { file }));
    assert!(!is_change(Change::Sync { file }));
    assert!(!is_change(marker(&[]).change));
}

fn marker(pairs: &[(&str, &str)]) -> Record<'static> {
    let pairs = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    record(Change::Marker {
        kind: MarkerKind::Named,
        epoch: Epoch(258),
        name: "m".into(),
        note: "no".into(),
        tags: Tags::new(pairs).expect("tags"),
        since: Timestamp(-1),
    })
}

/// Control data whose length and checksum fit journal data made by hand.
fn sealed(control: &[u8; CONTROL_LEN], data: &[u8]) -> [u8; CONTROL_LEN] {
    let mut control = *control;
    control[36..40].copy_from_slice(&u32::try_from(data.len()).expect("small").to_le_bytes());
    control[4..8].fill(0);
    let checksum = checksum::crc32c_append(checksum::crc32c(data), &control);
    control[4..8].copy_from_slice(&checksum.to_le_bytes());
    control
}

/// The bytes of a marker after the prefix, as they were before there were tags.
const MARKER_BEFORE_TAGS: [u8; 24] =
    [0, 2, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, b'm', 2, 0, 0, 0, b'n', b'o'];

#[test]
fn golden_bytes_of_a_marker() {
    let plain = marker(&[]);
    assert_eq!(plain.encode().data().concat()[PREFIX_LEN..], MARKER_BEFORE_TAGS);
    let tagged = marker(&[("by", "cron"), ("a", "")]);
    let encoded = tagged.encode();
    let (data, tags) = (encoded.data().concat(), b"\x02\x02by\x04cron\x01a\x00");
    assert_eq!(data[PREFIX_LEN..], [MARKER_BEFORE_TAGS.as_slice(), tags].concat());
    assert_eq!(Record::decode(encoded.control(), &data), Ok(tagged));
}

#[test]
fn a_marker_of_the_time_before_tags_is_one_without_tags() {
    let tagged = marker(&[("by", "cron"), ("a", "")]);
    let encoded = tagged.encode();
    let data = encoded.data().concat();
    let old = PREFIX_LEN + MARKER_BEFORE_TAGS.len();
    for length in PREFIX_LEN..data.len() {
        let decoded = Record::decode(&sealed(encoded.control(), &data[..length]), &data[..length]).ok();
        assert_eq!(decoded, (length == old).then(|| marker(&[])), "cut at {length}");
    }
}

#[test]
fn tags_that_cannot_be_are_no_record() {
    let encoded = marker(&[]);
    let encoded = encoded.encode();
    let many: Vec<u8> = std::iter::once(33).chain((0..33).flat_map(|key| [1, b'0' + key, 0])).collect();
    for (what, tags) in [
        ("none at all", b"\x00".as_slice()),
        ("an empty key", b"\x01\x00\x01x"),
        ("the same key twice", b"\x02\x01k\x00\x01k\x00"),
        ("no UTF-8", b"\x01\x01k\x01\xff"),
        ("something left", b"\x01\x01k\x00\x00"),
        ("too many", &many),
    ] {
        let data = [&encoded.data().concat(), tags].concat();
        assert!(Record::decode(&sealed(encoded.control(), &data), &data).is_err(), "{what}");
    }
}

#[test]
fn bytes_of_a_base_end_where_files_do() {
    let decoded = |stream_offset, stream_length, size| {
        let change = Change::BaseData { file: FILE, stream_offset, stream_length, size };
        let record = record(change);
        let encoded = record.encode();
        Record::decode(encoded.control(), &encoded.data().concat()).map(|_| ())
    };
    let most = u64::MAX >> 1;
    assert_eq!(decoded(most, 0, most), Ok(()));
    for (offset, length, size) in [(512, u64::MAX - 100, 9), (most, 1, 9), (512, 7, most + 1)] {
        assert!(matches!(decoded(offset, length, size), Err(RecordError::Range(_))), "{offset} {length} {size}");
    }
}
