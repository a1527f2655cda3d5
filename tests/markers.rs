//! Markers: tags that are found again, moments at which nothing is under way, and hooks that make a database ready.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reelfs_journal::{Epoch, Jvol, SystemClock, Tags};
use reelfs_volume::{Noticed, OnFull, OpenOptions, Primary, Requester};
use serde_json::{Value, json};
use support::{Disk, FileSystem, Outcome, Sandbox, tools, wait};
use uuid::Uuid;

/// What a writer may wait for a frozen marker.
const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// A group `docs` with a directory and a base copy in `disk`.
fn group() -> Sandbox {
    group_of_size("16MiB")
}

fn group_of_size(size: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let (pvol, disk) = (sandbox.directory("pvol"), sandbox.directory("disk"));
    fs::write(pvol.join("file"), "first").unwrap();
    sandbox.group_of_size("docs", &pvol, size);
    sandbox.base("docs", &disk);
    sandbox
}

fn mark(sandbox: &Sandbox, words: &[&str]) -> Outcome {
    sandbox.reelfs(["mark", "docs"].iter().chain(words))
}

/// The markers that `points` lists.
fn markers(sandbox: &Sandbox) -> Vec<Value> {
    let lines = sandbox.reelfs(["points", "docs", "--json"]).ok().json_lines();
    lines.into_iter().filter(|line| line["kind"] == "marker").collect()
}

fn has(text: &str, part: &str) {
    assert!(text.contains(part), "`{part}` should be in:\n{text}");
}

