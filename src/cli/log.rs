//! `reelfs log`: what happened, by whom and when.

use std::path::PathBuf;

use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::error::Result;
use crate::point::SPELLINGS;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  reelfs log docs --path 'budget*.ods' --since -3h", after_long_help = SPELLINGS)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["group", "tapes"])))]
pub(crate) struct LogArgs {
    /// The group: its journal, and the directories it was exported to
    pub group: Option<GroupName>,
    /// A directory of tapes instead: nothing else is needed
    #[arg(long, value_name = "DIR")]
    pub tapes: Vec<PathBuf>,
    /// Only paths that match
    #[arg(long, value_name = "GLOB")]
    pub path: Option<String>,
    /// From this point on
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Up to this point
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub until: Option<String>,
}

pub(crate) fn run(arguments: &LogArgs, context: &Context) -> Result<()> {
    let _ = (&arguments.group, &arguments.tapes, &arguments.path);
    for text in [&arguments.since, &arguments.until].into_iter().flatten() {
        context.point(text)?;
    }
    Err(super::not_wired("log"))
}
