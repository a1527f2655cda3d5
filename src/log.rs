//! What happened, record by record, with the paths that names had at that time.

use globset::{GlobBuilder, GlobMatcher};
use reelfs_journal::{Change, FileId, Name, NodeKind, Seq, Tags, Timestamp, VolumeIndex, VolumeName};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::points::History;
use crate::restore::{Deck, Who};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which record, and who asked for it.
    pub who: Who,
    /// The volume, when there are several and it is not of the whole group.
    pub volume: Option<VolumeName>,
    /// One word.
    pub op: &'static str,
    /// What it happened to, relative to the protected directory; empty for markers. When there are several volumes, the name
    /// of the volume comes first, and stands alone for what happened to the volume as a whole.
    pub path: Vec<u8>,
    /// Where it went, or what it is another name of.
    pub other: Option<Vec<u8>>,
    /// The range in the file, in bytes.
    pub range: Option<(u64, u64)>,
    /// Anything else worth saying.
    pub note: String,
    /// What programs say about a named point.
    pub tags: Tags,
}

/// What of it to show.
#[derive(Debug, Clone)]
pub struct Filter {
    /// From this record on.
    pub first: Seq,
    /// From this time on.
    pub since: Timestamp,
    /// Up to this record.
    pub last: Seq,
    /// Up to this time.
    pub until: Timestamp,
    glob: Option<(GlobMatcher, bool)>,
}

impl Filter {
    /// Everything, or paths that match. A pattern without a slash is compared with the last component.
    ///
    /// # Errors
    /// The pattern is none (2).
    pub fn new(glob: Option<&str>) -> Result<Filter> {
        let matcher = |pattern: &str| {
            let built = GlobBuilder::new(pattern.trim_start_matches('/')).literal_separator(true).build();
            let glob =
                built.map_err(|error| Error::usage(format!("`{pattern}` is not a pattern: {}", error.kind())))?;
            Ok::<_, Error>((glob.compile_matcher(), pattern.contains('/')))
        };
        Ok(Filter {
            first: Seq::ZERO,
            since: Timestamp(i64::MIN),
            last: Seq(u64::MAX),
            until: Timestamp(i64::MAX),
            glob: glob.map(matcher).transpose()?,
        })
    }

    /// From this record on.
    #[must_use]
    pub fn from(mut self, first: Seq) -> Filter {
        self.first = first;
        self
    }

    /// Up to this record.
    #[must_use]
    pub fn to(mut self, last: Seq) -> Filter {
        self.last = last;
        self
    }

    fn begins(&self, who: Who) -> bool {
        who.seq >= self.first && who.time >= self.since
    }

    fn has_ended(&self, who: Who) -> bool {
        who.seq > self.last || who.time > self.until
    }

    fn admits(&self, event: &Event) -> bool {
        let Some((glob, whole)) = &self.glob else { return true };
        let fits = |path: &[u8]| {
            let path = Path::new(OsStr::from_bytes(path));
            if *whole { glob.is_match(path) } else { path.file_name().is_some_and(|name| glob.is_match(name)) }
        };
        fits(&event.path) || event.other.as_deref().is_some_and(fits)
    }
}

/// Tells everything that happened and fits, in order.
///
/// # Errors
/// A tape does not read back (19), or the caller's.
pub fn tell(deck: &Deck, filter: &Filter, sink: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
    for (tapes, history) in deck.epochs.iter().zip(&deck.histories) {
        let mut volumes: BTreeMap<VolumeIndex, Names<'_>> = BTreeMap::new();
        let mut from = Seq(u64::MAX);
        for life in &history.lives {
            let mut names = Names::new(deck, history, life.volume);
            from = from.min(names.start(filter)?);
            volumes.insert(life.volume, names);
        }
        let none = &mut Names::new(deck, history, VolumeIndex::FIRST);
        let from = if volumes.is_empty() { Seq::ZERO } else { from };
        deck.records(tapes.epoch, from, &mut |who, change| {
            if filter.has_ended(who) {
                return Ok(false);
            }
            let Some(change) = change else { return Ok(true) };
            let names = match who.volume.and_then(|volume| volumes.get_mut(&volume)) {
                Some(names) => names,
                None => &mut *none,
            };
            if names.from > who.seq {
                return Ok(true);
            }
            if filter.begins(who)
                && let Some(event) = names.event(who, &change)
                && filter.admits(&event)
            {
                sink(event)?;
            }
            names.apply(who.seq, &change)?;
            Ok(true)
        })?;
    }
    Ok(())
}

/// The names of a volume as they stand while records go by.
struct Names<'d> {
    deck: &'d Deck,
    history: &'d History,
    volume: VolumeIndex,
    /// Records before this one are told already by the base that it began with.
    from: Seq,
    names: Namespace,
    known: bool,
}

