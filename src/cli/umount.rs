//! `reelfs umount`.

use std::path::PathBuf;

use crate::cli::Context;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  reelfs umount /srv/docs")]
pub(crate) struct UmountArgs {
    /// Where it is mounted
    pub mountpoint: PathBuf,
}

pub(crate) fn run(arguments: &UmountArgs, _context: &Context) -> Result<()> {
    let _ = &arguments.mountpoint;
    Err(super::not_wired("umount"))
}
