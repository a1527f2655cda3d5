//! Base tapes: what stock tools extract from them is the tree, and so is what our own reader gives.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use reelfs_archive::{BSDTAR_COMMAND, BaseBytes, BaseExtent, Depth, GNU_TAR_COMMAND, SealedTape, TapeKind};
use reelfs_journal::{Change, FileId, Seq};

use crate::plant::{plant, set_mtime};
use crate::support::*;

/// A planted tree, and its tape.
fn spread(scratch: &Path) -> (PathBuf, PathBuf) {
    let (tree, tape) = (scratch.join("tree"), scratch.join("tape.base.reel.tar.zst"));
    fs::create_dir(&tree).expect("a directory");
    plant(&tree);
    let sealed = write_base(&tree, File::create(&tape).expect("a file"));
    assert_eq!(sealed.bytes, fs::metadata(&tape).expect("a file").len());
    (tree, tape)
}

/// Places to try: the temporary directory, and memory.
fn scratches() -> Vec<tempfile::TempDir> {
    let mut found = vec![tempfile::tempdir().expect("a directory")];
    found.extend(tempfile::tempdir_in("/dev/shm"));
    found
}

#[test]
fn the_readme_command_restores_the_tree() {
    if !have(&["tar", "bsdtar", "zstd"]) {
        return;
    }
    for scratch in scratches() {
        let (tree, tape) = spread(scratch.path());
        for (command, is_gnu) in [(GNU_TAR_COMMAND, true), (BSDTAR_COMMAND, false)] {
            let out = scratch.path().join(if is_gnu { "gnu" } else { "bsd" });
            fs::create_dir(&out).expect("a directory");
            let script = command.replace("TAPE", "$1").replace("DIR", "$2");
            let output = shell(&script, &[&tape, &out]);
            let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
            println!("{complaints}");
            assert!(output.status.success(), "{script}: {complaints}");
            if !is_gnu {
                // bsdtar reads a fraction before 1970 the wrong way round
                set_mtime(&out.join("base/large"), -5, 250_000_000);
            }
            assert_same_tree(&tree, &out.join("base"), |_| false);
            let allocated = |name: &str| {
                std::os::unix::fs::MetadataExt::blocks(&fs::metadata(out.join("base").join(name)).expect("a file"))
            };
            assert!(allocated("sparse") < 1000 && allocated("all hole") < 100, "holes stay holes");
        }
    }
}

#[test]
fn both_tools_list_it() {
    if !have(&["tar", "bsdtar", "zstd"]) {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let (tree, tape) = spread(scratch.path());
    let gnu = quiet_shell("tar --zstd -tf $1", &[&tape]);
    let bsd = quiet_shell("bsdtar -tf $1", &[&tape]);
    quiet_shell("zstd -tq $1", &[&tape]);
    let names = objects(&tree).len();
    for (tool, listed) in [("GNU tar", gnu), ("bsdtar", bsd)] {
        assert_eq!(listed.lines().filter(|line| line.starts_with("base/")).count(), names, "{tool}: {listed}");
    }
}

/// Puts the tree together from the records and our own reader, and compares it with the objects that were walked.
fn assert_reads_back(tree: &Path, tape: &Path) {
    let sealed = SealedTape::open(File::open(tape).expect("a tape")).expect("a tape");
    let verified = sealed.verify(Depth::Records, &mut |_| {}).expect("a good tape");
    let mut wanted = objects(tree);
    wanted.reverse();
    let mut records = verified.records(Seq(5)).expect("records");
    let mut bytes = verified.base_bytes().expect("bytes");
    let (mut current, mut held) = (Vec::new(), HashMap::new());
    while let Some(raw) = records.next().expect("a record") {
        match raw.decode().expect("a record").change {
            change @ Change::Entry { .. } => {
                current = wanted.pop().into_iter().collect();
                assert_eq!(change, entry(&current[0], FileId::NONE));
            }
            Change::BaseData { file, stream_offset, stream_length, size } => {
                let object = &current[0];
                assert_eq!((file, size), (object.file, object.size));
                let extent = BaseExtent { stream_offset, stream_length, size };
                assert_same_bytes(&mut bytes, extent, &place(tree, &object.path));
                held.insert(place(tree, &object.path), extent);
            }
            other => panic!("{other:?} on a base tape"),
        }
    }
    assert!(wanted.is_empty());
    // in any other order too
    for (path, extent) in &held {
        assert_same_bytes(&mut bytes, *extent, path);
    }
    assert_eq!(verified.controls().count() as u64, verified.head().index.counts.records);
}

fn assert_same_bytes(bytes: &mut BaseBytes, extent: BaseExtent, path: &Path) {
    let file = File::open(path).expect("a file");
    let mut end = 0;
    let mut data = 0;
    let mut sink = |at: u64, piece: &[u8]| {
        assert!(at >= end, "rising");
        let mut same = vec![0; piece.len()];
        file.read_exact_at(&mut same, at)?;
        assert!(same == piece, "{path:?} at {at}");
        (end, data) = (at + piece.len() as u64, data + piece.len() as u64);
        Ok(())
    };
    bytes.file(extent, &mut sink).expect("bytes");
    if extent.stream_length == extent.size {
        assert_eq!(data, extent.size);
    } else {
        assert!(data <= extent.stream_length && extent.size - data > 4096);
    }
}

#[test]
fn our_reader_gives_the_tree() {
    for scratch in scratches() {
        let (tree, tape) = spread(scratch.path());
        assert_reads_back(&tree, &tape);
    }
}

#[test]
fn cuts_and_flips_are_noticed() {
    let scratch = tempfile::tempdir().expect("a directory");
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).expect("a directory");
    fs::write(tree.join("file"), b"hello").expect("a file");
    symlink("file", tree.join("link")).expect("a link");
    let sealed = write_base(&tree, Vec::new());
    every_damage_is_noticed(scratch.path(), &sealed.out, TapeKind::Base);
}