impl<'d> Names<'d> {
    fn new(deck: &'d Deck, history: &'d History, volume: VolumeIndex) -> Names<'d> {
        Names { deck, history, volume, from: Seq::ZERO, names: Namespace::new(FileId::NONE), known: false }
    }

    /// Goes back to the base from which the names at the beginning can be told; gives the record to go on from.
    fn start(&mut self, filter: &Filter) -> Result<Seq> {
        let early = |base: &&crate::points::Base| {
            base.volume == self.volume && base.is_at_hand() && (base.ended < filter.first || base.time < filter.since)
        };
        let Some(base) = self.history.bases.iter().rev().find(early) else {
            return Ok(Seq::ZERO);
        };
        if !base.is_in_journal {
            self.load(base.began, FileId::NONE)?;
        }
        self.from = base.first();
        Ok(self.from)
    }

    /// Takes in the base tape of the base copy that began at this record, if it is at hand; one in the journal begins with
    /// nothing but its root.
    fn load(&mut self, began: Seq, root: FileId) -> Result<()> {
        let base = self.history.bases.iter().find(|base| base.began == began);
        if base.is_some_and(|base| base.is_in_journal) {
            (self.names, self.known) = (Namespace::new(root), true);
        }
        let Some(name) = base.and_then(|base| base.tape.as_deref()) else {
            return Ok(());
        };
        self.names = Namespace::new(FileId::NONE);
        let names = &mut self.names;
        self.deck.base_records(name, &mut |change| {
            if let Change::Entry { parent: FileId::NONE, file, kind: NodeKind::Directory, .. } = change
                && names.root() == FileId::NONE
            {
                names.set_root(*file);
            }
            names.apply(change);
            Ok(())
        })?;
        self.known = true;
        Ok(())
    }

    fn apply(&mut self, seq: Seq, change: &Change<'_>) -> Result<()> {
        self.names.apply(change);
        match change {
            Change::BaseBegin { root, .. } if !self.known => self.load(seq, *root),
            Change::BaseEnd { .. } if self.known => {
                self.names.settle();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The path of an object, or its id when no name is known.
    fn path(&self, file: FileId) -> Vec<u8> {
        match self.names.path(file).filter(|_| file != FileId::NONE) {
            Some(path) if path.is_empty() => b".".to_vec(),
            Some(path) => path,
            None => format!("#{file}").into_bytes(),
        }
    }

    fn path_in(&self, parent: FileId, name: &Name) -> Vec<u8> {
        self.names.path_in(parent, name).unwrap_or_else(|| [format!("#{parent}/").as_bytes(), name.as_bytes()].concat())
    }

    /// What a record says to a person, with the volume that it says it of; bookkeeping says nothing.
    fn event(&self, who: Who, change: &Change<'_>) -> Option<Event> {
        let mut event = self.event_within(who, change)?;
        let volume = who.volume.filter(|_| self.deck.volumes.are_several());
        event.volume = volume.map(|volume| self.deck.volumes.name(volume));
        if let Some(volume) = &event.volume {
            event.path = within(volume, &event.path);
            if matches!(change, Change::Link { .. } | Change::Rename { .. }) {
                event.other = event.other.as_deref().map(|other| within(volume, other));
            }
        }
        Some(event)
    }

    fn event_within(&self, who: Who, change: &Change<'_>) -> Option<Event> {
        let (op, path, tags) = (change.verb(), Vec::new(), Tags::default());
        let mut event = Event { who, volume: None, op, path, other: None, range: None, note: String::new(), tags };
        match change {
            Change::Write { file, offset, data, .. } => {
                (event.path, event.range) = (self.path(*file), Some((*offset, data.len() as u64)));
            }
            Change::Zero { file, offset, length, .. }
            | Change::Punch { file, offset, length, .. }
            | Change::Allocate { file, offset, length, .. } => {
                (event.path, event.range) = (self.path(*file), Some((*offset, *length)));
            }
            Change::SetSize { file, size, .. } => {
                (event.path, event.note) = (self.path(*file), format!("to {size} bytes"));
            }
            Change::Create { parent, name, kind, .. } => {
                event.path = self.path_in(*parent, name);
                if let NodeKind::Symlink(target) = kind {
                    event.other = Some(target.clone());
                }
            }
            Change::Link { file, parent, name, .. } => {
                (event.path, event.other) = (self.path_in(*parent, name), Some(self.path(*file)));
            }
            Change::Unlink { parent, name, .. } => event.path = self.path_in(*parent, name),
            Change::Rename { parent, name, new_parent, new_name, .. } => {
                (event.path, event.other) = (self.path_in(*parent, name), Some(self.path_in(*new_parent, new_name)));
            }
            Change::SetAttr { file, attributes } => {
                event.path = self.path(*file);
                event.note = format!("mode {:o}, owner {}:{}", attributes.mode, attributes.uid, attributes.gid);
            }
            Change::SetXattr { file, xattr } => {
                (event.path, event.note) = (self.path(*file), String::from_utf8_lossy(&xattr.name).into_owned());
            }
            Change::RemoveXattr { file, name } => {
                (event.path, event.note) = (self.path(*file), String::from_utf8_lossy(name).into_owned());
            }
            Change::Sync { file } if *file != FileId::NONE => event.path = self.path(*file),
            Change::Sync { .. } => {}
            Change::Entry { parent, name, .. } => event.path = self.path_in(*parent, name),
            Change::Marker { kind, name, note, tags, .. } => {
                event.tags = tags.clone();
                event.note = format!("{} {name} {note}", crate::points::kind_word(*kind)).trim().to_owned();
            }
            Change::BaseBegin { .. } | Change::BaseEnd { .. } => {}
            Change::Drop { .. }
            | Change::Active { .. }
            | Change::Amend { .. }
            | Change::BaseData { .. }
            | Change::ListBegin { .. }
            | Change::ListEnd { .. } => return None,
        }
        Some(event)
    }
}

/// A path of a volume among several.
fn within(volume: &VolumeName, path: &[u8]) -> Vec<u8> {
    match path {
        b"" | b"." => volume.as_str().as_bytes().to_vec(),
        path => [volume.as_str().as_bytes(), path].join(&b'/'),
    }
}
