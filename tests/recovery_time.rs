//! What an opening tells after a power cut, and how long it takes: that goes by what was changed, whatever the volume holds. The long
//! form (`REELFS_SOAK`) has 256 MiB written to a volume of 1,000,000 files, and prints the time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use support::{Disk, FileSystem, Random, Sandbox, tools, wait};

/// Files in one directory of the volume.
const IN_ONE: usize = 1000;
/// Directories in which a name is made.
const NAMED: usize = 10;
/// Of a large old file, which is written at random.
const TABLE: u64 = 64 << 20;

/// So many old files, small ones and empty ones.
fn fill(pvol: &Path, files: usize) {
    for number in 0..files {
        let directory = pvol.join(format!("d{}", number / IN_ONE));
        if number % IN_ONE == 0 {
            fs::create_dir(&directory).unwrap();
        }
        let name = directory.join(format!("f{}", number % IN_ONE));
        if number % 100 == 0 { fs::write(name, [7; 3000]).unwrap() } else { drop(File::create(name).unwrap()) }
    }
}

/// A few new names far apart, which make foresight look everywhere; then half of the bytes in large writes, the rest at random in a
/// large old file and to the ends of old small ones.
fn write(point: &Path, bytes: u64, random: &mut Random) {
    for number in 0..NAMED {
        File::create(point.join(format!("d{}/new", number * 5))).unwrap();
    }
    let large = File::create(point.join("large")).unwrap();
    for at in 0..(bytes / 2) >> 20 {
        large.write_all_at(&random.bytes(1 << 20), at << 20).unwrap();
    }
    let table = File::options().write(true).open(point.join("table")).unwrap();
    for number in 0..bytes / 2 / 8192 {
        table.write_all_at(&random.bytes(4096), random.below(TABLE)).unwrap();
        let small = point.join(format!("d{}/f{}", number % 2, number % IN_ONE as u64));
        let end = fs::metadata(&small).unwrap().len();
        File::options().write(true).open(small).unwrap().write_all_at(&random.bytes(4096), end).unwrap();
    }
    large.sync_all().unwrap();
}

/// The number of the next record, and the bytes of journal data held.
fn journal(sandbox: &Sandbox) -> (u64, u64) {
    let shown = sandbox.reelfs(["journal", "show", "docs", "--json"]).ok().json();
    (shown["journal_in"].as_u64().unwrap(), shown["data_bytes"].as_u64().unwrap())
}

#[test]
fn a_power_cut_is_over_soon_and_only_what_was_changed_is_told() {
    if !tools::root() || !tools::present(&["mkfs.ext4", "xfs_io"]) {
        return;
    }
    let (files, window) = (tools::rounds(60_000, 1_000_000), tools::rounds(16, 256) as u64);
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, if tools::is_soak() { 20 << 10 } else { 1 << 10 });
    let (pvol, journal_dir) = (disk.directory("pvol"), disk.directory("journal"));
    fill(&pvol, files);
    fs::write(pvol.join("table"), vec![1; usize::try_from(TABLE).unwrap()]).unwrap();
    let [pvol_text, journal_text, point] = [&pvol, &journal_dir, disk.path()].map(|path| path.to_str().unwrap());
    let (size, how) = (format!("{}MiB", 64 + 3 * window), ["--on-full", "block", "--export-at", "never"]);
    let create = ["group", "create", "docs", "--pvol", pvol_text, "--journal", journal_text, "--size", &size];
    sandbox.reelfs(create.into_iter().chain(how)).ok();
    sandbox.base("docs", &sandbox.directory("tapes"));
    let mount = sandbox.mount("docs", "mnt");
    write(mount.path(), window << 20, &mut Random::new("window", 0));
    let large = fs::read(mount.path().join("large")).unwrap();
    let before = journal(&sandbox);
    tools::run("xfs_io", &["-x", "-c", "shutdown", point]);
    mount.kill();
    disk.umount();
    disk.mount();
    let begin = wait::now();
    let mount = sandbox.mount("docs", "mnt");
    println!("{window} MiB written to a volume of {files} files: open again in {:?}", begin.elapsed());
    println!("{}", mount.log());
    let after = journal(&sandbox);
    let (records, bytes) = (after.0 - before.0, after.1 - before.1);
    println!("told: {records} records with {bytes} bytes");
    assert!(fs::read(pvol.join("large")).unwrap() == large);
    let shown = sandbox.reelfs(["group", "show", "docs", "--json"]).ok().json();
    assert_eq!((&shown["epoch"], &shown["status"]), (&1.into(), &"PAIR".into()));
    // the names of the directories that got one, and the files whose ends were written; foresight may add as much again
    let touched = (NAMED * IN_ONE + 2 * IN_ONE) as u64;
    assert!(records <= 3 * touched, "{records} records");
    assert!(bytes <= TABLE + (window << 20) + 512 * 3 * touched, "{bytes} bytes");
    mount.umount();
}
