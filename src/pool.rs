//! Pools of prepared journal volumes: `pools.json` in the state directory, replaced as a whole.
//!
//! The header of a volume says whose it is, and the file says who took it from here: a volume is handed out only while both say
//! nobody, and taken back only from the group that both name. So a volume of somebody else is never touched.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reelfs_journal::disk::{self, Label, Operation};
use reelfs_journal::{GroupName, GroupNameError, Jvol};
use rustix::fs::{CWD, FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::group::{DEFAULT_SIZE, make_journal, set_mode};
use crate::group_file::GroupFile;
use crate::overlap;
use crate::size::Size;
use crate::state::StateDir;

/// The name of a pool, of the letters of a group's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolName(GroupName);

impl FromStr for PoolName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> std::result::Result<PoolName, GroupNameError> {
        text.parse().map(PoolName)
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Where the journal volumes of a group come from, and who may read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalOrigin {
    /// The pool that its journal volume came from, and goes back to.
    #[serde(default)]
    pub pool: Option<PoolName>,
    /// The pool that a spare comes from when the disk of the journal volume fails.
    #[serde(default)]
    pub spare: Option<PoolName>,
    /// Other users may read it (mode 0644 in place of 0600).
    #[serde(default)]
    pub visible: bool,
}

/// A volume of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolVolume {
    /// The file.
    pub path: PathBuf,
    /// Who took it.
    #[serde(default)]
    pub taken: Option<Taken>,
}

/// Who took a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// The group.
    pub uuid: Uuid,
    /// Its name, for people.
    pub group: GroupName,
}

/// How a volume of a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// To be had.
    Free(Size),
    /// A group has it.
    Taken(Size),
    /// It is not what the pool was given, and why.
    Unusable(String),
}

impl PoolVolume {
    /// What its header says.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let owner = match Jvol::owner(&self.path) {
            Ok(owner) => owner,
            Err(error) => return Condition::Unusable(error.to_string()),
        };
        match &self.taken {
            None if owner.group.is_nil() => Condition::Free(Size(owner.size)),
            // taken and not yet handed over, or handed back and not yet noted, by a run that was killed
            Some(taken) if owner.group == taken.uuid || owner.group.is_nil() => Condition::Taken(Size(owner.size)),
            _ => Condition::Unusable(format!("it belongs to group {} of somebody else", owner.group)),
        }
    }
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// What is in it, in the order in which it came.
    pub volumes: Vec<PoolVolume>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolFile {
    schema: u32,
    pools: Vec<Pool>,
}

/// All pools of a state directory, held for this process alone until dropped.
#[derive(Debug)]
pub struct Pools {
    state: StateDir,
    pools: Vec<Pool>,
    _lock: File,
}

impl Pools {
    /// The version of the file.
    const SCHEMA: u32 = 1;

    /// Reads the pools, when nobody else works on them.
    ///
    /// # Errors
    /// The state directory cannot be written, or the file is not one (19).
    pub fn open(state: &StateDir) -> Result<Pools> {
        let path = state.pools();
        let fail = |error: io::Error| Error::io(format!("open {}", path.display()), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state.root()).map_err(fail)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = disk::create(Label::PoolsLock, &path.with_extension("lock"), &options).map_err(fail)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| fail(error.into()))?;
        let broken = |what: String| Error::new(ErrorKind::Damaged, format!("{} {what}", path.display()));
        let pools = match fs::read(&path) {
            Ok(bytes) => {
                let file: PoolFile = serde_json::from_slice(&bytes)
                    .map_err(|error| broken("is not a list of pools".to_owned()).because(error))?;
                if file.schema != Self::SCHEMA {
                    return Err(broken(format!("is of schema {}; this program knows {}", file.schema, Self::SCHEMA)));
                }
                file.pools
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(fail(error)),
        };
        Ok(Pools { state: state.clone(), pools, _lock: lock })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Pool] {
        &self.pools
    }

    /// Volumes that may be had from a pool.
    #[must_use]
    pub fn free(&self, name: &PoolName) -> usize {
        let volumes = self.pools.iter().filter(|pool| pool.name == *name).flat_map(|pool| &pool.volumes);
        volumes.filter(|volume| matches!(volume.condition(), Condition::Free(_))).count()
    }

