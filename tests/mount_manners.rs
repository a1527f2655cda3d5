//! Mount manners: mount(8), fstab and systemd find what they know, and whoever comes after a mount finds a closed journal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};
use support::{Mount, Outcome, Sandbox, Tree, mount, program, tools, wait};

/// Patience with a process that ends.
const LIMIT: Duration = Duration::from_secs(60);

const RECOVERED: &str = "recovered after an unclean stop";

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

/// Whoever asks for the state of a group looks at its mounts, which are busy then: each test has a group name of its own.
fn umount(point: &Path) {
    rustix::mount::unmount(point, UnmountFlags::empty()).unwrap();
}

/// Where mount(8) and `/sbin/mount.fuse` look.
const HELPER: &str = "/sbin/mount.reelfs";
const HELPER_OF_FUSE: &str = "/sbin/mount.fuse.reelfs";
const PROGRAM: &str = "/usr/local/bin/reelfs";

/// Links to the program at some of these places and nothing at the others, for one test at a time; what was there comes back.
struct Links(File);

impl Links {
    fn new(wanted: &[&str]) -> Links {
        let turn = File::create("/tmp/reelfs-test-mount-helper.lock").unwrap();
        flock(&turn, FlockOperation::LockExclusive).unwrap();
        for link in [HELPER, HELPER_OF_FUSE, PROGRAM] {
            if fs::symlink_metadata(link).is_ok() {
                fs::rename(link, saved(link)).unwrap();
            }
            if wanted.contains(&link) {
                std::os::unix::fs::symlink(program::BINARY, link).unwrap();
            }
        }
        Links(turn)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in [HELPER, HELPER_OF_FUSE, PROGRAM] {
            _ = fs::remove_file(link);
            _ = fs::rename(saved(link), link);
        }
        _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn saved(link: &str) -> String {
    format!("{link}.saved-by-a-test")
}

/// mount(8) as an administrator types it, in the root directory and without any of our variables.
fn mount_8(arguments: &[&str]) -> Command {
    let mut command = Command::new(tools::find("mount").expect("util-linux"));
    command.args(arguments).current_dir("/").env("LC_ALL", "C").env_remove("REELFS_STATE_DIR").env_remove("HOME");
    command
}

/// Unmounts when the test ends early.
struct Point(PathBuf);

impl Drop for Point {
    fn drop(&mut self) {
        if mount::is_mounted(&self.0) {
            _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
        }
    }
}

/// The line of the mount table.
fn line_of(point: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    table.lines().find(|line| line.contains(text(point))).unwrap_or_default().to_owned()
}

fn has_ended(group: &str, sandbox: &Sandbox) -> bool {
    fs::read_to_string(sandbox.state().join(format!("groups/{group}/lock"))).is_ok_and(|holder| holder.is_empty())
}

#[test]
fn mount_8_mounts_a_group() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), Point(sandbox.directory("mnt")));
    sandbox.group("manners", &pvol);
    let _links = Links::new(&[HELPER, HELPER_OF_FUSE]);
    let state = format!("state_dir={}", text(&sandbox.state()));
    let with = |options: &str| format!("{options},{state}");
    let (path, plain) = (text(&point.0), with("_netdev,nofail,x-systemd.automount,noauto,user"));
    let said = Outcome::of(&mut mount_8(&["-t", "reelfs", "manners", path, "-o", &plain])).ok();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""), "mount(8) says nothing when it is done");
    let line = line_of(&point.0);
    assert!(line.starts_with("manners ") && line.contains(" fuse.reelfs rw,nosuid,nodev,noexec,"), "{line}");
    assert!(line.contains("allow_other"), "root's mounts are for everybody: {line}");
    fs::write(point.0.join("file"), "through").unwrap();
    let again = Outcome::of(&mut mount_8(&["-t", "reelfs", "manners", path, "-o", &state]));
    again.refused(32, &["is mounted already"]);
    // read-only for a while, by mount(8): the daemon goes on
    Outcome::of(&mut mount_8(&["-o", "remount,ro", path])).ok();
    assert!(line_of(&point.0).contains(" fuse.reelfs ro,"), "{}", line_of(&point.0));
    assert!(line_of(&point.0).contains("noexec"), "what was not named stays: {}", line_of(&point.0));
    fs::write(point.0.join("file"), "not now").unwrap_err();
    Outcome::of(&mut mount_8(&["-o", "remount,rw", path])).ok();
    fs::write(point.0.join("file"), "through").unwrap();
    Outcome::of(&mut mount_8(&["-o", "remount,sync", path])).refused(1, &["`sync` is not changed"]);
    tools::run("umount", &[path]);
    // at once again, by the other name of the type, read-only this time
    Outcome::of(&mut mount_8(&["-t", "fuse.reelfs", "manners", path, "-r", "-o", &state])).ok();
    assert!(line_of(&point.0).contains(" fuse.reelfs ro,"), "{}", line_of(&point.0));
    assert_eq!(fs::read_to_string(point.0.join("file")).unwrap(), "through");
    tools::run("umount", &[path]);
    let refused = |options: &str, group: &str, code: i32, part: &str| {
        let mut command = mount_8(&["-t", "reelfs", group, path, "-o", &with(options)]);
        Outcome::of(&mut command).refused(code, &[part]);
        assert!(!mount::is_mounted(&point.0));
    };
    refused("bogus", "manners", 1, "`bogus` is not a mount option");
    refused("rw", "Docs", 1, "`Docs`");
    refused("rw", "other", 32, "there is no group other");
    refused("rw", "/etc", 32, "not the directory of a group");
    Outcome::of(&mut mount_8(&["-f", "-t", "reelfs", "manners", path, "-o", &state])).ok();
    Outcome::of(&mut mount_8(&["-s", "-t", "reelfs", "manners", path, "-o", &with("bogus")])).ok();
    tools::run("umount", &[path]);
    // a name that is one in the current directory, too, reaches us as a path
    let mut command = mount_8(&["-t", "reelfs", "pvol", path, "-o", &state]);
    Outcome::of(command.current_dir(sandbox.root())).ok();
    assert!(line_of(&point.0).starts_with("manners "), "{}", line_of(&point.0));
    tools::run("umount", &[path]);
    assert!(wait::until(LIMIT, || has_ended("manners", &sandbox)));
}

