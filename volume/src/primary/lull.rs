//! A redo that is due, and when somebody else may have changed the volume before it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use reelfs_journal::disk::{self, Label};
use reelfs_journal::{FileTime, Timestamp};

/// A time in which nobody of ours could change the volume: from the end of the machine, or of its disk, to the first attempt
/// to bring things back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lull {
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
}

impl Lull {
    pub(super) fn contains(&self, changed: FileTime) -> bool {
        FileTime::from(self.began) <= changed && changed < FileTime::from(self.ended)
    }

    fn parse(line: &str) -> Option<Lull> {
        let (began, ended) = line.split_once(' ')?;
        Some(Lull { began: Timestamp(began.parse().ok()?), ended: Timestamp(ended.parse().ok()?) })
    }
}

/// A file in the group's state that is there while a redo is due: begun and not done, or wanted because the disk of the
/// volume refused something. It has a line for the lull before the first attempt in each boot: what changed in one of them was
/// changed by somebody else; what changed between them, by a redo that was cut off half-way.
#[derive(Debug)]
pub(crate) struct DueRedo {
    path: PathBuf,
}

impl DueRedo {
    pub(super) fn new(state: &Path) -> DueRedo {
        DueRedo { path: state.join("redo") }
    }

    /// Whether one is.
    pub(super) fn is_noted(&self) -> bool {
        self.path.exists()
    }

    /// One is, from now on.
    pub(super) fn note(&self) -> io::Result<()> {
        self.append("")
    }

    /// The lulls before this attempt and those before it. `present` is a further one if the machine was booted since the last.
    pub(super) fn lulls(&self, present: Lull, same_boot: bool) -> io::Result<Vec<Lull>> {
        let noted = fs::read_to_string(&self.path).unwrap_or_default();
        let mut lulls: Vec<Lull> = noted.lines().filter_map(Lull::parse).collect();
        if lulls.last().is_none_or(|last| !same_boot && last.ended < present.began) {
            self.append(&format!("{} {}\n", present.began.0, present.ended.0))?;
            lulls.push(present);
        }
        Ok(lulls)
    }

    /// Done, or not needed.
    pub(super) fn forget(&self) -> io::Result<()> {
        if self.is_noted() {
            match disk::remove(Label::RedoNoteRemove, &self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // one that came back would take what a later session did for somebody else's edits; an opening that was killed may have
        // removed it and not come so far
        disk::sync_parent(Label::RedoNoteNameSync, &self.path)
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let file = disk::create(Label::RedoNoteCreate, &self.path, File::options().create(true).append(true))?;
        disk::append(Label::RedoNoteWrite, &file, line.as_bytes())?;
        disk::sync(Label::RedoNoteSync, &file)?;
        disk::sync_parent(Label::RedoNoteNameSync, &self.path)
    }
}
