//! First contact: what a newcomer runs first works, and what the README shows is what the program prints.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::{Outcome, Sandbox, mount, tools, wait};

/// A newcomer's patience.
const DEMO_MAX: Duration = Duration::from_secs(60);

#[test]
fn the_demo_tells_the_whole_story_in_under_a_minute() {
    let sandbox = Sandbox::new();
    let temporary = sandbox.directory("tmp");
    let begin = wait::now();
    let mut command = sandbox.command();
    let outcome = Outcome::of(command.env("TMPDIR", &temporary).arg("demo")).ok();
    assert!(begin.elapsed() < DEMO_MAX, "took {:?}", begin.elapsed());
    println!("{}", outcome.stdout);
    let lines: Vec<&str> = outcome.stdout.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let same = lines.iter().filter(|line| line.ends_with("equal, byte for byte")).count();
    assert!(same >= 3, "a table of three moments, each compared: {outcome}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "the demo leaves nothing behind");
    assert_eq!(fs::read_dir(sandbox.state()).unwrap().count(), 0, "the demo has a state directory of its own");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(temporary.to_str().unwrap()), "the demo left a mount: {mounts}");
}

/// The README's `console` blocks, run by the real program in an empty directory: the document is the test.
#[test]
fn the_session_of_the_readme_is_what_happens() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&readme).unwrap();
    assert!(text.contains("```console"), "the README shows no session");
    let sandbox = Sandbox::new();
    let session = sandbox.directory("session");
    fs::copy(&readme, sandbox.path("README.md")).unwrap();
    fs::create_dir(sandbox.path("README.in")).unwrap();
    let cases = trycmd::TestCases::new();
    cases
        .env("REELFS_STATE_DIR", sandbox.state().to_str().unwrap())
        .env("TZ", "UTC")
        .env("HOME", session.to_str().unwrap());
    cases.default_bin_path(support::program::BINARY).timeout(Duration::from_secs(60));
    for program in ["mkdir", "cat", "echo", "ls", "cp", "mv", "rm", "diff", "sleep", "sh", "tar", "zstd"] {
        if let Some(path) = tools::find(program) {
            cases.register_bin(program, trycmd::schema::Bin::Path(path));
        }
    }
    cases.case(sandbox.path("README.md")).run();
    assert!(!mount::is_mounted(&session), "the session left a mount");
}

/// The first things that a person tries wrongly get a sentence that helps, and none of them a backtrace.
#[test]
fn first_mistakes_get_a_sentence() {
    let sandbox = Sandbox::new();
    let (nowhere, tapes) = (sandbox.path("nowhere"), sandbox.directory("tapes"));
    let (nowhere, tapes) = (nowhere.to_str().unwrap(), tapes.to_str().unwrap());
    let mistakes: &[(&[&str], i32, &str)] = &[
        (&["group", "create", "docs", "--pvol", nowhere], 10, "nowhere"),
        (&["group", "create", "My Documents", "--pvol", tapes], 2, "a-z"),
        (&["group", "create", "docs", "--pvol", tapes, "--size", "1KiB"], 2, "16"),
        (&["mount", "docs", tapes], 10, "docs"),
        (&["umount", tapes], 10, ""),
        (&["tape", "export", "docs", "--to", tapes], 10, "docs"),
        (&["restore", "--tapes", nowhere, "--to", nowhere], 10, "nowhere"),
        (&["restore", "--tapes", tapes, "--to", nowhere], 10, "no tape"),
        (&["points", "--tapes", tapes], 10, "no tape"),
        (&["tape", "verify", nowhere], 10, "nowhere"),
        (&["protect", nowhere, tapes, "--tapes", tapes], 10, "nowhere"),
        (&["mark", "docs", "x"], 10, "docs"),
        (&["frobnicate"], 2, "frobnicate"),
    ];
    for (words, code, part) in mistakes {
        let outcome = sandbox.reelfs(words.iter());
        assert_eq!(outcome.code, *code, "{outcome}");
        assert!(
            outcome.stderr.contains(part) && !outcome.stderr.contains("backtrace"),
            "should say `{part}`:\n{outcome}"
        );
        let json = sandbox.reelfs(words.iter().chain(&["--json"]));
        assert_eq!(json.code, *code, "{json}");
        if *code != 2 {
            let error: serde_json::Value =
                serde_json::from_str(json.stderr.lines().last().unwrap_or_default()).unwrap();
            assert_eq!((&error["message_type"], &error["code"]), (&"exit_error".into(), &(*code).into()), "{json}");
        }
    }
    let status = sandbox.reelfs(["status"]).ok();
    assert!(status.stdout.contains("reelfs protect") || status.stdout.contains("group create"), "{status}");
}

#[test]
fn help_completions_and_manual_pages_are_there() {
    let sandbox = Sandbox::new();
    for words in [
        &["--help"][..],
        &["--version"],
        &["man"],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
    ] {
        assert!(sandbox.reelfs(words).ok().stdout.contains("reelfs"));
    }
    for verb in
        ["group", "mount", "umount", "mark", "base", "tape", "points", "log", "restore", "protect", "status", "demo"]
    {
        assert!(sandbox.reelfs([verb, "--help"]).ok().stdout.contains("Usage"), "{verb}");
    }
}
