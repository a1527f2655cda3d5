//! The state of a pair, and what each verb may do in it: one table, for the program, for the documents and for the test.
//!
//! ```text
//!            base copy            ends well
//!     SMPL ------------> COPY -----------------> PAIR     (and back to COPY with resync --full)
//!       ^                 | ^                    |  ^
//!       | a new epoch     | | resync      split, |  | nothing to tell
//!       |          fails  v |       journal full v  |
//!       +---------------- SUSP <------------------- +
//! ```

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// State of a pair, in the words of storage people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairState {
    /// No base copy yet: the tapes lead nowhere.
    Smpl,
    /// A base copy or a resync is running, or a base copy through the journal was interrupted.
    Copy,
    /// Changes are journaled and can be restored.
    Pair,
    /// Nothing is journaled; what changes is noted.
    Susp,
}

/// A verb that a state may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairVerb {
    /// `reelfs base copy`
    BaseCopy,
    /// `reelfs pair split`
    Split,
    /// `reelfs pair resync`
    Resync,
    /// `reelfs pair resync --full`
    ResyncFull,
    /// `reelfs mark`
    Mark,
    /// `reelfs tape export`
    Export,
    /// `reelfs pair delete`
    Delete,
}

/// What a state says to a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Accepted,
    /// It is so already: nothing is done, and that is no error.
    NoOp,
    /// It would promise what nobody can keep: exit code 16, and nothing is changed.
    Refused(&'static str),
}

impl FromStr for PairState {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<PairState, String> {
        let known = |state: &&PairState| state.word().eq_ignore_ascii_case(text);
        PairState::ALL.iter().find(known).copied().ok_or_else(|| format!("a state is one of {}", words().join(", ")))
    }
}

impl PairState {
    /// All of them.
    pub const ALL: [PairState; 4] = [PairState::Smpl, PairState::Copy, PairState::Pair, PairState::Susp];

    /// Of a pair with which nothing is being done; `is_under_way`: a base copy through the journal is not finished.
    #[must_use]
    pub fn of(is_suspended: bool, has_base: bool, is_under_way: bool) -> PairState {
        match (is_suspended, has_base, is_under_way) {
            (true, _, _) => PairState::Susp,
            (false, _, true) => PairState::Copy,
            (false, true, false) => PairState::Pair,
            (false, false, false) => PairState::Smpl,
        }
    }

    /// Of several pairs the state that most needs attention; without a pair SMPL.
    #[must_use]
    pub fn together(states: impl Iterator<Item = PairState>) -> PairState {
        let urgency = |state: &PairState| match state {
            PairState::Pair => 0,
            PairState::Copy => 1,
            PairState::Smpl => 2,
            PairState::Susp => 3,
        };
        states.max_by_key(urgency).unwrap_or(PairState::Smpl)
    }

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            PairState::Smpl => "SMPL",
            PairState::Copy => "COPY",
            PairState::Pair => "PAIR",
            PairState::Susp => "SUSP",
        }
    }
}

impl PairVerb {
    /// All of them.
    pub const ALL: [PairVerb; 7] = [
        PairVerb::BaseCopy,
        PairVerb::Split,
        PairVerb::Resync,
        PairVerb::ResyncFull,
        PairVerb::Mark,
        PairVerb::Export,
        PairVerb::Delete,
    ];

    /// As it is typed.
    #[must_use]
    pub fn typed(self) -> &'static str {
        match self {
            PairVerb::BaseCopy => "base copy",
            PairVerb::Split => "pair split",
            PairVerb::Resync => "pair resync",
            PairVerb::ResyncFull => "pair resync --full",
            PairVerb::Mark => "mark",
            PairVerb::Export => "tape export",
            PairVerb::Delete => "pair delete",
        }
    }
}

