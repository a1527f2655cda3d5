//! Programs of the machine that a test needs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Whether this is the run that counts (`.ci/run`): there a missing tool is a failure.
pub fn is_ci() -> bool {
    std::env::var_os("REELFS_CI").is_some()
}

/// Whether the long forms were asked for (`just soak`).
pub fn is_soak() -> bool {
    std::env::var_os("REELFS_SOAK").is_some()
}

/// The short number for CI, the long one for the soak.
pub fn rounds(ci: usize, soak: usize) -> usize {
    if is_soak() { soak } else { ci }
}

/// Whether the program under test has failpoints, as debug builds have; else says what was not run.
#[must_use]
pub fn has_failpoints() -> bool {
    if !cfg!(debug_assertions) {
        println!("not run: a release build has no failpoints, `.ci/run` runs this");
    }
    cfg!(debug_assertions)
}

/// Where a program stands, by `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/var/cache/reelfs-ci/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// True when all programs are there. Else fails under CI, and elsewhere says what was not run.
#[must_use]
pub fn present(programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
    missing.is_empty() || not_run(&missing.join(", "))
}

/// True when the test runs as root. Else as above.
#[must_use]
pub fn root() -> bool {
    rustix::process::geteuid().is_root() || not_run("root")
}

/// True when it is so. Else as above.
#[must_use]
pub fn holds(is_so: bool, what: &str) -> bool {
    is_so || not_run(what)
}

fn not_run(what: &str) -> bool {
    assert!(!is_ci(), "{what} is missing");
    println!("not run: {what} is missing");
    false
}

/// Runs a program of the machine to its end and returns what it printed; fails when it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let path = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let output = Command::new(path).args(arguments).stdin(Stdio::null()).output().expect("a program can be started");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a shell script in a directory and returns what it printed; fails when any command of it fails.
pub fn shell(directory: &std::path::Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("bash can be started");
    assert!(
        output.status.success(),
        "{script}\n{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
