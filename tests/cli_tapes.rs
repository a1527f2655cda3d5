//! `tape list`, `tape show` and `tape verify`, as a librarian uses them: on files, without any group.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use support::Sandbox;

fn path(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

/// A base tape and three update tapes of a group that was never mounted.
fn tapes(sandbox: &Sandbox) -> std::path::PathBuf {
    let tapes = sandbox.directory("tapes");
    sandbox.group("docs", &sandbox.directory("pvol"));
    sandbox.base("docs", &tapes).ok();
    for name in ["one", "two"] {
        sandbox.mark("docs", name).ok();
        sandbox.export("docs", &tapes).ok();
    }
    tapes
}

#[test]
fn whole_tapes_are_listed_shown_and_verified() {
    let sandbox = Sandbox::new();
    let tapes = tapes(&sandbox);
    let listed = sandbox.reelfs(["tape", "list", path(&tapes), "--json"]).ok().json();
    let rows = listed["tapes"].as_array().expect("rows");
    assert_eq!((rows.len(), &rows[0]["kind"], &rows[1]["kind"]), (4, &"base".into(), &"update".into()));
    assert_eq!((&listed["gaps"], &listed["damaged"]), (&serde_json::json!([]), &serde_json::json!([])));
    for pair in rows[1..].windows(2) {
        assert_eq!(pair[0]["last"].as_u64().map(|last| last + 1), pair[1]["first"].as_u64());
    }
    let text = sandbox.reelfs(["tape", "list", path(&tapes)]).ok().stdout;
    assert_eq!(text.lines().count(), 4, "{text}");
    let last = rows[3]["path"].as_str().expect("a path");
    let shown = sandbox.reelfs(["tape", "show", last, "--json"]).ok().json();
    assert_eq!((&shown["previous"], &shown["group"]), (&rows[2]["name"], &"docs".into()));
    let verified = sandbox.reelfs(["tape", "verify", path(&tapes), last, "--json"]).ok().json_lines();
    let summary = verified.last().expect("a summary");
    assert_eq!(
        (&summary["message_type"], &summary["tapes"], &summary["damaged"]),
        (&"summary".into(), &4.into(), &0.into())
    );
}

#[test]
fn what_is_missing_damaged_or_no_tape_is_said() {
    let sandbox = Sandbox::new();
    let tapes = tapes(&sandbox);
    let rows = sandbox.reelfs(["tape", "list", path(&tapes), "--json"]).ok().json()["tapes"].clone();
    let file = |number: usize| rows[number]["path"].as_str().expect("a path").to_owned();
    fs::rename(file(2), sandbox.path("elsewhere")).unwrap();
    let gap = sandbox.reelfs(["tape", "list", path(&tapes)]).ok();
    assert!(gap.stdout.contains(&format!("missing: seq {} to {}", rows[2]["first"], rows[2]["last"])), "{gap}");
    let verified = sandbox.reelfs(["tape", "verify", path(&tapes)]).ok();
    assert!(verified.stderr.contains("are not here"), "{verified}");

    fs::rename(sandbox.path("elsewhere"), file(2)).unwrap();
    fs::rename(file(1), sandbox.path("elsewhere")).unwrap();
    let gap = sandbox.reelfs(["tape", "list", path(&tapes)]).ok();
    let after_base = rows[0]["last"].as_u64().map(|last| last + 1).expect("a number");
    let after_base = format!("missing: seq {after_base} to {}", rows[1]["last"]);
    assert!(gap.stdout.lines().nth(1).is_some_and(|line| line.contains(&after_base)), "{gap}");
    let verified = sandbox.reelfs(["tape", "verify", path(&tapes)]).ok();
    assert!(verified.stderr.contains("are not here"), "{verified}");
    fs::rename(sandbox.path("elsewhere"), file(1)).unwrap();
    fs::remove_file(file(2)).unwrap();

    let mut bytes = fs::read(file(1)).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(file(1), &bytes).unwrap();
    let damaged = sandbox.reelfs(["tape", "verify", path(&tapes)]).refused(19, &["1 of 3 tapes damaged"]);
    assert!(damaged.stdout.contains("damaged"), "{damaged}");
    fs::write(file(1), &bytes[..bytes.len() / 2]).unwrap();
    sandbox.reelfs(["tape", "list", path(&tapes)]).refused(3, &["1 tape cannot be read"]);
    sandbox.reelfs(["tape", "show", &file(1)]).refused(19, &["cut off"]);

    sandbox.reelfs(["tape", "show", path(&sandbox.path("nothing"))]).refused(10, &["there is no tape"]);
    sandbox.reelfs(["tape", "list", path(&sandbox.path("nothing"))]).refused(10, &[]);
    sandbox.reelfs(["tape", "verify", path(&sandbox.directory("empty"))]).refused(10, &["there is no tape in"]);
}
