//! One tape at hand: where it is, what it says about itself, and reading it whole.

use std::fs::File;
use std::path::{Path, PathBuf};

use reelfs_archive::{CatalogTape, Depth, SealedTape, TapeError, TapeHead, VerifiedTape};

use crate::error::{Error, ErrorKind, Result};

/// A tape that is at hand.
#[derive(Debug, Clone)]
pub struct Tape {
    /// Where.
    pub path: PathBuf,
    /// Further copies of it.
    pub copies: Vec<PathBuf>,
    /// What it says about itself.
    pub head: TapeHead,
}

impl Tape {
    pub(crate) fn new(tape: &CatalogTape) -> Tape {
        Tape { path: tape.path.clone(), copies: tape.copies.clone(), head: tape.head.clone() }
    }

    /// Its name, as `ls` shows it when nobody has renamed it.
    #[must_use]
    pub fn name(&self) -> String {
        self.head.name().to_string()
    }

    /// Opens it and reads all of it; when it is damaged, a copy of it.
    ///
    /// # Errors
    /// It is not what it was when the catalog was made, or damaged (19).
    pub fn verify(&self, depth: Depth, progress: &mut dyn FnMut(u64)) -> Result<VerifiedTape> {
        let first = self.verify_at(&self.path, depth, progress);
        if first.is_ok() {
            return first;
        }
        let copy = self.copies.iter().find_map(|path| self.verify_at(path, depth, progress).ok());
        copy.map_or(first, Ok)
    }

    fn verify_at(&self, path: &Path, depth: Depth, progress: &mut dyn FnMut(u64)) -> Result<VerifiedTape> {
        let mut open = || -> std::result::Result<VerifiedTape, TapeError> {
            let file = File::open(path).map_err(|source| TapeError::Io { operation: "open", source })?;
            SealedTape::open(file)?.verify(depth, progress)
        };
        let tape = open().map_err(|error| tape_error(path, error))?;
        if tape.head().label.tape != self.head.label.tape || tape.head().root != self.head.root {
            let message = format!("tape {} was replaced by another one meanwhile", path.display());
            return Err(Error::new(ErrorKind::Foreign, message));
        }
        Ok(tape)
    }
}

/// The error of a tape, with its path and its exit code.
pub(crate) fn tape_error(path: &Path, error: TapeError) -> Error {
    let kind = match &error {
        TapeError::Version { .. } | TapeError::NotATape => ErrorKind::Damaged,
        TapeError::Io { source, .. } => match crate::error::io_kind(source) {
            ErrorKind::Failed if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::TapeNeeded,
            kind => kind,
        },
        TapeError::Sink(source) => crate::error::io_kind(source),
        error if error.is_damage() => ErrorKind::Damaged,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("tape {}: {error}", path.display()))
}

/// Tapes stay open as long as they are used, and there may be more of them than the usual 1,024.
pub(super) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // the soft limit is a courtesy to select(2); when it cannot be raised, many tapes end in a sentence about it
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
