//! Export: everything of the journal that is not yet on a directory goes onto tapes there.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reelfs_archive::{
    Catalog, CatalogTape, Depth, Label, Previous, SealedTape, TapeKind, TapeName, UpdateWriter, WriteOptions,
};
use reelfs_journal::{Amended, Change, Epoch, MarkerKind, Position, Record, Seal, Seq, Timestamp, VolumeIndex, disk};
use reelfs_transport::directory::{DirectoryShelf, ShelfError};
use serde::Serialize;

use crate::base_copy;
use crate::consumer;
use crate::error::{Error, ErrorKind, Result, io_kind};
use crate::group_file::{GroupFile, Target, VolumeEntry};
use crate::open_group::OpenGroup;
use crate::overlap;
use crate::through_journal;

/// What is said of tapes on the disk of what they are to save.
pub const SAME_DISK: &str = "the tapes lie on the disk of the protected directory: one broken disk takes both";

/// Journal data on one tape at most (1.5 GiB before compression), so that a tape fits any medium.
const TAPE_BYTES: u64 = 3 << 29;
/// And at most this part of the journal (a quarter): what is on a tape is freed before the next one is begun.
const JOURNAL_PART: u64 = 4;

/// A tape that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Made {
    /// Its file.
    pub path: PathBuf,
    /// What it holds.
    pub kind: TapeKind,
    /// First and last record.
    pub first: Seq,
    /// See `first`.
    pub last: Seq,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// The time until which it vouches.
    pub sealed: Timestamp,
}

/// What an export did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Exported {
    /// Tapes made, in order; none when nothing was new.
    pub tapes: Vec<Made>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Where tapes go, checked: there, and apart from the volume.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The directory, resolved.
    pub dir: PathBuf,
    /// It lies on the volume's own disk.
    pub same_disk: bool,
    /// As it was called.
    pub(crate) asked: PathBuf,
    /// It lies on another disk than the system and the journal.
    apart: bool,
}

impl Destination {
    /// Checks a tape directory against a group and its mounts. `devices` are the volumes', which nobody can see any more
    /// when they are mounted over.
    ///
    /// # Errors
    /// 10 when it is not there, 2 when it lies in the volume or in the mount.
    pub fn check(file: &GroupFile, devices: &[u64], mountpoints: &[PathBuf], to: &Path) -> Result<Destination> {
        let metadata = std::fs::metadata(to).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("the tape directory {} is not there", to.display()))
                    .hint("is the disk mounted? Otherwise make the directory first")
            }
            _ => Error::io(format!("look at {}", to.display()), error),
        })?;
        if !metadata.is_dir() {
            return Err(Error::usage(format!("{} is not a directory", to.display())));
        }
        for volume in &file.volumes {
            overlap::refuse_inside("the PVOL", &volume.pvol, "the tape directory", to)?;
        }
        for mountpoint in mountpoints {
            overlap::refuse_inside("the mount", mountpoint, "the tape directory", to)?;
        }
        let device = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.dev());
        let apart = [Path::new("/"), &file.journal].into_iter().all(|path| device(path) != Some(metadata.dev()));
        let (dir, asked) = (overlap::real(to)?, to.to_owned());
        Ok(Destination { dir, same_disk: devices.contains(&metadata.dev()), asked, apart })
    }

    /// That a group has got so far on it.
    pub(crate) fn target(&self, at: Position, last_seen_tape: Option<String>) -> Target {
        let Position { epoch, seq, digest } = at;
        Target { dir: self.dir.clone(), epoch, seq, digest, last_seen_tape, apart: self.apart }
    }

    /// What is left of a disk that is not there is its mountpoint, a directory of the system's disk: tapes that went there would be
    /// missing on the disk, and the journal be freed. Another disk in its place is welcome.
    pub(crate) fn refuse_mountpoint(&self, file: &GroupFile, catalog: &Catalog) -> Result<()> {
        let Some(known) = file.target(&self.dir) else { return Ok(()) };
        let has_tapes = catalog.groups().iter().any(|group| group.uuid == file.uuid);
        if !known.apart || self.apart || has_tapes {
            return Ok(());
        }
        let (shown, name) = (self.dir.display(), &file.name);
        let message =
            format!("the tape disk is not at {shown}: it had tapes of group {name} up to record {}", known.seq);
        Err(Error::new(ErrorKind::NotFound, message)
            .hint(format!("mount the disk there; if it is gone for good: reelfs tape forget {name} --tapes {shown}")))
    }
}

