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

/// Waits until files are given later times than it is now. The clock of file times goes by ticks (4 to 10 ms), and on a machine
/// whose processors are taken away the next tick is long in coming: what happens in between looks as old as what was before.
pub fn file_times() {
    let read = |clock| {
        let time = rustix::time::clock_gettime(clock);
        (time.tv_sec, time.tv_nsec)
    };
    let now = read(rustix::time::ClockId::Realtime);
    let has_ticked = || read(rustix::time::ClockId::RealtimeCoarse) > now;
    assert!(until(Duration::from_secs(60), has_ticked), "the clock of file times stands still");
}

/// What the host of this machine has taken from its processors so far, all of them together: who waits that long waited for nobody
/// of ours.
pub fn stolen() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc is there");
    let ticks = stat.lines().next().and_then(|all| all.split_whitespace().nth(8)).and_then(|ticks| ticks.parse().ok());
    Duration::from_millis(10 * ticks.unwrap_or(0_u64)) // USER_HZ is 100
}
