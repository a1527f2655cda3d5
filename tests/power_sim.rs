//! Power cuts on a simulated disk: at any call, also of a recovery, everything that was not synced may be lost, reordered or
//! torn. What was synced is there after the next opening, and journal, tapes and volume agree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod simulated;
mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use reelfs::open_group::OpenGroup;
use reelfs_journal::Epoch;
use reelfs_journal::disk::{self, Mistake};
use serde_json::Value;
use simulated::promises::Promises;
use simulated::{SimDisk, Site};
use support::{Random, tools, wait};

/// Cuts and kills of one group, one after the other.
const GENERATIONS: u64 = 60;
/// Of so many generations one is compared by tapes, where the journal alone does not reach back.
const BY_TAPES: u64 = 30;

/// Power cuts in CI.
const CUTS_IN_CI: u64 = 20_000;
/// One world in so many has a directory far from the root.
const FAR: u64 = 4;
/// One step in so many is an export, which frees the journal.
const EXPORTS: u64 = 120;

/// A group, its disk, and what its applications were promised.
struct World {
    site: Site,
    sim: Arc<SimDisk>,
    promises: Promises,
    random: Random,
    boots: u64,
    /// There is a base copy.
    is_based: bool,
    /// Files of the root are changed through names far from it.
    is_far: bool,
    /// Power cuts so far, those of recoveries included.
    cuts: u64,
}

impl World {
    fn new(number: u64, mistake: Option<Mistake>) -> World {
        let site = Site::new();
        let dir = site.dir();
        let sim = SimDisk::new(&site.pvol, dir.path(), &site.sandbox.path("stash"), &dir.path().join("inflight"));
        let (sim, random) = (sim.with_mistake(mistake), Random::new("power cut", number));
        World {
            site,
            sim: Arc::new(sim),
            promises: Promises::default(),
            random,
            boots: 0,
            is_based: false,
            is_far: number.is_multiple_of(FAR),
            cuts: 0,
        }
    }

    /// The machine is booted again.
    fn boot(&mut self) {
        self.boots += 1;
        let path = self.site.dir().file();
        let mut file: Value = serde_json::from_slice(&fs::read(&path).expect("the group file")).expect("is whole");
        let session = &mut file["volumes"][0]["session"];
        if session.is_object() {
            session["boot"] = format!("boot-{} 0", self.boots).into();
            fs::write(path, serde_json::to_vec(&file).expect("JSON")).expect("written");
        }
    }

    fn cut_power(&mut self) {
        self.sim.lose(&mut self.random);
        self.boot();
        self.cuts += 1;
    }

    /// Mostly the power goes; else the program alone ends.
    fn stop(&mut self) {
        if self.random.below(6) == 0 { self.sim.kill() } else { self.cut_power() }
    }

    /// Opens the group, perhaps cut off a few times.
    fn recover(&mut self) -> Result<OpenGroup, String> {
        for attempt in 0.. {
            let is_cut_too = attempt < 3 && self.random.below(4) == 0;
            self.sim.cut_at(if is_cut_too { 1 + self.random.below(70) } else { 0 });
            match self.site.open() {
                // none that is left over, for a thread that syncs now and then to meet
                Ok(group) if self.sim.call_off() => return Ok(group),
                Err(error) if !self.sim.is_cut() => return Err(format!("does not open: {}", error.chain())),
                opened => drop(opened),
            }
            self.stop();
        }
        Err("always cut".to_owned())
    }

    /// Frees the journal.
    fn export(&mut self, group: &OpenGroup) -> Result<(), String> {
        if !self.is_based {
            self.site.base(group).map_err(|error| format!("base copy: {}", error.chain()))?;
            self.is_based = true;
        }
        self.site.export(group).map_err(|error| format!("export: {}", error.chain()))
    }

    /// What fails behind a power cut does so rightly.
    fn unless_cut(&self, done: Result<(), String>) -> Result<(), String> {
        if self.sim.is_cut() { Ok(()) } else { done }
    }

    /// A directory far from the root, closed well.
    fn make_far(&mut self, group: OpenGroup) -> Result<OpenGroup, String> {
        self.promises.make_far(&group)?;
        group.close().map_err(|error| error.chain())?;
        drop(group);
        self.site.open().map_err(|error| error.chain())
    }

