//! `reelfs base copy`: the ground that later tapes stand on.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::Context;
use crate::cli::tape::report;
use crate::error::Result;
use crate::export::Exported;
use crate::progress::Progress;
use crate::request::{self, Request};
use crate::scope::Scope;

#[derive(Debug, Subcommand)]
pub(crate) enum BaseVerb {
    /// Copy what is in the directory now to a base tape, while it is in use
    #[command(
        after_help = "Examples:\n  reelfs base copy docs --to /media/disk\n  reelfs base copy shop/logs --to /media/disk    \
                      one volume of a group of several\n  reelfs base copy docs --to /media/disk --through-journal\n\nThrough \
                      the journal the copy consists of records on update tapes, and no base tape is needed. It goes\nthrough \
                      in stages when the journal is smaller than the directory, and goes on where it was\ninterrupted when \
                      it is started again, also by: reelfs pair resync GROUP"
    )]
    Copy(BaseCopyArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct BaseCopyArgs {
    /// The group, or one volume of it
    #[arg(value_name = "GROUP[/VOLUME]")]
    pub pair: Scope,
    /// The directory that gets the tapes
    #[arg(long, value_name = "DIR", required_unless_present = "through_journal")]
    pub to: Option<PathBuf>,
    /// As records through the journal, not straight to a base tape; exports to the known directories, too
    #[arg(long)]
    pub through_journal: bool,
}

pub(crate) fn run(verb: &BaseVerb, context: &Context) -> Result<()> {
    let BaseVerb::Copy(arguments) = verb;
    let group = context.state.existing(&arguments.pair.group)?;
    let volume = arguments.pair.volume.clone();
    let to = arguments.to.as_deref().map(super::absolute).transpose()?;
    let request = match to {
        Some(to) if !arguments.through_journal => Request::BaseCopy { to, volume },
        to => Request::BaseThrough { to, volume },
    };
    let mut progress = Progress::new(&context.output, "base copy");
    let mut step = |step: request::Step| progress.set(step.done, step.total, "");
    let exported: Exported = request::run(&group, &request, &context.output, &mut step)?;
    drop(progress);
    report(&arguments.pair.group, &exported, context)
}
