//! Repairing a journal: durable records that do not read back are written again from tapes that hold them.

use std::fs::File;
use std::path::{Path, PathBuf};

use reelfs_archive::{Catalog, CatalogTape, Depth, Records, SealedTape, TapeKind, VerifiedTape};
use reelfs_journal::{CONTROL_LEN, Digest, Found, JournalError, Mending, RecordError, Seq};
use serde::Serialize;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::export::tape_error;
use crate::group_file::GroupFile;
use crate::output::Output;

/// Records in a row that came from one tape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rewritten {
    /// The first of them.
    pub first: Seq,
    /// The last of them.
    pub last: Seq,
    /// Where the first one did not read back, in bytes from the start of the journal volume.
    pub offset: u64,
    /// What was wrong with it.
    pub reason: String,
    /// The tape that holds them.
    pub tape: PathBuf,
}

impl Rewritten {
    /// Which records, for people.
    #[must_use]
    pub fn records(&self) -> String {
        match self.first == self.last {
            true => format!("record {}", self.first),
            false => format!("records {} to {}", self.first, self.last),
        }
    }
}

/// What a repair did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Durable records that were looked at.
    pub looked_at: u64,
    /// Those that were, or are to be, written again.
    pub records: u64,
    /// The same, in order.
    pub rewritten: Vec<Rewritten>,
}

/// Looks at every durable record of a group's journal, and then, unless it is a dry run, writes again what does not read back:
/// all of it, or nothing when some of it is on no tape that can be had. The caller has the group's lock. `from` are
/// directories of tapes besides those that the group knows.
///
/// # Errors
/// 19 when a damaged record is on no tape here, or a tape tells another history; nothing is changed then. 10 when a directory
/// of `from` is not there.
pub fn run(file: &GroupFile, from: &[PathBuf], dry_run: bool, progress: &mut dyn FnMut(u64, u64)) -> Result<Repaired> {
    let mut tapes = Tapes::look(file, from)?;
    let found = pass(file, &mut tapes, false, progress)?;
    if dry_run || found.records == 0 {
        return Ok(found);
    }
    let done = pass(file, &mut tapes, true, progress)?;
    let after = pass(file, &mut tapes, false, progress)?;
    if after.records > 0 {
        let message = format!("the journal of {} does not keep what is written into it", file.name);
        return Err(Error::new(ErrorKind::Damaged, message).hint("its disk fails: give the group another one"));
    }
    for part in &done.rewritten {
        let (offset, reason, tape) = (part.offset, &part.reason, part.tape.display());
        tracing::warn!(records = part.records(), offset, reason, %tape, "damage of the journal repaired from a tape");
    }
    Ok(done)
}

/// The same for an opening that met damage, from the directories that the group knows alone. Nothing of the group is open yet.
///
/// # Errors
/// As [`run`].
pub(crate) fn at_opening(file: &GroupFile, output: &Output) -> Result<()> {
    let repaired = run(file, &[], false, &mut |_, _| {})?;
    for part in &repaired.rewritten {
        let (name, what, tape) = (&file.name, part.records(), part.tape.display());
        output.warn(format!(
            "{name}: the journal was damaged at {what} (byte {}: {}): rewritten from {tape}",
            part.offset, part.reason
        ));
    }
    Ok(())
}

/// One way through the journal; what does not read back is asked of the tapes, and written if `writes` says so.
fn pass(file: &GroupFile, tapes: &mut Tapes, writes: bool, progress: &mut dyn FnMut(u64, u64)) -> Result<Repaired> {
    let mending = Mending::open(&file.journal, file.uuid, writes).map_err(|error| hopeless(file, error))?;
    let (out, durable) = mending.range();
    let total = durable.next().0 - out.0;
    let mut repaired = Repaired::default();
    let mut look = mending.look();
    while let Some(found) = look.next() {
        let found = found.map_err(|error| hopeless(file, error))?;
        if let Found::Broken { offset, reason } = found {
            let (before, digest) = look.at();
            let seq = before.next();
            let Some((control, data)) = tapes.record(seq, digest)? else {
                return Err(not_on_tape(file, tapes, (seq, offset), &reason));
            };
            look.supply(&control, &data).map_err(|error| hopeless(file, error))?;
            repaired.note(seq, offset, &reason, tapes.path());
        }
        let (seq, digest) = look.at();
        tapes.check_end(file, seq, durable, digest)?;
        repaired.looked_at += 1;
        if repaired.looked_at.is_multiple_of(1024) {
            progress(repaired.looked_at, total);
        }
    }
    if writes {
        mending.sync()?;
    }
    Ok(repaired)
}

impl Repaired {
    fn note(&mut self, seq: Seq, offset: u64, reason: &RecordError, tape: &Path) {
        self.records += 1;
        match self.rewritten.last_mut() {
            Some(part) if part.last.next() == seq && part.tape == tape => part.last = seq,
            _ => self.rewritten.push(Rewritten {
                first: seq,
                last: seq,
                offset,
                reason: reason.to_string(),
                tape: tape.to_owned(),
            }),
        }
    }
}

/// The tapes that may hold what is missing.
struct Tapes {
    catalog: Catalog,
    group: Uuid,
    /// Those that were looked at, and those that are not there now.
    dirs: Vec<PathBuf>,
    absent: Vec<PathBuf>,
    open: Option<OpenTape>,
    /// Why tapes that should hold a record did not serve.
    unfit: Vec<String>,
}

/// A tape that tells the same history as the journal up to where it was first asked.
struct OpenTape {
    path: PathBuf,
    tape: VerifiedTape,
    records: Records,
    next: Seq,
}

/// Control data and journal data.
type Bytes = ([u8; CONTROL_LEN], Vec<u8>);

