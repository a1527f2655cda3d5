//! The ring before the file: what is in it outlives a kill, and nothing is told that is not there.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;

use super::growth::spare_of;
use super::*;
use crate::disk::{self, Call, Label, Verdict, Watcher};

/// A directory in memory.
pub(super) fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a directory in memory")
}

impl Fixture {
    pub(super) fn open_with_ring(&self, memory: &TempDir) -> Jvol {
        let jvol = self.open();
        jvol.begin_ring(&[memory.path().to_owned()]).expect("begin");
        assert!(jvol.tail.lock().ring.is_some(), "there is no ring");
        jvol
    }

    fn link(&self) -> PathBuf {
        self.directory.path().join("docs.jvol.ring")
    }

    /// How many records the file has.
    fn in_file(&self) -> u64 {
        Jvol::glance(&self.path(), GROUP).expect("open").pointers().next.0 - 1
    }
}

#[test]
fn what_is_in_the_ring_alone_is_there_after_a_kill() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    let mode = fs::metadata(fs::read_link(fixture.link()).expect("a link")).expect("a ring").mode() & 0o7777;
    assert_eq!(mode, 0o600);
    fixture.append(&jvol, &[0, 5000]).expect("append");
    fixture.append(&jvol, &[100_000]).expect("append");
    assert_eq!(fixture.in_file(), 0, "an append went to the file");
    drop(jvol);
    let killed = fixture.open();
    assert!(!killed.has_lost_ring());
    assert_eq!(held(&killed), [0, 5000, 100_000]);
    // killed again before anybody has taken note of it
    fixture.append(&killed, &[7]).expect("append");
    drop(killed);
    let killed = fixture.open_with_ring(&memory);
    assert_eq!((killed.has_lost_ring(), held(&killed)), (false, vec![0, 5000, 100_000, 7]));
    fixture.append(&killed, &[8]).expect("append");
    killed.close().expect("close");
    assert!(!fixture.link().exists() && fs::read_dir(memory.path()).expect("a directory").next().is_none());
    assert_eq!(held(&fixture.open()), [0, 5000, 100_000, 7, 8]);
}

#[test]
fn a_sync_and_a_reader_find_it_in_the_file() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    for length in [10, 5000, 300_000] {
        fixture.append(&jvol, &[length]).expect("append");
    }
    assert_eq!(jvol.place(Seq(3)).expect("held").seq, Seq(3));
    assert_eq!(fixture.in_file(), 3);
    assert_eq!(held(&jvol), [10, 5000, 300_000]);
    fixture.append(&jvol, &[10]).expect("append");
    assert_eq!(jvol.sync(Seq(4)).expect("sync"), Seq(4));
    assert_eq!(fixture.in_file(), 4);
    fixture.append(&jvol, &[10]).expect("append");
    jvol.free(Seq(5), Digest::ZERO).expect("free");
    assert_eq!(held(&jvol), [10]);
}

#[test]
fn who_asked_for_less_than_was_drained_meanwhile_takes_nothing_back() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[1000]).expect("append");
    // a sync knows where it ends, and waits for the one who makes room
    let earlier = jvol.tail.lock().ends();
    let mut lengths = vec![1000];
    for step in 0..100 {
        fixture.append(&jvol, &[50_000 + step]).expect("append");
        lengths.push(50_000 + step);
    }
    let is_ahead = {
        let drain = jvol.drain.lock();
        drain.done.position > earlier.place.position && drain.done.next < earlier.place.next
    };
    assert!(is_ahead, "nobody made room of the data alone");
    jvol.pour(&mut jvol.drain.lock(), earlier).expect("pour");
    assert_eq!(held(&jvol), lengths);
    jvol.sync(Seq(101)).expect("sync");
    assert_eq!((fixture.in_file(), held(&jvol)), (101, lengths));
}

