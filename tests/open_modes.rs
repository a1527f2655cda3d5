//! Handles of every kind on one file at the same time: every write and every store reaches the journal, and nobody reads what is
//! old, whether reads pass through to the volume or not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use support::{Mount, Outcome, Sandbox, Tree, program, tools};

/// Long enough to be worth passing through.
const SIZE: usize = 1 << 20;

const WRITERS: [&str; 10] = [
    "tiny_appends",
    "hot_pages",
    "unaligned_megabytes",
    "stores",
    "o_append",
    "o_trunc",
    "truncate_by_path",
    "fallocate",
    "copy_file_range",
    "both_ways",
];

/// A group with a base copy, mounted with or without passthrough.
struct Site {
    mount: Mount,
    pvol: PathBuf,
    tapes: PathBuf,
    sandbox: Sandbox,
}

impl Site {
    fn new(options: &[&str]) -> Site {
        let sandbox = Sandbox::new();
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        sandbox.group_of_size("modes", &pvol, "128MiB");
        let mount = Mount::new(&sandbox, "modes", &sandbox.directory("mnt"), options);
        sandbox.base("modes", &tapes);
        Site { mount, pvol, tapes, sandbox }
    }

    /// A file that passes through.
    fn file(&self, name: &str) -> PathBuf {
        let path = self.mount.join(name);
        fs::write(&path, vec![b'a'; SIZE]).unwrap();
        path
    }

    /// What `status` says of the reads of the mount.
    fn reads(&self) -> (String, Option<String>) {
        let status = self.sandbox.reelfs(["status", "modes", "--json"]).ok().json();
        let mount = &status["groups"][0]["mount"];
        (mount["passthrough"].as_str().unwrap().to_owned(), mount["why"].as_str().map(str::to_owned))
    }

    fn script(&self, words: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/open_modes.py");
        tools::shell(self.sandbox.root(), &format!("python3 {} {words}", script.display()));
        self.sandbox.export("modes", &self.tapes);
    }

    /// What the journal brings back is what stands.
    fn end(self) -> String {
        self.sandbox.export("modes", &self.tapes);
        let log = self.mount.umount();
        assert!(!log.contains("ERROR"), "{log}");
        let restored = self.sandbox.restore(&self.tapes, "latest", "restored");
        Tree::of(&self.pvol).assert_same(&Tree::of(&restored), "what handles of all kinds left");
        log
    }
}

fn every_writer_beside_every_reader(passthrough: &str) {
    if !tools::present(&["python3"]) || !tools::root() {
        return;
    }
    let site = Site::new(&["--passthrough", passthrough]);
    let expected = if passthrough == "on" { "on" } else { "off" };
    assert_eq!(site.reads(), (expected.to_owned(), None));
    site.sandbox.directory("twin");
    for writer in WRITERS {
        site.script(&format!("matrix {writer} mnt twin {expected}"));
    }
    site.end();
}

#[test]
fn every_writer_beside_readers_that_pass_through() {
    every_writer_beside_every_reader("on");
}

#[test]
fn every_writer_beside_readers_of_the_cache() {
    every_writer_beside_every_reader("off");
}

fn interleavings(passthrough: &str) {
    if !tools::present(&["python3"]) {
        return;
    }
    let site = Site::new(&["--passthrough", passthrough]);
    for chunk in 0..tools::rounds(20, 200) {
        site.script(&format!("tangle {} 25 mnt pvol", chunk * 25));
    }
    site.end();
}

#[test]
fn interleavings_of_handles_some_of_which_pass_through() {
    interleavings("on");
}

#[test]
fn interleavings_of_handles_that_use_the_cache() {
    interleavings("off");
}

