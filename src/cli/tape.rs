//! `reelfs tape`: write, list, show and verify tapes.

use std::path::PathBuf;

use clap::Subcommand;
use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::error::Result;

#[derive(Debug, Subcommand)]
pub(crate) enum TapeVerb {
    /// Write what is not yet in a directory as sealed tapes, and free the journal
    #[command(
        after_help = "Prints each tape made. Nothing new is not an error.\n\nExample:\n  reelfs tape export docs --to /media/disk"
    )]
    Export(TapeExportArgs),
    /// The tapes of directories, in order, with gaps
    #[command(after_help = "Example:\n  reelfs tape list /media/disk")]
    List(TapePathsArgs),
    /// What is on one tape
    #[command(after_help = "Example:\n  reelfs tape show /media/disk/docs-*.upd.reel.tar.zst")]
    Show(TapeShowArgs),
    /// Read tapes whole and check every digest
    #[command(
        after_help = "Exit code 19 when one is truncated or altered.\n\nExample:\n  reelfs tape verify /media/disk"
    )]
    Verify(TapePathsArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct TapeExportArgs {
    /// The group
    pub group: GroupName,
    /// The directory that gets the tapes
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TapePathsArgs {
    /// Tapes, or directories of tapes
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TapeShowArgs {
    /// The tape
    pub tape: PathBuf,
}

pub(crate) fn run(verb: &TapeVerb, context: &Context) -> Result<()> {
    match verb {
        TapeVerb::Export(arguments) => {
            let _group = context.state.existing(&arguments.group)?;
            let _to = &arguments.to;
            Err(super::not_wired("tape export"))
        }
        TapeVerb::List(arguments) | TapeVerb::Verify(arguments) => {
            let _paths = &arguments.paths;
            Err(super::not_wired("tape list"))
        }
        TapeVerb::Show(arguments) => {
            let _tape = &arguments.tape;
            Err(super::not_wired("tape show"))
        }
    }
}
