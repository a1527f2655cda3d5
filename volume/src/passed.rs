//! Writes through the page cache of the mount that wait, for room, for a flush, or because the journal fills, and what passes them.
//!
//! Their pages have what they write, and may be stored into and come back before it is their turn. What came back is newer than
//! they are, and has what they write wherever nobody has stored: they leave it as it stands. It is the other way round from
//! [`Overtaken`].
//!
//! [`Overtaken`]: crate::overtaken::Overtaken

/// One that waits.
#[derive(Debug)]
struct Waiter {
    ticket: u64,
    begin: u64,
    end: u64,
    /// Stretches of it that have come back since.
    stored: Vec<(u64, u64)>,
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
        self.waiters.push(Waiter { ticket: self.last, begin, end, stored: Vec::new() });
        self.last
    }

    /// It waits no more.
    pub(crate) fn leave(&mut self, ticket: u64) {
        self.waiters.retain(|waiter| waiter.ticket != ticket);
    }

    /// A page came back and stands.
    pub(crate) fn note(&mut self, from: u64, to: u64) {
        for waiter in &mut self.waiters {
            let (from, to) = (from.max(waiter.begin), to.min(waiter.end));
            if from < to {
                waiter.stored.push((from, to));
            }
        }
    }

    /// What one that waited is to leave as it stands.
    pub(crate) fn stored(&self, ticket: u64) -> Vec<(u64, u64)> {
        let waiter = self.waiters.iter().find(|waiter| waiter.ticket == ticket);
        waiter.map_or_else(Vec::new, |waiter| waiter.stored.clone())
    }
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
}
