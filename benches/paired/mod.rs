//! Paired measurement: every round measures every subject, in an order that rotates, and what is told is the median of
//! the rounds' ratios with their spread. A machine that is busy for a while is busy for all of them.
#![allow(dead_code, reason = "each benchmark uses another part of it")]

use std::time::Duration;

/// What one round measured of one subject.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Wall time.
    pub took: Duration,
    /// Flushes that the disk was asked for, 0 where it does not say.
    pub flushes: u64,
    /// Processor time of the daemon.
    pub processor: Duration,
}

/// The samples of one workload: a row a subject, a column a round.
pub struct Paired {
    subjects: Vec<&'static str>,
    samples: Vec<Vec<Sample>>,
}

/// Median, least and greatest of the rounds' ratios.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.least, self.most)
    }
}

impl Paired {
    /// Measures so many rounds; `measure` gets the index of a subject.
    pub fn measure(subjects: &[&'static str], rounds: usize, mut measure: impl FnMut(usize) -> Sample) -> Paired {
        let mut samples = vec![Vec::with_capacity(rounds); subjects.len()];
        for round in 0..rounds {
            for turn in 0..subjects.len() {
                let subject = (round + turn) % subjects.len();
                samples[subject].push(measure(subject));
            }
        }
        Paired { subjects: subjects.to_vec(), samples }
    }

    fn index(&self, subject: &str) -> usize {
        self.subjects.iter().position(|known| *known == subject).expect("a subject of this measurement")
    }

    /// Median wall time of a subject.
    pub fn median(&self, subject: &str) -> Duration {
        let mut times: Vec<Duration> = self.samples[self.index(subject)].iter().map(|sample| sample.took).collect();
        times.sort();
        times[times.len() / 2]
    }

    /// Median processor time of a subject's daemon.
    pub fn processor(&self, subject: &str) -> Duration {
        let mut times: Vec<Duration> =
            self.samples[self.index(subject)].iter().map(|sample| sample.processor).collect();
        times.sort();
        times[times.len() / 2]
    }

    /// Median count of flushes of a subject.
    pub fn flushes(&self, subject: &str) -> u64 {
        let mut counts: Vec<u64> = self.samples[self.index(subject)].iter().map(|sample| sample.flushes).collect();
        counts.sort_unstable();
        counts[counts.len() / 2]
    }

    /// Time of one subject in times of another, round by round.
    pub fn ratio(&self, of: &str, to: &str) -> Ratio {
        let pairs = self.samples[self.index(of)].iter().zip(&self.samples[self.index(to)]);
        let mut ratios: Vec<f64> = pairs.map(|(of, to)| of.took.as_secs_f64() / to.took.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        Ratio { median: ratios[ratios.len() / 2], least: ratios[0], most: ratios[ratios.len() - 1] }
    }
}

/// The machine, for whoever reads the figures later.
pub fn machine(directory: &std::path::Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let of = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split(':').next_back().unwrap_or_default().trim().to_owned()
    };
    let (processor, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let processors = processor.lines().filter(|line| line.starts_with("processor")).count();
    let disk =
        std::process::Command::new("findmnt").args(["-no", "SOURCE,FSTYPE,OPTIONS", "-T"]).arg(directory).output();
    format!(
        "{processors} x {}, {} of memory, Linux {}, directories on {}",
        of(&processor, "model name"),
        of(&memory, "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
        disk.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    )
}

/// Rounds to measure: `REELFS_BENCH_ROUNDS`, or 7.
pub fn rounds() -> usize {
    std::env::var("REELFS_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

/// Whether a limit that is passed is a failure: not when fewer rounds than 5 were asked for, which only show that all of it runs.
pub fn is_judged() -> bool {
    rounds() >= 5
}

/// Says whether a limit was kept; the program ends with 1 when one was not.
pub fn verdict(what: &str, ratio: Ratio, limit: f64, missed: &mut u32) -> String {
    if ratio.median <= limit {
        return format!("within {limit}");
    }
    *missed += 1;
    eprintln!("{what}: {ratio} passes the limit of {limit}");
    format!("**passes {limit}**")
}
