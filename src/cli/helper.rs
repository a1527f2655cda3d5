//! `mount.reelfs` and `mount.fuse.reelfs`: what mount(8) runs for the file system type `reelfs`, for lines of fstab too. The
//! program by another name, with the arguments and the exit codes that mount(8) knows.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use reelfs_journal::VolumeName;
use rustix::mount::MountFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cli::args::Global;
use crate::cli::mount::{self, MountArgs};
use crate::cli::{Context, log_lines};
use crate::error::{Error, ErrorKind, Result};
use crate::mount_options::{self, STATE_DIR};
use crate::mounts;
use crate::output::Output;
use crate::protect;
use crate::scope::Scope;
use crate::state::StateDir;

/// The names that mount(8) looks for.
const NAMES: [&str; 2] = ["mount.reelfs", "mount.fuse.reelfs"];

const EXAMPLES: &str = "\
mount(8) runs it. A line of /etc/fstab (reelfs mount docs /srv/docs --print-fstab prints one):
  docs  /srv/docs  reelfs  nofail  0  0

Exit codes: 0 mounted, 1 usage, 8 interrupted, 32 not mounted.";

/// Mounts a group for mount(8).
#[derive(Debug, Parser)]
#[command(name = "mount.reelfs", version, after_help = EXAMPLES)]
struct Call {
    /// The group, or GROUP/VOLUME, or the protected directory
    #[arg(value_name = "GROUP[/VOLUME]")]
    source: String,
    /// Where to mount it
    directory: PathBuf,
    /// Mount options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Look at everything and mount nothing
    #[arg(short = 'f')]
    fake: bool,
    /// Pass over options that are not known
    #[arg(short = 's')]
    sloppy: bool,
    /// Say more
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    verbose: u8,
    /// The mount namespace to mount in
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<PathBuf>,
    /// There is no mtab to be left alone
    #[arg(short = 'n')]
    _no_mtab: bool,
    /// The type with its subtype
    #[arg(short = 't', value_name = "TYPE")]
    _kind: Option<String>,
}

/// The program was called as a helper.
pub(crate) fn is_meant(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// The program was called by its own name as a helper is: `/sbin/mount.fuse` does so where there is no `mount.fuse.reelfs`.
pub(crate) fn is_implied(arguments: &[OsString]) -> bool {
    arguments.len() == 5 && arguments.get(3).is_some_and(|word| word == "-o")
}

/// Mounts in the background, whatever the terminal; the whole program.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let call = match Call::try_parse_from(arguments) {
        Ok(call) => call,
        Err(error) => {
            // a reader of the help who has gone is no failure
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let mut output = Output::plain(false);
    output.verbose = call.verbose;
    match log_lines::begin(true, &output).and_then(|()| run(&call)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(code(error.kind()))
        }
    }
}

/// The exit codes of mount(8).
fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 1,
        ErrorKind::Interrupted | ErrorKind::Terminated => 8,
        _ => 32,
    }
}

fn run(call: &Call) -> Result<()> {
    if let Some(namespace) = &call.namespace {
        enter(namespace)?;
    }
    if let Some(flags) = remounted(&mount_options::all(&call.options)?)? {
        return if call.fake { Ok(()) } else { remount(&call.directory, flags) };
    }
    let (options, state_dir) = options(call)?;
    let state_dir = state_dir.or_else(|| std::env::var_os("REELFS_STATE_DIR").map(PathBuf::from));
    let context = Context::new(&Global { verbose: call.verbose, state_dir, ..Global::default() })?;
    let pair = source(&context.state, &call.source)?;
    let arguments = MountArgs { options, ..MountArgs::in_silence(pair, call.directory.clone()) };
    if call.fake { mount::check(&arguments, &context) } else { mount::run(&arguments, &context) }
}

/// The flags that `-o remount` leaves a mount with; none when it is not asked for. mount(8) adds the words of the mount table,
/// which stay as they are.
fn remounted(words: &[String]) -> Result<Option<MountFlags>> {
    if !words.iter().any(|word| word == "remount") {
        return Ok(None);
    }
    let mut flags = MountFlags::empty();
    for word in words {
        let (flag, is_set) = match word.as_str() {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" | "relatime" => (MountFlags::NOATIME, false),
            "sync" | "dirsync" => {
                return Err(Error::usage(format!("`{word}` is not changed while the mount is there"))
                    .hint("unmount it and mount it again: reelfs umount DIR"));
            }
            _ => continue,
        };
        flags.set(flag, is_set);
    }
    Ok(Some(flags))
}

