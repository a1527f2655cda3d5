//! The map is the land: the list of files in docs/ARCHITECTURE.md names the files that there are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Sections of the list, which are directories.
const SECTIONS: [&str; 8] =
    ["journal/src", "volume/src", "fuse/src", "archive/src", "transport/src", "src", "examples", "tests"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a directory that the list must name. `tests/` is listed without what its programs share.
fn there(section: &str) -> BTreeSet<String> {
    let directory = root().join(section);
    let depth = if section == "tests" { 1 } else { usize::MAX };
    walkdir::WalkDir::new(&directory)
        .max_depth(depth)
        .into_iter()
        .map(|entry| entry.expect("the sources can be walked").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.strip_prefix(&directory).expect("is below").to_str().expect("is UTF-8").to_owned())
        .filter(|name| name != "lib.rs" && !name.ends_with("tests.rs") && !name.contains("tests/"))
        .collect()
}

/// Files that the list names under the heading of a section.
fn listed(text: &str, section: &str) -> BTreeSet<String> {
    let after = text.split(&format!("\n### {section}\n")).nth(1).unwrap_or_default();
    let rows = after.split("\n#").next().unwrap_or_default().lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect()
}

#[test]
fn the_architecture_lists_every_file() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the page is there");
    let mut complaints = Vec::new();
    for section in SECTIONS {
        let (there, listed) = (there(section), listed(&text, section));
        assert!(!there.is_empty(), "{section} has no files");
        complaints.extend(there.difference(&listed).map(|file| format!("{section}/{file} is not listed")));
        complaints.extend(listed.difference(&there).map(|file| format!("{section}/{file} is listed and not there")));
    }
    assert!(complaints.is_empty(), "docs/ARCHITECTURE.md, \"Files\":\n  {}", complaints.join("\n  "));
}

#[test]
fn the_table_of_states_is_the_one_that_the_program_goes_by() {
    let text = fs::read_to_string(root().join("docs/SEMANTICS.md")).expect("the page is there");
    let table = reelfs::pair_state::table();
    assert!(text.contains(&table), "docs/SEMANTICS.md, \"States of a pair\", should hold:\n{table}");
}

#[test]
fn the_table_of_recovery_is_the_one_that_the_program_goes_by() {
    let text = fs::read_to_string(root().join("docs/SEMANTICS.md")).expect("the page is there");
    let table = reelfs_volume::recovery_table();
    assert!(text.contains(&table), "docs/SEMANTICS.md, \"After a power cut\", should hold:\n{table}");
}

#[test]
fn the_failpoints_listed_are_the_ones_that_the_program_has() {
    let text = fs::read_to_string(root().join("docs/FAILPOINTS.md")).expect("the page is there");
    let listed: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let labels = reelfs_journal::disk::Label::ALL.iter();
    let wanted: Vec<String> = labels.map(|label| format!("| `{}` | {} |", label.name(), label.text())).collect();
    assert_eq!(listed, wanted, "docs/FAILPOINTS.md");
    assert!(wanted.len() >= 40);
}
