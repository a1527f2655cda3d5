//! `reelfs mark`: names this moment.

use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  reelfs mark docs before-upgrade --note 'pg 17'\n  reelfs restore --tapes DIR --at marker:before-upgrade --to ~/back"
)]
pub(crate) struct MarkArgs {
    /// The group
    pub group: GroupName,
    /// What the moment is called; names may repeat, the newest counts
    pub name: String,
    /// A line about it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
}

pub(crate) fn run(arguments: &MarkArgs, context: &Context) -> Result<()> {
    crate::point::check_marker_name(&arguments.name)?;
    let _group = context.state.existing(&arguments.group)?;
    Err(super::not_wired("mark"))
}
