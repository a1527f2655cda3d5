//! Writes through the page cache of the mount that are not made yet, because they wait for room, for a flush, for their turn, or
//! because the journal fills, and what passes them.
//!
//! Their pages have what they write, and may be stored into and come back before it is their turn. What came back is newer than
//! they are, and has what they write wherever nobody has stored: they leave it as it stands. A page that was dropped meanwhile and
//! read again has none of it. What is stored there counts as stored before the write: it goes over what came back, and what comes
//! back later of it is [`Overtaken`].
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
    /// Stretches of it that were read again since.
    reread: Vec<(u64, u64)>,
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
        self.waiters.push(Waiter { ticket: self.last, begin, end, stored: Vec::new(), reread: Vec::new() });
        self.last
    }

    /// It waits no more.
    pub(crate) fn leave(&mut self, ticket: u64) {
        self.waiters.retain(|waiter| waiter.ticket != ticket);
    }

    /// A page came back and stands.
    pub(crate) fn note(&mut self, from: u64, to: u64) {
        for waiter in &mut self.waiters {
            let mut came = waiter.part(from, to);
            for &(begin, end) in &waiter.reread {
                came = came.into_iter().flat_map(|(a, b)| [(a, b.min(begin)), (a.max(end), b)]).collect();
                came.retain(|(a, b)| a < b);
            }
            waiter.stored.append(&mut came);
        }
    }

    /// A page was read again before the write that its bytes should have.
    pub(crate) fn read(&mut self, from: u64, to: u64) {
        for waiter in &mut self.waiters {
            let mut part = waiter.part(from, to);
            waiter.reread.append(&mut part);
        }
    }

    /// Whether one that waits would write any of this.
    pub(crate) fn concerns(&self, from: u64, to: u64) -> bool {
        self.waiters.iter().any(|waiter| !waiter.part(from, to).is_empty())
    }

    /// What one that waited is to leave as it stands.
    pub(crate) fn stored(&self, ticket: u64) -> Vec<(u64, u64)> {
        self.waiter(ticket).map_or_else(Vec::new, |waiter| waiter.stored.clone())
    }

    /// Of which of its bytes a page may have older ones than it has written.
    pub(crate) fn reread(&self, ticket: u64) -> Vec<(u64, u64)> {
        self.waiter(ticket).map_or_else(Vec::new, |waiter| waiter.reread.clone())
    }

    fn waiter(&self, ticket: u64) -> Option<&Waiter> {
        self.waiters.iter().find(|waiter| waiter.ticket == ticket)
    }
}

impl Waiter {
    /// What it would write of this: one stretch, or nothing.
    fn part(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let part = (from.max(self.begin), to.min(self.end));
        if part.0 < part.1 { vec![part] } else { Vec::new() }
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

    #[test]
    fn what_was_read_again_before_the_write_has_none_of_it() {
        let mut passed = Passed::default();
        let ticket = passed.enter(0, 100);
        assert!(passed.concerns(90, 120) && !passed.concerns(100, 120));
        passed.note(0, 10);
        passed.read(20, 40);
        passed.read(90, 120);
        passed.note(0, 100);
        assert_eq!(passed.stored(ticket), [(0, 10), (0, 20), (40, 90)]);
        assert_eq!(passed.reread(ticket), [(20, 40), (90, 100)]);
    }
}
