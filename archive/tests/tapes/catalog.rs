//! Catalogs: which tapes are here, in which order, what is missing, what contradicts.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::*;
use reelfs_archive::{
    BaseWriter, Catalog, Chain, Depth, Gap, Label, LabelVolume, Sealed, SealedTape, TapeError, WriteOptions,
};
use reelfs_journal::{Digest, Epoch, Position, Seq, Timestamp};
use uuid::Uuid;

/// Writes the records of a range and gives the position after them.
fn tape(directory: &Path, before: Position, last: u64) -> Sealed<Vec<u8>> {
    let records: Vec<_> = (before.seq.0 + 1..=last).map(|seq| write_record(seq, 100)).collect();
    let sealed = write_update(&records, before, Vec::new());
    fs::write(directory.join(sealed.name.to_string()), &sealed.out).expect("a tape");
    sealed
}

/// Writes a base tape that stands at a record and holds nothing.
fn base(directory: &Path, began: u64) {
    let group = "docs".parse().expect("a group");
    let label = Label::base(
        group,
        GROUP,
        Epoch(1),
        Uuid::from_u128(u128::from(began)),
        Seq(began),
        Timestamp(1),
        LabelVolume::only(),
    );
    let writer = BaseWriter::new(Vec::new(), label, WriteOptions::default()).expect("a writer");
    let sealed = writer.seal(Timestamp(1)).expect("sealed");
    fs::write(directory.join(sealed.name.to_string()), &sealed.out).expect("a tape");
}

fn after(sealed: &Sealed<Vec<u8>>) -> Position {
    sealed.index.after.expect("an update tape")
}

fn ranges(chain: &Chain<'_>) -> Vec<(u64, u64)> {
    chain.updates.iter().map(|tape| (tape.head.first().0, tape.head.last().0)).collect()
}

#[test]
fn order_copies_and_foreign_files_do_not_matter() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = tape(directory.path(), before(0, Digest::ZERO), 10);
    let second = tape(directory.path(), after(&first), 25);
    let third = tape(directory.path(), after(&second), 26);
    fs::write(directory.path().join("copy of a tape"), &second.out).expect("a file");
    fs::write(directory.path().join(".half.part"), &second.out[..100]).expect("a file");
    fs::write(directory.path().join("notes.txt"), b"tapes of the office").expect("a file");
    fs::create_dir(directory.path().join("old")).expect("a directory");
    tape(&directory.path().join("old"), before(0, Digest([9; 32])), 5);

    let one = directory.path().join("old/..").join(third.name.to_string());
    let catalog = Catalog::scan(&[one, directory.path().to_owned()]).expect("a catalog");
    assert_eq!(catalog.tapes().len(), 3, "{:?}", catalog.tapes());
    assert!(catalog.damaged().is_empty(), "{:?}", catalog.damaged());
    assert_eq!(catalog.tapes().iter().map(|tape| tape.copies.len()).sum::<usize>(), 1);
    assert!(catalog.tapes().iter().all(|tape| tape.head.index.frames.is_empty()), "memory");
    let chain = catalog.chain(GROUP, Epoch(1));
    assert_eq!(ranges(&chain), [(1, 10), (11, 25), (26, 26)]);
    assert!(chain.gaps.is_empty() && chain.diverged.is_empty() && chain.bases.is_empty());
    assert_eq!(chain.end(), third.index.after);
    assert_eq!(catalog.groups().len(), 1);
    assert!(catalog.chain(Uuid::from_u128(1), Epoch(1)).updates.is_empty());
    assert!(catalog.chain(GROUP, Epoch(2)).updates.is_empty());
}

