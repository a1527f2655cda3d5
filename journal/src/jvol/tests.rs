use std::borrow::Cow;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, mpsc};

use tempfile::TempDir;

use super::*;
use crate::disk::{self, Label};
use crate::{Change, EncodedRecord, FileId, FileTime, ManualClock, Record, RecordError, VolumeIndex};

mod crash;
mod damage;
mod growth;
mod model;
mod ring;

const GROUP: Uuid = Uuid::from_u128(0xfeed);
const SIZE: u64 = Jvol::SIZE_MIN;

struct Fixture {
    clock: ManualClock,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let fixture = Fixture { clock: ManualClock::new(Timestamp(1_700_000_000 * Timestamp::SECOND)), directory };
        Jvol::create(&fixture.path(), SIZE, GROUP, &mut |_, _| {}).expect("create");
        fixture
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("docs.jvol")
    }

    fn open(&self) -> Jvol {
        Jvol::open(&self.path(), GROUP).expect("open")
    }

    /// Overwrites bytes of the file behind the journal volume's back.
    fn scribble(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.path()).expect("open the file");
        file.write_all_at(bytes, offset).expect("scribble");
    }

    fn flip(&self, offset: u64) {
        let file = OpenOptions::new().read(true).write(true).open(self.path()).expect("open the file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("read");
        file.write_all_at(&[byte[0] ^ 0x10], offset).expect("write");
    }

    fn append(&self, jvol: &Jvol, lengths: &[usize]) -> Result<Appended, JournalError> {
        self.append_as(jvol, lengths, Reserve::Keep)
    }

    /// One operation of that many writes.
    fn append_as(&self, jvol: &Jvol, lengths: &[usize], reserve: Reserve) -> Result<Appended, JournalError> {
        let next = jvol.pointers().next.0;
        let records: Vec<Record<'_>> = lengths
            .iter()
            .enumerate()
            .map(|(index, &length)| write(next + index as u64, length, index + 1 < lengths.len()))
            .collect();
        let mut encoded: Vec<EncodedRecord<'_>> = records.iter().map(Record::encode).collect();
        jvol.append(&mut encoded, &self.clock, reserve, |_, _| {})
    }
}

/// The bytes that record `seq` carries: different for each record and each place in it.
fn payload(seq: u64, length: usize) -> &'static [u8] {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..(1 << 20) + 65_536).map(|_| noise()).collect()
    });
    let start = seq.wrapping_mul(0x9e37_79b9) as usize % 65_536;
    &NOISE[start..start + length]
}

fn write(seq: u64, length: usize, more: bool) -> Record<'static> {
    let change = Change::Write {
        file: FileId { ino: seq, generation: 1 },
        offset: 0,
        data: Cow::Borrowed(payload(seq, length)),
        size: length as u64,
        mtime: FileTime::default(),
    };
    Record {
        seq: Seq::ZERO,
        more,
        time: Timestamp(0),
        wall: Timestamp(0),
        uid: 0,
        pid: 0,
        volume: VolumeIndex(0),
        change,
    }
}

/// Lengths of the payloads of all held records, every one of them compared byte for byte.
fn held(jvol: &Jvol) -> Vec<usize> {
    let pointers = jvol.pointers();
    let mut records = jvol.read(pointers.out, pointers.next.previous()).expect("read");
    let (mut lengths, mut time) = (Vec::new(), Timestamp(i64::MIN));
    while let Some(record) = records.next() {
        let (control, data) = record.expect("a record");
        let record = Record::decode(control, data).expect("decodes");
        assert_eq!(record.seq.0, pointers.out.0 + lengths.len() as u64);
        assert!(record.time > time);
        time = record.time;
        let Change::Write { data, .. } = record.change else { panic!("not a write") };
        assert!(*data == *payload(record.seq.0, data.len()), "record {} differs", record.seq);
        lengths.push(data.len());
    }
    assert_eq!(lengths.len() as u64, pointers.next.0 - pointers.out.0);
    lengths
}

