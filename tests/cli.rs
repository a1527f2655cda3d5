//! The command line as scripts see it: exit codes, JSON, what goes to which stream, and mounts in the background.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::program::{self, Outcome};
use support::{Sandbox, tools, wait};

/// A mount in the background, unmounted at the end whatever happens.
struct Background<'s> {
    sandbox: &'s Sandbox,
    point: PathBuf,
}

impl Background<'_> {
    fn new<'s>(sandbox: &'s Sandbox, group: &str, point: &Path) -> Background<'s> {
        sandbox.reelfs(["mount", group, path(point)]).ok();
        Background { sandbox, point: point.to_owned() }
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        if support::mount::is_mounted(&self.point) {
            let outcome = self.sandbox.reelfs(["umount", path(&self.point)]);
            assert!(outcome.code == 0 || std::thread::panicking(), "{outcome}");
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

fn status(sandbox: &Sandbox) -> Value {
    sandbox.reelfs(["status", "--json"]).ok().json()["groups"][0].clone()
}

#[test]
fn every_verb_has_help_on_stdout() {
    let sandbox = Sandbox::new();
    for verb in [
        "",
        "group",
        "group create",
        "group list",
        "group show",
        "group delete",
        "mount",
        "umount",
        "mark",
        "base",
        "base copy",
        "tape",
        "tape export",
        "tape list",
        "tape show",
        "tape verify",
        "points",
        "log",
        "restore",
        "protect",
        "status",
        "demo",
        "completions",
        "man",
    ] {
        let outcome = sandbox.reelfs(verb.split_whitespace().chain(["--help"])).ok();
        assert!(outcome.stdout.contains("Usage: reelfs") && outcome.stderr.is_empty(), "{outcome}");
    }
    let version = sandbox.reelfs(["--version"]).ok();
    assert_eq!(version.stdout, format!("reelfs {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_mistake_is_code_2_and_with_json_one_line_of_json() {
    let sandbox = Sandbox::new();
    for words in [
        vec!["restor"],
        vec!["mount"],
        vec!["group", "create", "Docs", "--pvol", "/"],
        vec!["mount", "--bogus"],
        vec![],
    ] {
        let outcome = sandbox.reelfs(&words);
        assert!(outcome.code == 2 && outcome.stdout.is_empty(), "{outcome}");
        let outcome = sandbox.reelfs(words.iter().copied().chain(["--json"]));
        assert!(outcome.code == 2 && outcome.stdout.is_empty(), "{outcome}");
        let error: Value = serde_json::from_str(&outcome.stderr).expect("one line of JSON");
        assert_eq!(
            (&error["message_type"], &error["code"], &error["schema"]),
            (&"exit_error".into(), &2.into(), &1.into())
        );
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }
}

#[test]
fn an_error_names_what_there_is_instead() {
    let sandbox = Sandbox::new();
    sandbox.reelfs(["group", "show", "docs"]).refused(10, &["there is no group docs", "reelfs group create docs"]);
    sandbox.group("books", &sandbox.directory("pvol"));
    for verb in [
        vec!["group", "show", "docs"],
        vec!["mark", "docs", "m"],
        vec!["status", "docs"],
        vec!["group", "delete", "docs"],
    ] {
        sandbox.reelfs(verb).refused(10, &["there is no group docs", "has: books"]);
    }
    let outcome = sandbox.reelfs(["group", "show", "docs", "--json"]);
    let error: Value = serde_json::from_str(&outcome.stderr).expect("one line of JSON");
    assert_eq!((outcome.code, &error["code"]), (10, &10.into()));
    assert!(error["hint"].as_str().is_some_and(|hint| hint.ends_with("has: books")));
}

#[test]
fn a_group_is_made_shown_and_deleted() {
    let sandbox = Sandbox::new();
    let (pvol, journal) = (sandbox.directory("pvol"), sandbox.directory("journal"));
    fs::write(pvol.join("file"), "stays").unwrap();
    let words =
        ["group", "create", "docs", "--pvol", path(&pvol), "--journal", path(&journal), "--size", "16MiB", "--json"];
    let created = sandbox.reelfs(words).ok();
    let last: Value = serde_json::from_str(created.stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["journal_size_bytes"], 16 << 20);
    let jvol = journal.join("docs.jvol");
    let metadata = fs::metadata(&jvol).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o7777), (16 << 20, 0o600));
    let again = &words[..words.len() - 1];
    sandbox.reelfs(again).refused(14, &["there is a group docs already"]);
    let shown = sandbox.reelfs(["group", "show", "docs", "--json"]).ok().json();
    assert_eq!((&shown["schema"], &shown["epoch"], &shown["base"]), (&1.into(), &1.into(), &Value::Null));
    assert_eq!(shown["pvol"], path(&fs::canonicalize(&pvol).unwrap()));
    assert_eq!(sandbox.reelfs(["group", "list", "--json"]).ok().json()["groups"][0]["group"], "docs");
    sandbox.reelfs(["group", "delete", "docs"]).ok();
    assert!(!jvol.exists() && !sandbox.state().join("groups/docs").exists());
    assert_eq!(fs::read_to_string(pvol.join("file")).unwrap(), "stays");
    assert_eq!(sandbox.reelfs(["group", "list"]).ok().stdout, "");
}

#[test]
fn a_deletion_can_be_looked_at_first() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("docs", &pvol);
    sandbox.base("docs", &tapes);
    let mount = sandbox.mount("docs", "mnt");
    fs::write(mount.join("file"), "on no tape").unwrap();
    mount.umount();
    let look = ["group", "delete", "docs", "--dry-run"];
    let told = sandbox.reelfs(look).ok().stdout;
    let parts = ["would delete group docs", "that no tape has: only with --yes", path(&pvol), "1 directory of tapes"];
    parts.iter().for_each(|part| assert!(told.contains(part), "{part}:\n{told}"));
    let json = sandbox.reelfs(look.iter().chain(&["--json"])).ok().json();
    assert!(json["dry_run"] == true && json["changes_lost"].as_u64() > Some(0), "{json}");
    sandbox.reelfs(["group", "show", "docs"]).ok();
}

