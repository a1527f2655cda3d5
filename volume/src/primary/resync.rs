//! Resync: the journal gets what changed while nothing was journaled, as soon as it has room.
//!
//! A resync tells the names of dirty directories and the attributes of dirty objects while no change is under way, journals
//! again from then on, and tells the dirty bytes piece by piece, each under the lock that orders its file's changes. So every
//! record says what stood at its place in the order, and at the end the volume is what the journal says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reelfs_journal::{Change, DATA_MAX, FileId, MarkerKind, Reserve};
use rustix::fs::FileType;
use rustix::io::{Errno, Result};
use serde::{Deserialize, Serialize};

use super::data::read_from;
use super::dirty::{Dirt, DirtyMap, Reason};
use super::scan::{Found, Scan};
use super::suspend::failed_map;
use super::{Primary, Requester};
use crate::node::Node;
use crate::xattr;

/// What a resync told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resynced {
    /// Directories, with all their names.
    pub directories: u64,
    /// Other objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The epoch that began, when the journal had lost what it held: everything is told by a new base.
    #[serde(default)]
    pub new_epoch: Option<u32>,
}

/// Why a group is still suspended.
#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    /// It is not.
    #[error("the group is not suspended")]
    NotSuspended,
    /// There is no room in the journal, and nobody makes any.
    #[error("the journal has no room for what changed")]
    NoRoom,
    /// The names alone need more room than the journal has when it is empty.
    #[error("{0} names changed, more than this journal can ever hold")]
    TooMuch(u64),
    /// It filled again while it was brought back.
    #[error("the journal filled again, and the group is suspended again")]
    Again,
    /// Its disk failed meanwhile, and what the spare does not have is in no map either.
    #[error("the journal lost what it held, and the group stays suspended")]
    Lost,
    /// The volume, the journal, or the dirty map.
    #[error("{what}: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: Errno,
    },
}

/// Journal bytes that telling one name takes, about.
pub(super) const NAME_BYTES: u64 = 1024;

