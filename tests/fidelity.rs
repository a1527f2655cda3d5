//! The mount asked what ext4 is asked, question by question: what it answers otherwise is a row of docs/SEMANTICS.md, and
//! no row is there in vain.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::{Disk, FileSystem, Mount, Outcome, Sandbox, Tree, program, tools};

/// The files of questions.
const NOUNS: [&str; 3] = ["names", "content", "attributes"];
/// Names that one file gets before it is mounted: ext4 allows 65,000.
const LINKS: usize = 64_990;
/// Debian's, which any user may run.
const PYTHON: &str = "/usr/bin/python3";
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// Answers by question.
fn ask(questions: &Path, directory: &Path, noun: &str, user: &str) -> BTreeMap<String, String> {
    let script = questions.join(format!("{noun}.py"));
    // nobody but its user sees into a user's own mount
    let ask = format!("cd {} && {PYTHON} {}", directory.display(), script.display());
    let said = tools::shell(questions, &format!("{user} sh -c '{ask}'"));
    let answers = said.lines().map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no answer: {line}")));
    answers.map(|(question, answer)| (question.to_owned(), answer.to_owned())).collect()
}

/// Questions that are answered otherwise by the mount, with both answers.
fn differing(plain: &BTreeMap<String, String>, mounted: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    assert!(plain.keys().eq(mounted.keys()), "asked otherwise: {plain:?}\n{mounted:?}");
    let differing = plain.iter().filter(|(question, answer)| mounted[*question] != **answer);
    differing
        .map(|(question, answer)| (question.clone(), format!("{answer}\n  the mount: {}", mounted[question])))
        .collect()
}

/// Questions in the first cell of a row of docs/SEMANTICS.md, in backticks.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SEMANTICS.md")).unwrap();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let words = cells.flat_map(|cell| cell.split('`'));
    let is_question = |word: &&str| word.split_once('/').is_some_and(|(noun, _)| NOUNS.contains(&noun));
    words.filter(is_question).map(str::to_owned).collect()
}

fn assert_documented(found: &BTreeMap<String, String>, rows: &BTreeSet<String>) {
    let of_no_row: Vec<_> = found.iter().filter(|(question, _)| !rows.contains(*question)).collect();
    assert!(of_no_row.is_empty(), "answered otherwise, and docs/SEMANTICS.md does not say so: {of_no_row:#?}");
    let in_vain: Vec<_> = rows.iter().filter(|row| !found.contains_key(*row)).collect();
    assert!(in_vain.is_empty(), "docs/SEMANTICS.md says that these differ, and they do not: {in_vain:?}");
}

/// The questions where anybody may read them.
fn questions(sandbox: &Sandbox) -> PathBuf {
    let place = sandbox.directory("questions");
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/fidelity")).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            fs::copy(&path, place.join(path.file_name().unwrap())).unwrap();
        }
    }
    tools::shell(sandbox.root(), "chmod 755 . questions; chmod 644 questions/*");
    place
}

fn file_with_many_names(directory: &Path) {
    let place = directory.join("links");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("f"), "").unwrap();
    for link in 1..LINKS {
        fs::hard_link(place.join("f"), place.join(link.to_string())).unwrap();
    }
}

fn is_possible() -> bool {
    tools::root()
        && tools::present(&["mkfs.ext4", "setpriv", "mkswap", "fusermount3"])
        && tools::holds(Path::new(PYTHON).exists(), PYTHON)
}

