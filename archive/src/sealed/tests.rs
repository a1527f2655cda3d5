//! Tapes made by somebody who knows the format and means harm: everything hashes right, and is wrong.

use std::fs::File;
use std::os::unix::fs::FileExt;

use reelfs_journal::{Change, Digest, Epoch, FileId, FileTime, Position, Record, Seq, Timestamp, VolumeIndex};
use uuid::Uuid;

use super::*;
use crate::compress::{FrameSink, Written};
use crate::header::{member, member_header};
use crate::index::{Chunk, Counts, FrameEntry};
use crate::trailer::{raw_frame, tail};
use crate::{Depth, LabelVolume, UpdateWriter, WriteOptions};

const TIME: Timestamp = Timestamp(1_000);

fn label() -> Label {
    let before = Position { epoch: Epoch(1), seq: Seq(0), digest: Digest::ZERO };
    Label::update("docs".parse().expect("a name"), Uuid::from_u128(1), before, TIME, vec![LabelVolume::only()])
}

fn base_label() -> Label {
    Label::base(
        "docs".parse().expect("a name"),
        Uuid::from_u128(1),
        Epoch(1),
        Uuid::from_u128(2),
        Seq(1),
        TIME,
        LabelVolume::only(),
    )
}

fn record(change: Change<'static>, seq: u64) -> ([u8; 64], Vec<u8>) {
    let time = Timestamp(TIME.0 + i64::try_from(seq).expect("small") - 1);
    let record =
        Record { seq: Seq(seq), more: false, time, wall: TIME, uid: 0, pid: 0, volume: VolumeIndex(0), change };
    let encoded = record.encode();
    (*encoded.control(), encoded.data().concat())
}

fn write(seq: u64) -> ([u8; 64], Vec<u8>) {
    let (file, mtime) = (FileId { ino: 2, generation: 0 }, FileTime::default());
    record(Change::Write { file, offset: 0, data: vec![5; 100].into(), size: 100, mtime }, seq)
}

/// A tape put together by hand.
struct Forge {
    label: Label,
    /// Frames between label and index, uncompressed.
    body: Vec<Vec<u8>>,
    index: Index,
    /// Changes the index's text before it is written.
    edit: fn(String) -> String,
    label_name: &'static str,
}

impl Forge {
    /// A good update tape of three records.
    fn update() -> Forge {
        let label = label();
        let (mut control, mut journal, mut digest) = (Vec::new(), Vec::new(), Digest::ZERO);
        for seq in 1..=3 {
            let (head, data) = write(seq);
            digest = digest.chain(&head, &data);
            control.extend_from_slice(&head);
            journal.extend_from_slice(&data);
        }
        let (last_time, bytes) = (Timestamp(TIME.0 + 2), journal.len() as u64);
        let chunk = Chunk { frame: 2, records: 3, bytes, first: Seq(1), last: Seq(3), first_time: TIME, last_time };
        let index = Index {
            tape: label.tape,
            complete: true,
            after: Some(Position { epoch: Epoch(1), seq: Seq(3), digest }),
            sealed: last_time,
            last_time,
            counts: Counts { records: 3, bytes, files: 0, file_bytes: 0 },
            chunks: vec![chunk],
            frames: Vec::new(),
        };
        let body = vec![
            member("reelfs/control/000000000000001.ctl", &control),
            member("reelfs/journal/000000000000001.jd", &journal),
        ];
        Forge { label, body, index, edit: |text| text, label_name: LABEL_NAME }
    }

    /// A base tape without records whose tree is these bytes.
    fn base(tree: Vec<u8>, files: u64) -> Forge {
        let label = base_label();
        let counts = Counts { files, ..Counts::default() };
        let (tape, sealed, last_time) = (label.tape, TIME, TIME);
        let (chunks, frames) = (Vec::new(), Vec::new());
        let index = Index { tape, complete: true, after: None, sealed, last_time, counts, chunks, frames };
        Forge { label, body: vec![tree], index, edit: |text| text, label_name: LABEL_NAME }
    }