    fn generation(&mut self, group: OpenGroup, number: u64) -> Result<OpenGroup, String> {
        self.promises.settle(&self.site.pvol);
        self.sim.cut_at(1 + self.random.below(180));
        let mut steps = 6 + self.random.below(24);
        if self.is_far && self.random.below(2) == 0 {
            let done = self.promises.change_from_afar(&group, &mut self.random);
            self.unless_cut(done)?;
            steps = self.random.below(4);
        }
        for _ in 0..steps {
            if self.sim.is_cut() {
                break;
            }
            let is_export = self.random.below(EXPORTS) == 0 && self.site.is_journaling(&group);
            let done = if is_export { self.export(&group) } else { self.promises.step(&group, &mut self.random) };
            self.unless_cut(done)?;
        }
        if self.random.below(6) == 0 {
            // ended in order, and then the power goes
            _ = group.close();
        }
        self.sim.cut_now();
        drop(group);
        self.stop();
        let group = self.recover()?;
        self.promises.check(&self.site.pvol)?;
        let is_compared =
            self.site.is_in_one_journal(&group) || (group.journal().epoch() == Epoch(1) && number.is_multiple_of(2));
        if is_compared || number % BY_TAPES == BY_TAPES - 1 {
            self.sim.settle();
            self.site.check_twin(&group)?;
        }
        Ok(group)
    }

    /// What whoever must find out why will ask for.
    fn seen(&self) -> String {
        format!("{}\nthe last calls:{}", self.site.journal(), self.sim.trace.lines())
    }

    fn run(&mut self) -> Result<(), String> {
        let before = disk::watch_thread(Some(self.sim.clone()));
        let mut group = self.site.open().map_err(|error| error.chain())?;
        if self.is_far {
            group = self.make_far(group)?;
        }
        for number in 0..GENERATIONS {
            self.sim.trace.note(format!("GENERATION {number}"));
            let done = self.generation(group, number);
            group = done.map_err(|error| format!("generation {number}: {error}\n{}", self.seen()))?;
            // what comes after another epoch began is compared less often
            if group.journal().epoch() != Epoch(1) && self.random.below(8) == 0 {
                break;
            }
        }
        disk::watch_thread(before);
        Ok(())
    }
}

/// Runs world after world until there were so many power cuts: what was found, if something was, and how many cuts that took.
fn search(wanted: u64, mistake: Option<Mistake>) -> (Option<String>, u64) {
    let first = std::env::var("REELFS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (next, cuts, is_found) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let worker = || {
        while cuts.load(Ordering::Relaxed) < wanted && !is_found.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let mut world = World::new(seed, mistake);
            let run = world.run();
            cuts.fetch_add(world.cuts, Ordering::Relaxed);
            if let Err(error) = run {
                is_found.store(true, Ordering::Relaxed);
                return Some(format!("REELFS_SEED={seed}: after {} power cuts: {error}", world.cuts));
            }
        }
        None
    };
    let begin = wait::now();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let cuts = cuts.into_inner();
    println!("{mistake:?}: {cuts} power cuts in {:?}", begin.elapsed());
    ((!failures.is_empty()).then(|| failures.join("\n")), cuts)
}

fn wanted() -> u64 {
    match (tools::is_soak(), tools::is_ci()) {
        (true, _) => 1_000_000,
        (false, true) => CUTS_IN_CI,
        (false, false) => 1_000,
    }
}

#[test]
fn what_was_synced_outlives_every_power_cut() {
    if tools::holds(tools::root(), "root, to set back what it likes") {
        let (found, _) = search(wanted(), None);
        assert_eq!(found, None);
    }
}

/// Each in no more cuts than the test above has.
#[test]
fn deliberate_mistakes_are_found() {
    if !tools::holds(tools::root(), "root, to set back what it likes") {
        return;
    }
    for mistake in Mistake::ALL {
        let (found, cuts) = search(wanted().max(CUTS_IN_CI), Some(mistake));
        let found = found.unwrap_or_else(|| panic!("{mistake:?} is not found in {cuts} power cuts"));
        println!("{}", found.lines().next().unwrap_or_default());
    }
}
