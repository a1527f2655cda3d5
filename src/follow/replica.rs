//! What a replica knows of itself: a directory beside it, with a file that is replaced as a whole at each checkpoint.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use reelfs_journal::disk::{self, Label, Operation};
use reelfs_journal::{
    FileId, FileTime, GroupName, MarkerKind, Name, Position, Seq, Timestamp, VolumeIndex, VolumeName,
};
use rustix::fs::{CWD, FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::objects::Extent;
use crate::error::{Error, ErrorKind, Result};
use crate::overlap;

/// Where a replica stands with respect to brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stands {
    /// In a state that the primary had.
    #[default]
    Outside,
    /// A bracket has begun, and nothing of it was applied.
    BeforeResync,
    /// The same.
    BeforeRecovery,
    /// The same.
    BeforeAdoption,
    /// In the middle of one.
    InResync,
    /// The same.
    InRecovery,
    /// The same.
    InAdoption,
}

impl Stands {
    /// After a marker.
    #[must_use]
    pub fn marked(self, kind: MarkerKind) -> Stands {
        match kind {
            kind if kind.ends_bracket() => Stands::Outside,
            kind if !kind.begins_bracket() || self != Stands::Outside => self,
            MarkerKind::RecoveryBegin => Stands::BeforeRecovery,
            MarkerKind::AdoptBegin => Stands::BeforeAdoption,
            _ => Stands::BeforeResync,
        }
    }

    /// After a change.
    #[must_use]
    pub fn changed(self) -> Stands {
        match self {
            Stands::BeforeResync => Stands::InResync,
            Stands::BeforeRecovery => Stands::InRecovery,
            Stands::BeforeAdoption => Stands::InAdoption,
            stands => stands,
        }
    }

    /// The bracket that it stands in, in a word; `None` when its state is one that the primary had.
    #[must_use]
    pub fn inside(self) -> Option<&'static str> {
        match self {
            Stands::Outside | Stands::BeforeResync | Stands::BeforeRecovery | Stands::BeforeAdoption => None,
            Stands::InResync => Some("resync"),
            Stands::InRecovery => Some("recovery"),
            Stands::InAdoption => Some("adoption"),
        }
    }
}

/// Everything about a replica that is not in its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaFile {
    /// Version of this file: [`ReplicaFile::SCHEMA`].
    pub schema: u32,
    /// The replica.
    pub id: Uuid,
    /// The group's name.
    pub group: GroupName,
    /// The group.
    pub uuid: Uuid,
    /// The volume of it that this is a replica of: its number in records.
    pub volume: VolumeIndex,
    /// The name of that volume.
    pub volume_name: VolumeName,
    /// The primary's id of its root directory.
    pub root: FileId,
    /// The replica's own id of its root directory.
    pub own_root: FileId,
    /// The last record that is applied and on disk.
    pub at: Position,
    /// Its time.
    pub time: Timestamp,
    /// With respect to brackets.
    pub stands: Stands,
    /// The last record that is being applied: some of those up to it may be there.
    pub applying: Option<Seq>,
    /// Which objects it has.
    pub objects: Extent,
    /// Modification time of the root at `at`.
    pub root_mtime: FileTime,
    /// Change time after everything of ours: what carries a later one was changed by somebody else.
    pub stamp: Option<FileTime>,
}

impl ReplicaFile {
    /// The version that this program writes.
    pub const SCHEMA: u32 = 1;

    /// A name in the root that the volume does not use.
    ///
    /// # Errors
    /// Never: a group's UUID makes a name.
    pub fn scratch(&self) -> Result<Name> {
        let name = Name::new(format!(".reelfs-bracket-{}", self.uuid).as_bytes());
        name.map_err(|error| Error::failed(error.to_string()))
    }
}

/// The directory beside a replica: `NAME.replica`, mode 0700. While this lives nobody else follows into the replica.
#[derive(Debug)]
pub struct Beside {
    tree: PathBuf,
    dir: PathBuf,
    _lock: Option<File>,
}

impl Beside {
    /// Of a replica, whether there or not; links resolved.
    ///
    /// # Errors
    /// 2 for a directory without a name.
    pub fn of(tree: &Path) -> Result<Beside> {
        let tree = overlap::real(tree)?;
        let name = tree.file_name().ok_or_else(|| Error::usage(format!("{} has no name", tree.display())))?;
        let mut beside = OsString::from(name);
        beside.push(".replica");
        let dir = tree.with_file_name(beside);
        Ok(Beside { tree, dir, _lock: None })
    }

    /// Makes it if it is missing, and keeps others out.
    ///
    /// # Errors
    /// 11 when another process follows into this replica.
    pub fn lock(mut self) -> Result<Beside> {
        let fail = |error: io::Error| Error::io(format!("open {}", self.dir.display()), error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(fail)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.dir.join("lock"));
        let lock = lock.map_err(fail)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message = format!("another reelfs follows into {}", self.tree.display());
            return Err(Error::new(ErrorKind::Busy, message));
        }
        self._lock = Some(lock);
        Ok(self)
    }

    /// The replica's tree.
    #[must_use]
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// The directory beside it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the first copy comes through.
    #[must_use]
    pub fn base(&self) -> PathBuf {
        self.dir.join("base")
    }

    fn file(&self) -> PathBuf {
        self.dir.join("replica.json")
    }

    /// What the replica knows of itself; `None` before its first checkpoint.
    ///
    /// # Errors
    /// 19 when the file is not one.
    pub fn load(&self) -> Result<Option<ReplicaFile>> {
        let path = self.file();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
        };
        let broken = |error| Error::new(ErrorKind::Damaged, format!("{} is damaged", path.display())).because(error);
        let file: ReplicaFile = serde_json::from_slice(&text).map_err(broken)?;
        if file.schema != ReplicaFile::SCHEMA {
            let (path, found, known) = (path.display(), file.schema, ReplicaFile::SCHEMA);
            return Err(Error::failed(format!("{path} is of schema {found}; this program knows {known}")));
        }
        Ok(Some(file))
    }

    /// Replaces it as a whole, durably.
    ///
    /// # Errors
    /// What the file system says; the old one is still there then.
    pub fn store(&self, replica: &ReplicaFile) -> Result<()> {
        let path = self.file();
        let fail = |error: io::Error| Error::io(format!("write {}", path.display()), error);
        let mut text = serde_json::to_vec_pretty(replica).map_err(|error| fail(error.into()))?;
        text.push(b'\n');
        let temporary = || tempfile::Builder::new().prefix(".replica.json.").tempfile_in(&self.dir);
        let make = || Operation::Create { directory: CWD, name: self.dir.as_os_str().as_bytes().into() };
        let file = disk::call(Label::ReplicaCreate, make, temporary).map_err(fail)?;
        disk::append(Label::ReplicaWrite, file.as_file(), &text).map_err(|errno| fail(errno.into()))?;
        disk::sync(Label::ReplicaSync, file.as_file()).map_err(|errno| fail(errno.into()))?;
        disk::rename(Label::ReplicaRename, file.path(), &path).map_err(fail)?;
        // it has another name now
        let _ = file.into_temp_path().keep();
        disk::sync_parent(Label::ReplicaNameSync, &path).map_err(fail)
    }

    /// Forgets the replica; its tree stays.
    ///
    /// # Errors
    /// What the file system says.
    pub fn forget(&self) -> Result<()> {
        match disk::remove(Label::ReplicaRemove, &self.file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|error| Error::io(format!("remove {}", self.file().display()), error)),
        }
    }
}
