//! Update tapes: what is written is what is read, damage is noticed, stock tools open them.

use std::fs::{self, File};

use crate::support::*;
use proptest::prelude::*;
use reelfs_archive::{Depth, SealedTape, TapeError, TapeKind, VerifiedTape};
use reelfs_journal::{Digest, Record, Seq};

fn verified(file: File) -> Result<VerifiedTape, TapeError> {
    SealedTape::open(file)?.verify(Depth::Records, &mut |_| {})
}

fn read_back(tape: &VerifiedTape, from: Seq) -> Vec<Record<'static>> {
    let mut records = tape.records(from).expect("records");
    let mut found = Vec::new();
    while let Some(raw) = records.next().expect("a record") {
        found.push(raw.decode().expect("a record").into_owned());
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        lengths in proptest::collection::vec(prop_oneof![0usize..200, 3000usize..70_000, Just(1 << 20)], 1..40),
        first in 1u64..1_000_000,
        from in 0usize..40,
    ) {
        let directory = tempfile::tempdir().expect("a directory");
        let records: Vec<_> = lengths.iter().zip(first..).map(|(length, seq)| write_record(seq, *length)).collect();
        let start = before(first - 1, Digest([3; 32]));
        let sealed = write_update(&records, start, Vec::new());
        let tape = verified(file_with(directory.path(), &sealed.out)).expect("a good tape");
        prop_assert_eq!(tape.head().name(), sealed.name.clone());
        prop_assert_eq!(tape.head().root, sealed.root);
        prop_assert_eq!(sealed.bytes, sealed.out.len() as u64);

        let from = from.min(records.len());
        prop_assert_eq!(&read_back(&tape, Seq(first + from as u64))[..], &records[from..]);
        let controls: Vec<_> = tape.controls().map(|control| control.expect("control data")).collect();
        let wanted: Vec<_> = records.iter().map(|record| record_bytes(record).0).collect();
        prop_assert_eq!(controls, wanted);

        let mut digest = start.digest;
        for record in &records[..from] {
            let (control, data) = record_bytes(record);
            digest = digest.chain(&control, &data);
        }
        prop_assert_eq!(tape.position_at(Seq(first + from as u64 - 1)).expect("a position").digest, digest);
    }
}

#[test]
fn many_chunks_are_read_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let records: Vec<_> =
        (1..=70_000).map(|seq| write_record(seq, usize::try_from(seq % 90).expect("small"))).collect();
    let sealed = write_update(&records, before(0, Digest::ZERO), Vec::new());
    assert!(sealed.index.chunks.len() >= 3, "{}", sealed.index.chunks.len());
    let tape = verified(file_with(directory.path(), &sealed.out)).expect("a good tape");
    assert!(read_back(&tape, Seq(1)) == records);
    assert!(read_back(&tape, Seq(65_537)) == records[65_536..]);
    assert_eq!(tape.controls().count(), 70_000);
    assert!(tape.records(Seq(0)).is_err() && tape.records(Seq(70_002)).is_err());
}

#[test]
fn a_record_out_of_order_is_refused() {
    let label = reelfs_archive::Label::update(
        group(),
        GROUP,
        before(4, Digest::ZERO),
        TIME,
        vec![reelfs_archive::LabelVolume::only()],
    );
    let mut writer = reelfs_archive::UpdateWriter::new(Vec::new(), label, OPTIONS).expect("a writer");
    let (control, data) = record_bytes(&write_record(6, 10));
    let error = writer.record(&control, &data).expect_err("5 comes first");
    assert!(matches!(error, TapeError::Order { expected: Seq(5), found: Seq(6) }), "{error}");
    let (control, data) = record_bytes(&write_record(5, 10));
    assert!(writer.record(&control, &data[1..]).is_err(), "shorter than announced");
    assert!(matches!(writer.seal(TIME), Err(TapeError::Empty)));
}

#[test]
fn cuts_and_flips_are_noticed() {
    let directory = tempfile::tempdir().expect("a directory");
    let records: Vec<_> = (1..=20).map(|seq| write_record(seq, 150)).collect();
    let sealed = write_update(&records, before(0, Digest::ZERO), Vec::new());
    assert_eq!(sealed.name.kind, TapeKind::Update);
    every_damage_is_noticed(directory.path(), &sealed.out, TapeKind::Update);
}

#[test]
fn a_file_that_is_none_is_no_tape() {
    let directory = tempfile::tempdir().expect("a directory");
    for bytes in [&b""[..], b"hello", &[0; 100_000]] {
        assert!(matches!(SealedTape::open(file_with(directory.path(), bytes)), Err(TapeError::NotATape)));
    }
}

#[test]
fn stock_tools_list_and_test_it() {
    if !have(&["tar", "bsdtar", "zstd"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let records: Vec<_> = (1..=2000).map(|seq| write_record(seq, 9000)).collect();
    let sealed = write_update(&records, before(0, Digest::ZERO), Vec::new());
    let path = directory.path().join(sealed.name.to_string());
    fs::write(&path, &sealed.out).expect("a tape");
    let gnu = quiet_shell("tar --zstd -tf $1", &[&path]);
    assert_eq!(gnu, quiet_shell("bsdtar -tf $1", &[&path]));
    assert_eq!(gnu, quiet_shell("zstd -dc $1 | tar -tf -", &[&path]));
    assert!(gnu.starts_with("README.txt\nreelfs/label.json\nreelfs/control/000000000000001.ctl\n"), "{gnu}");
    assert!(gnu.ends_with("reelfs/index.json\nreelfs/root.b3\n"), "{gnu}");
    quiet_shell("zstd -tq $1", &[&path]);
    assert_eq!(sealed.bytes % 262_144, 0, "whole tape records");

    let extracted = directory.path().join("out");
    fs::create_dir(&extracted).expect("a directory");
    quiet_shell("tar --zstd -xf $1 -C $2", &[&path, &extracted]);
    let readme = fs::read_to_string(extracted.join("README.txt")).expect("a README");
    assert!(readme.contains("This is a reelfs tape") && readme.is_ascii());
    assert_eq!(&sealed.out[10 + 512..10 + 512 + readme.len()], readme.as_bytes(), "readable without zstd");

    let cut = directory.path().join("cut");
    fs::write(&cut, &sealed.out[..sealed.out.len() / 2]).expect("a cut tape");
    let listed = String::from_utf8(shell("tar --zstd -tf $1", &[&cut]).stdout).expect("text");
    assert!(gnu.starts_with(&listed) && listed.contains("reelfs/journal/000000000000001.jd"), "{listed}");
}
