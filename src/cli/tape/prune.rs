//! `reelfs tape prune`: removes tapes that the settings of their group no longer keep.

use std::path::PathBuf;

use reelfs_journal::GroupName;
use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::output::count;
use crate::request::{self, Request};
use crate::retention::Pruned;
use crate::size::Size;

#[derive(Debug, clap::Args)]
pub(crate) struct TapePruneArgs {
    /// The group, whose settings say what is kept
    pub group: GroupName,
    /// The directory of tapes [default: every directory that the group knows]
    #[arg(long, value_name = "DIR")]
    pub tapes: Option<PathBuf>,
    /// Only say what would be removed, and why the others stay
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    group: &'a GroupName,
    dry_run: bool,
    #[serde(flatten)]
    pruned: &'a Pruned,
}

pub(super) fn run(arguments: &TapePruneArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let dir = arguments.tapes.as_deref().map(crate::cli::absolute).transpose()?;
    let request = Request::Prune { dir, dry_run: arguments.dry_run };
    let pruned: Pruned = request::run(&group, &request, &context.output, &mut |_| {})?;
    let (output, name) = (&context.output, &arguments.group);
    output.document(&Report { group: name, dry_run: arguments.dry_run, pruned: &pruned })?;
    for tape in &pruned.tapes {
        output.say(tape.display())?;
    }
    for kept in pruned.kept.iter().filter(|_| arguments.dry_run) {
        output.say(format!("{}  stays: {}", kept.tape.display(), kept.why))?;
    }
    let (tapes, bytes) = (count(pruned.tapes.len() as u64, "tape"), Size(pruned.bytes));
    let verb = if arguments.dry_run { "would be removed" } else { "removed" };
    output.confirm(format!("{name}: {tapes} {verb}, {bytes}"))?;
    let waited = pruned.kept.len() as u64 - pruned.needed;
    if waited > 0 {
        let waited = count(waited, "older tape");
        output.confirm(format!(
            "  {waited} kept: a site or a replica has not applied them: reelfs journal show {name}"
        ))?;
    }
    if pruned.needed > 0 {
        let needed = count(pruned.needed, "older tape");
        output.confirm(format!(
            "  {needed} kept: what is kept stands on them, until a new base: reelfs base copy {name} --to DIR"
        ))?;
    }
    match pruned.damaged.first() {
        None => Ok(()),
        Some(base) => {
            let message = format!("{} does not read back: what is older than it was kept", base.display());
            let hint = format!(
                "remove it, so that an older base counts, and make a new one: reelfs base copy {name} --to DIR"
            );
            Err(Error::new(ErrorKind::Damaged, message).hint(hint))
        }
    }
}
