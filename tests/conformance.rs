//! What others say a file system must do: pjdfstest and fsx on a mount, beside the file system that lies below it. And what
//! fsx does not do: O_DIRECT, and several processes with one file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::{Disk, FileSystem, Mount, Outcome, Sandbox, Tree, program, tools};

/// Switching users needs two that every Debian has. The cases that make the file system read-only meanwhile run by themselves.
const PJDFSTEST: &str = "[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = REMOUNT
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]
";

/// Cases of a read-only file system, and how many there are.
const READ_ONLY: &str = "erofs";
const READ_ONLY_CASES: u32 = 13;

/// Everything that fsx knows and Linux has, stores through mappings included.
const FSX: &str = "flen = 262144
[opsize]
max = 65536
min = 1
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 4
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 2
punch_hole = 2
sendfile = 2
posix_fadvise = 1
copy_file_range = 3
";

/// Names of the cases that fail, or are skipped, below a directory, and how many there are. `user`: a prefix of the command.
fn cases(
    sandbox: &Sandbox,
    (below, second): (&Path, &Path),
    user: &[&str],
    pattern: &[&str],
) -> (BTreeSet<String>, u32) {
    let configuration = sandbox.path("pjdfstest.toml");
    fs::write(&configuration, PJDFSTEST.replace("REMOUNT", if pattern.is_empty() { "false" } else { "true" })).unwrap();
    let place = below.join("pjd");
    // nobody but its user sees into a user's own mount
    tools::shell(sandbox.root(), &format!("{} sh -c 'umask 0; mkdir -p {}'", user.join(" "), place.display()));
    // pjdfstest remounts by mount(8), which would look for a helper for our type; the kernel needs none
    let bin = sandbox.directory("bin");
    fs::write(bin.join("mount"), format!("#!/bin/sh\nexec {} -i \"$@\"\n", tools::find("mount").unwrap().display()))
        .unwrap();
    fs::set_permissions(bin.join("mount"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("env")
        .args(user)
        .arg(tools::find("pjdfstest").unwrap())
        .arg("-c")
        .arg(configuration)
        .arg("-p")
        .arg(&place)
        .arg("-s")
        .arg(second)
        .args(pattern)
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.lines().find(|line| line.contains(" total")).unwrap_or_else(|| panic!("no summary:\n{text}"));
    let total: u32 = summary.split(", ").last().and_then(|last| last.split(' ').next()).unwrap().parse().unwrap();
    println!("{} {user:?} {pattern:?}: {summary}", below.display());
    let is_listed = |line: &&str| line.trim_end().ends_with("FAILED") || line.trim_end().ends_with("skipped");
    let failed = text.lines().filter(is_listed);
    (failed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect(), total)
}

/// All cases of root: those that take the file system read-only meanwhile would disturb the others.
fn failures(sandbox: &Sandbox, below: &Path, second: &Path) -> BTreeSet<String> {
    let (mut failed, total) = cases(sandbox, (below, second), &[], &[]);
    assert!(total > 350, "only {total} cases ran");
    failed.retain(|case| !case.contains(READ_ONLY));
    let (read_only, total) = cases(sandbox, (below, second), &[], &[READ_ONLY]);
    assert_eq!(total, READ_ONLY_CASES);
    failed.extend(read_only);
    failed
}

/// Cases that docs/SEMANTICS.md lists: table rows that begin with a case's name in backticks.
fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SEMANTICS.md");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).filter(|name| name.contains("::")).map(str::to_owned).collect()
}

#[test]
fn pjdfstest_finds_nothing_that_the_semantics_do_not_say() {
    if !tools::root() || !tools::present(&["pjdfstest", "mkfs.ext4"]) {
        return;
    }
    let sandbox = Sandbox::in_memory();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 200);
    let second = Disk::new(&sandbox, "second", FileSystem::Ext4, 50);
    fs::set_permissions(second.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let plain = failures(&sandbox, &disk.directory("plain"), second.path());
    let (pvol, tapes) = (disk.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("pjd", &pvol);
    let mount = Mount::new(&sandbox, "pjd", &sandbox.directory("mnt"), &["-o", "allow_other"]);
    sandbox.base("pjd", &tapes);
    let mounted = failures(&sandbox, mount.path(), second.path());
    assert!(plain.is_empty(), "ext4 itself fails: {plain:?}");
    let only_mounted: BTreeSet<String> = mounted.difference(&plain).cloned().collect();
    assert_eq!(only_mounted, documented(), "cases that only the mount fails or skips, and rows of docs/SEMANTICS.md");
    sandbox.export("pjd", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after pjdfstest");
}

#[test]
fn pjdfstest_finds_nothing_in_a_user_s_own_mount() {
    if !tools::root() || !tools::present(&["pjdfstest", "mkfs.ext4", "setpriv", "fusermount3"]) {
        return;
    }
    let sandbox = Sandbox::in_memory();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 200);
    let second = Disk::new(&sandbox, "second", FileSystem::Ext4, 50);
    let tool = sandbox.path("reelfs");
    fs::copy(program::BINARY, &tool).unwrap();
    tools::shell(
        sandbox.root(),
        "chmod 755 . disk; chmod 777 second; mkdir -p disk/home/pvol disk/home/mnt disk/home/state disk/plain
         chown -R 65534:65534 disk/home disk/plain",
    );
    let (home, user) = (disk.path().join("home"), ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    let reelfs = |words: &str| {
        let mut command = Command::new("env");
        command.args(user).arg(&tool).args(words.split(' ')).current_dir(&home);
        Outcome::of(program::with_environment(&mut command, &home.join("state"))).ok()
    };
    let (plain, total) = cases(&sandbox, (&disk.path().join("plain"), second.path()), &user, &[]);
    assert!(total > 350, "only {total} cases ran");
    reelfs("group create mine --pvol pvol --size 64MiB --on-full block --export-at never");
    reelfs("mount mine mnt");
    let (mounted, _) = cases(&sandbox, (&home.join("mnt"), second.path()), &user, &[]);
    reelfs("umount mnt");
    let only_mounted: BTreeSet<String> = mounted.difference(&plain).cloned().collect();
    assert_eq!(only_mounted, documented(), "cases that only a user's mount fails or skips");
}

/// After so many parts of a soak a new base copy, so that the group keeps the tapes of the last ones alone: of all there are
/// 40 GiB.
const PARTS_A_BASE: usize = 20;

/// Brings what a part wrote to tape.
fn export(sandbox: &Sandbox, mount: &Mount, tapes: &Path, part: usize) {
    mount.sync();
    sandbox.export("fsx", tapes);
    if part.is_multiple_of(PARTS_A_BASE) {
        sandbox.base("fsx", tapes);
    }
}

/// What fsx does with this configuration, in parts of 10,000 operations, each with its own seed, and an export behind each so
/// that the journal stays small.
fn fsx(sandbox: &Sandbox, mount: &Mount, tapes: &Path, name: &str, configuration: &str, parts: usize) {
    let path = sandbox.path(&format!("{name}.toml"));
    fs::write(&path, configuration).unwrap();
    for part in 1..=parts {
        let file = mount.join(&format!("{name}-{part}"));
        let output = Command::new(tools::find("fsx").unwrap())
            .args(["-q", "-N", "10000", "-S", &part.to_string(), "-f"])
            .arg(&path)
            .arg("-P")
            .arg(sandbox.root())
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && text.contains("A-OK"), "seed {part}: {text}");
        export(sandbox, mount, tapes, part);
    }
}

/// The exerciser's operations by one or several processes, with handles of these kinds, likewise in parts.
fn exercise(sandbox: &Sandbox, mount: &Mount, tapes: &Path, processes: usize, kinds: &str, parts: usize) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/exerciser.py");
    for part in 1..=parts {
        let name = format!("{}-{processes}-{part}", kinds.replace(' ', "-"));
        let said =
            tools::shell(mount.path(), &format!("python3 {} {name} 5000 {part} {processes} {kinds}", script.display()));
        assert!(said.contains("5000 operations agree"), "{said}");
        export(sandbox, mount, tapes, part);
    }
}

#[test]
fn fsx_and_what_it_lacks_and_the_restore_of_what_they_left() {
    if !tools::root() || !tools::present(&["fsx", "mkfs.ext4", "python3"]) {
        return;
    }
    let sandbox = Sandbox::in_memory();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 500);
    let (pvol, tapes) = (disk.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("fsx", &pvol, "256MiB");
    sandbox.reelfs(["group", "set", "fsx", "--keep-tapes", "1"]).ok();
    sandbox.base("fsx", &tapes);
    let mount = sandbox.mount("fsx", "mnt");
    // in the soak a million operations of each
    fsx(&sandbox, &mount, &tapes, "mapped", FSX, tools::rounds(5, 100));
    let unmapped: String =
        FSX.lines().filter(|line| !line.starts_with("map")).map(|line| format!("{line}\n")).collect();
    fsx(&sandbox, &mount, &tapes, "unmapped", &unmapped, tools::rounds(2, 100));
    exercise(&sandbox, &mount, &tapes, 1, "direct plain", tools::rounds(1, 200));
    exercise(&sandbox, &mount, &tapes, 2, "direct plain two append", tools::rounds(1, 200));
    exercise(&sandbox, &mount, &tapes, 2, "direct plain two append mapped", tools::rounds(1, 200));
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after fsx");
}
