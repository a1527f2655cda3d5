//! The records of a journal, applied one by one to a replica.

use std::borrow::Cow;
use std::collections::HashMap;

use reelfs_journal::{AmendOutcome, Change, Jvol, Record, Seq};
use reelfs_volume::Volume;

/// All records of a journal, as they were appended.
pub fn records(jvol: &Jvol) -> Vec<Record<'static>> {
    let pointers = jvol.pointers();
    let mut reader = jvol.read(pointers.out, pointers.next.previous()).expect("the journal holds them");
    let mut records = Vec::new();
    while let Some(record) = reader.next() {
        let (control, data) = record.expect("the journal is whole");
        records.push(Record::decode(control, data).expect("a record").into_owned());
    }
    records
}

/// Records in order, each as it was amended.
pub struct Replay {
    records: Vec<Record<'static>>,
    amended: HashMap<Seq, AmendOutcome>,
}

impl Replay {
    /// Looks ahead for amendments.
    pub fn new(records: Vec<Record<'static>>) -> Replay {
        let amended = records
            .iter()
            .filter_map(|record| match record.change {
                Change::Amend { amended, outcome } => Some((amended, outcome)),
                _ => None,
            })
            .collect();
        Replay { records, amended }
    }

    /// The records.
    pub fn records(&self) -> &[Record<'static>] {
        &self.records
    }

    /// Whether a record was amended.
    pub fn is_amended(&self, seq: Seq) -> bool {
        self.amended.contains_key(&seq)
    }

    /// Makes one record true on a replica.
    pub fn apply(&self, record: &Record<'_>, replica: &Volume) -> Result<(), String> {
        let change = match (self.amended.get(&record.seq), &record.change) {
            (Some(AmendOutcome::Void), _) => return Ok(()),
            (Some(AmendOutcome::Short { length, size }), Change::Write { file, offset, data, mtime, .. }) => {
                let length = usize::try_from(*length).expect("no more than was asked for");
                let data = Cow::Borrowed(&data[..length]);
                Change::Write { file: *file, offset: *offset, data, size: *size, mtime: *mtime }
            }
            (Some(outcome), change) => return Err(format!("{outcome:?} of a {}", change.verb())),
            (None, change) => change.clone(),
        };
        replica
            .apply(&change)
            .map(|_| ())
            .map_err(|error| format!("record {} {:?}: {error}", record.seq, record.change))
    }
}