/// The table.
#[must_use]
pub fn verdict(state: PairState, verb: PairVerb) -> Verdict {
    use Verdict::{Accepted, NoOp, Refused};
    match (state, verb) {
        (PairState::Smpl, PairVerb::BaseCopy | PairVerb::Mark | PairVerb::Export) => Accepted,
        (PairState::Smpl, PairVerb::Split) => Refused("there is no base copy yet, so there is no pair to split"),
        (PairState::Smpl, PairVerb::Resync | PairVerb::ResyncFull) => {
            Refused("there is no base copy yet, so there is no pair to bring back")
        }
        // one copy after the other: the second waits for the first
        (PairState::Copy, PairVerb::BaseCopy | PairVerb::Export | PairVerb::Mark) => Accepted,
        (PairState::Copy, PairVerb::Resync | PairVerb::ResyncFull) => Accepted,
        (PairState::Copy, PairVerb::Split) => Refused("a copy is not finished, and a split would keep it from its end"),
        (PairState::Pair, PairVerb::BaseCopy | PairVerb::Split | PairVerb::Mark | PairVerb::Export) => Accepted,
        (PairState::Pair, PairVerb::ResyncFull) => Accepted,
        (PairState::Pair, PairVerb::Resync) => NoOp,
        (PairState::Susp, PairVerb::BaseCopy) => Refused("a base copy stands on journaled changes"),
        (PairState::Susp, PairVerb::Split) => NoOp,
        (PairState::Susp, PairVerb::Resync | PairVerb::ResyncFull | PairVerb::Export) => Accepted,
        (PairState::Copy, PairVerb::Delete) => Refused("a copy is not finished"),
        (PairState::Smpl | PairState::Pair | PairState::Susp, PairVerb::Delete) => Accepted,
        (PairState::Susp, PairVerb::Mark) => Refused("a marker set now could not be restored to"),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accepted => f.write_str("accepted"),
            Verdict::NoOp => f.write_str("no-op"),
            Verdict::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

/// Whether there is something to do; a refusal as a sentence.
///
/// # Errors
/// 16 when the state refuses the verb.
pub fn admit(group: &str, state: PairState, verb: PairVerb) -> Result<bool> {
    match verdict(state, verb) {
        Verdict::Accepted => Ok(true),
        Verdict::NoOp => Ok(false),
        Verdict::Refused(why) => {
            let error = Error::new(ErrorKind::State, format!("group {group} is {}: {why}", state.word()));
            Err(error.hint(match state {
                PairState::Smpl => format!("reelfs base copy {group} --to DIR"),
                PairState::Copy => {
                    format!("how far it is: reelfs status {group}; if it stands still: reelfs pair resync {group}")
                }
                PairState::Pair | PairState::Susp => format!("bring it back: reelfs pair resync {group}"),
            }))
        }
    }
}

/// The table for people, in Markdown.
#[must_use]
pub fn table() -> String {
    let mut text = format!("| verb | {} |\n|---|{}\n", words().join(" | "), "---|".repeat(PairState::ALL.len()));
    for verb in PairVerb::ALL {
        let cells = PairState::ALL.map(|state| verdict(state, verb).to_string());
        text.push_str(&format!("| `{}` | {} |\n", verb.typed(), cells.join(" | ")));
    }
    text
}

/// The table without its reasons, for a terminal.
#[must_use]
pub fn help() -> String {
    let row = |first: &str, cells: [&str; 4]| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:10}")).collect();
        format!("  {first:18} {}", cells.join("")).trim_end().to_owned() + "\n"
    };
    let mut text = "What each state says to a verb:\n".to_owned() + &row("", words());
    for verb in PairVerb::ALL {
        let cells = PairState::ALL.map(|state| match verdict(state, verb) {
            Verdict::Accepted => "accepted",
            Verdict::NoOp => "no-op",
            Verdict::Refused(_) => "refused",
        });
        text.push_str(&row(verb.typed(), cells));
    }
    text
}

fn words() -> [&'static str; 4] {
    PairState::ALL.map(PairState::word)
}
