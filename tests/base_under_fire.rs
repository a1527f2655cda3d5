//! A base copy that is taken while everything moves: exact from its end on, and nobody waits for it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};
use support::{Mount, Random, Sandbox, Tree, tools, wait};

/// Before the writers start: enough that the copy takes a while.
const FILES: usize = 3_000;
/// What no name operation may wait for the copy, in milliseconds.
const WAIT_MS_MAX: u64 = 100;

/// Directories of many files, some of them large.
fn furnish(pvol: &Path) {
    let mut random = Random::new("furniture", 0);
    for number in 0..FILES {
        let directory = pvol.join(format!("d{}/e{}", number % 10, number % 70));
        fs::create_dir_all(&directory).unwrap();
        let length = if number % 300 == 0 { 4 << 20 } else { random.below(20_000) };
        let bytes = random.bytes(length);
        fs::write(directory.join(format!("f{number}")), bytes).unwrap();
    }
}

/// What the writers and the test share.
struct Fire<'a> {
    root: &'a Path,
    is_over: AtomicBool,
    operations: AtomicU64,
    slowest: Mutex<BTreeMap<&'static str, Duration>>,
}

impl Fire<'_> {
    /// Times an operation on names. It may fail: others move what it is about.
    fn timed<T, E>(&self, what: &'static str, operation: impl FnOnce() -> Result<T, E>) {
        let begin = wait::now();
        drop(operation());
        let took = begin.elapsed();
        self.operations.fetch_add(1, Ordering::Relaxed);
        let mut slowest = self.slowest.lock().unwrap();
        let entry = slowest.entry(what).or_default();
        *entry = took.max(*entry);
    }

    /// One writer, until it is over.
    fn burn(&self, number: u8) {
        let mut random = Random::new("fire", number.into());
        let mut nameless: Vec<File> = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let (one, two) = (self.some_file(&mut random), self.some_file(&mut random));
            let length = random.below(30_000);
            let bytes = random.bytes(length);
            match random.below(12) {
                0 | 1 => drop(
                    File::options()
                        .write(true)
                        .open(&one)
                        .and_then(|file| file.write_all_at(&bytes, random.below(9_000))),
                ),
                2 => drop(File::options().write(true).open(&one).and_then(|file| file.set_len(random.below(40_000)))),
                3 => self.timed("rename", || fs::rename(&one, &two)),
                4 => self.timed("exchange", || rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE)),
                5 => {
                    let (from, to) = (self.some_directory(&mut random), self.some_directory(&mut random));
                    self.timed("rename of a directory", || {
                        rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE)
                    });
                }
                6 => {
                    let (from, to) = (self.some_directory(&mut random), self.some_directory(&mut random));
                    self.timed("rename of a directory", || {
                        fs::rename(&from, to.join(format!("moved{}", random.below(50))))
                    });
                }
                7 => self.timed("link", || fs::hard_link(&one, two.with_extension("link"))),
                8 => self.timed("unlink", || fs::remove_file(&one)),
                9 => self.timed("create", || fs::write(&one, &bytes[..bytes.len() / 4])),
                10 => {
                    if let Ok(mut file) = File::options().read(true).write(true).open(&one) {
                        self.timed("unlink", || fs::remove_file(&one));
                        drop(file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&bytes)));
                        nameless.push(file);
                    }
                }
                _ => nameless.truncate(4),
            }
        }
    }

    fn some_directory(&self, random: &mut Random) -> std::path::PathBuf {
        let path = self.root.join(format!("d{}", random.below(10)));
        if random.below(3) == 0 { path } else { path.join(format!("e{}", random.below(70))) }
    }

    /// A name that probably exists: of the beginning, or of one of few that come and go.
    fn some_file(&self, random: &mut Random) -> std::path::PathBuf {
        let number = random.below(FILES as u64);
        let name = if random.below(4) == 0 { format!("new{}", number % 40) } else { format!("f{number}") };
        self.root.join(format!("d{}/e{}", number % 10, number % 70)).join(name)
    }
}

/// Ends the fire, also when an assertion fails: the writers are waited for.
struct PutOut<'f>(&'f Fire<'f>);

