//! `reelfs journal pool`: journal volumes prepared beforehand.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::cli::Context;
use crate::error::Result;
use crate::pool::{Condition, PoolName, PoolVolume, Pools};
use crate::progress::Progress;
use crate::size::Size;

#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    /// Prepare a journal volume and put it into a pool; one that is prepared already is put there as it is
    #[command(after_help = "Examples:\n  reelfs journal pool add fast /mnt/ssd --size 20GiB\n  \
                            reelfs journal pool add fast /mnt/ssd/spare.jvol")]
    Add(AddArgs),
    /// The pools, what is in them, and who has it
    #[command(after_help = "Example:\n  reelfs journal pool list --json")]
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The pool, made with its first volume: 1 to 32 of a-z, 0-9 and _
    pub pool: PoolName,
    /// The journal volume, or a directory that gets one
    #[arg(value_name = "FILE|DIR")]
    pub at: PathBuf,
    /// Its size, 16 MiB at least [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {}

#[derive(Serialize)]
struct Report {
    pools: Vec<PoolReport>,
}

#[derive(Serialize)]
struct PoolReport {
    pool: String,
    free: usize,
    volumes: Vec<VolumeReport>,
}

#[derive(Serialize)]
struct VolumeReport {
    path: String,
    state: &'static str,
    size_bytes: Option<u64>,
    group: Option<String>,
    trouble: Option<String>,
}

impl VolumeReport {
    fn of(volume: &PoolVolume) -> VolumeReport {
        let (state, size, trouble) = match volume.condition() {
            Condition::Free(size) => ("free", Some(size), None),
            Condition::Taken(size) => ("taken", Some(size), None),
            Condition::Unusable(why) => ("unusable", None, Some(why)),
        };
        VolumeReport {
            path: volume.path.display().to_string(),
            state,
            size_bytes: size.map(|size| size.0),
            group: volume.taken.as_ref().map(|taken| taken.group.to_string()),
            trouble,
        }
    }

    fn line(&self) -> String {
        let size = self.size_bytes.map_or_else(|| "-".to_owned(), |bytes| Size(bytes).to_string());
        let state = match (&self.group, &self.trouble) {
            (_, Some(why)) => format!("unusable: {why}"),
            (Some(group), None) => format!("taken by {group}"),
            (None, None) => self.state.to_owned(),
        };
        format!("  {size:>10}  {}  {state}", self.path)
    }
}

pub(super) fn run(verb: &PoolVerb, context: &Context) -> Result<()> {
    match verb {
        PoolVerb::Add(arguments) => add(arguments, context),
        PoolVerb::List(ListArgs {}) => list(context),
    }
}

fn add(arguments: &AddArgs, context: &Context) -> Result<()> {
    let mut progress = Progress::new(&context.output, "zero-fill");
    let mut pools = Pools::open(&context.state)?;
    let added = pools.add(&arguments.pool, &arguments.at, arguments.size, &mut |done, total| {
        progress.set(done, total, "");
    })?;
    drop(progress);
    let report = VolumeReport::of(&added);
    let size = Size(report.size_bytes.unwrap_or(0));
    context.output.confirm(format!("pool {}: {} added, {size}", arguments.pool, added.path.display()))?;
    context.output.document(&PoolReport {
        pool: arguments.pool.to_string(),
        free: pools.free(&arguments.pool),
        volumes: vec![report],
    })
}

fn list(context: &Context) -> Result<()> {
    let pools = Pools::open(&context.state)?;
    let mut report = Report { pools: Vec::new() };
    for pool in pools.all() {
        let volumes: Vec<VolumeReport> = pool.volumes.iter().map(VolumeReport::of).collect();
        let free = pools.free(&pool.name);
        context.output.say(format!("{}  {free} of {} free", pool.name, volumes.len()))?;
        volumes.iter().try_for_each(|volume| context.output.say(volume.line()))?;
        report.pools.push(PoolReport { pool: pool.name.to_string(), free, volumes });
    }
    if report.pools.is_empty() {
        context.output.note("no pools; make one: reelfs journal pool add POOL DIR --size SIZE");
    }
    context.output.document(&report)
}
