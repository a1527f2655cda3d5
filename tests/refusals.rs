//! Refusals of tapes and targets. Each: the sentence, the exit code, nothing changed, no panic, memory bounded.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::{Disk, FileSystem, History, Outcome, Sandbox, Tree, program, tools};

/// Bytes of data that a command may allocate when it is given bad tapes.
const DATA_MAX: &str = "--data=536870912";

/// Restores as a stranger with bounded memory. `to` is below the sandbox.
fn restore(sandbox: &Sandbox, tapes: &[&Path], point: &str, to: &str) -> Outcome {
    let wrapper: &[&str] = if tools::find("prlimit").is_some() { &["prlimit", DATA_MAX] } else { &[] };
    let mut command = program::wrapped(wrapper, &sandbox.directory("stranger"));
    command.args(["restore", "--at", point, "--yes", "--to"]).arg(sandbox.path(to));
    for directory in tapes {
        command.arg("--tapes").arg(directory);
    }
    Outcome::of(&mut command)
}

/// Refused with this code, and nothing was made.
fn refused(history: &History, tapes: &[&Path], point: &str, code: i32, sentence: &[&str]) {
    let outcome = restore(&history.sandbox, tapes, point, "target");
    outcome.refused(code, sentence);
    let target = history.sandbox.path("target");
    assert!(!target.exists() || fs::read_dir(&target).unwrap().next().is_none(), "a refused restore left something");
}

/// Restores, and it is the state of marker `m{number}`.
fn restores(history: &History, tapes: &[&Path], number: usize) -> Outcome {
    let outcome = restore(&history.sandbox, tapes, &format!("marker:m{number}"), "target").ok();
    let target = history.sandbox.path("target");
    history.states[number - 1].assert_same(&Tree::of(&target), &outcome.to_string());
    fs::remove_dir_all(target).unwrap();
    outcome
}

#[test]
fn a_tape_truncated_at_any_block_is_refused() {
    let history = History::new();
    let copy = history.copy_of_tapes("cut");
    for number in [0, 2] {
        let tape = history.tape_in(&copy, number);
        let whole = fs::read(&tape).unwrap();
        for length in (0..whole.len()).step_by(512) {
            fs::write(&tape, &whole[..length]).unwrap();
            refused(&history, &[&copy], "latest", 19, &[]);
            let verified = history.sandbox.reelfs(["tape", "verify", tape.to_str().unwrap()]);
            let name = tape.file_name().unwrap().to_str().unwrap();
            assert!(verified.stdout.contains(name), "names the tape: {verified}");
            verified.refused(19, &["damaged"]);
        }
        fs::write(&tape, &whole).unwrap();
    }
    restores(&history, &[&copy], 3);
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    let history = History::new();
    let copy = history.copy_of_tapes("flipped");
    let step = if tools::is_soak() { 1 } else { 131 };
    for number in [0, 2] {
        let tape = history.tape_in(&copy, number);
        let whole = fs::read(&tape).unwrap();
        for place in (0..whole.len()).step_by(step) {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x10;
            fs::write(&tape, damaged).unwrap();
            let verified = history.sandbox.reelfs(["tape", "verify", tape.to_str().unwrap()]);
            assert!([19, 21].contains(&verified.code), "byte {place} of {number}:\n{verified}");
            let outcome = restore(&history.sandbox, &[&copy], "latest", "target");
            assert!([19, 21, 15].contains(&outcome.code), "byte {place} of {number}:\n{outcome}");
            assert!(!history.sandbox.path("target").join("d").exists(), "byte {place}: something was restored");
        }
        fs::write(&tape, &whole).unwrap();
    }
}

#[test]
fn a_damaged_tape_that_the_plan_does_not_need_is_a_warning() {
    let history = History::new();
    let copy = history.copy_of_tapes("damaged");
    let tape = history.tape_in(&copy, 4);
    let mut bytes = fs::read(&tape).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&tape, bytes).unwrap();
    restores(&history, &[&copy], 1);
    let name = tape.file_name().unwrap().to_str().unwrap();
    refused(&history, &[&copy], "marker:m3", 19, &[name]);
    refused(&history, &[&copy], "last-marker", 19, &[name]);
    fs::write(&tape, b"not a tape at all").unwrap();
    let outcome = restores(&history, &[&copy], 2);
    assert!(outcome.stderr.contains("warning") && outcome.stderr.contains(name), "{outcome}");
}

#[test]
fn a_missing_tape_is_named() {
    let history = History::new();
    let copy = history.copy_of_tapes("gap");
    fs::remove_file(history.tape_in(&copy, 3)).unwrap();
    refused(&history, &[&copy], "latest", 15, &["missing"]);
    refused(&history, &[&copy], "marker:m3", 15, &["missing"]);
    restores(&history, &[&copy], 1);
    // without a base nothing is restorable
    let copy = history.copy_of_tapes("baseless");
    fs::remove_file(history.tape_in(&copy, 0)).unwrap();
    let outcome = restore(&history.sandbox, &[&copy], "latest", "target");
    assert!([13, 15].contains(&outcome.code), "{outcome}");
    assert!(outcome.stderr.contains("base"), "says what is missing: {outcome}");
}