#[test]
fn tags_are_shown_in_points_and_log_from_the_journal_and_from_tapes() {
    let sandbox = group();
    mark(&sandbox, &["plain"]).ok();
    let mount = sandbox.mount("docs", "mnt");
    mark(&sandbox, &["both", "--note", "pg 17", "--tag", "z=1", "--tag", "a=x = y", "--tag", "empty="]).ok();
    let shown = |from: &[&str]| {
        let outcome = |verb: &str, end: &[&str]| sandbox.reelfs([verb].iter().chain(from).chain(end)).ok();
        has(&outcome("points", &[]).stdout, "  pg 17  z=1 a=x = y empty=");
        has(&outcome("log", &[]).stdout, "point both pg 17  z=1 a=x = y empty=");
        // in order, which a parsed object has lost
        has(&outcome("points", &["--json"]).stdout, r#""tags":{"z":"1","a":"x = y","empty":""}"#);
        has(&outcome("log", &["--json"]).stdout, r#""tags":{"z":"1","a":"x = y","empty":""}"#);
        let lines = outcome("points", &["--json"]).json_lines();
        let plain = lines.iter().find(|line| line["name"] == "plain").unwrap();
        assert_eq!(plain.get("tags"), None, "no tags, no field");
    };
    shown(&["docs"]);
    sandbox.export("docs", &sandbox.path("disk"));
    shown(&["--tapes", text(&sandbox.path("disk"))]);
    mount.umount();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn bad_tags_are_usage_errors_and_nothing_is_marked() {
    let sandbox = group();
    let (fits, long) = ("x".repeat(255), "x".repeat(256));
    let refused = |tags: &[&str], sentence: &str| {
        let words = ["m"].into_iter().chain(tags.iter().flat_map(|tag| ["--tag", tag]));
        mark(&sandbox, &words.collect::<Vec<_>>()).refused(2, &[sentence, "--tag KEY=VALUE"]);
    };
    refused(&["nonsense"], "has no `=`");
    refused(&["=value"], "the key is empty");
    refused(&["k=1", "l=1", "k=2"], "the key `k` is there twice");
    refused(&[&format!("{long}=v")], "longer than 255 bytes");
    refused(&[&format!("k={long}")], "the value of `k` is longer than 255 bytes");
    let many: Vec<String> = (0..33).map(|number| format!("k{number}=")).collect();
    refused(&many.iter().map(String::as_str).collect::<Vec<_>>(), "33 tags are more than the 32");
    assert_eq!(markers(&sandbox), Vec::<Value>::new());
    let most: Vec<String> = (0..32).map(|number| format!("{number:02}{}={fits}", &fits[2..])).collect();
    let words = ["m"].into_iter().chain(most.iter().flat_map(|tag| ["--tag", tag]));
    mark(&sandbox, &words.collect::<Vec<_>>()).ok();
    assert_eq!(markers(&sandbox)[0]["tags"].as_object().unwrap().len(), 32);
    assert_eq!(markers(&sandbox)[0]["tags"][format!("31{}", &fits[2..])], json!(fits));
}

#[test]
fn while_changes_are_held_none_is_journaled_and_the_marker_lets_them_go() {
    let sandbox = Sandbox::in_memory();
    let (pvol, jvol, group) = (sandbox.directory("pvol"), sandbox.path("jvol"), Uuid::from_u128(1));
    Jvol::create(&jvol, Jvol::SIZE_MIN, group, &mut |_, _| {}).unwrap();
    let opened = Primary::start(OpenOptions {
        root: File::open(&pvol).unwrap().into(),
        jvol,
        group,
        state: sandbox.state(),
        epoch: Epoch(1),
        session: None,
        strict: false,
        on_full: OnFull::Block,
        clock: Arc::new(SystemClock),
    })
    .unwrap();
    let (primary, who) = (&opened.primary, Requester::reelfs());
    let file = primary.create(&who, primary.root(), OsStr::new("file"), 0o644, 0).unwrap().id.ino;
    primary.write(&who, file, 0, b"old", false).unwrap();
    let has_written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let held = primary.hold_changes(Duration::from_secs(60)).expect("nothing is under way");
        assert!(primary.hold_changes(Duration::from_millis(20)).is_none(), "held twice");
        let next = primary.jvol().pointers().next;
        scope.spawn(|| {
            primary.write(&who, file, 0, b"new", false).unwrap();
            has_written.store(true, Ordering::SeqCst);
        });
        wait::pause(Duration::from_millis(300));
        assert!(!has_written.load(Ordering::SeqCst), "a change went through");
        assert_eq!(
            primary.read(file, 0, 3, Noticed::Yes).unwrap(),
            b"old",
            "reads go on, and nothing is made ahead of the journal"
        );
        assert_eq!(primary.jvol().pointers().next, next, "nothing is journaled");
        let (seq, _) = primary.group().mark("m", "", &Tags::default(), vec![held]).unwrap();
        assert_eq!(seq, next, "the marker is the next record");
        assert!(wait::until(Duration::from_secs(60), || has_written.load(Ordering::SeqCst)), "still held");
    });
    primary.close(&opened.session).unwrap();
}

/// What one writer does: the same number to a first and then to a second file, as one request each.
struct Pair {
    files: [File; 2],
    written: AtomicU64,
}

impl Pair {
    /// Bytes of one write: several pages, and one request.
    const LENGTH: usize = 16 << 10;
    /// Most writes of one pair: two of them leave room in a journal of 256 MiB.
    const WRITES_MAX: u64 = 3_500;

    fn new(root: &Path, name: &str) -> Pair {
        let open = |half: &str| File::create(root.join(format!("{name}.{half}"))).unwrap();
        let pair = Pair { files: [open("a"), open("b")], written: AtomicU64::new(0) };
        pair.write(1);
        pair
    }

    /// Gives how long the slower write took.
    fn write(&self, number: u64) -> Duration {
        let bytes = number.to_le_bytes().repeat(Pair::LENGTH / 8);
        let slowest = self.files.iter().map(|file| {
            let begin = wait::now();
            assert_eq!(file.write_at(&bytes, 0).unwrap(), Pair::LENGTH, "one request");
            begin.elapsed()
        });
        let slowest = slowest.max().unwrap_or_default();
        self.written.store(number, Ordering::SeqCst);
        slowest
    }

    /// The number in a restored file, all of it the same.
    fn read(root: &Path, name: &str, half: &str) -> u64 {
        let bytes = fs::read(root.join(format!("{name}.{half}"))).unwrap();
        assert_eq!(bytes.len(), Pair::LENGTH, "{name}.{half}");
        let mut words = bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        let first = words.next().unwrap();
        assert!(words.all(|word| word == first), "half a write in {name}.{half}");
        first
    }
}

#[test]
fn a_frozen_marker_has_no_write_half_and_holds_writers_up_for_a_moment() {
    let sandbox = group_of_size("256MiB");
    let mount = sandbox.mount("docs", "mnt");
    let pairs = ["one", "two"].map(|name| Pair::new(mount.path(), name));
    let (is_over, stolen) = (AtomicBool::new(false), wait::stolen());
    let slowest = std::thread::scope(|scope| {
        let writers = [0, 1].map(|index| {
            let (pair, is_over) = (&pairs[index], &is_over);
            scope.spawn(move || {
                let until_over = (2..Pair::WRITES_MAX).take_while(|_| !is_over.load(Ordering::Relaxed));
                let slowest = until_over.map(|number| {
                    wait::pause(Duration::from_millis(2));
                    pair.write(number)
                });
                slowest.max().unwrap_or_default()
            })
        });
        let written = || pairs.iter().map(|pair| pair.written.load(Ordering::SeqCst)).min().unwrap_or_default();
        for round in 0..5 {
            mark(&sandbox, &[&format!("m{round}"), "--freeze"]).ok();
            let then = written();
            assert!(wait::until(Duration::from_secs(60), || written() > then), "writers do not go on after m{round}");
        }
        is_over.store(true, Ordering::Relaxed);
        writers.map(|writer| writer.join().unwrap()).into_iter().max().unwrap()
    });
    assert!(slowest < BLOCKED_MAX + (wait::stolen() - stolen), "a write took {slowest:?}");
    drop(pairs);
    sandbox.export("docs", &sandbox.path("disk"));
    mount.umount();
    let mut last = [0; 2];
    for round in 0..5 {
        let root = sandbox.restore(&sandbox.path("disk"), &format!("marker:m{round}"), &format!("m{round}"));
        for (index, name) in ["one", "two"].into_iter().enumerate() {
            let (a, b) = (Pair::read(&root, name, "a"), Pair::read(&root, name, "b"));
            assert!(b <= a && a <= b + 1, "{name} at m{round}: {a} and {b}");
            assert!(b >= last[index], "{name} went back at m{round}");
            last[index] = b;
        }
    }
}

#[test]
fn a_frozen_marker_without_a_mount_is_a_marker() {
    let sandbox = group();
    mark(&sandbox, &["m", "--freeze"]).ok();
    sandbox.export("docs", &sandbox.path("disk"));
    assert_eq!(fs::read(sandbox.restore(&sandbox.path("disk"), "marker:m", "to").join("file")).unwrap(), b"first");
}

/// A file system that takes no writes until this is dropped.
struct Stuck<'d>(&'d Disk);

