//! Steps of the wall clock under load: the order stays, later moments are found, and nothing of a later session is poisoned. The
//! clock is the program's own: no test sets the machine's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(debug_assertions)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reelfs_journal::{Clock, SystemClock};
use serde_json::Value;
use support::program::{BINARY, with_environment};
use support::{Mount, Outcome, Random, Sandbox, Tree, wait};

const HOUR: i64 = 3_600 * 1_000_000_000;
const YEAR: i64 = 365 * 24 * HOUR;

struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
    point: PathBuf,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::new();
        let (pvol, tapes, point) = (sandbox.directory("pvol"), sandbox.directory("tapes"), sandbox.directory("mnt"));
        for number in 0..10 {
            fs::write(pvol.join(format!("old{number}")), [number; 3000]).unwrap();
        }
        let site = Site { sandbox, pvol, tapes, point };
        site.reelfs(&["group", "create", "clock", "--pvol", text(&site.pvol), "--size", "64MiB"]).ok();
        site.reelfs(&["base", "copy", "clock", "--to", text(&site.tapes)]).ok();
        site
    }

    /// From now on the wall clock is so far ahead.
    fn step(&self, ahead: i64) {
        let mut steps = File::options().create(true).append(true).open(self.sandbox.path("steps")).unwrap();
        writeln!(steps, "{} {ahead}", SystemClock.read().wall.0).unwrap();
        wait::file_times();
    }

    fn reelfs(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.sandbox.command().env("REELFS_CLOCK_STEPS", self.sandbox.path("steps")).args(arguments))
    }

    fn mount(&self) -> Mount {
        self.mount_of("clock")
    }

    fn mount_of(&self, volume: &str) -> Mount {
        let mut command = Command::new(BINARY);
        with_environment(&mut command, &self.sandbox.state());
        command.env("REELFS_CLOCK_STEPS", self.sandbox.path("steps"));
        command.args(["mount", volume]).arg(&self.point).arg("-f");
        Mount::from_command(command, &self.sandbox, &self.point).unwrap_or_else(|log| panic!("{log}"))
    }

    /// The time of a marker that is set now.
    fn mark(&self, name: &str) -> String {
        self.reelfs(&["mark", "clock", name, "--json"]).ok().json()["time"].as_str().unwrap().to_owned()
    }

    fn status(&self) -> Value {
        self.reelfs(&["status", "clock", "--json"]).ok().json()["groups"][0].clone()
    }

    fn export(&self) {
        self.reelfs(&["tape", "export", "clock", "--to", text(&self.tapes)]).ok();
    }

    fn restore(&self, at: &str, to: &str) -> Tree {
        let target = self.sandbox.path(to);
        self.reelfs(&["restore", "--tapes", text(&self.tapes), "--at", at, "--yes", "--to", text(&target)]).ok();
        Tree::of(&target)
    }

    fn points(&self, kind: &str) -> Vec<Value> {
        let lines = self.reelfs(&["points", "--tapes", text(&self.tapes), "--json"]).ok().json_lines();
        lines.into_iter().filter(|line| line["kind"] == kind).collect()
    }

    /// Numbers and times of all records rise together, and no time is further from the real one than that.
    fn assert_order(&self, limit_ns: i64) {
        let log = self.reelfs(&["log", "--tapes", text(&self.tapes), "--json"]).ok().json_lines();
        let now = SystemClock.read().wall.0;
        let mut before = (0, String::new());
        for line in &log {
            let this = (line["seq"].as_u64().unwrap(), line["time"].as_str().unwrap().to_owned());
            assert!(this.0 > before.0 && this.1 > before.1, "{before:?} before {this:?}");
            let time = nanoseconds(&this.1);
            assert!((now - time).abs() < limit_ns, "{line}");
            before = this;
        }
        assert!(log.len() > 50, "{}", log.len());
    }
}

/// Nanoseconds since 1970, as `date` reads it.
fn nanoseconds(time: &str) -> i64 {
    support::tools::run("date", &["-d", time, "+%s%N"]).trim().parse().unwrap()
}