#[test]
fn tapes_of_another_group_of_the_same_name_are_foreign() {
    let (one, two) = (History::new(), History::new());
    let copy = one.copy_of_tapes("mixed");
    for tape in two.sandbox.tapes(&two.tapes) {
        let name = tape.file_name().unwrap().to_str().unwrap();
        let place = copy.join(name);
        // names may be the same; then the second has to lie elsewhere
        let place = if place.exists() { one.sandbox.directory("other").join(name) } else { place };
        fs::copy(&tape, place).unwrap();
    }
    let other = one.sandbox.directory("other");
    refused(&one, &[&copy, &other], "latest", 21, &["docs"]);
}

#[test]
fn a_history_that_parted_is_diverged() {
    let mut history = History::new();
    let state = history.sandbox.state();
    let saved = history.sandbox.path("saved");
    tools::run("cp", &["-a", state.to_str().unwrap(), saved.to_str().unwrap()]);
    history.go_on(4);
    // the state directory comes back from a backup: the group no longer knows what it has told
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&saved, &state).unwrap();
    let elsewhere = history.sandbox.directory("elsewhere");
    for number in 0..=4 {
        let tape = history.tape(number);
        fs::copy(&tape, elsewhere.join(tape.file_name().unwrap())).unwrap();
    }
    let mount = history.sandbox.mount("docs", "mnt");
    tools::shell(mount.path(), "for number in 1 2 3 4 5 6 7; do echo other >other.$number; done");
    history.sandbox.export("docs", &elsewhere);
    let refusal = history.sandbox.reelfs(["tape", "export", "docs", "--to", history.tapes.to_str().unwrap()]);
    refusal.refused(21, &[]);
    mount.umount();
    refused(&history, &[&history.tapes, &elsewhere], "latest", 21, &["diverged"]);
    let (one, two) = (history.tapes.to_str().unwrap(), elsewhere.to_str().unwrap());
    history.sandbox.reelfs(["points", "--tapes", one, "--tapes", two]).refused(21, &["diverged"]);
    history.sandbox.reelfs(["tape", "verify", one, two]).refused(21, &["has diverged at seq"]);
    history.sandbox.reelfs(["tape", "verify", one]).ok();
    history.sandbox.reelfs(["tape", "verify", two]).ok();
    restore(&history.sandbox, &[&history.tapes], "marker:m4", "target").ok();
}

#[test]
fn moments_outside_the_window_name_the_nearest_inside() {
    let history = History::new();
    refused(&history, &[&history.tapes], "2001-01-01T00:00:00Z", 13, &["oldest"]);
    refused(&history, &[&history.tapes], "2100-01-01T00:00:00Z", 13, &[]);
    refused(&history, &[&history.tapes], "seq:1", 13, &[]);
    refused(&history, &[&history.tapes], "seq:999999", 13, &[]);
    let outcome = restore(&history.sandbox, &[&history.tapes], "marker:never", "target");
    outcome.refused(10, &["never"]);
    for point in ["now", "@m1", "2026-11-20", "yesterday-ish"] {
        restore(&history.sandbox, &[&history.tapes], point, "target").refused(2, &[]);
    }
}

#[test]
fn a_directory_that_holds_something_is_left_alone() {
    let history = History::new();
    let target = history.sandbox.directory("target");
    fs::write(target.join("mine"), b"precious").unwrap();
    let before = Tree::of(&target);
    restore(&history.sandbox, &[&history.tapes], "latest", "target").refused(14, &["empty"]);
    before.assert_same(&Tree::of(&target), "after the refusal");
    let file = history.sandbox.path("file");
    fs::write(&file, b"not a directory").unwrap();
    assert_ne!(restore(&history.sandbox, &[&history.tapes], "latest", "file").code, 0);
    assert_eq!(fs::read(&file).unwrap(), b"not a directory");
}

#[test]
fn the_order_of_tapes_and_copies_of_them_do_not_matter() {
    let history = History::new();
    let (one, two) = (history.copy_of_tapes("one"), history.copy_of_tapes("two"));
    restores(&history, &[&two, &one], 3);
    fs::remove_file(history.tape_in(&one, 1)).unwrap();
    fs::remove_file(history.tape_in(&one, 0)).unwrap();
    fs::remove_file(history.tape_in(&two, 4)).unwrap();
    restores(&history, &[&one, &two], 3);
    restores(&history, &[&two, &one], 2);
    restores(&history, &[&two, &one, &two], 1);
}

#[test]
fn a_target_inside_the_tapes_is_refused() {
    let history = History::new();
    let inside = history.tapes.join("inside");
    let outcome = history.sandbox.try_restore(&history.tapes, "latest", inside.to_str().unwrap());
    outcome.refused(2, &[]);
    assert!(!inside.exists());
}

#[test]
fn the_mount_that_the_tapes_are_of_is_no_target() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("docs", &pvol);
    sandbox.base("docs", &tapes);
    let mount = sandbox.mount("docs", "mnt");
    restore(&sandbox, &[&tapes], "latest", "mnt").refused(2, &["where group docs is mounted", "a directory in it"]);
    assert_eq!(std::fs::read_dir(mount.path()).unwrap().count(), 0);
    restore(&sandbox, &[&tapes], "latest", "mnt/inside").ok();
    mount.umount();
}

