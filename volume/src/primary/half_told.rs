//! Tellings in a window that have no end: an opening or a resync was cut off while it told what stands.
//!
//! A telling says how large a file is, everything in it gone, and then its bytes. A part of it must not be done again: what it
//! cuts off was synced perhaps, and the bytes that stood there are not behind it. It takes nothing away to leave it out. An
//! opening told what the journal before it, done again, gives too, but for what it settled, which is named as active and told as
//! it stands; while a resync goes on, every sync is one of the file itself, and the volume was on disk when the suspension
//! began.

use std::ops::RangeInclusive;

use reelfs_journal::{Change, MarkerKind, Record, Seq};

/// Their records.
#[derive(Debug, Default)]
pub(super) struct HalfTold {
    begun: Option<Seq>,
    ended_early: Vec<RangeInclusive<Seq>>,
}

impl HalfTold {
    /// The next record of the window. `Suspended` and `ResyncEnd` are not in it: a window begins behind them.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        let Change::Marker { kind, .. } = record.change else { return };
        match kind {
            MarkerKind::RecoveryBegin | MarkerKind::AdoptBegin | MarkerKind::ResyncBegin => {
                let before = self.begun.replace(record.seq);
                self.ended_early.extend(before.map(|begun| begun..=record.seq.previous()));
            }
            MarkerKind::RecoveryEnd | MarkerKind::AdoptEnd | MarkerKind::ResyncEnd => self.begun = None,
            MarkerKind::Named
            | MarkerKind::EpochStart
            | MarkerKind::AcquisitionStart
            | MarkerKind::AcquisitionStop
            | MarkerKind::Suspended
            | MarkerKind::VolumeLeft
            | MarkerKind::ClockStep
            | MarkerKind::Quiet => {}
        }
    }

    /// Whether a record is of one of them; all of the window were noted.
    pub(super) fn has(&self, seq: Seq) -> bool {
        self.begun.is_some_and(|begun| begun <= seq) || self.ended_early.iter().any(|records| records.contains(&seq))
    }
}

#[cfg(test)]
mod tests {
    use reelfs_journal::{Epoch, Tags, Timestamp, VolumeIndex};

    use super::*;

    fn half_told(markers: &[(u64, MarkerKind)]) -> HalfTold {
        let mut half_told = HalfTold::default();
        for (seq, kind) in markers {
            let (name, note, tags) = ("".into(), "".into(), Tags::default());
            let change = Change::Marker { kind: *kind, name, note, tags, epoch: Epoch(1), since: Timestamp(0) };
            half_told.note(&Record {
                seq: Seq(*seq),
                more: false,
                time: Timestamp(0),
                wall: Timestamp(0),
                uid: 0,
                pid: 0,
                volume: VolumeIndex(0),
                change,
            });
        }
        half_told
    }

    fn of(markers: &[(u64, MarkerKind)]) -> Vec<u64> {
        let half_told = half_told(markers);
        (0..20).filter(|seq| half_told.has(Seq(*seq))).collect()
    }

    #[test]
    fn a_telling_counts_from_its_beginning_to_its_end_or_not_at_all() {
        use MarkerKind::{AdoptBegin, AdoptEnd, EpochStart, RecoveryBegin, RecoveryEnd, ResyncBegin};
        assert_eq!(of(&[]), [0; 0]);
        assert_eq!(of(&[(3, RecoveryBegin), (5, RecoveryEnd), (6, AdoptBegin), (9, AdoptEnd)]), [0; 0]);
        assert_eq!(of(&[(3, RecoveryBegin), (5, RecoveryEnd), (17, AdoptBegin)]), [17, 18, 19]);
        assert_eq!(of(&[(17, ResyncBegin), (18, EpochStart)]), [17, 18, 19]);
        assert_eq!(of(&[(4, AdoptBegin), (7, RecoveryBegin), (8, RecoveryEnd)]), [4, 5, 6]);
    }
}
