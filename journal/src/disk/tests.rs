use std::io::IoSlice;
use std::sync::Mutex;

use super::*;

/// Writes down the calls, and rules on each as it is told.
struct Scribe {
    seen: Mutex<Vec<(Label, bool)>>,
    verdict: Verdict,
}

impl Watcher for Scribe {
    fn before(&self, _call: &Call<'_>) -> Verdict {
        self.verdict
    }

    fn after(&self, call: &Call<'_>, is_done: bool) {
        self.seen.lock().expect("nobody panics").push((call.label, is_done));
    }
}

fn watched_by<T>(verdict: Verdict, act: impl FnOnce() -> T) -> (T, Vec<(Label, bool)>) {
    let scribe = Arc::new(Scribe { seen: Mutex::default(), verdict });
    let before = watch_thread(Some(scribe.clone()));
    let done = act();
    watch_thread(before);
    let seen = scribe.seen.lock().expect("nobody panics").clone();
    (done, seen)
}

#[test]
fn a_call_is_made_fails_or_falls_short() {
    let file = tempfile::tempfile().expect("a file");
    let parts = || write_parts_at(Label::JvolData, &file, &[IoSlice::new(b"one"), IoSlice::new(b"two")], 4);
    assert_eq!(watched_by(Verdict::Proceed, parts), (Ok(6), vec![(Label::JvolData, true)]));
    assert_eq!(watched_by(Verdict::Fail(Errno::IO), parts), (Err(Errno::IO), vec![(Label::JvolData, false)]));
    assert_eq!(watched_by(Verdict::Short(2), parts).0, Ok(2));
    let sync = || sync_data(Label::JvolSync, &file);
    assert_eq!(watched_by(Verdict::Fail(Errno::IO), sync), (Err(Errno::IO), vec![(Label::JvolSync, false)]));
    assert_eq!(parts(), Ok(6));
    assert_eq!(file.metadata().expect("its size").len(), 10);
}

#[test]
fn an_append_that_falls_short_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = std::fs::File::create(directory.path().join("log")).expect("a file");
    let (done, seen) = watched_by(Verdict::Short(2), || append(Label::KnownAppend, &file, b"12345"));
    assert_eq!((done, seen.len()), (Ok(()), 3));
    assert_eq!(std::fs::read(directory.path().join("log")).expect("readable"), b"12345");
}

#[test]
fn only_the_thread_and_those_it_starts_for_it_are_watched() {
    let file = tempfile::tempfile().expect("a file");
    let write = || write_at(Label::ApplyWrite, &file, b"1", 0).expect("room");
    let ((), seen) = watched_by(Verdict::Proceed, || {
        std::thread::scope(|scope| {
            scope.spawn(with_same_watcher(write));
            scope.spawn(write);
        });
    });
    assert_eq!(seen, [(Label::ApplyWrite, true)]);
}
