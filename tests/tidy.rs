//! The style rules that matter, as tests: a rule that only a document knows is not kept.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file that passes this has two nouns in it.
const FILE_LINES_MAX: usize = 500;
/// A function that passes this does not fit on a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// rustfmt holds code at 120; comments and strings, which it does not break, may be a word longer.
const LINE_CHARS_MAX: usize = 135;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] =
    &[("fuse/src/adapter.rs", "one impl of fuser's trait, which has one method a request")];

/// Functions that may be longer: one `match` with an arm for every change kind.
const LONG_FUNCTIONS: &[(&str, &str)] = &[
    ("journal/src/record/encode.rs", "encode_change"),
    ("journal/src/record/decode.rs", "decode_change"),
    ("journal/src/change.rs", "into_owned"),
    ("src/restore/tests/random.rs", "act"),
];

/// Who may know whom; `reelfs` itself may know all.
const ARROWS: &[(&str, &[&str])] = &[
    ("reelfs-journal", &[]),
    ("reelfs-volume", &["reelfs-journal"]),
    ("reelfs-fuse", &["reelfs-journal", "reelfs-volume"]),
    ("reelfs-archive", &["reelfs-journal"]),
    ("reelfs-transport", &["reelfs-journal"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A Rust source file: its path from the root of the workspace, and its text.
struct Source {
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for place in ["journal", "volume", "fuse", "archive", "transport", "src", "examples", "tests", "benches"] {
        for entry in walkdir::WalkDir::new(root().join(place)).sort_by_file_name() {
            let entry = entry.expect("the tree can be walked");
            if entry.path().extension().is_some_and(|extension| extension == "rs") {
                let path = entry.path().strip_prefix(root()).expect("is below the root");
                found.push(Source {
                    path: path.to_str().expect("source names are UTF-8").to_owned(),
                    text: fs::read_to_string(entry.path()).expect("a source is UTF-8"),
                });
            }
        }
    }
    assert!(found.len() > 10, "only {} sources found: is this the right directory?", found.len());
    found
}

fn no_complaints(what: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{what}:\n  {}", complaints.join("\n  "));
}

/// The text with the contents of comments, strings and character literals blanked, line breaks kept: what is left is
/// code. Raw strings, nested comments and lifetimes are told apart.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => find(bytes, at, |rest| rest[0] == b'\n'),
            b'/' if bytes.get(at + 1) == Some(&b'*') => end_of_block_comment(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' if is_raw_string(bytes, at) => end_of_raw_string(bytes, at),
            b'\'' => end_of_char(bytes, at),
            _ => at,
        };
        if end == at {
            code.push(char::from(bytes[at]));
            at += 1;
        } else {
            code.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

fn find(bytes: &[u8], from: usize, is_end: impl Fn(&[u8]) -> bool) -> usize {
    (from..bytes.len()).find(|&at| is_end(&bytes[at..])).unwrap_or(bytes.len())
}

fn end_of_block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn is_raw_string(bytes: &[u8], at: usize) -> bool {
    let is_part_of_word =
        at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b';
    let hashes = bytes[at + 1..].iter().take_while(|&&byte| byte == b'#').count();
    !is_part_of_word && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn end_of_raw_string(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|&&byte| byte == b'#').count();
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = at + 2 + hashes;
    (find(bytes, body, |rest| rest.starts_with(&closing)) + closing.len()).min(bytes.len())
}

/// A character literal ends behind its quote; a lifetime is code.
fn end_of_char(bytes: &[u8], at: usize) -> usize {
    match &bytes[at..] {
        [_, b'\\', _, rest @ ..] => at + 3 + rest.iter().position(|&byte| byte == b'\'').map_or(0, |quote| quote + 1),
        [_, _, b'\'', ..] => at + 3,
        [_, first, ..] if !first.is_ascii() => find(bytes, at + 1, |rest| rest[0] == b'\'') + 1,
        _ => at,
    }
}

/// Length in lines of every function: `(line, name, lines)`.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let words = |line: &str| -> Option<String> {
        let (before, after) = line.split_once("fn ")?;
        let is_keyword = before.chars().next_back().is_none_or(|c| c.is_whitespace() || c == '(');
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        (is_keyword && !name.is_empty()).then_some(name)
    };
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = words(line) else { continue };
        if let Some(lines) = extent(&lines[start..]) {
            found.push((start + 1, name, lines));
        }
    }
    found
}

/// How many lines a function takes that begins in the first: up to the brace that closes its body, or, when it has
/// none, up to its semicolon.
fn extent(lines: &[&str]) -> Option<usize> {
    let (mut braces, mut brackets) = (0_u32, 0_u32);
    for (count, line) in lines.iter().enumerate() {
        for c in line[if count == 0 { line.find("fn ").unwrap_or(0) } else { 0 }..].chars() {
            match c {
                '{' => braces += 1,
                '}' if braces <= 1 => return Some(count + 1),
                '}' => braces -= 1,
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                ';' if braces == 0 && brackets == 0 => return Some(count + 1),
                _ => {}
            }
        }
    }
    None
}

#[test]
fn the_crates_are_the_arrow() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("there are packages") {
        let name = package["name"].as_str().expect("a package has a name");
        seen.insert(name.to_owned());
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            if name != "reelfs" {
                complaints.push(format!("{name} is a new crate: where does it stand in ARROWS?"));
            }
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("a package has dependencies") {
            let to = dependency["name"].as_str().expect("a dependency has a name");
            let is_ours = to == "reelfs" || to.starts_with("reelfs-");
            if is_ours && !allowed.contains(&to) {
                complaints.push(format!("{name} -> {to}"));
            }
        }
    }
    assert_eq!(seen.len(), ARROWS.len() + 1, "crates: {seen:?}");
    no_complaints("arrows that point back (docs/ARCHITECTURE.md)", &complaints);
}

