//! The state directory: where a group keeps what is not in its journal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reelfs_journal::{GroupName, VolumeIndex};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

/// `$REELFS_STATE_DIR`, or `/var/lib/reelfs` for root, or `$XDG_STATE_HOME/reelfs` for everybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

/// So many times, with a pause of 20 ms behind each, it is looked whether nobody else makes a group or a pair.
const MAKING_LOOKS: u32 = 500;

/// What is kept of a volume.
const VOLUME_FILES: [&str; 5] = ["inflight", "directories", "dirty", "redo", "base"];

/// The files of one group: `groups/NAME/` in the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDir {
    name: GroupName,
    path: PathBuf,
}

impl StateDir {
    /// The directory given, or the default of this user. It need not exist yet.
    ///
    /// # Errors
    /// No home directory to put it in.
    pub fn resolve(given: Option<&Path>) -> Result<StateDir> {
        let root = match given {
            Some(path) => path.to_owned(),
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/reelfs"),
            None => default_of_user(|name| std::env::var_os(name).map(PathBuf::from))?,
        };
        let root = std::path::absolute(&root).map_err(|error| Error::io("find the current directory", error))?;
        Ok(StateDir { root })
    }

    /// The state directory that a group lies in.
    #[must_use]
    pub fn of(group: &GroupDir) -> StateDir {
        StateDir { root: group.path.ancestors().nth(2).unwrap_or(&group.path).to_owned() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// One group or pair is made at a time, until this is dropped: two at once could be of one directory.
    ///
    /// # Errors
    /// The state directory cannot be written; 11 when somebody is at it for more than ten seconds.
    pub fn begin_making(&self) -> Result<File> {
        let path = self.root.join("making.lock");
        let fail = |error: io::Error| Error::io(format!("lock {}", path.display()), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(fail)?;
        let mut options = fs::OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(fail)?;
        for _ in 0..MAKING_LOOKS {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => pause(),
                taken => return taken.map(|()| lock).map_err(|errno| fail(errno.into())),
            }
        }
        let message = format!("another group or pair is being made in {}", self.root.display());
        Err(Error::new(ErrorKind::Busy, message).hint("wait until it is made, and run this again"))
    }

    /// The pools of journal volumes: `pools.json`.
    #[must_use]
    pub fn pools(&self) -> PathBuf {
        self.root.join("pools.json")
    }

    /// The files of a group, whether it exists or not.
    #[must_use]
    pub fn group(&self, name: &GroupName) -> GroupDir {
        GroupDir { name: name.clone(), path: self.root.join("groups").join(name.as_str()) }
    }

    /// The groups that exist, sorted by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn groups(&self) -> Result<Vec<GroupDir>> {
        let directory = self.root.join("groups");
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(format!("read {}", directory.display()), error)),
        };
        let mut groups = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::io(format!("read {}", directory.display()), error))?;
            let name = entry.file_name().to_str().and_then(|name| name.parse::<GroupName>().ok());
            groups.extend(name.map(|name| self.group(&name)).filter(GroupDir::exists));
        }
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(groups)
    }

    /// The files of a group that must exist.
    ///
    /// # Errors
    /// It does not (exit code 10); the hint names those that do.
    pub fn existing(&self, name: &GroupName) -> Result<GroupDir> {
        let group = self.group(name);
        if group.exists() {
            return Ok(group);
        }
        let names: Vec<String> = self.groups()?.iter().map(|group| group.name.to_string()).collect();
        let hint = if names.is_empty() {
            format!("there is no group in {}; make one: reelfs group create {name} --pvol DIR", self.root.display())
        } else {
            format!("{} has: {}", self.root.display(), names.join(", "))
        };
        Err(Error::new(ErrorKind::NotFound, format!("there is no group {name}")).hint(hint))
    }
}

fn default_of_user(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("reelfs"))
        .ok_or_else(|| Error::usage("there is no state directory: HOME is not set").hint("set REELFS_STATE_DIR"))
}

