//! A watcher that lets one call fail, or all from one on.

use std::sync::Mutex;

use reelfs_journal::disk::{Call, Label, Operation, Verdict, Watcher};
use rustix::io::Errno;

/// How calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The disk is broken.
    Io,
    /// The disk is full.
    NoSpace,
    /// The disk becomes full in the middle of a write.
    Short,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 3] = [Fault::Io, Fault::NoSpace, Fault::Short];

    /// What can happen to a call; none: it is one of those that this fault does not meet.
    fn meets(self, operation: &Operation<'_>) -> Option<Verdict> {
        let takes_room = matches!(
            operation,
            Operation::Write { .. }
                | Operation::Allocate { .. }
                | Operation::Create { .. }
                | Operation::Link { .. }
                | Operation::Rename { .. }
                | Operation::SetAttributes { .. }
                | Operation::Sync { .. }
                | Operation::SyncAll { .. }
        );
        match (self, operation) {
            (_, Operation::Store) => None,
            (Fault::Io, _) => Some(Verdict::Fail(Errno::IO)),
            (Fault::NoSpace, _) => takes_room.then_some(Verdict::Fail(Errno::NOSPC)),
            (Fault::Short, Operation::Write { bytes, .. }) if bytes.len() > 1 => Some(Verdict::Short(bytes.len() / 2)),
            (Fault::Short, _) => None,
        }
    }
}

/// Counts the calls that its fault can meet, and lets the n-th fail.
pub struct Failer {
    fault: Fault,
    for_ever: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_off: bool,
    calls: u64,
    /// The call that fails; 0: none.
    at: u64,
    /// A write fell short, and what comes next of it fails.
    short: Option<Label>,
    met: Option<Label>,
}

impl Failer {
    /// The call `at` fails, the first being 1; 0: none, they are only counted.
    pub fn new(fault: Fault, for_ever: bool, at: u64) -> Failer {
        Failer { fault, for_ever, state: Mutex::new(State { at, ..State::default() }) }
    }

    /// The disk is whole again.
    pub fn clear(&self) {
        self.state.lock().expect("nobody panics").is_off = true;
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.state.lock().expect("nobody panics").calls
    }

    /// Which place met the fault.
    pub fn met(&self) -> Option<Label> {
        self.state.lock().expect("nobody panics").met
    }
}

impl Watcher for Failer {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let mut state = self.state.lock().expect("nobody panics");
        let Some(verdict) = self.fault.meets(&call.operation).filter(|_| !state.is_off) else {
            return Verdict::Proceed;
        };
        if state.short == Some(call.label) {
            state.short = None;
            return Verdict::Fail(Errno::NOSPC);
        }
        state.calls += 1;
        if state.at == 0 || state.calls < state.at || (state.calls > state.at && !self.for_ever) {
            return Verdict::Proceed;
        }
        state.met.get_or_insert(call.label);
        if matches!(verdict, Verdict::Short(_)) {
            state.short = Some(call.label);
        }
        verdict
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}
