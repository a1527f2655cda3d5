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
    let mut bracket: Option<Bracket<'_>> = None;
    reel.records(from, to, &mut |step| {
        progress(bytes, Some(&step));
        let fail = |errno| misfit(&step, errno);
        if let Change::Marker { kind, .. } = &step.change {
            match kind {
                kind if kind.begins_bracket() && bracket.is_none() => {
                    bracket = Some(volume.bracket(scratch.clone()).map_err(fail)?);
                }
                MarkerKind::ResyncBegin | MarkerKind::RecoveryBegin => {
                    if let Some(open) = &mut bracket {
                        open.again();
                    }
                }
                kind if kind.ends_bracket() => {
                    if let Some(open) = bracket.take() {
                        open.end().map_err(fail)?;
                    }
                }
                _ => {}
            }
            return Ok(());
        }
        if let Some(open) = &mut bracket {
            return open.change(&step.change).map_err(fail);
        }
        let written = volume.apply(&step.change).map_err(fail)?;
        if let Change::Write { data, .. } = &step.change
            && written < data.len() as u64
        {
            return Err(fail(Errno::NOSPC));
        }
        bytes += written;
        Ok(())
    })?;
    match bracket {
        None => Ok(bytes),
        Some(_) => Err(Error::new(ErrorKind::OutsideWindow, format!("record {to} lies inside a bracket"))),
    }
}

/// The error of a record that cannot be applied: the disk's fault, or the tree is not what it should be.
fn misfit(step: &Step<'_>, errno: Errno) -> Error {
    let kind = match errno {
        Errno::STALE | Errno::NOENT | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY => {
            ErrorKind::Damaged
        }
        errno => io_kind(&errno.into()),
    };
    let message = format!("record {} ({}) cannot be applied", step.seq, step.change.verb());
    Error::new(kind, message).because(std::io::Error::from(errno))
}
