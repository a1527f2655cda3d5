//! Handles of one file that reach it by different ways: what one of them stores, writes or syncs is not lost by another.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{Disk, FileSystem, Mount, Sandbox, Tree, tools};

const SIZE: usize = 1 << 20;

struct Site {
    sandbox: Sandbox,
    mount: Mount,
    pvol: PathBuf,
    tapes: PathBuf,
}

impl Site {
    fn new(place: Option<&Path>, options: &[&str]) -> Site {
        Site::of_size("16MiB", place, options)
    }

    fn of_size(size: &str, place: Option<&Path>, options: &[&str]) -> Site {
        let sandbox = place.map_or_else(Sandbox::new, Sandbox::within);
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        let create = ["group", "create", "pages", "--pvol", pvol.to_str().unwrap(), "--size", size];
        let never = ["--on-full", "block", "--export-at", "never", "--export-every", "1d"];
        sandbox.reelfs(create.into_iter().chain(never)).ok();
        sandbox.base("pages", &tapes);
        let mount = Mount::new(&sandbox, "pages", &sandbox.directory("mnt"), options);
        fs::write(mount.join("file"), vec![b'a'; SIZE]).unwrap();
        sandbox.export("pages", &tapes);
        Site { sandbox, mount, pvol, tapes }
    }

    fn script(&self, words: &[&str]) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/shared_pages.py");
        let mut command = Command::new("python3");
        command.arg(script).args(words).current_dir(self.mount.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, words: &[&str]) {
        let status = self.script(words).wait().unwrap();
        assert!(status.success(), "{words:?}: {status}");
    }

    /// Runs a script up to where it waits for room in the journal; then there is some.
    fn run_without_room(&self, words: &[&str]) {
        let mut child = self.script(words);
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "waits\n");
        self.sandbox.export("pages", &self.tapes);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        // what was left of the filling may fill the journal again
        while child.try_wait().unwrap().is_none() {
            self.sandbox.export("pages", &self.tapes);
        }
        assert!(child.wait().unwrap().success());
    }

    fn end(self) {
        self.sandbox.export("pages", &self.tapes);
        let log = self.mount.umount();
        assert!(!log.contains("ERROR"), "{log}");
        let restored = self.sandbox.restore(&self.tapes, "latest", "restored");
        Tree::of(&self.pvol).assert_same(&Tree::of(&restored), "what handles of one file left");
    }
}

fn can_run() -> bool {
    tools::root() && tools::present(&["python3"])
}

/// The write waits for room, somebody else reads its page as it was and stores into it; then there is room.
fn a_store_beside_a_write_that_waits(options: &[&str], kind: &str) {
    let site = Site::new(None, options);
    site.run_without_room(&["waiting", "file", "filler", kind]);
    let bytes = fs::read(site.pvol.join("file")).unwrap();
    assert_eq!((&bytes[..4], &bytes[96..108]), (&b"YYYY"[..], &b"aaaaZZZZaaaa"[..]));
    site.end();
}

#[test]
fn a_store_beside_a_write_that_waits_loses_neither() {
    if can_run() {
        a_store_beside_a_write_that_waits(&[], "first");
    }
}

#[test]
fn a_store_beside_a_write_through_the_cache_that_waits_loses_neither() {
    if can_run() {
        a_store_beside_a_write_that_waits(&[], "beside");
    }
}

#[test]
fn a_mapping_that_comes_after_a_write_that_waits_loses_neither() {
    if can_run() {
        a_store_beside_a_write_that_waits(&[], "late");
    }
}

#[test]
fn a_store_by_a_second_inode_beside_a_write_that_waits_loses_neither() {
    if can_run() {
        a_store_beside_a_write_that_waits(&["--passthrough", "on"], "through");
    }
}

#[test]
fn an_open_does_not_wait_behind_a_page_that_waits() {
    if can_run() {
        let site = Site::new(None, &["--passthrough", "on"]);
        fs::write(site.mount.join("other"), vec![b'a'; SIZE]).unwrap();
        site.sandbox.export("pages", &site.tapes);
        site.run_without_room(&["opens", "file", "filler", "other"]);
        site.end();
    }
}

#[test]
fn stores_after_writes_past_the_cache_stay() {
    if can_run() {
        let site = Site::new(None, &[]);
        site.run(&["direct", "file", site.pvol.join("file").to_str().unwrap()]);
        site.end();
    }
}

/// The journal fills, so a large write is held up for longer than a page that comes back meanwhile.
fn a_store_that_passes_a_write(kind: &str) {
    if !can_run() {
        return;
    }
    let site = Site::of_size("64MiB", None, &[]);
    let used = || site.sandbox.reelfs(["journal", "show", "pages", "--json"]).ok().json()["used_ratio"].as_f64();
    let piece = vec![b'f'; 512 << 10];
    while used().expect("a ratio") < 0.93 {
        fs::write(site.mount.join("filler"), &piece).unwrap();
    }
    let mut child = site.script(&["passed", "file", site.pvol.join("file").to_str().unwrap(), kind]);
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "passed\n", "the page did not come back before the write");
    site.end();
}

#[test]
fn what_is_stored_into_the_pages_of_a_write_that_is_held_up_stays() {
    a_store_that_passes_a_write("plain");
}

#[test]
fn a_write_that_is_held_up_stays_where_another_went_past_the_cache_before() {
    a_store_that_passes_a_write("past");
}

#[test]
fn a_write_that_is_held_up_stays_where_its_pages_were_dropped_and_read_again() {
    a_store_that_passes_a_write("again");
}

#[test]
fn who_appends_by_two_inodes_appends() {
    if can_run() {
        let site = Site::new(None, &["--passthrough", "on"]);
        site.run(&["appends", "file"]);
        site.end();
    }
}

#[test]
fn a_sync_by_one_inode_has_what_was_stored_by_the_other() {
    if can_run() {
        let site = Site::new(None, &["--passthrough", "on"]);
        site.run(&["synced", "file", site.pvol.join("file").to_str().unwrap()]);
        site.end();
    }
}

#[test]
fn copies_and_allocations_of_a_synced_handle_are_durable() {
    if !can_run() {
        return;
    }
    const COUNT: u64 = 20;
    let outer = Sandbox::new();
    let disk = Disk::new(&outer, "disk", FileSystem::Ext4, 256);
    let site = Site::new(Some(disk.path()), &[]);
    for (number, what) in ["copy", "allocate"].into_iter().enumerate() {
        for flag in ["SYNC", "DSYNC"] {
            let name = format!("target-{number}-{flag}");
            fs::write(site.mount.join(&name), "").unwrap();
            let before = flushes(&site.pvol);
            site.run(&["durable", &name, "file", &COUNT.to_string(), what, flag]);
            let flushed = flushes(&site.pvol) - before;
            assert!(flushed >= COUNT, "{what}, {flag}: {flushed} flushes for {COUNT} changes");
        }
    }
    site.end();
}

/// How often the disk below a file was told to empty its cache.
fn flushes(path: &Path) -> u64 {
    let device = path.metadata().unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let figures = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    figures.split_whitespace().nth(15).expect("Linux 5.5").parse().unwrap()
}