#[test]
fn the_mark_of_a_restore_is_no_name_in_a_volume_s_root() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("docs", &pvol);
    sandbox.base("docs", &tapes);
    let mount = sandbox.mount("docs", "mnt");
    let shown = sandbox.reelfs(["group", "show", "docs", "--json"]).ok().json();
    let mark = format!(".reelfs-incomplete-{}", shown["uuid"].as_str().unwrap());
    let at = |name: &str| mount.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d").join(&mark), "an interrupted restore into a directory of the mount").unwrap();
    let refused = [
        File::create(at(&mark)).err(),
        fs::create_dir(at(&mark)).err(),
        fs::hard_link(at("d").join(&mark), at(&mark)).err(),
        fs::rename(at("d").join(&mark), at(&mark)).err(),
    ];
    assert_eq!(refused.map(|error| error.unwrap().raw_os_error()), [Some(rustix::io::Errno::PERM.raw_os_error()); 4]);
    mount.umount();
    sandbox.export("docs", &tapes);
    sandbox.restore(&tapes, "latest", "restored");
    fs::write(pvol.join(&mark), "an interrupted restore in place").unwrap();
    let mount = sandbox.directory("mnt");
    sandbox.reelfs(["mount", "docs", mount.to_str().unwrap()]).refused(14, &["not finished", "run the restore again"]);
}

#[test]
fn a_target_that_is_there_keeps_none_of_its_acls() {
    if !tools::present(&["setfacl"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    fs::create_dir(pvol.join("d")).unwrap();
    sandbox.group("docs", &pvol);
    sandbox.base("docs", &tapes);
    let target = sandbox.directory("target");
    tools::shell(&target, "setfacl -m u:7:rwx -d -m u:7:rwx .");
    restore(&sandbox, &[&tapes], "latest", "target").ok();
    Tree::of(&pvol).assert_same(&Tree::of(&target), "restored into a directory with ACLs");
}

#[test]
fn a_full_target_disk_is_said_before_the_first_byte_or_at_the_last() {
    if !tools::root() || !tools::present(&["mkfs.ext4"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    fs::write(pvol.join("large"), support::Random::new("large", 0).bytes(30 << 20)).unwrap();
    sandbox.group("full", &pvol);
    sandbox.base("full", &tapes);
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 16);
    restore(&sandbox, &[&tapes], "latest", "disk/target").refused(22, &["free"]);
    let left = fs::read_dir(disk.path().join("target")).map_or(0, |entries| entries.count());
    assert!(left <= 1, "nothing but an incomplete mark may be left: {left} entries");
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    assert!(free.f_bavail * free.f_frsize > 8 << 20, "the disk was filled all the same");
}

#[test]
fn a_target_that_cannot_hold_what_is_on_the_tapes_is_named() {
    if !tools::root() || !tools::present(&["setfattr"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    tools::shell(&pvol, "echo x >file; setfattr -n user.x -v y file; chown 5:6 file; ln file link; ln -s file symlink");
    sandbox.group("plain", &pvol);
    sandbox.base("plain", &tapes);
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ram, 1);
    let outcome = restore(&sandbox, &[&tapes], "latest", "disk/target");
    outcome.refused(14, &["cannot hold", "attributes user."]);
    assert!(!disk.path().join("target/file").exists(), "something was restored");
}

#[test]
fn foreign_owners_need_root_or_consent() {
    if !tools::root() || !tools::present(&["setpriv"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    tools::shell(&pvol, "echo x >file; chown 5:6 file; echo y >other; chmod 4755 other");
    sandbox.group("owners", &pvol);
    sandbox.base("owners", &tapes);
    tools::shell(sandbox.root(), "chmod 755 . tapes; chmod 644 tapes/*; mkdir -m 777 open; mkdir -m 777 nobody-state");
    let binary = sandbox.path("reelfs");
    fs::copy(program::BINARY, &binary).unwrap();
    let as_nobody = |words: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command
            .args(["restore", "--tapes"])
            .arg(&tapes)
            .args(["--yes", "--to"])
            .arg(sandbox.path("open/target"))
            .args(words);
        Outcome::of(program::with_environment(&mut command, &sandbox.path("nobody-state")))
    };
    as_nobody(&[]).refused(14, &["--no-owner"]);
    assert!(!sandbox.path("open/target/file").exists());
    let outcome = as_nobody(&["--no-owner"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    let meta = fs::metadata(sandbox.path("open/target/file")).unwrap();
    assert_eq!((meta.uid(), meta.size()), (65_534, 2));
    let safe = sandbox.reelfs([
        "restore",
        "--tapes",
        tapes.to_str().unwrap(),
        "--yes",
        "--safe",
        "--to",
        sandbox.path("safe").to_str().unwrap(),
    ]);
    safe.ok();
    assert_eq!(fs::metadata(sandbox.path("safe/other")).unwrap().mode() & 0o7777, 0o755, "--safe strips suid");
}
