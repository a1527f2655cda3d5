//! The one error of the command line: what went wrong, with which exit code, and what to do about it.

use std::fmt;
use std::io;

use reelfs_journal::JournalError;

/// What kind of failure it is; each has its exit code, and scripts rely on the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not otherwise classed.
    Failed,
    /// The command makes no sense as written, or directories overlap.
    Usage,
    /// Done, but not all of it.
    Incomplete,
    /// No such group, volume, tape or marker.
    NotFound,
    /// Another reelfs works on it.
    Busy,
    /// The point asked for cannot be reached.
    OutsideWindow,
    /// Would overwrite or lose data.
    WouldOverwrite,
    /// A tape is missing.
    TapeNeeded,
    /// The state of the group does not allow it.
    State,
    /// Waited long enough.
    TimedOut,
    /// The daemon does not answer.
    Unreachable,
    /// A tape or the journal is damaged.
    Damaged,
    /// The journal is full.
    JournalFull,
    /// A tape of another group or of a diverged history.
    Foreign,
    /// A disk is full.
    NoSpace,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// The reader of our output has gone, as in `reelfs log docs | head`: no failure at all.
    BrokenPipe,
}

impl ErrorKind {
    /// All kinds, for the table in the manual and for the way back from a code.
    pub const ALL: [ErrorKind; 18] = [
        ErrorKind::Failed,
        ErrorKind::Usage,
        ErrorKind::Incomplete,
        ErrorKind::NotFound,
        ErrorKind::Busy,
        ErrorKind::OutsideWindow,
        ErrorKind::WouldOverwrite,
        ErrorKind::TapeNeeded,
        ErrorKind::State,
        ErrorKind::TimedOut,
        ErrorKind::Unreachable,
        ErrorKind::Damaged,
        ErrorKind::JournalFull,
        ErrorKind::Foreign,
        ErrorKind::NoSpace,
        ErrorKind::Interrupted,
        ErrorKind::Terminated,
        ErrorKind::BrokenPipe,
    ];

    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            ErrorKind::BrokenPipe => 0,
            ErrorKind::Failed => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Incomplete => 3,
            ErrorKind::NotFound => 10,
            ErrorKind::Busy => 11,
            ErrorKind::OutsideWindow => 13,
            ErrorKind::WouldOverwrite => 14,
            ErrorKind::TapeNeeded => 15,
            ErrorKind::State => 16,
            ErrorKind::TimedOut => 17,
            ErrorKind::Unreachable => 18,
            ErrorKind::Damaged => 19,
            ErrorKind::JournalFull => 20,
            ErrorKind::Foreign => 21,
            ErrorKind::NoSpace => 22,
            ErrorKind::Interrupted => 130,
            ErrorKind::Terminated => 143,
        }
    }

    /// The kind with this exit code; an unknown one is a plain failure.
    #[must_use]
    pub fn from_code(code: u8) -> ErrorKind {
        let known = |kind: &ErrorKind| kind.code() == code && code != 0;
        Self::ALL.into_iter().find(known).unwrap_or(ErrorKind::Failed)
    }

    /// What the code means, for the manual.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            ErrorKind::BrokenPipe => "done, or already so",
            ErrorKind::Failed => "failed, not otherwise classed",
            ErrorKind::Usage => "usage error, or directories that overlap",
            ErrorKind::Incomplete => "done, but incomplete",
            ErrorKind::NotFound => "no such group, directory, tape or marker",
            ErrorKind::Busy => "in use: another reelfs works on it",
            ErrorKind::OutsideWindow => "the point cannot be reached: outside the window",
            ErrorKind::WouldOverwrite => "refused: it would overwrite or lose data",
            ErrorKind::TapeNeeded => "a tape is missing",
            ErrorKind::State => "the state of the group does not allow it",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::Unreachable => "the mount process does not answer",
            ErrorKind::Damaged => "a tape or the journal is truncated or altered",
            ErrorKind::JournalFull => "the journal is full",
            ErrorKind::Foreign => "a tape of another group, or of a diverged history",
            ErrorKind::NoSpace => "no space left",
            ErrorKind::Interrupted => "interrupted",
            ErrorKind::Terminated => "terminated",
        }
    }
}

/// An error for a person and for a script: kind, sentence, hint, cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    /// Somebody else has told the user already; the exit code is theirs.
    told: Option<u8>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What the verbs return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind; the message is lower case and has no full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hint: None, told: None, source: None }
    }

    /// A plain failure.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Failed, message)
    }

    /// A command that makes no sense as written.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage, message)
    }

    /// A failure that another process of ours has told the user; only its exit code is left to pass on.
    #[must_use]
    pub fn told(code: u8) -> Error {
        let error = Error::new(ErrorKind::from_code(code), "told already");
        Error { told: Some(code), ..error }
    }

    /// Whether the user knows already.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// A failure of the operating system at `what` ("read /etc/x"); a full disk becomes [`ErrorKind::NoSpace`].
    #[must_use]
    pub fn io(what: impl fmt::Display, source: io::Error) -> Error {
        let kind = io_kind(&source);
        if kind == ErrorKind::BrokenPipe {
            return Error::failed(format!("{what}: {source}"));
        }
        Error::new(kind, what.to_string()).because(source)
    }

    /// Says what it happened to, before everything else.
    #[must_use]
    pub fn within(mut self, what: impl fmt::Display) -> Error {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Adds what to do about it: a command that can be pasted, or a sentence.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.source = Some(Box::new(source));
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.told.unwrap_or(self.kind.code())
    }

    /// What to do about it.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message with its chain of causes, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static));
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text = format!("{text}: {part}");
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl std::error::Error for Error {}

/// The kind that an error of the operating system falls into when nothing else is known.
#[must_use]
pub fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
        io::ErrorKind::BrokenPipe => ErrorKind::BrokenPipe,
        _ => ErrorKind::Failed,
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Error {
        let kind = match &error {
            JournalError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            JournalError::Io { source, .. } => match io_kind(source) {
                ErrorKind::NoSpace => ErrorKind::NoSpace,
                _ => ErrorKind::Failed,
            },
            JournalError::Damaged { .. } => ErrorKind::Damaged,
            JournalError::Foreign(_) | JournalError::Version { .. } => ErrorKind::Foreign,
            JournalError::Full => ErrorKind::JournalFull,
            _ => ErrorKind::Failed,
        };
        let told = Error::new(kind, error.to_string());
        match kind {
            ErrorKind::NotFound => told.hint("is the disk of the journal mounted?"),
            ErrorKind::Damaged => told.hint("where a tape holds the record: reelfs journal repair GROUP --dry-run"),
            _ => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_come_back() {
        for kind in ErrorKind::ALL {
            let twins = ErrorKind::ALL.into_iter().filter(|other| other.code() == kind.code()).count();
            assert_eq!(twins, 1, "{kind:?}");
            if kind != ErrorKind::BrokenPipe {
                assert_eq!(ErrorKind::from_code(kind.code()), kind);
            }
        }
        assert_eq!(ErrorKind::from_code(77), ErrorKind::Failed);
    }

    #[test]
    fn a_full_disk_is_code_22_and_the_cause_is_told_once() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::io("write /x", full);
        assert_eq!(error.code(), 22);
        assert_eq!(error.to_string(), "write /x: no storage space");
        let outer = Error::failed("a: b").because(io::Error::other("b"));
        assert_eq!(outer.to_string(), "a: b");
    }
}
