//! Numbers and names that identify things: sequence, epoch, volume, file, group.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A record's place in the order of its group: dense, from 1, never taken from a clock. 0 means "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first record.
    pub const ZERO: Seq = Seq(0);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }

    /// The number before this one; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One history of a group. A new epoch begins when the journal can no longer say how the volume came to its present
/// state (another disk in its place, say); file ids of different epochs have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which volume of the group a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeIndex(pub u16);

impl VolumeIndex {
    /// The first volume of a group.
    pub const FIRST: VolumeIndex = VolumeIndex(0);
}

impl fmt::Display for VolumeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A file system object of the primary volume: its inode number and a 32-bit fingerprint of its generation, because
/// ext4 and XFS reuse inode numbers within seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// Fingerprint of the generation, as the kernel's file handle gives it.
    pub generation: u32,
}

impl FileId {
    /// No object: the id of changes that concern none.
    pub const NONE: FileId = FileId { ino: 0, generation: 0 };
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.ino, self.generation)
    }
}

/// The name of a journal group: 1 to 32 of `a-z`, `0-9` and `_`, so that it is safe in a file name on any medium.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

/// Why a string is not a group name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a group name: 1 to 32 of a-z, 0-9 and _")]
pub struct GroupNameError(pub String);

impl GroupName {
    /// The longest group name, in bytes.
    pub const LEN_MAX: usize = 32;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_plain(text, Self::LEN_MAX) {
            Ok(GroupName(text.to_owned()))
        } else {
            Err(GroupNameError(text.to_owned()))
        }
    }
}

/// 1 to `longest` of `a-z`, `0-9` and `_`.
fn is_plain(text: &str, longest: usize) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=longest).contains(&text.len()) && text.bytes().all(legal)
}

impl TryFrom<String> for GroupName {
    type Error = GroupNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> String {
        name.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a volume in its group: 1 to 32 of `a-z`, `0-9` and `_`. It is also the name of the directory that the
/// volume is restored into when its group has several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// Why a string is not the name of a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a volume: 1 to 32 of a-z, 0-9 and _")]
pub struct VolumeNameError(pub String);

impl VolumeName {
    /// The longest name of a volume, in bytes.
    pub const LEN_MAX: usize = 32;
    /// The name of a group's only volume when nobody chose another.
    pub const ONLY: &'static str = "data";

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a volume that nothing names: `data` for the first one, else `volume_` and its index.
    #[must_use]
    pub fn unnamed(index: VolumeIndex) -> VolumeName {
        match index {
            VolumeIndex::FIRST => VolumeName(Self::ONLY.to_owned()),
            VolumeIndex(index) => VolumeName(format!("volume_{index}")),
        }
    }
}

impl FromStr for VolumeName {
    type Err = VolumeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_plain(text, Self::LEN_MAX) {
            Ok(VolumeName(text.to_owned()))
        } else {
            Err(VolumeNameError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = VolumeNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> String {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
