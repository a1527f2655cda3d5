//! Many tapes: which are here, which are damaged, which belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use reelfs_journal::{Epoch, GroupName};
use uuid::Uuid;

use crate::chain::Chain;
use crate::{SealedTape, TapeError, TapeHead, TapeName};

/// A tape that is here.
#[derive(Debug, Clone)]
pub struct CatalogTape {
    /// Where.
    pub path: PathBuf,
    /// Further copies of it.
    pub copies: Vec<PathBuf>,
    /// What it says about itself, the list of its frames left out.
    pub head: TapeHead,
}

/// A file that should be a tape and cannot be read as one.
#[derive(Debug)]
pub struct Damaged {
    /// Where.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: TapeError,
}

/// A group that tapes here belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// The group.
    pub uuid: Uuid,
    /// Its name on the newest tape.
    pub name: GroupName,
    /// Its epochs.
    pub epochs: Vec<Epoch>,
    /// How many tapes it has here.
    pub tapes: usize,
}

/// Tapes by their labels and indexes; what lies between is not read.
#[derive(Debug, Default)]
pub struct Catalog {
    tapes: Vec<CatalogTape>,
    damaged: Vec<Damaged>,
}

impl Catalog {
    /// Looks at these files, and at the files in these directories (not at directories in them). In directories, files
    /// that neither are named like tapes nor look like them are passed over, `*.part` always.
    ///
    /// # Errors
    /// [`TapeError::Io`] when a path that was given cannot be read at all.
    pub fn scan<P: AsRef<Path>>(paths: &[P]) -> Result<Catalog, TapeError> {
        // by what they are, so that a file that is given twice is no copy
        let mut files: BTreeMap<PathBuf, (PathBuf, bool)> = BTreeMap::new();
        let mut add = |path: PathBuf, is_given: bool| {
            let place = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            files.entry(place).or_insert((path, is_given)).1 |= is_given;
        };
        for path in paths {
            let path = path.as_ref();
            if fs::metadata(path).map_err(TapeError::io("look at the tapes"))?.is_dir() {
                for entry in fs::read_dir(path).map_err(TapeError::io("list the tapes"))? {
                    let path = entry.map_err(TapeError::io("list the tapes"))?.path();
                    if path.extension().is_none_or(|extension| extension != "part") && path.is_file() {
                        add(path, false);
                    }
                }
            } else {
                add(path.to_owned(), true);
            }
        }
        let mut catalog = Catalog::default();
        for (path, is_given) in files.into_values() {
            catalog.look_at(path, is_given);
        }
        catalog.tapes.sort_by_key(|tape| {
            let label = &tape.head.label;
            (label.group.clone(), label.group_uuid, label.epoch, label.first, label.kind, tape.head.last())
        });
        Ok(catalog)
    }

    fn look_at(&mut self, path: PathBuf, is_given: bool) {
        let is_named =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<TapeName>().is_ok());
        let opened = File::open(&path).map_err(TapeError::io("open the tape")).and_then(SealedTape::open);
        match opened {
            Ok(tape) => {
                let mut head = tape.head;
                head.index.frames = Vec::new();
                let same =
                    |tape: &&mut CatalogTape| tape.head.label.tape == head.label.tape && tape.head.root == head.root;
                match self.tapes.iter_mut().find(same) {
                    Some(tape) => tape.copies.push(path),
                    None => self.tapes.push(CatalogTape { path, copies: Vec::new(), head }),
                }
            }
            // removed since it was listed
            Err(TapeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && !is_given => {}
            Err(TapeError::NotATape | TapeError::Io { .. }) if !is_named && !is_given => {}
            // a cut tape may be too short to look like one, but its name says what it was
            Err(TapeError::NotATape) if is_named => {
                let length = path.metadata().map_or(0, |metadata| metadata.len());
                self.damaged.push(Damaged { path, error: TapeError::Truncated { length } });
            }
            Err(error) => self.damaged.push(Damaged { path, error }),
        }
    }

    /// The tapes, by group, epoch and first record.
    #[must_use]
    pub fn tapes(&self) -> &[CatalogTape] {
        &self.tapes
    }

    /// Leaves a tape and its copies out: read whole, they proved damaged.
    pub fn leave_out(&mut self, path: &Path) {
        self.tapes.retain(|tape| tape.path != path);
    }

    /// Leaves one file out; a copy of the same tape takes its place.
    pub fn leave_out_file(&mut self, path: &Path) {
        for tape in &mut self.tapes {
            tape.copies.retain(|copy| copy != path);
            if tape.path == path && !tape.copies.is_empty() {
                tape.path = tape.copies.remove(0);
            }
        }
        self.leave_out(path);
    }

    /// Files that should be tapes and are not.
    #[must_use]
    pub fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// The groups, by name.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupSummary> {
        let mut groups: BTreeMap<Uuid, (Epoch, GroupName, BTreeSet<Epoch>, usize)> = BTreeMap::new();
        for tape in &self.tapes {
            let label = &tape.head.label;
            let first = || (label.epoch, label.group.clone(), BTreeSet::new(), 0);
            let group = groups.entry(label.group_uuid).or_insert_with(first);
            // tapes are in order of their epoch
            (group.0, group.1) = (label.epoch, label.group.clone());
            group.2.insert(label.epoch);
            group.3 += 1;
        }
        let summary =
            |(uuid, (_, name, epochs, tapes))| GroupSummary { uuid, name, epochs: Vec::from_iter(epochs), tapes };
        let mut groups: Vec<_> = groups.into_iter().map(summary).collect();
        groups.sort_by(|left, right| left.name.cmp(&right.name));
        groups
    }

    /// The tapes of one history, in order.
    #[must_use]
    pub fn chain(&self, group: Uuid, epoch: Epoch) -> Chain<'_> {
        Chain::new(group, epoch, &self.tapes)
    }
}
