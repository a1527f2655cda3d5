//! `reelfs mount`.

use std::path::PathBuf;

use reelfs_journal::GroupName;

use crate::cli::Context;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  reelfs mount docs /srv/docs
  reelfs mount docs /data/docs                  in place: over the protected directory itself
  reelfs mount docs /srv/docs -f -o allow_other

Options for -o: ro, allow_other, allow_root, nonempty, and those of mount(8) (nodev, nosuid, noexec, noatime and their
opposites); words of fstab that mean nothing here are passed over.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MountArgs {
    /// The group
    pub group: GroupName,
    /// Where to mount it: an empty directory, or the protected directory itself
    pub mountpoint: PathBuf,
    /// Stay in the foreground, until unmounted or Ctrl-C
    #[arg(short, long)]
    pub foreground: bool,
    /// Mount options, separated by commas; a backslash takes a comma into a value
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Refuse to mount when something changed behind the mount, instead of adopting it
    #[arg(long)]
    pub strict: bool,
    /// The foreground process behind a mount in the background: says on stdout, once, how the start went
    #[arg(long, hide = true)]
    pub ready_on_stdout: bool,
}

pub(crate) fn run(arguments: &MountArgs, context: &Context) -> Result<()> {
    let _ = (
        &arguments.mountpoint,
        arguments.foreground,
        &arguments.options,
        arguments.strict,
    );
    let _ = arguments.ready_on_stdout;
    let _group = context.state.existing(&arguments.group)?;
    Err(super::not_wired("mount"))
}
