//! Waiting for what another process does.

use std::time::{Duration, Instant};

/// The clock of the tests: the one place that reads it.
#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets real time pass: for load that must last a while, and between two looks at another process.
#[expect(clippy::disallowed_methods, reason = "there is no event to wait for in another process")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Looks every few milliseconds until it is so; false when it was not in time.
pub fn until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begin = now();
    while !is_so() {
        if begin.elapsed() > limit {
            return false;
        }
        pause(Duration::from_millis(5));
    }
    true
}