#[test]
fn root_finds_the_differences_that_the_semantics_name() {
    if !is_possible() {
        return;
    }
    let sandbox = Sandbox::in_memory();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 1024);
    let (plain, pvol) = (disk.directory("plain"), disk.directory("pvol"));
    let (questions, tapes) = (questions(&sandbox), sandbox.directory("tapes"));
    sandbox.group_of_size("fidelity", &pvol, "128MiB");
    let mount = Mount::new(&sandbox, "fidelity", &sandbox.directory("mnt"), &["-o", "allow_other"]);
    sandbox.base("fidelity", &tapes);
    let mut found = BTreeMap::new();
    for noun in NOUNS {
        let (expected, answers) = (ask(&questions, &plain, noun, ""), ask(&questions, mount.path(), noun, ""));
        assert!(expected.len() > 20, "few questions: {expected:?}");
        found.extend(differing(&expected, &answers));
        mount.sync();
        sandbox.export("fidelity", &tapes);
    }
    assert_documented(&found, &documented());
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "disk/restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "what the questions left");
}

#[test]
fn a_user_s_own_mount_differs_no_more() {
    if !is_possible() {
        return;
    }
    let sandbox = Sandbox::in_memory();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 1024);
    let (plain, home) = (disk.directory("plain"), disk.directory("home"));
    let questions = questions(&sandbox);
    tools::shell(disk.path(), "mkdir home/pvol home/mnt home/state; chmod 755 .");
    file_with_many_names(&plain);
    file_with_many_names(&home.join("pvol"));
    tools::shell(disk.path(), "chown -R 65534:65534 plain home");
    let binary = sandbox.path("reelfs");
    fs::copy(program::BINARY, &binary).unwrap();
    let reelfs = |words: &str| {
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(format!("exec {NOBODY} {} {words}", binary.display())).current_dir(&home);
        Outcome::of(program::with_environment(&mut command, &home.join("state"))).ok()
    };
    reelfs("group create mine --pvol pvol --size 128MiB --on-full block --export-at never");
    reelfs("mount mine mnt");
    let mut found = BTreeMap::new();
    let mut asked = BTreeSet::new();
    for noun in NOUNS {
        let expected = ask(&questions, &plain, noun, NOBODY);
        let answers = ask(&questions, &home.join("mnt"), noun, NOBODY);
        found.extend(differing(&expected, &answers));
        asked.extend(expected.into_keys());
    }
    reelfs("umount mnt");
    assert_documented(&found, &documented().intersection(&asked).cloned().collect());
}

#[test]
fn what_is_only_read_is_not_journaled() {
    if !tools::present(&["touch"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    tools::shell(&pvol, "echo content >file; mkdir directory; touch directory/file; ln -s file link");
    sandbox.group("reader", &pvol);
    let mount = sandbox.mount("reader", "mnt");
    // while a file is open for writing no quiet moment is noted
    let open = fs::File::create(mount.join("open")).unwrap();
    let position = || fs::read_to_string(mount.join(".reelfs/position")).unwrap();
    let before = position();
    let read = "touch -ah -d 2001-01-01 file directory link; cat file; ls directory; readlink link; stat -c %X file directory link";
    let times = tools::shell(mount.path(), read);
    let moved = times.lines().skip(3).filter(|time| time.parse::<u64>().unwrap() > 1_000_000_000).count();
    assert_eq!(moved, 3, "each read moves an atime: {times}");
    assert_eq!(position(), before, "neither a read nor an atime is a record");
    drop(open);
    mount.umount();
}

#[test]
fn a_mount_without_access_times_moves_none() {
    if !tools::present(&["touch", "cat"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    tools::shell(&pvol, "echo content >known; mkdir directory");
    sandbox.group("unnoticed", &pvol);
    let old = "touch -a -d 2001-01-01";
    let read = "cat known new; ls directory >/dev/null; stat -c %X known new directory";
    for (options, moves) in [(["-o", "noatime"], false), (["-o", "nodev"], true)] {
        let mount = Mount::new(&sandbox, "unnoticed", &sandbox.directory("mnt"), &options);
        let said = tools::shell(mount.path(), &format!("echo content >new; {old} known new directory; {read}; rm new"));
        let moved = |line: &str| line.parse::<u64>().unwrap() > 1_000_000_000;
        assert!(said.lines().skip(2).all(|line| moved(line) == moves), "{options:?}: {said}");
        mount.umount();
    }
}
