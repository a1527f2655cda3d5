//! A group's name made from a directory's.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use reelfs_archive::TapeName;
use reelfs_journal::GroupName;

use crate::error::{Error, Result};
use crate::state::StateDir;

/// A legal name after the last part of the path that no group has here, and no tape in the directory of tapes.
pub(super) fn choose(state: &StateDir, source: &Path, tapes: &Path) -> Result<GroupName> {
    let mut taken: BTreeSet<String> = state.groups()?.iter().map(|group| group.name().to_string()).collect();
    // a tape directory that is not there is told elsewhere
    let files = fs::read_dir(tapes).into_iter().flatten().flatten();
    let named = files.filter_map(|entry| entry.file_name().to_str()?.parse::<TapeName>().ok());
    taken.extend(named.map(|name| name.group.to_string()));
    let wanted = legal(&source.file_name().unwrap_or_default().to_string_lossy());
    let candidate = (1..).map(|number| numbered(&wanted, number)).find(|name| !taken.contains(name));
    candidate.unwrap_or(wanted).parse().map_err(|error| Error::failed("name the group").because(error))
}

/// Lower case; what is not a letter or digit of ASCII becomes `_`, one for a run of them.
fn legal(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars() {
        match character.to_ascii_lowercase() {
            legal @ ('a'..='z' | '0'..='9') => name.push(legal),
            _ if name.is_empty() || name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    name.truncate(GroupName::LEN_MAX);
    let name = name.trim_end_matches('_');
    if name.is_empty() { "files".to_owned() } else { name.to_owned() }
}

fn numbered(name: &str, number: u32) -> String {
    if number == 1 {
        return name.to_owned();
    }
    let suffix = format!("_{number}");
    let stem = &name[..name.len().min(GroupName::LEN_MAX - suffix.len())];
    format!("{stem}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_legal() {
        for (text, name) in [
            ("docs", "docs"),
            ("My Thesis (final)", "my_thesis_final"),
            (".config", "config"),
            ("b\u{fc}cher", "b_cher"),
            ("\u{65e5}\u{8a18}", "files"),
            ("", "files"),
            ("a-----b", "a_b"),
        ] {
            assert_eq!(legal(text), name, "{text}");
        }
        for length in [31, 32, 33, 255] {
            let name = legal(&"x".repeat(length));
            assert_eq!(name.len(), length.min(32));
            let parsed: GroupName = numbered(&name, 12).parse().expect("a legal name");
            assert!(parsed.as_str().ends_with("_12") && parsed.as_str().len() <= 32, "{parsed}");
        }
    }

    #[test]
    fn names_are_unique_among_groups_and_tapes() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let state = StateDir::resolve(Some(&temporary.path().join("state"))).expect("state");
        let tapes = temporary.path().join("tapes");
        fs::create_dir(&tapes).expect("directory");
        let choose = || choose(&state, Path::new("/srv/Docs"), &tapes).expect("a name").to_string();
        assert_eq!(choose(), "docs");
        let group = state.group(&"docs".parse().expect("name"));
        group.make().expect("make");
        fs::write(group.file(), "{}").expect("file");
        assert_eq!(choose(), "docs_2");
        fs::write(tapes.join("docs_2-000001-000000000000001-000000000000009.upd.reel.tar.zst"), "").expect("a tape");
        assert_eq!(choose(), "docs_3");
    }
}
