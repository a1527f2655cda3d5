//! One kind of work, measured on every subject, and the table that a benchmark prints.
#![allow(dead_code, reason = "each benchmark uses another part of it")]

mod block;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::paired::{self, Paired, Ratio, Sample};
use crate::subjects::Subject;
use crate::support::{Disk, FileSystem, Random, Sandbox, tools, wait};
pub use block::Block;

/// A workload: it is prepared out of the measurement, and then measured.
pub struct Workload {
    name: &'static str,
    limit: Limit,
    is_cold: bool,
    prepare: Step,
    run: Step,
    after: Step,
}

/// What is done in a directory.
pub type Step = fn(&Path, &Bench);

impl Workload {
    /// Work of that name; a word of it on the command line asks for it.
    pub const fn new(name: &'static str, limit: Limit, run: Step) -> Workload {
        Workload { name, limit, is_cold: false, prepare: |_, _| {}, run, after: |_, _| {} }
    }

    /// Before each measurement this is done.
    pub const fn prepared(mut self, prepare: Step) -> Workload {
        self.prepare = prepare;
        self
    }

    /// What was prepared is on tapes before the work begins: to reelfs every object is cold.
    pub const fn cold(mut self) -> Workload {
        self.is_cold = true;
        self
    }

    /// After each measurement this is done.
    pub const fn ended(mut self, after: Step) -> Workload {
        self.after = after;
        self
    }
}

/// How much longer reelfs may take.
#[derive(Clone, Copy)]
pub enum Limit {
    /// Than the peer.
    OfPeer(f64),
    /// Than the backing directory; as the scheduler places client and daemon, and when both are on one processor.
    OfBacking { scheduled: f64, on_one: f64 },
    /// The figure is told without a judgement.
    None,
}

impl Limit {
    fn verdict(self, name: &str, to_peer: Ratio, to_backing: Ratio, missed: &mut u32) -> String {
        match self {
            Limit::OfPeer(limit) => paired::verdict(name, to_peer, limit, missed),
            Limit::OfBacking { scheduled, on_one } => {
                let is_on_one = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
                let limit = if is_on_one { on_one } else { scheduled };
                format!("{} of backing", paired::verdict(name, to_backing, limit, missed))
            }
            Limit::None => "told only".to_owned(),
        }
    }
}

/// What the workloads share.
pub struct Bench {
    /// The archive that is unpacked.
    pub tar: PathBuf,
    /// What is written.
    pub block: Block,
    /// A directory on the disk that everything is on.
    pub disk: PathBuf,
}

/// Files of the tree that is unpacked and removed.
pub const FILES: u64 = 5_000;

/// Measures the workloads that were asked for on a disk of their own, and ends with 1 when a limit was passed.
pub fn main(workloads: &[Workload]) -> ExitCode {
    // a file system with a journal, made for this: others have hours behind them, and ext4 without a journal looks for an inode
    // the longer the more were removed just now
    let outer = Sandbox::new();
    let disk = (tools::root() && tools::present(&["mkfs.ext4"]))
        .then(|| Disk::new(&outer, "disk", FileSystem::Ext4, 12 << 10));
    let sandbox = disk.as_ref().map_or_else(Sandbox::new, |disk| Sandbox::within(disk.path()));
    println!("{}\n", paired::machine(sandbox.root()));
    let tar = prepare_tree(&sandbox);
    let bench = Bench { block: Block::new(), tar, disk: sandbox.root().to_owned() };
    let mut subjects = vec![Subject::bare(&sandbox), Subject::peer(&sandbox), Subject::reelfs(&sandbox)];
    subjects.extend(Subject::before(&sandbox));
    subjects.extend(Subject::floor(&sandbox));
    let missed = print_table(&bench, &subjects, workloads);
    println!("\ntimes as multiples of the backing directory's: median of {} rounds (least-most)", paired::rounds());
    subjects.into_iter().for_each(Subject::end);
    ExitCode::from(u8::from(missed > 0 && paired::is_judged()))
}

