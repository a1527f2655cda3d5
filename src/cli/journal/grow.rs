//! `reelfs journal grow`: a larger journal, with everything that the old one held.

use reelfs_journal::GroupName;
use serde::Serialize;

use crate::cli::Context;
use crate::error::Result;
use crate::journal_grow::{self, Grown};
use crate::progress::Progress;
use crate::size::Size;

const EXAMPLES: &str = "\
Example:
  reelfs journal grow docs --size 4GiB

The group may be mounted and in use. While the larger journal is made, both need room on the disk of the journal.
Whatever interrupts this, the group has the one or the other, whole.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GrowArgs {
    /// The group
    pub group: GroupName,
    /// The new size, larger than the present one
    #[arg(long, value_name = "SIZE")]
    pub size: Size,
}

#[derive(Serialize)]
struct Report<'a> {
    group: &'a GroupName,
    #[serde(flatten)]
    grown: Grown,
}

pub(super) fn run(arguments: &GrowArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let mut progress = Progress::new(&context.output, "grow");
    let grown = journal_grow::run(&group, arguments.size, &context.output, &mut |done, total| {
        progress.set(done, total, "");
    })?;
    drop(progress);
    context.output.document(&Report { group: &arguments.group, grown: grown.clone() })?;
    context.output.confirm(format!(
        "{}: journal {} grown from {} to {}",
        arguments.group,
        grown.path.display(),
        Size(grown.before_bytes),
        Size(grown.size_bytes)
    ))
}
