//! What a group is, on disk: `group.json`, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use reelfs_journal::{Digest, Epoch, GroupName, Position, Seq, Timestamp};
use reelfs_volume::{OnFull, Session};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::settings::Settings;
use crate::state::GroupDir;

/// Everything about a group that is not in its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupFile {
    /// Version of this file: [`GroupFile::SCHEMA`].
    pub schema: u32,
    /// The name; the identity is `uuid`.
    pub name: GroupName,
    /// The identity.
    pub uuid: Uuid,
    /// Which history is being written.
    pub epoch: Epoch,
    /// The protected directory.
    pub pvol: PathBuf,
    /// The journal volume.
    pub journal: PathBuf,
    /// When the group was created.
    pub created: Timestamp,
    /// What happens when the journal is full.
    #[serde(default)]
    pub on_full: OnFull,
    /// What it does by itself.
    #[serde(default)]
    pub settings: Settings,
    /// What the last opening of the volume left; absent before the first.
    #[serde(default)]
    pub session: Option<Session>,
    /// The directories that tapes are exported to, and how far each is.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// The newest finished base copy of this epoch.
    #[serde(default)]
    pub base: Option<Base>,
    /// The newest named marker.
    #[serde(default)]
    pub last_marker: Option<LastMarker>,
}

/// A directory that tapes are exported to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The directory.
    pub dir: PathBuf,
    /// Which history its tapes tell.
    pub epoch: Epoch,
    /// The last record on them.
    pub seq: Seq,
    /// Chained digest up to that record.
    pub digest: Digest,
    /// Name of the last tape.
    pub last_seen_tape: Option<String>,
}

impl Target {
    /// How far it is.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq, digest: self.digest }
    }
}

/// A finished base copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Its identity.
    pub uuid: Uuid,
    /// Its BaseEnd: the first record that can be restored from it.
    pub seq: Seq,
}

/// The newest named marker, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastMarker {
    /// What it is called.
    pub name: String,
    /// Where it stands.
    pub seq: Seq,
    /// When it was set.
    pub time: Timestamp,
}

impl GroupFile {
    /// The version that this program writes.
    pub const SCHEMA: u32 = 1;

    /// Reads the file of a group.
    ///
    /// # Errors
    /// No such group (exit code 10), or a file that is not one.
    pub fn load(group: &GroupDir) -> Result<GroupFile> {
        let path = group.file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no group {}", group.name())));
            }
            Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
        };
        GroupFile::parse(&path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<GroupFile> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let broken =
            |error| Error::new(ErrorKind::Damaged, format!("{} is not a group file", path.display())).because(error);
        let Version { schema } = serde_json::from_str(text).map_err(broken)?;
        if schema != Self::SCHEMA {
            return Err(Error::failed(format!(
                "{} is of schema {schema}; this program knows {}",
                path.display(),
                Self::SCHEMA
            )));
        }
        serde_json::from_str(text).map_err(broken)
    }

    /// Writes the file of a group: under another name, synced, then renamed over the old one. Mode 0600.
    ///
    /// # Errors
    /// The operating system says no; the old file is still there then.
    pub fn store(&self, group: &GroupDir) -> Result<()> {
        let path = group.file();
        let fail = |error: io::Error| Error::io(format!("write {}", path.display()), error);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| fail(error.into()))?;
        text.push(b'\n');
        let mut file = tempfile::Builder::new().prefix(".group.json.").tempfile_in(group.path()).map_err(fail)?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
        file.persist(&path).map_err(|error| fail(error.error))?;
        File::open(group.path()).and_then(|directory| directory.sync_all()).map_err(fail)
    }

    /// The directory of this path among the targets, if it is one.
    #[must_use]
    pub fn target(&self, dir: &Path) -> Option<&Target> {
        self.targets.iter().find(|target| target.dir == dir)
    }

    /// Remembers how far a directory is, in place of what was known of it.
    pub fn set_target(&mut self, target: Target) {
        self.targets.retain(|known| known.dir != target.dir);
        self.targets.push(target);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state::StateDir;

    fn example() -> GroupFile {
        GroupFile {
            schema: GroupFile::SCHEMA,
            name: "docs".parse().expect("name"),
            uuid: Uuid::from_u128(7),
            epoch: Epoch(1),
            pvol: "/srv/docs".into(),
            journal: "/j/docs.jvol".into(),
            created: Timestamp(5),
            on_full: OnFull::Block,
            settings: Settings::default(),
            session: None,
            targets: Vec::new(),
            base: Some(Base { uuid: Uuid::from_u128(8), seq: Seq(9) }),
            last_marker: Some(LastMarker { name: "m".into(), seq: Seq(3), time: Timestamp(4) }),
        }
    }

    #[test]
    fn what_is_stored_is_loaded_and_private() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let group = StateDir::resolve(Some(temporary.path())).expect("state").group(&"docs".parse().expect("name"));
        group.make().expect("make");
        assert_eq!(GroupFile::load(&group).expect_err("not yet").code(), 10);
        let mut file = example();
        file.store(&group).expect("store");
        let target = |seq| Target {
            dir: "/t".into(),
            epoch: Epoch(1),
            seq: Seq(seq),
            digest: Digest([3; 32]),
            last_seen_tape: None,
        };
        file.set_target(target(1));
        file.set_target(target(2));
        file.store(&group).expect("store again");
        assert_eq!(GroupFile::load(&group).expect("load"), file);
        assert_eq!(file.targets, [target(2)]);
        assert_eq!(fs::metadata(group.file()).expect("metadata").permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(group.path()).expect("list").count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_later_schema_and_rubbish_are_told_apart() {
        let path = Path::new("/x/group.json");
        let later = GroupFile::parse(path, r#"{"schema": 2, "new": true}"#).expect_err("later");
        assert_eq!(later.to_string(), "/x/group.json is of schema 2; this program knows 1");
        assert_eq!(GroupFile::parse(path, "rubbish").expect_err("rubbish").code(), 19);
    }
}
