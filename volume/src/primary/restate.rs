//! After something was lost: what the volume may have beyond the journal is told, so that the two agree and the epoch goes on.
//!
//! Volume and journal were one when the window began. Since then the volume changed only where a durable record of the window
//! says so (`activity.rs`), and the redo has made equal again what the journal holds. What is left is a dirty map like that of a
//! suspension, and telling it is a resync that nobody waits for, between two recovery markers. If the journal has no room for it,
//! it becomes the map of a suspension.

use std::io;

use reelfs_journal::{FileId, FileTime, MarkerKind, Timestamp};
use rustix::fs::FileType;
use rustix::io::{Errno, Result};

use super::dirty::{Dirt, DirtyMap, Reason, Suspension};
use super::lifecycle::{OpenError, io_error, volume_error};
use super::lull::Lull;
use super::recovery::Recovered;
use super::redo::Window;
use super::resync::{NAME_BYTES, ResyncError};
use super::scan::Scan;
use super::{Primary, Tags};

impl Primary {
    /// What may differ: what the window names, and what a scan found changed since it began.
    pub(super) fn map_of(&self, window: Option<&Window>, scan: &Scan, lulls: &[Lull]) -> Result<DirtyMap> {
        let mut map = DirtyMap::in_memory();
        self.note_found(&mut map, window, scan, lulls)?;
        if let Some(window) = window {
            self.note_active(&mut map, window)?;
        }
        Ok(map)
    }

    fn note_active(&self, map: &mut DirtyMap, window: &Window) -> Result<()> {
        let active = &window.active;
        let node =
            |ino: u64| if ino == self.root() { Some(self.volume.root.clone()) } else { self.volume.nodes.by_ino(ino) };
        for directory in active.renamed.iter().filter_map(|ino| node(*ino)).filter(|node| node.is_directory()) {
            map.note_whole(directory.id, true).map_err(in_memory)?;
        }
        for directory in active.names.iter().filter_map(|ino| node(*ino)).filter(|node| node.is_directory()) {
            // if its names changed, so did its change time, and the scan found it
            map.note_attributes(directory.id).map_err(in_memory)?;
            self.note_mistaken(map, &directory)?;
        }
        for object in active.objects.iter().filter_map(|ino| node(*ino)) {
            map.note_attributes(object.id).map_err(in_memory)?;
        }
        for (ino, first, end) in &active.units {
            if let Some(file) = node(*ino).filter(|node| node.file_type == FileType::RegularFile) {
                map.note_units(file.id, *first, *end).map_err(in_memory)?;
            }
        }
        for file in active.made.iter().filter(|id| self.volume.nodes.get(**id).is_some()) {
            map.note_whole(*file, false).map_err(in_memory)?;
        }
        for (id, cut) in &active.half_told {
            map.note_from(*id, *cut).map_err(in_memory)?;
        }
        for (id, removed) in &active.removed {
            // the journal may have let it go with all its bytes, and here it stands
            let Some(node) = self.volume.nodes.get(*id) else { continue };
            if node.is_directory() || self.volume.stat(&node)?.links <= *removed {
                map.note_whole(*id, node.is_directory()).map_err(in_memory)?;
            }
        }
        Ok(())
    }

    fn note_found(&self, map: &mut DirtyMap, window: Option<&Window>, scan: &Scan, lulls: &[Lull]) -> Result<()> {
        let since = window.map(|window| FileTime::from(window.active.since()));
        for directory in &scan.changed_directories {
            map.note_whole(directory.id, true).map_err(in_memory)?;
        }
        for found in scan.changed.iter().filter(|found| !found.stat.is_directory()) {
            let stat = &found.stat;
            let node = self.volume.nodes.intern(stat.id, stat.file_type, 0);
            node.add_link(&found.parent, &found.name);
            // made in the window, changed by somebody else since, or below a directory that the journal does not know
            let shown = |time| self.clock().shown(time);
            let is_whole = since
                .is_none_or(|since| shown(stat.ctime) <= since || stat.born.is_none_or(|born| since <= shown(born)))
                || lulls.iter().any(|lull| lull.contains(stat.ctime));
            let noted = if is_whole { map.note_whole(stat.id, false) } else { map.note_attributes(stat.id) };
            noted.map_err(in_memory)?;
        }
        Ok(())
    }

