//! `reelfs journal repair`: durable records that do not read back are written again from tapes.

use std::path::PathBuf;

use reelfs_journal::GroupName;
use serde::Serialize;

use crate::cli::Context;
use crate::error::{ErrorKind, Result};
use crate::group_file::GroupFile;
use crate::journal_repair::{self, Repaired};
use crate::lock::GroupLock;
use crate::output::count;
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  reelfs journal repair docs --dry-run
  reelfs journal repair docs --from /media/disk

Every durable record is read. What does not read back is written again from a tape that holds the same record, if digests show
that it is the same: all of it, or nothing. The directories of tapes that the group knows are looked at in any case.
The group must not be mounted. Exit code 19 when a damaged record is on none of the tapes.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RepairArgs {
    /// The group
    pub group: GroupName,
    /// A further directory of tapes
    #[arg(long, value_name = "TAPES")]
    pub from: Vec<PathBuf>,
    /// Only say what would be written
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    group: &'a GroupName,
    journal: String,
    dry_run: bool,
    #[serde(flatten)]
    repaired: &'a Repaired,
}

pub(super) fn run(arguments: &RepairArgs, context: &Context) -> Result<()> {
    let (name, output) = (&arguments.group, &context.output);
    let group = context.state.existing(name)?;
    let _lock = GroupLock::take(&group, "reelfs journal repair").map_err(|error| match error.kind() {
        ErrorKind::Busy => error.hint("unmount it first: nobody may write a journal that is being repaired"),
        _ => error,
    })?;
    let file = GroupFile::load(&group)?;
    let mut progress = Progress::records(output, "repair");
    let repaired = journal_repair::run(&file, &arguments.from, arguments.dry_run, &mut |done, total| {
        progress.set(done, total, "");
    })?;
    drop(progress);
    output.document(&Report {
        group: name,
        journal: file.journal.display().to_string(),
        dry_run: arguments.dry_run,
        repaired: &repaired,
    })?;
    for part in &repaired.rewritten {
        let (what, tape) = (part.records(), part.tape.display());
        output.say(format!("{what} (byte {}): {}; {tape} holds it", part.offset, part.reason))?;
    }
    let records = count(repaired.looked_at, "durable record");
    let rewritten = count(repaired.records, "record");
    output.confirm(match (repaired.records, arguments.dry_run) {
        (0, _) => format!("{name}: all of the journal reads back, {records}"),
        (_, true) => format!("{name}: {rewritten} of {records} would be written again"),
        (_, false) => format!("{name}: {rewritten} of {records} written again from tapes, durable and read back"),
    })
}