fn prepare_tree(sandbox: &Sandbox) -> PathBuf {
    let tree = sandbox.directory("source");
    let mut random = Random::new("source", 0);
    for number in 0..FILES {
        let directory = tree.join(format!("part{}/unit{}", number % 13, number % 131));
        fs::create_dir_all(&directory).expect("a directory");
        let length = random.below(1 + 60 * (number % 17) * (number % 17));
        fs::write(directory.join(format!("file{number}")), random.bytes(length)).expect("a file");
    }
    tools::shell(sandbox.root(), "tar -cf source.tar -C source .");
    sandbox.path("source.tar")
}

/// Flushes of the disk that a directory lies on, as `/proc/diskstats` counts them.
fn flushes(directory: &Path) -> u64 {
    let device = fs::metadata(directory).expect("a directory").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stats = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let of_it = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some(&major.to_string()) && words.next() == Some(&minor.to_string())
    };
    let line = stats.lines().find(of_it).unwrap_or_default();
    line.split_whitespace().nth(18).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Measures what is asked for and prints a row for each; how many limits were passed.
fn print_table(bench: &Bench, subjects: &[Subject], workloads: &[Workload]) -> u32 {
    let names: Vec<&'static str> = subjects.iter().map(|subject| subject.name).collect();
    // what else is compared: who, and with whom
    let others: Vec<(&str, &str)> =
        [("reelfs", "before"), ("reelfs", "floor"), ("floor", "peer"), ("floor", "backing")]
            .into_iter()
            .filter(|(of, to)| names.contains(of) && names.contains(to))
            .collect();
    let titles: String = others.iter().map(|(of, to)| format!("{of} / {to} | ")).collect();
    println!(
        "| work | backing directory | peer | reelfs | reelfs / peer | limit | {titles}processor: {} | flushes |",
        names[1..].join(", ")
    );
    println!("|---|---|---|---|---|---|{}---|---|", "---|".repeat(others.len()));
    let mut missed = 0;
    // `cargo bench --bench mount -- untar` measures the rows that say untar
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |workload: &&Workload| asked.is_empty() || asked.iter().any(|word| workload.name.contains(word));
    for workload in workloads.iter().filter(wanted) {
        let paired = Paired::measure(&names, paired::rounds(), |subject| measure(bench, workload, &subjects[subject]));
        subjects.iter().for_each(Subject::export);
        let ratio = paired.ratio("reelfs", "peer");
        let verdict = workload.limit.verdict(workload.name, ratio, paired.ratio("reelfs", "backing"), &mut missed);
        let others: String = others.iter().map(|(of, to)| format!("{} | ", paired.ratio(of, to))).collect();
        let processor: Vec<String> =
            names[1..].iter().map(|name| paired.processor(name).as_millis().to_string()).collect();
        let flushes: Vec<String> = names.iter().map(|name| paired.flushes(name).to_string()).collect();
        println!(
            "| {} | {:.1} ms | {} | {} | {ratio} | {} | {others}{} ms | {} |",
            workload.name,
            paired.median("backing").as_secs_f64() * 1e3,
            paired.ratio("peer", "backing"),
            paired.ratio("reelfs", "backing"),
            verdict,
            processor.join(", "),
            flushes.join(", "),
        );
    }
    missed
}

/// One workload on one subject.
fn measure(bench: &Bench, workload: &Workload, subject: &Subject) -> Sample {
    let place = &subject.view;
    (workload.prepare)(place, bench);
    if workload.is_cold {
        subject.export();
    }
    // what was prepared, and what others left, is on the disk before the clock runs
    tools::run("sync", &["-f", bench.disk.to_str().expect("UTF-8")]);
    let (used, before, begin) = (subject.processor_time(), flushes(&bench.disk), wait::now());
    (workload.run)(place, bench);
    let took = begin.elapsed();
    let sample = Sample { took, flushes: flushes(&bench.disk) - before, processor: subject.processor_time() - used };
    (workload.after)(place, bench);
    sample
}
