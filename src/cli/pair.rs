//! `reelfs pair`: split and resync.

use clap::Subcommand;
use reelfs_journal::GroupName;
use reelfs_volume::Resynced;
use serde::Serialize;

use crate::cli::Context;
use crate::error::Result;
use crate::output::count;
use crate::pair::Done;
use crate::progress::Progress;
use crate::request::{self, Request, Step};
use crate::size::Size;

#[derive(Debug, Subcommand)]
pub(crate) enum PairVerb {
    /// Stop journaling: applications go on, and what changes is only noted
    #[command(after_help = "Example:\n  reelfs pair split docs")]
    Split(PairArgs),
    /// Journal again, and tell what changed meanwhile; exports to the known directories when the journal is full
    #[command(after_help = "Example:\n  reelfs pair resync docs\n\nMoments between the suspension and the end of the \
                            resync cannot be restored.")]
    Resync(PairArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct PairArgs {
    /// The group
    pub group: GroupName,
}

#[derive(Serialize)]
struct Report<'a, T> {
    group: &'a GroupName,
    state: &'static str,
    #[serde(flatten)]
    what: T,
}

pub(crate) fn run(verb: &PairVerb, context: &Context) -> Result<()> {
    match verb {
        PairVerb::Split(arguments) => split(&arguments.group, context),
        PairVerb::Resync(arguments) => resync(&arguments.group, context),
    }
}

fn split(name: &GroupName, context: &Context) -> Result<()> {
    let group = context.state.existing(name)?;
    let split: Done = request::run(&group, &Request::Split, &context.output, &mut |_| {})?;
    context.output.document(&Report { group: name, state: "SUSP", what: split })?;
    context.output.confirm(match split.already {
        true => format!("{name} is suspended already"),
        false => {
            format!("{name}: PAIR -> SUSP (user); what changes is noted, bring it back: reelfs pair resync {name}")
        }
    })
}

fn resync(name: &GroupName, context: &Context) -> Result<()> {
    let group = context.state.existing(name)?;
    let mut progress = Progress::new(&context.output, "resync");
    let mut step = |step: Step| progress.set(step.done, step.total, "");
    let resynced: Resynced = request::run(&group, &Request::Resync, &context.output, &mut step)?;
    drop(progress);
    context.output.document(&Report { group: name, state: "PAIR", what: resynced })?;
    let (directories, objects) = (count(resynced.directories, "directory"), count(resynced.objects, "object"));
    if resynced == Resynced::default() {
        return context.output.confirm(format!("{name} is PAIR; nothing had to be told again"));
    }
    context.output.confirm(format!(
        "{name}: SUSP -> COPY -> PAIR; told again: the names in {directories}, {objects}, {}",
        Size(resynced.bytes)
    ))
}
