//! `reelfs mark`: names this moment.

use reelfs_journal::GroupName;
use serde::Serialize;

use crate::cli::Context;
use crate::error::Result;
use crate::point::check_marker_name;
use crate::request::{self, Marked, Request};
use crate::when::rfc3339;

const EXAMPLES: &str = "\
Example:
  reelfs mark docs before-upgrade --note 'pg 17'
  reelfs restore --tapes DIR --at marker:before-upgrade --to ~/back";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MarkArgs {
    /// The group
    pub group: GroupName,
    /// What the moment is called; names may repeat, the newest counts
    pub name: String,
    /// A line about it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
}

#[derive(Serialize)]
struct MarkedAt<'a> {
    group: &'a GroupName,
    marker: &'a str,
    seq: u64,
    time: String,
}

pub(crate) fn run(arguments: &MarkArgs, context: &Context) -> Result<()> {
    check_marker_name(&arguments.name)?;
    let group = context.state.existing(&arguments.group)?;
    let request = Request::Mark { name: arguments.name.clone(), note: arguments.note.clone() };
    let marked: Marked = request::run(&group, &request, &context.output, &mut |_| {})?;
    context.output.document(&MarkedAt {
        group: &arguments.group,
        marker: &arguments.name,
        seq: marked.seq.0,
        time: rfc3339(marked.time),
    })?;
    let at = context.output.zone.text(marked.time);
    context.output.confirm(format!("marker {} at {at} seq {}", arguments.name, marked.seq))
}
