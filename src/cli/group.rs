//! `reelfs group`: make, list, show, delete.

mod create;
mod delete;
mod list;
pub(crate) mod set;
mod show;

use clap::Subcommand;
use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::error::Result;

#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// Make a group: a directory to protect and a journal of fixed size
    Create(Box<create::CreateArgs>),
    /// The groups there are
    List(ListArgs),
    /// What a group is
    Show(NameArgs),
    /// Change what a group does by itself, also while it is mounted
    Set(Box<set::SetArgs>),
    /// Delete a group and its journal; the protected directory and the tapes stay
    Delete(delete::DeleteArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {}

#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    /// The group
    pub group: GroupName,
}

pub(crate) fn run(verb: GroupVerb, context: &Context) -> Result<()> {
    match verb {
        GroupVerb::Create(arguments) => create::run(&arguments, context),
        GroupVerb::List(ListArgs {}) => list::run(context),
        GroupVerb::Show(arguments) => show::run(&arguments, context),
        GroupVerb::Set(arguments) => set::run(&arguments, context),
        GroupVerb::Delete(arguments) => delete::run(&arguments, context),
    }
}