/// Writers that go on while `during` runs.
fn under_load(point: &Path, during: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..2u64 {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut random = Random::new("clock", number);
                let mut turn = 0;
                while !is_over.load(Ordering::Relaxed) {
                    turn += 1;
                    fs::write(point.join(format!("w{number}-{}", turn % 5)), random.bytes(2_000)).unwrap();
                    wait::pause(Duration::from_millis(10));
                }
            });
        }
        wait::pause(Duration::from_millis(150));
        during();
        wait::pause(Duration::from_millis(150));
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_hour_back_and_a_year_forward_under_load() {
    let site = Site::new();
    let mount = site.mount();
    let mut moments = Vec::new();
    for (name, ahead) in [("back", -HOUR), ("forward", YEAR)] {
        under_load(&site.point, || site.step(ahead));
        let status = site.status();
        assert!(status["troubles"].to_string().contains("reelfs clock accept clock"), "{status}");
        let off = status["clock"]["ahead_seconds"].as_i64().unwrap() - ahead / 1_000_000_000;
        assert!(off.abs() < 60, "{status}");
        let time = site.mark(name);
        mount.sync();
        moments.push((name, time, Tree::of(&site.pvol)));
        fs::write(site.point.join("later"), name).unwrap();
    }
    mount.umount();
    site.export();
    site.assert_order(HOUR / 6);
    for (name, time, tree) in moments {
        site.restore(&time, name).assert_same(&tree, name);
    }
    let steps = site.points("clock-step");
    let notes: Vec<&str> = steps.iter().map(|step| step["note"].as_str().unwrap()).collect();
    assert!(notes.iter().any(|note| note.contains("back by 3600 s") || note.contains("back by 3599 s")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("forward by 3153")), "{notes:?}");
}

#[test]
fn a_later_session_finds_what_changed_behind_the_mount_whatever_the_clock_showed() {
    let site = Site::new();
    let mount = site.mount();
    under_load(&site.point, || site.step(YEAR));
    mount.umount();
    fs::write(site.pvol.join("old1"), "while the clock was wrong").unwrap();
    site.step(0);
    fs::write(site.pvol.join("old2"), "after it was set right").unwrap();
    let before = SystemClock.read().wall.0;
    let mount = site.mount();
    assert_eq!((site.status()["epoch"].clone(), site.status()["state"].clone()), (1.into(), "PAIR".into()));
    let time = site.mark("right");
    assert!((nanoseconds(&time) - before).abs() < HOUR / 6, "{time}");
    // and a clock that was put back by hand while it was mounted
    under_load(&site.point, || site.step(-HOUR));
    mount.kill();
    fs::write(site.pvol.join("old3"), "an edit by the clock that was put back").unwrap();
    let mount = site.mount();
    assert_eq!(site.status()["epoch"], 1);
    mount.umount();
    fs::write(site.pvol.join("old4"), "and one after a clean stop").unwrap();
    site.mount().umount();
    site.export();
    site.restore("latest", "restored").assert_same(&Tree::of(&site.pvol), "after three sessions");
    let base = Tree::of(&site.sandbox.path("restored"));
    assert_eq!(base.nodes()[Path::new("old4")].size, 26);
    // a moment of the first session is no less certain for it
    site.restore(&time, "at right");
    site.assert_order(HOUR / 6);
}

#[test]
fn a_suspension_over_a_step_tells_everything_and_an_accepted_clock_is_followed() {
    let site = Site::new();
    let mount = site.mount();
    fs::write(site.point.join("before"), "journaled").unwrap();
    under_load(&site.point, || site.step(-HOUR));
    site.reelfs(&["pair", "split", "clock"]).ok();
    let since = site.reelfs(&["pair", "show", "clock", "--json"]).ok().json()["since"].as_str().unwrap().to_owned();
    assert!((nanoseconds(&since) - SystemClock.read().wall.0).abs() < HOUR / 6, "{since} is of the hybrid time");
    fs::write(site.point.join("old5"), "noted").unwrap();
    site.step(-2 * HOUR);
    mount.kill();
    fs::write(site.pvol.join("old5"), "noted, and edited behind the mount").unwrap();
    let mount = site.mount();
    site.reelfs(&["pair", "resync", "clock"]).ok();
    assert!(site.status()["clock"]["ahead_seconds"].as_i64().unwrap() < -7_000);
    assert!(site.reelfs(&["clock", "accept", "clock"]).ok().stdout.contains("from now on"));
    assert_eq!(site.reelfs(&["clock", "accept", "clock", "--json"]).ok().json()["already"], true);
    assert_eq!(site.status()["troubles"].as_array().unwrap().len(), 0);
    // a day ahead, and accepted: from now on it is the day after
    site.step(24 * HOUR);
    fs::write(site.point.join("tomorrow"), "").unwrap();
    let ours = nanoseconds(&site.mark("not yet")) - SystemClock.read().wall.0;
    assert!(ours < HOUR, "{ours}");
    site.reelfs(&["clock", "accept", "clock"]).ok();
    let ours = nanoseconds(&site.mark("tomorrow")) - SystemClock.read().wall.0;
    assert!((ours - 24 * HOUR).abs() < HOUR, "{ours}");
    mount.umount();
    site.export();
    site.restore("latest", "restored").assert_same(&Tree::of(&site.pvol), "after the resync");
    let again = site.points("clock-step").iter().filter(|step| step["note"].to_string().contains("again")).count();
    assert_eq!(again, 2);
}