#[test]
fn a_new_one_is_private_allocated_and_empty() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("new.jvol");
    let mut told = Vec::new();
    Jvol::create(&path, SIZE + 5000, GROUP, &mut |done, total| told.push((done, total))).expect("create");
    let metadata = std::fs::metadata(&path).expect("stat");
    assert_eq!((metadata.len(), metadata.mode() & 0o7777), (SIZE + 4096, 0o600));
    assert!(metadata.blocks() * 512 >= SIZE, "not allocated");
    assert_eq!((told[0], *told.last().expect("told")), ((0, SIZE + 4096), (SIZE + 4096, SIZE + 4096)));
    let again = Jvol::create(&path, SIZE, GROUP, &mut |_, _| {});
    assert!(matches!(again, Err(JournalError::Io { operation: "create", .. })));
    assert!(path.exists(), "the existing one was removed");
    let small = Jvol::create(&directory.path().join("small"), SIZE - 1, GROUP, &mut |_, _| {});
    assert!(matches!(small, Err(JournalError::TooSmall { .. })));

    let jvol = Jvol::open(&path, GROUP).expect("open");
    let pointers = jvol.pointers();
    assert_eq!((pointers.out, pointers.next, pointers.durable), (Seq(1), Seq(1), Seq(0)));
    assert_eq!((jvol.torn(), jvol.out_digest(), pointers.occupancy()), (None, Digest::ZERO, 0.0));
    assert_eq!(held(&jvol), []);
}

#[test]
fn what_was_appended_is_there_after_a_kill_and_after_a_close() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let mut told = None;
    let records = [write(1, 0, true), write(2, 5000, false)];
    let mut encoded: Vec<_> = records.iter().map(Record::encode).collect();
    let appended = jvol
        .append(&mut encoded, &fixture.clock, Reserve::Keep, |first, last| told = Some((first, last)))
        .expect("append");
    assert_eq!((appended.first, appended.last, told), (Seq(1), Seq(2), Some((Seq(1), Seq(2)))));
    fixture.append(&jvol, &[1 << 20]).expect("append");
    drop(jvol);
    let killed = fixture.open();
    assert_eq!((killed.torn(), killed.pointers().durable), (None, Seq(0)));
    assert_eq!(held(&killed), [0, 5000, 1 << 20]);
    fixture.append(&killed, &[7]).expect("append");
    killed.close().expect("close");
    let closed = fixture.open();
    assert_eq!((closed.pointers().durable, closed.pointers().next), (Seq(4), Seq(5)));
    assert_eq!(held(&closed), [0, 5000, 1 << 20, 7]);
}

#[test]
fn an_operation_is_appended_whole_or_not_at_all() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let open_ended = write(1, 3, true);
    let refused = jvol.append(&mut [open_ended.encode()], &fixture.clock, Reserve::Use, |_, _| panic!("numbered"));
    assert!(matches!(refused, Err(JournalError::Unfinished)));
    let many = vec![1 << 20; 16];
    assert!(matches!(fixture.append(&jvol, &many), Err(JournalError::TooLarge(_))));
    assert!(matches!(fixture.append(&jvol, &[(1 << 20) + 1]), Err(JournalError::TooLarge(_))));
    assert_eq!(jvol.pointers().next, Seq(1));
}

#[test]
fn full_keeps_the_reserve_and_freeing_wakes_who_waits() {
    let fixture = Fixture::new();
    let jvol = Arc::new(fixture.open());
    let mut last = Seq::ZERO;
    while jvol.has_room(1 << 20, 1) {
        last = fixture.append(&jvol, &[1 << 20]).expect("there is room").last;
    }
    assert!(jvol.pointers().occupancy() > 0.9);
    assert!(!jvol.wait_for_room(1 << 20, 1, Duration::from_millis(5)));
    while fixture.append(&jvol, &[65_536]).is_ok() {}
    assert!(matches!(fixture.append(&jvol, &[65_536]), Err(JournalError::Full)));
    fixture.append_as(&jvol, &[65_536], Reserve::Use).expect("the reserve");
    // to the brim: a page filled with zeros must not reach journal-out
    while fixture.append_as(&jvol, &[100], Reserve::Use).is_ok() {}
    let brim = held(&jvol);
    assert_eq!(brim[0], 1 << 20);

    let (sender, woken) = mpsc::channel();
    std::thread::spawn({
        let jvol = Arc::clone(&jvol);
        move || sender.send(jvol.wait_for_room(1 << 20, 1, Duration::from_secs(3600)))
    });
    while !jvol.freed.notify_one() {
        std::thread::yield_now();
    }
    jvol.free(last, Digest([7; 32])).expect("free");
    assert_eq!(woken.recv_timeout(Duration::from_secs(60)), Ok(true));
    assert_eq!(held(&jvol).len(), brim.len() - (last.0 as usize - 1));
    fixture.append(&jvol, &[1 << 20]).expect("room again");
    // to the brim once more, now that journal-out lies inside a page
    assert!(!jvol.tail.lock().out_position.is_multiple_of(4096));
    while fixture.append_as(&jvol, &[65_536], Reserve::Use).is_ok() {}
    while fixture.append_as(&jvol, &[100], Reserve::Use).is_ok() {}
    let brim = held(&jvol);
    drop(jvol);
    let jvol = fixture.open();
    assert_eq!((jvol.pointers().out, jvol.out_digest()), (last, Digest([7; 32])));
    assert_eq!(held(&jvol), brim);
}