impl Tapes {
    fn look(file: &GroupFile, from: &[PathBuf]) -> Result<Tapes> {
        if let Some(dir) = from.iter().find(|dir| !dir.exists()) {
            let message = format!("the tape directory {} is not there", dir.display());
            return Err(Error::new(ErrorKind::NotFound, message).hint("is the disk mounted?"));
        }
        let known = file.targets.iter().map(|target| target.dir.clone());
        let (mut dirs, absent): (Vec<PathBuf>, Vec<PathBuf>) = known.partition(|dir| dir.is_dir());
        dirs.extend(from.iter().cloned());
        let catalog = Catalog::scan(&dirs).map_err(|error| tape_error("read the tapes", error))?;
        Ok(Tapes { catalog, group: file.uuid, dirs, absent, open: None, unfit: Vec::new() })
    }

    /// The tape that gave the last record.
    fn path(&self) -> &Path {
        self.open.as_ref().map_or(Path::new(""), |open| &open.path)
    }

    /// A record, from a tape whose digest of everything before it is that of the journal.
    fn record(&mut self, seq: Seq, before: Digest) -> Result<Option<Bytes>> {
        if !self.open.as_ref().is_some_and(|open| holds(open.tape.head(), seq)) {
            self.open = None;
            let holds = |tape: &&CatalogTape| tape.head.label.group_uuid == self.group && holds(&tape.head, seq);
            let tapes = self.catalog.tapes().iter().filter(holds);
            let paths = tapes.flat_map(|tape| std::iter::once(&tape.path).chain(&tape.copies));
            for path in paths.cloned().collect::<Vec<PathBuf>>() {
                match OpenTape::open(&path, seq, before) {
                    Ok(Some(open)) => {
                        self.open = Some(open);
                        break;
                    }
                    Ok(None) => self.unfit.push(format!("{} tells another history", path.display())),
                    Err(error) => self.unfit.push(format!("{}: {}", path.display(), error.chain())),
                }
            }
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        open.record(seq).map(Some)
    }

    /// Where the tape or the journal ends, both must have come to the same.
    fn check_end(&mut self, file: &GroupFile, seq: Seq, durable: Seq, digest: Digest) -> Result<()> {
        let ends = |open: &mut OpenTape| seq == open.tape.head().last().min(durable);
        let Some(open) = self.open.take_if(ends) else { return Ok(()) };
        let there = open.tape.position_at(seq).map_err(|error| tape_error("read a tape", error))?;
        if there.digest == digest {
            return Ok(());
        }
        let message =
            format!("the journal of group {} and {} differ before record {seq}", file.name, open.path.display());
        Err(Error::new(ErrorKind::Damaged, message).hint("nothing is repaired from a tape of another history"))
    }
}

fn holds(head: &reelfs_archive::TapeHead, seq: Seq) -> bool {
    head.label.kind == TapeKind::Update && (head.first()..=head.last()).contains(&seq)
}

impl OpenTape {
    /// Verifies the tape; `None` when it does not tell what the journal tells up to the record before `seq`.
    fn open(path: &Path, seq: Seq, before: Digest) -> Result<Option<OpenTape>> {
        let failed = |error| tape_error("read a tape", error);
        let file = File::open(path).map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        let tape = SealedTape::open(file).and_then(|tape| tape.verify(Depth::Records, &mut |_| {})).map_err(failed)?;
        if tape.position_at(seq.previous()).map_err(failed)?.digest != before {
            return Ok(None);
        }
        let records = tape.records(seq).map_err(failed)?;
        Ok(Some(OpenTape { path: path.to_owned(), tape, records, next: seq }))
    }

    fn record(&mut self, seq: Seq) -> Result<Bytes> {
        let failed = |error| tape_error("read a tape", error);
        if seq != self.next {
            self.records = self.tape.records(seq).map_err(failed)?;
        }
        self.next = seq.next();
        let record = self.records.next().map_err(failed)?;
        let record = record.ok_or_else(|| Error::new(ErrorKind::Damaged, "a tape ends before its last record"))?;
        Ok((*record.control, record.data.to_vec()))
    }
}

/// Damage that no tape can mend.
fn hopeless(file: &GroupFile, error: JournalError) -> Error {
    match error {
        error @ JournalError::Damaged { seq: Seq::ZERO, .. } => Error::new(
            ErrorKind::Damaged,
            format!("both superblocks of the journal of group {} are damaged", file.name),
        )
        .because(error)
        .hint("where its records lie is lost: restore the tapes, and make a new group"),
        error @ JournalError::Damaged { .. } => {
            Error::new(ErrorKind::Damaged, format!("the journal of group {} cannot be repaired", file.name))
                .because(error)
                .hint("what the tapes hold can be restored; then make a new group")
        }
        error => Error::from(error),
    }
}

/// A damaged record that cannot be had: what was tried, and what to try next.
fn not_on_tape(file: &GroupFile, tapes: &Tapes, (seq, offset): (Seq, u64), reason: &RecordError) -> Error {
    let shown = |dirs: &[PathBuf]| dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
    let name = &file.name;
    let mut message = format!(
        "the journal of group {name} is damaged at record {seq} (byte {offset}): {reason}; nothing was changed"
    );
    message += &match tapes.dirs.as_slice() {
        [] => ", and the group knows no directory of tapes".to_owned(),
        dirs => format!(", and no tape in {} holds it", shown(dirs)),
    };
    if !tapes.absent.is_empty() {
        message += &format!(", and not there now: {}", shown(&tapes.absent));
    }
    for unfit in &tapes.unfit {
        message += &format!(", and {unfit}");
    }
    Error::new(ErrorKind::Damaged, message)
        .hint(format!("where a tape holds it: reelfs journal repair {name} --from TAPES --dry-run"))
}