    /// Whether the journal has room for all that a map says.
    pub(super) fn can_tell(&self, map: &DirtyMap) -> Result<bool> {
        let (_, names) = self.dirty_scan(map)?;
        // each its entry, and its size
        let (mut bytes, mut records) = (names * NAME_BYTES, 2 * (names + map.directories.len() as u64) + 64);
        for (id, dirt) in &map.objects {
            let Some(node) = self.named(*id).filter(|node| node.file_type == FileType::RegularFile) else { continue };
            let stat = self.volume.stat(&node)?;
            // attributes again, and a capability
            records += if *dirt == Dirt::default() { 0 } else { 2 };
            for (from, to) in dirt.stretches() {
                let mut there = to.min(stat.size).saturating_sub(from);
                if dirt.cut == Some(from) {
                    there = there.min(stat.blocks * 512);
                }
                bytes += there;
                records += 1 + there.div_ceil(reelfs_journal::DATA_MAX as u64);
            }
        }
        let has_room = self.jvol().has_room(bytes, records);
        let (directories, objects) = (map.directories.len(), map.objects.len());
        tracing::debug!(directories, objects, names, bytes, records, has_room, "what may differ");
        Ok(has_room)
    }

    /// Tells what a map says, or makes it the map of a suspension. Until `since` the volume was what the journal says.
    pub(super) fn restate(
        &self,
        map: DirtyMap,
        since: Timestamp,
        has_room: bool,
        recovered: &mut Recovered,
    ) -> std::result::Result<(), OpenError> {
        let told = if has_room { self.tell_map(&map, since, recovered) } else { Err(Errno::AGAIN) };
        match told {
            // it needed more than was thought
            Err(Errno::AGAIN) => {
                recovered.suspended = true;
                self.suspend_with(map)
            }
            told => told.map_err(volume_error("journal what may differ")),
        }
    }

    fn tell_map(&self, map: &DirtyMap, since: Timestamp, recovered: &mut Recovered) -> Result<()> {
        let (scan, _) = self.dirty_scan(map)?;
        self.marker(MarkerKind::RecoveryBegin, "", "", since)?;
        self.tell_listings(&scan)?;
        for (id, dirt) in &map.objects {
            self.tell_size(*id, dirt)?;
        }
        for (id, dirt) in map.objects.iter().filter(|(_, dirt)| **dirt != Dirt::default()) {
            recovered.told_bytes += match self.tell_bytes_of(*id, dirt) {
                Err(Errno::ACCESS) => self.tell_unreadable(*id, dirt)?,
                told => told?,
            };
        }
        recovered.told = (map.directories.len() + map.objects.len()) as u64;
        self.marker(MarkerKind::RecoveryEnd, "", "", since)?;
        map.directories.iter().chain(map.objects.keys()).for_each(|id| self.forget(id.ino, 0));
        Ok(())
    }

    fn tell_bytes_of(&self, id: FileId, dirt: &Dirt) -> Result<u64> {
        self.tell_dirt(id, dirt, &mut || false).map_err(|error| match error {
            ResyncError::Failed { source, .. } => source,
            _ => Errno::AGAIN,
        })
    }

    /// The same of a file that its owner, who we are, may not read by its present mode.
    fn tell_unreadable(&self, id: FileId, dirt: &Dirt) -> Result<u64> {
        let node = self.volume.node(id)?;
        let mode = self.volume.stat(&node)?.mode;
        self.volume.set_mode(&node, mode | 0o400).map_err(|_| Errno::ACCESS)?;
        let told = self.tell_bytes_of(id, dirt);
        self.volume.set_mode(&node, mode)?;
        self.tell_attributes(&node)?;
        told
    }

    /// Goes on suspended: the marker first, for a map that is there is a suspension that has begun.
    fn suspend_with(&self, map: DirtyMap) -> std::result::Result<(), OpenError> {
        let why = "the journal had no room for what may differ after an unclean stop";
        // a record's time, which a step of the wall clock does not move
        let since = self.jvol().tick(self.clock()).1;
        let placed = self.place(MarkerKind::Suspended, ("", why, &Tags::default()), since);
        let placed = placed.map_err(volume_error("write the journal"))?;
        self.jvol().sync(placed.last)?;
        let suspension = Suspension { reason: Reason::Error, seq: placed.last, time: placed.time };
        let map = map.keep(&self.state, suspension).map_err(io_error("write the dirty map"))?;
        self.go_on_suspended(map, &Scan::default(), true).map_err(io_error("write the dirty map"))?;
        self.group.seal_volume(self.index, (placed.last, placed.time));
        tracing::warn!("suspended: {why}");
        Ok(())
    }
}

/// A map in memory cannot fail.
pub(super) fn in_memory(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