#[test]
fn slots_run_out_too() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let usable = jvol.geometry().control_slots - jvol.geometry().slot_reserve();
    let record = write(1, 1, false);
    let mut batch = vec![record.encode(); 1000];
    while jvol.append(&mut batch, &fixture.clock, Reserve::Keep, |_, _| {}).is_ok() {}
    while jvol.append(&mut batch[..1], &fixture.clock, Reserve::Keep, |_, _| {}).is_ok() {}
    assert_eq!(jvol.pointers().control_used, usable);
    assert!(!jvol.has_room(0, 1) && jvol.pointers().data_used < SIZE / 4);
    while jvol.append(&mut batch[..1], &fixture.clock, Reserve::Use, |_, _| {}).is_ok() {}
    assert_eq!(jvol.pointers().control_used, jvol.geometry().control_slots);
    drop(jvol);
    let jvol = fixture.open();
    assert_eq!((jvol.torn(), jvol.pointers().control_used), (None, jvol.geometry().control_slots));
}

#[test]
fn reads_any_range_and_nothing_that_is_not_held() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    for _ in 0..3000 {
        fixture.append(&jvol, &[40]).expect("append");
    }
    let reopened = fixture.open();
    for jvol in [&jvol, &reopened] {
        for (from, to) in [(1, 1), (1, 3000), (1023, 1025), (2049, 2900), (3000, 3000), (5, 4), (3001, 3000)] {
            let mut records = jvol.read(Seq(from), Seq(to)).expect("read");
            let mut controls = jvol.controls(Seq(from), Seq(to)).expect("controls");
            for seq in from..=to {
                let (control, data) = records.next().expect("there").expect("whole");
                assert_eq!(Record::decode(control, data).expect("decodes").seq, Seq(seq));
                assert_eq!(controls.next().expect("there").expect("whole"), control);
            }
            assert!(records.next().is_none() && controls.next().is_none());
        }
        for (from, to) in [(0, 5), (5, 3001), (3002, 3001), (1, u64::MAX)] {
            let refused = jvol.read(Seq(from), Seq(to));
            assert!(matches!(refused, Err(JournalError::NotHeld { .. })), "{from} to {to}");
        }
    }
    jvol.free(Seq(2000), Digest::ZERO).expect("free");
    assert_eq!(jvol.tail.lock().index.before(1999), None, "positions of freed records are kept");
    assert!(matches!(jvol.read(Seq(1999), Seq(2500)), Err(JournalError::NotHeld { .. })));
    assert!(matches!(jvol.free(Seq(1999), Digest::ZERO), Err(JournalError::NotHeld { .. })));
    assert!(matches!(jvol.free(Seq(3002), Digest::ZERO), Err(JournalError::NotHeld { .. })));
    jvol.free(Seq(3001), Digest::ZERO).expect("free everything");
    assert_eq!(held(&jvol), []);
}

#[test]
fn a_reader_overtaken_by_freeing_says_so() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    while fixture.append(&jvol, &[1 << 20]).is_ok() {}
    let end = jvol.pointers().next;
    let mut records = jvol.read(Seq(1), end.previous()).expect("read");
    records.next().expect("there").expect("whole");
    jvol.free(end, Digest::ZERO).expect("free");
    while fixture.append(&jvol, &[(1 << 20) - 1000]).is_ok() {}
    let error = loop {
        match records.next().expect("an error before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::NotHeld { .. }), "{error}");
    assert!(records.next().is_none());
}

#[test]
fn times_rise_through_a_restart_and_a_seal_vouches_for_what_comes() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let first = fixture.append(&jvol, &[1, 1]).expect("append");
    let (last, sealed) = jvol.tick(&fixture.clock);
    assert!(last == Seq(2) && sealed > first.time);
    jvol.free(Seq(3), Digest::ZERO).expect("free");
    drop(jvol);
    fixture.clock.step(-86_400 * Timestamp::SECOND);
    let jvol = fixture.open();
    assert_eq!(jvol.pointers().last_time, sealed);
    assert!(fixture.append(&jvol, &[1]).expect("append").time > sealed);
    // a seal that frees nothing
    let (last, sealed) = jvol.tick(&fixture.clock);
    jvol.sync(last).expect("sync");
    jvol.keep_time().expect("kept");
    drop(jvol);
    assert_eq!(fixture.open().pointers().last_time, sealed);
}

