//! Markers: tags that are found again, moments at which nothing is under way, and hooks that make a database ready.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{Outcome, Sandbox};

/// A group `docs` with a directory and a base copy in `disk`.
fn group() -> Sandbox {
    let sandbox = Sandbox::new();
    let (pvol, disk) = (sandbox.directory("pvol"), sandbox.directory("disk"));
    fs::write(pvol.join("file"), "first").unwrap();
    sandbox.group_of_size("docs", &pvol, "16MiB");
    sandbox.base("docs", &disk);
    sandbox
}

fn mark(sandbox: &Sandbox, words: &[&str]) -> Outcome {
    sandbox.reelfs(["mark", "docs"].iter().chain(words))
}

/// The markers that `points` lists.
fn markers(sandbox: &Sandbox) -> Vec<Value> {
    let lines = sandbox.reelfs(["points", "docs", "--json"]).ok().json_lines();
    lines.into_iter().filter(|line| line["kind"] == "marker").collect()
}

fn has(text: &str, part: &str) {
    assert!(text.contains(part), "`{part}` should be in:\n{text}");
}

#[test]
fn tags_are_shown_in_points_and_log_from_the_journal_and_from_tapes() {
    let sandbox = group();
    mark(&sandbox, &["plain"]).ok();
    let mount = sandbox.mount("docs", "mnt");
    mark(&sandbox, &["both", "--note", "pg 17", "--tag", "z=1", "--tag", "a=x = y", "--tag", "empty="]).ok();
    let shown = |from: &[&str]| {
        let outcome = |verb: &str, end: &[&str]| sandbox.reelfs([verb].iter().chain(from).chain(end)).ok();
        has(&outcome("points", &[]).stdout, "  pg 17  z=1 a=x = y empty=");
        has(&outcome("log", &[]).stdout, "point both pg 17  z=1 a=x = y empty=");
        // in order, which a parsed object has lost
        has(&outcome("points", &["--json"]).stdout, r#""tags":{"z":"1","a":"x = y","empty":""}"#);
        has(&outcome("log", &["--json"]).stdout, r#""tags":{"z":"1","a":"x = y","empty":""}"#);
        let lines = outcome("points", &["--json"]).json_lines();
        let plain = lines.iter().find(|line| line["name"] == "plain").unwrap();
        assert_eq!(plain.get("tags"), None, "no tags, no field");
    };
    shown(&["docs"]);
    sandbox.export("docs", &sandbox.path("disk"));
    shown(&["--tapes", text(&sandbox.path("disk"))]);
    mount.umount();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn bad_tags_are_usage_errors_and_nothing_is_marked() {
    let sandbox = group();
    let (fits, long) = ("x".repeat(255), "x".repeat(256));
    let refused = |tags: &[&str], sentence: &str| {
        let words = ["m"].into_iter().chain(tags.iter().flat_map(|tag| ["--tag", tag]));
        mark(&sandbox, &words.collect::<Vec<_>>()).refused(2, &[sentence, "--tag KEY=VALUE"]);
    };
    refused(&["nonsense"], "has no `=`");
    refused(&["=value"], "the key is empty");
    refused(&["k=1", "l=1", "k=2"], "the key `k` is there twice");
    refused(&[&format!("{long}=v")], "longer than 255 bytes");
    refused(&[&format!("k={long}")], "the value of `k` is longer than 255 bytes");
    let many: Vec<String> = (0..33).map(|number| format!("k{number}=")).collect();
    refused(&many.iter().map(String::as_str).collect::<Vec<_>>(), "33 tags are more than the 32");
    assert_eq!(markers(&sandbox), Vec::<Value>::new());
    let most: Vec<String> = (0..32).map(|number| format!("{number:02}{}={fits}", &fits[2..])).collect();
    let words = ["m"].into_iter().chain(most.iter().flat_map(|tag| ["--tag", tag]));
    mark(&sandbox, &words.collect::<Vec<_>>()).ok();
    assert_eq!(markers(&sandbox)[0]["tags"].as_object().unwrap().len(), 32);
    assert_eq!(markers(&sandbox)[0]["tags"][format!("31{}", &fits[2..])], json!(fits));
}