impl<'d> Stuck<'d> {
    fn new(disk: &'d Disk) -> Stuck<'d> {
        tools::run("fsfreeze", &["-f", text(disk.path())]);
        Stuck(disk)
    }
}

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        tools::run("fsfreeze", &["-u", text(self.0.path())]);
    }
}

#[test]
fn a_change_that_does_not_end_is_waited_for_ten_seconds_and_then_nothing_is_marked() {
    if !tools::root() || !tools::present(&["fsfreeze", "mkfs.ext4"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "small", FileSystem::Ext4, 64);
    sandbox.group_of_size("docs", &disk.directory("pvol"), "16MiB");
    sandbox.base("docs", &sandbox.directory("disk"));
    let mount = sandbox.mount("docs", "mnt");
    let file = File::create(mount.join("file")).unwrap();
    std::thread::scope(|scope| {
        let stuck = Stuck::new(&disk);
        let writer = scope.spawn(|| file.write_at(b"late", 0).unwrap());
        wait::pause(Duration::from_millis(300));
        let begin = wait::now();
        mark(&sandbox, &["frozen", "--freeze"]).refused(17, &["did not end within 10 s", "frozen was not placed"]);
        let took = begin.elapsed();
        assert!((Duration::from_secs(9)..Duration::from_secs(60)).contains(&took), "{took:?}");
        assert_eq!(markers(&sandbox), Vec::<Value>::new());
        assert!(!writer.is_finished());
        drop(stuck);
        assert_eq!(writer.join().unwrap(), 4);
    });
    file.write_at(b"again", 0).unwrap();
    drop(file);
    mark(&sandbox, &["frozen", "--freeze"]).ok();
    assert_eq!(markers(&sandbox).len(), 1);
    mount.umount();
}

/// Whether a process still runs whose command line holds this.
fn runs(words: &str) -> bool {
    fs::read_dir("/proc").unwrap().any(|entry| {
        let line = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(words)
    })
}

/// What was killed may take a moment to go.
#[track_caller]
fn none_runs(words: &str) {
    assert!(wait::until(Duration::from_secs(60), || !runs(words)), "a hook left processes: {words}");
}

#[test]
fn a_hook_knows_what_for_holds_on_while_the_marker_is_placed_and_goes_on_after_it() {
    let sandbox = group();
    let mount = sandbox.mount("docs", "mnt");
    let hook = format!(
        r#"cd {} && echo "$REELFS_GROUP $REELFS_MARKER" >held && echo READY && cat && echo more && rm held"#,
        mount.path().display()
    );
    let outcome = mark(&sandbox, &["m", "--freeze", "--exec", &hook]).ok();
    assert_eq!(outcome.stderr, "", "nothing to complain about");
    assert!(!mount.join("held").exists(), "the hook was waited for");
    sandbox.export("docs", &sandbox.path("disk"));
    let root = sandbox.restore(&sandbox.path("disk"), "marker:m", "to");
    assert_eq!(fs::read_to_string(root.join("held")).unwrap(), "docs m\n");
    // a hook that has more to say than a pipe holds is no reason to wait for ever
    mark(&sandbox, &["loud", "--exec", "echo READY && cat && head -c 1000000 /dev/zero"]).ok();
    let early = mark(&sandbox, &["early", "--exec", "echo READY; exec >&-; sleep 0"]);
    assert_eq!(early.code, 0, "{early}");
    mount.umount();
}

#[test]
fn a_hook_that_does_not_become_ready_is_ended_and_nothing_is_marked() {
    let sandbox = group();
    let refused = |code: i32, hook: &str, sentence: &str| {
        let outcome = mark(&sandbox, &["m", "--timeout", "1s", "--exec", hook]);
        outcome.refused(code, &[sentence, "no marker was placed"]);
    };
    refused(1, "exit 7", "the hook ended with exit code 7 before it said READY");
    refused(1, "true", "the hook ended with exit code 0 before it said READY");
    refused(1, "kill -9 $$", "the hook was killed by signal 9");
    refused(1, "echo READY STEADY; cat", "the hook said `READY STEADY` instead of READY");
    refused(1, "echo locked; echo READY; cat", "the hook said `locked` instead of READY");
    refused(1, "exec >&-; sleep 4711.1", "closed its output before it said READY");
    refused(17, "sleep 4711.2 & sleep 4711.2", "the hook did not say READY within 1s");
    // not even asked politely
    refused(17, "trap '' TERM; (trap '' TERM; sleep 4711.3) & sleep 4711.3; sleep 4711.3", "within 1s");
    refused(1, "sleep 4711.4 >/dev/null & exit 5", "exit code 5");
    none_runs("sleep 4711.");
    assert_eq!(markers(&sandbox), Vec::<Value>::new());
    mark(&sandbox, &["m", "--timeout", "1s"]).refused(2, &["--exec"]);
    mark(&sandbox, &["m~", "--exec", "touch started"]).refused(2, &[]);
    mark(&sandbox, &["m", "--tag", "=", "--exec", "touch started"]).refused(2, &[]);
    assert!(!Path::new("started").exists(), "a hook ran for a marker that cannot be");
}

#[test]
fn a_hook_that_fails_after_the_marker_leaves_it_standing() {
    let sandbox = group();
    let incomplete = |name: &str, hook: &str, sentence: &str| {
        let outcome = mark(&sandbox, &[name, "--timeout", "1s", "--exec", hook]);
        outcome.refused(3, &[&format!("marker {name} stands at seq"), sentence]);
    };
    incomplete("a", "echo READY; cat; exit 9", "the hook ended with exit code 9");
    incomplete("b", "echo READY; cat; kill -9 $$", "the hook was killed by signal 9");
    incomplete("c", "echo READY; sleep 4712.1", "the hook was ended, for it took longer than 1s");
    none_runs("sleep 4712.");
    let names: Vec<Value> = markers(&sandbox).iter().map(|marker| marker["name"].clone()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn an_interrupted_mark_ends_its_hook() {
    let sandbox = group();
    let started = sandbox.path("started");
    let hook = format!("echo >{}; sleep 4713.1", started.display());
    let words = ["mark", "docs", "m", "--exec", &hook];
    let mut command =
        support::program::with_environment(&mut std::process::Command::new(support::program::BINARY), &sandbox.state())
            .args(words)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
    assert!(wait::until(Duration::from_secs(20), || started.exists()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&command), rustix::process::Signal::INT).unwrap();
    assert_eq!(command.wait().unwrap().code(), Some(130));
    none_runs("sleep 4713.");
    assert_eq!(markers(&sandbox), Vec::<Value>::new());
}

/// The mount process does not answer: whoever waits with a database at rest can stop waiting.
#[test]
fn an_interrupted_mark_lets_the_application_go_while_the_marker_is_placed() {
    use rustix::process::{Pid, Signal, kill_process};
    let sandbox = group();
    let mount = sandbox.mount("docs", "mnt");
    let (rests, went) = (sandbox.path("rests"), sandbox.path("went"));
    let hook = format!("touch {}; echo READY; cat; touch {}; sleep 4714.1", rests.display(), went.display());
    kill_process(mount.pid(), Signal::STOP).unwrap();
    let mut command = std::process::Command::new(support::program::BINARY);
    let command = support::program::with_environment(&mut command, &sandbox.state());
    let mut marking =
        command.args(["mark", "docs", "m", "--exec", &hook]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    assert!(wait::until(Duration::from_secs(20), || rests.exists()));
    wait::pause(Duration::from_secs(2)); // it asks for the marker by now
    kill_process(Pid::from_child(&marking), Signal::INT).unwrap();
    let has_ended = wait::until(Duration::from_secs(20), || marking.try_wait().unwrap().is_some());
    kill_process(mount.pid(), Signal::CONT).unwrap();
    assert!(has_ended, "it waits for a mount process that does not answer");
    let output = marking.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(130) && said.contains("while the marker was placed"), "{said}");
    assert!(went.exists(), "the application was not let go");
    none_runs("sleep 4714.");
    mount.umount();
}

/// The hook of `reelfs mark --help`.
fn sqlite_hook(database: &Path) -> String {
    format!("sqlite3 {} 'BEGIN IMMEDIATE' '.shell echo READY' '.shell cat' 'COMMIT'", database.display())
}

#[test]
fn while_a_hook_of_sqlite_holds_the_lock_nobody_else_commits() {
    if !tools::present(&["sqlite3"]) {
        return;
    }
    let sandbox = group();
    let mount = sandbox.mount("docs", "mnt");
    let database = mount.join("app.db");
    let sqlite = |command: &str| {
        let output = std::process::Command::new("sqlite3").arg(&database).arg(command).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).trim().to_owned())
    };
    assert!(sqlite("CREATE TABLE t (n); INSERT INTO t VALUES (1)").0);
    assert!(mark(&sandbox, &["help", "--help"]).ok().stdout.contains(&sqlite_hook(Path::new("/srv/app/app.db"))));

    // the same hook, but before it lets go another writer tries
    let tried = sandbox.path("tried");
    let insert = format!("sqlite3 {} 'INSERT INTO t VALUES (2)' 2>{}", database.display(), tried.display());
    let hook = sqlite_hook(&database).replace("'.shell cat'", &format!("'.shell cat' \".shell {insert}\""));
    mark(&sandbox, &["held", "--freeze", "--exec", &hook]).ok();
    has(&fs::read_to_string(&tried).unwrap(), "database is locked");
    assert!(sqlite("INSERT INTO t VALUES (3)").0, "the lock was let go");
    assert_eq!(sqlite("SELECT group_concat(n) FROM t"), (true, "1,3".to_owned()));

    // somebody else holds the lock: no marker
    let mut other = std::process::Command::new("sh")
        .args(["-c", &sqlite_hook(&database)])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
    mark(&sandbox, &["locked", "--exec", &sqlite_hook(&database)])
        .refused(1, &["database is locked", "before it said READY"]);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    let names: Vec<Value> = markers(&sandbox).iter().map(|marker| marker["name"].clone()).collect();
    assert_eq!(names, ["held"]);

    sandbox.export("docs", &sandbox.path("disk"));
    mount.umount();
    let restored = sandbox.restore(&sandbox.path("disk"), "marker:held", "to").join("app.db");
    assert_eq!(tools::run("sqlite3", &[text(&restored), "PRAGMA integrity_check; SELECT n FROM t"]), "ok\n1\n");
}