/// The calls of a thread that reach the disk, by label, with the bytes of those that write.
#[derive(Default)]
struct Calls(parking_lot::Mutex<Vec<(Label, u64)>>);

impl disk::Watcher for Calls {
    fn before(&self, call: &disk::Call<'_>) -> disk::Verdict {
        let bytes = match &call.operation {
            disk::Operation::Write { bytes, .. } => bytes.len() as u64,
            _ => 0,
        };
        self.0.lock().push((call.label, bytes));
        disk::Verdict::Proceed
    }

    fn after(&self, _call: &disk::Call<'_>, _is_done: bool) {}
}

#[test]
fn what_an_opening_reads_beyond_the_watermark_is_written_again_before_it_is_called_durable() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let first = fixture.append(&jvol, &[4_000]).expect("append");
    jvol.sync(first.last).expect("sync");
    jvol.note_durable().expect("noted");
    fixture.append(&jvol, &[5_000, 300]).expect("append");
    drop(jvol);
    let jvol = fixture.open();
    let calls = Arc::new(Calls::default());
    let before = disk::watch_thread(Some(calls.clone()));
    jvol.confirm().expect("confirmed");
    disk::watch_thread(before);
    let calls = calls.0.lock().clone();
    let at = |label: Label| calls.iter().position(|call| call.0 == label).expect("it is called");
    let written = |label: Label| calls.iter().filter(|call| call.0 == label).map(|call| call.1).sum::<u64>();
    assert!(written(Label::JvolData) > 5_300, "{calls:?}");
    assert_eq!(written(Label::JvolControl), 2 * geometry::SLOT, "{calls:?}");
    let flush = at(Label::JvolSync);
    assert!(at(Label::JvolData) < flush && at(Label::JvolControl) < flush && at(Label::JvolSuperblock) < flush);
    assert_eq!(jvol.pointers().durable, Seq(3));
}

#[test]
fn syncs_share_flushes_and_what_is_durable_needs_none() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let (threads, rounds) = (8, 40);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let record = write(1, 100, false);
                    let appended =
                        jvol.append(&mut [record.encode()], &fixture.clock, Reserve::Keep, |_, _| {}).expect("append");
                    assert!(jvol.sync(appended.last).expect("sync") >= appended.last);
                }
            });
        }
    });
    let flushes = jvol.file_sync_count();
    assert!(flushes <= threads * rounds, "{flushes} flushes for {} syncs", threads * rounds);
    assert_eq!(jvol.pointers().durable, Seq(threads * rounds));
    assert_eq!(jvol.sync(Seq(u64::MAX)).expect("sync"), Seq(threads * rounds));
    assert_eq!(jvol.file_sync_count(), flushes);
}

#[test]
fn the_watermark_follows_once_a_second_without_a_flush_of_its_own() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let a_second_passes = || jvol.flusher.lock().writer.as_mut().expect("nobody flushes").written -= 2000;
    for last in 1..=2 {
        fixture.append(&jvol, &[1]).expect("append");
        jvol.sync(Seq(last)).expect("sync");
    }
    assert_eq!(fixture.open().pointers().durable, Seq(0), "too early");
    a_second_passes();
    fixture.append(&jvol, &[1]).expect("append");
    jvol.sync(Seq(3)).expect("sync");
    assert_eq!(fixture.open().pointers().durable, Seq(2), "what an earlier flush made true");
    jvol.sync(Seq(3)).expect("sync");
    assert_eq!(fixture.open().pointers().durable, Seq(2), "too early");
    a_second_passes();
    jvol.sync(Seq(3)).expect("sync");
    assert_eq!((fixture.open().pointers().durable, jvol.file_sync_count()), (Seq(3), 3));
}

#[test]
fn nothing_is_taken_after_a_failure() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    fixture.append(&jvol, &[1]).expect("append");
    let lost = jvol.store().file.error("sync", std::io::ErrorKind::Other.into());
    assert!(jvol.fail::<()>(Err(lost)).is_err());
    assert!(matches!(fixture.append(&jvol, &[1]), Err(JournalError::Failed(_))));
    assert!(matches!(jvol.sync(Seq(1)), Err(JournalError::Failed(_))));
    assert!(matches!(jvol.free(Seq(1), Digest::ZERO), Err(JournalError::Failed(_))));
    assert_eq!(held(&jvol), [1]);
    assert_eq!(jvol.file_sync_count(), 0);
}
