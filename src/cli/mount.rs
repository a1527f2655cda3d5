//! `reelfs mount`: in the background unless asked otherwise, and back only when the mount is live.

mod former;
mod written;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use reelfs_fuse::MountOptions;
use reelfs_journal::{GroupName, VolumeName};
use serde::Serialize;

use crate::background;
use crate::cli::Context;
use crate::daemon::{Daemon, Live};
use crate::error::{Error, ErrorKind, Result};
use crate::exporter;
use crate::group_file::{GroupFile, VolumeEntry};
use crate::mount_options::{self, Passthrough, Words};
use crate::mountpoint::Mountpoint;
use crate::mounts;
use crate::open_group::OpenGroup;
use crate::request::{self, FurtherMount, Request};
use crate::scope::Scope;
use crate::state::GroupDir;
use crate::systemd::{self, Patience};

const EXAMPLES: &str = "\
Examples:
  reelfs mount docs /srv/docs
  reelfs mount docs /data/docs                  in place: over the protected directory itself
  reelfs mount docs /srv/docs -f -o noexec
  reelfs mount shop/logs /srv/logs              one volume of a group of several

Options for -o: allow_other (root's default), nonempty, strict, no_control_dir, ro, nodev, nosuid, noexec, noatime,
sync, dirsync, passthrough=auto|on|off, awake=auto|on|off (idle processors do not halt while requests come in rows;
auto: on small virtual machines, by root). Words of fstab that mean nothing here are passed over.

In the mount, .reelfs/position, lag and status can be read, and echo NAME >.reelfs/mark sets a marker.

mount(8) and fstab mount groups, too, when they find the program under their names:
  ln -s \"$(command -v reelfs)\" /sbin/mount.reelfs; ln -s mount.reelfs /sbin/mount.fuse.reelfs
  mount -t reelfs docs /srv/docs
In a line of fstab (--print-fstab) state_dir=DIR stands for --state-dir.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MountArgs {
    /// The group, or GROUP/VOLUME when it has several volumes
    #[arg(value_name = "GROUP[/VOLUME]")]
    pub pair: Scope,
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
    /// When the kernel reads the volume's files itself, through read-only handles [default: auto]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub passthrough: Option<Passthrough>,
    /// Give up, with exit code 17, when a former mount has not ended or the process of this one is not ready after so long, each
    /// [default: as long as recovery takes]
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    #[arg(conflicts_with_all = ["foreground", "print_fstab", "print_unit"])]
    pub wait: Option<Duration>,
    /// Mount nothing, and print the line for /etc/fstab
    #[arg(long, conflicts_with_all = ["foreground", "print_unit"])]
    pub print_fstab: bool,
    /// Mount nothing, and print a service for systemd
    #[arg(long, conflicts_with = "foreground")]
    pub print_unit: bool,
    /// The process behind a mount in the background: says on stdout, once, that the mount is live
    #[arg(long, hide = true)]
    pub ready_on_stdout: bool,
    /// Say nothing when it is mounted, as mount(8) does.
    #[arg(skip)]
    pub silent: bool,
}

impl MountArgs {
    /// As mount(8) mounts: in the background, and without a word.
    pub(crate) fn in_silence(pair: Scope, mountpoint: PathBuf) -> MountArgs {
        MountArgs {
            pair,
            mountpoint,
            foreground: false,
            options: Vec::new(),
            strict: false,
            passthrough: None,
            wait: None,
            print_fstab: false,
            print_unit: false,
            ready_on_stdout: false,
            silent: true,
        }
    }
}

#[derive(Serialize)]
struct MountedAt<'a> {
    group: &'a GroupName,
    volume: &'a VolumeName,
    mountpoint: String,
    in_place: bool,
    pid: u32,
}

pub(crate) fn run(arguments: &MountArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.pair.group)?;
    let file = GroupFile::load(&group)?;
    let volume = file.volume(arguments.pair.volume.as_ref())?;
    let words = words(arguments)?;
    if arguments.print_fstab || arguments.print_unit {
        return written::print(arguments, context, &file, volume);
    }
    let (nonempty, output) = (words.nonempty, &context.output);
    if !arguments.ready_on_stdout {
        former::wait(&group, &volume.name, context, (arguments.silent, arguments.wait))?;
    }
    let point = Mountpoint::check(&context.state, &file, &volume.pvol, &arguments.mountpoint, nonempty, output)?;
    let wanted = Wanted { file: &file, volume, point: &point };
    if arguments.ready_on_stdout {
        return serve(arguments, context, &group, &words, &wanted, || background::announce(&group));
    }
    if let Some(pid) = join(arguments, &group, &words, &wanted)? {
        return confirm(arguments, context, &wanted, pid);
    }
    if arguments.foreground {
        let live = || {
            systemd::ready(&format!("{} is mounted at {}", wanted.file.title(volume), wanted.point.path.display()));
            confirm(arguments, context, &wanted, std::process::id())
        };
        return serve(arguments, context, &group, &words, &wanted, live);
    }
    let pid = background::start(&child_arguments(arguments, context, &point), arguments.wait)?;
    confirm(arguments, context, &wanted, pid)
}