#[test]
fn a_file_holds_one_noun() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources() {
        let lines = text.lines().count();
        let is_listed = LONG_FILES.iter().any(|(listed, _)| *listed == path);
        if lines > FILE_LINES_MAX && !is_listed {
            complaints.push(format!("{path}: {lines} lines, {FILE_LINES_MAX} allowed"));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > LINE_CHARS_MAX {
                complaints.push(format!("{path}:{}: longer than {LINE_CHARS_MAX} characters", number + 1));
            }
        }
    }
    no_complaints("too long", &complaints);
}

#[test]
fn a_file_says_what_lives_in_it() {
    let complaints: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//!") && !source.path.ends_with("/tests.rs"))
        .map(|source| format!("{}: does not begin with //!", source.path))
        .collect();
    no_complaints("files that do not introduce themselves", &complaints);
}

#[test]
fn a_function_fits_on_a_screen() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources() {
        for (line, name, lines) in functions(&code_only(&text)) {
            let is_listed = LONG_FUNCTIONS.contains(&(path.as_str(), name.as_str()));
            if lines > FUNCTION_LINES_MAX && !is_listed {
                complaints.push(format!("{path}:{line}: {name} has {lines} lines, {FUNCTION_LINES_MAX} allowed"));
            }
        }
    }
    no_complaints("too long", &complaints);
}

