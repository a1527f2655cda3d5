//! The stream of a base tape: files and control members side by side, files that change or fail.

use std::fs::File;
use std::io;
use std::path::Path;

use reelfs_archive::{
    BaseExtent, BaseFile, BaseWriter, Depth, Label, LabelVolume, SealedTape, TapeError, VerifiedTape,
};
use reelfs_journal::{Attributes, Change, Epoch, FileId, FileTime, Name, NodeKind, Seq};
use uuid::Uuid;

use crate::support::*;

const PLAIN: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: FileTime { seconds: 0, nanos: 0 } };

fn writer(path: &Path) -> BaseWriter<File> {
    let label = Label::base(group(), GROUP, Epoch(1), Uuid::from_u128(7), Seq(5), TIME, LabelVolume::only());
    BaseWriter::new(File::create(path).expect("a file"), label, OPTIONS).expect("a writer")
}

/// Puts a file without holes on the tape.
fn put(
    writer: &mut BaseWriter<File>,
    name: &str,
    size: u64,
    source: &mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> Result<(), TapeError> {
    let (file, kind) = (FileId { ino: size, generation: 0 }, NodeKind::File);
    let path = &[Name::new(name.as_bytes()).expect("a name")];
    let (parent, name) = (FileId::NONE, path[0].clone());
    let entry = Change::Entry { parent, name, file, kind: kind.clone(), attributes: PLAIN, xattrs: vec![], size };
    writer.entry(&entry).expect("an entry");
    let (extents, attributes) = (&[(0, size)], &PLAIN);
    let item = BaseFile { file, path, kind: &kind, attributes, xattrs: &[], size, extents, hard_link: None };
    writer.file(&item, source)
}

fn verified(path: &Path) -> VerifiedTape {
    let tape = SealedTape::open(File::open(path).expect("a tape")).expect("a tape");
    tape.verify(Depth::Records, &mut |_| {}).expect("a good tape")
}

/// The bytes of all files, in order; none may have holes.
fn contents(tape: &VerifiedTape) -> Vec<Vec<u8>> {
    assert_eq!(tape.head().index.counts.file_bytes, contents_with_holes(tape).concat().len() as u64);
    contents_with_holes(tape)
}

fn contents_with_holes(tape: &VerifiedTape) -> Vec<Vec<u8>> {
    let (mut records, mut bytes) = (tape.records(Seq(5)).expect("records"), tape.base_bytes().expect("bytes"));
    let mut all = Vec::new();
    while let Some(raw) = records.next().expect("a record") {
        let change = raw.decode().expect("a record").change;
        let Change::BaseData { stream_offset, stream_length, size, .. } = change else { continue };
        let mut content = vec![0; usize::try_from(size).expect("small")];
        let mut sink = |at: u64, piece: &[u8]| {
            let at = usize::try_from(at).expect("small");
            content[at..at + piece.len()].copy_from_slice(piece);
            Ok(())
        };
        let extent = BaseExtent { stream_offset, stream_length, size };
        bytes.file(extent, &mut sink).expect("bytes");
        all.push(content);
    }
    all
}

#[test]
fn control_members_between_files_do_not_matter() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("tape");
    let mut writer = writer(&path);
    for number in 0..40_000u64 {
        let text = number.to_le_bytes();
        let mut source = |buffer: &mut [u8], at: u64| {
            let at = usize::try_from(at).expect("small");
            buffer.copy_from_slice(&text[at..at + buffer.len()]);
            Ok(buffer.len())
        };
        put(&mut writer, &format!("{number:06}"), 3, &mut source).expect("a file");
    }
    let sealed = writer.seal(TIME).expect("a tape");
    assert!(sealed.index.chunks.len() > 2, "control members lie between the files");
    let tape = verified(&path);
    let wanted: Vec<Vec<u8>> = (0..40_000u64).map(|number| number.to_le_bytes()[..3].to_vec()).collect();
    assert!(contents(&tape) == wanted);
    assert_eq!(tape.controls().count(), 80_000);
    if have(&["tar", "zstd"]) {
        let count = quiet_shell("tar --zstd -tf $1 | grep -c ^base/", &[&path]);
        assert_eq!(count.trim(), "40000");
    }
}

#[test]
fn a_file_that_changes_keeps_its_announced_length() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("tape");
    let mut writer = writer(&path);
    let mut shrinks = |buffer: &mut [u8], at: u64| {
        let left = 6000 - usize::try_from(at).expect("small").min(6000);
        let length = buffer.len().min(left).min(1000);
        buffer[..length].fill(b'x');
        Ok(length)
    };
    put(&mut writer, "shrinks", 10_000, &mut shrinks).expect("a file");
    let mut grows = |buffer: &mut [u8], _| {
        buffer.fill(b'y');
        Ok(buffer.len() + 1)
    };
    put(&mut writer, "grows", 9_000_000, &mut grows).expect("a file");
    writer.seal(TIME).expect("a tape");
    let wanted = [[vec![b'x'; 6000], vec![0; 4000]].concat(), vec![b'y'; 9_000_000]];
    assert!(contents(&verified(&path)) == wanted);
}

/// Pieces that file systems of today do not report: within blocks, touching, past the end, empty.
#[test]
fn pieces_of_any_shape_are_carried() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("tape");
    let mut writer = writer(&path);
    let (size, mut wanted) = (1_000_001u64, vec![0; 1_000_001]);
    let extents = &[(100, 50), (150, 10), (8000, 0), (50_000, 4097), (54_097, 1), (999_990, 500), (2_000_000, 5)];
    for (offset, length) in &extents[..6] {
        let begin = usize::try_from(*offset).expect("small");
        let end = wanted.len().min(begin + usize::try_from(*length).expect("small"));
        wanted[begin..end].fill(b'z');
    }
    let mut source = |buffer: &mut [u8], at: u64| {
        let at = usize::try_from(at).expect("small");
        buffer.copy_from_slice(&wanted[at..at + buffer.len()]);
        Ok(buffer.len())
    };
    let (file, kind) = (FileId { ino: 9, generation: 0 }, NodeKind::File);
    let (path_in, attributes) = (&[Name::new(b"pieces").expect("a name")], &PLAIN);
    let item = BaseFile { file, path: path_in, kind: &kind, attributes, xattrs: &[], size, extents, hard_link: None };
    writer.file(&item, &mut source).expect("a file");
    let sealed = writer.seal(TIME).expect("a tape");
    assert!(sealed.index.counts.file_bytes < 20_000, "holes are left out");
    assert!(contents_with_holes(&verified(&path)) == [wanted.clone()]);
    if have(&["tar", "bsdtar", "zstd"]) {
        for command in ["tar --zstd -xOf $1 base/pieces", "bsdtar -xOf $1 base/pieces"] {
            assert!(shell(command, &[&path]).stdout == wanted, "{command}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_spoils_the_tape() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut writer = writer(&scratch.path().join("tape"));
    let mut broken = |_: &mut [u8], _| Err(io::Error::from_raw_os_error(5));
    let error = put(&mut writer, "broken", 10, &mut broken).expect_err("it cannot be read");
    assert_eq!(error.to_string(), "the bytes of base/broken at 0 cannot be read: Input/output error (os error 5)");
    assert!(matches!(writer.seal(TIME), Err(TapeError::Unfit(_))));
}

#[test]
fn a_base_tape_takes_entries_only() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut writer = writer(&scratch.path().join("tape"));
    let drop = Change::Drop { file: FileId::NONE };
    assert!(matches!(writer.entry(&drop), Err(TapeError::Unfit(_))));
}
