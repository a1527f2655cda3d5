//! `reelfs points`: what one can go back to.

use std::path::PathBuf;

use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  reelfs points docs\n  reelfs points --tapes /media/disk")]
#[command(group(clap::ArgGroup::new("where").required(true).args(["group", "tapes"])))]
pub(crate) struct PointsArgs {
    /// The group: its journal, and the directories it was exported to
    pub group: Option<GroupName>,
    /// A directory of tapes instead: nothing else is needed
    #[arg(long, value_name = "DIR")]
    pub tapes: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &PointsArgs, context: &Context) -> Result<()> {
    let _ = (&arguments.group, &arguments.tapes, context.now());
    Err(super::not_wired("points"))
}