#[test]
fn an_opening_waits_until_the_killed_process_has_let_go() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[1]).expect("append");
    let (say, hear) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            let opened = fixture.open();
            say.send(()).expect("somebody hears");
            (opened.has_lost_ring(), held(&opened))
        });
        assert!(hear.recv_timeout(Duration::from_millis(200)).is_err(), "it did not wait");
        // the last that it did
        fixture.append(&jvol, &[2]).expect("append");
        drop(jvol);
        assert_eq!(opening.join().expect("opened"), (false, vec![1, 2]));
    });
}

#[test]
fn it_goes_round_and_past_what_does_not_fit_into_it() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    let mut lengths = Vec::new();
    for round in 0..3_usize {
        for step in 0..400 {
            let length = (step * 7919 + round * 13) % 30_000;
            fixture.append(&jvol, &[length, 1]).expect("append");
            lengths.extend([length, 1]);
        }
        // larger than half of the ring: past it, behind what is in it
        fixture.append(&jvol, &[1 << 20, 3]).expect("append");
        fixture.append(&jvol, &[4]).expect("append");
        lengths.extend([1 << 20, 3, 4]);
        assert_eq!(held(&jvol), lengths);
        let next = jvol.pointers().next;
        jvol.free(next, Digest::ZERO).expect("free");
        lengths.clear();
    }
    for step in 0..60_usize {
        fixture.append(&jvol, &[step * 1000]).expect("append");
        lengths.push(step * 1000);
    }
    drop(jvol);
    let killed = fixture.open();
    assert_eq!((killed.has_lost_ring(), held(&killed)), (false, lengths));
}

#[test]
fn a_ring_that_is_gone_or_not_whole_has_lost_records_until_that_is_dealt_with() {
    let spoil: [&dyn Fn(&std::path::Path); 3] =
        [&|ring| fs::remove_file(ring).expect("remove"), &|ring| fs::write(ring, "short").expect("write"), &|ring| {
            let file = OpenOptions::new().write(true).open(ring).expect("open");
            file.write_all_at(b"x", 40).expect("write");
        }];
    for spoil in spoil {
        let (fixture, memory) = (Fixture::new(), memory());
        let jvol = fixture.open_with_ring(&memory);
        fixture.append(&jvol, &[1]).expect("append");
        jvol.sync(Seq(1)).expect("sync");
        fixture.append(&jvol, &[2]).expect("append");
        drop(jvol);
        spoil(&fs::read_link(fixture.link()).expect("a link"));
        for _ in 0..2 {
            let jvol = fixture.open();
            assert_eq!((jvol.has_lost_ring(), held(&jvol)), (true, vec![1]));
        }
        let jvol = fixture.open();
        jvol.forget_left().expect("forget");
        drop(jvol);
        assert!(!fixture.open().has_lost_ring());
    }
}

#[test]
fn bytes_that_changed_in_the_ring_are_no_records() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    for length in [100, 200, 300] {
        fixture.append(&jvol, &[length]).expect("append");
    }
    drop(jvol);
    let ring = OpenOptions::new().write(true).open(fs::read_link(fixture.link()).expect("a link")).expect("open");
    // the second record's journal data
    let data = 4096 + (fixture.open().geometry().size / 8 / 16 / 4096 * 4096);
    ring.write_all_at(b"xxxx", data + 200).expect("write");
    // not drained yet for the next one
    ring.write_all_at(&[0; 16], 192).expect("write");
    ring.write_all_at(&1_u64.to_le_bytes(), 200).expect("write");
    let jvol = fixture.open();
    assert_eq!((jvol.has_lost_ring(), jvol.torn()), (true, Some(Seq(2))));
}

#[test]
fn what_another_boot_left_is_as_lost_as_the_page_cache() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[1]).expect("append");
    drop(jvol);
    let ring = fs::read_link(fixture.link()).expect("a link");
    let other = memory.path().join(format!("{GROUP}-1-2-{}.ring", Uuid::from_u128(1)));
    fs::rename(&ring, &other).expect("rename");
    fs::remove_file(fixture.link()).expect("remove");
    std::os::unix::fs::symlink(&other, fixture.link()).expect("link");
    let jvol = fixture.open();
    assert_eq!((jvol.has_lost_ring(), jvol.pointers().next), (false, Seq(1)));
    jvol.forget_left().expect("forget");
    assert!(!fixture.link().is_symlink() && other.exists(), "of a ring that is not ours only the link goes");
}

