//! Base tapes: what stock tools extract from them is the tree, and so is what our own reader gives.

mod support;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use reelfs_archive::{
    BSDTAR_COMMAND, BaseBytes, BaseExtent, BaseFile, BaseWriter, Depth, GNU_TAR_COMMAND, Label, SealedTape, TapeError,
    TapeKind,
};
use reelfs_journal::{Attributes, Change, Epoch, FileId, FileTime, Name, NodeKind, Seq};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat, utimensat,
};
use support::*;
use uuid::Uuid;

fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times are set");
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).expect("an attribute is set");
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A tree with one of everything.
fn plant(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::write(at("plain"), b"hello").expect("a file");
    fs::write(at("empty"), b"").expect("a file");
    let noise: Vec<u8> = (0..9_000_000u64)
        .map(|at| (at.wrapping_mul(at).wrapping_mul(0x9e37_79b9) >> 13) as u8)
        .collect();
    fs::write(at("large"), noise).expect("a file");
    fs::create_dir_all(at("dir/sub")).expect("directories");
    fs::write(at("dir/sub/file"), vec![7; 4096]).expect("a file");
    fs::hard_link(at("plain"), at("dir/second name")).expect("a link");
    fs::hard_link(at("plain"), at("dir/sub/third")).expect("a link");
    fs::write(root.join(OsStr::from_bytes(b"not\xff\xfeUTF-8\n")), b"bytes").expect("a file");
    fs::write(at("gr\u{fc}n \u{1f333}"), b"text").expect("a file");
    let long_sparse = root.join(OsStr::from_bytes(&[0xf1; 240]));
    File::create(long_sparse)
        .and_then(|file| file.set_len(1 << 20))
        .expect("a file");
    let long = OsStr::from_bytes(&[0xe9; 250]).to_owned();
    let deep = root.join("d".repeat(90)).join("e".repeat(200));
    fs::create_dir_all(&deep).expect("directories");
    fs::write(deep.join("f".repeat(255)), b"deep").expect("a file");
    fs::write(root.join(&long), b"long and not UTF-8").expect("a file");
    fs::hard_link(root.join(&long), deep.join("link to a long name")).expect("a link");
    fs::write(root.join("\u{fc}".repeat(120)), b"long and UTF-8").expect("a file");
    symlink("../nowhere\n", at("link")).expect("a link");
    symlink("x".repeat(3000), at("long link")).expect("a link");
    symlink(OsStr::from_bytes(&[0xff; 200]), at("long link of bytes")).expect("a link");
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("a pipe");

    for (name, pieces, size) in [
        (
            "sparse",
            &[(0u64, 5usize), (1 << 20, 4096), (30 << 20, 70_000)][..],
            60u64 << 20,
        ),
        ("all hole", &[], 100 << 20),
        ("data to its end", &[((90 << 20) - 777, 777)], 90 << 20),
        ("hole in the middle", &[(0, 4096), (1 << 20, 100)], (1 << 20) + 100),
    ] {
        let file = File::create(at(name)).expect("a file");
        file.set_len(size).expect("a size");
        pieces
            .iter()
            .for_each(|(offset, length)| file.write_all_at(&vec![9; *length], *offset).expect("bytes"));
    }

    set_xattr(&at("plain"), "user.binary", b"a\nb\0 10 path=../../x\n");
    set_xattr(&at("plain"), "user.empty", b"");
    set_xattr(&at("dir"), "user.on.a.directory", "gr\u{fc}n".as_bytes());
    set_xattr(root, "user.root", b"root");
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            value.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
            value.extend(id.to_le_bytes());
        }
        value
    };
    let none = u32::MAX;
    let entries = [
        (1, 7, none),
        (2, 6, 1234),
        (4, 5, none),
        (8, 4, 70_000),
        (0x10, 7, none),
        (0x20, 0, none),
    ];
    set_xattr(&at("plain"), "system.posix_acl_access", &acl(&entries));
    set_xattr(&at("dir"), "system.posix_acl_default", &acl(&entries));
    set_xattr(&at("dir/sub"), "system.posix_acl_access", &acl(&entries));

    if is_root() {
        mknodat(
            CWD,
            at("null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(1, 3),
        )
        .expect("a device");
        mknodat(
            CWD,
            at("disk"),
            FileType::BlockDevice,
            Mode::from_raw_mode(0o660),
            makedev(259, 300_000),
        )
        .expect("a device");
        chown(at("empty"), Some(4_000_000_000), Some(3_000_000)).expect("an owner");
        chown(at("dir/sub"), Some(33), Some(2_097_151)).expect("an owner");
        set_xattr(&at("empty"), "trusted.secret", b"\0\x01");
        // cap_net_raw=ep
        set_xattr(
            &at("large"),
            "security.capability",
            &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
    }
    for (name, mode) in [
        ("empty", 0o6711),
        ("dir/sub", 0o3770),
        ("large", 0o000),
        ("dir/sub/file", 0o444),
        ("data to its end", 0o4755),
    ] {
        fs::set_permissions(at(name), Permissions::from_mode(mode)).expect("a mode");
    }
    set_mtime(&at("large"), -5, 250_000_000);
    set_mtime(&at("empty"), 5_000_000_000, 999_999_999);
    set_mtime(&at("link"), 1_000_000_000, 1);
    set_mtime(&at("dir/sub/file"), -2_000_000_000, 0);
    set_mtime(&deep, 0, 0);
    set_mtime(&at("dir/sub"), 1_234_567_890, 123_456_789);
    set_mtime(&at("dir"), 1_234_567_891, 987_654_321);
    fs::set_permissions(&deep, Permissions::from_mode(0o555)).expect("a mode");
    fs::set_permissions(root, Permissions::from_mode(0o1750)).expect("a mode");
    set_mtime(root, 1_600_000_000, 5);
}

fn spread(scratch: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
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
            assert!(
                allocated("sparse") < 1000 && allocated("all hole") < 100,
                "holes stay holes"
            );
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
        assert_eq!(
            listed.lines().filter(|line| line.starts_with("base/")).count(),
            names,
            "{tool}: {listed}"
        );
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
            Change::BaseData {
                file,
                stream_offset,
                stream_length,
                size,
            } => {
                let object = &current[0];
                assert_eq!((file, size), (object.file, object.size));
                let extent = BaseExtent {
                    stream_offset,
                    stream_length,
                    size,
                };
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
fn a_source_that_is_larger_than_a_frame_is_read_back() {
    let scratch = tempfile::tempdir().expect("a directory");
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).expect("a directory");
    // enough entries for several control members between the files
    for number in 0..120 {
        let mut file = File::create(tree.join(format!("{number:05}"))).expect("a file");
        file.write_all(&vec![number; 50_000 + 700 * usize::from(number)])
            .expect("bytes");
        for attribute in 0..3 {
            let name = format!("user.{attribute}");
            let value = vec![number; if number % 2 == 0 { 1000 } else { 10 }];
            set_xattr(&tree.join(format!("{number:05}")), &name, &value);
        }
        file.set_times(FileTimes::new().set_modified(std::time::UNIX_EPOCH))
            .expect("times");
    }
    let tape = scratch.path().join("tape");
    write_base(&tree, File::create(&tape).expect("a file"));
    assert_reads_back(&tree, &tape);
}

#[test]
fn control_members_between_files_do_not_matter() {
    let scratch = tempfile::tempdir().expect("a directory");
    let label = Label::base(group(), GROUP, Epoch(1), Uuid::from_u128(7), Seq(5), TIME);
    let path = scratch.path().join("tape");
    let mut writer = BaseWriter::new(File::create(&path).expect("a file"), label, OPTIONS).expect("a writer");
    let attributes = Attributes {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: FileTime::default(),
    };
    for number in 0..40_000u64 {
        let name = Name::new(format!("{number:06}").as_bytes()).expect("a name");
        let (file, kind) = (
            FileId {
                ino: 100 + number,
                generation: 0,
            },
            NodeKind::File,
        );
        let change = Change::Entry {
            parent: FileId::NONE,
            name: name.clone(),
            file,
            kind: kind.clone(),
            attributes,
            xattrs: vec![],
            size: 3,
        };
        writer.entry(&change).expect("an entry");
        let (path, kind) = (&[name][..], &kind);
        let extents = &[(0, 3)];
        let item = BaseFile {
            file,
            path,
            kind,
            attributes: &attributes,
            xattrs: &[],
            size: 3,
            extents,
            hard_link: None,
        };
        let mut text = number.to_le_bytes();
        writer
            .file(&item, &mut |buffer, at| {
                buffer.copy_from_slice(&text[at as usize..at as usize + buffer.len()]);
                Ok(buffer.len())
            })
            .expect("a file");
        text[0] = 0;
    }
    let sealed = writer.seal(TIME).expect("a tape");
    assert!(sealed.index.chunks.len() > 2, "control members lie between the files");
    let tape = SealedTape::open(File::open(&path).expect("a tape")).expect("a tape");
    let tape = tape.verify(Depth::Records, &mut |_| {}).expect("a good tape");
    let (mut records, mut bytes, mut number) = (
        tape.records(Seq(5)).expect("records"),
        tape.base_bytes().expect("bytes"),
        0u64,
    );
    while let Some(raw) = records.next().expect("a record") {
        if let Change::BaseData {
            stream_offset,
            stream_length,
            size,
            ..
        } = raw.decode().expect("a record").change
        {
            let wanted = number.to_le_bytes();
            let extent = BaseExtent {
                stream_offset,
                stream_length,
                size,
            };
            bytes
                .file(extent, &mut |_, piece| {
                    assert_eq!(piece, &wanted[..3]);
                    Ok(())
                })
                .expect("bytes");
            number += 1;
        }
    }
    assert_eq!(number, 40_000);
    if have(&["tar", "zstd"]) {
        assert_eq!(
            quiet_shell("tar --zstd -tf $1 | grep -c ^base/", &[&path]).trim(),
            "40000"
        );
    }
}

#[test]
fn a_file_that_changes_keeps_its_announced_length() {
    let scratch = tempfile::tempdir().expect("a directory");
    let label = Label::base(group(), GROUP, Epoch(1), Uuid::from_u128(7), Seq(5), TIME);
    let path = scratch.path().join("tape");
    let mut writer = BaseWriter::new(File::create(&path).expect("a file"), label, OPTIONS).expect("a writer");
    let attributes = Attributes {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: FileTime::default(),
    };
    let (name, kind) = (Name::new(b"shrinks").expect("a name"), NodeKind::File);
    let file = FileId { ino: 1, generation: 0 };
    let item = BaseFile {
        file,
        path: &[name],
        kind: &kind,
        attributes: &attributes,
        xattrs: &[],
        size: 10_000,
        extents: &[(0, 10_000)],
        hard_link: None,
    };
    let mut source = |buffer: &mut [u8], at: u64| {
        let left = 6000 - (at as usize).min(6000);
        let length = buffer.len().min(left).min(1000);
        buffer[..length].fill(b'x');
        Ok(length)
    };
    writer.file(&item, &mut source).expect("a file");
    let mut broken = |_: &mut [u8], _| Err(std::io::Error::from_raw_os_error(5));
    assert!(matches!(
        writer.file(&item, &mut broken),
        Err(TapeError::Source { offset: 0, .. })
    ));
    // a source that failed leaves an entry without bytes; nobody seals such a tape
    let label = Label::base(group(), GROUP, Epoch(1), Uuid::from_u128(7), Seq(5), TIME);
    let mut writer = BaseWriter::new(File::create(&path).expect("a file"), label, OPTIONS).expect("a writer");
    writer.file(&item, &mut source).expect("a file");
    writer.seal(TIME).expect("a tape");
    let tape = SealedTape::open(File::open(&path).expect("a tape")).expect("a tape");
    let tape = tape.verify(Depth::Records, &mut |_| {}).expect("a good tape");
    let mut records = tape.records(Seq(5)).expect("records");
    let record = records
        .next()
        .expect("a record")
        .expect("a record")
        .decode()
        .expect("a record")
        .into_owned();
    let Change::BaseData {
        stream_offset,
        stream_length,
        size,
        ..
    } = record.change
    else {
        panic!("no bytes")
    };
    let mut all = Vec::new();
    let mut bytes = tape.base_bytes().expect("bytes");
    let extent = BaseExtent {
        stream_offset,
        stream_length,
        size,
    };
    bytes
        .file(extent, &mut |_, piece| {
            all.extend_from_slice(piece);
            Ok(())
        })
        .expect("bytes");
    assert_eq!(all, [vec![b'x'; 6000], vec![0; 4000]].concat());
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
