//! What the mount promises: it behaves as the directory below it, in place and beside it, for root and for others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{Disk, FileSystem, Mount, Outcome, Sandbox, Tree, mount, program, tools, wait};

/// Files of the crowd, and what the daemon may have open.
const CROWD: usize = 100_000;

#[test]
fn a_mount_answers_as_the_directory_below_it() {
    if !tools::present(&["python3", "setpriv"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (plain, pvol) = (sandbox.directory("plain"), sandbox.directory("pvol"));
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.group("probe", &pvol);
    let options: &[&str] = if rustix::process::geteuid().is_root() { &["-o", "allow_other"] } else { &[] };
    let mount = Mount::new(&sandbox, "probe", &sandbox.directory("mnt"), options);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/probe.py");
    let ask = |directory: &Path| tools::shell(directory, &format!("python3 {} 2>&1", script.display()));
    let (expected, answers) = (ask(&plain), ask(mount.path()));
    assert!(expected.lines().count() > 80, "the probe asked little:\n{expected}");
    let pairs = expected.lines().zip(answers.lines());
    let differing: Vec<String> =
        pairs.filter(|(one, two)| one != two).map(|(one, two)| format!("{one}\n  the mount: {two}")).collect();
    assert!(differing.is_empty(), "the mount answers otherwise:\n{}", differing.join("\n"));
    assert_eq!(expected.lines().count(), answers.lines().count());
    mount.umount();
    Tree::of(&plain).without_times().assert_same(&Tree::of(&pvol).without_times(), "what the probe left");
}

#[test]
fn a_file_is_as_long_as_the_disk_made_it_before_it_had_no_more_room() {
    if !tools::holds(tools::root(), "root, to mount a disk") {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 64);
    let pvol = disk.directory("pvol");
    sandbox.group("small", &pvol);
    let mount = sandbox.mount("small", "mnt");
    let file = File::create(mount.join("file")).unwrap();
    let refused = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 256 << 20);
    assert_eq!(refused, Err(rustix::io::Errno::NOSPC));
    let length = || (file.metadata().unwrap().len(), fs::metadata(pvol.join("file")).unwrap().len());
    let (told, there) = length();
    assert_eq!(told, there);
    assert!(told > 0, "this file system makes no file longer before it looks for room: nothing was shown");
    drop(file);
    mount.umount();
}

/// The file system frees before it looks for room, or zeroes piece by piece: what it had, it has no more when it refuses.
#[test]
fn what_a_refused_zeroing_took_is_gone_in_the_journal_too() {
    if !tools::holds(tools::root(), "root, to mount a disk") {
        return;
    }
    for kind in [FileSystem::Ext4, FileSystem::Xfs] {
        let sandbox = Sandbox::new();
        let disk = Disk::new(&sandbox, "disk", kind, 400);
        let (pvol, tapes) = (disk.directory("pvol"), sandbox.directory("tapes"));
        sandbox.group("small", &pvol);
        sandbox.base("small", &tapes);
        let mount = sandbox.mount("small", "mnt");
        fs::write(mount.join("file"), vec![b'a'; 1 << 20]).unwrap();
        let file = File::options().read(true).write(true).open(mount.join("file")).unwrap();
        assert_eq!(fs::read(mount.join("file")).unwrap()[..4], *b"aaaa");
        let refused = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::ZERO_RANGE, 0, 1 << 30);
        assert_eq!(refused, Err(rustix::io::Errno::NOSPC));
        let (told, there) = (fs::read(mount.join("file")).unwrap(), fs::read(pvol.join("file")).unwrap());
        assert_eq!(told.len(), there.len());
        assert!(told == there, "{kind:?}: the mount shows what is no longer there");
        assert!(there[..1 << 20].iter().all(|&byte| byte == 0), "{kind:?}: half of it");
        drop(file);
        sandbox.export("small", &tapes);
        mount.umount();
        // as small as the first: what was refused there must not be asked for here
        let second = Disk::new(&sandbox, "second", kind, 400);
        let restored = second.path().join("restored");
        let words = ["restore", "--tapes", tapes.to_str().unwrap(), "--to", restored.to_str().unwrap()];
        sandbox.reelfs(words).ok();
        Tree::of(&pvol).assert_same(&Tree::of(&restored), "after a refused zeroing");
    }
}

#[test]
fn files_that_were_written_anew_are_closed_however_many_at_once() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    sandbox.group("docs", &pvol);
    let mount = sandbox.mount("docs", "mnt");
    let names: Vec<_> = (0..200).map(|number| mount.join(&format!("file{number}"))).collect();
    names.iter().for_each(|name| fs::write(name, "old").unwrap());
    let open: Vec<File> = names.iter().map(|name| File::create(name).unwrap()).collect();
    open.iter().for_each(|mut file| file.write_all(b"new").unwrap());
    let held = || {
        let of_daemon = fs::read_dir(format!("/proc/{}/fd", mount.pid().as_raw_nonzero())).unwrap();
        let to_write = |fd: &fs::DirEntry| fs::symlink_metadata(fd.path()).is_ok_and(|link| link.mode() & 0o200 != 0);
        let of_volume = |fd: &fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(&pvol));
        of_daemon.flatten().filter(|fd| to_write(fd) && of_volume(fd)).count()
    };
    assert_eq!(held(), names.len());
    drop(open);
    assert!(wait::until(Duration::from_secs(20), || held() == 0), "{} are open still", held());
    names.iter().for_each(|name| assert_eq!(fs::read(name).unwrap(), b"new"));
    mount.umount();
}

