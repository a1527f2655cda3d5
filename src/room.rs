//! Room in a full journal: exports to every directory that the group knows, and then waits for whoever else reads it.

use std::path::PathBuf;
use std::time::Duration;

use crate::consumer;
use crate::error::{Error, ErrorKind};
use crate::export::{self, Destination, Made};
use crate::open_group::OpenGroup;

/// How long room is waited for that others must make.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes room while something long fills the journal.
pub struct Room<'r> {
    group: &'r OpenGroup,
    mountpoints: &'r [PathBuf],
    troubles: Vec<Error>,
    /// Tapes that were made for it.
    pub tapes: Vec<Made>,
}

impl<'r> Room<'r> {
    /// For a group and its mounts.
    #[must_use]
    pub fn new(group: &'r OpenGroup, mountpoints: &'r [PathBuf]) -> Room<'r> {
        Room { group, mountpoints, troubles: Vec::new(), tapes: Vec::new() }
    }

    /// Whether something was freed.
    pub fn make(&mut self) -> bool {
        let (group, file) = (self.group, self.group.file());
        let jvol = group.journal().jvol();
        let before = jvol.pointers().out;
        self.troubles.clear();
        for target in &file.targets {
            let exported = Destination::check(&file, &group.devices(), self.mountpoints, &target.dir)
                .and_then(|to| export::export(group, &to, None, &mut |_, _| {}));
            match exported {
                Ok(mut exported) => self.tapes.append(&mut exported.tapes),
                Err(error) => {
                    let (error_text, dir) = (error.chain(), target.dir.display());
                    tracing::warn!(error = error_text, %dir, "no room could be made by an export");
                    self.troubles.push(error);
                }
            }
        }
        let is_freed = || jvol.pointers().out > before;
        if is_freed() || !self.troubles.is_empty() {
            return is_freed();
        }
        if file.targets.is_empty() {
            return consumer::make_room(group);
        }
        // all of it is on tapes, and somebody else has not read it: a replica that follows, or one that asks over the socket
        let geometry = jvol.geometry();
        consumer::make_room(group) || jvol.wait_for_room(geometry.data_size / 2, geometry.control_slots / 2, PATIENCE)
    }

    /// There is none: why not, and what to do. `rest` says what becomes of what was to go through.
    #[must_use]
    pub fn none(&mut self, rest: &str) -> Error {
        let name = self.group.file().name;
        let message = format!("the journal of {name} has no room for what is to be told; {rest}");
        let error = Error::new(ErrorKind::JournalFull, message);
        let hint = format!("reelfs tape export {name} --to DIR for every directory of it, then again");
        self.troubles.pop().into_iter().fold(error, Error::because).hint(hint)
    }
}