    /// Puts a volume into a pool: the prepared one at `at`, or a new one there or in the directory `at`.
    ///
    /// # Errors
    /// 14 when a pool has it, 21 when it is no journal volume or somebody's: it is left as it is. 10 when the directory is not
    /// there, 22 when the disk is full, 2 when it is too small or inside a PVOL.
    pub fn add(
        &mut self,
        name: &PoolName,
        at: &Path,
        size: Option<Size>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<PoolVolume> {
        let path = self.place(name, at)?;
        if let Some(other) = self.pools.iter().find(|pool| pool.volumes.iter().any(|volume| volume.path == path)) {
            let message = format!("{} is in pool {} already", path.display(), other.name);
            return Err(Error::new(ErrorKind::WouldOverwrite, message).hint("reelfs journal pool list"));
        }
        for group in self.state.groups()? {
            let Ok(file) = GroupFile::load(&group) else { continue };
            refuse_in_volumes(&file, &path)?;
        }
        if path.symlink_metadata().is_ok() {
            refuse_somebodys(&path, size)?;
        } else {
            let size = size.unwrap_or(DEFAULT_SIZE);
            if size.0 < Jvol::SIZE_MIN {
                let least = Size(Jvol::SIZE_MIN);
                return Err(Error::usage(format!("a journal volume of {size} is too small; {least} is the least")));
            }
            make_journal(&path, Uuid::nil(), size, progress)?;
        }
        let volume = PoolVolume { path, taken: None };
        match self.pools.iter_mut().find(|pool| pool.name == *name) {
            Some(pool) => pool.volumes.push(volume.clone()),
            None => self.pools.push(Pool { name: name.clone(), volumes: vec![volume.clone()] }),
        }
        self.store()?;
        Ok(volume)
    }

    /// Takes the smallest free volume of at least `size` for a group and makes it the group's.
    ///
    /// # Errors
    /// 10 when there is no such pool, 22 when it has nothing that will do; nothing is changed then.
    pub fn take(&mut self, name: &PoolName, size: Option<Size>, group: &GroupFile) -> Result<PathBuf> {
        self.take_back_from_the_dead()?;
        let known: Vec<String> = self.pools.iter().map(|pool| pool.name.to_string()).collect();
        let Some(pool) = self.pools.iter_mut().find(|pool| pool.name == *name) else {
            let there =
                if known.is_empty() { "there are none".to_owned() } else { format!("there is: {}", known.join(", ")) };
            let hint = format!("{there}; make it: reelfs journal pool add {name} DIR");
            return Err(Error::new(ErrorKind::NotFound, format!("there is no pool {name}")).hint(hint));
        };
        let mut unusable = Vec::new();
        let mut best: Option<(Size, usize)> = None;
        for (index, volume) in pool.volumes.iter().enumerate() {
            match volume.condition() {
                Condition::Free(found) if size.is_none_or(|size| found >= size) => {
                    best = Some(best.map_or((found, index), |best| best.min((found, index))));
                }
                Condition::Unusable(why) => unusable.push(format!("{}: {why}", volume.path.display())),
                Condition::Free(_) | Condition::Taken(_) => {}
            }
        }
        let Some((_, index)) = best else {
            return Err(exhausted(name, size, &unusable));
        };
        let path = pool.volumes[index].path.clone();
        refuse_in_volumes(group, &path)?;
        pool.volumes[index].taken = Some(Taken { uuid: group.uuid, group: group.name.clone() });
        // noted first: a volume that says a group has it is then known to be ours
        self.store()?;
        Jvol::hand_over(&path, Uuid::nil(), group.uuid)?;
        Ok(path)
    }

    /// Takes a volume back from a group that does not need it any more, wiped. One that is not there any more is left out of account.
    ///
    /// # Errors
    /// The volume or the state directory cannot be written.
    pub fn give_back(&mut self, path: &Path, uuid: Uuid) -> Result<()> {
        let mut volumes = self.pools.iter_mut().flat_map(|pool| &mut pool.volumes);
        let Some(volume) = volumes.find(|volume| volume.path == path) else { return Ok(()) };
        match Jvol::owner(path).map(|owner| owner.group) {
            Ok(owner) if owner == uuid => {
                Jvol::hand_over(path, uuid, Uuid::nil())?;
                set_mode(path, 0o600)
                    .map_err(|error| Error::io(format!("change the mode of {}", path.display()), error))?;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a journal volume cannot go back to its pool"),
        }
        volume.taken = volume.taken.take().filter(|taken| taken.uuid != uuid);
        self.store()
    }

    /// Volumes of groups that are no more: a run was killed between group and pool. A group whose file cannot be read lives.
    fn take_back_from_the_dead(&mut self) -> Result<()> {
        let mut living = Vec::new();
        for group in self.state.groups()? {
            match GroupFile::load(&group) {
                Ok(file) => living.push(file.uuid),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, "no journal volume goes back to its pool while a group cannot be read");
                    return Ok(());
                }
            }
        }
        let taken = self.pools.iter().flat_map(|pool| &pool.volumes).filter_map(|volume| {
            let uuid = volume.taken.as_ref()?.uuid;
            (!living.contains(&uuid)).then(|| (volume.path.clone(), uuid))
        });
        for (path, uuid) in taken.collect::<Vec<_>>() {
            self.give_back(&path, uuid)?;
        }
        Ok(())
    }

