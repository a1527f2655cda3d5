//! Growing the journal of a group: by the process that has it mounted, or on the journal volume alone.

use std::io;
use std::path::PathBuf;

use reelfs_journal::disk::{self, Label};
use reelfs_journal::{Jvol, unfinished};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::group_file::GroupFile;
use crate::lock::GroupLock;
use crate::open_group::OpenGroup;
use crate::output::Output;
use crate::request::{self, Request, Step};
use crate::size::Size;
use crate::state::GroupDir;

/// A journal that has grown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// The journal volume.
    pub path: PathBuf,
    /// Its length before, in bytes.
    pub before_bytes: u64,
    /// Its length now.
    pub size_bytes: u64,
}

/// Grows the journal of a group, mounted or not.
///
/// # Errors
/// 2 when it would not grow, 22 when the disk has no room for both; it is as it was then.
pub fn run(group: &GroupDir, size: Size, output: &Output, progress: &mut dyn FnMut(u64, u64)) -> Result<Grown> {
    let request = Request::Grow { size_bytes: size.0 };
    if let Some(grown) = request::ask(group, &request, &mut |step: Step| progress(step.done, step.total))? {
        return Ok(grown);
    }
    {
        let _lock = GroupLock::take(group, request.verb())?;
        let file = GroupFile::load(group)?;
        let jvol = Jvol::open(&file.journal, file.uuid)?;
        // of the journal volume alone, so that a full one needs no room for markers
        if jvol.torn().is_none() && !jvol.has_lost_ring() {
            let grown = grow(file.name.as_str(), &jvol, size, progress)?;
            jvol.close()?;
            return Ok(grown);
        }
    }
    // cutting off a torn tail is a step of recovery, and so is what was lost with a ring
    let open = OpenGroup::open(group, request.verb(), false, output)?;
    let grown = grow(group.name().as_str(), open.journal().jvol(), size, progress);
    let closed = open.close();
    let grown = grown?;
    closed.map(|()| grown)
}

/// Grows an open journal volume.
///
/// # Errors
/// As [`run`].
pub fn grow(name: &str, jvol: &Jvol, size: Size, progress: &mut dyn FnMut(u64, u64)) -> Result<Grown> {
    let (path, before) = (jvol.path(), jvol.geometry().size);
    if size.0 / 4096 * 4096 <= before {
        let (before, twice) = (Size(before), Size(before.saturating_mul(2)));
        let message = format!("the journal of {name} has {before} already; it grows, and never shrinks or stays");
        let hint = format!("reelfs journal grow {name} --size {}", twice.to_string().replace(' ', ""));
        return Err(Error::usage(message).hint(hint));
    }
    let dir = path.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let disk =
        rustix::fs::statvfs(&dir).map_err(|error| Error::io(format!("look at {}", dir.display()), error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let no_room = |free: u64| {
        let message =
            format!("there is no room for a journal of {size} in {}, which has {} free", dir.display(), Size(free));
        Error::new(ErrorKind::NoSpace, message)
            .hint("old and new journal stand side by side for a while; nothing was changed. Make room, or choose a smaller --size")
    };
    if free < size.0 {
        return Err(no_room(free));
    }
    jvol.grow(size.0, progress).map_err(|error| match Error::from(error) {
        error if error.kind() == ErrorKind::NoSpace => no_room(free),
        error => error,
    })?;
    Ok(Grown { path, before_bytes: before, size_bytes: jvol.geometry().size })
}

/// Takes away what a growth that was killed left beside the journal.
pub(crate) fn clear_away(file: &GroupFile) {
    let path = unfinished(&file.journal);
    match disk::remove(Label::JvolGrowRemove, &path) {
        Ok(()) => tracing::info!(path = %path.display(), "a larger journal was not finished, and is removed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, path = %path.display(), "what a growth left cannot be removed"),
    }
}