#[test]
fn a_dead_mount_is_replaced_by_mount_8_and_never_goes_by_itself() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), Point(sandbox.directory("mnt")));
    sandbox.group("dead", &pvol);
    let _links = Links::new(&[HELPER]);
    let daemon = Mount::new(&sandbox, "dead", &point.0, &[]);
    fs::write(point.0.join("file"), "kept").unwrap();
    daemon.kill_and_leave();
    // an empty directory in its place would be taken for one whose files were removed
    assert!(mount::is_mounted(&point.0), "a mount has gone with its daemon");
    let answer = rustix::fs::statfs(&point.0).map(|_| ());
    assert_eq!(answer, Err(rustix::io::Errno::NOTCONN));
    let state = format!("state_dir={}", text(&sandbox.state()));
    let said = Outcome::of(&mut mount_8(&["-t", "reelfs", "dead", text(&point.0), "-o", &state])).ok();
    assert!(said.stderr.contains("the process behind it was dead") && said.stderr.contains(RECOVERED), "{said}");
    assert_eq!(fs::read_to_string(point.0.join("file")).unwrap(), "kept");
    assert_eq!(fs::read_to_string("/proc/self/mounts").unwrap().matches(text(&point.0)).count(), 1);
    umount(&point.0);
    assert!(wait::until(LIMIT, || has_ended("dead", &sandbox)));
}

#[test]
fn the_line_for_fstab_is_one_that_mount_8_mounts() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), Point(sandbox.directory("a place")));
    sandbox.group("fstab", &pvol);
    let path = text(&point.0);
    let line = sandbox.reelfs(["mount", "fstab", path, "-o", "noatime", "--print-fstab"]).ok().stdout;
    assert!(line.contains("a\\040place") && line.contains("  noatime,nofail,state_dir="), "{line}");
    assert!(!mount::is_mounted(&point.0), "printing mounts nothing");
    let json = sandbox.reelfs(["mount", "fstab", path, "-o", "noatime", "--print-fstab", "--json"]).ok().json();
    assert_eq!(json["fstab"].as_str(), Some(line.trim_end()));
    let fstab = sandbox.path("fstab");
    fs::write(&fstab, &line).unwrap();
    let _links = Links::new(&[HELPER]);
    let run = |arguments: &[&str]| Outcome::of(mount_8(arguments).env("LIBMOUNT_FSTAB", &fstab));
    run(&[path]).ok();
    assert!(line_of(Path::new("a\\040place")).contains(" fuse.reelfs rw,"), "{line}");
    assert!(line_of(Path::new("a\\040place")).contains("noatime"));
    run(&["-a"]).ok();
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    assert_eq!(table.matches("a\\040place").count(), 1, "what is mounted is not mounted again");
    umount(&point.0);
    run(&["-a", "-v"]).ok();
    assert!(fs::write(point.0.join("file"), "through").is_ok() && pvol.join("file").exists());
    umount(&point.0);
    assert!(wait::until(LIMIT, || has_ended("fstab", &sandbox)));
}