#[test]
fn a_broken_group_hides_no_other_and_is_told_by_the_exit_code() {
    let sandbox = Sandbox::new();
    sandbox.group("docs", &sandbox.directory("pvol"));
    let broken = sandbox.state().join("groups/broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("group.json"), "").unwrap();
    for look in [["status"].as_slice(), &["group", "list"], &["pair", "list"]] {
        let outcome = sandbox.reelfs(look);
        assert!(outcome.stdout.contains("docs"), "{outcome}");
        outcome.refused(3, &["group broken cannot be looked at", "is not a group file", "hint: "]);
        let json = sandbox.reelfs(look.iter().chain(&["--json"]));
        assert_eq!((json.code, json.json().to_string().contains("docs")), (3, true), "{json}");
    }
}

#[test]
fn what_verbs_log_is_a_warning_and_with_json_it_is_json() {
    let sandbox = Sandbox::new();
    sandbox.group("docs", &sandbox.directory("pvol"));
    sandbox.base("docs", &sandbox.directory("tapes"));
    let split = sandbox.reelfs(["pair", "split", "docs"]).ok();
    assert!(split.stderr.starts_with("warning: suspended"), "{split}");
    let again = sandbox.reelfs(["pair", "resync", "docs", "--json"]).ok();
    assert!(!again.stderr.is_empty(), "{again}");
    for line in again.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(line["message_type"], "warning");
    }
}