/// The words of a ring, from the first of the head on, as a killed process left them.
fn set_words(fixture: &Fixture, words: [(u64, u64); 4]) {
    let ring = OpenOptions::new().write(true).open(fs::read_link(fixture.link()).expect("a link")).expect("open");
    for (offset, word) in words {
        ring.write_all_at(&word.to_le_bytes(), offset).expect("write");
    }
}

#[test]
fn words_that_cannot_be_are_not_believed() {
    let wild = [
        // of another lap of the journal volume
        [(128, SIZE * 9), (136, 900_000), (192, SIZE * 9 - 64), (200, 899_000)],
        [(128, u64::MAX), (136, u64::MAX), (192, u64::MAX - 8), (200, u64::MAX - 1)],
        [(128, 64), (136, u64::MAX), (192, 0), (200, 1)],
        // before journal-out
        [(128, 0), (136, 4), (192, 0), (200, 0)],
        // more than it has room for
        [(128, SIZE / 2), (136, 3), (192, 0), (200, 1)],
        // nothing in it, of records that are nowhere
        [(128, 0), (136, 1), (192, 0), (200, 3)],
    ];
    for words in wild {
        let (fixture, memory) = (Fixture::new(), memory());
        let jvol = fixture.open_with_ring(&memory);
        fixture.append(&jvol, &[10]).expect("append");
        drop(jvol);
        set_words(&fixture, words);
        for _ in 0..2 {
            let jvol = fixture.open();
            assert_eq!((jvol.has_lost_ring(), jvol.pointers().next), (true, Seq(1)), "{words:?}");
        }
    }
}

#[test]
fn what_was_lost_stays_lost_however_far_others_write() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[10]).expect("append");
    fixture.append(&jvol, &[10]).expect("append");
    drop(jvol);
    let ring = OpenOptions::new().write(true).open(fs::read_link(fixture.link()).expect("a link")).expect("open");
    ring.write_all_at(b"xxxx", 4096 + SIZE / 8 / 16 / 4096 * 4096).expect("write");
    let mut jvol = fixture.open();
    assert!(jvol.has_lost_ring());
    jvol.cut_tail().expect("cut");
    for _ in 0..5 {
        fixture.append(&jvol, &[20]).expect("append");
    }
    drop(jvol);
    // killed before all of it was dealt with
    let jvol = fixture.open();
    assert_eq!((jvol.has_lost_ring(), held(&jvol)), (true, vec![20; 5]));
    jvol.forget_left().expect("forget");
    drop(jvol);
    assert!(!fixture.open().has_lost_ring());
}

#[test]
fn what_others_put_in_its_place_is_neither_believed_nor_removed() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[10]).expect("append");
    drop(jvol);
    let ring = fs::read_link(fixture.link()).expect("a link");
    // somebody could have written it
    fs::set_permissions(&ring, fs::Permissions::from_mode(0o622)).expect("chmod");
    assert!(fixture.open().has_lost_ring());
    fs::set_permissions(&ring, fs::Permissions::from_mode(0o600)).expect("chmod");
    // on a disk, under its name
    let on_disk = fixture.directory.path().join(ring.file_name().expect("a name"));
    fs::copy(&ring, &on_disk).expect("copy");
    fs::remove_file(fixture.link()).expect("remove");
    std::os::unix::fs::symlink(&on_disk, fixture.link()).expect("link");
    let jvol = fixture.open();
    assert!(jvol.has_lost_ring());
    jvol.forget_left().expect("forget");
    assert!(on_disk.exists() && !fixture.link().is_symlink());
    // a link to something else
    let other = memory.path().join("precious");
    fs::write(&other, "precious").expect("write");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("chmod");
    std::os::unix::fs::symlink(&other, fixture.link()).expect("link");
    discard_ring(&fixture.path(), GROUP).expect("discard");
    assert!(other.exists() && !fixture.link().is_symlink());
}