#[test]
fn the_program_itself_takes_what_sbin_mount_fuse_gives_it() {
    if !tools::root() || !tools::present(&["mount.fuse"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), Point(sandbox.directory("mnt")));
    sandbox.group("direct", &pvol);
    let _links = Links::new(&[PROGRAM]);
    let state = format!("state_dir={}", text(&sandbox.state()));
    Outcome::of(&mut mount_8(&["-t", "fuse.reelfs", "direct", text(&point.0), "-o", &state])).ok();
    assert!(mount::is_mounted(&point.0));
    umount(&point.0);
    assert!(wait::until(LIMIT, || has_ended("direct", &sandbox)));
    // a mistyped verb stays one
    sandbox.reelfs(["restor", "direct", "/x", "--to", "y"]).refused(2, &["restor"]);
}

/// A process in a mount namespace of its own, which has a copy of every mount.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Elsewhere {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", "echo in; exec sleep 1000"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "in\n");
        Elsewhere(child)
    }

    /// A path as this process sees it.
    fn path(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.0.id().to_string()).join("root").join(path.strip_prefix("/").unwrap())
    }

    fn mounts(&self) -> String {
        fs::read_to_string(format!("/proc/{}/mounts", self.0.id())).unwrap()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_helper_mounts_in_the_namespace_that_it_is_told() {
    if !tools::root() || !tools::present(&["unshare", "nsenter"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mnt"));
    sandbox.group("inside", &pvol);
    let _links = Links::new(&[HELPER]);
    let elsewhere = Elsewhere::new();
    let (state, namespace) =
        (format!("state_dir={}", text(&sandbox.state())), format!("/proc/{}/ns/mnt", elsewhere.0.id()));
    let arguments = ["-N", namespace.as_str(), "-t", "reelfs", "inside", text(&point), "-o", &state];
    Outcome::of(&mut mount_8(&arguments)).ok();
    assert!(!mount::is_mounted(&point) && elsewhere.mounts().contains(text(&point)), "mounted in the wrong namespace");
    fs::write(elsewhere.path(&point).join("file"), "through").unwrap();
    // the daemon lives there, too
    tools::run("nsenter", &[&format!("--mount={namespace}"), "umount", text(&point)]);
    assert!(wait::until(LIMIT, || has_ended("inside", &sandbox)), "the last mount has gone, and the daemon has not");
    assert_eq!(fs::read_to_string(pvol.join("file")).unwrap(), "through");
    let log = Mount::new(&sandbox, "inside", &point, &[]).umount();
    assert!(!log.contains(RECOVERED), "the journal was not closed:\n{log}");
}

#[test]
fn the_last_mount_may_go_in_another_namespace() {
    if !tools::root() || !tools::present(&["unshare"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point, tapes) = (sandbox.directory("pvol"), sandbox.directory("mnt"), sandbox.directory("tapes"));
    sandbox.group("last", &pvol);
    sandbox.base("last", &tapes);
    for by_signal in [false, true] {
        let daemon = Mount::new(&sandbox, "last", &point, &[]);
        let elsewhere = Elsewhere::new();
        if by_signal {
            kill_process(daemon.pid(), Signal::TERM).unwrap();
            assert!(wait::until(LIMIT, || !mount::is_mounted(&point)));
        } else {
            umount(&point);
        }
        let file = elsewhere.path(&point).join(format!("elsewhere-{by_signal}"));
        fs::write(&file, "journaled all the same").unwrap();
        drop(elsewhere);
        assert_eq!(daemon.wait(), Some(0), "the end of the last mount is a clean end");
    }
    let log = Mount::new(&sandbox, "last", &point, &[]).umount();
    assert!(!log.contains(RECOVERED) && !log.contains("adopted"), "the journal was not closed:\n{log}");
    sandbox.export("last", &tapes);
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "written in another namespace");
    assert!(restored.join("elsewhere-false").exists() && restored.join("elsewhere-true").exists());
}

#[test]
fn who_mounts_again_at_once_waits_for_the_former_daemon() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), Point(sandbox.directory("mnt")));
    sandbox.group("again", &pvol);
    for round in 0..5 {
        let daemon = Mount::new(&sandbox, "again", &point.0, &[]);
        fs::write(point.0.join("file"), format!("round {round}")).unwrap();
        // so that it cannot have ended when the next one looks
        kill_process(daemon.pid(), Signal::STOP).unwrap();
        umount(&point.0);
        let mut next = sandbox.command();
        next.args(["mount", "again", text(&point.0)]);
        let said = std::thread::scope(|scope| {
            let next = scope.spawn(move || Outcome::of(&mut next));
            wait::pause(Duration::from_millis(50 * (round + 1)));
            kill_process(daemon.pid(), Signal::CONT).unwrap();
            next.join().unwrap()
        });
        assert!(!said.ok().stderr.contains(RECOVERED));
        assert_eq!(daemon.wait_ended(), Some(0));
        assert_eq!(fs::read_to_string(point.0.join("file")).unwrap(), format!("round {round}"));
        let pid = sandbox.reelfs(["status", "--json"]).ok().json()["groups"][0]["mount"]["pid"].as_i64().unwrap();
        umount(&point.0);
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        assert!(wait::until(LIMIT, || has_ended("again", &sandbox)), "{pid:?} does not end");
    }
}