#[test]
fn words_that_a_tired_administrator_types_change_nothing() {
    let sandbox = Sandbox::new();
    let (pvol, here) = (sandbox.directory("pvol"), sandbox.root());
    sandbox.group("docs", &pvol);
    let again = ["group", "create", "other", "--pvol", path(&pvol)];
    sandbox.reelfs(again).refused(2, &["is protected by group docs already", "reelfs status docs"]);
    sandbox.reelfs(["umount", "docs"]).refused(10, &["docs is a group", "reelfs status docs"]);
    sandbox
        .reelfs(["wait", "docs", "--applied", "latest", "--timeout", "5"])
        .refused(2, &["has no unit: 5s, 5m or 5h"]);
    sandbox.reelfs(["group", "create", "empty", "--size", "16MiB"]).ok();
    let replica = here.join("replica");
    sandbox.reelfs(["follow", "empty", "--once", "--to", path(&replica)]).refused(10, &["has no volume yet"]);
    let left: Vec<_> = fs::read_dir(here).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("replica")), "{left:?}");
    let mut command = Command::new(program::BINARY);
    program::with_environment(&mut command, &sandbox.state());
    let output = command.args(["status"]).env("REELFS_LOG", "=,=").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_refused_group_leaves_nothing() {
    let sandbox = Sandbox::new();
    let (pvol, other) = (sandbox.directory("pvol"), sandbox.directory("other"));
    let inside = sandbox.directory("pvol/inside");
    fs::write(sandbox.path("file"), "").unwrap();
    let create = |pvol: &Path, more: &[&str]| {
        sandbox.reelfs(["group", "create", "docs", "--pvol", path(pvol)].iter().chain(more))
    };
    create(&sandbox.path("missing"), &[]).refused(10, &["the PVOL", "is not there"]);
    create(&sandbox.path("file"), &[]).refused(2, &["is not a directory"]);
    create(&pvol, &["--journal", path(&inside)]).refused(2, &["the journal directory", "inside the PVOL"]);
    create(&pvol, &["--journal", path(&sandbox.path("missing"))]).refused(10, &["the journal directory"]);
    create(sandbox.root(), &[]).refused(2, &["the state directory", "inside the PVOL"]);
    create(&pvol, &["--size", "15MiB"]).refused(2, &["16 MiB is the least"]);
    create(&pvol, &["--size", "1GB"]).refused_by_clap(&["is not a size"]);
    create(&pvol, &["--journal", path(&other), "--size", "1000TiB"])
        .refused(22, &["no room for a journal of 1000 TiB"]);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "a journal is left");
    assert!(!sandbox.state().join("groups/docs").exists(), "a group is left");
    create(&pvol, &["--size", "16MiB"]).ok();
    sandbox.reelfs(["group", "create", "inner", "--pvol", path(&inside)]).refused(2, &["overlaps", "group docs"]);
}

trait RefusedByClap {
    fn refused_by_clap(self, parts: &[&str]) -> Outcome;
}

impl RefusedByClap for Outcome {
    fn refused_by_clap(self, parts: &[&str]) -> Outcome {
        self.refused(2, parts)
    }
}

#[test]
fn a_mount_in_the_background_answers_and_goes() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    let point = sandbox.directory("mount");
    sandbox.group("docs", &pvol);
    assert_eq!(status(&sandbox)["state"], "SMPL");
    let mount = Background::new(&sandbox, "docs", &point);
    fs::write(point.join("file"), "first").unwrap();
    assert_eq!(fs::read_to_string(pvol.join("file")).unwrap(), "first");
    let live = status(&sandbox);
    assert_eq!(live["mount"]["mountpoint"], path(&fs::canonicalize(&point).unwrap()));
    let pid = live["mount"]["pid"].as_u64().expect("a process");

    sandbox.reelfs(["mount", "docs", path(&point)]).refused(11, &["is mounted already", "reelfs umount"]);
    let second = sandbox.directory("second");
    sandbox
        .reelfs(["mount", "docs", path(&second)])
        .refused(11, &["is mounted already, at", &format!("by process {pid}")]);
    sandbox.reelfs(["group", "delete", "docs"]).refused(11, &["in use by process"]);

    let marked = sandbox.reelfs(["mark", "docs", "here", "--note", "a line", "--json"]).ok().json();
    let time = marked["time"].as_str().expect("a time");
    assert!(time.len() == "2026-11-20T12:04:59.871203000Z".len() && time.ends_with('Z'), "{time}");
    sandbox.base("docs", &tapes).ok();
    let copied = status(&sandbox);
    assert_eq!((&copied["state"], &copied["last_marker"]["name"]), (&"PAIR".into(), &"here".into()));
    assert_eq!(copied["targets"][0]["waiting_records"], 0);
    fs::write(point.join("file"), "second").unwrap();
    assert!(status(&sandbox)["targets"][0]["waiting_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let nothing = sandbox.export("docs", &tapes).ok();
    assert!(nothing.stdout.contains(".upd.reel.tar.zst"), "{nothing}");
    assert!(sandbox.export("docs", &tapes).ok().stdout.contains("nothing new"));

    sandbox.reelfs(["umount", path(&point)]).ok();
    // one that waits to be reaped has no command line any more
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(command_line.is_empty(), "the process is still there after umount");
    assert!(!sandbox.state().join("groups/docs/control.sock").exists());
    assert_eq!(status(&sandbox)["mount"], Value::Null);
    sandbox.reelfs(["umount", path(&point)]).refused(10, &["no group is mounted"]);
    drop(mount);
}

#[test]
fn a_failing_start_is_told_where_it_was_typed() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    let point = sandbox.directory("mount");
    sandbox.group("docs", &pvol);
    let jvol = sandbox.state().join("groups/docs/docs.jvol");
    fs::rename(&jvol, sandbox.path("away")).unwrap();
    sandbox.reelfs(["mount", "docs", path(&point)]).refused(10, &["docs.jvol"]);
    let outcome = sandbox.reelfs(["mount", "docs", path(&point), "--json"]);
    let error: Value = serde_json::from_str(&outcome.stderr).expect("one line of JSON");
    assert_eq!((outcome.code, &error["code"]), (10, &10.into()));
    fs::rename(sandbox.path("away"), &jvol).unwrap();
    drop(Background::new(&sandbox, "docs", &point));
}

