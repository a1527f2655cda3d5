//! Stock tools: whoever has lost everything but a tape needs `tar` and `zstd`, and nothing of ours.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use support::{Disk, FileSystem, Random, Sandbox, Tree, tools};

/// One of everything that a directory can hold (sockets apart: tar has no type for them).
fn furnish(pvol: &Path) {
    let mut random = Random::new("stock", 0);
    fs::write(pvol.join("large"), random.bytes(9 << 20)).unwrap();
    let long = "long-name-".repeat(25);
    let deep: PathBuf = (0..12).map(|number| format!("{}-{number}", "deep".repeat(12))).collect();
    fs::create_dir_all(pvol.join(&deep)).unwrap();
    fs::write(pvol.join(&deep).join(&long[..250]), b"far down").unwrap();
    fs::write(pvol.join(std::ffi::OsStr::from_bytes(b"not utf-8 \xff\xfe\xc3(")), b"bytes").unwrap();
    fs::write(pvol.join("newline\nand \"quotes\" and \\ and =5 x"), b"odd").unwrap();
    tools::shell(
        pvol,
        "mkdir -p a/b empty; echo one >a/one; ln a/one a/b/two; ln a/one three; ln -s ../a/one a/b/link; ln -s /nowhere dangling
         ln -s \"$(printf 'x%.0s' $(seq 300))\" long-link; mkfifo pipe; touch zero; truncate -s 5M hole
         printf data | dd of=sparse bs=1 seek=3000000 conv=notrunc status=none; truncate -s 8M sparse
         printf begin | dd of=sparse conv=notrunc status=none
         setfattr -n user.note -v 'some value' a/one; setfattr -n user.binary -v 0x00ff0a3d a; setfattr -n user.empty zero
         setfacl -m u:12:rw,g:34:r a/one; setfacl -m u:12:rwx a; setfacl -d -m u:56:rx,g::r a
         chmod 4755 zero; chmod 1777 empty; chmod 2750 a/b; chmod 0 hole
         touch -d '1965-03-02 01:02:03.000000001Z' a/one; touch -d '2300-01-01 00:00:00.999999999Z' large
         touch -h -d '2001-02-03 04:05:06.789Z' dangling; touch -d '1999-12-31 23:59:59.123456789Z' empty pipe a/b",
    );
    if rustix::process::geteuid().is_root() {
        tools::shell(
            pvol,
            "mknod null c 1 3; mknod disk b 7 200; chown 1234:5678 large; chown 3000000:3000001 zero; chmod 4755 zero
             chown -h 77:88 dangling; cp /bin/true capable; setcap cap_net_raw+ep capable; setfattr -n trusted.secret -v x a",
        );
    }
    tools::shell(pvol, "touch -d '1960-01-01 00:00:00.5Z' a; touch -d '2026-01-01 00:00:00.25Z' .");
}

/// The command that the tape itself gives, with `DIR` and the tape's name filled in.
fn command_of(readme: &str, tar: &str, tape: &Path, to: &Path) -> String {
    let is_command = |line: &&str| line.trim_start().starts_with(tar) && line.contains("-x") && line.contains("-C");
    let line = readme.lines().find(is_command).unwrap_or_else(|| panic!("no {tar} command in the README:\n{readme}"));
    let name = tape.file_name().unwrap().to_str().unwrap();
    assert!(line.contains(name) || line.contains("TAPE"), "{line}");
    let line = line.trim().trim_start_matches("$ ");
    line.replace(name, tape.to_str().unwrap())
        .replace("TAPE", tape.to_str().unwrap())
        .replace("DIR", to.to_str().unwrap())
}

/// What the README says of bsdtar: it misreads times before 1970 that have a fraction.
fn misread(tree: Tree) -> Tree {
    let mut nodes = tree.nodes().clone();
    nodes.values_mut().filter(|node| node.mtime.0 < 0 && node.mtime.1 != 0).for_each(|node| node.mtime = (-1, 0));
    Tree::from_nodes(Path::new("without fractions before 1970"), nodes)
}

fn readme_of(tape: &Path) -> String {
    let tape = tape.to_str().unwrap();
    tools::shell(Path::new("/"), &format!("tar --zstd -xOf '{tape}' README.txt"))
}

#[test]
fn the_command_in_a_base_tapes_readme_gives_the_directory() {
    if !tools::present(&["tar", "bsdtar", "zstd", "setfattr", "setfacl", "setcap", "mkfs.ext4"]) || !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 200);
    let (pvol, tapes) = (disk.directory("pvol"), sandbox.directory("tapes"));
    furnish(&pvol);
    sandbox.group("stock", &pvol);
    sandbox.base("stock", &tapes);
    let before = Tree::of(&pvol);
    let tape = sandbox.tapes(&tapes).into_iter().find(|tape| tape.to_string_lossy().contains(".base.")).unwrap();
    let readme = readme_of(&tape);
    for tar in ["tar", "bsdtar"] {
        let to = disk.directory(&format!("by-{tar}"));
        tools::shell(sandbox.root(), &command_of(&readme, tar, &tape, &to));
        let (expected, made) = (before.clone(), Tree::of(&to.join("base")));
        let (expected, made) = if tar == "bsdtar" { (misread(expected), misread(made)) } else { (expected, made) };
        expected.assert_same(&made, &format!("{tar}, by the command in the README"));
    }
    let restored = sandbox.restore(&tapes, "latest", "disk/restored");
    before.assert_same(&Tree::of(&restored), "our own restore of the same tape");
}

#[test]
fn update_tapes_are_listed_without_a_complaint() {
    if !tools::present(&["tar", "bsdtar", "zstd"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("listed", &pvol);
    sandbox.base("listed", &tapes);
    let mount = sandbox.mount("listed", "mnt");
    let mut random = Random::new("listed", 0);
    for number in 0..50 {
        fs::write(mount.join(&format!("file{number}")), random.bytes(100_000 + number)).unwrap();
    }
    fs::remove_file(mount.join("file7")).unwrap();
    sandbox.export("listed", &tapes);
    mount.umount();
    let tapes = sandbox.tapes(&tapes);
    assert!(tapes.len() >= 2, "{tapes:?}");
    for tape in tapes {
        let tape = tape.to_str().unwrap();
        for list in [
            "zstd -dc TAPE | tar -t",
            "tar --zstd -tf TAPE",
            "zstd -dc TAPE | bsdtar -tf -",
            "bsdtar -tf TAPE",
            "zstd -q -t TAPE",
        ] {
            let output = tools::shell(sandbox.root(), &format!("( {} ) 2>&1", list.replace("TAPE", tape)));
            let is_list = list.ends_with("-t TAPE") || output.lines().any(|line| line == "README.txt");
            assert!(is_list, "{list}: {output}");
            let complaint =
                ["rror", "arning", "gnoring", "nknown", "kipping"].iter().find(|word| output.contains(**word));
            assert!(complaint.is_none(), "{list}: {output}");
        }
        assert!(readme_of(Path::new(tape)).contains("zstd"), "a README says how to read the tape");
    }
}
