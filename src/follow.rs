//! Following: a replica goes on with every record that a journal or new tapes hold, and may be killed at any moment.
//!
//! Records are applied in batches. Before one begins its end is noted beside the replica; after it the tree is brought to disk,
//! and then the new position is noted. A batch that was begun and not ended is done again: its names all at once
//! ([`reelfs_volume::Places`]), then its bytes and attributes in order, because every change is absolute.

pub mod first;
pub mod journal;
mod objects;
pub mod replica;
mod session;
pub mod stretch;
pub mod tapes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reelfs_journal::{Clock, Epoch, GroupName, Position, Seq, Timestamp};

use crate::consumer::{Consumer, Pointers, Way};
use crate::error::{Error, ErrorKind, Result};
use replica::{Beside, ReplicaFile};
use session::Session;
use stretch::Stretch;

/// Where records come from.
pub trait Source {
    /// Settled records that follow a position; `None` when there is nothing new.
    ///
    /// # Errors
    /// 15 when a part of them is missing, 21 when they belong to another history.
    fn next(&mut self, at: &Position) -> Result<Option<Stretch>>;

    /// Says how far the replica is; with `is_done` what it says it has is on disk.
    ///
    /// # Errors
    /// The replica is not wanted any more.
    fn report(&mut self, consumer: &Consumer, is_done: bool) -> Result<()>;

    /// Waits a moment for something new.
    fn wait(&mut self);
}

/// How to follow.
pub struct Options<'o> {
    /// End when there is nothing new.
    pub once: bool,
    /// Apply nothing that is younger.
    pub delay: Option<Duration>,
    /// Set by a signal: end after the batch.
    pub stop: Arc<AtomicBool>,
    /// The time.
    pub clock: &'o dyn Clock,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The last record applied.
    pub seq: Seq,
    /// Its time.
    pub time: Timestamp,
    /// The last record there is.
    pub of: Seq,
    /// The bracket that the replica stands in.
    pub inside: Option<&'static str>,
    /// It is on disk.
    pub is_done: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Where the replica stands.
    pub reached: Reached,
    /// Records applied in this run.
    pub records: u64,
}

/// Follows until told to stop, or once.
///
/// # Errors
/// 14 when somebody else changed the replica, 15 on a gap, 16 when a new epoch has begun, 21 when the histories have diverged.
pub fn run(
    beside: &Beside,
    replica: ReplicaFile,
    source: &mut dyn Source,
    options: &Options<'_>,
    tell: &mut dyn FnMut(Reached),
) -> Result<Followed> {
    let from = replica.at.seq;
    let (opened, objects) = session::open(beside, &replica, source)?;
    let mut session = Session::begin(beside, replica, &opened, objects, options)?;
    loop {
        let more = session.go_on(source, tell)?;
        let stop = options.stop.load(Ordering::Relaxed);
        if stop || (options.once && !more) {
            let reached = session.reached();
            return Ok(Followed { reached, records: reached.seq.0 - from.0 });
        }
        if !more {
            source.wait();
        }
    }
}

/// A replica as the group knows it.
#[must_use]
pub fn consumer(beside: &Beside, replica: &ReplicaFile, pointers: Pointers, heard: Timestamp) -> Consumer {
    Consumer {
        id: replica.id,
        way: Way::Journal,
        dir: beside.tree().to_owned(),
        volume: Some(replica.volume),
        epoch: replica.at.epoch,
        pointers,
        digest: replica.at.digest,
        holds: true,
        inside: replica.stands.inside().map(str::to_owned),
        heard,
    }
}

fn new_epoch(group: &GroupName, epoch: Epoch) -> Error {
    let message = format!("epoch {epoch} of {group} has begun: nothing leads from this replica into it");
    Error::new(ErrorKind::State, message)
        .hint("the replica stands at the end of its epoch; follow into a new directory, and forget this one")
}