#[test]
fn a_killed_mount_is_named_by_status_and_replaced() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    sandbox.group("docs", &pvol);
    let mount = support::Mount::new(&sandbox, "docs", &pvol, &[]);
    fs::write(pvol.join("file"), "kept").unwrap();
    assert_eq!(fs::read_dir(&pvol).unwrap().count(), 1, "and the kernel has the listing in its cache");
    let second = sandbox.directory("mount");
    mount.kill_and_leave();
    sandbox.reelfs(["mark", "docs", "here"]).refused(11, &["is a mount whose daemon is dead", "reelfs umount"]);
    let text = sandbox.reelfs(["status"]).ok().stdout;
    assert!(text.contains("is dead; go on with: reelfs mount docs"), "{text}");
    let started = sandbox.reelfs(["mount", "docs", path(&second)]).ok();
    let mount = Background { sandbox: &sandbox, point: second.clone() };
    assert!(started.stderr.contains("the process behind it was dead"), "{started}");
    assert!(started.stderr.contains("recovered after an unclean stop"), "{started}");
    assert_eq!(fs::read_to_string(second.join("file")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(pvol.join("file")).unwrap(), "kept", "the dead mount is gone");
    drop(mount);
}

#[test]
fn a_busy_mount_is_not_taken_away_by_umount_but_by_a_signal() {
    let sandbox = Sandbox::new();
    let point = sandbox.directory("mount");
    sandbox.group("docs", &sandbox.directory("pvol"));
    let mount = support::Mount::new(&sandbox, "docs", &point, &[]);
    let held = fs::File::create(point.join("held")).unwrap();
    sandbox.reelfs(["umount", path(&point)]).refused(11, &["is in use"]);
    assert_eq!(status(&sandbox)["mount"]["open_files"], 1);
    rustix::process::kill_process(mount.pid(), rustix::process::Signal::TERM).unwrap();
    assert!(wait::until(std::time::Duration::from_secs(10), || { !support::mount::is_mounted(&point) }));
    drop(held);
    assert!(wait::until(std::time::Duration::from_secs(10), || { status(&sandbox)["mount"].is_null() }));
    let strict = support::Mount::new(&sandbox, "docs", &point, &["--strict"]);
    strict.umount();
    drop(mount);
}

#[test]
fn words_after_o_are_understood_or_named() {
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mount"));
    sandbox.group("docs", &pvol);
    let mount = |options: &str| sandbox.reelfs(["mount", "docs", path(&point), "-o", options]);
    mount("ro,bogus").refused(2, &["`bogus` is not a mount option"]);
    fs::write(point.join("in the way"), "").unwrap();
    mount("ro").refused(14, &["is not empty", "-o nonempty"]);
    mount("nonempty,ro,_netdev,nofail,x-systemd.automount").ok();
    let mounted = Background { sandbox: &sandbox, point: point.clone() };
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(path(&point))).expect("the mount");
    assert!(line.starts_with("docs ") && line.contains(" fuse.reelfs ro,"), "{line}");
    assert_eq!(fs::write(point.join("x"), "").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    drop(mounted);
}