#[test]
fn in_place_it_is_the_same_directory() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    fs::write(pvol.join("before"), b"was there").unwrap();
    sandbox.group("inplace", &pvol);
    let inode = fs::metadata(pvol.join("before")).unwrap().ino();
    let mount = Mount::new(&sandbox, "inplace", &pvol, &[]);
    assert_eq!(fs::read(pvol.join("before")).unwrap(), b"was there");
    assert_eq!(fs::metadata(pvol.join("before")).unwrap().ino(), inode, "inode numbers are those of the volume");
    sandbox.base("inplace", &tapes);
    fs::write(pvol.join("through"), b"the mount").unwrap();
    sandbox.export("inplace", &tapes);
    mount.umount();
    assert_eq!(fs::read(pvol.join("through")).unwrap(), b"the mount");
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "in place");
}

#[test]
fn a_hundred_thousand_files_with_a_thousand_descriptors() {
    if !tools::present(&["prlimit"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    for number in 0..CROWD {
        let directory = pvol.join(format!("d{}", number % 100));
        if number < 100 {
            fs::create_dir(&directory).unwrap();
        }
        File::create(directory.join(format!("f{number}"))).unwrap();
    }
    sandbox.group_of_size("crowd", &pvol, "128MiB");
    sandbox.base("crowd", &tapes);
    let point = sandbox.directory("mnt");
    let mut command = Command::new("prlimit");
    command.args(["--nofile=1024:", program::BINARY, "mount", "crowd"]).arg(&point).arg("-f");
    program::with_environment(&mut command, &sandbox.state());
    let mount = Mount::from_command(command, &sandbox, &point).unwrap_or_else(|log| panic!("no mount:\n{log}"));
    let mut seen = 0;
    for entry in walkdir::WalkDir::new(mount.path()) {
        seen += usize::from(entry.unwrap().metadata().unwrap().is_file());
    }
    assert_eq!(seen, CROWD);
    // all known to the kernel at once; now many are touched, renamed, and held open
    let mut held = Vec::new();
    for number in (0..CROWD).step_by(50) {
        let path = mount.join(&format!("d{}/f{number}", number % 100));
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"touched").unwrap();
        if held.len() < 800 {
            held.push(file);
        }
        fs::rename(&path, path.with_extension("renamed")).unwrap();
    }
    held.iter_mut().for_each(|file| file.write_all(b" twice").unwrap());
    drop(held);
    sandbox.export("crowd", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "a crowd");
}

#[test]
fn in_the_background_it_returns_when_the_mount_is_live() {
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mnt"));
    fs::write(pvol.join("file"), b"there").unwrap();
    sandbox.group("background", &pvol);
    let path = point.to_str().unwrap();
    let _umount = Umount(&sandbox, path);
    sandbox.reelfs(["mount", "background", path]).ok();
    assert_eq!(fs::read(point.join("file")).unwrap(), b"there");
    let socket = sandbox.state().join("groups/background/control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600, "the control socket is ours alone");
    let status = sandbox.reelfs(["status", "background"]).ok();
    assert!(status.stdout.contains(path), "{status}");
    fs::write(point.join("new"), b"written").unwrap();
    sandbox.reelfs(["umount", path]).ok();
    assert!(!mount::is_mounted(&point));
    assert_eq!(fs::read(pvol.join("new")).unwrap(), b"written");
    sandbox.reelfs(["umount", path]).refused(10, &[]);
    // a socket that a dead daemon left is noticed: commands work without it
    sandbox.mark("background", "unmounted");
}

/// Unmounts when the test ends early.
struct Umount<'s>(&'s Sandbox, &'s str);

impl Drop for Umount<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.reelfs(["umount", self.1]));
        }
    }
}

#[test]
fn an_ordinary_user_does_all_of_it() {
    if !tools::root() || !tools::present(&["setpriv", "fusermount3"]) {
        return;
    }
    let device = fs::metadata("/dev/fuse").expect("FUSE is there").permissions().mode();
    if !tools::holds(device & 0o006 == 0o006, "a /dev/fuse of mode 0666") {
        return;
    }
    let sandbox = Sandbox::new();
    let home = sandbox.directory("home");
    tools::shell(
        sandbox.root(),
        "chmod 755 .
         mkdir home/pvol home/mnt home/tapes home/state; echo mine >home/pvol/file; chown -R 65534:65534 home",
    );
    let binary = sandbox.path("reelfs");
    fs::copy(program::BINARY, &binary).unwrap();
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args(words).current_dir(&home);
        Outcome::of(program::with_environment(&mut command, &home.join("state")))
    };
    as_nobody(&["group", "create", "mine", "--pvol", "pvol", "--size", "16MiB"]).ok();
    as_nobody(&["base", "copy", "mine", "--to", "tapes"]).ok();
    as_nobody(&["mount", "mine", "mnt"]).ok();
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let write = "echo new >mnt/new; mkdir mnt/d; ln mnt/new mnt/d/linked; chmod 600 mnt/new";
    tools::shell(&home, &format!("{nobody} sh -c '{write}'"));
    as_nobody(&["mark", "mine", "here"]).ok();
    as_nobody(&["tape", "export", "mine", "--to", "tapes"]).ok();
    as_nobody(&["umount", "mnt"]).ok();
    assert!(!mount::is_mounted(&home.join("mnt")));
    as_nobody(&["restore", "--tapes", "tapes", "--at", "marker:here", "--to", "back", "--yes"]).ok();
    Tree::of(&home.join("pvol")).assert_same(&Tree::of(&home.join("back")), "without root");
}