#[test]
fn it_is_known_when_the_disk_has_another_number() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[10]).expect("append");
    drop(jvol);
    let ring = fs::read_link(fixture.link()).expect("a link");
    let name = ring.file_name().expect("a name").to_str().expect("ASCII").to_owned();
    let (group, rest) = name.split_at(36);
    let ino = rest[1..].split_once('-').expect("device and inode").1;
    let before = memory.path().join(format!("{group}-7777-{ino}"));
    fs::rename(&ring, &before).expect("rename");
    fs::remove_file(fixture.link()).expect("remove");
    std::os::unix::fs::symlink(&before, fixture.link()).expect("link");
    let jvol = fixture.open_with_ring(&memory);
    assert_eq!((jvol.has_lost_ring(), held(&jvol)), (false, vec![10]));
    jvol.close().expect("close");
    assert!(fs::read_dir(memory.path()).expect("a directory").next().is_none(), "a ring is left");
}

#[test]
fn without_memory_the_file_is_written_at_once() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let nowhere = [PathBuf::from("/proc/nowhere"), PathBuf::from("/sys")];
    jvol.begin_ring(&nowhere).expect("begin");
    fixture.append(&jvol, &[5]).expect("append");
    assert_eq!(fixture.in_file(), 1);
}

#[test]
fn growing_takes_it_along() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[5]).expect("append");
    jvol.grow(3 * SIZE, &mut |_, _| {}).expect("grow");
    assert!(jvol.tail.lock().ring.is_some(), "there is no ring");
    fixture.append(&jvol, &[6]).expect("append");
    assert_eq!(fixture.in_file(), 1);
    drop(jvol);
    let killed = fixture.open();
    assert_eq!((killed.has_lost_ring(), held(&killed)), (false, vec![5, 6]));
    killed.forget_left().expect("forget");
    assert!(fs::read_dir(memory.path()).expect("a directory").next().is_none(), "a ring is left");
}

/// A disk that takes nothing more.
struct Broken;

impl Watcher for Broken {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let is_met = matches!(call.label, Label::JvolData | Label::JvolControl);
        if is_met { Verdict::Fail(rustix::io::Errno::IO) } else { Verdict::Proceed }
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

#[test]
fn a_spare_takes_over_with_what_only_the_ring_has() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    let (path, spare) = spare_of(&fixture, "spare.jvol");
    jvol.set_spare(spare);
    fixture.append(&jvol, &[1]).expect("append");
    jvol.sync(Seq(1)).expect("sync");
    fixture.append(&jvol, &[2, 3000]).expect("append");
    disk::watch_thread(Some(Arc::new(Broken)));
    let synced = jvol.sync(Seq(3));
    disk::watch_thread(None);
    assert_eq!((synced.expect("sync"), jvol.has_lost()), (Seq(3), false));
    assert_eq!((jvol.path(), held(&jvol)), (path.clone(), vec![1, 2, 3000]));
    fixture.append(&jvol, &[4]).expect("append");
    drop(jvol);
    assert_eq!(held(&Jvol::open(&path, GROUP).expect("open")), [1, 2, 3000, 4]);
}

/// The first control data is not written.
struct HalfWay(AtomicBool);