#[expect(clippy::disallowed_methods, reason = "who lets go of a lock file tells nobody")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

impl GroupDir {
    /// The group's name.
    #[must_use]
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the group is: `group.json`.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.path.join("group.json")
    }

    /// What a group is that is being made or deleted: `passing.json`. Without `group.json` beside it that was cut off.
    #[must_use]
    pub fn passing(&self) -> PathBuf {
        self.path.join("passing.json")
    }

    /// Who works on the group: `lock`.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// What is kept of a volume (in-flight table, dirty map, known directories): here for the first one, as it was when groups had
    /// only one, else `volumes/INDEX/`.
    #[must_use]
    pub fn volume(&self, index: VolumeIndex) -> PathBuf {
        match index {
            VolumeIndex::FIRST => self.path.clone(),
            index => self.path.join("volumes").join(index.to_string()),
        }
    }

    /// Makes the directory of a volume, mode 0700.
    ///
    /// # Errors
    /// The operating system says no.
    pub fn make_volume(&self, index: VolumeIndex) -> Result<PathBuf> {
        let path = self.volume(index);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| Error::io(format!("make {}", path.display()), error))?;
        Ok(path)
    }

    /// Removes what is kept of a volume.
    ///
    /// # Errors
    /// The operating system says no.
    pub fn remove_volume(&self, index: VolumeIndex) -> Result<()> {
        let path = self.volume(index);
        let outcome = match index {
            VolumeIndex::FIRST => VOLUME_FILES.iter().try_for_each(|name| match fs::remove_file(path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }),
            _ => fs::remove_dir_all(&path),
        };
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// What the mount process wrote: `daemon.log`.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("daemon.log")
    }

    /// Where the journal volume is unless `--journal` said otherwise.
    #[must_use]
    pub fn default_journal(&self) -> PathBuf {
        self.path.join(format!("{}.jvol", self.name))
    }

    /// The group has been created; also when its file cannot be looked at.
    #[must_use]
    pub fn exists(&self) -> bool {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        self.file().symlink_metadata().map_or_else(|error| !absent.contains(&error.kind()), |_| true)
    }

    /// Makes the directory, mode 0700, and what is above it.
    ///
    /// # Errors
    /// The operating system says no.
    pub fn make(&self) -> Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(|error| {
            Error::io(format!("make {}", self.path.display()), error)
                .hint("REELFS_STATE_DIR names another state directory")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_follows_xdg_and_ignores_relative_paths() {
        let with = |pairs: &'static [(&'static str, &'static str)]| {
            default_of_user(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(with(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]).expect("xdg"), Path::new("/s/reelfs"));
        assert_eq!(with(&[("HOME", "/h")]).expect("home"), Path::new("/h/.local/state/reelfs"));
        assert_eq!(
            with(&[("XDG_STATE_HOME", "s"), ("HOME", "/h")]).expect("home"),
            Path::new("/h/.local/state/reelfs")
        );
        assert_eq!(with(&[]).expect_err("none").code(), 2);
    }

    #[test]
    fn only_directories_with_a_group_file_are_groups() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let state = StateDir::resolve(Some(temporary.path())).expect("state");
        assert!(state.groups().expect("none yet").is_empty());
        for name in ["b", "a", "half"] {
            let group = state.group(&name.parse().expect("name"));
            group.make().expect("make");
            if name != "half" {
                fs::write(group.file(), "{}").expect("file");
            }
        }
        fs::create_dir(temporary.path().join("groups/Not-A-Name")).expect("directory");
        let names: Vec<String> = state.groups().expect("groups").iter().map(|group| group.name().to_string()).collect();
        assert_eq!(names, ["a", "b"]);
        let error = state.existing(&"half".parse().expect("name")).expect_err("no group");
        assert_eq!((error.code(), error.hint_text().map(|hint| hint.ends_with("has: a, b"))), (10, Some(true)));
    }
}
