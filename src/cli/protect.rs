//! `reelfs protect`: all in one.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::Context;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  reelfs protect ~/thesis ~/thesis --tapes /media/disk          in place
  reelfs protect /data/docs /srv/docs --tapes /mnt/nas --every 1h

Run again, after a reboot say, it goes on where it stopped.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProtectArgs {
    /// The directory to protect
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// Where to work on it from now on; may be the same directory
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// The directory that gets the tapes
    #[arg(long, value_name = "DIR")]
    pub tapes: PathBuf,
    /// How often a tape is written
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    pub every: Duration,
}

pub(crate) fn run(arguments: &ProtectArgs, context: &Context) -> Result<()> {
    let _ = (&arguments.source, &arguments.mountpoint, &arguments.tapes, arguments.every, context.now());
    Err(super::not_wired("protect"))
}
