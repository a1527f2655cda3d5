//! A journal that fills: it is warned, and each request is held up a little more the fuller it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::{Mount, Random, Sandbox, tools};

/// Bytes of one write, and so of one request.
const PIECE: u64 = 128 << 10;

struct Site {
    sandbox: Sandbox,
    mount: Mount,
    file: File,
    tapes: std::path::PathBuf,
}

impl Site {
    fn new(warn: &str) -> Site {
        let sandbox = Sandbox::new();
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        let arguments = ["group", "create", "full", "--pvol", text(&pvol), "--size", "16MiB", "--on-full", "block"];
        sandbox.reelfs(arguments.into_iter().chain(["--export-at", "never", "--warn", warn])).ok();
        sandbox.base("full", &tapes);
        let mount = sandbox.mount("full", "mnt");
        let file = File::create(mount.join("file")).unwrap();
        Site { sandbox, mount, file, tapes }
    }

    fn status(&self) -> Value {
        self.sandbox.reelfs(["status", "full", "--json"]).ok().json()["groups"][0].clone()
    }

    fn slowed(&self) -> u64 {
        self.status()["mount"]["writers_slowed"].as_u64().unwrap()
    }

    fn write(&self, random: &mut Random) {
        self.file.write_all_at(&random.bytes(PIECE), random.below(32) * PIECE).unwrap();
    }
}

#[test]
fn writers_are_slowed_down_from_the_warning_on_and_no_earlier() {
    let site = Site::new("50%");
    let mut random = Random::new("throttle", 0);
    let (mut above, mut before) = (0, 0.0);
    loop {
        let status = site.status();
        let (used, delay) =
            (status["journal"]["used_ratio"].as_f64().unwrap(), status["mount"]["delay_ms"].as_f64().unwrap());
        assert_eq!(delay > 0.0, used > 0.5, "{status}");
        assert!(delay >= before && delay <= 100.0, "{status}");
        assert_eq!(status["mount"]["writers_slowed"], above, "{status}");
        let says = status["troubles"].to_string().contains("writers are slowed down");
        assert_eq!(says, used > 0.5, "{status}");
        if used > 0.9 {
            break;
        }
        (above, before) = (above + u64::from(used > 0.5), delay);
        site.write(&mut random);
    }
    assert!(above > 20 && before > 30.0, "{above} {before}");
    let shown = site.sandbox.reelfs(["journal", "show", "full"]).ok().stdout;
    assert!(shown.contains("warns         from 50 %") && shown.contains("slows         each MiB by"), "{shown}");
    // the level moves while it is mounted, and an export takes the reason away
    site.sandbox.reelfs(["group", "set", "full", "--warn", "95%"]).ok();
    let slowed = site.slowed();
    site.write(&mut random);
    assert_eq!(site.slowed(), slowed);
    site.sandbox.reelfs(["group", "set", "full", "--warn", "50%"]).ok();
    site.write(&mut random);
    assert_eq!(site.slowed(), slowed + 1);
    site.sandbox.export("full", &site.tapes);
    site.write(&mut random);
    assert_eq!(site.slowed(), slowed + 1);
    drop(site.file);
    let log = site.mount.umount();
    assert_eq!(log.matches("writers are slowed down").count(), 1, "told when it begins, once:\n{log}");
}

#[test]
fn who_fills_the_journal_is_held_up_for_it_and_who_writes_little_beside_him_is_not() {
    let site = Site::new("50%");
    let mut random = Random::new("share", 0);
    let delay = loop {
        let status = site.status();
        if status["journal"]["used_ratio"].as_f64().unwrap() > 0.8 {
            break Duration::from_secs_f64(status["mount"]["delay_ms"].as_f64().unwrap() / 1_000.0);
        }
        site.write(&mut random);
    };
    let took = |offset: u64, bytes: &[u8]| {
        let begin = support::wait::now();
        site.file.write_all_at(bytes, offset).unwrap();
        begin.elapsed()
    };
    let large = took(0, &random.bytes(1 << 20));
    assert!(large >= delay && delay >= Duration::from_millis(30), "{large:?} {delay:?}");
    let small = (0..10).map(|turn| took(turn * 4096, &random.bytes(4096))).min().unwrap();
    assert!(small < delay / 4, "{small:?}, and {large:?} for a MiB");
    drop(site.file);
    site.mount.umount();
}