    fn write(mut self) -> Vec<u8> {
        let mut sink = FrameSink::new(Vec::new(), 1, 3).expect("a sink");
        let readme = member(crate::readme::NAME, &[b'x'; 300]);
        sink.ready_made(&raw_frame(&readme).expect("a frame"), readme.len()).expect("written");
        let json = serde_json::to_vec(&self.label).expect("JSON");
        sink.write(&member(self.label_name, &json)).expect("written");
        sink.cut().expect("written");
        for frame in &self.body {
            sink.write(frame).expect("written");
            sink.cut().expect("written");
        }
        self.index.frames = sink.drain().expect("written").iter().map(|frame| frame.entry).collect();
        let index_frame = sink.frame_number();
        let json = (self.edit)(serde_json::to_string(&self.index).expect("JSON"));
        sink.write(&member(INDEX_NAME, json.as_bytes())).expect("written");
        sink.cut().expect("written");
        let tail = sealed_tail(sink.drain().expect("written"), index_frame);
        sink.finish(&tail).expect("written").0
    }
}

fn sealed_tail(frames: &[Written], index_frame: u64) -> Vec<u8> {
    let mut hasher = RootHasher::new();
    frames.iter().for_each(|frame| hasher.frame(&frame.entry));
    tail(frames, &Root { digest: hasher.finish(), index_frame }).expect("a tail")
}

fn file(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(bytes, 0).expect("written");
    file
}

fn verify(bytes: &[u8]) -> Result<crate::VerifiedTape, TapeError> {
    SealedTape::open(file(bytes))?.verify(Depth::Records, &mut |_| {})
}