#[test]
fn sources_are_ascii() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources() {
        for (number, line) in text.lines().enumerate() {
            if !line.is_ascii() || line.contains('\t') {
                complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    no_complaints("tabs, or characters that are not ASCII (write \\u{..})", &complaints);
}

#[test]
fn one_file_speaks_to_the_kernel() {
    let naming: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.path != "tests/tidy.rs")
        .filter(|source| code_only(&source.text).contains("fuser::"))
        .map(|source| source.path)
        .collect();
    assert!(naming.len() <= 1, "only one file may name fuser's types, these do: {naming:?}");
}

#[test]
fn unsafe_lives_in_one_file_a_crate() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Source { path, text } in sources() {
        let code = code_only(&text);
        let is_unsafe = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        if is_unsafe {
            let home = path.split('/').next().unwrap_or_default().to_owned();
            places.entry(home).or_default().push(path);
        }
    }
    let complaints: Vec<String> = places
        .iter()
        .filter(|(home, files)| files.len() > 1 || !["journal", "volume"].contains(&home.as_str()))
        .map(|(home, files)| format!("{home}: {}", files.join(", ")))
        .collect();
    no_complaints("unsafe belongs into one file of journal and one of volume", &complaints);
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let mut complaints = Vec::new();
    for Source { path, text } in sources() {
        for (number, line) in text.lines().enumerate() {
            let is_marked = line.split(|c: char| !c.is_alphanumeric()).any(|word| marks.contains(&word));
            if is_marked || line.trim_start().starts_with(concat!("#[ign", "ore")) {
                complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
        let is_product = !path.contains("tests") && !path.starts_with("benches/") && !path.starts_with("examples/");
        let code = code_only(text.split("#[cfg(test)]").next().unwrap_or_default());
        for (number, line) in code.lines().enumerate() {
            if is_product && [".unwrap()", ".expect(", "panic!("].iter().any(|call| line.contains(call)) {
                complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    no_complaints("marks, ignored tests and calls that panic", &complaints);
}

#[test]
fn lints_are_excepted_with_a_reason() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources() {
        // a whole test or benchmark may have its reason; it is not the product
        let is_shared = path.starts_with("tests/") || path.starts_with("benches/");
        for (number, line) in code_only(&text).lines().enumerate() {
            if line.contains("#[allow(") || (line.contains("#![allow(") && !is_shared) {
                complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    no_complaints("#[expect(.., reason = \"..\")] fails when it is no longer needed; these do not", &complaints);
}

fn documents() -> Vec<(String, String)> {
    walkdir::WalkDir::new(root().join("docs"))
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.expect("docs can be walked"))
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "md"))
        .map(|entry| {
            let path = entry.path().strip_prefix(root()).expect("is below the root").display().to_string();
            (path, fs::read_to_string(entry.path()).expect("a document is UTF-8"))
        })
        .collect()
}

#[test]
fn a_document_has_one_title() {
    let mut complaints = Vec::new();
    for (path, text) in documents() {
        let mut in_code = false;
        let titles = text
            .lines()
            .filter(|line| {
                in_code ^= line.starts_with("```");
                !in_code && line.starts_with("# ")
            })
            .count();
        if titles != 1 || !text.starts_with("# ") {
            complaints.push(format!("{path}: {titles} titles"));
        }
    }
    no_complaints("a document begins with its title and has no other", &complaints);
}

/// Targets of `[text](target)` and of bare `docs/..` mentions, as paths from the root.
fn linked_from(page: &Path, text: &str) -> BTreeSet<PathBuf> {
    let here = page.parent().unwrap_or(Path::new(""));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets
        .filter(|target| !target.contains("://") && !target.is_empty())
        .map(|target| normal(&here.join(target)))
        .collect()
}

fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, component| {
        match component {
            std::path::Component::ParentDir => _ = path.pop(),
            std::path::Component::CurDir => {}
            other => path.push(other),
        }
        path
    })
}

#[test]
fn every_document_is_found_from_the_front_door() {
    let mut linked = BTreeSet::new();
    let mut complaints = Vec::new();
    for page in ["README.md", "docs/ARCHITECTURE.md"] {
        match fs::read_to_string(root().join(page)) {
            Ok(text) => linked.extend(linked_from(Path::new(page), &text)),
            Err(error) => complaints.push(format!("{page}: {error}")),
        }
    }
    for (path, text) in documents() {
        if path != "docs/ARCHITECTURE.md" && !linked.contains(Path::new(&path)) {
            complaints.push(format!("{path}: linked neither from README.md nor from docs/ARCHITECTURE.md"));
        }
        linked.extend(linked_from(Path::new(&path), &text));
    }
    complaints
        .extend(linked.iter().filter(|to| !root().join(to).exists()).map(|to| format!("dead link: {}", to.display())));
    no_complaints("documents", &complaints);
}

#[test]
fn the_scanner_tells_code_from_text() {
    let code = code_only(
        "let a = \"unsafe {\"; // unsafe\nlet b = r#\"fn x() \"{\" \"#; let c = '{'; fn f<'a>() {}\n/* /* */ { */ 'x'",
    );
    assert!(!code.contains("unsafe") && !code.contains("fn x"), "{code}");
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert!(code.contains("fn f<'a>() {}"), "{code}");
    let found = functions("fn one() {\n}\ntrait T { fn two(&self);\n fn three()\n {\n {\n }\n }\n}");
    let found: Vec<_> = found.iter().map(|(_, name, lines)| (name.as_str(), *lines)).collect();
    assert_eq!(found, [("one", 2), ("two", 1), ("three", 5)]);
}