#[test]
fn settings_are_checked_shown_and_kept() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    sandbox.reelfs(["group", "create", "set", "--pvol", text(&pvol), "--size", "16MiB"]).ok();
    let show = || sandbox.reelfs(["group", "show", "set", "--json"]).ok().json();
    let settings = show()["settings"].clone();
    assert_eq!(
        (&settings["warn"], &settings["export_at"], &settings["keep_tapes"]),
        (&80.into(), &50.into(), &Value::Null)
    );
    sandbox.reelfs(["group", "set", "set"]).refused(2, &["nothing to set"]);
    sandbox.reelfs(["group", "set", "set", "--warn", "0%"]).refused(2, &["1% to 100%"]);
    sandbox.reelfs(["group", "set", "none", "--warn", "50%"]).refused(10, &["no group none"]);
    let set = ["--on-full", "fail", "--export-at", "never", "--export-every", "1h", "--keep-size", "1GiB"];
    sandbox.reelfs(["group", "set", "set"].into_iter().chain(set)).ok();
    let shown = show();
    assert_eq!((&shown["on_full"], &shown["settings"]["export_at"]), (&"fail".into(), &Value::Null), "{shown}");
    assert_eq!(
        (&shown["settings"]["export_every"], &shown["settings"]["keep_size"]),
        (&3600.into(), &(1 << 30).into())
    );
    let text = sandbox.reelfs(["group", "show", "set"]).ok().stdout;
    assert!(text.contains("exports   every 1h") && text.contains("keeps     1 GiB"), "{text}");
    // a policy that is changed while it is mounted holds from then on
    let mount = sandbox.mount("set", "mnt");
    sandbox.reelfs(["group", "set", "set", "--warn", "100%"]).ok();
    assert!(fs::write(mount.join("too-much"), vec![1; 20 << 20]).is_err(), "fails");
    sandbox.reelfs(["group", "set", "set", "--on-full", "suspend"]).ok();
    fs::write(mount.join("too-much"), vec![1; 20 << 20]).unwrap();
    mount.umount();
}

#[test]
fn all_volumes_of_a_group_are_slowed_down_but_not_one_that_is_suspended() {
    let sandbox = Sandbox::new();
    let arguments = ["group", "create", "two", "--size", "16MiB", "--on-full", "block"];
    sandbox.reelfs(arguments.into_iter().chain(["--export-at", "never", "--warn", "30%"])).ok();
    for name in ["one", "other"] {
        sandbox.reelfs(["pair", "create", &format!("two/{name}"), "--pvol", text(&sandbox.directory(name))]).ok();
    }
    sandbox.base("two", &sandbox.directory("tapes"));
    let mount = sandbox.mount("two/one", "mnt");
    let beside = sandbox.directory("mnt-other");
    sandbox.reelfs(["mount", "two/other", text(&beside)]).ok();
    let mounts = || {
        let status = sandbox.reelfs(["status", "two", "--json"]).ok().json()["groups"][0].clone();
        let of = |index: usize| {
            let mount = &status["volumes"][index]["mount"];
            (mount["writers_slowed"].as_u64().unwrap(), mount["delay_ms"].as_f64().unwrap() > 0.0)
        };
        (of(0), of(1))
    };
    fs::write(beside.join("little"), "").unwrap();
    assert_eq!(mounts(), ((0, false), (0, false)));
    // the one fills the journal, and the other waits for it too
    fs::write(mount.join("large"), vec![1; 8 << 20]).unwrap();
    let ((before, _), (other, is_slowed)) = mounts();
    assert!(before > 0 && other == 0 && is_slowed, "{:?}", mounts());
    fs::write(beside.join("little"), "").unwrap();
    assert!(mounts().1.0 > 0, "{:?}", mounts());
    sandbox.reelfs(["pair", "split", "two/other"]).ok();
    let slowed = mounts().1.0;
    fs::write(beside.join("little"), "noted").unwrap();
    assert_eq!(mounts(), ((before, true), (slowed, false)));
    sandbox.reelfs(["umount", text(&beside)]).ok();
    let log = mount.umount();
    assert_eq!(log.matches("writers are slowed down").count(), 1, "told for the group, once:\n{log}");
}

/// What one request costs at which occupancy, for docs/PERFORMANCE.md; looked at in the long forms alone.
#[test]
fn the_price_of_a_request_by_occupancy() {
    if !tools::is_soak() {
        return;
    }
    let site = Site::new("80%");
    let mut random = Random::new("price", 0);
    let mut rows = Vec::new();
    for _ in 0..200 {
        let used = site.status()["journal"]["used_ratio"].as_f64().unwrap();
        let begin = support::wait::now();
        site.write(&mut random);
        rows.push((used, begin.elapsed()));
        // an operation waits while the rest of the journal may be too small for it, and nobody makes room here
        if used > 0.95 {
            break;
        }
    }
    drop(site.file);
    site.mount.umount();
    for (used, took) in rows {
        println!("{:5.1} %  {took:?}", used * 100.0);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}