#[test]
fn a_daemon_ends_with_its_mount_although_its_directory_is_elsewhere() {
    let sandbox = Sandbox::new();
    sandbox.group("moved", &sandbox.directory("pvol"));
    let mount = sandbox.mount("moved", "mnt");
    fs::rename(sandbox.state(), sandbox.path("elsewhere")).unwrap();
    umount(mount.path());
    assert_eq!(mount.wait_ended(), Some(1), "what it would note has no place");
}

#[test]
fn mount_8_waits_for_the_former_daemon_and_says_nothing() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), Point(sandbox.directory("mnt")));
    sandbox.group("quietly", &pvol);
    let _links = Links::new(&[HELPER]);
    let daemon = Mount::new(&sandbox, "quietly", &point.0, &[]);
    kill_process(daemon.pid(), Signal::STOP).unwrap();
    umount(&point.0);
    let state = format!("state_dir={}", text(&sandbox.state()));
    let mut next = mount_8(&["-t", "reelfs", "quietly", text(&point.0), "-o", &state]);
    let said = std::thread::scope(|scope| {
        let next = scope.spawn(move || Outcome::of(&mut next));
        // `reelfs mount` says after a second what it waits for
        wait::pause(Duration::from_millis(1500));
        kill_process(daemon.pid(), Signal::CONT).unwrap();
        next.join().unwrap().ok()
    });
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
    assert_eq!(daemon.wait_ended(), Some(0));
    umount(&point.0);
    assert!(wait::until(LIMIT, || has_ended("quietly", &sandbox)));
}

#[test]
fn a_volume_is_mounted_again_at_once_while_others_stay() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (one, two) = (sandbox.directory("one"), sandbox.directory("two"));
    sandbox.group("several", &one);
    sandbox.reelfs(["pair", "create", "several/two", "--pvol", text(&two)]).ok();
    let first = sandbox.reelfs(["status", "--json"]).ok().json()["groups"][0]["volumes"][0]["name"].clone();
    let first = format!("several/{}", first.as_str().unwrap());
    let daemon = Mount::new(&sandbox, &first, &sandbox.directory("mnt1"), &[]);
    let point = Point(sandbox.directory("mnt2"));
    for round in 0..10 {
        sandbox.reelfs(["mount", "several/two", text(&point.0)]).ok();
        fs::write(point.0.join(format!("file{round}")), vec![1; 1 << 20]).unwrap();
        // umount(2) said EBUSY here now and then, with other tests beside it; by whom it was used is not known
        rustix::mount::unmount(&point.0, UnmountFlags::DETACH).unwrap();
    }
    let log = daemon.umount();
    assert!(!log.contains("recovered"), "{log}");
    assert_eq!(fs::read_dir(&two).unwrap().count(), 10);
}

