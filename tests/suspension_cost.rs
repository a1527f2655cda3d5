//! What a suspension costs when the pair comes back: no more than what was written, and 64 KiB for a small write anywhere; and a group
//! whose writers wait answers everything else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::{Mount, Random, Sandbox, Tree, tools, wait};

const UNIT: u64 = 64 << 10;
/// Bytes of control data of a record.
const CONTROL: u64 = 64;

struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
}

impl Site {
    fn new(policy: &str, size: &str, prepare: impl FnOnce(&Path)) -> Site {
        let sandbox = Sandbox::new();
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        prepare(&pvol);
        let create = ["group", "create", "cost", "--pvol", text(&pvol), "--size", size, "--on-full", policy];
        sandbox.reelfs(create.iter().chain(&["--export-at", "never"])).ok();
        sandbox.base("cost", &tapes);
        Site { sandbox, pvol, tapes }
    }

    fn status(&self) -> Value {
        self.sandbox.reelfs(["status", "cost", "--json"]).ok().json()["groups"][0].clone()
    }

    /// Bytes that a resync journals: what it tells, and 64 for each record.
    fn resync(&self) -> u64 {
        let (told, records) = self.resync_parts();
        told + CONTROL * records
    }

    /// Bytes of journal data that a resync tells, and how many records it needs.
    fn resync_parts(&self) -> (u64, u64) {
        let next =
            || self.sandbox.reelfs(["journal", "show", "cost", "--json"]).ok().json()["journal_in"].as_u64().unwrap();
        let before = next();
        let told = self.sandbox.reelfs(["pair", "resync", "cost", "--json"]).ok();
        let told: Value = serde_json::from_str(told.stdout.lines().last().unwrap()).unwrap();
        (told["bytes"].as_u64().unwrap(), next() - before)
    }

    #[track_caller]
    fn assert_twin(self, mount: Mount) {
        mount.umount();
        self.sandbox.export("cost", &self.tapes);
        let restored = self.sandbox.restore(&self.tapes, "latest", "restored");
        Tree::of(&self.pvol).assert_same(&Tree::of(&restored), "after the resync");
    }
}

#[test]
fn large_writes_are_told_once() {
    let size = tools::rounds(64, 512) as u64;
    let prepare = |pvol: &Path| fs::write(pvol.join("old"), "was there").unwrap();
    let site = Site::new("suspend", &format!("{size}MiB"), prepare);
    let mount = site.sandbox.mount("cost", "mnt");
    let (pieces, mut random) = (tools::rounds(160, 2048) as u64, Random::new("large", 0));
    let file = File::create(mount.join("large")).unwrap();
    // consumer stopped: the journal fills, the group is suspended, and the writer notices nothing
    let mut since = 0;
    for piece in 0..pieces + 2 * size {
        file.write_all_at(&random.bytes(1 << 20), piece << 20).unwrap();
        if since == 0 && site.status()["state"] == "SUSP" {
            since = piece;
        }
        if since > 0 && piece >= since + pieces {
            break;
        }
    }
    drop(file);
    assert!(since > size * 2 / 3, "suspended after {since} MiB of {size}");
    assert_eq!(site.status()["reason"], "journal-full");
    // what was not journaled; the piece that found the journal full is one of them
    let written = fs::metadata(mount.join("large")).unwrap().len() - ((since - 1) << 20);
    let journaled = site.resync();
    println!("large writes: {written} bytes written while suspended, {journaled} journaled by the resync");
    assert!(journaled <= written * 11 / 10, "{journaled} of {written}");
    site.assert_twin(mount);
}

#[test]
fn small_writes_are_told_by_ranges_and_numbers_given_twice_are_told_apart() {
    let length = tools::rounds(48, 512) as u64 * (1 << 20);
    let site = Site::new("suspend", "32MiB", |pvol| {
        let file = File::create(pvol.join("random")).unwrap();
        let mut random = Random::new("before", 0);
        for at in (0..length).step_by(1 << 20) {
            file.write_all_at(&random.bytes(1 << 20), at).unwrap();
        }
        for number in 0..200 {
            fs::write(pvol.join(format!("f{number}")), random.bytes(700)).unwrap();
        }
    });
    let mount = site.sandbox.mount("cost", "mnt");
    site.sandbox.reelfs(["pair", "split", "cost"]).ok();
    let mut random = Random::new("small", 0);
    let file = File::options().write(true).open(mount.join("random")).unwrap();
    let mut touched = BTreeSet::new();
    for _ in 0..tools::rounds(400, 8_000) {
        let at = random.below(length - 4096);
        file.write_all_at(&random.bytes(4096), at).unwrap();
        touched.extend(at / UNIT..=(at + 4095) / UNIT);
    }
    drop(file);
    let ranges = touched.len() as u64;
    let (told, records) = site.resync_parts();
    println!("small writes: {ranges} ranges of 64 KiB touched, {told} bytes told in {records} records by the resync");
    // a record for each range at most, and a few for the file and the markers
    assert!(told <= ranges * UNIT && records <= ranges + 1000, "{told} bytes in {records} records for {ranges} ranges");
    // numbers of files that were removed, given to others
    site.sandbox.reelfs(["pair", "split", "cost"]).ok();
    let mut numbers = BTreeSet::new();
    for number in 0..200 {
        let name = mount.join(&format!("f{number}"));
        numbers.insert(fs::metadata(&name).unwrap().ino());
        fs::remove_file(name).unwrap();
    }
    let mut again = 0;
    for number in 0..200 {
        let name = mount.join(&format!("f{}", number * 7 % 400));
        fs::write(&name, random.bytes(900)).unwrap();
        again += u64::from(numbers.contains(&fs::metadata(&name).unwrap().ino()));
    }
    assert!(again > 0, "the file system gave no number twice");
    let bytes = site.resync();
    assert!(bytes < 200 * 900 + 2_000 * 64 + (64 << 10), "{bytes}");
    site.assert_twin(mount);
}

#[test]
fn a_group_whose_writers_wait_answers_everything_else() {
    let site = Site::new("block", "16MiB", |pvol| fs::write(pvol.join("old"), "was there").unwrap());
    let mount = site.sandbox.mount("cost", "mnt");
    let waits = || site.status()["mount"]["writers_waiting"].as_u64().unwrap() > 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| fs::write(mount.join("too-much"), vec![3; 24 << 20]));
        assert!(wait::until(Duration::from_secs(60), waits), "nobody waits");
        assert_eq!(fs::read_to_string(mount.join("old")).unwrap(), "was there");
        assert_eq!(fs::metadata(mount.join("old")).unwrap().len(), 9);
        assert!(fs::read_dir(mount.path()).unwrap().count() >= 2);
        assert!(site.status()["troubles"].to_string().contains("parked"));
        assert!(waits() && !writer.is_finished());
        site.sandbox.export("cost", &site.tapes);
        writer.join().unwrap().unwrap();
        // and an unmount, while somebody waits again
        let writer = scope.spawn(|| fs::write(mount.join("more"), vec![4; 40 << 20]));
        assert!(wait::until(Duration::from_secs(60), waits), "nobody waits");
        rustix::process::kill_process(mount.pid(), rustix::process::Signal::TERM).unwrap();
        let error = writer.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()), "{error}");
    });
    assert!(wait::until(Duration::from_secs(60), || !support::mount::is_mounted(mount.path())));
    drop(mount);
    site.sandbox.export("cost", &site.tapes);
    let restored = site.sandbox.restore(&site.tapes, "latest", "restored");
    Tree::of(&site.pvol).assert_same(&Tree::of(&restored), "what was acknowledged");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}
