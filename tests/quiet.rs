//! Quiet moments: noted when no file is open for writing, listed, and restored.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::{Sandbox, Tree, tools, wait};

const LIMIT: Duration = Duration::from_secs(60);

struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::new();
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        sandbox.group_of_size("docs", &pvol, "16MiB");
        sandbox.base("docs", &tapes);
        Site { sandbox, pvol, tapes }
    }

    fn points(&self, more: &[&str]) -> Vec<Value> {
        self.sandbox.reelfs(["points", "docs", "--json"].iter().chain(more)).ok().json_lines()
    }

    /// Records of quiet moments.
    fn quiet(&self) -> Vec<u64> {
        let lines = self.points(&["--kind", "quiet"]);
        assert!(lines.iter().all(|line| line["kind"] == "quiet"), "{lines:?}");
        lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect()
    }

    fn journal_in(&self) -> u64 {
        self.sandbox.reelfs(["journal", "show", "docs", "--json"]).ok().json()["journal_in"].as_u64().unwrap()
    }

    /// Waits until a moment is noted that has this place or a later one.
    fn until_quiet(&self, from: u64) {
        assert!(wait::until(LIMIT, || self.quiet().last().is_some_and(|seq| *seq >= from)), "none is noted");
    }

    fn restore(&self, to: &str) -> Tree {
        Tree::of(&self.sandbox.restore(&self.tapes, "last-quiet", to))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_moment_is_noted_only_while_no_file_is_open_for_writing_and_only_after_changes() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    let mount = site.sandbox.mount("docs", "mnt");
    let begun = site.journal_in();
    fs::write(mount.join("whole"), "whole").unwrap();
    mount.sync();
    site.until_quiet(begun);
    let (noted, at) = (site.quiet(), site.journal_in());
    wait::pause(Duration::from_millis(2_500));
    assert_eq!((site.quiet(), site.journal_in()), (noted, at), "nothing changed, and something was noted");
    let whole = Tree::of(&site.pvol);

    let mut writer = File::create(mount.join("half")).unwrap();
    writer.write_all(b"first half").unwrap();
    mount.sync();
    let open = site.quiet();
    wait::pause(Duration::from_millis(2_500));
    assert_eq!(site.quiet(), open, "noted while a file is open for writing");
    // an export does not note it either, and the last moment is before the file
    site.sandbox.export("docs", &site.tapes);
    site.restore("before").assert_same(&whole, "the last quiet moment is before the file that is open");

    // one that only reads does not count
    let reader = File::open(mount.join("whole")).unwrap();
    let begun = site.journal_in();
    drop(writer);
    site.until_quiet(begun);
    drop(reader);
    site.sandbox.export("docs", &site.tapes);
    site.restore("after").assert_same(&Tree::of(&site.pvol), "the file is closed");
    mount.umount();
}

#[test]
fn a_mapping_that_may_write_keeps_its_file_open() {
    if !tools::root() || !tools::present(&["python3"]) {
        return;
    }
    let site = Site::new();
    let mount = site.sandbox.mount("docs", "mnt");
    let program = "import mmap, sys\nf = open(sys.argv[1], 'w+b')\nf.truncate(8192)\nm = mmap.mmap(f.fileno(), 8192)\nf.close()\n\
                   m[0:4] = b'map!'\nprint('mapped', flush=True)\nsys.stdin.read()\n";
    let mut child = std::process::Command::new("python3")
        .args(["-c", program, text(&mount.join("mapped"))])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    let before = site.quiet();
    wait::pause(Duration::from_millis(2_500));
    assert_eq!(site.quiet(), before, "noted while a mapping may write");
    let begun = site.journal_in();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    site.until_quiet(begun);
    mount.umount();
}

#[test]
fn the_last_close_before_an_unmount_is_noted_and_every_volume_counts() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    let second = site.sandbox.directory("second");
    site.sandbox.reelfs(["pair", "create", "docs/second", "--pvol", text(&second)]).ok();
    site.sandbox.base("docs", &site.tapes);
    let (one, two) = (site.sandbox.mount("docs/data", "one"), site.sandbox.directory("two"));
    site.sandbox.reelfs(["mount", "docs/second", text(&two)]).ok();
    let busy = File::create(two.join("busy")).unwrap();
    fs::write(one.join("file"), "closed").unwrap();
    let before = site.quiet();
    wait::pause(Duration::from_millis(2_500));
    assert_eq!(site.quiet(), before, "a file of another volume of the group is open for writing");
    drop(busy);
    fs::write(one.join("file"), "closed again").unwrap();
    site.sandbox.reelfs(["umount", text(&two)]).ok();
    one.umount();
    // nobody waited a second for it
    let after = site.quiet();
    assert!(after.len() > before.len(), "{before:?} {after:?}");
    let shown = site.points(&[]);
    let shown: Vec<&Value> = shown.iter().filter(|line| line["kind"] == "quiet").collect();
    assert_eq!(shown.len(), 1, "only the newest without --kind: {shown:?}");
    site.sandbox.export("docs", &site.tapes);
    let newest = site.sandbox.reelfs(["points", "--tapes", text(&site.tapes)]).ok();
    assert!(newest.stdout.contains("no file open for writing since"), "{newest}");
    let restored = site.sandbox.restore(&site.tapes, "last-quiet", "restored");
    Tree::of(&restored.join("data")).assert_same(&Tree::of(&site.pvol), "data");
    Tree::of(&restored.join("second")).assert_same(&Tree::of(&second), "second");
}

#[test]
fn where_none_was_noted_that_is_said() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("docs", &pvol, "16MiB");
    sandbox.base("docs", &tapes);
    sandbox.try_restore(&tapes, "last-quiet", "to").refused(10, &["no quiet moment"]);
    sandbox.reelfs(["points", "docs", "--kind", "silent"]).refused(2, &["silent"]);
}
