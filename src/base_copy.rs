//! Base copy: the files of a live volume, as they are, straight onto a base tape.
//!
//! What the tape holds was read while it changed; it counts as standing at the `BaseBegin` record, and the records from
//! there to `BaseEnd` make it exact, because every change is absolute.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use reelfs_archive::{
    BaseFile, BaseWriter, Catalog, CatalogTape, Label, LabelVolume, TapeKind, TapeName, WriteOptions,
};
use reelfs_journal::{Change, FileId, Name, NodeKind, Record, Seq, VolumeName, disk};
use reelfs_volume::{Primary, Visit, WalkError};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, Destination, Exported, Made, tape_error};
use crate::group_file::{Base, VolumeEntry};
use crate::open_group::OpenGroup;
use crate::open_volume::OpenVolume;
use crate::pair_state::{self, PairState, PairVerb};

/// Makes a base copy of every volume, or of the one named, and exports the records that complete it.
///
/// # Errors
/// 22 when the directory is full; what reading the volume says; as [`export::export`].
pub fn base_copy(
    group: &OpenGroup,
    volume: Option<&VolumeName>,
    to: &Destination,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported> {
    group.follow_link(&to.asked, &to.dir)?;
    let file = group.file();
    let catalog = Catalog::scan(std::slice::from_ref(&to.dir));
    to.refuse_mountpoint(&file, &catalog.map_err(|error| tape_error("read the tapes", error))?)?;
    let mut bases = Vec::new();
    for entry in file.chosen(volume)? {
        bases.push(write_base(group, entry, to, progress)?);
    }
    let from = bases.iter().map(|base| base.first).min();
    let mut exported = export::export(group, to, from, progress)?;
    bases.append(&mut exported.tapes);
    exported.tapes = bases;
    Ok(exported)
}

/// Writes the base tape of a volume alone and journals its end.
pub(crate) fn write_base(
    group: &OpenGroup,
    entry: &VolumeEntry,
    to: &Destination,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Made> {
    group.with_volume(entry.index, |volume| write_base_of(group, volume, to, progress))
}

fn write_base_of(
    group: &OpenGroup,
    volume: &OpenVolume,
    to: &Destination,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Made> {
    let (file, primary) = (group.file(), &volume.primary);
    // counted before it is asked: one that comes in between is seen at the end
    let suspensions = primary.suspensions();
    if primary.suspension().is_some() {
        pair_state::admit(file.name.as_str(), PairState::Susp, PairVerb::BaseCopy)?;
    }
    let base = new_base_id();
    let journal = |error: Errno| Error::io("journal the base copy", error.into());
    let root = primary.root_id();
    let began = primary.control(&Change::BaseBegin { base, root }).map_err(journal)?;
    // a tape of records that a power cut takes back would be of another history
    group.journal().jvol().sync(began)?;
    let name =
        TapeName { group: file.name.clone(), epoch: file.epoch, first: began, last: began, kind: TapeKind::Base };
    let called = LabelVolume::new(volume.index, volume.name.clone());
    let began_time = group.journal().jvol().pointers().last_time;
    let mut label = Label::base(file.name.clone(), file.uuid, file.epoch, base, began, began_time, called);
    label.created = group.journal().clock().read().wall;
    let expected = used_bytes(primary);
    let write = |out: &File| -> Result<_> {
        let writer = BaseWriter::new(disk::Appender::new(disk::Label::TapeWrite, out), label, WriteOptions::default())
            .map_err(|error| tape_error("write a base tape", error))?;
        let mut copy = Copy { writer, first_names: HashMap::new(), root, done: 0 };
        primary
            .walk(&mut |visit| {
                copy.take(visit)?;
                progress(copy.done.min(expected), expected);
                Ok(())
            })
            .map_err(|error: WalkError<Error>| match error {
                WalkError::Read { path, source } => Error::io(format!("read `{path}` of the PVOL"), source.into()),
                WalkError::Visit(error) => error,
            })?;
        let sealed = copy.writer.seal(began_time).map_err(|error| tape_error("write a base tape", error))?;
        Ok((sealed.root, sealed.bytes))
    };
    let (digest, bytes) = export::publish(to, &name, write)?;
    keep_records_from(group, to, began)?;
    if primary.suspensions() != suspensions {
        return Err(Error::new(
            ErrorKind::State,
            "the group was suspended while the base copy ran, so the copy is not whole",
        )
        .hint(format!("reelfs pair resync {name}, then the base copy again", name = file.name)));
    }
    let end = Change::BaseEnd { base, began, digest: digest.0 };
    let seq = primary.control(&end).map_err(journal)?;
    group.journal().jvol().sync(seq)?;
    group.update(|file| file.set_base(volume.index, Base { uuid: base, seq, began: None }))?;
    // one through the journal that had not ended is not needed any more
    primary.give_up_base().map_err(|error| Error::io("forget the unfinished base copy", error))?;
    Ok(Made {
        path: to.dir.join(name.to_string()),
        kind: TapeKind::Base,
        first: began,
        last: began,
        bytes,
        sealed: began_time,
    })
}

/// Whether the journal says, or has said, that a base on a tape came to its end: it may have been cut off between the two.
pub(crate) fn is_ended(group: &OpenGroup, entry: &VolumeEntry, tape: &CatalogTape) -> Result<bool> {
    let jvol = group.journal().jvol();
    let (began, pointers) = (tape.head.first(), jvol.pointers());
    let Some(uuid) = tape.head.label.base else { return Ok(false) };
    if began < pointers.out || entry.base.is_some_and(|base| base.uuid == uuid) {
        return Ok(true); // freed: when it was exported, this was asked
    }
    if began >= pointers.next {
        return Ok(false);
    }
    let mut reader = jvol.read(began, pointers.next.previous())?;
    while let Some(record) = reader.next() {
        let (control, data) = record?;
        if !Record::is_base_end(control) {
            continue;
        }
        let record = Record::decode(control, data).map_err(|error| Error::failed("read the journal").because(error))?;
        if matches!(record.change, Change::BaseEnd { base, .. } if base == uuid) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The records that complete the base must not be freed for another directory's sake before they are on this one.
pub(crate) fn keep_records_from(group: &OpenGroup, to: &Destination, began: Seq) -> Result<()> {
    if group.file().target(&to.dir).is_some() {
        return Ok(());
    }
    let before = export::position_before(group, began)?;
    group.update(|file| file.set_target(to.target(before, None)))
}

#[expect(clippy::disallowed_methods, reason = "a base copy's identity is the one random thing about it")]
pub(crate) fn new_base_id() -> Uuid {
    Uuid::new_v4()
}

/// What the file system says is used: an upper bound for the progress bar.
fn used_bytes(primary: &Primary) -> u64 {
    primary.statfs().map_or(0, |stat| (stat.f_blocks - stat.f_bfree) * stat.f_frsize)
}

/// A base tape being written.
struct Copy<'o> {
    writer: BaseWriter<disk::Appender<'o>>,
    /// First names of objects that have several.
    first_names: HashMap<FileId, Vec<Name>>,
    root: FileId,
    done: u64,
}

impl Copy<'_> {
    fn take(&mut self, visit: Visit<'_>) -> Result<()> {
        let stat = visit.stat;
        let size = if visit.kind == NodeKind::File { stat.size } else { 0 };
        let (parent, name) = match visit.path.last() {
            Some(name) if visit.parent != FileId::NONE => (visit.parent, name.clone()),
            _ => (FileId::NONE, Name::new(b"?").map_err(|error| Error::failed(error.to_string()))?),
        };
        let attributes = stat.attributes();
        let entry = Change::Entry {
            parent,
            name,
            file: stat.id,
            kind: visit.kind.clone(),
            attributes,
            xattrs: visit.xattrs.clone(),
            size,
        };
        self.writer.entry(&entry).map_err(|error| tape_error("write a base tape", error))?;
        let hard_link = if visit.again { self.first_names.get(&stat.id).cloned() } else { None };
        if !visit.again && stat.links > 1 && stat.id != self.root && visit.kind != NodeKind::Directory {
            self.first_names.insert(stat.id, visit.path.to_vec());
        }
        if visit.again && hard_link.is_none() {
            return Ok(()); // it moved while we walked and is on the tape under its former name
        }
        let source = visit.file.map(File::from);
        let extents = source.as_ref().map_or_else(|| Ok(Vec::new()), |file| extents(file, size))?;
        let file = BaseFile {
            file: stat.id,
            path: visit.path,
            kind: &visit.kind,
            attributes: &attributes,
            xattrs: &visit.xattrs,
            size,
            extents: &extents,
            hard_link: hard_link.as_deref(),
        };
        let mut read = |buffer: &mut [u8], at: u64| source.as_ref().map_or(Ok(0), |file| file.read_at(buffer, at));
        self.writer.file(&file, &mut read).map_err(|error| tape_error("write a base tape", error))?;
        self.done += stat.blocks * 512;
        Ok(())
    }
}

/// Where a file has data; holes are left out.
fn extents(file: &File, size: u64) -> Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut offset = 0;
    while offset < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(start) if start >= size => break,
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(vec![(0, size)]),
            Err(error) => return Err(Error::io("look for holes", error.into())),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).map_or(size, |end| end.min(size));
        extents.push((start, end - start));
        offset = end.max(start + 1);
    }
    Ok(extents)
}
