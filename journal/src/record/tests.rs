use std::borrow::Cow;

use uuid::Uuid;

use super::*;
use crate::{AmendOutcome, Attributes, Epoch, FileTime, MarkerKind, Name, NodeKind, Xattr};

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
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&data[..length]), &control);
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
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&data), &zeroed);
    assert_eq!(control[4..8], checksum.to_le_bytes());
}
