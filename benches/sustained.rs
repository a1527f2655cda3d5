//! What can be written without end: many times the journal's size, beside an export that frees it, against the disk alone.
//!
//! `REELFS_BENCH_GIB` says how much is written, 20 unless set. The data is written twice, so half of the disk's speed is the limit
//! of any journal. A second writer of 4 KiB measures what a request has to wait meanwhile.

#[path = "../tests/support/mod.rs"]
mod support;

mod paired;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{Disk, FileSystem, Random, Sandbox, tools, wait};

/// Length of the file that is written over and over.
const LENGTH: u64 = 4 << 30;
/// Of the disk's own speed.
const LEAST: f64 = 0.45;
/// Of 1,000 writes of 4 KiB, 999 take no longer.
const MOST_OF_999: Duration = Duration::from_millis(50);
/// No write takes longer.
const MOST: Duration = Duration::from_secs(1);

/// Writes so many pieces of 1 MiB, one behind the other, and makes them durable: the time, and the longest write.
fn write(directory: &Path, pieces: u64) -> (Duration, Duration) {
    let file = File::options().create(true).truncate(false).write(true).open(directory.join("large")).expect("a file");
    // a tape of it is small, and whoever consumes it is not what is measured
    let mut piece = Random::new("sustained", 0).bytes(4096);
    piece.resize(1 << 20, 7);
    let (begin, mut longest) = (wait::now(), Duration::ZERO);
    for number in 0..pieces {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        let before = wait::now();
        file.write_all_at(&piece, (number << 20) % LENGTH).expect("room");
        longest = longest.max(before.elapsed());
    }
    file.sync_all().expect("a sync");
    (begin.elapsed(), longest)
}

/// Writes 4 KiB every few milliseconds until it is over: how long each write took, in order of length.
fn small_writes(directory: &Path, is_over: &AtomicBool) -> Vec<Duration> {
    let file = File::create(directory.join("small")).expect("a file");
    let (mut random, mut took) = (Random::new("small", 0), Vec::new());
    let piece = random.bytes(4096);
    while !is_over.load(Ordering::SeqCst) {
        let before = wait::now();
        file.write_all_at(&piece, random.below(4_000) * 4096).expect("room");
        took.push(before.elapsed());
        wait::pause(Duration::from_millis(2));
    }
    took.sort_unstable();
    took
}

/// Exports again and again; a tape that is not the newest is removed at once.
fn consume(sandbox: &Sandbox, tapes: &Path, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        sandbox.export("bench", tapes);
        sandbox.tapes(tapes).iter().rev().skip(2).for_each(|path| drop(fs::remove_file(path)));
        wait::pause(Duration::from_millis(20));
    }
}

fn main() -> ExitCode {
    let pieces = std::env::var("REELFS_BENCH_GIB").ok().and_then(|text| text.parse().ok()).unwrap_or(20_u64) << 10;
    let outer = Sandbox::new();
    let disk = (tools::root() && tools::present(&["mkfs.ext4"]))
        .then(|| Disk::new(&outer, "disk", FileSystem::Ext4, 16 << 10));
    disk.iter().for_each(Disk::leave_cache_of_image);
    let sandbox = disk.as_ref().map_or_else(Sandbox::new, |disk| Sandbox::within(disk.path()));
    println!("{}\n", paired::machine(sandbox.root()));
    let (bare, pvol, tapes) = (sandbox.directory("bare"), sandbox.directory("pvol"), outer.directory("tapes"));
    sandbox.group_of_size("bench", &pvol, "1GiB");
    sandbox.base("bench", &tapes);
    let (alone, _) = write(&bare, pieces);
    drop(fs::remove_file(bare.join("large")));
    let mount = sandbox.mount("bench", "mnt");
    let is_over = AtomicBool::new(false);
    let (journaled, longest, small) = std::thread::scope(|scope| {
        let small = scope.spawn(|| small_writes(mount.path(), &is_over));
        let consumer = scope.spawn(|| consume(&sandbox, &tapes, &is_over));
        let (took, longest) = write(mount.path(), pieces);
        is_over.store(true, Ordering::SeqCst);
        consumer.join().expect("no panic");
        (took, longest, small.join().expect("no panic"))
    });
    mount.umount();
    let speed = |took: Duration| pieces as f64 / took.as_secs_f64();
    let share = alone.as_secs_f64() / journaled.as_secs_f64();
    let of_999 = small[small.len().saturating_sub(1) * 999 / 1_000];
    let most = longest.max(*small.last().expect("some writes"));
    println!("| {} GiB in writes of 1 MiB, JVOL of 1 GiB | figure | asked |\n|---|---|---|", pieces >> 10);
    println!("| the disk alone, with its sync | {:.0} MiB/s | |", speed(alone));
    println!("| through the mount, exported beside | {:.0} MiB/s | |", speed(journaled));
    println!("| of the disk's speed | {share:.2} | at least {LEAST} |");
    println!("| {} writes of 4 KiB beside: 99.9 % within | {of_999:.1?} | {MOST_OF_999:?} |", small.len());
    println!("| the longest write | {most:.1?} | {MOST:?} |");
    let is_held = share >= LEAST && of_999 <= MOST_OF_999 && most <= MOST;
    ExitCode::from(u8::from(!is_held && paired::is_judged()))
}
