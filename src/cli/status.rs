//! `reelfs status`.

use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  reelfs status\n  reelfs status docs --json")]
pub(crate) struct StatusArgs {
    /// Only this group
    pub group: Option<GroupName>,
}

pub(crate) fn run(arguments: &StatusArgs, context: &Context) -> Result<()> {
    if let Some(name) = &arguments.group {
        context.state.existing(name)?;
    }
    Err(super::not_wired("status"))
}
