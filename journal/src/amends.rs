//! What records really did, from the amendments that follow them.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::{AmendOutcome, Change, Record, Seq};

/// What records really did, where that differs from what they say.
#[derive(Debug, Default, Clone)]
pub struct Amends(HashMap<Seq, AmendOutcome>);

impl Amends {
    /// Takes in an `Amend`; other changes are not its business.
    pub fn note(&mut self, change: &Change<'_>) {
        if let Change::Amend { amended, outcome } = change {
            self.0.insert(*amended, *outcome);
        }
    }

    /// Whether a record was amended.
    #[must_use]
    pub fn has(&self, seq: Seq) -> bool {
        self.0.contains_key(&seq)
    }

    /// The record's change as it really was; `None` when it was nothing.
    #[must_use]
    pub fn real<'a>(&self, record: Record<'a>) -> Option<Change<'a>> {
        match (self.0.get(&record.seq), record.change) {
            (None, change) => Some(change),
            (Some(AmendOutcome::Void), _) => None,
            (Some(AmendOutcome::Short { length, size }), change) => Some(shortened(change, *length, *size)),
        }
    }
}

fn shortened(change: Change<'_>, length: u64, left: u64) -> Change<'_> {
    match change {
        Change::Write { file, offset, data, mtime, .. } => {
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(data.len());
            let data = match data {
                Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..length]),
                Cow::Owned(mut bytes) => {
                    bytes.truncate(length);
                    Cow::Owned(bytes)
                }
            };
            Change::Write { file, offset, data, size: left, mtime }
        }
        Change::Zero { file, offset, mtime, .. } => Change::Zero { file, offset, length, size: left, mtime },
        Change::Allocate { file, offset, mtime, .. } => Change::Allocate { file, offset, length, size: left, mtime },
        Change::SetSize { file, mtime, .. } => Change::SetSize { file, size: left, mtime },
        other => other,
    }
}
