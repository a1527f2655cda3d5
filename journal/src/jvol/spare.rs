//! The spare: when the disk of a journal volume fails, the group goes on in another one.
//!
//! What the old file still gives is copied, checked record by record and made durable before anybody is told that it is.
//! If one record is missing, none is kept: the spare begins with the next number, everything that asks gets
//! [`JournalError::Lost`] until the owner has taken note of it, and the digest of what came before is zeros for good, for
//! nobody knows it.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::create::write_superblocks;
use super::drain::{Drain, copy_out};
use super::file::VolumeFile;
use super::grow::{Copied, copy};
use super::keep::give_up;
use super::open::read_superblock;
use super::superblock::Superblock;
use super::{Jvol, Store, Tail};
use crate::disk::Label;
use crate::{Digest, JournalError, Seq};

/// How the superblocks of a spare are written and made durable.
const SUPERBLOCKS: (Label, Label) = (Label::JvolSpareSuperblocks, Label::JvolSpareSync);

type Take = dyn Fn(u64) -> io::Result<PathBuf> + Send + Sync;
type Settle = dyn Fn(&Path) -> io::Result<()> + Send + Sync;

/// Where spare journal volumes come from.
pub struct Spare {
    /// Gives the path of an empty one of the group, of at least so many bytes.
    pub take: Box<Take>,
    /// Notes durably that the group's journal is there now.
    pub settle: Box<Settle>,
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spare").finish_non_exhaustive()
    }
}

impl Jvol {
    /// Goes on in a spare when writing or syncing fails.
    pub fn set_spare(&self, spare: Spare) {
        *self.spare.lock() = Some(Arc::new(spare));
    }

    /// A spare has taken over, and records that the old file held are gone.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// The owner has taken note of the loss: the spare takes records now.
    pub fn accept_loss(&self) {
        self.lost.store(false, Ordering::SeqCst);
    }

    /// Nothing is known of what came before the first record held: it was lost with the disk of another journal volume.
    #[must_use]
    pub fn breaks_off(&self) -> bool {
        let tail = self.tail.lock();
        tail.out > 1 && tail.out_digest == Digest::ZERO
    }

    pub(super) fn check_lost(&self) -> Result<(), JournalError> {
        if self.has_lost() { Err(JournalError::Lost(self.path())) } else { Ok(()) }
    }

    /// Does it, and when the disk fails, once more in the spare.
    pub(super) fn with_spare<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.check_lost()?;
        match attempt() {
            Err(error @ (JournalError::Io { .. } | JournalError::Failed(_))) if self.spare.lock().is_some() => {
                self.take_over(error)?;
                self.check_lost()?;
                attempt()
            }
            outcome => outcome,
        }
    }

    fn take_over(&self, why: JournalError) -> Result<(), JournalError> {
        let _moving = self.moving.lock();
        if self.check_failed().is_ok() {
            return Ok(()); // somebody else was first
        }
        let Some(spare) = self.spare.lock().clone() else { return Err(why) };
        tracing::error!(error = %why, "the disk of the journal fails: a spare takes over");
        self.move_to(&spare).inspect_err(|error| {
            tracing::error!(%error, "the spare cannot take over");
            // one attempt: nothing is tried again on a disk that failed
            *self.spare.lock() = None;
        })
    }

    fn move_to(&self, spare: &Spare) -> Result<(), JournalError> {
        let old = self.store();
        let failed = |operation| {
            let path = old.file.path.clone();
            move |source| JournalError::Io { operation, path, source }
        };
        let path = (spare.take)(old.geometry.size).map_err(failed("take a spare"))?;
        let new = self.open_spare(&path)?;
        let mut writer = self.wait_for_writer();
        let mut tail = self.tail.lock();
        let mut drain = self.drain.lock();
        let moved = (|| {
            let superblock = self.superblock_of(&tail, new.geometry, writer.generation + 1);
            let is_whole = self.salvage(&old, &new, (&tail, &drain), &superblock);
            let superblock = if is_whole { superblock } else { broken_off(superblock) };
            if !is_whole {
                write_superblocks(&new.file, &superblock, SUPERBLOCKS)?;
            }
            (spare.settle)(&path).map_err(failed("note the spare"))?;
            Ok((superblock, is_whole))
        })();
        let outcome = moved.map(|(superblock, is_whole)| {
            (tail.out, tail.out_position, tail.out_digest) =
                (superblock.out, superblock.out_position, superblock.out_digest);
            tail.index.free(superblock.out);
            self.lost.store(!is_whole, Ordering::SeqCst);
            self.losses.fetch_add(u64::from(!is_whole), Ordering::SeqCst);
            give_up(&mut tail, &mut drain);
            self.install(new, (&mut tail, &mut drain), &mut writer, &superblock);
            self.failed.store(false, Ordering::Release);
            tracing::warn!(path = %path.display(), is_whole, next = %Seq(tail.next), "the journal goes on in a spare");
        });
        drop(drain);
        drop(tail);
        self.hand_back(writer);
        self.freed.notify_all();
        outcome
    }

    fn open_spare(&self, path: &Path) -> Result<Store, JournalError> {
        let failed = |operation| move |source| JournalError::Io { operation, path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open"))?;
        let length = file.metadata().map_err(failed("stat"))?.len();
        let file = VolumeFile::new(file, path.to_owned());
        let superblock = read_superblock(&file, length)?.superblock;
        if superblock.group != self.group {
            return Err(JournalError::OtherGroup { path: file.path, found: superblock.group, wanted: self.group });
        }
        Ok(Store { file, geometry: superblock.geometry })
    }

    /// Copies everything held, from the old file and what only the ring has, and reads it back from the spare; whether all of it is
    /// there, durable.
    fn salvage(&self, old: &Store, new: &Store, (tail, drain): (&Tail, &Drain), superblock: &Superblock) -> bool {
        let from = Copied { next: tail.out, position: tail.out_position };
        let end = Copied { next: drain.done.next, position: drain.done.position };
        let copied = copy(Label::JvolSpareCopy, old, new, from, end, &mut |_| {});
        let copied = copied.and_then(|()| match &drain.ring {
            Some(ring) => copy_out(Label::JvolSpareCopy, &new.file, (ring, drain.done), new.geometry, tail.place()),
            None => Ok(()),
        });
        let copied = copied.and_then(|()| write_superblocks(&new.file, superblock, SUPERBLOCKS));
        let checked = copied.and_then(|()| {
            let spare = Jvol::open(&new.file.path, self.group)?;
            let mut records = spare.read(Seq(tail.out), Seq(tail.next - 1))?;
            while let Some(record) = records.next() {
                record?;
            }
            Ok(())
        });
        checked.inspect_err(|error| tracing::error!(%error, "what the journal held is lost")).is_ok()
    }
}

/// Empty, from the next record on.
fn broken_off(superblock: Superblock) -> Superblock {
    Superblock {
        generation: superblock.generation + 1,
        out: superblock.durable + 1,
        out_position: superblock.durable_position,
        out_digest: Digest::ZERO,
        ..superblock
    }
}
