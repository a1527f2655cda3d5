//! Growing: everything held goes to a larger file beside the old one, which then takes its name.
//!
//! Number and position of a record decide where it lies, and the sizes of the rings with them. So growing in place would move
//! what wraps, over what a crash still needs. The larger file is complete and durable before it takes the name: at every
//! moment the name leads to one whole journal volume. Appends go on while most of it is copied, and wait for the last bytes.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::create::{fill_zeros, write_superblocks};
use super::drain::Drain;
use super::file::VolumeFile;
use super::geometry::{JvolGeometry, PAGE, SLOT};
use super::keep::give_up;
use super::superblock::Superblock;
use super::sync::{SuperblockWriter, now};
use super::{Jvol, Store, Tail};
use crate::disk::{self, Label, Operation};
use crate::{CONTROL_LEN, JournalError, Record, Seq};

/// Bytes of one copy (4 MiB), and what may be left to be copied while appends wait.
const CHUNK: u64 = 4 << 20;
/// Slots of one copy, and what may be left of them.
const SLOTS: u64 = CHUNK / SLOT;
/// Rounds of copying while applications append; what is left after the last is copied while they wait.
const ROUNDS: usize = 16;

/// Where the larger file stands until it takes the name; after a crash it may be removed.
#[must_use]
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".grow");
    name.into()
}

/// Up to where everything was copied: the next record and its position.
#[derive(Clone, Copy)]
pub(super) struct Copied {
    pub(super) next: u64,
    pub(super) position: u64,
}

impl Jvol {
    /// Grows to `size` bytes, rounded down to whole pages: preallocated and filled with zeros like a new one, durable on return.
    /// Records keep their numbers, times and order; readers and appends go on. For a while both files are there.
    /// `progress` is told bytes done and bytes in all.
    ///
    /// # Errors
    /// [`JournalError::NoGrowth`]; [`JournalError::Torn`] before the tail is cut; [`JournalError::Io`] when the disk is full,
    /// say: then everything is as it was. [`JournalError::Failed`] after a failed write or sync.
    pub fn grow(&self, size: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<(), JournalError> {
        let _moving = self.moving.lock();
        self.check_failed()?;
        let old = self.store();
        if let Some(seq) = self.torn() {
            return Err(JournalError::Torn { path: self.path(), seq });
        }
        if size / PAGE * PAGE <= old.geometry.size {
            return Err(JournalError::NoGrowth { path: self.path(), asked: size, present: old.geometry.size });
        }
        // its name has the inode number of the old file
        if !self.has_lost_ring() {
            self.forget_left()?;
        }
        let beside = unfinished(&old.file.path);
        let grown = self.grow_beside(&old, &beside, JvolGeometry::new(size), progress);
        if grown.is_err() {
            // it may have taken the name; the first error is the one to tell
            let _ = disk::remove(Label::JvolGrowRemove, &beside);
        }
        grown?;
        self.freed.notify_all();
        Ok(())
    }

    fn grow_beside(
        &self,
        old: &Store,
        beside: &Path,
        geometry: JvolGeometry,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), JournalError> {
        let new = Store { file: create_beside(old, beside)?, geometry };
        let used = self.pointers().data_used;
        let total = geometry.size + used;
        // whoever waits for a spare because the old file fails waits for us
        let mut filled = |done, _| {
            progress(done, total);
            self.check_failed()
        };
        fill_zeros(&new.file, geometry.size, &mut filled)?;
        let mut copied = {
            let tail = self.tail.lock();
            Copied { next: tail.out, position: tail.out_position }
        };
        for _ in 0..ROUNDS {
            self.check_failed()?;
            let end = self.drain()?;
            let left = (end.next - copied.next > SLOTS) || (end.position - copied.position > CHUNK);
            let end = Copied { next: end.next, position: end.position };
            if !left {
                break;
            }
            let begun = copied.position;
            let mut step = |bytes: u64| progress((geometry.size + bytes - begun).min(total), total);
            copy(Label::JvolGrowCopy, old, &new, copied, end, &mut step)?;
            copied = end;
        }
        // what is left to be flushed while appends wait is little
        new.file.sync(Label::JvolGrowSync)?;
        let mut writer = self.take_writer()?;
        let switched = self.switch(new, beside, copied, &mut writer);
        self.hand_back(writer);
        switched?;
        progress(total, total);
        Ok(())
    }

    /// The last bytes, the superblock, the name: nobody appends, flushes or frees meanwhile.
    fn switch(
        &self,
        mut new: Store,
        beside: &Path,
        copied: Copied,
        writer: &mut SuperblockWriter,
    ) -> Result<(), JournalError> {
        let old = self.store();
        let mut tail = self.tail.lock();
        let mut drain = self.drain.lock();
        self.pour(&mut drain, tail.ends())?;
        let end = Copied { next: tail.next, position: tail.position };
        copy(Label::JvolGrowCopy, &old, &new, copied, end, &mut |_| {})?;
        let superblock = self.superblock_of(&tail, new.geometry, writer.generation + 1);
        write_superblocks(&new.file, &superblock, (Label::JvolGrowSuperblocks, Label::JvolGrowLastSync))?;
        let path = old.file.path.clone();
        let failed = |operation| move |source| JournalError::Io { operation, path: beside.to_owned(), source };
        // it is the old file's, and empty
        give_up(&mut tail, &mut drain);
        let renamed = disk::rename(Label::JvolGrowName, beside, &path).map_err(failed("rename"));
        if renamed.is_err() {
            self.renew_ring(&mut tail, &mut drain);
        }
        renamed?;
        // the name is the new file's now, whatever comes
        new.file.path.clone_from(&path);
        let named = self.fail(disk::sync_parent(Label::JvolGrowNameSync, &path).map_err(failed("sync directory")));
        self.install(new, (&mut tail, &mut drain), writer, &superblock);
        tracing::info!(path = %path.display(), size = superblock.geometry.size, last = %Seq(superblock.durable), "grown");
        named
    }

    /// From now on this file is the journal volume; what it holds is durable.
    pub(super) fn install(
        &self,
        new: Store,
        (tail, drain): (&mut Tail, &mut Drain),
        writer: &mut SuperblockWriter,
        superblock: &Superblock,
    ) {
        *writer = SuperblockWriter {
            generation: superblock.generation,
            slot: 1,
            dirty: false,
            durable: superblock.durable,
            written: now(),
        };
        drain.begin_at(tail.place());
        {
            let mut flusher = self.flusher.lock();
            (flusher.durable, flusher.durable_position) = (superblock.durable, superblock.durable_position);
        }
        *self.store.write() = Arc::new(new);
        self.renew_ring(tail, drain);
    }

    pub(super) fn superblock_of(&self, tail: &Tail, geometry: JvolGeometry, generation: u64) -> Superblock {
        Superblock {
            group: self.group,
            generation,
            geometry,
            out: tail.out,
            out_position: tail.out_position,
            out_digest: tail.out_digest,
            durable: tail.next - 1,
            durable_position: tail.position,
            last_time: tail.last_time,
        }
    }
}

/// An empty file with owner and mode of the old one; one that a crash left is taken away.
fn create_beside(old: &Store, beside: &Path) -> Result<VolumeFile, JournalError> {
    let failed = |operation| move |source| JournalError::Io { operation, path: beside.to_owned(), source };
    match disk::remove(Label::JvolGrowRemove, beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove")(error)),
        _ => {}
    }
    let like = old.file.file.metadata().map_err(|source| old.file.error("stat", source))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = disk::create(Label::JvolGrowCreate, beside, &options).map_err(failed("create"))?;
    let attributes = || Operation::SetAttributes { file: file.as_fd() };
    let own = file.metadata().map_err(failed("stat"))?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        let give = || std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()));
        disk::call(Label::JvolGrowOwner, attributes, give).map_err(failed("change owner"))?;
    }
    let show = || file.set_permissions(like.permissions());
    disk::call(Label::JvolGrowMode, attributes, show).map_err(failed("change mode"))?;
    Ok(VolumeFile::new(file, beside.to_owned()))
}