#[test]
fn a_missing_tape_is_a_gap() {
    let (directory, aside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = tape(directory.path(), before(0, Digest::ZERO), 10);
    let second = tape(aside.path(), after(&first), 25);
    tape(directory.path(), after(&second), 26);
    let catalog = Catalog::scan(&[directory.path()]).expect("a catalog");
    let chain = catalog.chain(GROUP, Epoch(1));
    assert_eq!(chain.gaps, [Gap { from: Seq(11), to: Seq(25) }]);
    assert!(chain.diverged.is_empty());
}

#[test]
fn other_cuts_of_the_same_history_fill_gaps_without_redundancy() {
    let (directory, aside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = tape(directory.path(), before(0, Digest::ZERO), 10);
    tape(aside.path(), after(&first), 15);
    let second = tape(aside.path(), after(&first), 20);
    tape(directory.path(), after(&second), 30);
    let to_5 = tape(aside.path(), before(0, Digest::ZERO), 5);
    tape(aside.path(), after(&to_5), 12);
    let to_7 = tape(aside.path(), before(0, Digest::ZERO), 7);
    tape(directory.path(), after(&to_7), 22);
    let catalog = Catalog::scan(&[directory.path(), aside.path()]).expect("a catalog");
    assert_eq!(catalog.tapes().len(), 8);
    let chain = catalog.chain(GROUP, Epoch(1));
    assert_eq!(ranges(&chain), [(1, 10), (8, 22), (21, 30)]);
    assert!(chain.gaps.is_empty() && chain.diverged.is_empty());
}

#[test]
fn another_history_is_divergence() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = tape(directory.path(), before(0, Digest::ZERO), 10);
    let fork = Position { digest: Digest([1; 32]), ..after(&first) };
    tape(directory.path(), fork, 20);
    let catalog = Catalog::scan(&[directory.path()]).expect("a catalog");
    let chain = catalog.chain(GROUP, Epoch(1));
    assert_eq!(chain.diverged.len(), 1);
    assert_eq!(chain.diverged[0].seq, Seq(10));
}

#[test]
fn a_gap_after_the_base_tape_is_a_gap() {
    let (directory, aside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    for began in [2, 4] {
        base(directory.path(), began);
    }
    let first = tape(aside.path(), before(0, Digest::ZERO), 10);
    let second = tape(directory.path(), after(&first), 15);
    let gaps = |directories: &[&Path]| {
        let catalog = Catalog::scan(directories).expect("a catalog");
        catalog.chain(GROUP, Epoch(1)).gaps
    };
    assert_eq!(gaps(&[directory.path()]), [Gap { from: Seq(5), to: Seq(10) }]);
    assert_eq!(gaps(&[directory.path(), aside.path()]), []);
    // one that stands right before the first update tape, or later, needs nothing before that one
    base(directory.path(), 10);
    assert_eq!(gaps(&[directory.path()]), []);
    base(directory.path(), 12);
    assert_eq!(gaps(&[directory.path()]), []);
    let third = tape(aside.path(), after(&second), 20);
    tape(directory.path(), after(&third), 25);
    base(directory.path(), 18);
    assert_eq!(gaps(&[directory.path()]), [Gap { from: Seq(16), to: Seq(20) }]);
}

#[test]
fn an_end_within_another_tape_is_held_against_its_records() {
    let (directory, aside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = tape(directory.path(), before(0, Digest::ZERO), 10);
    tape(directory.path(), after(&first), 20);
    let agreements = || -> Vec<(u64, bool)> {
        let catalog = Catalog::scan(&[directory.path(), aside.path()]).expect("a catalog");
        let chain = catalog.chain(GROUP, Epoch(1));
        assert!(chain.diverged.is_empty(), "labels and indexes cannot tell");
        let agrees = |overlap: &reelfs_archive::Overlap<'_>| {
            let file = fs::File::open(&overlap.within.path).expect("a tape");
            let within = SealedTape::open(file).expect("sealed").verify(Depth::Bytes, &mut |_| {}).expect("whole");
            (overlap.position.seq.0, overlap.agrees(&within).expect("readable"))
        };
        chain.overlaps.iter().map(agrees).collect()
    };
    assert_eq!(agreements(), [], "tapes that only touch do not overlap");
    // the same history, cut elsewhere
    let other = tape(aside.path(), before(0, Digest::ZERO), 25);
    assert_eq!(agreements(), [(10, true), (20, true)]);
    fs::remove_file(aside.path().join(other.name.to_string())).expect("removed");
    // other records from 11 on
    let records: Vec<_> = (11..=25).map(|seq| write_record(seq, 101)).collect();
    let fork = write_update(&records, after(&first), Vec::new());
    fs::write(aside.path().join(fork.name.to_string()), &fork.out).expect("a tape");
    assert_eq!(agreements(), [(20, false)]);
}

#[test]
fn a_damaged_tape_is_listed_with_its_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = tape(directory.path(), before(0, Digest::ZERO), 10);
    let path: PathBuf = directory.path().join(first.name.to_string());
    for length in [0, 1, 100, first.out.len() - 1] {
        fs::write(&path, &first.out[..length]).expect("a file");
        let catalog = Catalog::scan(&[directory.path()]).expect("a catalog");
        assert!(catalog.tapes().is_empty());
        let [damaged] = catalog.damaged() else { panic!("{length}: {:?}", catalog.damaged()) };
        assert!(matches!(damaged.error, TapeError::Truncated { .. }), "{length}: {}", damaged.error);
    }
    let mut altered = first.out.clone();
    altered[0] ^= 1;
    fs::write(&path, &altered).expect("a file");
    let catalog = Catalog::scan(&[directory.path()]).expect("a catalog");
    assert!(catalog.damaged()[0].error.is_damage(), "{}", catalog.damaged()[0].error);
    fs::remove_file(&path).expect("removed");
    fs::write(directory.path().join("renamed"), &first.out[..5000]).expect("a file");
    assert_eq!(Catalog::scan(&[directory.path()]).expect("a catalog").damaged().len(), 1);
    let given = Catalog::scan(&[directory.path().join("none")]);
    assert!(matches!(given, Err(TapeError::Io { .. })));
}
