//! `reelfs base copy`: the ground that later tapes stand on.

use std::path::PathBuf;

use clap::Subcommand;
use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::cli::tape::report;
use crate::error::Result;
use crate::export::Exported;
use crate::progress::Progress;
use crate::request::{self, Request};

#[derive(Debug, Subcommand)]
pub(crate) enum BaseVerb {
    /// Copy what is in the directory now to a base tape, while it is in use
    #[command(after_help = "Example:\n  reelfs base copy docs --to /media/disk")]
    Copy(BaseCopyArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct BaseCopyArgs {
    /// The group
    pub group: GroupName,
    /// The directory that gets the tapes
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

pub(crate) fn run(verb: &BaseVerb, context: &Context) -> Result<()> {
    let BaseVerb::Copy(arguments) = verb;
    let group = context.state.existing(&arguments.group)?;
    let request = Request::BaseCopy { to: super::absolute(&arguments.to)? };
    let mut progress = Progress::new(&context.output, "base copy");
    let mut step = |step: request::Step| progress.set(step.done, step.total, "");
    let exported: Exported = request::run(&group, &request, &context.output, &mut step)?;
    drop(progress);
    report(&arguments.group, &exported, context)
}