/// Journal data and control data from..end, each to where the larger rings have it. Of what was freed meanwhile there may be
/// something else by now: then its slot stays empty.
pub(super) fn copy(
    label: Label,
    old: &Store,
    new: &Store,
    from: Copied,
    end: Copied,
    progress: &mut dyn FnMut(u64),
) -> Result<(), JournalError> {
    let mut bytes = Vec::new();
    let mut position = from.position;
    while position < end.position {
        let (here, there) = (old.geometry.data_to_end(position), new.geometry.data_to_end(position));
        let length = (end.position - position).min(CHUNK).min(here).min(there);
        bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        old.file.read(&mut bytes, old.geometry.data_place(position))?;
        new.file.write(label, &bytes, new.geometry.data_place(position))?;
        position += length;
        progress(position);
    }
    let mut seq = from.next;
    while seq < end.next {
        let (here, there) = (old.geometry.slots_to_end(seq), new.geometry.slots_to_end(seq));
        let count = (end.next - seq).min(SLOTS).min(here).min(there);
        bytes.resize(usize::try_from(count * SLOT).unwrap_or(0), 0);
        old.file.read(&mut bytes, old.geometry.slot_offset(seq))?;
        for (slot, expected) in bytes.as_chunks_mut::<CONTROL_LEN>().0.iter_mut().zip(seq..) {
            if Record::peek(slot).0 != Seq(expected) {
                slot.fill(0);
            }
        }
        new.file.write(label, &bytes, new.geometry.slot_offset(seq))?;
        seq += count;
    }
    Ok(())
}
