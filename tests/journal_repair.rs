//! A damaged journal: what a tape holds is written again byte for byte, and otherwise nothing is changed and the group stops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reelfs_journal::disk::FAILPOINT_VARIABLE;
use reelfs_journal::{Jvol, Seq};
use serde_json::Value;
use support::{Random, Sandbox, Tree, tools};

/// A closed group with two directories of tapes, of which the second lacks what the first has: so the journal keeps it.
struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
    /// Has everything that is journaled.
    tapes: PathBuf,
    /// Has the base only.
    behind: PathBuf,
    jvol: PathBuf,
    /// First and last record that the journal holds and the tapes have.
    held: (u64, u64),
    /// The journal before it is damaged.
    whole: Vec<u8>,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::new();
        let (pvol, tapes, behind) =
            (sandbox.directory("pvol"), sandbox.directory("tapes"), sandbox.directory("behind"));
        sandbox.group_of_size("docs", &pvol, "16MiB");
        sandbox.base("docs", &tapes);
        sandbox.base("docs", &behind);
        let jvol = journal_of(&sandbox);
        let mut site = Site { sandbox, pvol, tapes, behind, jvol, held: (0, 0), whole: Vec::new() };
        site.write("first");
        site.sandbox.export("docs", &site.tapes);
        // closing the group after the export leaves a record that is on no tape
        let pointers = site.open().pointers();
        assert_eq!(pointers.durable.next(), pointers.next, "a clean stop leaves nothing that could be taken for torn");
        let file = site.file();
        let last = file["targets"].as_array().unwrap().iter().find(|target| target["dir"] == text(&site.tapes));
        site.held = (pointers.out.0, last.unwrap()["seq"].as_u64().unwrap());
        site.whole = fs::read(&site.jvol).unwrap();
        site
    }

    /// Six files of 1 MiB, so that the first are far from the end of the journal.
    fn write(&self, name: &str) {
        let mount = self.sandbox.mount("docs", "mnt");
        for number in 0..6 {
            fs::write(mount.join(&format!("{name}{number}")), Random::new(name, number).bytes(1 << 20)).unwrap();
        }
        mount.sync();
        mount.umount();
    }

    fn file(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.sandbox.state().join("groups/docs/group.json")).unwrap()).unwrap()
    }

    fn open(&self) -> Jvol {
        Jvol::open(&self.jvol, self.file()["uuid"].as_str().unwrap().parse().unwrap()).unwrap()
    }

    /// Where journal data and control data of a record lie.
    fn places(&self, seq: u64) -> (u64, u64) {
        let jvol = self.open();
        let (geometry, place) = (jvol.geometry(), jvol.place(Seq(seq)).unwrap());
        let slot = geometry.control_offset + seq % geometry.control_slots * 64;
        (geometry.data_offset + place.position % geometry.data_size, slot)
    }

    fn scribble(&self, offset: u64, bytes: &[u8]) {
        File::options().write(true).open(&self.jvol).unwrap().write_all_at(bytes, offset).unwrap();
    }

    /// Damages data, control data and whole runs of both; gives how many records that are.
    fn wound(&self) -> u64 {
        let (first, last) = self.held;
        let middle = u64::midpoint(first, last);
        let ((data, _), (_, slot), (last_data, last_slot)) =
            (self.places(first + 3), self.places(middle), self.places(last));
        self.scribble(data + 5, &[0xee]);
        self.scribble(slot, &[0; 3 * 64]);
        self.scribble(last_slot + 36, &[0xff]);
        self.scribble(last_data, &[0; 8]);
        5
    }

    /// The records that were there before the damage are there again, byte for byte; later openings add some behind them.
    fn assert_whole(&self, when: &str) {
        let now = fs::read(&self.jvol).unwrap();
        let ((data, slot), (data_end, slot_end)) = (self.places(self.held.0), self.places(self.held.1 + 1));
        for range in [data..data_end, slot..slot_end] {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert!(!range.is_empty(), "the ring has not wrapped");
            assert!(now[range.clone()] == self.whole[range], "{when}");
        }
    }

    fn assert_twin(&self, when: &str) {
        self.sandbox.export("docs", &self.behind);
        let restored = self.sandbox.restore(&self.behind, "latest", "restored");
        Tree::of(&self.pvol).assert_same(&Tree::of(&restored), when);
    }

    fn repair(&self, arguments: &[&str]) -> support::Outcome {
        self.sandbox.reelfs(["journal", "repair", "docs"].iter().chain(arguments))
    }
}

