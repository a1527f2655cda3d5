//! A stretch of records to follow, and where a replica may stop in it.

use reelfs_archive::VerifiedTape;
use reelfs_journal::{
    Amended, Amends, CONTROL_LEN, Change, Digest, Epoch, Jvol, MarkerKind, Position, Record, RecordError, Seams, Seq,
    Timestamp, VolumeIndex,
};

use super::replica::Stands;
use crate::error::{Error, ErrorKind, Result};
use crate::restore::tape_error;

/// A replica stops for a moment after so many bytes of records (16 MiB), so that little is done again after a kill.
const BATCH_BYTES: u64 = 16 << 20;
/// And after so many records.
const BATCH_RECORDS: u64 = 8192;

/// Where the records are.
pub enum Held {
    /// In the journal volume of a group on this machine.
    Journal(Box<Jvol>),
    /// On a tape, read whole.
    Tape(std::path::PathBuf, Box<VerifiedTape>),
}

/// Settled records that follow what the replica has.
pub struct Stretch {
    /// Where they are.
    pub held: Held,
    /// The last one.
    pub last: Seq,
    /// The volume that is followed: of the others' records no more than the digest is wanted.
    pub volume: VolumeIndex,
    /// What time it is by the clock that its records have their times from, if somebody knows.
    pub now: Option<Timestamp>,
}

/// A place at which a replica may stop: between two operations, with every amendment behind it, and not in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The last record before it.
    pub position: Position,
    /// The time of that record.
    pub time: Timestamp,
    /// With respect to brackets.
    pub stands: Stands,
}

/// What a stretch holds, read through once.
#[derive(Debug, Default)]
pub struct Outline {
    /// Where to stop, in order.
    pub cuts: Vec<Cut>,
    /// What its records really did.
    pub amends: Amends,
    /// A new epoch begins in it: nothing from there on belongs to this replica.
    pub epoch: Option<(Seq, Epoch)>,
    /// The time of the first record that is too young.
    pub later: Option<Timestamp>,
}

/// Takes a record's control data and journal data; says whether to go on.
type Visit<'v> = dyn FnMut(&[u8; CONTROL_LEN], &[u8]) -> Result<bool> + 'v;