#[test]
fn each_volume_of_a_group_is_known_by_the_clock_that_it_was_closed_by() {
    let site = Site::new();
    let (other, beside) = (site.sandbox.directory("other"), site.sandbox.directory("mnt-other"));
    site.reelfs(&["pair", "create", "clock/other", "--pvol", text(&other)]).ok();
    site.reelfs(&["base", "copy", "clock/other", "--to", text(&site.tapes)]).ok();
    let mount = site.mount_of("clock/data");
    let mount_other = || site.reelfs(&["mount", "clock/other", text(&beside)]).ok();
    let umount_other = || site.reelfs(&["umount", text(&beside)]).ok();
    mount_other();
    for name in ["one", "two"] {
        fs::write(beside.join(name), name).unwrap();
    }
    // the one is closed while the clock is a year ahead, and the other goes on while it is set right
    site.step(YEAR);
    fs::write(beside.join("ahead"), "by a year").unwrap();
    umount_other();
    site.step(0);
    fs::write(site.point.join("right"), "the clock is right again").unwrap();
    fs::write(other.join("one"), "edited while only the other was mounted").unwrap();
    mount_other();
    fs::write(beside.join("three"), "three").unwrap();
    // and so once more, with another process
    site.step(YEAR);
    fs::write(beside.join("ahead"), "again").unwrap();
    umount_other();
    site.step(0);
    fs::write(site.point.join("right"), "and again").unwrap();
    mount.umount();
    fs::write(other.join("two"), "edited while nothing was mounted").unwrap();
    let mount = site.mount_of("clock/data");
    mount_other();
    assert_eq!((site.status()["epoch"].clone(), site.status()["state"].clone()), (1.into(), "PAIR".into()));
    // told once for the group, also while one volume is suspended
    site.reelfs(&["pair", "split", "clock/other"]).ok();
    site.step(-HOUR);
    fs::write(site.point.join("back"), "by an hour").unwrap();
    site.reelfs(&["pair", "resync", "clock/other"]).ok();
    site.export();
    let steps = site.points("clock-step");
    assert_eq!(steps.iter().filter(|step| step["note"].to_string().contains("back by 3")).count(), 1, "{steps:?}");
    umount_other();
    mount.umount();
    site.export();
    site.restore("latest", "restored");
    for (pvol, name) in [(&site.pvol, "data"), (&other, "other")] {
        Tree::of(&site.sandbox.path("restored").join(name)).assert_same(&Tree::of(pvol), name);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

/// A follower in the background, by the injected clock.
struct Follower(std::process::Child);

impl Follower {
    fn new(site: &Site, arguments: &[&str], to: &Path) -> Follower {
        let mut command = Command::new(BINARY);
        with_environment(&mut command, &site.sandbox.state()).env("REELFS_CLOCK_STEPS", site.sandbox.path("steps"));
        command.args(["follow", "--json"]).args(arguments).arg("--to").arg(to);
        let log = File::create(site.sandbox.path("follower.log")).unwrap();
        Follower(
            command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap(),
        )
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Waits until a file is there or the time is up that a replica stays behind; true when it came early.
fn comes_early(file: &Path, since: Duration, delay: Duration) -> bool {
    let early = wait::until(Duration::from_secs(3), || file.exists());
    early && SystemClock.read().boot.saturating_sub(since) < delay
}

#[test]
fn a_replica_that_stays_behind_is_neither_early_nor_stuck_when_the_clock_steps() {
    const DELAY: Duration = Duration::from_secs(40);
    let limit = Duration::from_secs(60);
    for from_tapes in [false, true] {
        let site = Site::new();
        let replica = site.sandbox.path("replica");
        let tapes = text(&site.tapes).to_owned();
        let source: &[&str] = if from_tapes { &["--tapes", &tapes] } else { &["clock"] };
        let follow = |delay: &str| Follower::new(&site, &[source, &["--delay", delay]].concat(), &replica);
        let mount = site.mount();
        let write = |name: &str| {
            let now = SystemClock.read().boot;
            fs::write(mount.join(name), name).unwrap();
            mount.sync();
            if from_tapes {
                site.export();
            }
            now
        };
        let has = |name: &str| replica.join(name).exists();
        let early = follow("1s");
        write("before");
        assert!(wait::until(limit, || has("before")), "tapes {from_tapes}: it does not follow");
        drop(early);
        let late = follow("40s");
        let said = || fs::read_to_string(site.sandbox.path("follower.log")).unwrap_or_default();
        assert!(wait::until(limit, || said().contains("reached")), "{}", said());
        let written = write("behind");
        site.step(YEAR);
        assert!(
            !comes_early(&replica.join("behind"), written, DELAY),
            "tapes {from_tapes}: a year forward brings it forward"
        );
        drop(late);
        if from_tapes {
            // this machine's clock is all that a new process of a far site has
            site.step(0);
        }
        let on = follow("1s");
        assert!(wait::until(limit, || has("behind")), "tapes {from_tapes}: stuck after a year forward");
        site.step(-HOUR);
        write("back");
        assert!(wait::until(limit, || has("back")), "tapes {from_tapes}: stuck after an hour back");
        drop(on);
        drop(mount);
    }
}
