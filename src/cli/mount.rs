//! `reelfs mount`: in the background unless asked otherwise, and back only when the mount is live.

use std::ffi::OsString;
use std::path::PathBuf;

use reelfs_fuse::MountOptions;
use reelfs_journal::GroupName;
use serde::Serialize;

use crate::background;
use crate::cli::Context;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::exporter;
use crate::group_file::GroupFile;
use crate::mount_options::{self, Words};
use crate::mountpoint::Mountpoint;
use crate::open_group::OpenGroup;
use crate::state::GroupDir;

const EXAMPLES: &str = "\
Examples:
  reelfs mount docs /srv/docs
  reelfs mount docs /data/docs                  in place: over the protected directory itself
  reelfs mount docs /srv/docs -f -o noexec

Options for -o: allow_other (root's default), nonempty, strict, ro, nodev, nosuid, noexec, noatime, sync, dirsync.
Words of fstab that mean nothing here are passed over.";

/// Event loops at most; more than there are processors only pass requests to and fro.
const THREADS_MAX: usize = 4;

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
    /// The process behind a mount in the background: says on stdout, once, that the mount is live
    #[arg(long, hide = true)]
    pub ready_on_stdout: bool,
}

#[derive(Serialize)]
struct MountedAt<'a> {
    group: &'a GroupName,
    mountpoint: String,
    in_place: bool,
    pid: u32,
}

pub(crate) fn run(arguments: &MountArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let file = GroupFile::load(&group)?;
    let words = mount_options::parse(&arguments.options)?;
    let point = Mountpoint::check(&context.state, &file, &arguments.mountpoint, words.nonempty, &context.output)?;
    if arguments.ready_on_stdout {
        return serve(arguments, context, &group, &words, &point, || background::announce(&group));
    }
    if arguments.foreground {
        return serve(arguments, context, &group, &words, &point, || {
            confirm(context, &file, &point, std::process::id())
        });
    }
    let pid = background::start(&child_arguments(arguments, context, &point))?;
    confirm(context, &file, &point, pid)
}

fn confirm(context: &Context, file: &GroupFile, point: &Mountpoint, pid: u32) -> Result<()> {
    let (name, shown) = (&file.name, point.path.display());
    context.output.document(&MountedAt {
        group: name,
        mountpoint: shown.to_string(),
        in_place: point.in_place,
        pid,
    })?;
    let place = if point.in_place { " (in place)" } else { "" };
    context.output.confirm(format!("{name} is mounted at {shown}{place}"))?;
    if file.base.is_none() {
        let next = format!("  next: a base copy, which restores stand on: reelfs base copy {name} --to DIR");
        context.output.confirm(next)?;
    }
    Ok(())
}

fn serve(
    arguments: &MountArgs,
    context: &Context,
    group: &GroupDir,
    words: &Words,
    point: &Mountpoint,
    live: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let open = OpenGroup::open(group, "reelfs mount", arguments.strict || words.strict, &context.output)?;
    let options = mount_options(arguments.group.as_str(), words, point);
    let daemon = Daemon::start(open, &options)?;
    if let Err(error) = live() {
        // whoever asked has gone or cannot be told: no mount stays behind
        reelfs_fuse::unmount(&point.path, true).map_err(|busy| crate::daemon::unmount_error(&point.path, busy))?;
        daemon.wait(|_| Ok(()))?;
        return Err(error);
    }
    exporter::serve(daemon)
}

/// What the mount is made with; root's mounts are for everybody, as with mount(8).
pub(crate) fn mount_options(source: &str, words: &Words, point: &Mountpoint) -> MountOptions {
    MountOptions {
        mountpoint: point.path.clone(),
        source: source.to_owned(),
        allow_other: words.allow_other || rustix::process::geteuid().is_root(),
        kernel_options: words.kernel.clone(),
        threads: std::thread::available_parallelism().map_or(2, usize::from).min(THREADS_MAX),
    }
}

fn child_arguments(arguments: &MountArgs, context: &Context, point: &Mountpoint) -> Vec<OsString> {
    let mut list: Vec<OsString> = ["mount", arguments.group.as_str()].map(OsString::from).to_vec();
    list.push(point.path.clone().into());
    list.extend(["--ready-on-stdout", "--state-dir"].map(OsString::from));
    list.push(context.state.root().into());
    for option in &arguments.options {
        list.extend([OsString::from("-o"), option.into()]);
    }
    let flags = [(arguments.strict, "--strict"), (context.output.json, "--json"), (context.output.quiet, "--quiet")];
    list.extend(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| OsString::from(flag)));
    // the log says at least what was asked and when
    list.extend((0..context.output.verbose.max(u8::from(!context.output.quiet))).map(|_| OsString::from("-v")));
    list
}