    /// Where a new volume goes.
    fn place(&self, name: &PoolName, at: &Path) -> Result<PathBuf> {
        let parent = if at.is_dir() { Some(at) } else { at.parent() };
        if !parent.is_none_or(|parent| parent.as_os_str().is_empty() || parent.is_dir()) {
            return Err(Error::new(ErrorKind::NotFound, format!("the directory of {} is not there", at.display())));
        }
        let at = overlap::real(at)?;
        if !at.is_dir() {
            return Ok(at);
        }
        let numbered = (1_u32..).map(|number| at.join(format!("{name}-{number}.jvol")));
        let mut unused = numbered.filter(|path| path.symlink_metadata().is_err());
        unused.next().ok_or_else(|| Error::failed("no name is left"))
    }

    fn store(&self) -> Result<()> {
        let path = self.state.pools();
        let fail = |error: io::Error| Error::io(format!("write {}", path.display()), error);
        let file = PoolFile { schema: Self::SCHEMA, pools: self.pools.clone() };
        let mut text = serde_json::to_vec_pretty(&file).map_err(|error| fail(error.into()))?;
        text.push(b'\n');
        let root = self.state.root();
        let temporary = || tempfile::Builder::new().prefix(".pools.json.").tempfile_in(root);
        let make = || Operation::Create { directory: CWD, name: root.as_os_str().as_bytes().into() };
        let file = disk::call(Label::PoolsCreate, make, temporary).map_err(fail)?;
        disk::append(Label::PoolsWrite, file.as_file(), &text).map_err(|errno| fail(errno.into()))?;
        disk::sync(Label::PoolsSync, file.as_file()).map_err(|errno| fail(errno.into()))?;
        disk::rename(Label::PoolsRename, file.path(), &path).map_err(fail)?;
        // it has another name now
        let _ = file.into_temp_path().keep();
        disk::sync_parent(Label::PoolsNameSync, &path).map_err(fail)
    }
}

/// A volume that protects its own journal would never end.
fn refuse_in_volumes(group: &GroupFile, path: &Path) -> Result<()> {
    let mut pvols = group.volumes.iter().map(|entry| &entry.pvol);
    pvols.try_for_each(|pvol| overlap::refuse_inside("the PVOL", pvol, "the journal volume", path))
}

/// A file that is there must be a prepared journal volume and nobody's, of the size asked for.
fn refuse_somebodys(path: &Path, size: Option<Size>) -> Result<()> {
    let shown = path.display();
    let owner = Jvol::owner(path).map_err(|error| {
        Error::new(ErrorKind::Foreign, format!("{shown} is no journal volume that could be used; it was left as it is"))
            .because(error)
            .hint("name a file that is not there yet, or a directory")
    })?;
    if !owner.group.is_nil() {
        let message = format!("{shown} is the journal volume of group {}; it was left as it is", owner.group);
        return Err(Error::new(ErrorKind::Foreign, message).hint("reelfs group list; reelfs group delete gives it up"));
    }
    match size {
        Some(size) if size.0 / 4096 * 4096 != owner.size => {
            let found = Size(owner.size);
            Err(Error::usage(format!("{shown} is prepared with {found}, not {size}")).hint("leave --size out"))
        }
        _ => Ok(()),
    }
}

fn exhausted(name: &PoolName, size: Option<Size>, unusable: &[String]) -> Error {
    let of_size = size.map_or_else(String::new, |size| format!(" of {size} or more"));
    let mut message = format!("pool {name} has no free journal volume{of_size}");
    if !unusable.is_empty() {
        message = format!("{message} (not usable: {})", unusable.join("; "));
    }
    Error::new(ErrorKind::NoSpace, message)
        .hint(format!("prepare one: reelfs journal pool add {name} DIR; or see who has them: reelfs journal pool list"))
}