/// A stretch of the journal for one tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    epoch: Epoch,
    first: Seq,
    last: Seq,
    first_time: Timestamp,
}

/// Exports everything that is not yet on the directory. `from` starts a directory that has no tape yet later than the
/// journal's beginning (after a base copy). Journal space that no known directory needs any more is freed.
///
/// # Errors
/// 21 when the tapes there are of another history, 15 when the journal no longer holds what follows them, 22 when the
/// directory is full, 10 when it is gone.
pub fn export(
    group: &OpenGroup,
    to: &Destination,
    from: Option<Seq>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported> {
    let exported = read_and_write(group, to, from, progress);
    group.set_reading(None);
    exported
}

fn read_and_write(
    group: &OpenGroup,
    to: &Destination,
    from: Option<Seq>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported> {
    let mut exported = Exported::default();
    group.follow_link(&to.asked, &to.dir)?;
    let catalog = Catalog::scan(std::slice::from_ref(&to.dir)).map_err(|error| tape_error("read the tapes", error))?;
    to.refuse_mountpoint(&group.file(), &catalog)?;
    for volume in needs_base(group, &catalog)? {
        let file = group.file();
        let title = file.title(&volume);
        exported.warnings.push(format!("a new epoch has begun: a new base of group {title} comes before the changes"));
        exported.tapes.push(base_copy::write_base(group, &volume, to, progress)?);
    }
    // otherwise it would be noted behind the seal, and wait alone for the next tape
    crate::daemon::note_quiet(group.journal());
    let seal = group.journal().seal().map_err(|error| Error::io("seal the journal", error.into()))?;
    group.set_reading(Some((to.dir.clone(), seal.last)));
    let mut after = start(group, to, &catalog, from)?;
    let stretches = plan(group, after.position.seq.next(), seal.last)?;
    let total: u64 = stretches.iter().map(|stretch| stretch.last.0 + 1 - stretch.first.0).sum();
    let mut done = 0;
    if !stretches.is_empty() {
        // a tape says that no later record is older than its seal
        group.journal().jvol().keep_time()?;
    }
    if stretches.is_empty() {
        // up to date, and a directory to keep records for from now on
        let last_seen_tape = after.previous.as_ref().map(|previous| previous.name.clone());
        group.update(|file| file.set_target(to.target(after.position, last_seen_tape)))?;
    }
    for stretch in stretches {
        let is_last = stretch.last == seal.last;
        let made = write_update(group, to, &after, stretch, if is_last { Some(seal) } else { None }, &mut |records| {
            progress(done + records, total);
        })?;
        done += stretch.last.0 + 1 - stretch.first.0;
        let at = Position { epoch: stretch.epoch, seq: stretch.last, digest: made.1.position.digest };
        let last_seen_tape = made.1.previous.as_ref().map(|previous| previous.name.clone());
        group.update(|file| file.set_target(to.target(at, last_seen_tape)))?;
        group.known().note(made.1.position);
        after = made.1;
        exported.tapes.push(made.0);
        // tape by tape: writers may be waiting for room
        free(group)?;
    }
    if exported.tapes.is_empty() {
        free(group)?;
    }
    if to.same_disk {
        exported.warnings.push(SAME_DISK.to_owned());
    }
    Ok(exported)
}

/// Volumes without a base on these tapes since an epoch began.
fn needs_base(group: &OpenGroup, catalog: &Catalog) -> Result<Vec<VolumeEntry>> {
    let file = group.file();
    if file.epoch == Epoch(1) {
        return Ok(Vec::new());
    }
    let chain = catalog.chain(file.uuid, file.epoch);
    let out = group.journal().jvol().pointers().out;
    let mut based = HashSet::new();
    for base in &chain.bases {
        for entry in file.volumes.iter().filter(|entry| is_of(base, entry.index)) {
            if !based.contains(&entry.index) && base_copy::is_ended(group, entry, base)? {
                based.insert(entry.index);
            }
        }
    }
    // one in the journal serves when the directory has it, or will get it
    let in_journal = |entry: &VolumeEntry| {
        let held = |began| chain.updates.iter().any(|tape| (tape.head.first()..=tape.head.last()).contains(&began));
        through_journal::begin_of(group, entry).is_some_and(|began| out <= began || held(began))
    };
    let lacks = |entry: &&VolumeEntry| !based.contains(&entry.index) && !in_journal(entry);
    Ok(file.volumes.iter().filter(lacks).cloned().collect())
}

/// Whether a base tape is one of this volume.
pub(crate) fn is_of(base: &CatalogTape, index: VolumeIndex) -> bool {
    base.head.label.volumes.iter().any(|volume| volume.index == index)
}

/// Where the directory stands: the end of its chain, and the tape there.
struct Standing {
    position: Position,
    previous: Option<Previous>,
}

fn start(group: &OpenGroup, to: &Destination, catalog: &Catalog, from: Option<Seq>) -> Result<Standing> {
    let file = group.file();
    let out = group.journal().jvol().pointers().out;
    let last = group.journal().jvol().pointers().next.previous();
    let epochs = catalog.groups().into_iter().find(|known| known.uuid == file.uuid).map(|known| known.epochs);
    let mut standing: Option<Standing> = None;
    for epoch in epochs.unwrap_or_default() {
        let chain = catalog.chain(file.uuid, epoch);
        if let Some(clash) = chain.diverged.first() {
            return Err(Error::new(
                ErrorKind::Foreign,
                format!("{} holds two histories of group {} at record {}", to.dir.display(), file.name, clash.seq),
            )
            .hint("keep one of the two and move the other tapes away"));
        }
        if let (Some(position), Some(tape)) = (chain.end(), chain.updates.last()) {
            let previous =
                Previous { tape: tape.head.label.tape, name: tape.head.name().to_string(), root: tape.head.root };
            if standing.as_ref().is_none_or(|found| found.position.seq < position.seq) {
                standing = Some(Standing { position, previous: Some(previous) });
            }
        }
    }
    let known = file.target(&to.dir).map(|target| Standing { position: target.position(), previous: None });
    let Some(standing) = standing.or(known) else {
        let first = from.map_or(out, |from| from.max(out));
        return Ok(Standing { position: position_before(group, first)?, previous: None });
    };
    let at = standing.position.seq;
    if at > last {
        return Err(diverged(&file, &to.dir, at));
    }
    if at.next() < out && standing.position.epoch < file.epoch && group.journal().jvol().breaks_off() {
        // what lies between is lost with a disk, and another history has begun
        return Ok(Standing { position: position_before(group, out)?, previous: None });
    }
    if at.next() < out {
        return Err(Error::new(
            ErrorKind::TapeNeeded,
            format!(
                "the tapes on {} end at record {at} and the journal begins at {out}: what lies between has been freed",
                to.dir.display()
            ),
        )
        .hint(format!("start the directory anew: reelfs base copy {} --to DIR (an empty one)", file.name)));
    }
    if position_before(group, at.next())?.digest != standing.position.digest {
        return Err(diverged(&file, &to.dir, at));
    }
    Ok(standing)
}

fn diverged(file: &GroupFile, dir: &Path, at: Seq) -> Error {
    Error::new(
        ErrorKind::Foreign,
        format!("the tapes on {} have diverged from group {} at record {at}", dir.display(), file.name),
    )
    .hint(format!("they stay readable; give the group another directory: reelfs base copy {} --to DIR", file.name))
}

/// The position just before a record that the journal holds, or will hold next.
pub(crate) fn position_before(group: &OpenGroup, first: Seq) -> Result<Position> {
    let jvol = group.journal().jvol();
    let out = jvol.pointers().out;
    let known = group.known().before(first, out);
    let (from, mut digest) = known.map_or_else(|| (out, jvol.out_digest()), |(seq, digest)| (seq.next(), digest));
    if first > from {
        let mut reader = jvol.read(from, first.previous())?;
        while let Some(record) = reader.next() {
            let (control, data) = record?;
            digest = digest.chain(control, data);
        }
    }
    let position = Position { epoch: group.file().epoch, seq: first.previous(), digest };
    group.known().note(position);
    Ok(position)
}

/// Cuts the journal into stretches for tapes: at the size limit, at a new epoch, never between a record and its
/// amendment or inside an operation. A full journal makes several tapes, each of which gives room when it is written.
fn plan(group: &OpenGroup, first: Seq, last: Seq) -> Result<Vec<Stretch>> {
    let jvol = group.journal().jvol();
    let most = TAPE_BYTES.min(jvol.geometry().data_size / JOURNAL_PART);
    let mut epoch = group.file().epoch;
    let mut amended = Amended::default();
    let mut epochs: Vec<(Seq, Epoch)> = Vec::new();
    let mut sizes: Vec<(Timestamp, u64, bool)> = Vec::new();
    if first > last {
        return Ok(Vec::new());
    }
    let mut controls = jvol.controls(first, last)?;
    while let Some(control) = controls.next() {
        let control = control?;
        let (seq, time) = Record::peek(control);
        let broken = |error| Error::failed("read the journal").because(error);
        let length = control.len() + Record::data_len(control).map_err(broken)?;
        sizes.push((time, length as u64, Record::has_more(control)));
        if let Some(earlier) = Record::peek_amended(control) {
            amended.note(earlier, seq);
        }
        if Record::is_marker(control) {
            let mut reader = jvol.read(seq, seq)?;
            let Some((control, data)) = reader.next().transpose()? else { continue };
            let change = Record::decode(control, data).map_err(broken)?.change;
            if let Change::Marker { kind: MarkerKind::EpochStart, epoch, .. } = change {
                epochs.push((seq, epoch));
            }
        }
    }
    if let Some((at, begun)) = epochs.first() {
        // the tapes may have ended just before it
        epoch = if *at == first { *begun } else { Epoch(begun.0.saturating_sub(1)) };
    }
    let (mut stretches, mut begin, mut bytes, mut seams) = (Vec::new(), first, 0, amended.seams());
    for (index, (_, size, more)) in sizes.iter().enumerate() {
        let seq = Seq(first.0 + index as u64);
        bytes += size;
        let next_epoch = epochs.iter().find(|(at, _)| *at == seq.next()).map(|(_, epoch)| *epoch);
        let may_cut = seams.is_behind(seq) && !more;
        if seq == last || next_epoch.is_some() || (may_cut && bytes >= most) {
            let at = usize::try_from(begin.0 - first.0).unwrap_or(0);
            stretches.push(Stretch { epoch, first: begin, last: seq, first_time: sizes[at].0 });
            (begin, bytes) = (seq.next(), 0);
            epoch = next_epoch.unwrap_or(epoch);
        }
    }
    Ok(stretches)
}

fn write_update(
    group: &OpenGroup,
    to: &Destination,
    after: &Standing,
    stretch: Stretch,
    seal: Option<Seal>,
    progress: &mut dyn FnMut(u64),
) -> Result<(Made, Standing)> {
    let file = group.file();
    let name = TapeName {
        group: file.name.clone(),
        epoch: stretch.epoch,
        first: stretch.first,
        last: stretch.last,
        kind: TapeKind::Update,
    };
    let before = Position { epoch: stretch.epoch, ..after.position };
    let mut label = Label::update(file.name.clone(), file.uuid, before, stretch.first_time, file.label_volumes());
    label.epoch = stretch.epoch;
    label.previous.clone_from(&after.previous);
    label.created = group.journal().clock().read().wall;
    let jvol = group.journal().jvol().clone();
    let write = |out: &File| -> Result<_> {
        let mut writer =
            UpdateWriter::new(disk::Appender::new(disk::Label::TapeWrite, out), label, WriteOptions::default())
                .map_err(|error| tape_error("write a tape", error))?;
        let mut reader = jvol.read(stretch.first, stretch.last)?;
        let (mut records, mut last_time) = (0, stretch.first_time);
        while let Some(record) = reader.next() {
            let (control, data) = record?;
            writer.record(control, data).map_err(|error| tape_error("write a tape", error))?;
            last_time = Record::peek(control).1;
            records += 1;
            if records % 1024 == 0 {
                progress(records);
            }
        }
        let position = writer.position();
        let sealed_time = seal.map_or(last_time, |seal| seal.time);
        let sealed = writer.seal(sealed_time).map_err(|error| tape_error("write a tape", error))?;
        Ok((position, sealed.root, sealed.label.tape, sealed.bytes, sealed_time))
    };
    let (position, root, tape, bytes, sealed) = publish(to, &name, write)?;
    let made = Made {
        path: to.dir.join(name.to_string()),
        kind: TapeKind::Update,
        first: stretch.first,
        last: stretch.last,
        bytes,
        sealed,
    };
    let previous = Some(Previous { tape, name: name.to_string(), root });
    Ok((made, Standing { position, previous }))
}

/// Writes a tape under a temporary name, reads it back and checks it, and gives it its name.
pub(crate) fn publish<T>(to: &Destination, name: &TapeName, write: impl FnOnce(&File) -> Result<T>) -> Result<T> {
    let name = name.to_string();
    let gone = |error: std::io::Error| Error::io(format!("write into {}", to.dir.display()), error);
    let shelf = DirectoryShelf::open(&to.dir).map_err(gone)?;
    let check = |file: File, _: &T| -> Result<()> {
        let tape = SealedTape::open(file).map_err(|error| tape_error("read the tape back", error))?;
        tape.verify(Depth::Bytes, &mut |_| {}).map(|_| ()).map_err(|error| tape_error("read the tape back", error))
    };
    let published = shelf.publish(&name, |file| Ok((name.clone(), write(file)?)), check);
    published.map(|published| published.value).map_err(|error| match error {
        ShelfError::Content { error, .. } if error.kind() == ErrorKind::NoSpace => {
            Error::new(ErrorKind::NoSpace, format!("the tape directory {} is full", to.dir.display()))
                .because(error)
                .hint("make room there, then again")
        }
        ShelfError::Content { error, .. } => error,
        ShelfError::Io { operation, path, source } => Error::io(format!("{operation} {}", path.display()), source),
        ShelfError::InUse { .. } => Error::new(ErrorKind::Busy, error.to_string()),
        ShelfError::Exists { .. } => Error::new(ErrorKind::WouldOverwrite, error.to_string()),
    })
}

/// Frees what every known directory and every consumer has. After a power cut the volume gets back what it had from the journal,
/// so what leaves the journal is on the volume's disk first.
pub(crate) fn free(group: &OpenGroup) -> Result<()> {
    let file = group.file();
    let is_clean = |entry: &VolumeEntry| entry.session.as_ref().is_none_or(|session| session.clean.is_some());
    if file.volumes.iter().any(|entry| group.volume(entry.index).is_none() && !is_clean(entry)) {
        tracing::warn!("a volume that was not closed well may need the journal again: nothing of it is freed");
        return Ok(());
    }
    let jvol = group.journal().jvol();
    let least = consumer::least_needed(&file);
    let kept = least.as_ref().map_or(jvol.pointers().out, |least| least.seq.next());
    // only what leaves the journal has to be on the volumes' disks first
    let volumes = if kept > jvol.pointers().out { group.volumes() } else { Vec::new() };
    // an export of several tapes frees after each of them what was written before it began
    let since = group.reading().map_or(kept, |(_, last)| last.next().max(kept));
    for volume in volumes {
        volume.primary.prepare_to_free(kept, since).map_err(|error| Error::io("sync the PVOL", error.into()))?;
    }
    let Some(least) = least else { return Ok(()) };
    // also when nothing is freed: it makes the time of the seal durable, which later records must not fall behind
    let out = jvol.pointers().out;
    let (first_kept, digest) =
        if least.seq.next() > out { (least.seq.next(), least.digest) } else { (out, jvol.out_digest()) };
    Ok(jvol.free(first_kept, digest)?)
}

/// What went wrong with a tape, as a sentence with an exit code.
pub(crate) fn tape_error(what: &str, error: reelfs_archive::TapeError) -> Error {
    let no_space = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| io_kind(source) == ErrorKind::NoSpace);
    let kind = if no_space {
        ErrorKind::NoSpace
    } else if error.is_damage() {
        ErrorKind::Damaged
    } else {
        ErrorKind::Failed
    };
    Error::new(kind, what.to_owned()).because(error)
}