fn journal_of(sandbox: &Sandbox) -> PathBuf {
    let shown = sandbox.reelfs(["group", "show", "docs", "--json"]).ok().json();
    PathBuf::from(shown["journal"].as_str().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn damage_is_repaired_from_a_known_tape_byte_for_byte() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    let wounded = site.wound();
    let before = fs::read(&site.jvol).unwrap();
    let plan = site.repair(&["--dry-run", "--json"]).ok().json();
    assert_eq!(plan["records"], wounded, "{plan}");
    assert_eq!(plan["rewritten"].as_array().unwrap().len(), 3, "{plan}");
    assert!(fs::read(&site.jvol).unwrap() == before, "a dry run writes nothing");
    let done = site.repair(&[]).ok();
    assert!(done.stdout.contains("written again") && done.stdout.contains(text(&site.tapes)), "{done}");
    site.assert_whole("after the repair");
    let again = site.repair(&[]).ok();
    assert!(again.stdout.contains("reads back"), "{again}");
    site.assert_twin("after the repair");
}

#[test]
fn an_opening_repairs_what_it_meets_from_tapes_that_the_group_knows() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    site.wound();
    let mount = site.sandbox.mount("docs", "mnt");
    let log = mount.umount();
    for part in ["damaged at record", "byte ", "rewritten from", text(&site.tapes)] {
        assert!(log.contains(part), "{part}: {log}");
    }
    site.assert_whole("after the opening");
    site.assert_twin("after the opening");
}

#[test]
fn without_the_tape_nothing_is_changed_and_the_group_stops() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    let (first, last) = site.held;
    let elsewhere = site.sandbox.path("elsewhere");
    fs::rename(&site.tapes, &elsewhere).unwrap();
    let ((data, _), (far, _)) = (site.places(last), site.places(first + 3));
    site.scribble(data, &[0xee; 4]);
    site.scribble(far + 40, &[0xee]);
    let before = fs::read(&site.jvol).unwrap();
    let point = site.sandbox.directory("mnt");
    let refused = site.sandbox.reelfs(["mount", "docs", text(&point)]);
    let sentence = ["damaged at record", "byte ", text(&site.tapes), "reelfs journal repair docs --from TAPES"];
    refused.refused(19, &sentence);
    site.repair(&[]).refused(19, &["no tape in", "nothing was changed"]);
    site.repair(&["--from", text(&site.sandbox.path("nowhere"))]).refused(10, &["is not there"]);
    assert!(fs::read(&site.jvol).unwrap() == before, "nothing is written when not all of it can be");
    site.repair(&["--from", text(&elsewhere)]).ok();
    site.assert_whole("from a directory that the group does not know");
    site.assert_twin("from a directory that the group does not know");
}

#[test]
fn of_two_copies_of_a_tape_the_one_that_is_whole_is_taken() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    site.wound();
    // looked at first, for its name
    let copies = site.sandbox.directory("a-copy");
    for tape in site.sandbox.tapes(&site.tapes) {
        let mut bytes = fs::read(&tape).unwrap();
        let middle = bytes.len() / 2;
        if bytes.len() > 1 << 20 {
            bytes[middle] ^= 1;
        }
        fs::write(copies.join(tape.file_name().unwrap()), bytes).unwrap();
    }
    site.repair(&["--from", text(&copies)]).ok();
    site.assert_whole("beside a rotten copy");
}

#[test]
fn a_tape_of_another_history_repairs_nothing() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, tapes, other) = (sandbox.directory("pvol"), sandbox.directory("tapes"), sandbox.directory("other"));
    sandbox.group_of_size("docs", &pvol, "16MiB");
    sandbox.base("docs", &tapes);
    let (state, kept) = (sandbox.state(), sandbox.path("kept"));
    tools::run("cp", &["-a", text(&state), text(&kept)]);
    let jvol = journal_of(&sandbox);
    assert!(jvol.starts_with(&state), "the journal is copied with the state");
    let site = Site { sandbox, pvol, tapes, behind: PathBuf::new(), jvol, held: (0, 0), whole: Vec::new() };
    site.write("one");
    site.sandbox.export("docs", &other);
    fs::remove_dir_all(&state).unwrap();
    tools::run("cp", &["-a", text(&kept), text(&state)]);
    // the same numbers tell something else now
    site.write("two");
    let first = site.open().pointers().out.0;
    // the first one, whose predecessors are the same in both, and one among those that differ
    for (seq, sentence) in [(first, "differ before record"), (first + 5, "tells another history")] {
        let (data, _) = site.places(seq);
        let whole = fs::read(&site.jvol).unwrap();
        site.scribble(data, &[0xee; 4]);
        let wounded = fs::read(&site.jvol).unwrap();
        site.repair(&["--from", text(&other)]).refused(19, &[sentence]);
        assert!(fs::read(&site.jvol).unwrap() == wounded, "nothing is changed");
        fs::write(&site.jvol, whole).unwrap();
    }
}

#[test]
fn a_repair_that_is_killed_is_done_again() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    for failpoint in [
        "JvolMendData:before",
        "JvolMendData:after:2",
        "JvolMendControl:before:3",
        "JvolMendControl:after",
        "JvolMendSync:before",
    ] {
        site.wound();
        let mut command = site.sandbox.command();
        command.args(["journal", "repair", "docs"]).env(FAILPOINT_VARIABLE, failpoint);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(!status.success(), "{failpoint}: not killed");
        site.repair(&[]).ok();
        site.assert_whole(failpoint);
    }
    site.assert_twin("after all of them");
}

#[test]
fn a_mounted_group_is_not_repaired() {
    if !tools::root() {
        return;
    }
    let site = Site::new();
    let mount = site.sandbox.mount("docs", "mnt");
    site.repair(&[]).refused(11, &["in use", "unmount it first"]);
    mount.umount();
}
