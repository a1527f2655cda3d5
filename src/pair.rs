//! Pairs: suspended, and brought back with only what changed.

use std::path::Path;

use reelfs_volume::{Reason, ResyncError, Resynced};
use serde::{Deserialize, Serialize};

use crate::consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, Destination};
use crate::open_group::OpenGroup;
use crate::pair_state::{self, PairVerb};

/// What was done: nothing, when it was so already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// It was so already.
    pub already: bool,
}

/// The word for a reason, as `status` and scripts know it.
#[must_use]
pub fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::User => "user",
        Reason::Error => "error",
        Reason::JournalFull => "journal-full",
    }
}

/// Stops journaling.
///
/// # Errors
/// 16 without a base copy and while one runs; what the journal, the PVOL or the state directory says.
pub fn split(group: &OpenGroup) -> Result<Done> {
    if !admit(group, PairVerb::Split)? {
        return Ok(Done { already: true });
    }
    group.primary().suspend(Reason::User).map_err(|error| Error::io("suspend the group", error.into()))?;
    Ok(Done { already: false })
}

/// Journals again and tells what changed; exports to the directories that the group knows whenever the journal is full.
///
/// # Errors
/// 16 without a base copy, 20 when nobody makes room in the journal. It stays suspended, and nothing is forgotten.
pub fn resync(group: &OpenGroup, mountpoint: Option<&Path>, progress: &mut dyn FnMut(u64, u64)) -> Result<Resynced> {
    if !admit(group, PairVerb::Resync)? {
        return Ok(Resynced::default());
    }
    let _copying = group.begin_copy();
    let name = group.file().name;
    let mut troubles = Vec::new();
    let mut make_room = || {
        let before = group.primary().jvol().pointers().out;
        for target in group.file().targets {
            let exported = Destination::check(&group.file(), group.device(), mountpoint, &target.dir)
                .and_then(|to| export::export(group, &to, None, &mut |_, _| {}));
            if let Err(error) = exported {
                tracing::warn!(error = error.chain(), dir = %target.dir.display(), "no room could be made by an export");
                troubles.push(error);
            }
        }
        group.primary().jvol().pointers().out > before || consumer::make_room(group)
    };
    let resynced = group.primary().resync(&mut make_room, progress);
    resynced.map_err(|error| match error {
        ResyncError::NotSuspended => Error::new(ErrorKind::State, format!("group {name} is not suspended")),
        ResyncError::NoRoom => {
            let message = format!("the journal of {name} has no room for what changed; it stays suspended");
            let error = Error::new(ErrorKind::JournalFull, message);
            let hint = format!("reelfs tape export {name} --to DIR for every directory of it, then again");
            troubles.pop().into_iter().fold(error, Error::because).hint(hint)
        }
        ResyncError::TooMuch(_) => Error::new(ErrorKind::State, format!("{name}: {error}")).hint(format!(
            "a new epoch with a new base copy is shorter: reelfs umount, reelfs group delete {name}, and make it anew"
        )),
        ResyncError::Again => Error::new(ErrorKind::State, format!("{name}: {error}"))
            .hint("export more often than the journal fills, then again"),
        ResyncError::Failed { what, source } => Error::io(format!("{what} of group {name}"), source.into()),
    })
}

/// Whether there is something to do for a verb in the pair's state.
///
/// # Errors
/// 16 when the state refuses it.
pub fn admit(group: &OpenGroup, verb: PairVerb) -> Result<bool> {
    pair_state::admit(group.file().name.as_str(), group.state(), verb)
}
