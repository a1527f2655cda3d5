//! Keeping processors from halting while requests come in rows. On a virtual machine the host must be asked to run a processor that
//! has halted, which takes longer than most requests do: the client's, which waits for the answer, as well as ours.
//!
//! Whoever holds `/dev/cpu_dma_latency` open with 0 in it (the kernel's documentation: PM Quality of Service) has idle processors
//! look for work instead of halting; they stop as soon as there is some. The kernel takes it back when the file is closed, by a
//! killed process too. It concerns all processors, so it is held only while it matters.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

const DEVICE: &str = "/dev/cpu_dma_latency";
/// How the kernel lets processors rest; this one belongs to guests whose host is asked each time.
const DRIVER: (&str, &str) = ("/sys/devices/system/cpu/cpuidle/current_driver", "haltpoll");
/// With more processors it would keep too many from resting for one mount's sake.
const PROCESSORS_MAX: usize = 8;
/// So many requests ...
const ROW: u64 = 32;
/// ... within this time are a row,
const SOON: Duration = Duration::from_millis(20);
/// and fewer within this one are none.
const LATE: Duration = Duration::from_millis(50);

/// Whether it is worth while on this machine: a virtual one with few processors.
#[must_use]
pub fn wakes_slowly() -> bool {
    let is_few = std::thread::available_parallelism().is_ok_and(|processors| processors.get() <= PROCESSORS_MAX);
    is_few && std::fs::read_to_string(DRIVER.0).is_ok_and(|driver| driver.trim() == DRIVER.1)
}

/// Watches the requests of one mount.
#[derive(Default)]
pub(crate) struct Awake {
    requests: AtomicU64,
    /// When the last row of requests was full, in nanoseconds since `begin`.
    full: AtomicU64,
    begin: OnceLock<Instant>,
    is_held: AtomicBool,
    told: Mutex<Told>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default, PartialEq, Eq)]
enum Told {
    #[default]
    Rest,
    Hold,
    End,
}

impl Awake {
    /// Does nothing until it is started.
    pub(crate) fn new() -> Arc<Awake> {
        Arc::default()
    }

    /// From now on requests count.
    ///
    /// # Errors
    /// What the system says of the device: it is root's.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        self.start_with(Path::new(DEVICE).to_owned())
    }

    fn start_with(self: &Arc<Self>, device: PathBuf) -> io::Result<()> {
        File::options().write(true).open(&device)?;
        let theirs = self.clone();
        let serve = move || theirs.serve(&device);
        *self.thread.lock() = Some(std::thread::Builder::new().name("awake".into()).spawn(serve)?);
        let _ = self.begin.set(now());
        Ok(())
    }

    /// A request was answered.
    pub(crate) fn request(&self) {
        let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(begin) = self.begin.get() else { return };
        if !count.is_multiple_of(ROW) || self.is_held.load(Ordering::Relaxed) {
            return;
        }
        let passed = u64::try_from(now().duration_since(*begin).as_nanos()).unwrap_or(u64::MAX);
        let before = self.full.swap(passed, Ordering::Relaxed);
        if before > 0 && u128::from(passed.saturating_sub(before)) < SOON.as_nanos() {
            self.tell(Told::Hold);
        }
    }

    fn tell(&self, what: Told) {
        let mut told = self.told.lock();
        if *told != Told::End {
            *told = what;
        }
        self.changed.notify_all();
    }

    fn serve(&self, device: &Path) {
        loop {
            {
                let mut told = self.told.lock();
                self.changed.wait_while(&mut told, |told| *told == Told::Rest);
                if *told == Told::End {
                    return;
                }
                *told = Told::Rest;
            }
            match hold(device) {
                Ok(held) => {
                    self.is_held.store(true, Ordering::Relaxed);
                    self.while_in_a_row();
                    drop(held);
                    self.is_held.store(false, Ordering::Relaxed);
                }
                Err(error) => return tracing::info!(%error, "processors halt between requests"),
            }
        }
    }

    /// Returns when few requests come, or the mount ends.
    fn while_in_a_row(&self) {
        loop {
            let before = self.requests.load(Ordering::Relaxed);
            let mut told = self.told.lock();
            self.changed.wait_while_for(&mut told, |told| *told != Told::End, LATE);
            if *told == Told::End || self.requests.load(Ordering::Relaxed) < before + ROW {
                return;
            }
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.tell(Told::End);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that keeps processors awake panicked");
        }
    }
}

/// 0 microseconds: as soon as possible.
fn hold(device: &Path) -> io::Result<File> {
    let mut file = File::options().write(true).open(device)?;
    file.write_all(&0_i32.to_ne_bytes())?;
    Ok(file)
}

#[expect(clippy::disallowed_methods, reason = "how close to each other requests are")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it comes to that, while requests come or do not.
    fn becomes(awake: &Awake, held: bool, requests: bool) -> bool {
        let begin = now();
        while begin.elapsed() < Duration::from_secs(20) {
            if awake.is_held.load(Ordering::Relaxed) == held {
                return true;
            }
            if requests {
                awake.request();
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn it_is_held_while_requests_come_and_no_longer() {
        let directory = tempfile::tempdir().expect("a directory");
        let device = directory.path().join("device");
        File::create(&device).expect("a file");
        let awake = Awake::new();
        (0..10 * ROW).for_each(|_| awake.request());
        awake.start_with(device.clone()).expect("started");
        assert!(!awake.is_held.load(Ordering::Relaxed));
        for _ in 0..3 {
            assert!(becomes(&awake, true, true), "nobody holds it");
            assert_eq!(std::fs::read(&device).expect("read"), [0; 4]);
            assert!(becomes(&awake, false, false), "it is held for ever");
        }
        awake.stop();
        assert!(Awake::new().start_with(directory.path().join("none")).is_err());
    }

    #[test]
    fn an_end_comes_at_once() {
        let awake = Awake::new();
        awake.stop();
        let file = tempfile::NamedTempFile::new().expect("a file");
        let awake = Awake::new();
        awake.start_with(file.path().to_owned()).expect("started");
        awake.tell(Told::Hold);
        awake.stop();
        assert!(awake.thread.lock().is_none());
    }
}
