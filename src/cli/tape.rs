//! `reelfs tape`: write, list, show, verify, prune and forget tapes.

mod ack;
mod export;
mod forget;
mod list;
mod prune;
mod show;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Subcommand;
use reelfs_archive::{Catalog, Label, LabelVolume, TapeError};
use reelfs_journal::GroupName;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::volumes::Volumes;

pub(super) use export::{MadeTape, line, made_tape, report};

#[derive(Debug, Subcommand)]
pub(crate) enum TapeVerb {
    /// Write what is not yet in a directory as sealed tapes, and free the journal
    #[command(
        after_help = "Prints each tape made. Nothing new is not an error.\n\nExample:\n  reelfs tape export docs --to /media/disk"
    )]
    Export(TapeExportArgs),
    /// A far site says up to where it has applied the tapes of a directory
    #[command(after_help = "Never goes back.\n\nExample:\n  reelfs tape ack docs --upto seq:918244 --from /media/disk")]
    Ack(ack::TapeAckArgs),
    /// The tapes of directories, in order, with gaps
    #[command(after_help = "Example:\n  reelfs tape list /media/disk")]
    List(TapePathsArgs),
    /// What is on one tape
    #[command(after_help = "Example:\n  reelfs tape show /media/disk/docs-*.upd.reel.tar.zst")]
    Show(TapeShowArgs),
    /// Remove tapes that the settings of their group no longer keep, but none that is needed still
    #[command(
        after_help = "What to keep is a setting: reelfs group set docs --keep-tapes 100\nWhat a kept tape stands on stays, and what \
                      an acknowledging site or a replica has not applied.\n\nExample:\n  reelfs tape prune docs -n"
    )]
    Prune(prune::TapePruneArgs),
    /// Keep nothing in the journal any more for a directory of tapes that is gone for good
    #[command(
        after_help = "Its tapes stay where they are. A directory that is forgotten goes on with a new base copy only.\n\nExample:\n  \
                      reelfs tape forget docs --tapes /media/broken-disk"
    )]
    Forget(forget::TapeForgetArgs),
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
        TapeVerb::Export(arguments) => export::run(arguments, context),
        TapeVerb::Ack(arguments) => ack::run(arguments, context),
        TapeVerb::List(arguments) => list::run(arguments, context),
        TapeVerb::Show(arguments) => show::run(arguments, context),
        TapeVerb::Prune(arguments) => prune::run(arguments, context),
        TapeVerb::Forget(arguments) => forget::run(arguments, context),
        TapeVerb::Verify(arguments) => verify::run(arguments, context),
    }
}

/// The tapes in these files and directories; a path that is not there is an error of its own.
fn scan(paths: &[PathBuf]) -> Result<Catalog> {
    for path in paths {
        if let Err(error) = path.metadata() {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Failed,
            };
            return Err(Error::new(kind, format!("{} cannot be looked at", path.display())).because(error));
        }
    }
    let catalog = Catalog::scan(paths).map_err(|error| failure("look at the tapes", error))?;
    if catalog.tapes().is_empty() && catalog.damaged().is_empty() {
        let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::new(ErrorKind::NotFound, format!("there is no tape in {}", shown.join(", "))));
    }
    Ok(catalog)
}

/// A volume that a tape holds records of, in JSON.
#[derive(Debug, Serialize)]
struct VolumeJson {
    index: u16,
    name: String,
}

fn volumes_json(label: &Label) -> Vec<VolumeJson> {
    let volume = |volume: &LabelVolume| VolumeJson { index: volume.index.0, name: volume.called().to_string() };
    label.volumes.iter().map(volume).collect()
}

/// The names of the volumes that a tape holds records of.
fn volumes_text(label: &Label) -> String {
    let names: Vec<String> = label.volumes.iter().map(|volume| volume.called().to_string()).collect();
    names.join(", ")
}

/// The groups of which these tapes know several volumes: each of their tapes must say which ones it holds.
fn of_several_volumes(catalog: &Catalog) -> BTreeSet<Uuid> {
    let mut groups: BTreeMap<Uuid, Volumes> = BTreeMap::new();
    for label in catalog.tapes().iter().map(|tape| &tape.head.label) {
        let volumes = groups.entry(label.group_uuid).or_default();
        label.volumes.iter().for_each(|volume| volumes.add(volume));
    }
    groups.into_iter().filter(|(_, volumes)| volumes.are_several()).map(|(group, _)| group).collect()
}

/// What is wrong with a tape, as an error of the command line.
fn failure(what: &str, error: TapeError) -> Error {
    let kind = match &error {
        TapeError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        TapeError::Io { .. } => ErrorKind::Failed,
        _ => ErrorKind::Damaged,
    };
    Error::new(kind, what).because(error)
}
