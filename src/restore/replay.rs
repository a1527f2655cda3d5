//! Replays records one after the other into a tree that stands at the record before: what a secondary that follows does.

use reelfs_journal::{Change, MarkerKind, Name, Seq};
use reelfs_volume::{Bracket, Volume};
use rustix::io::Errno;

use super::reel::{Reel, Step};
use crate::error::{Error, ErrorKind, Result, io_kind};

/// Replays the records `from` to `to`; gives the bytes written. `scratch` is a name in the root that the volume does not
/// use: brackets park there what is on its way to another directory.
///
/// # Errors
/// A tape does not read back (19), the disk is full (22), or the tree is not what the records say it is (19).
pub fn replay(
    reel: &Reel,
    volume: &Volume,
    scratch: &Name,
    (from, to): (Seq, Seq),
    progress: &mut dyn FnMut(u64, Option<&Step<'_>>),
) -> Result<u64> {
    let mut bytes = 0;
    if from > to {
        return Ok(0);
    }
    let mut player = Player::new(volume, scratch.clone(), Stage::Outside);
    reel.records(from, to, &mut |step| {
        progress(bytes, Some(&step));
        bytes += player.step(step.seq, &step.change)?;
        Ok(())
    })?;
    match player.stage {
        Stage::Outside => Ok(bytes),
        _ => Err(Error::new(ErrorKind::OutsideWindow, format!("record {to} lies inside a bracket"))),
    }
}

/// Where a tree stands with respect to brackets.
#[derive(Debug)]
pub enum Stage<'v> {
    /// In a state that the primary had.
    Outside,
    /// A bracket has begun, and nothing of it was applied: still a state that the primary had.
    Begun,
    /// In the middle of a bracket.
    Inside(Bracket<'v>),
}

/// Applies records to a tree, one after the other.
pub struct Player<'v> {
    volume: &'v Volume,
    scratch: Name,
    stage: Stage<'v>,
}

impl<'v> Player<'v> {
    /// For a tree that stands there; `scratch` as for [`replay`].
    #[must_use]
    pub fn new(volume: &'v Volume, scratch: Name, stage: Stage<'v>) -> Player<'v> {
        Player { volume, scratch, stage }
    }

    /// Applies the next record; gives the bytes written.
    ///
    /// # Errors
    /// The disk is full (22), or the tree is not what the records say it is (19).
    pub fn step(&mut self, seq: Seq, change: &Change<'_>) -> Result<u64> {
        let fail = |errno| misfit(seq, change, errno);
        if let Change::Marker { kind, .. } = change {
            self.marker(*kind).map_err(fail)?;
            return Ok(0);
        }
        if matches!(self.stage, Stage::Begun) && !matches!(change, Change::Sync { .. } | Change::Active { .. }) {
            self.stage = Stage::Inside(self.volume.bracket(self.scratch.clone()).map_err(fail)?);
        }
        if let Stage::Inside(open) = &mut self.stage {
            open.change(change).map_err(fail)?;
            return Ok(0);
        }
        let written = self.volume.apply(change).map_err(fail)?;
        if let Change::Write { data, .. } = change
            && written < data.len() as u64
        {
            return Err(fail(Errno::NOSPC));
        }
        Ok(written)
    }

    fn marker(&mut self, kind: MarkerKind) -> rustix::io::Result<()> {
        match (kind, &mut self.stage) {
            (kind, stage @ Stage::Outside) if kind.begins_bracket() => *stage = Stage::Begun,
            (MarkerKind::ResyncBegin | MarkerKind::RecoveryBegin, Stage::Inside(open)) => open.again(),
            (kind, stage) if kind.ends_bracket() => {
                if let Stage::Inside(open) = std::mem::replace(stage, Stage::Outside) {
                    open.end()?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The error of a record that cannot be applied: the disk's fault, or the tree is not what it should be.
pub(crate) fn misfit(seq: Seq, change: &Change<'_>, errno: Errno) -> Error {
    let kind = match errno {
        Errno::STALE | Errno::NOENT | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY => {
            ErrorKind::Damaged
        }
        errno => io_kind(&errno.into()),
    };
    let message = format!("record {seq} ({}) cannot be applied", change.verb());
    Error::new(kind, message).because(std::io::Error::from(errno))
}
