//! Power cuts on a simulated disk: at any call, also of a recovery, everything that was not synced may be lost, reordered or
//! torn. What was synced is there after the next opening, and journal, tapes and volume agree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod simulated;
mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reelfs::open_group::OpenGroup;
use reelfs_journal::disk;
use serde_json::Value;
use simulated::promises::Promises;
use simulated::{SimDisk, Site};
use support::{Random, tools, wait};

/// Cuts and kills of one group, one after the other.
const GENERATIONS: u64 = 60;
/// Of so many generations one is compared by tapes, where the journal alone does not reach back.
const BY_TAPES: u64 = 30;

/// A group, its disk, and what its applications were promised.
struct World {
    site: Site,
    sim: Arc<SimDisk>,
    promises: Promises,
    random: Random,
    boots: u64,
    /// Power cuts so far, those of recoveries included.
    cuts: u64,
}

impl World {
    fn new(number: u64) -> World {
        let site = Site::new();
        let dir = site.dir();
        let sim = SimDisk::new(&site.pvol, dir.path(), &site.sandbox.path("stash"), &dir.path().join("inflight"));
        let random = Random::new("power cut", number);
        World { site, sim: Arc::new(sim), promises: Promises::default(), random, boots: 0, cuts: 0 }
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

    /// Opens the group, perhaps cut off a few times.
    fn recover(&mut self) -> Result<OpenGroup, String> {
        for attempt in 0.. {
            let is_cut_too = attempt < 3 && self.random.below(4) == 0;
            self.sim.cut_at(if is_cut_too { 1 + self.random.below(70) } else { 0 });
            match self.site.open() {
                Ok(group) if !self.sim.is_cut() => return Ok(group),
                Err(error) if !self.sim.is_cut() => return Err(format!("does not open: {}", error.chain())),
                opened => drop(opened),
            }
            self.cut_power();
        }
        Err("always cut".to_owned())
    }

    fn generation(&mut self, group: OpenGroup, number: u64) -> Result<OpenGroup, String> {
        self.promises.settle(&self.site.pvol);
        self.sim.cut_at(1 + self.random.below(180));
        let steps = 6 + self.random.below(24);
        for _ in 0..steps {
            if self.sim.is_cut() {
                break;
            }
            if let Err(error) = self.promises.step(&group, &mut self.random)
                && !self.sim.is_cut()
            {
                return Err(error);
            }
        }
        if self.random.below(6) == 0 {
            // ended in order, and then the power goes
            _ = group.close();
        }
        self.sim.cut_now();
        drop(group);
        if self.random.below(6) == 0 {
            self.sim.kill();
        } else {
            self.cut_power();
        }
        let group = self.recover()?;
        self.promises.check(&self.site.pvol)?;
        if self.site.is_in_one_journal(&group) || number % BY_TAPES == BY_TAPES - 1 {
            self.sim.settle();
            self.site.check_twin(&group)?;
        }
        Ok(group)
    }

    fn run(&mut self) -> Result<(), String> {
        let before = disk::watch_thread(Some(self.sim.clone()));
        let mut group = self.site.open().map_err(|error| error.chain())?;
        for number in 0..GENERATIONS {
            group = self.generation(group, number).map_err(|error| format!("generation {number}: {error}"))?;
        }
        disk::watch_thread(before);
        Ok(())
    }
}

#[test]
fn what_was_synced_outlives_every_power_cut() {
    if !tools::holds(tools::root(), "root, to set back what it likes") {
        return;
    }
    let wanted = match (tools::is_soak(), tools::is_ci()) {
        (true, _) => 1_000_000,
        (false, true) => 20_000,
        (false, false) => 1_000,
    };
    let first = std::env::var("REELFS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (next, cuts) = (AtomicU64::new(first), AtomicU64::new(0));
    let worker = || {
        while cuts.load(Ordering::Relaxed) < wanted {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let mut world = World::new(seed);
            if let Err(error) = world.run() {
                cuts.store(wanted, Ordering::Relaxed);
                return Some(format!("REELFS_SEED={seed}: after {} power cuts: {error}", world.cuts));
            }
            cuts.fetch_add(world.cuts, Ordering::Relaxed);
        }
        None
    };
    let begin = wait::now();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    println!("{} power cuts in {:?}", cuts.into_inner(), begin.elapsed());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