/// The inode of a lock must be one for all. So a file that a reader has locked is not opened for what needs a second one, and
/// passes nothing through from then on.
#[test]
fn who_locks_meets_everybody() {
    if !tools::root() {
        return;
    }
    let site = Site::new(&["--passthrough", "on"]);
    let path = site.file("locked");
    let open_both = || File::options().read(true).write(true).open(&path);
    let reader = File::open(&path).unwrap();
    rustix::fs::flock(&reader, FlockOperation::LockShared).unwrap();
    assert_eq!(open_both().unwrap_err().raw_os_error(), Some(16), "EBUSY");
    // who only writes is on the same inode
    let writer = File::options().write(true).open(&path).unwrap();
    let refused = rustix::fs::flock(&writer, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(rustix::io::Errno::WOULDBLOCK));
    drop((reader, writer));
    let reader = File::open(&path).unwrap();
    rustix::fs::flock(&reader, FlockOperation::LockShared).unwrap();
    let writer = open_both().unwrap();
    let refused = rustix::fs::flock(&writer, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(rustix::io::Errno::WOULDBLOCK));
    drop((reader, writer));
    site.end();
}

/// Other names of a file that has two inodes, what is run from the mount, and what is opened by its descriptor.
#[test]
fn names_programs_and_descriptors_lead_to_the_same_bytes() {
    if !tools::root() {
        return;
    }
    let site = Site::new(&["--passthrough", "on"]);
    let (path, other) = (site.file("one"), site.mount.join("other"));
    fs::hard_link(&path, &other).unwrap();
    let mut reader = File::open(&path).unwrap();
    let number = reader.metadata().unwrap().ino();
    let mut writer = File::options().read(true).write(true).open(&path).unwrap();
    writer.write_all(b"bbbb").unwrap();
    let mut second = File::options().read(true).write(true).open(&other).unwrap();
    for file in [&mut reader, &mut second] {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, *b"bbbb");
        assert_eq!(file.metadata().unwrap().ino(), number);
    }
    let descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    assert_eq!(&fs::read(descriptor).unwrap()[..4], b"bbbb");
    fs::write(&other, b"short").unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 5);
    assert_eq!(fs::read(&path).unwrap(), b"short");
    fs::remove_file(&path).unwrap();
    drop((reader, writer, second));
    assert_eq!(fs::read(&other).unwrap(), b"short");
    let run = site.mount.join("python");
    let python = tools::find("python3").unwrap();
    fs::copy(python, &run).unwrap();
    tools::run("chmod", &["755", run.to_str().unwrap()]);
    let said = Outcome::of(std::process::Command::new(&run).args(["-S", "-c", "print(6 * 7)"])).ok();
    assert_eq!(said.stdout, "42\n");
    site.end();
}

/// A second inode has a price that nobody pays unasked; a read-only mount needs none.
#[test]
fn unasked_only_a_mount_that_takes_no_writes_passes_reads_through() {
    if !tools::root() {
        return;
    }
    for (options, expected) in [(&[][..], "off"), (&["-o", "ro"], "on"), (&["-o", "ro,passthrough=off"], "off")] {
        let site = Site::new(options);
        assert_eq!(site.reads(), (expected.to_owned(), None), "{options:?}");
        site.end();
    }
}

/// A mount with little right of its own falls back to the cache, and says so.
#[test]
fn without_privileges_nothing_passes_through() {
    if !tools::root() || !tools::present(&["python3", "setpriv"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mnt"));
    sandbox.group("modes", &pvol);
    // enough to mount, in a user namespace of its own, which the kernel does not take files from
    let wrapper = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "unchanged"];
    let (program, at) = (program::BINARY, point.display());
    let probe = format!(
        "{program} mount modes {at} -f --passthrough on &
         for i in $(seq 300); do grep -q ' {at} fuse.reelfs' /proc/mounts && break; sleep 0.1; done
         head -c 4 {at}/large; {program} status modes --json; {program} umount {at}; wait"
    );
    fs::write(pvol.join("large"), vec![b'a'; SIZE]).unwrap();
    let mut command = std::process::Command::new("timeout");
    command.args(["-k", "5", "120"]).args(wrapper).args(["bash", "-c", &probe]);
    program::with_environment(&mut command, &sandbox.state());
    let said = Outcome::of(&mut command).ok();
    assert!(said.stdout.contains("aaaa") && said.stdout.contains(r#""passthrough":"refused""#), "{said}");
    assert!(said.stdout.contains("CAP_SYS_ADMIN"), "{said}");
}
