//! How full a journal is, and what each directory of tapes still lacks.

use std::path::PathBuf;

use reelfs_journal::{Jvol, JvolPointers, Record, Seq, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::group_file::{GroupFile, Target};

/// The journal, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalState {
    /// First and last record held; the first is one more than the last when none is.
    pub first: Seq,
    /// See `first`.
    pub last: Seq,
    /// Length of the journal volume.
    pub size_bytes: u64,
    /// How much of it is in use, 0 to 1.
    pub used: f64,
    /// Journal data held.
    pub data_bytes: u64,
    /// Time of the last record; absent when there never was one.
    pub last_time: Option<Timestamp>,
    /// What each directory lacks.
    pub waiting: Vec<Waiting>,
}

/// What a directory of tapes lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The directory.
    pub dir: PathBuf,
    /// The last record on its tapes.
    pub seq: Seq,
    /// Its last tape.
    pub tape: Option<String>,
    /// Records after that.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl JournalState {
    /// Reads pointers and control data.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn of(jvol: &Jvol, file: &GroupFile) -> Result<JournalState> {
        let pointers = jvol.pointers();
        let waiting = file.targets.iter().map(|target| waiting(jvol, &pointers, target)).collect::<Result<Vec<_>>>()?;
        Ok(JournalState {
            first: pointers.out,
            last: pointers.next.previous(),
            size_bytes: pointers.size,
            used: pointers.occupancy(),
            data_bytes: pointers.data_used,
            last_time: (pointers.last_time != Timestamp(i64::MIN)).then_some(pointers.last_time),
            waiting,
        })
    }

    /// Records held.
    #[must_use]
    pub fn records(&self) -> u64 {
        (self.last.0 + 1).saturating_sub(self.first.0)
    }
}

fn waiting(jvol: &Jvol, pointers: &JvolPointers, target: &Target) -> Result<Waiting> {
    let (from, last) = (target.seq.next().max(pointers.out), pointers.next.previous());
    let mut bytes = 0;
    let mut controls = jvol.controls(from, last)?;
    while let Some(control) = controls.next() {
        let control = control?;
        bytes += (control.len() + Record::data_len(control).unwrap_or(0)) as u64;
    }
    Ok(Waiting {
        dir: target.dir.clone(),
        seq: target.seq,
        tape: target.last_seen_tape.clone(),
        records: (last.0 + 1).saturating_sub(from.0),
        bytes,
    })
}
