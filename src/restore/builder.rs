//! Builds a tree from names that are known already: nothing is made that does not stay, and every file is finished once.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;

use reelfs_journal::{Attributes, Change, FileId, NodeKind, Seq, Xattr};
use reelfs_volume::Volume;
use rustix::io::Errno;

use super::reel::{Reel, Step};
use super::survey::{Selection, Survey};
use crate::error::{Error, ErrorKind, Result};
use crate::namespace::{Namespace, Node, Place};

/// What is not taken over as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restraint {
    /// No suid, no sgid, no capabilities, no devices.
    pub safe: bool,
    /// All files belong to this user and group.
    pub owner: Option<(u32, u32)>,
}

impl Restraint {
    /// Nothing is held back.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Restraint::default()
    }

    /// The object is to be made at all.
    #[must_use]
    pub fn admits(&self, kind: &NodeKind) -> bool {
        !(self.safe && matches!(kind, NodeKind::CharDevice(_) | NodeKind::BlockDevice(_)))
    }

    /// Attributes as they are to be set.
    #[must_use]
    pub fn attributes(&self, node: &Node) -> Attributes {
        let mut attributes = node.attributes;
        if self.safe && node.kind != NodeKind::Directory {
            attributes.mode &= !0o6000;
        }
        if let Some((uid, gid)) = self.owner {
            (attributes.uid, attributes.gid) = (uid, gid);
        }
        attributes
    }

    fn xattrs(&self, node: &Node) -> Vec<Xattr> {
        let mut xattrs = node.xattrs.clone();
        if self.safe {
            xattrs.retain(|xattr| xattr.name != b"security.capability");
        }
        xattrs
    }
}

/// Makes the tree of a selection.
pub struct Builder<'b> {
    /// Where.
    pub volume: &'b Volume,
    /// Names and attributes as they are to stand.
    pub names: &'b Namespace,
    /// What of them.
    pub selection: &'b Selection<'b>,
    /// What is not taken over.
    pub restraint: Restraint,
}

/// What a builder did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Built {
    /// Objects made, hard links not counted.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
}

