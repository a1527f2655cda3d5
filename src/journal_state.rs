//! How full a journal is, and what each directory of tapes still lacks.

use std::path::PathBuf;

use reelfs_journal::{CONTROL_LEN, Jvol, JvolPointers, Record, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::consumer::{Consumer, Way};
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
    /// Every record up to here is known to be durable.
    pub durable: Seq,
    /// Time of the first record held; absent when none is.
    pub first_time: Option<Timestamp>,
    /// Time of the last record; absent when there never was one.
    pub last_time: Option<Timestamp>,
    /// What each directory lacks.
    pub waiting: Vec<Waiting>,
    /// Bytes that each replica lacks.
    #[serde(default)]
    pub replicas: Vec<(Uuid, u64)>,
}

/// What a directory of tapes lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The directory.
    pub dir: PathBuf,
    /// The last record on its tapes.
    pub seq: Seq,
    /// The last record that an export is reading for it: the same while none does.
    pub read_scheduled: Seq,
    /// The last record that a restorer has applied; absent where none reports, as from a directory of tapes.
    pub restored: Option<Seq>,
    /// The last record that a restorer is applying.
    pub restore_scheduled: Option<Seq>,
    /// Its last tape.
    pub tape: Option<String>,
    /// Records after that.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl JournalState {
    /// Reads pointers and control data. `reading`: the directory that an export runs for, and up to which record.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn of(jvol: &Jvol, file: &GroupFile, reading: Option<&(PathBuf, Seq)>) -> Result<JournalState> {
        while_held(jvol, |pointers| {
            let waiting = file
                .targets
                .iter()
                .map(|target| waiting(jvol, pointers, target, reading))
                .collect::<Result<Vec<_>>>()?;
            Ok(JournalState {
                first: pointers.out,
                last: pointers.next.previous(),
                size_bytes: pointers.size,
                used: pointers.occupancy(),
                data_bytes: pointers.data_used,
                durable: pointers.durable,
                first_time: first_time(jvol, pointers)?,
                last_time: (pointers.last_time != Timestamp(i64::MIN)).then_some(pointers.last_time),
                waiting,
                replicas: replicas(jvol, pointers, file)?,
            })
        })
    }

    /// Bytes that a replica lacks.
    #[must_use]
    pub fn lacks(&self, replica: Uuid) -> u64 {
        self.replicas.iter().find(|(id, _)| *id == replica).map_or(0, |(_, bytes)| *bytes)
    }

    /// Seconds until the journal is full, if it goes on filling as it did since the first record held; `None` while nobody can
    /// say.
    #[must_use]
    pub fn full_in_seconds(&self) -> Option<u64> {
        let (first, last) = (self.first_time?, self.last_time?);
        let seconds = last.0.saturating_sub(first.0) as f64 / Timestamp::SECOND as f64;
        // of a few records in a moment nothing can be told
        let rate = (seconds >= 1.0 && self.used > 0.0).then(|| self.used / seconds)?;
        Some(((1.0 - self.used).max(0.0) / rate) as u64)
    }

    /// Records held.
    #[must_use]
    pub fn records(&self) -> u64 {
        (self.last.0 + 1).saturating_sub(self.first.0)
    }
}

/// What is counted between two places of the journal; anew when room was freed meanwhile, for an export does not wait until
/// somebody has counted. Each time there is less to count.
fn while_held<T>(jvol: &Jvol, mut count: impl FnMut(&JvolPointers) -> Result<T>) -> Result<T> {
    loop {
        let pointers = jvol.pointers();
        match count(&pointers) {
            Err(_) if jvol.pointers().out != pointers.out => {}
            counted => return counted,
        }
    }
}

fn first_time(jvol: &Jvol, pointers: &JvolPointers) -> Result<Option<Timestamp>> {
    if pointers.next <= pointers.out {
        return Ok(None);
    }
    let mut controls = jvol.controls(pointers.out, pointers.out)?;
    let time = |control: std::result::Result<&[u8; CONTROL_LEN], _>| control.map(|control| Record::peek(control).1);
    Ok(controls.next().map(time).transpose()?)
}

fn replicas(jvol: &Jvol, pointers: &JvolPointers, file: &GroupFile) -> Result<Vec<(Uuid, u64)>> {
    let lacks = |known: &Consumer| Ok((known.id, bytes_after(jvol, pointers, known.pointers.already_restored)?));
    file.consumers.iter().filter(|known| known.way == Way::Journal).map(lacks).collect()
}

fn bytes_after(jvol: &Jvol, pointers: &JvolPointers, seq: Seq) -> Result<u64> {
    let (from, last) = (seq.next().max(pointers.out), pointers.next.previous());
    let mut bytes = 0;
    let mut controls = jvol.controls(from.min(pointers.next), last)?;
    while let Some(control) = controls.next() {
        let control = control?;
        bytes += (control.len() + Record::data_len(control).unwrap_or(0)) as u64;
    }
    Ok(bytes)
}

fn waiting(jvol: &Jvol, pointers: &JvolPointers, target: &Target, reading: Option<&(PathBuf, Seq)>) -> Result<Waiting> {
    let (from, last) = (target.seq.next().max(pointers.out), pointers.next.previous());
    let bytes = bytes_after(jvol, pointers, target.seq)?;
    Ok(Waiting {
        dir: target.dir.clone(),
        seq: target.seq,
        read_scheduled: reading
            .filter(|(dir, _)| *dir == target.dir)
            .map_or(target.seq, |(_, upto)| target.seq.max(*upto)),
        restored: None,
        restore_scheduled: None,
        tape: target.last_seen_tape.clone(),
        records: (last.0 + 1).saturating_sub(from.0),
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use reelfs_journal::{Change, Digest, FileId, Reserve, SystemClock, VolumeIndex};

    use super::*;

    #[test]
    fn what_an_export_frees_meanwhile_is_not_missed() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let path = temporary.path().join("jvol");
        Jvol::create(&path, Jvol::SIZE_MIN, Uuid::nil(), &mut |_, _| {}).expect("made");
        let jvol = Jvol::open(&path, Uuid::nil()).expect("opened");
        for _ in 0..3 {
            let change = Change::ListBegin { directory: FileId { ino: 1, generation: 1 } };
            let time = Timestamp(0);
            let record = Record {
                seq: Seq::ZERO,
                more: false,
                time,
                wall: time,
                uid: 0,
                pid: 0,
                volume: VolumeIndex(0),
                change,
            };
            jvol.append(&mut [record.encode()], &SystemClock, Reserve::Use, |_, _| {}).expect("appended");
        }
        let mut counts = 0;
        let bytes = while_held(&jvol, |pointers| {
            counts += 1;
            if counts == 1 {
                jvol.free(Seq(3), Digest::ZERO).expect("freed");
            }
            bytes_after(&jvol, pointers, Seq::ZERO)
        });
        let kept = bytes_after(&jvol, &jvol.pointers(), Seq(2)).expect("the last record is there");
        assert_eq!((bytes.expect("counted anew"), counts), (kept, 2));
        // what is wrong with a journal that stands still is said
        assert!(while_held(&jvol, |_| jvol.controls(Seq(1), Seq(1)).map(|_| ()).map_err(Into::into)).is_err());
    }
}
