//! The ring of an open journal volume: begun when its owner says so, given up when nothing of it is needed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::drain::Drain;
use super::ring::{self, Ring};
use super::{Jvol, Tail};
use crate::JournalError;

impl Jvol {
    /// From now on an append is a copy in memory, in a ring in the first of these directories that is in memory and has room;
    /// where there is none, it goes on as before. What the last process left of a ring is removed: call it when what that may
    /// have lost is dealt with.
    ///
    /// # Errors
    /// As [`Jvol::forget_left`].
    pub fn begin_ring(&self, places: &[PathBuf]) -> Result<(), JournalError> {
        self.forget_left()?;
        let mut tail = self.tail.lock();
        let mut drain = self.drain.lock();
        if drain.ring.is_none() && self.check_failed().is_ok() {
            drain.places = places.to_vec();
            self.make_ring(&mut tail, &mut drain);
        }
        Ok(())
    }

    fn make_ring(&self, tail: &mut Tail, drain: &mut Drain) {
        let store = self.store();
        if drain.places.is_empty() {
            return;
        }
        match Ring::make(&drain.places, &store.file, store.geometry, self.group, tail.place()) {
            Ok(ring) => {
                let ring = Arc::new(ring);
                (tail.ring, drain.ring) = (Some(ring.clone()), Some(ring));
            }
            Err(error) => tracing::info!(%error, "there is no memory for a ring: the journal is written at once"),
        }
    }

    /// Removes what the last process left of a ring, and what says where it is. What was in it and could be had is in the file
    /// since this was opened.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn forget_left(&self) -> Result<(), JournalError> {
        if self.tail.lock().ring.is_some() {
            return Ok(());
        }
        if !self.has_left.load(Ordering::Relaxed) {
            return Ok(());
        }
        ring::remove_left(&self.store().file, self.group)?;
        self.has_left.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Records that the last process appended in this boot of the machine are lost with its ring.
    #[must_use]
    pub fn has_lost_ring(&self) -> bool {
        self.has_lost
    }

    /// Drains the ring and goes on without one.
    ///
    /// # Errors
    /// [`JournalError::Io`] when draining fails, and [`JournalError::Failed`] after a failure: the ring stays for the next opening.
    pub fn end_ring(&self) -> Result<(), JournalError> {
        let mut tail = self.tail.lock();
        let mut drain = self.drain.lock();
        self.pour(&mut drain, tail.ends())?;
        self.check_failed()?;
        drain.places.clear();
        give_up(&mut tail, &mut drain);
        Ok(())
    }

    /// Where the journal volume is another file from now on, its ring is another one.
    pub(super) fn renew_ring(&self, tail: &mut Tail, drain: &mut Drain) {
        self.make_ring(tail, drain);
    }

    /// Everything appended can be read by other processes that have the file.
    ///
    /// # Errors
    /// As [`Jvol::append`].
    pub fn show(&self) -> Result<(), JournalError> {
        self.drain().map(|_| ())
    }
}

/// Everything is in the file: the ring goes.
pub(super) fn give_up(tail: &mut Tail, drain: &mut Drain) {
    tail.ring = None;
    if let Some(ring) = drain.ring.take()
        && let Err(error) = ring.remove()
    {
        // it says that it holds nothing
        tracing::info!(%error, "what is left of the ring of the journal cannot be removed");
    }
}
