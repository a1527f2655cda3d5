//! What others say a file system must do: pjdfstest and fsx on a mount, beside the file system that lies below it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::{Disk, FileSystem, Mount, Sandbox, Tree, tools};

/// Switching users needs two that every Debian has. `erofs` needs a second mount of the same disk.
const PJDFSTEST: &str = "[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]
";

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

/// Names of the cases that fail, or are skipped, below a directory.
fn failures(sandbox: &Sandbox, below: &Path, second: &Path) -> BTreeSet<String> {
    let configuration = sandbox.path("pjdfstest.toml");
    fs::write(&configuration, PJDFSTEST).unwrap();
    let place = below.join("pjd");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    let output = Command::new(tools::find("pjdfstest").unwrap())
        .arg("-c")
        .arg(configuration)
        .arg("-p")
        .arg(&place)
        .arg("-s")
        .arg(second)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.lines().find(|line| line.contains(" total")).unwrap_or_else(|| panic!("no summary:\n{text}"));
    let total: u32 = summary.split(", ").last().and_then(|last| last.split(' ').next()).unwrap().parse().unwrap();
    assert!(total > 350, "only {total} cases ran: {summary}");
    println!("{}: {summary}", below.display());
    let is_listed = |line: &&str| line.trim_end().ends_with("FAILED") || line.trim_end().ends_with("skipped");
    let failed = text.lines().filter(is_listed);
    failed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
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
    let only_mounted: BTreeSet<String> = mounted.difference(&plain).cloned().collect();
    assert_eq!(only_mounted, documented(), "cases that only the mount fails or skips, and rows of docs/SEMANTICS.md");
    sandbox.export("pjd", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after pjdfstest");
}

#[test]
fn fsx_with_mappings_and_the_restore_of_what_it_left() {
    if !tools::root() || !tools::present(&["fsx", "mkfs.ext4"]) {
        return;
    }
    let sandbox = Sandbox::in_memory();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 200);
    let (pvol, tapes) = (disk.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("fsx", &pvol, "256MiB");
    sandbox.base("fsx", &tapes);
    let mount = sandbox.mount("fsx", "mnt");
    let configuration = sandbox.path("fsx.toml");
    fs::write(&configuration, FSX).unwrap();
    // in parts, each with its own seed, and an export behind each so that the journal stays small
    let parts = tools::rounds(10, 200);
    for part in 1..=parts {
        let file = mount.join(&format!("file-{part}"));
        let output = Command::new(tools::find("fsx").unwrap())
            .args(["-q", "-N", "10000", "-S", &part.to_string(), "-f"])
            .arg(&configuration)
            .arg("-P")
            .arg(sandbox.root())
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && text.contains("A-OK"), "seed {part}: {text}");
        mount.sync();
        sandbox.export("fsx", &tapes);
    }
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after fsx");
}
