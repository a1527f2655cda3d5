//! `reelfs base copy`: the ground that later tapes stand on.

use std::path::PathBuf;

use clap::Subcommand;
use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::error::Result;

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
    /// The directory that gets the tape
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

pub(crate) fn run(verb: &BaseVerb, context: &Context) -> Result<()> {
    let BaseVerb::Copy(arguments) = verb;
    let _group = context.state.existing(&arguments.group)?;
    let _to = &arguments.to;
    Err(super::not_wired("base copy"))
}