impl Builder<'_> {
    /// Makes directories and files, with their bytes from the base tape and from the records `from` to `to`; then sets
    /// all attributes. The root's modification time is left to the last.
    ///
    /// # Errors
    /// A tape does not read back (19), the disk is full (22), the file system says no.
    pub fn build(
        &self,
        reel: &Reel,
        survey: &Survey,
        (from, to): (Seq, Seq),
        progress: &mut dyn FnMut(u64, Option<&Step<'_>>),
    ) -> Result<Built> {
        let mut built = Built::default();
        let mut first_places: HashMap<FileId, &Place<'_>> = HashMap::with_capacity(self.selection.places.len());
        for place in self.selection.places.iter().filter(|place| !place.again) {
            first_places.insert(place.file, place);
        }
        built.files = first_places.len() as u64;
        self.make_directories()?;
        self.base_files(reel, survey, &first_places, &mut built.bytes, progress)?;
        self.other_files()?;
        let touched = self.records(reel, from, to, &mut built.bytes, progress)?;
        for file in touched {
            self.finish(file)?;
        }
        self.finish_directories()?;
        Ok(built)
    }

    fn node(&self, file: FileId) -> Result<&Node> {
        let unknown = || Error::new(ErrorKind::Damaged, format!("the tapes say nothing about object {file}"));
        self.names.node(file).ok_or_else(unknown)
    }

    fn make_directories(&self) -> Result<()> {
        for place in &self.selection.places {
            let node = self.node(place.file)?;
            if node.kind == NodeKind::Directory {
                // open to us alone until it is finished; default ACLs come last, or its children would inherit them
                let attributes = Attributes { mode: 0o700, ..self.restraint.attributes(node) };
                let made = self.volume.make(place.parent, place.name, place.file, &node.kind, &attributes, &[]);
                made.map_err(|errno| self.fail("make directory", place.file, errno))?;
            }
        }
        Ok(())
    }

    fn make(&self, place: &Place<'_>, node: &Node) -> Result<()> {
        let attributes = self.restraint.attributes(node);
        let made = self.volume.make(place.parent, place.name, place.file, &node.kind, &attributes, &[]);
        made.map_err(|errno| self.fail("make", place.file, errno))
    }

    /// Files whose bytes are on the base tape, in the order of the tape.
    fn base_files(
        &self,
        reel: &Reel,
        survey: &Survey,
        first_places: &HashMap<FileId, &Place<'_>>,
        bytes: &mut u64,
        progress: &mut dyn FnMut(u64, Option<&Step<'_>>),
    ) -> Result<()> {
        let Some(mut source) = reel.base_bytes()? else { return Ok(()) };
        for (file, extent) in &survey.extents {
            let Some(place) = first_places.get(file) else { continue };
            let node = self.node(*file)?;
            if node.born || node.kind != NodeKind::File {
                continue; // made anew while the base was taken: its records tell all its bytes
            }
            if self.volume.knows(*file) {
                // announced twice; the later bytes replace the earlier ones, holes included
                self.volume.put_size(*file, 0).map_err(|errno| self.fail("cut", *file, errno))?;
            } else {
                self.make(place, node)?;
            }
            let (mut end, mtime) = (0, node.attributes.mtime);
            let taken = source.file(*extent, &mut |offset, data| {
                end = offset + data.len() as u64;
                *bytes += data.len() as u64;
                let data = Cow::Borrowed(data);
                self.put(Change::Write { file: *file, offset, data, size: end, mtime })
            });
            taken.map_err(|error| match error {
                reelfs_archive::TapeError::Sink(source) => self.io_fail("write", *file, source),
                error => reel.base_error(error),
            })?;
            self.close(*file, node, end, extent.size)?;
            progress(*bytes, None);
        }
        Ok(())
    }

    fn put(&self, write: Change<'_>) -> io::Result<()> {
        let Change::Write { data, .. } = &write else { return Err(Errno::INVAL.into()) };
        let wanted = data.len() as u64;
        match self.volume.apply(&write)? {
            written if written == wanted => Ok(()),
            _ => Err(Errno::NOSPC.into()),
        }
    }

    /// Finishes a file whose bytes are there. It was made with its mode and owner and written with its time, so there is
    /// nothing left to do for most, unless the write took privileges away.
    fn close(&self, file: FileId, node: &Node, end: u64, size: u64) -> Result<()> {
        if end != size {
            let extended = self.volume.put_size(file, size);
            extended.map_err(|errno| self.fail("extend", file, errno))?;
        }
        let is_plain = node.xattrs.is_empty() && self.restraint.attributes(node).mode & 0o7000 == 0;
        if is_plain && end == size && size > 0 { Ok(()) } else { self.finish(file) }
    }

    /// Everything that has no bytes on the base tape, and further names of what has.
    fn other_files(&self) -> Result<()> {
        for place in &self.selection.places {
            let node = self.node(place.file)?;
            if node.kind == NodeKind::Directory {
                continue;
            }
            if place.again {
                let linked = self.volume.link(place.file, place.parent, place.name);
                linked.map_err(|errno| self.fail("link", place.file, errno))?;
            } else if !self.volume.knows(place.file) {
                self.make(place, node)?;
                self.finish(place.file)?;
            }
        }
        Ok(())
    }

    /// Bytes and sizes that the records tell, in their order; which files they touched.
    fn records(
        &self,
        reel: &Reel,
        from: Seq,
        to: Seq,
        bytes: &mut u64,
        progress: &mut dyn FnMut(u64, Option<&Step<'_>>),
    ) -> Result<HashSet<FileId>> {
        let mut touched = HashSet::new();
        if from > to {
            return Ok(touched);
        }
        self.volume.set_converging(true);
        reel.records(from, to, &mut |step| {
            progress(*bytes, Some(&step));
            let file = step.change.file();
            if !is_content(&step.change) || !self.volume.knows(file) {
                return Ok(());
            }
            let written = self.volume.apply(&step.change).map_err(|errno| self.fail("write", file, errno))?;
            if let Change::Write { data, .. } = &step.change
                && written < data.len() as u64
            {
                return Err(self.fail("write", file, Errno::NOSPC));
            }
            *bytes += written;
            touched.insert(file);
            Ok(())
        })?;
        self.volume.set_converging(false);
        Ok(touched)
    }

    /// Attributes as they are to stand: extended ones first, for ACLs change the mode, and a new owner takes
    /// capabilities away.
    fn finish(&self, file: FileId) -> Result<()> {
        let node = self.node(file)?;
        let attributes = self.restraint.attributes(node);
        let set = |errno| self.fail("set the attributes of", file, errno);
        // what was made lost what it inherited; the root may have been there, with ACLs say
        if node.xattrs.is_empty() && file != self.names.root() {
            return self.volume.set_attributes(file, &attributes).map_err(set);
        }
        let xattrs = self.restraint.xattrs(node);
        // the owner first: changing it later would take capabilities away; the mode last: ACLs change it
        self.volume.set_attributes(file, &attributes).map_err(set)?;
        self.volume.set_xattrs_exact(file, &xattrs).map_err(set)?;
        self.volume.set_attributes(file, &attributes).map_err(set)
    }

    fn finish_directories(&self) -> Result<()> {
        for place in self.selection.places.iter().rev() {
            if self.node(place.file)?.kind == NodeKind::Directory {
                self.finish(place.file)?;
            }
        }
        self.finish(self.names.root())
    }

    fn fail(&self, what: &'static str, file: FileId, errno: Errno) -> Error {
        self.io_fail(what, file, errno.into())
    }

    fn io_fail(&self, what: &'static str, file: FileId, source: io::Error) -> Error {
        let path = self.names.path(file).unwrap_or_default();
        let path = if path.is_empty() { b"the root".to_vec() } else { path };
        Error::io(format!("{what} {}", String::from_utf8_lossy(&path)), source)
    }
}

/// Bytes and sizes; attributes are set once, at the end.
fn is_content(change: &Change<'_>) -> bool {
    matches!(
        change,
        Change::Write { .. }
            | Change::SetSize { .. }
            | Change::Zero { .. }
            | Change::Punch { .. }
            | Change::Allocate { .. }
    )
}
