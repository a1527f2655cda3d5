//! What a tape's control data tells before anything is applied: markers, ends of base copies, and what earlier records
//! really did.

use reelfs_archive::{TapeError, VerifiedTape};
use reelfs_journal::{
    AmendOutcome, Amends, CONTROL_LEN, Change, Epoch, FLAG_MORE, MarkerKind, Record, Seq, Tags, Timestamp, VolumeIndex,
};
use uuid::Uuid;

use crate::points::{Glance, Happening, What};

/// Where the kind and the flags stand in control data (`docs/FORMAT-journal.md`); the test below holds it to the encoder.
const KIND_AT: usize = 0;
const FLAGS_AT: usize = 1;

/// Records between two that are wanted that are rather read through than jumped over.
const JUMP: u64 = 4096;

/// What a tape tells.
#[derive(Debug, Default)]
pub struct Told {
    /// Markers, ends of base copies, and the first record of each volume.
    pub happenings: Vec<Happening>,
    /// What records of this tape really did.
    pub amends: Amends,
}

/// Control data without its journal data.
#[must_use]
pub fn glance(control: &[u8; CONTROL_LEN]) -> Glance {
    let (seq, time) = Record::peek(control);
    Glance { seq, time, more: control[FLAGS_AT] & FLAG_MORE != 0 }
}

fn kind_of(change: Change<'_>) -> u8 {
    let record = Record {
        seq: Seq(1),
        more: false,
        time: Timestamp(0),
        wall: Timestamp(0),
        uid: 0,
        pid: 0,
        volume: VolumeIndex(0),
        change,
    };
    record.encode().control()[KIND_AT]
}

/// Kinds whose records [`read`] wants to see.
fn wanted_kinds() -> [u8; 3] {
    [
        kind_of(Change::Amend { amended: Seq(1), outcome: AmendOutcome::Void }),
        kind_of(Change::BaseEnd { base: Uuid::nil(), began: Seq(1), digest: [0; 32] }),
        kind_of(Change::Marker {
            kind: MarkerKind::Named,
            epoch: Epoch(1),
            name: String::new(),
            note: String::new(),
            tags: Tags::default(),
            since: Timestamp(0),
        }),
    ]
}

/// Notes that the volume of a record is part of the group, when that is not known yet. Markers tell so themselves, those of
/// the whole group say nothing about a volume.
pub(super) fn note_life(happenings: &mut Vec<Happening>, control: &[u8; CONTROL_LEN]) {
    let ((seq, time), volume) = (Record::peek(control), Record::peek_volume(control));
    if !happenings.iter().any(|known| known.what == What::Lives && known.volume == volume) {
        happenings.push(Happening { seq, time, volume, what: What::Lives });
    }
}

/// Reads what an update tape tells: its control data, and of its journal data only what belongs to it.
///
/// # Errors
/// The tape does not read back.
pub fn read(tape: &VerifiedTape) -> Result<Told, TapeError> {
    let (kinds, mut wanted) = (wanted_kinds(), Vec::new());
    let mut told = Told::default();
    for control in tape.controls() {
        let control = control?;
        if !Record::is_marker(&control) {
            note_life(&mut told.happenings, &control);
        }
        if kinds.contains(&control[KIND_AT]) {
            wanted.push(glance(&control).seq);
        }
    }
    let mut wanted = wanted.into_iter().peekable();
    while let Some(&from) = wanted.peek() {
        let mut records = tape.records(from)?;
        let mut reached = from;
        while let Some(next) = wanted.next_if(|next| next.0 <= reached.0 + JUMP) {
            reached = next;
            while let Some(raw) = records.next()? {
                let record = raw.decode()?;
                if record.seq < next {
                    continue;
                }
                told.amends.note(&record.change);
                told.happenings.extend(Happening::of(&record));
                break;
            }
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use reelfs_journal::{FileId, FileTime};

    use super::*;

    fn record(seq: u64, more: bool, change: Change<'_>) -> Record<'_> {
        Record {
            seq: Seq(seq),
            more,
            time: Timestamp(7),
            wall: Timestamp(0),
            uid: 0,
            pid: 0,
            volume: VolumeIndex(0),
            change,
        }
    }

    #[test]
    fn a_glance_sees_what_the_encoder_wrote() {
        for more in [false, true] {
            let record = record(5, more, Change::Sync { file: FileId::NONE });
            let encoded = record.encode();
            assert_eq!(glance(encoded.control()), Glance { seq: Seq(5), time: Timestamp(7), more });
        }
        let kinds = wanted_kinds();
        assert!(!kinds.contains(&kind_of(Change::Sync { file: FileId::NONE })));
        assert!(kinds[0] != kinds[1] && kinds[1] != kinds[2] && kinds[0] != kinds[2]);
    }

    #[test]
    fn an_amended_record_is_what_it_really_did() {
        let mut amends = Amends::default();
        amends.note(&Change::Amend { amended: Seq(1), outcome: AmendOutcome::Void });
        amends.note(&Change::Amend { amended: Seq(2), outcome: AmendOutcome::Short { length: 2, size: 9 } });
        let write = |seq| {
            let data = Cow::Borrowed(&b"abc"[..]);
            record(
                seq,
                false,
                Change::Write { file: FileId::NONE, offset: 7, data, size: 10, mtime: FileTime::default() },
            )
        };
        assert_eq!(amends.real(write(1)), None);
        match amends.real(write(2)) {
            Some(Change::Write { data, size: 9, offset: 7, .. }) => assert_eq!(&*data, b"ab"),
            other => panic!("{other:?}"),
        }
        assert_eq!(amends.real(write(3)), Some(write(3).change));
    }
}
