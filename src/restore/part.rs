//! One volume of a restore on the way from its tapes to its directory.

use reelfs_journal::FileTime;

use super::builder::Restraint;
use super::plan::{Part, Plan};
use super::reel::Reel;
use super::survey::{Selection, Survey};
use crate::error::{Error, ErrorKind, Result};

/// A volume whose tapes were read and whose names are known.
pub(super) struct Surveyed<'p> {
    pub(super) part: &'p Part,
    /// What of it is wanted; nothing means everything.
    pub(super) paths: Vec<Vec<u8>>,
    pub(super) reel: Reel,
    pub(super) survey: Survey,
}

impl Surveyed<'_> {
    /// What of the tree is to be made.
    ///
    /// # Errors
    /// A path that does not stand there at that time (10), or a history that does not make a tree (19).
    pub(super) fn select(&self, restraint: Restraint) -> Result<Selection<'_>> {
        Selection::new(&self.survey.names, &self.paths, &|kind| restraint.admits(kind))
    }

    /// The root's modification time, which is set last.
    ///
    /// # Errors
    /// The tapes do not say (19).
    pub(super) fn root_mtime(&self) -> Result<FileTime> {
        let unknown = || Error::new(ErrorKind::Damaged, "the tapes say nothing about the root directory");
        let names = &self.survey.names;
        Ok(names.node(names.root()).ok_or_else(unknown)?.attributes.mtime)
    }
}

/// A volume that is wanted, and the paths in it; none means everything.
type Chosen<'p> = (&'p Part, Vec<Vec<u8>>);

/// The volumes that are wanted, each with the paths in it. When there are several, a path begins with the name of its
/// volume; without paths all of them are wanted.
///
/// # Errors
/// A path that begins with no volume's name (10).
pub(super) fn choose_parts<'p>(plan: &'p Plan, paths: &[Vec<u8>]) -> Result<Vec<Chosen<'p>>> {
    if !plan.is_split || paths.is_empty() {
        return Ok(plan.parts.iter().map(|part| (part, paths.to_vec())).collect());
    }
    let mut chosen: Vec<Chosen<'_>> = plan.parts.iter().map(|part| (part, Vec::new())).collect();
    for path in paths {
        let mut components = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        let volume = components.next().unwrap_or_default();
        let own = chosen.iter_mut().find(|(part, _)| part.name.as_str().as_bytes() == volume);
        let (_, within) = own.ok_or_else(|| {
            let names: Vec<&str> = plan.parts.iter().map(|part| part.name.as_str()).collect();
            let message = format!("{} is in none of the volumes at that time", String::from_utf8_lossy(path));
            Error::new(ErrorKind::NotFound, message)
                .hint(format!("a path begins with the name of its volume: {}", names.join(", ")))
        })?;
        within.push(components.collect::<Vec<_>>().join(&b'/'));
    }
    chosen.retain(|(_, within)| !within.is_empty());
    Ok(chosen)
}