#[test]
fn the_mountpoint_may_not_overlap() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("around/pvol");
    sandbox.group("docs", &pvol);
    let refuse =
        |point: &Path, code: i32, parts: &[&str]| sandbox.reelfs(["mount", "docs", path(point)]).refused(code, parts);
    refuse(&sandbox.directory("around/pvol/inside"), 2, &["lies inside the PVOL"]);
    refuse(&sandbox.directory("around"), 2, &["lies around the PVOL"]);
    refuse(&sandbox.state(), 2, &["the state directory"]);
    refuse(&sandbox.path("missing"), 10, &["is not there", "mkdir"]);
    std::os::unix::fs::symlink(&pvol, sandbox.path("link")).unwrap();
    let mount = Background::new(&sandbox, "docs", &sandbox.path("link"));
    assert!(support::mount::is_mounted(&fs::canonicalize(&pvol).unwrap()), "a link to the PVOL is the PVOL");
    sandbox.reelfs(["umount", path(&sandbox.path("link"))]).ok();
    drop(mount);
}

#[test]
fn a_reader_who_goes_is_no_failure_and_a_full_disk_is() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.command().args(["completions", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.take().expect("a pipe").read_exact(&mut first).unwrap();
    assert!(child.wait().unwrap().success());
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = sandbox.command().args(["man"]).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(22));
}

#[test]
fn colour_only_when_asked_or_on_a_terminal() {
    let sandbox = Sandbox::new();
    let plain = sandbox.reelfs(["group", "show", "docs"]);
    assert!(!plain.stderr.contains('\u{1b}'), "{plain}");
    let painted = sandbox.reelfs(["group", "show", "docs", "--color", "always"]);
    assert!(painted.stderr.contains('\u{1b}'), "{painted}");
}

#[test]
fn the_man_page_and_completions_are_well_formed() {
    let sandbox = Sandbox::new();
    let page = sandbox.reelfs(["man", "restore"]).ok().stdout;
    assert!(page.contains(".TH") && page.contains("marker:"), "{page}");
    sandbox.reelfs(["man", "bogus"]).refused(2, &["is no verb", "restore"]);
    let script = sandbox.path("reelfs.bash");
    fs::write(&script, sandbox.reelfs(["completions", "bash"]).ok().stdout).unwrap();
    tools::run("bash", &["-n", path(&script)]);
}

#[test]
fn an_ordinary_user_mounts_with_fusermount3() {
    if !tools::root() || !tools::present(&["setpriv", "fusermount3"]) {
        return;
    }
    let mode = fs::metadata("/dev/fuse").expect("FUSE").permissions().mode();
    if mode & 0o006 != 0o006 && !tools::is_ci() {
        eprintln!("not run: /dev/fuse is not open to ordinary users here");
        return;
    }
    let sandbox = Sandbox::new();
    tools::shell(
        sandbox.root(),
        "chmod 755 .; mkdir -m 700 pvol point state-of-nobody; chown nobody pvol point state-of-nobody",
    );
    // the target directory need not be open to others
    let binary = sandbox.path("reelfs");
    fs::copy(program::BINARY, &binary).unwrap();
    let user = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", path(&binary)]).args(words);
        Outcome::of(program::with_environment(&mut command, &sandbox.path("state-of-nobody")))
    };
    let (pvol, point) = (sandbox.path("pvol"), sandbox.path("point"));
    user(&["group", "create", "docs", "--pvol", path(&pvol), "--size", "16MiB"]).ok();
    user(&["mount", "docs", path(&point)]).ok();
    let script = format!("echo mine >{0}/file && cat {0}/file", path(&point));
    let mut shell = Command::new("setpriv");
    shell.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "sh", "-c", &script]);
    let said = Outcome::of(&mut shell);
    let unmounted = user(&["umount", path(&point)]);
    assert_eq!(said.stdout, "mine\n", "{said}");
    unmounted.ok();
    assert_eq!(fs::read_to_string(pvol.join("file")).unwrap(), "mine\n");
}