/// Changes what the kernel alone looks at; the daemon goes on as it is.
fn remount(directory: &Path, flags: MountFlags) -> Result<()> {
    let place = mounts::place(directory)?;
    if !mounts::at(&place)?.is_some_and(|entry| entry.is_ours()) {
        return Err(Error::new(ErrorKind::NotFound, format!("no group is mounted at {}", place.display()))
            .hint("without `remount` it would be mounted there"));
    }
    let done = rustix::mount::mount_remount(&place, flags, c"");
    done.map_err(|errno| Error::io(format!("remount {}", place.display()), errno.into()))
}

/// What `reelfs mount` is told after `-o`, and where groups are kept.
fn options(call: &Call) -> Result<(Vec<String>, Option<PathBuf>)> {
    let (mut options, mut state_dir) = (Vec::new(), None);
    for word in mount_options::all(&call.options)? {
        let option = mount_options::escape(&word);
        match word.strip_prefix(STATE_DIR) {
            Some(dir) if Path::new(dir).is_absolute() => state_dir = Some(PathBuf::from(dir)),
            Some(_) => return Err(Error::usage(format!("`{word}` names no absolute path"))),
            None if call.sloppy && mount_options::parse(std::slice::from_ref(&option)).is_err() => {
                tracing::warn!("`{word}` is not a mount option: passed over");
            }
            None => options.push(option),
        }
    }
    Ok((options, state_dir))
}

/// The group. mount(8) makes an absolute path of a name that is also one in the current directory; a protected directory
/// stands for its group.
fn source(state: &StateDir, text: &str) -> Result<Scope> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return text.parse().map_err(|error: String| Error::usage(format!("`{text}`: {error}")));
    }
    let file = protect::group_of(state, path)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{text} is not the directory of a group"))
            .hint("mount(8) makes a path of a name that is one in the current directory: run it from another, like /")
    })?;
    let volume: &VolumeName = &protect::volume_of(&file, path)?.name;
    Ok(Scope { volume: (file.volumes.len() > 1).then(|| volume.clone()), group: file.name.clone() })
}

/// From here on this process and the mount's live in another mount namespace.
fn enter(namespace: &Path) -> Result<()> {
    let fail = |error: std::io::Error| Error::io(format!("enter the mount namespace {}", namespace.display()), error);
    let opened = File::open(namespace).map_err(fail)?;
    move_into_link_name_space(opened.as_fd(), Some(LinkNameSpaceType::Mount)).map_err(|errno| fail(errno.into()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_mount_8_passes_is_taken() {
        Call::command().debug_assert();
        let words = "mount.reelfs docs /srv/docs -sfnv -N /proc/1/ns/mnt -o rw,bogus,state_dir=/s -t fuse.reelfs";
        let call = Call::try_parse_from(words.split(' ')).expect(words);
        assert!(call.fake && call.sloppy && call.verbose == 1 && call.namespace.is_some(), "{call:?}");
        assert_eq!(options(&call).expect("options"), (vec!["rw".into()], Some("/s".into())));
        let call = Call::try_parse_from(["mount.reelfs", "docs", "/srv", "-o", "state_dir=s"]).expect("a call");
        assert_eq!(options(&call).expect_err("relative").code(), 2);
    }

    #[test]
    fn a_remount_leaves_what_is_said_last() {
        let flags = |text: &str| remounted(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(flags("ro,noexec").expect("words"), None);
        let said = flags("rw,nosuid,relatime,user_id=0,allow_other,remount,ro").expect("words");
        assert_eq!(said, Some(MountFlags::NOSUID | MountFlags::RDONLY));
        assert_eq!(flags("ro,noexec,remount,rw,exec").expect("words"), Some(MountFlags::empty()));
        assert_eq!(flags("remount,sync").expect_err("the daemon reads it once").code(), 2);
    }

    #[test]
    fn its_names_are_known() {
        for (name, is_one) in
            [("/sbin/mount.reelfs", true), ("mount.fuse.reelfs", true), ("reelfs", false), ("", false)]
        {
            assert_eq!(is_meant(OsStr::new(name)), is_one, "{name}");
        }
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(is_implied(&words("reelfs docs /srv/docs -o rw")));
        assert!(!is_implied(&words("reelfs restor --to x")));
    }

    #[test]
    fn codes_are_those_of_mount_8() {
        let all: Vec<u8> = ErrorKind::ALL.into_iter().map(code).collect();
        assert!(all.iter().all(|code| [1, 8, 32].contains(code)));
        assert_eq!((code(ErrorKind::Usage), code(ErrorKind::Busy), code(ErrorKind::Interrupted)), (1, 32, 8));
    }
}