impl Drop for PutOut<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Copies the base while it burns, and sets markers all the while, whose numbers it returns. Nobody waits for the copy.
fn copy_under_fire(sandbox: &Sandbox, fire: &Fire<'_>, tapes: &Path) -> Vec<u64> {
    let mark = |name: &str| {
        let marked = sandbox.reelfs(["mark", "fire", name, "--json"]).ok().json();
        marked["seq"].as_u64().unwrap()
    };
    let count = || fire.operations.load(Ordering::Relaxed);
    assert!(wait::until(Duration::from_secs(200), || count() > 2_000), "only {} name operations", count());
    let mut marked = vec![mark("before")];
    // what the disk and the scheduler cost without a copy
    let usual = std::mem::take(&mut *fire.slowest.lock().unwrap());
    let (before, stolen) = (count(), wait::stolen());
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| sandbox.base("fire", tapes));
        while !copy.is_finished() {
            marked.push(mark("during"));
        }
        copy.join().unwrap();
    });
    let (during, stolen) = (count() - before, wait::stolen() - stolen);
    let slow = fire.slowest.lock().unwrap().clone();
    println!(
        "{during} name operations while the base was copied; slowest: {slow:?}, before: {usual:?}; taken by the host: {stolen:?}"
    );
    assert!(during > 50, "only {during} name operations while the base was copied: no fire");
    for (what, took) in slow {
        let usual = usual.get(what).copied().unwrap_or_default();
        let limit = Duration::from_millis(WAIT_MS_MAX) + usual + stolen;
        assert!(took <= limit, "{what} waited {took:?} while the base was copied, {usual:?} before");
    }
    marked
}

#[test]
fn every_point_from_its_end_on_is_exact_and_earlier_ones_are_refused() {
    let sandbox = Sandbox::new();
    let fast = Sandbox::in_memory();
    let (pvol, tapes) = (sandbox.directory("pvol"), fast.directory("tapes"));
    furnish(&pvol);
    sandbox.group_of_size("fire", &pvol, "1GiB");
    let mount = Mount::new(&sandbox, "fire", &sandbox.directory("mnt"), &[]);
    let fire = Fire {
        root: mount.path(),
        is_over: AtomicBool::new(false),
        operations: AtomicU64::new(0),
        slowest: Mutex::default(),
    };
    let mut moments = Vec::new();
    let marked = std::thread::scope(|scope| {
        let _out = PutOut(&fire);
        (0..4).for_each(|number| {
            drop(scope.spawn({
                let fire = &fire;
                move || fire.burn(number)
            }))
        });
        copy_under_fire(&sandbox, &fire, &tapes)
    });
    // now in rounds, so that there are moments to compare with
    for round in 0..tools::rounds(5, 40) {
        fire.is_over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let _out = PutOut(&fire);
            (10..14).for_each(|number| {
                drop(scope.spawn({
                    let fire = &fire;
                    move || fire.burn(number)
                }))
            });
            wait::pause(Duration::from_millis(150));
        });
        mount.sync();
        sandbox.mark("fire", &format!("round{round}"));
        moments.push((format!("marker:round{round}"), Tree::of(&pvol)));
    }
    sandbox.export("fire", &tapes);
    mount.umount();
    for (point, tree) in &moments {
        let restored = fast.restore(&tapes, point, "restored");
        tree.assert_same(&Tree::of(&restored), point);
        fs::remove_dir_all(restored).unwrap();
    }
    every_seq_from_the_end_of_the_base_on(&fast, &tapes, &marked);
}

/// The oldest point is BaseEnd itself: it and what follows restores, markers of the time before do not.
fn every_seq_from_the_end_of_the_base_on(fast: &Sandbox, tapes: &Path, marked: &[u64]) {
    let points = fast.reelfs(["points", "--tapes", tapes.to_str().unwrap(), "--json"]).ok();
    let lines = points.json_lines();
    let ends: Vec<u64> =
        lines.iter().filter(|point| point["kind"] == "base").filter_map(|point| point["seq"].as_u64()).collect();
    assert_eq!(ends.len(), 1, "one base: {points}");
    let end = ends[0];
    let early: Vec<u64> = marked.iter().copied().filter(|&seq| seq < end).collect();
    assert!(early.len() >= 2, "markers before and during the copy: {marked:?}, it ended at {end}");
    for seq in early.into_iter().chain([end - 1]) {
        fast.try_restore(tapes, &format!("seq:{seq}"), "early").refused(13, &[]);
        assert!(!fast.path("early").exists(), "a refused restore made its target");
    }
    fast.restore(tapes, &format!("seq:{end}"), "restored");
}
