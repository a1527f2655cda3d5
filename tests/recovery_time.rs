//! How long an opening takes after a power cut, by the bytes of the window and the files of the volume: the long form (`REELFS_SOAK`)
//! has 256 MiB and 1,000,000 files, and prints the time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use support::{Disk, FileSystem, Random, Sandbox, tools, wait};

/// Files in one directory of the volume.
const IN_ONE: usize = 1000;

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

/// Half of it in large writes, the rest at random in a large old file and to the ends of old small ones.
fn write(point: &Path, bytes: u64, random: &mut Random) {
    let large = File::create(point.join("large")).unwrap();
    for at in 0..(bytes / 2) >> 20 {
        large.write_all_at(&random.bytes(1 << 20), at << 20).unwrap();
    }
    let table = File::options().write(true).open(point.join("table")).unwrap();
    for number in 0..bytes / 2 / 8192 {
        table.write_all_at(&random.bytes(4096), random.below(64 << 20)).unwrap();
        let small = point.join(format!("d{}/f{}", number % 2, number % IN_ONE as u64));
        let end = fs::metadata(&small).unwrap().len();
        File::options().write(true).open(small).unwrap().write_all_at(&random.bytes(4096), end).unwrap();
    }
    large.sync_all().unwrap();
}

#[test]
fn a_power_cut_is_over_soon() {
    if !tools::root() || !tools::present(&["mkfs.ext4", "xfs_io"]) {
        return;
    }
    let (files, window) = (tools::rounds(4_000, 1_000_000), tools::rounds(16, 256) as u64);
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, if tools::is_soak() { 20 << 10 } else { 400 });
    let (pvol, journal) = (disk.directory("pvol"), disk.directory("journal"));
    fill(&pvol, files);
    fs::write(pvol.join("table"), vec![1; 64 << 20]).unwrap();
    let [pvol_text, journal, point] = [&pvol, &journal, disk.path()].map(|path| path.to_str().unwrap());
    let (size, how) = (format!("{}MiB", 64 + 3 * window), ["--on-full", "block", "--export-at", "never"]);
    let create = ["group", "create", "docs", "--pvol", pvol_text, "--journal", journal, "--size", &size];
    sandbox.reelfs(create.into_iter().chain(how)).ok();
    let mount = sandbox.mount("docs", "mnt");
    write(mount.path(), window << 20, &mut Random::new("window", 0));
    let large = fs::read(mount.path().join("large")).unwrap();
    tools::run("xfs_io", &["-x", "-c", "shutdown", point]);
    mount.kill();
    disk.umount();
    disk.mount();
    let begin = wait::now();
    let mount = sandbox.mount("docs", "mnt");
    println!("{window} MiB written to a volume of {files} files: open again in {:?}", begin.elapsed());
    println!("{}", mount.log());
    assert!(fs::read(pvol.join("large")).unwrap() == large);
    assert_eq!(sandbox.reelfs(["group", "show", "docs", "--json"]).ok().json()["epoch"], 1);
    mount.umount();
}
