//! A tree with one of everything that a base tape has to carry.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat, utimensat,
};

pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times are set");
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).expect("an attribute is set");
}

fn make_node(path: &Path, kind: FileType, mode: u32, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device).expect("a node");
}

/// Fills an empty directory.
pub fn plant(root: &Path) {
    plant_files(root);
    plant_names(root);
    plant_holes(root);
    plant_xattrs(root);
    if rustix::process::getuid().is_root() {
        plant_what_root_may(root);
    }
    // last, because what is done beneath a directory changes its time
    set_modes_and_times(root);
}

fn plant_files(root: &Path) {
    fs::write(root.join("plain"), b"hello").expect("a file");
    fs::write(root.join("empty"), b"").expect("a file");
    let byte = |at: u64| (at.wrapping_mul(at).wrapping_mul(0x9e37_79b9) >> 13) as u8;
    let noise: Vec<u8> = (0..9_000_000u64).map(byte).collect();
    fs::write(root.join("large"), noise).expect("a file");
    fs::create_dir_all(root.join("dir/sub")).expect("directories");
    fs::write(root.join("dir/sub/file"), vec![7; 4096]).expect("a file");
    fs::hard_link(root.join("plain"), root.join("dir/second name")).expect("a link");
    fs::hard_link(root.join("plain"), root.join("dir/sub/third")).expect("a link");
    symlink("../nowhere\n", root.join("link")).expect("a link");
    symlink("x".repeat(3000), root.join("long link")).expect("a link");
    symlink(OsStr::from_bytes(&[0xff; 200]), root.join("long link of bytes")).expect("a link");
    make_node(&root.join("fifo"), FileType::Fifo, 0o640, 0);
}

fn plant_names(root: &Path) {
    let bytes = |bytes: &[u8]| root.join(OsStr::from_bytes(bytes));
    fs::write(bytes(b"not\xff\xfeUTF-8\n"), b"bytes").expect("a file");
    fs::write(root.join("gr\u{fc}n \u{1f333}"), b"text").expect("a file");
    fs::write(root.join("\u{fc}".repeat(120)), b"long and UTF-8").expect("a file");
    let long_sparse = File::create(bytes(&[0xf1; 240])).expect("a file");
    long_sparse.set_len(1 << 20).expect("a size");
    let deep = root.join("d".repeat(90)).join("e".repeat(200));
    fs::create_dir_all(&deep).expect("directories");
    fs::write(deep.join("f".repeat(255)), b"deep").expect("a file");
    fs::write(bytes(&[0xe9; 250]), b"long and not UTF-8").expect("a file");
    fs::hard_link(bytes(&[0xe9; 250]), deep.join("link to a long name")).expect("a link");
    set_mtime(&deep, 0, 0);
    fs::set_permissions(&deep, Permissions::from_mode(0o555)).expect("a mode");
}

fn plant_holes(root: &Path) {
    type Pieces = &'static [(u64, usize)];
    let files: [(&str, Pieces, u64); 4] = [
        ("sparse", &[(0, 5), (1 << 20, 4096), (30 << 20, 70_000)], 60 << 20),
        ("all hole", &[], 100 << 20),
        ("data to its end", &[((90 << 20) - 777, 777)], 90 << 20),
        ("hole in the middle", &[(0, 4096), (1 << 20, 100)], (1 << 20) + 100),
    ];
    for (name, pieces, size) in files {
        let file = File::create(root.join(name)).expect("a file");
        file.set_len(size).expect("a size");
        for (offset, length) in pieces {
            file.write_all_at(&vec![9; *length], *offset).expect("bytes");
        }
    }
}

fn plant_xattrs(root: &Path) {
    set_xattr(&root.join("plain"), "user.binary", b"a\nb\0 10 path=../../x\n");
    set_xattr(&root.join("plain"), "user.empty", b"");
    set_xattr(&root.join("dir"), "user.on.a.directory", "gr\u{fc}n".as_bytes());
    set_xattr(root, "user.root", b"root");
    let mut acl = vec![2, 0, 0, 0];
    let none = u32::MAX;
    let (owner, owning_group, other) = ((1u16, 7u16, none), (4, 5, none), (0x20, 0, none));
    for (tag, permissions, id) in [owner, (2, 6, 1234), owning_group, (8, 4, 70_000), (0x10, 7, none), other] {
        acl.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    set_xattr(&root.join("plain"), "system.posix_acl_access", &acl);
    set_xattr(&root.join("dir"), "system.posix_acl_default", &acl);
    set_xattr(&root.join("dir/sub"), "system.posix_acl_access", &acl);
}

fn plant_what_root_may(root: &Path) {
    make_node(&root.join("null"), FileType::CharacterDevice, 0o666, makedev(1, 3));
    make_node(&root.join("disk"), FileType::BlockDevice, 0o660, makedev(259, 300_000));
    chown(root.join("empty"), Some(4_000_000_000), Some(3_000_000)).expect("an owner");
    chown(root.join("dir/sub"), Some(33), Some(2_097_151)).expect("an owner");
    set_xattr(&root.join("empty"), "trusted.secret", b"\0\x01");
    let mut net_raw = [0; 20];
    (net_raw[0], net_raw[3], net_raw[5]) = (1, 2, 32);
    set_xattr(&root.join("large"), "security.capability", &net_raw);
}

fn set_modes_and_times(root: &Path) {
    for (name, mode) in [
        ("empty", 0o6711),
        ("dir/sub", 0o3770),
        ("large", 0o000),
        ("dir/sub/file", 0o444),
        ("data to its end", 0o4755),
        ("", 0o1750),
    ] {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).expect("a mode");
    }
    for (name, seconds, nanos) in [
        ("large", -5, 250_000_000),
        ("empty", 5_000_000_000, 999_999_999),
        ("link", 1_000_000_000, 1),
        ("dir/sub/file", -2_000_000_000, 0),
        ("dir/sub", 1_234_567_890, 123_456_789),
        ("dir", 1_234_567_891, 987_654_321),
        ("", 1_600_000_000, 5),
    ] {
        set_mtime(&root.join(name), seconds, nanos);
    }
}