impl Watcher for HalfWay {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let is_met = call.label == Label::JvolControl && !self.0.swap(true, Ordering::SeqCst);
        if is_met { Verdict::Fail(rustix::io::Errno::IO) } else { Verdict::Proceed }
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

#[test]
fn a_spare_takes_over_from_an_append_that_got_half_way() {
    for synced in [1, 2] {
        let (fixture, memory) = (Fixture::new(), memory());
        let jvol = fixture.open_with_ring(&memory);
        let (path, spare) = spare_of(&fixture, "spare.jvol");
        jvol.set_spare(spare);
        fixture.append(&jvol, &[1]).expect("append");
        jvol.sync(Seq(1)).expect("sync");
        // what is in the ring alone is drained first, and fails half way; or the append itself does
        (1..synced).for_each(|_| _ = fixture.append(&jvol, &[3000]).expect("append"));
        disk::watch_thread(Some(Arc::new(HalfWay(AtomicBool::new(false)))));
        let large = fixture.append(&jvol, &[1 << 20]);
        disk::watch_thread(None);
        assert_eq!((large.expect("the spare").last, jvol.has_lost()), (Seq(synced + 1), false));
        let all: Vec<usize> = [1].into_iter().chain((1..synced).map(|_| 3000)).chain([1 << 20]).collect();
        assert_eq!((jvol.path(), held(&jvol)), (path.clone(), all.clone()));
        drop(jvol);
        assert_eq!(held(&Jvol::open(&path, GROUP).expect("open")), all);
    }
}

#[test]
fn after_a_drain_that_failed_nothing_is_taken_and_the_ring_stays() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[2, 3000]).expect("append");
    disk::watch_thread(Some(Arc::new(Broken)));
    assert!(matches!(jvol.sync(Seq(2)), Err(JournalError::Io { .. })));
    disk::watch_thread(None);
    assert!(matches!(jvol.sync(Seq(2)), Err(JournalError::Failed(_))));
    assert!(matches!(fixture.append(&jvol, &[1]), Err(JournalError::Failed(_))));
    assert!(matches!(jvol.end_ring(), Err(JournalError::Failed(_))));
    drop(jvol);
    assert_eq!(held(&fixture.open()), [2, 3000]);
}

#[test]
fn appends_drains_and_readers_meet() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = Arc::new(fixture.open_with_ring(&memory));
    let mut told = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while jvol.pointers().next.0 < 2000 {
                    jvol.sync(Seq(u64::MAX)).expect("sync");
                    let last = jvol.pointers().next.previous();
                    if last >= jvol.pointers().out {
                        drop(jvol.read(last, last).map(|mut records| records.next().map(|record| record.map(|_| ()))));
                    }
                }
            });
        }
        for step in 0..2000_usize {
            let length = step * 31 % 5000;
            fixture.append(&jvol, &[length]).expect("append");
            told.push(length);
        }
    });
    assert_eq!(held(&jvol), told);
    drop(jvol);
    assert_eq!(held(&fixture.open()), told);
}

#[test]
fn one_that_a_kill_left_goes_when_its_journal_volume_grows() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[5]).expect("append");
    drop(jvol);
    let killed = fixture.open();
    killed.grow(2 * SIZE, &mut |_, _| {}).expect("grow");
    killed.close().expect("close");
    assert!(fs::read_dir(memory.path()).expect("a directory").next().is_none(), "a ring is left");
    assert_eq!(held(&fixture.open()), [5]);
}

#[test]
fn a_kill_right_behind_what_went_past_the_ring_leaves_both() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    for lengths in [&[50][..], &[1 << 20, 3], &[4]] {
        fixture.append(&jvol, lengths).expect("append");
    }
    drop(jvol);
    let killed = fixture.open();
    assert_eq!((killed.has_lost_ring(), held(&killed)), (false, vec![50, 1 << 20, 3, 4]));
}

#[test]
fn many_small_records_fill_its_slots_first() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    for _ in 0..5000 {
        fixture.append(&jvol, &[1]).expect("append");
    }
    assert!(fixture.in_file() >= 2000, "nobody made room");
    drop(jvol);
    assert_eq!(held(&fixture.open()).len(), 5000);
}

#[test]
fn behind_its_end_the_file_is_written_at_once() {
    let (fixture, memory) = (Fixture::new(), memory());
    let jvol = fixture.open_with_ring(&memory);
    fixture.append(&jvol, &[5]).expect("append");
    jvol.end_ring().expect("end");
    fixture.append(&jvol, &[6]).expect("append");
    assert_eq!((fixture.in_file(), held(&jvol)), (2, vec![5, 6]));
}