impl Stretch {
    fn visit(&self, (from, to): (Seq, Seq), visit: &mut Visit<'_>) -> Result<()> {
        match &self.held {
            Held::Journal(jvol) => {
                let mut reader = jvol.read(from, to)?;
                while let Some(record) = reader.next() {
                    let (control, data) = record?;
                    if !visit(control, data)? {
                        break;
                    }
                }
            }
            Held::Tape(path, tape) => {
                let fail = |error| tape_error(path, error);
                let mut records = tape.records(from).map_err(fail)?;
                while let Some(raw) = records.next().map_err(fail)? {
                    if raw.seq() > to || !visit(raw.control, raw.data)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn decode<'a>(&self, control: &[u8; CONTROL_LEN], data: &'a [u8]) -> Result<Record<'a>> {
        let damaged = |error: RecordError| {
            let seq = Record::peek(control).0;
            Error::new(ErrorKind::Damaged, format!("record {seq} is damaged")).because(error)
        };
        Record::decode(control, data).map_err(damaged)
    }

    /// Visits the records `from` to `to` that concern the volume in order, each as it really was; those that came to nothing
    /// are left out.
    ///
    /// # Errors
    /// They do not read back (19), or the visitor's.
    pub fn records(
        &self,
        (from, to): (Seq, Seq),
        amends: &Amends,
        visit: &mut dyn FnMut(Seq, Change<'_>) -> Result<()>,
    ) -> Result<()> {
        self.visit((from, to), &mut |control, data| {
            let record = self.decode(control, data)?;
            let (seq, concerns) = (record.seq, record.concerns(self.volume));
            if let Some(change) = amends.real(record).filter(|_| concerns) {
                visit(seq, change)?;
            }
            Ok(true)
        })
    }

    /// Notes which records from `from` on an amendment in it speaks of: what somebody must know who does not read all of it.
    ///
    /// # Errors
    /// It does not read back (19).
    pub fn note_amended(&self, from: Seq, amended: &mut Amended) -> Result<()> {
        let mut note = |control: &[u8; CONTROL_LEN]| {
            if let Some(earlier) = Record::peek_amended(control) {
                amended.note(earlier, Record::peek(control).0);
            }
        };
        match &self.held {
            _ if from > self.last => {}
            Held::Journal(jvol) => {
                let mut controls = jvol.controls(from, self.last)?;
                while let Some(control) = controls.next() {
                    note(control?);
                }
            }
            Held::Tape(..) => self.visit((from, self.last), &mut |control, _| {
                note(control);
                Ok(true)
            })?,
        }
        Ok(())
    }

    /// Reads it through from after `at` to `to`, and no further than the first record that is later than `until`; what is amended
    /// behind that is in `amended`.
    ///
    /// # Errors
    /// It does not read back (19).
    pub fn outline(
        &self,
        at: Position,
        stands: Stands,
        (to, until): (Seq, Timestamp),
        amended: &Amended,
    ) -> Result<Outline> {
        let mut outline = Outline::default();
        if at.seq >= to {
            return Ok(outline);
        }
        let (digest, epoch, volume, seams) = (at.digest, at.epoch, self.volume, amended.seams());
        let mut scan = Scan { digest, epoch, volume, stands, listing: false, seams, size: (0, 0), kept: (0, 0) };
        self.visit((at.seq.next(), to), &mut |control, data| {
            let record = self.decode(control, data)?;
            if record.time > until {
                outline.later = Some(record.time);
                return Ok(false);
            }
            if let Change::Marker { kind: MarkerKind::EpochStart, epoch, .. } = &record.change
                && *epoch != at.epoch
            {
                outline.epoch = Some((record.seq, *epoch));
                return Ok(false);
            }
            scan.digest = scan.digest.chain(control, data);
            scan.size = (scan.size.0 + (control.len() + data.len()) as u64, scan.size.1 + 1);
            scan.record(&record, &mut outline);
            Ok(true)
        })?;
        Ok(outline)
    }
}

/// While a stretch is read through.
struct Scan<'a> {
    digest: Digest,
    epoch: Epoch,
    /// Its brackets count, and nobody else's.
    volume: VolumeIndex,
    stands: Stands,
    /// Names of a bracket are being told, and are made true together.
    listing: bool,
    /// Where no amendment that is known of beforehand looks back over.
    seams: Seams<'a>,
    /// Bytes and records so far.
    size: (u64, u64),
    /// The same at the last place to stop but one.
    kept: (u64, u64),
}

impl Scan<'_> {
    fn record(&mut self, record: &Record<'_>, outline: &mut Outline) {
        outline.amends.note(&record.change);
        match &record.change {
            _ if !record.concerns(self.volume) => {}
            Change::Marker { kind, .. } => {
                self.stands = self.stands.marked(*kind);
                self.listing &= self.stands != Stands::Outside
                    && !matches!(kind, MarkerKind::ResyncBegin | MarkerKind::RecoveryBegin);
            }
            Change::Sync { .. } | Change::Active { .. } => {}
            change => {
                self.stands = self.stands.changed();
                self.listing = self.stands != Stands::Outside
                    && matches!(change, Change::ListBegin { .. } | Change::ListEnd { .. } | Change::Entry { .. });
            }
        }
        if let Change::Amend { amended, .. } = &record.change {
            while outline.cuts.last().is_some_and(|cut| cut.position.seq >= *amended) {
                outline.cuts.pop();
            }
        }
        if self.seams.is_behind(record.seq) && !record.more && !self.listing {
            self.cut(record, outline);
        }
    }

    /// A place to stop; of several that are close to each other only the last is kept.
    fn cut(&mut self, record: &Record<'_>, outline: &mut Outline) {
        let position = Position { epoch: self.epoch, seq: record.seq, digest: self.digest };
        let cut = Cut { position, time: record.time, stands: self.stands };
        let (bytes, records) = (self.size.0 - self.kept.0, self.size.1 - self.kept.1);
        match outline.cuts.last_mut() {
            Some(last) if bytes < BATCH_BYTES && records < BATCH_RECORDS => *last = cut,
            _ => {
                outline.cuts.push(cut);
                self.kept = self.size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use reelfs_journal::{AmendOutcome, FileId, FileTime, Reserve, SystemClock, Tags};
    use uuid::Uuid;

    use super::*;

    const OWN: VolumeIndex = VolumeIndex(0);
    const OTHER: VolumeIndex = VolumeIndex(1);

    fn marker(kind: MarkerKind) -> Change<'static> {
        let (name, note, tags) = (String::new(), String::new(), Tags::default());
        Change::Marker { kind, epoch: Epoch(1), name, note, tags, since: Timestamp(0) }
    }

    fn size(ino: u64) -> Change<'static> {
        Change::SetSize { file: FileId { ino, generation: 1 }, size: 1, mtime: FileTime::default() }
    }

    #[test]
    fn brackets_and_records_of_other_volumes_do_not_count() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let path = temporary.path().join("jvol");
        Jvol::create(&path, Jvol::SIZE_MIN, Uuid::nil(), &mut |_, _| {}).expect("made");
        let jvol = Jvol::open(&path, Uuid::nil()).expect("opened");
        let listing = |ino| Change::ListBegin { directory: FileId { ino, generation: 1 } };
        let told = [
            (OWN, size(1)),
            (OTHER, marker(MarkerKind::ResyncBegin)),
            (OTHER, listing(2)),
            (OWN, size(3)),
            (OWN, marker(MarkerKind::ResyncBegin)),
            (OWN, listing(4)),
            (OTHER, size(5)),
        ];
        for (volume, change) in told {
            let (seq, time) = (Seq::ZERO, Timestamp(0));
            let record = Record { seq, more: false, time, wall: time, uid: 0, pid: 0, volume, change };
            jvol.append(&mut [record.encode()], &SystemClock, Reserve::Use, |_, _| {}).expect("appended");
        }
        let at = Position { epoch: Epoch(1), seq: Seq::ZERO, digest: Digest::default() };
        let until = Timestamp(i64::MAX);
        let seen = |volume, to: u64| {
            let jvol = Jvol::open(&path, Uuid::nil()).expect("opened");
            let stretch = Stretch { held: Held::Journal(Box::new(jvol)), last: Seq(7), volume, now: None };
            let outline = stretch.outline(at, Stands::Outside, (Seq(to), until), &Amended::default()).expect("read");
            let last = *outline.cuts.last().expect("a place to stop");
            let mut seen = Vec::new();
            let visit = &mut |seq: Seq, _: Change<'_>| {
                seen.push(seq.0);
                Ok(())
            };
            stretch.records((Seq(1), Seq(to)), &outline.amends, visit).expect("read");
            (last.position, last.stands, seen)
        };
        let (own, other) = (seen(OWN, 4), seen(OTHER, 4));
        assert_eq!((own.0.seq, own.1, own.2), (Seq(4), Stands::Outside, vec![1, 4]));
        // a listing that has begun is no place to stop, whoever else goes on meanwhile
        assert_eq!((other.0.seq, other.1, other.2), (Seq(2), Stands::BeforeResync, vec![2, 3]));
        let own = seen(OWN, 7);
        assert_eq!((own.0.seq, own.1, own.2), (Seq(5), Stands::BeforeResync, vec![1, 4, 5, 6]));
        assert_eq!(seen(OTHER, 2).0, other.0, "the digest is one of all records");
    }

