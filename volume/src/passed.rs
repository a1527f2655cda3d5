//! Writes through the page cache of the mount that are not made yet, because they wait for room, for a flush, for their turn, or
//! because the journal fills, and what passes them.
//!
//! Their pages have what they write, and may be stored into and come back before it is their turn. What came back is newer than
//! they are, and has what they write wherever nobody has stored: they leave it as it stands. A page that was dropped meanwhile and
//! read again has none of it. What is stored there counts as stored before the write: it goes over what came back, and what comes
//! back later of it is [`Overtaken`].
//!
//! [`Overtaken`]: crate::overtaken::Overtaken

use crate::stretches::Stretches;

/// One that waits.
#[derive(Debug)]
struct Waiter {
    ticket: u64,
    begin: u64,
    end: u64,
    /// What of it has come back since.
    stored: Stretches,
    /// What of it was read again since, without what it writes.
    reread: Stretches,
}

/// Those of one file.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    waiters: Vec<Waiter>,
    last: u64,
}

impl Passed {
    pub(crate) const NOBODY: Passed = Passed { waiters: Vec::new(), last: 0 };

    /// A write of this range waits from now on; its ticket.
    pub(crate) fn enter(&mut self, begin: u64, end: u64) -> u64 {
        self.last += 1;
        self.waiters.push(Waiter { ticket: self.last, begin, end, stored: Stretches::NONE, reread: Stretches::NONE });
        self.last
    }

    /// It waits no more.
    pub(crate) fn leave(&mut self, ticket: u64) {
        self.waiters.retain(|waiter| waiter.ticket != ticket);
    }

    /// A page came back and stands.
    pub(crate) fn note(&mut self, from: u64, to: u64) {
        for waiter in &mut self.waiters {
            let Waiter { stored, reread, .. } = waiter;
            add_but(stored, (from.max(waiter.begin), to.min(waiter.end)), reread);
        }
    }

    /// A page was read again before the write that its bytes should have; what has come back has them.
    pub(crate) fn read(&mut self, from: u64, to: u64) {
        for waiter in &mut self.waiters {
            let Waiter { stored, reread, .. } = waiter;
            add_but(reread, (from.max(waiter.begin), to.min(waiter.end)), stored);
        }
    }

    /// Whether one that waits would write any of this.
    pub(crate) fn concerns(&self, from: u64, to: u64) -> bool {
        self.waiters.iter().any(|waiter| from.max(waiter.begin) < to.min(waiter.end))
    }

    /// What one that waited is to leave as it stands.
    pub(crate) fn stored(&self, ticket: u64) -> Vec<(u64, u64)> {
        self.waiter(ticket).map_or_else(Vec::new, |waiter| waiter.stored.within(0, u64::MAX))
    }

    /// Of which of these bytes, which it has written, a page may have older ones.
    pub(crate) fn reread(&self, ticket: u64, from: u64, to: u64) -> Vec<(u64, u64)> {
        self.waiter(ticket).map_or_else(Vec::new, |waiter| waiter.reread.within(from, to))
    }

    fn waiter(&self, ticket: u64) -> Option<&Waiter> {
        self.waiters.iter().find(|waiter| waiter.ticket == ticket)
    }
}

/// Adds a stretch to some, but for what others have of it.
fn add_but(some: &mut Stretches, (from, to): (u64, u64), others: &Stretches) {
    let mut part = Stretches::NONE;
    part.add(from, to);
    others.within(from, to).into_iter().for_each(|(begin, end)| part.take(begin, end));
    part.within(from, to).into_iter().for_each(|(begin, end)| some.add(begin, end));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_leaves_what_came_back_meanwhile_and_nothing_else() {
        let mut passed = Passed::default();
        let first = passed.enter(0, 100);
        passed.note(90, 110);
        let second = passed.enter(50, 200);
        passed.note(40, 60);
        assert_eq!(passed.stored(first), [(90, 100), (40, 60)]);
        assert_eq!(passed.stored(second), [(50, 60)], "what came back before it waited is older than it is");
        passed.leave(first);
        assert!(passed.stored(first).is_empty() && !passed.stored(second).is_empty());
        passed.leave(second);
        assert!(passed.waiters.is_empty());
    }

    #[test]
    fn what_was_read_again_before_the_write_has_none_of_it() {
        let mut passed = Passed::default();
        let ticket = passed.enter(0, 100);
        assert!(passed.concerns(90, 120) && !passed.concerns(100, 120));
        passed.note(0, 10);
        passed.read(20, 40);
        passed.read(90, 120);
        passed.note(0, 100);
        assert_eq!(passed.stored(ticket), [(0, 20), (40, 90)]);
        assert_eq!(passed.reread(ticket, 0, 200), [(20, 40), (90, 100)]);
        assert_eq!(passed.reread(ticket, 0, 30), [(20, 30)], "no more was written");
        // what came back has it, and may be read again
        passed.read(0, 200);
        assert_eq!(passed.reread(ticket, 0, 200), [(20, 40), (90, 100)]);
    }
}