/// What `-o` asks for, and the flags that have words of their own there; a flag has the last word.
fn words(arguments: &MountArgs) -> Result<Words> {
    let mut words = mount_options::parse(&arguments.options)?;
    if let Some(passthrough) = arguments.passthrough {
        words.passthrough = passthrough;
    }
    Ok(words)
}

/// Looks whether it could be mounted, and does not.
pub(crate) fn check(arguments: &MountArgs, context: &Context) -> Result<()> {
    let file = GroupFile::load(&context.state.existing(&arguments.pair.group)?)?;
    file.volume(arguments.pair.volume.as_ref())?;
    mount_options::parse(&arguments.options).map(|_| ())
}

/// What is to be mounted where.
struct Wanted<'a> {
    file: &'a GroupFile,
    volume: &'a VolumeEntry,
    point: &'a Mountpoint,
}

/// One process serves all mounts of a group, for they have one journal: if there is one, it makes the mount. Its number then.
fn join(arguments: &MountArgs, group: &GroupDir, words: &Words, wanted: &Wanted<'_>) -> Result<Option<u32>> {
    let Some(mut connection) = request::connect(group)? else { return Ok(None) };
    let live: Live = request::converse(group, &mut connection, &Request::Status, &mut |_| {})?;
    let (title, shown) = (wanted.file.title(wanted.volume), wanted.point.path.display());
    if let Some(mount) = live.mount_of(&wanted.volume.name) {
        let place = mount.mountpoint.display();
        return Err(Error::new(
            ErrorKind::Busy,
            format!("{title} is mounted already, at {place}, by process {}", live.pid),
        )
        .hint(format!("reelfs umount {place}")));
    }
    if arguments.foreground {
        let message =
            format!("process {} serves group {} already, and makes further mounts of it", live.pid, group.name());
        return Err(Error::new(ErrorKind::Busy, message).hint(format!("without -f: reelfs mount {title} {shown}")));
    }
    let options = mount_options(&title, words, wanted.point);
    let further = FurtherMount {
        volume: wanted.volume.name.clone(),
        mountpoint: options.mountpoint,
        allow_other: options.allow_other,
        kernel: options.kernel_options,
        strict: arguments.strict || words.strict,
        no_control_dir: words.no_control_dir,
        passthrough: words.passthrough,
        awake: words.awake,
    };
    request::converse::<()>(group, &mut connection, &Request::Mount(further), &mut |_| {})?;
    if mounts::at(&wanted.point.path)?.is_none_or(|entry| !entry.is_of(group.name())) {
        let message = format!("process {} mounted {title} where it cannot be seen from here", live.pid);
        return Err(Error::failed(message).hint("it runs in another mount namespace: mount the volume from there"));
    }
    Ok(Some(live.pid))
}

fn confirm(arguments: &MountArgs, context: &Context, wanted: &Wanted<'_>, pid: u32) -> Result<()> {
    if arguments.silent {
        return Ok(());
    }
    let Wanted { file, volume, point } = wanted;
    let (name, shown) = (file.title(volume), point.path.display());
    context.output.document(&MountedAt {
        group: &file.name,
        volume: &volume.name,
        mountpoint: shown.to_string(),
        in_place: point.in_place,
        pid,
    })?;
    let place = if point.in_place { " (in place)" } else { "" };
    context.output.confirm(format!("{name} is mounted at {shown}{place}"))?;
    if volume.base.is_none() {
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
    wanted: &Wanted<'_>,
    live: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let patience = Patience::with("opening the journal");
    let open = OpenGroup::open(group, "reelfs mount", arguments.strict || words.strict, &context.output)?;
    let options = mount_options(&wanted.file.title(wanted.volume), words, wanted.point);
    let daemon = Daemon::start(open, wanted.volume.index, &options)?;
    drop(patience);
    if let Err(error) = live() {
        // whoever asked has gone or cannot be told: no mount stays behind
        daemon.worker().unmount()?;
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
        threads: mount_options::threads(),
        control_dir: !words.no_control_dir,
        passthrough: words.passthrough.is_wanted(&words.kernel),
        awake: words.awake.is_wanted(),
    }
}

fn child_arguments(arguments: &MountArgs, context: &Context, point: &Mountpoint) -> Vec<OsString> {
    let mut list: Vec<OsString> = vec!["mount".into(), arguments.pair.to_string().into()];
    list.push(point.path.clone().into());
    list.extend(["--ready-on-stdout", "--state-dir"].map(OsString::from));
    list.push(context.state.root().into());
    for option in &arguments.options {
        list.extend([OsString::from("-o"), option.into()]);
    }
    if let Some(passthrough) = arguments.passthrough {
        list.extend(["-o", passthrough.word()].map(OsString::from));
    }
    let flags = [(arguments.strict, "--strict"), (context.output.json, "--json"), (context.output.quiet, "--quiet")];
    list.extend(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| OsString::from(flag)));
    // the log says at least what was asked and when
    list.extend((0..context.output.verbose.max(u8::from(!context.output.quiet))).map(|_| OsString::from("-v")));
    list
}