    #[test]
    fn who_stops_for_the_time_stops_before_what_is_amended_later() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let path = temporary.path().join("jvol");
        Jvol::create(&path, Jvol::SIZE_MIN, Uuid::nil(), &mut |_, _| {}).expect("made");
        let jvol = Jvol::open(&path, Uuid::nil()).expect("opened");
        let amend = |amended| Change::Amend { amended: Seq(amended), outcome: AmendOutcome::Void };
        let mut times = Vec::new();
        for change in [size(1), size(2), size(3), amend(2), size(4)] {
            let (seq, time, volume) = (Seq::ZERO, Timestamp(0), OWN);
            let record = Record { seq, more: false, time, wall: time, uid: 0, pid: 0, volume, change };
            let appended = jvol.append(&mut [record.encode()], &SystemClock, Reserve::Use, |_, _| {});
            times.push(appended.expect("appended").time);
        }
        let at = Position { epoch: Epoch(1), seq: Seq::ZERO, digest: Digest::default() };
        let stretch = Stretch { held: Held::Journal(Box::new(jvol)), last: Seq(5), volume: OWN, now: None };
        let mut amended = Amended::default();
        stretch.note_amended(Seq(1), &mut amended).expect("read");
        let stops = |until| {
            let outline = stretch.outline(at, Stands::Outside, (Seq(5), until), &amended).expect("read");
            let mut seen = Vec::new();
            let to = outline.cuts.last().map_or(Seq::ZERO, |cut| cut.position.seq);
            let visit = &mut |seq: Seq, _: Change<'_>| {
                seen.push(seq.0);
                Ok(())
            };
            stretch.records((Seq(1), to), &outline.amends, visit).expect("read");
            (to.0, seen)
        };
        assert_eq!([stops(times[0]), stops(times[1]), stops(times[2])], [(1, vec![1]), (1, vec![1]), (1, vec![1])]);
        assert_eq!(stops(times[3]), (4, vec![1, 3, 4]), "the second came to nothing");
        assert_eq!(stops(times[4]), (5, vec![1, 3, 4, 5]));
    }
}
