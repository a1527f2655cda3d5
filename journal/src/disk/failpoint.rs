//! Failpoints: the process ends itself with SIGKILL at a chosen call, so that a test can say where.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Call, Label, Verdict, Watcher, watch_process};

/// The environment variable that names a failpoint: `LABEL[:before|after][:N]`.
pub const FAILPOINT_VARIABLE: &str = "REELFS_FAILPOINT";

/// The text names no failpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no failpoint: LABEL[:before|after][:N], labels in docs/FAILPOINTS.md")]
pub struct FailpointError(pub String);

#[derive(Debug)]
struct Failpoint {
    label: Label,
    is_after: bool,
    /// Passings until it strikes.
    left: AtomicU64,
}

impl Failpoint {
    fn parse(text: &str) -> Option<Failpoint> {
        let mut parts = text.split(':').peekable();
        let name = parts.next()?;
        let label = Label::ALL.iter().copied().find(|label| label.name() == name)?;
        let is_after = parts.next_if(|part| matches!(*part, "before" | "after")) == Some("after");
        let left: u64 = parts.next().map_or(Ok(1), str::parse).ok().filter(|&number| number > 0)?;
        parts.next().is_none().then_some(Failpoint { label, is_after, left: AtomicU64::new(left) })
    }

    fn pass(&self, label: Label, is_after: bool) {
        if (label, is_after) == (self.label, self.is_after) && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // nothing may run any more, no destructor and no other thread
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

impl Watcher for Failpoint {
    fn before(&self, call: &Call<'_>) -> Verdict {
        self.pass(call.label, false);
        Verdict::Proceed
    }

    fn after(&self, call: &Call<'_>, _is_done: bool) {
        self.pass(call.label, true);
    }
}

/// Ends this process with SIGKILL at the N-th passing of a failpoint (the first, before its call, unless the text says
/// otherwise).
///
/// # Errors
/// [`FailpointError`].
pub fn arm_failpoint(text: &str) -> Result<(), FailpointError> {
    let failpoint = Failpoint::parse(text).ok_or_else(|| FailpointError(text.to_owned()))?;
    watch_process(Arc::new(failpoint));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(Label, bool, u64)> {
        Failpoint::parse(text).map(|found| (found.label, found.is_after, found.left.load(Ordering::Relaxed)))
    }

    #[test]
    fn a_failpoint_is_a_label_a_side_and_a_number() {
        assert_eq!(parsed("JvolSync"), Some((Label::JvolSync, false, 1)));
        assert_eq!(parsed("JvolSync:after"), Some((Label::JvolSync, true, 1)));
        assert_eq!(parsed("JvolSync:7"), Some((Label::JvolSync, false, 7)));
        assert_eq!(parsed("StateRename:after:2"), Some((Label::StateRename, true, 2)));
        for text in ["", "jvolsync", "JvolSync:", "JvolSync:0", "JvolSync:after:1:2", "JvolSync:later"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