/// The sentence with which it is refused.
fn refusal(forge: Forge) -> String {
    match verify(&forge.write()) {
        Ok(_) => "not refused".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_forged_tape_that_is_right_is_accepted() {
    assert_eq!(refusal(Forge::update()), "not refused");
    assert_eq!(
        refusal(Forge::base(member("base/file", b""), 1)),
        "the tape is malformed: base: a file's bytes are not where its record says"
    );
}

type Lie = fn(&mut Forge);

/// What is changed, and a part of the sentence that refuses it.
const LIES: &[(Lie, &str)] = &[
    (|forge| forge.index.chunks[0].records = 1 << 63, "a control member is out of range"),
    (|forge| forge.index.chunks[0].bytes = 1 << 63, "a control member is out of range"),
    (|forge| forge.index.chunks[0].bytes -= 1, "its counts"),
    (|forge| forge.index.chunks[0].frame = u64::MAX, "do not follow each other"),
    (|forge| forge.index.chunks[0].frame = 3, "do not follow each other"),
    (|forge| forge.index.chunks.clear(), "its counts"),
    (|forge| forge.index.chunks.push(forge.index.chunks[0]), "do not follow each other"),
    (|forge| forge.index.chunks[0].last = Seq(9), "ends with another record"),
    (|forge| forge.index.chunks[0].first = Seq(2), "out of range"),
    (|forge| forge.index.after = None, "its position"),
    (|forge| forge.index.tape = Uuid::nil(), "does not belong to this label"),
    (|forge| forge.index.complete = false, "does not belong to this label"),
    (|forge| forge.index.last_time = TIME, "its times are not those"),
    (|forge| forge.index.sealed = TIME, "its times do not rise"),
    (
        |forge| forge.index.after = forge.index.after.map(|after| Position { seq: Seq(1 << 60), ..after }),
        "its position",
    ),
    (|forge| forge.label.readable_from = 3, "tape format 3"),
    (|forge| forge.label.volumes.clear(), "its volumes"),
    (|forge| forge.label.volumes.push(LabelVolume::only()), "its volumes"),
    (|forge| forge.label.volumes[0].index = VolumeIndex(1), "record 1 is of a volume that the label does not list"),
    (|forge| forge.label.first = Seq(0), "out of range"),
    (|forge| forge.label.first = Seq(2), "position before it"),
    (|forge| forge.label.before = None, "position before it"),
    (|forge| forge.label.part = (1, 2), "parts"),
    (|forge| forge.label.host = "x".repeat(80_000), "too long"),
    (|forge| forge.label_name = "reelfs/Label.json", "not the member that belongs here"),
    (|forge| forge.body[0][512 + 8] ^= 2, "record 3 stands where 1 belongs"),
    (|forge| forge.body[0][0] ^= 1, "not the member that belongs here"),
    (|forge| forge.body[1].push(0), "not as long as its frame"),
    (|forge| forge.edit = |text| text.replace("\"complete\":true", "\"complete\":1"), "index"),
    (|forge| forge.edit = |text| text.replace("\"frames\":[[", "\"frames\":[[1,1,\"00\"],["), "index"),
    (|forge| forge.edit = |text| format!("{text}{}", " ".repeat(1 << 20)), "longer than its tape explains"),
    (|forge| forge.edit = |_| "[".repeat(60_000), "index"),
];

#[test]
fn lengths_and_numbers_that_lie_are_refused() {
    for (at, (lie, sentence)) in LIES.iter().enumerate() {
        let mut forge = Forge::update();
        lie(&mut forge);
        let refusal = refusal(forge);
        assert!(refusal.contains(sentence), "{at}: {refusal}");
    }
}

#[test]
fn a_chain_that_leads_elsewhere_is_refused() {
    let mut forge = Forge::update();
    forge.index.after = Some(Position { epoch: Epoch(1), seq: Seq(3), digest: Digest([4; 32]) });
    assert!(refusal(forge).contains("do not lead to the position"));
}

#[test]
fn entries_outside_the_tree_are_refused() {
    let link = |name: &str, target: &str| {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let unsized_directory = |name: &str| {
        let mut header = tar::Header::from_byte_slice(&member_header(name, 0)).clone();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    assert_eq!(refusal(Forge::base(unsized_directory("base/dir/"), 1)), "not refused");
    assert_eq!(refusal(Forge::base(link("base/a", "base/b"), 1)), "not refused");
    for tree in [
        unsized_directory("base/../../etc/"),
        unsized_directory("/base/dir"),
        unsized_directory("base//dir"),
        unsized_directory("reelfs/label.json"),
        unsized_directory("based"),
        link("base/a", "../etc/shadow"),
        link("base/a", "/etc/shadow"),
    ] {
        assert!(refusal(Forge::base(tree, 1)).contains("outside `base`"));
    }
    assert!(refusal(Forge::base(unsized_directory("base/dir/"), 2)).contains("number of entries"));
    let mut unknown = tar::Header::from_byte_slice(&link("base/a", "")).clone();
    unknown.set_entry_type(tar::EntryType::GNUSparse);
    unknown.set_cksum();
    assert!(refusal(Forge::base(unknown.as_bytes().to_vec(), 1)).contains("never written"));
    assert!(refusal(Forge::base(vec![1; 512], 1)).contains("not one"));
    assert!(refusal(Forge::base(vec![1; 100], 1)).contains("cut off"));
    let mut altered = member_header("base/file", 0);
    altered[156] = b'x';
    assert!(refusal(Forge::base(altered.to_vec(), 1)).contains("not one"));
}

fn packed(raw: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    zstd_safe::compress(&mut packed, raw, 19).expect("compressed");
    packed
}

/// A tape of which one journal frame is these bytes instead, and everything else says so.
fn with_journal_frame(replace: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let forge = Forge::update();
    let mut index = forge.index.clone();
    let good = forge.write();
    let tape = SealedTape::open(file(&good)).expect("a good tape");
    let mut frames: Vec<(Vec<u8>, u32)> = Vec::new();
    for frame in 0..tape.frames.digests.len() as u64 {
        let mut bytes = Vec::new();
        tape.frames.read(frame, &mut bytes).expect("a frame");
        frames.push((bytes, tape.frames.span(frame).expect("a frame").raw));
    }
    frames[3].0 = replace(&frames[3].0);
    let written = |frames: &[(Vec<u8>, u32)]| -> Vec<Written> {
        let entry = |(packed, raw): &(Vec<u8>, u32)| Written {
            entry: FrameEntry(packed.len() as u32, *raw, Digest(*blake3::hash(packed).as_bytes())),
            check: *packed.last_chunk().expect("4 bytes"),
        };
        frames.iter().map(entry).collect()
    };
    index.frames = written(&frames[..4]).iter().map(|frame| frame.entry).collect();
    let text = member(INDEX_NAME, &serde_json::to_vec(&index).expect("JSON"));
    frames[4] = (packed(&text), text.len() as u32);
    let mut bytes: Vec<u8> = frames.iter().flat_map(|(packed, _)| packed.clone()).collect();
    bytes.extend(sealed_tail(&written(&frames), 4));
    bytes
}

#[test]
fn a_frame_that_is_not_what_it_says_is_refused() {
    assert!(verify(&with_journal_frame(<[u8]>::to_vec)).is_ok());
    let bomb = packed(&vec![0; 200 << 20]);
    assert!(bomb.len() < 30_000);
    let empty = packed(&[]);
    for bytes in [
        with_journal_frame(|_| bomb.clone()),
        with_journal_frame(|good| [good, &empty].concat()),
        with_journal_frame(|_| packed(&[7; 100])),
        with_journal_frame(|_| vec![0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]),
    ] {
        // all digests are right: only unpacking shows it
        let tape = SealedTape::open(file(&bytes)).expect("opens");
        let tape = tape.verify(Depth::Bytes, &mut |_| {}).expect("bytes are right");
        let mut records = tape.records(Seq(1)).expect("records");
        let error = records.next().map(|_| ()).expect_err("not what it says");
        assert!(matches!(error, TapeError::Malformed { .. }), "{error}");
        assert!(verify(&bytes).is_err());
    }
}

#[test]
fn a_seek_table_that_lies_is_refused() {
    let good = Forge::update().write();
    let table = good.len() - 9 - 7 * 12;
    for (at, value) in
        [(good.len() - 9, u32::MAX), (good.len() - 9, 6), (table, u32::MAX), (table + 4, u32::MAX), (table + 16, 0)]
    {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert!(SealedTape::open(file(&bytes)).is_err(), "{at}");
    }
    let mut bytes = good.clone();
    let begin = table - 8;
    bytes.splice(begin..begin, *b"between frames");
    let error = SealedTape::open(file(&bytes)).map(|_| ()).expect_err("bytes that no frame holds");
    assert!(matches!(error, TapeError::Altered { .. }), "{error}");
}

#[test]
fn a_file_that_changes_after_it_was_verified_is_noticed() {
    let (control, data) = write(1);
    let mut writer = UpdateWriter::new(Vec::new(), label(), WriteOptions::default()).expect("a writer");
    writer.record(&control, &data).expect("a record");
    let bytes = writer.seal(TIME).expect("a tape").out;
    let file = file(&bytes);
    let tape = SealedTape::open(file.try_clone().expect("a file")).expect("a tape");
    let tape = tape.verify(Depth::Records, &mut |_| {}).expect("a good tape");
    let journal = tape.records(Seq(1)).and_then(|mut records| records.next().map(|record| record.is_some()));
    assert!(journal.expect("a record"));
    let changed: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    file.write_all_at(&changed, 0).expect("written");
    let error = tape.records(Seq(1)).and_then(|mut records| records.next().map(|_| ())).expect_err("changed");
    assert!(matches!(error, TapeError::Altered { frame: 2, .. }), "{error}");
    assert!(tape.controls().any(|control| control.is_err()));
}
