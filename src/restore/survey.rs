//! The first pass over the tapes: names and attributes as they stand at the end, in memory, before a byte is written.

use std::collections::{HashMap, HashSet};

use reelfs_archive::BaseExtent;
use reelfs_journal::{Change, FileId, NodeKind, Seq};

use super::reel::{Reel, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::namespace::{Namespace, NamespaceError, Place};
use crate::points::Base;

/// What the tapes say about the tree.
#[derive(Debug)]
pub struct Survey {
    /// At the end of the records that were read.
    pub names: Namespace,
    /// Where the base tape holds the bytes of files, in the order of the tape.
    pub extents: Vec<(FileId, BaseExtent)>,
    /// Bytes that are on the tapes for an object, those that are overwritten later included.
    pub told: HashMap<FileId, u64>,
    /// Directories that the base tape tells without a place, in its order.
    unplaced: Vec<FileId>,
}

impl Survey {
    /// Reads the base tape's control data, if the base has one, then all records from its first one up to `to`. Up to the
    /// `BaseEnd` they are assignments, from there on exact.
    ///
    /// # Errors
    /// A tape does not read back (19).
    pub fn new(reel: &Reel, base: &Base, to: Seq, progress: &mut dyn FnMut(&Step<'_>)) -> Result<Survey> {
        let mut survey = Survey {
            names: Namespace::new(FileId::NONE),
            extents: Vec::new(),
            told: HashMap::new(),
            unplaced: Vec::new(),
        };
        reel.base_records(&mut |change| {
            survey.base_record(&change);
            Ok(())
        })?;
        survey.extents.sort_by_key(|(_, extent)| extent.stream_offset);
        reel.records(base.first(), to, &mut |step| {
            progress(&step);
            if let Change::Write { file, data, .. } = &step.change {
                *survey.told.entry(*file).or_default() += data.len() as u64;
            }
            match &step.change {
                Change::BaseBegin { root, .. } if step.seq == base.began => survey.names.set_root(*root),
                change => survey.names.apply(change),
            }
            if step.seq == base.ended {
                survey.find_root();
                survey.names.settle();
            }
            Ok(())
        })?;
        Ok(survey)
    }

    /// The root is the directory that never has a name; others without a place on the base tape were moved or removed while it
    /// was made, and it stands before them.
    fn find_root(&mut self) {
        let nameless = |file: &&FileId| self.names.links(**file).is_empty();
        if let Some(root) = self.unplaced.iter().find(nameless) {
            self.names.set_root(*root);
        }
    }

    fn base_record(&mut self, change: &Change<'_>) {
        match change {
            Change::BaseData { file, stream_offset, stream_length, size } => {
                let extent = BaseExtent { stream_offset: *stream_offset, stream_length: *stream_length, size: *size };
                self.extents.push((*file, extent));
                let told = self.told.entry(*file).or_default();
                *told = told.saturating_add(*stream_length);
            }
            Change::Entry { parent: FileId::NONE, file, kind: NodeKind::Directory, .. } => {
                self.unplaced.push(*file);
                self.names.apply(change);
            }
            Change::Entry { .. } => self.names.apply(change),
            _ => {}
        }
    }
}

/// What of a tree is to be made: everything, or some subtrees with the directories that lead to them.
#[derive(Debug)]
pub struct Selection<'n> {
    /// Directories before what is in them.
    pub places: Vec<Place<'n>>,
    /// The objects of these places, and the root.
    pub objects: HashSet<FileId>,
}

impl<'n> Selection<'n> {
    /// Chooses by paths relative to the root; none means everything.
    ///
    /// # Errors
    /// A path that does not stand there at that time (10), or a history that does not make a tree (19).
    pub fn new(names: &'n Namespace, paths: &[Vec<u8>], wanted: &dyn Fn(&NodeKind) -> bool) -> Result<Selection<'n>> {
        let mut places = names.walk().map_err(|error| not_a_tree(&error))?;
        let fits = |file: FileId| names.node(file).is_some_and(|node| wanted(&node.kind));
        places.retain(|place| fits(place.file));
        if !paths.is_empty() {
            let (above, chosen) = choose(names, paths)?;
            let mut inside: HashSet<FileId> = HashSet::new();
            places.retain(|place| {
                let is_chosen = chosen.contains(&(place.parent, place.name.as_bytes().to_vec()));
                let within = inside.contains(&place.parent) || chosen.contains(&(FileId::NONE, Vec::new()));
                if is_chosen || within {
                    let _ = inside.insert(place.file);
                }
                is_chosen || within || above.contains(&place.file)
            });
        }
        let mut objects: HashSet<FileId> = HashSet::with_capacity(places.len() + 1);
        objects.insert(names.root());
        for place in &mut places {
            place.again = !objects.insert(place.file);
        }
        Ok(Selection { places, objects })
    }
}

type Chosen = HashSet<(FileId, Vec<u8>)>;

/// The directories above the chosen places, and the chosen places themselves (the root's is `(NONE, "")`).
fn choose(names: &Namespace, paths: &[Vec<u8>]) -> Result<(HashSet<FileId>, Chosen)> {
    let (mut above, mut chosen) = (HashSet::new(), Chosen::new());
    for path in paths {
        let missing = || {
            let message = format!("there is no {} at that time", String::from_utf8_lossy(path));
            Error::new(ErrorKind::NotFound, message).hint("paths are relative to the protected directory")
        };
        let components: Vec<&[u8]> =
            path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        let Some((last, parents)) = components.split_last() else {
            chosen.insert((FileId::NONE, Vec::new()));
            continue;
        };
        let mut parent = names.root();
        for depth in 1..=parents.len() {
            parent = names.resolve(&parents[..depth].join(&b'/')).ok_or_else(missing)?;
            above.insert(parent);
        }
        names.resolve(&components.join(&b'/')).ok_or_else(missing)?;
        chosen.insert((parent, last.to_vec()));
    }
    Ok((above, chosen))
}

/// The error of names that do not make a tree.
pub(super) fn not_a_tree(error: &NamespaceError) -> Error {
    Error::new(ErrorKind::Damaged, format!("the tapes do not describe a tree: {error}"))
}
