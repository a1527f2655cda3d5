//! What is measured: a directory itself, through another FUSE file system, or through a build of reelfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Mount, Sandbox, mount, program, wait};

/// One directory, and the way through which it is used.
pub struct Subject {
    /// As the tables call it.
    pub name: &'static str,
    /// Where the work is done.
    pub view: PathBuf,
    way: Way,
}

enum Way {
    Bare,
    Peer(Child),
    Reelfs(Build, Mount),
}

/// A build of the program with a state of its own, and the tapes of its group.
struct Build {
    binary: PathBuf,
    state: PathBuf,
    tapes: PathBuf,
}

const GROUP: &str = "bench";

impl Build {
    fn run(&self, arguments: &[&str]) {
        let output = self.command().args(arguments).output().expect("the program starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        program::with_environment(&mut command, &self.state);
        command
    }
}

impl Subject {
    /// The directory itself.
    pub fn bare(sandbox: &Sandbox) -> Subject {
        Subject { name: "backing", view: sandbox.directory("backing"), way: Way::Bare }
    }

    /// Another FUSE file system: bindfs, or what `REELFS_PEER` says, in which `{source}` and `{point}` stand for the directories.
    pub fn peer(sandbox: &Sandbox) -> Subject {
        let line = std::env::var("REELFS_PEER").unwrap_or_else(|_| "bindfs -f {source} {point}".to_owned());
        Subject::foreign(sandbox, "peer", &line)
    }

    /// What `REELFS_FLOOR` says, when it does, likewise: a file system that does nothing but answer.
    pub fn floor(sandbox: &Sandbox) -> Option<Subject> {
        std::env::var("REELFS_FLOOR").ok().map(|line| Subject::foreign(sandbox, "floor", &line))
    }

    fn foreign(sandbox: &Sandbox, name: &'static str, line: &str) -> Subject {
        let (source, view) = (sandbox.directory(&format!("behind-{name}")), sandbox.directory(name));
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let line = line.replace("{source}", &text(&source)).replace("{point}", &text(&view));
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a program"));
        let child = command.args(words).stdout(Stdio::null()).spawn().expect("the peer starts");
        let live = || {
            let at = format!(" {} fuse", text(&view));
            fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(&at))
        };
        assert!(wait::until(Duration::from_secs(10), live), "the peer does not mount: {line}");
        Subject { name, view, way: Way::Peer(child) }
    }

    /// This build of reelfs.
    pub fn reelfs(sandbox: &Sandbox) -> Subject {
        let create = ["--on-full", "block", "--export-at", "never"];
        Subject::build(sandbox, "reelfs", Path::new(program::BINARY), &create)
    }

    /// The build that `REELFS_BEFORE` names, when it does: what this one is compared with.
    pub fn before(sandbox: &Sandbox) -> Option<Subject> {
        let binary = std::env::var_os("REELFS_BEFORE")?;
        Some(Subject::build(sandbox, "before", Path::new(&binary), &[]))
    }

    fn build(sandbox: &Sandbox, name: &'static str, binary: &Path, create: &[&str]) -> Subject {
        let (pvol, view) = (sandbox.directory(&format!("behind-{name}")), sandbox.directory(name));
        let state = sandbox.directory(&format!("state-{name}"));
        let build = Build { binary: binary.to_owned(), state, tapes: sandbox.directory(&format!("tapes-{name}")) };
        let pvol = pvol.to_str().expect("UTF-8");
        build.run(&[&["group", "create", GROUP, "--pvol", pvol, "--size", "4GiB"], create].concat());
        build.run(&["base", "copy", GROUP, "--to", build.tapes.to_str().expect("UTF-8")]);
        let mut command = build.command();
        command.args(["mount", GROUP]).arg(&view).arg("-f").args(mount::wished(&[]));
        let mount = Mount::from_command(command, sandbox, &view).unwrap_or_else(|log| panic!("no mount:\n{log}"));
        Subject { name, view, way: Way::Reelfs(build, mount) }
    }

    /// Lets the journal forget: everything is on tapes after it, and everything is cold.
    pub fn export(&self) {
        if let Way::Reelfs(build, _) = &self.way {
            build.run(&["tape", "export", GROUP, "--to", build.tapes.to_str().expect("UTF-8")]);
        }
    }

    /// Processor time that the daemon has used, user's and kernel's.
    pub fn processor_time(&self) -> Duration {
        let pid = match &self.way {
            Way::Bare => return Duration::ZERO,
            Way::Peer(child) => child.id().to_string(),
            Way::Reelfs(_, mount) => mount.pid().as_raw_nonzero().to_string(),
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // behind the name, which may contain anything: fields 14 and 15 of proc(5), in ticks of 10 ms
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Takes the mount away.
    pub fn end(self) {
        match self.way {
            Way::Bare => {}
            Way::Peer(mut child) => {
                drop(Command::new("umount").arg(&self.view).status());
                drop(child.wait());
            }
            Way::Reelfs(_, mount) => {
                mount.umount();
                assert!(!mount::is_mounted(&self.view), "the mount is still there");
            }
        }
    }
}
