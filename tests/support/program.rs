//! One run of the real program, to its end.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Past this a command counts as hanging, in seconds.
const HANG_S: &str = "300";

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_reelfs");

/// What a run of the program left.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a prepared command; a hanging one is ended and fails the test.
    pub fn of(command: &mut Command) -> Outcome {
        let line = line_of(command);
        let output = command.stdin(Stdio::null()).output().expect("the program can be started");
        let code = std::os::unix::process::ExitStatusExt::signal(&output.status)
            .map_or_else(|| output.status.code().expect("it exited or was killed"), |signal| 128 + signal);
        let outcome = Outcome {
            line,
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(outcome.code != 124, "hangs:\n{outcome}");
        assert!(outcome.code != 101 && !outcome.stderr.contains("panicked at"), "panics:\n{outcome}");
        assert!(outcome.code < 128, "killed by a signal:\n{outcome}");
        outcome
    }

    /// Fails unless the run was successful.
    #[track_caller]
    pub fn ok(self) -> Outcome {
        assert!(self.code == 0, "should have been successful:\n{self}");
        self
    }

    /// Fails unless the run ended with this code and a sentence on standard error that contains all of this.
    #[track_caller]
    pub fn refused(self, code: i32, sentence: &[&str]) -> Outcome {
        assert!(self.code == code, "should have ended with {code}:\n{self}");
        for part in sentence {
            let is_there = self.stderr.to_lowercase().contains(&part.to_lowercase());
            assert!(is_there, "should have said \"{part}\":\n{self}");
        }
        assert!(self.stderr.contains("error: "), "should have said `error: ..`:\n{self}");
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}:\n{self}"))
    }

    /// Standard output as JSON Lines.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{self}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}{}[exit code {}]", self.line, self.stdout, self.stderr, self.code)
    }
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().replace(BINARY, "reelfs")).collect();
    words.join(" ")
}

/// The program, ready to be given arguments: state in `state`, ended when it hangs, in English and UTC.
pub fn command(state: &Path) -> Command {
    wrapped(&[], state)
}

/// The same below another program that limits it (`prlimit`, `setpriv`).
pub fn wrapped(wrapper: &[&str], state: &Path) -> Command {
    let mut words: Vec<OsString> = ["timeout", "-k", "5", HANG_S].map(OsString::from).to_vec();
    words.extend(wrapper.iter().map(OsString::from));
    words.push(BINARY.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    with_environment(&mut command, state);
    command
}

/// The environment of every run: nothing of the developer's leaks in.
pub fn with_environment<'c>(command: &'c mut Command, state: &Path) -> &'c mut Command {
    let backtrace: &OsStr = OsStr::new("1");
    command
        .env("REELFS_STATE_DIR", state)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("RUST_BACKTRACE", backtrace)
        .env_remove("REELFS_GROUP")
        .env_remove("REELFS_LOG")
        .env_remove("NO_COLOR")
}