impl Primary {
    /// Journals again, and tells what changed meanwhile. `make_room` exports, say, and tells whether that freed anything.
    ///
    /// # Errors
    /// See [`ResyncError`]; the group stays suspended, and nothing of what changed is forgotten.
    pub fn resync(
        &self,
        make_room: &mut dyn FnMut() -> bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> std::result::Result<Resynced, ResyncError> {
        self.tell_all(make_room, progress).inspect_err(|error| match error {
            // nothing was told
            ResyncError::NotSuspended | ResyncError::TooMuch(_) | ResyncError::Again | ResyncError::Lost => {}
            ResyncError::NoRoom if self.is_suspended() => {}
            ResyncError::NoRoom => self.suspend_again(Reason::JournalFull),
            ResyncError::Failed { .. } => self.suspend_again(Reason::Error),
        })
    }

    /// A resync ended early. A marker tells also that what it told of the names is not whole, and lets it leave the machine.
    fn suspend_again(&self, reason: Reason) {
        self.group.settle_loss();
        let _held = self.gate.write();
        if let Err(error) = self.sync_volume().and_then(|()| self.begin_suspension(reason)) {
            tracing::error!(%error, "a resync ended early, and that could not be noted");
            if !self.is_suspended() {
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    fn tell_all(
        &self,
        make_room: &mut dyn FnMut() -> bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> std::result::Result<Resynced, ResyncError> {
        let mut resynced = Resynced::default();
        let mut name_bytes = NAME_BYTES;
        let pending = loop {
            match self.tell_names(&mut resynced, name_bytes)? {
                Names::Told(pending) => break pending,
                Names::NoRoom if make_room() => {}
                Names::NoRoom => return Err(ResyncError::NoRoom),
                // they are larger than names are
                Names::Larger => {
                    self.suspend_again(Reason::JournalFull);
                    name_bytes *= 4;
                }
            }
        };
        let total = pending.len() as u64;
        for (number, (file, dirt)) in pending.iter().enumerate() {
            progress(number as u64, total);
            resynced.bytes += self.tell_dirt(*file, dirt, make_room)?;
        }
        self.finish_resync()?;
        progress(total, total);
        Ok(resynced)
    }

    /// The names, while no change is under way; then everything is journaled again.
    fn tell_names(&self, resynced: &mut Resynced, name_bytes: u64) -> std::result::Result<Names, ResyncError> {
        let failed = |what| move |source| ResyncError::Failed { what, source };
        let _held = self.gate.write();
        let _names = self.names.write();
        let mut dirty = self.dirty.lock();
        let Some(map) = dirty.as_mut().filter(|_| self.is_suspended()) else { return Err(ResyncError::NotSuspended) };
        let (scan, names) = self.dirty_scan(map).map_err(failed("look at what changed"))?;
        let room = name_bytes * (names + 64);
        let pointers = self.jvol().pointers();
        if self.jvol().breaks_off() && map.suspension.loses_its_place(pointers.out) {
            // while room was waited for: what is lost is in no map
            return Err(ResyncError::Lost);
        }
        if room > pointers.data_size / 2 {
            return Err(ResyncError::TooMuch(names));
        }
        if !self.jvol().has_room(room, 3 * names + 64) {
            return Ok(Names::NoRoom);
        }
        let since = map.suspension.time;
        self.marker(MarkerKind::ResyncBegin, "", "", since).map_err(failed("write the journal"))?;
        let told = match self.tell_listings(&scan) {
            Err(Errno::AGAIN) => return Ok(Names::Larger),
            told => told.map_err(failed("journal the names"))?,
        };
        let pending = map.objects.clone();
        for (id, dirt) in &pending {
            self.tell_size(*id, dirt).map_err(failed("journal the sizes"))?;
        }
        (resynced.directories, resynced.objects) = (told, pending.len() as u64);
        self.suspended.store(false, Ordering::SeqCst);
        self.group.unseal_volume(self.index);
        Ok(Names::Told(pending))
    }

    /// Dirty objects that still have a name, as a scan would have found them; and how many names that is to tell.
    pub(super) fn dirty_scan(&self, map: &DirtyMap) -> Result<(Scan, u64)> {
        let mut scan = Scan::default();
        let mut names = 0;
        for id in &map.directories {
            let Some(node) = self.named(*id) else { continue };
            names += self.count_names(&node)?;
            scan.changed_directories.push(node);
        }
        for id in map.directories.iter().chain(map.objects.keys().filter(|id| !map.directories.contains(id))) {
            let Some(node) = self.named(*id) else { continue };
            names += 1;
            let link = node.state.lock().links.first().cloned();
            let Some(link) = link else {
                scan.placeless.push(node);
                continue;
            };
            let stat = self.volume.stat(&node)?;
            scan.changed.push(Found { parent: link.parent, name: link.name, stat });
        }
        Ok((scan, names))
    }

    pub(super) fn named(&self, id: FileId) -> Option<Arc<Node>> {
        self.volume.nodes.get(id).filter(|node| !node.state.lock().nameless)
    }

    fn count_names(&self, directory: &Arc<Node>) -> Result<u64> {
        let mut names = 0;
        self.each_entry(directory, &mut |_| names += 1)?;
        Ok(names)
    }

    /// The size of a file, everything from its cut on gone.
    pub(super) fn tell_size(&self, id: FileId, dirt: &Dirt) -> Result<()> {
        let Some(node) = self.named(id).filter(|node| node.file_type == FileType::RegularFile) else { return Ok(()) };
        let stat = self.volume.stat(&node)?;
        if let Some(cut) = dirt.cut.filter(|cut| *cut < stat.size) {
            self.tell(&Requester::reelfs(), Change::SetSize { file: id, size: cut, mtime: stat.mtime })?;
        }
        self.tell(&Requester::reelfs(), Change::SetSize { file: id, size: stat.size, mtime: stat.mtime })
    }

    /// The dirty bytes of a file, and its attributes again, for writing takes some away.
    pub(super) fn tell_dirt(
        &self,
        id: FileId,
        dirt: &Dirt,
        make_room: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<u64, ResyncError> {
        let Some(node) = self.volume.nodes.get(id).filter(|node| node.file_type == FileType::RegularFile) else {
            return Ok(0);
        };
        let mut told = 0;
        for (start, end) in dirt.stretches() {
            let mut at = start;
            while at < end {
                // behind a cut the size has told the holes
                let is_new = dirt.cut.is_some_and(|cut| cut <= at);
                let Some((data, hole)) = (if is_new { self.data_from(id.ino, at) } else { Some((at, end)) }) else {
                    break;
                };
                let length = (hole.min(end).saturating_sub(data)).min(DATA_MAX as u64);
                match self.tell_piece(&node, data, length)? {
                    Piece::Told(0) => break,
                    Piece::Told(bytes) => (told, at) = (told + bytes, data + bytes),
                    Piece::NoRoom if make_room() => {}
                    Piece::NoRoom => return Err(ResyncError::NoRoom),
                }
            }
        }
        let _names = self.names.read();
        let _order = node.order.lock();
        if node.state.lock().nameless {
            return Ok(told);
        }
        self.tell_attributes(&node).map_err(|source| ResyncError::Failed { what: "journal attributes", source })?;
        Ok(told)
    }

    /// The next stretch of data at or after `at`; all the rest where the file system cannot tell.
    fn data_from(&self, ino: u64, at: u64) -> Option<(u64, u64)> {
        let data = match self.seek(ino, at, libc::SEEK_DATA) {
            Err(Errno::NXIO) => return None,
            data => data.unwrap_or(at),
        };
        Some((data, self.seek(ino, data, libc::SEEK_HOLE).unwrap_or(u64::MAX)))
    }

    /// One piece, as it stands now; nothing at the end of the file.
    fn tell_piece(&self, node: &Arc<Node>, at: u64, length: u64) -> std::result::Result<Piece, ResyncError> {
        let failed = |source| ResyncError::Failed { what: "journal what changed", source };
        let _names = self.names.read();
        let _order = node.order.lock();
        if self.is_suspended() {
            return Err(ResyncError::Again);
        }
        if node.state.lock().nameless {
            return Ok(Piece::Told(0));
        }
        let length = usize::try_from(length).map_err(|_| failed(Errno::INVAL))?;
        // no further lock of the names: whoever waits to change some would come before us, and behind us
        let bytes = self.volume.data(node, false).and_then(|file| read_from(&*file, at, length)).map_err(failed)?;
        if bytes.is_empty() {
            return Ok(Piece::Told(0));
        }
        // half of the journal is the applications', if there are any: the map of a recovery is nowhere but in its hands
        let theirs = if self.dirty.lock().is_some() { self.jvol().geometry().data_size / 2 } else { 0 };
        if !self.has_room(bytes.len() as u64 + theirs) {
            return Ok(Piece::NoRoom);
        }
        let stat = self.volume.stat(node).map_err(failed)?;
        let told = bytes.len() as u64;
        let (data, size, mtime) = (bytes.into(), stat.size, stat.mtime);
        match self.tell(&Requester::reelfs(), Change::Write { file: node.id, offset: at, data, size, mtime }) {
            Ok(()) => Ok(Piece::Told(told)),
            Err(Errno::AGAIN) => Ok(Piece::NoRoom),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn tell_attributes(&self, node: &Arc<Node>) -> Result<()> {
        let who = Requester::reelfs();
        let stat = self.volume.stat(node)?;
        self.journal(None, &who, &[Change::SetAttr { file: node.id, attributes: stat.attributes() }], Reserve::Use)?;
        let xattrs = xattr::all_by_owner(&*self.volume.path(node)?, stat.mode)?;
        let capability = xattrs.into_iter().find(|xattr| xattr.name == b"security.capability");
        capability.map_or(Ok(()), |xattr| self.tell(&who, Change::SetXattr { file: node.id, xattr }))
    }

    /// The volume is what the journal says: so says the journal, and the map goes.
    fn finish_resync(&self) -> std::result::Result<(), ResyncError> {
        let failed = |what| move |source| ResyncError::Failed { what, source };
        let _held = self.gate.write();
        if self.is_suspended() {
            return Err(ResyncError::Again);
        }
        // a redo after a power cut begins behind this marker; what the disk refuses it tells once, and the map has not all of it
        self.sync_volume().map_err(failed("sync the volume"))?;
        let mut dirty = self.dirty.lock();
        let Some(map) = dirty.as_ref() else { return Err(ResyncError::NotSuspended) };
        let end =
            self.marker(MarkerKind::ResyncEnd, "", "", map.suspension.time).map_err(failed("write the journal"))?;
        self.jvol().sync(end).map_err(|_| failed("sync the journal")(Errno::IO))?;
        map.remove().map_err(|error| failed("remove the dirty map")(failed_map(error)))?;
        self.failed.fetch_or(map.sync_removal().is_err(), Ordering::Relaxed);
        self.activity.raise_floor(end.next());
        for id in dirty.take().iter().flat_map(|map| map.directories.iter().chain(map.objects.keys())) {
            self.forget_kept(*id);
        }
        tracing::info!("the pair is back: everything is journaled");
        Ok(())
    }
}

enum Names {
    /// What is left to be told.
    Told(HashMap<FileId, Dirt>),
    NoRoom,
    /// There was room for as many as there are, and it did not do.
    Larger,
}

enum Piece {
    Told(u64),
    NoRoom,
}