#[test]
fn after_sigterm_and_after_umount_the_journal_is_closed_and_after_a_kill_it_is_not() {
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mnt"));
    sandbox.group("closed", &pvol);
    let write = |name: &str| fs::write(point.join(name), name).unwrap();
    let daemon = Mount::new(&sandbox, "closed", &point, &[]);
    write("by signal");
    daemon.umount();
    let daemon = Mount::new(&sandbox, "closed", &point, &[]);
    write("by umount");
    sandbox.reelfs(["umount", text(&point)]).ok();
    assert_eq!(daemon.wait(), Some(0));
    let daemon = Mount::new(&sandbox, "closed", &point, &[]);
    write("killed");
    let log = daemon.kill();
    assert!(!log.contains(RECOVERED), "not closed:\n{log}");
    let log = Mount::new(&sandbox, "closed", &point, &[]).umount();
    assert!(log.contains(RECOVERED), "a test that cannot see it proves nothing:\n{log}");
}

/// Whoever detaches a mount that is in use by hand gets the same as from us: it ends with the last user, or when it is asked twice.
/// What is mounted there since is left alone.
#[test]
fn a_mount_that_was_detached_by_hand_ends_when_it_is_asked_twice() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mnt"));
    sandbox.group("detached", &pvol);
    let daemon = Mount::new(&sandbox, "detached", &point, &[]);
    fs::write(point.join("held"), "open").unwrap();
    let held = File::open(point.join("held")).unwrap();
    tools::run("umount", &["-l", text(&point)]);
    tools::run("mount", &["-t", "tmpfs", "another", text(&point)]);
    let ask = || kill_process(daemon.pid(), Signal::TERM).unwrap();
    ask();
    assert!(wait::until(LIMIT, || daemon.log().contains("detached already")), "{}", daemon.log());
    // a second one at once would be the same wish
    wait::pause(Duration::from_millis(700));
    ask();
    assert_eq!(daemon.wait_ended(), Some(143));
    drop(held);
    tools::run("umount", &[text(&point)]);
}

/// What the service manager is told, up to a line.
fn told(socket: &UnixDatagram, until: &str) -> String {
    let (mut all, mut buffer) = (String::new(), [0; 4096]);
    while !all.lines().any(|line| line == until) {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}; told so far:\n{all}"));
        all.push_str(&String::from_utf8_lossy(&buffer[..length]));
        all.push('\n');
    }
    all
}

#[test]
fn the_service_manager_is_told_when_the_mount_is_live_and_when_it_ends() {
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mnt"));
    sandbox.group("service", &pvol);
    let unit = sandbox.reelfs(["mount", "service", text(&point), "-o", "noatime", "--print-unit"]).ok().stdout;
    assert!(unit.contains("\nType=notify\n") && unit.contains(&format!("RequiresMountsFor={}", text(sandbox.root()))));
    let json =
        sandbox.reelfs(["mount", "service", text(&point), "-o", "noatime", "--print-unit", "--json"]).ok().json();
    assert_eq!(json["unit"]["name"], "reelfs-service.service");
    assert_eq!(json["unit"]["text"].as_str().map(str::trim_end), Some(unit.trim_end()));
    if tools::find("systemd-analyze").is_some() {
        let file = sandbox.path("reelfs-service.service");
        fs::write(&file, &unit).unwrap();
        let verified = Command::new("systemd-analyze").arg("verify").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(!said.contains("reelfs-service.service:"), "{said}\n{unit}");
    }
    // the very words of the unit
    let words: Vec<&str> = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap().split(' ').collect();
    let address = sandbox.path("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("NOTIFY_SOCKET", &address).env_remove("REELFS_STATE_DIR");
    command.env("WATCHDOG_USEC", "400000");
    let daemon = Mount::from_command(command, &sandbox, &point).unwrap_or_else(|log| panic!("no mount:\n{log}"));
    let said = told(&socket, "READY=1");
    assert!(said.contains("EXTEND_TIMEOUT_USEC=") && said.contains("STATUS=opening the journal"), "{said}");
    assert!(said.contains("STATUS=service is mounted at"), "{said}");
    assert!(line_of(&point).contains("noatime"), "{}", line_of(&point));
    for _ in 0..3 {
        told(&socket, "WATCHDOG=1");
    }
    daemon.umount();
    told(&socket, "STOPPING=1");
}
