//! What a group is, on disk: `group.json`, replaced as a whole.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use reelfs_archive::LabelVolume;
use reelfs_journal::disk::{self, Label, Operation};
use reelfs_journal::{Digest, Epoch, GroupName, Position, Seq, Timestamp, VolumeIndex, VolumeName};
use reelfs_volume::{OnFull, Session};
use rustix::fs::CWD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::consumer::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::JournalOrigin;
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
    /// The protected directories, in the order in which they joined.
    pub volumes: Vec<VolumeEntry>,
    /// Those that left, for the journal may hold records of them.
    #[serde(default)]
    pub former: Vec<FormerVolume>,
    /// Volumes that ever joined: the index of the next one.
    pub volumes_ever: u16,
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
    /// The directories that tapes are exported to, and how far each is.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Replicas that follow the journal, and sites that acknowledge its tapes.
    #[serde(default)]
    pub consumers: Vec<Consumer>,
    /// The newest named marker.
    #[serde(default)]
    pub last_marker: Option<LastMarker>,
    /// Its number on this machine; absent when an earlier version made it.
    #[serde(default)]
    pub number: Option<u32>,
    /// Where its journal volumes come from, and who may read them.
    #[serde(default)]
    pub origin: JournalOrigin,
}

/// A protected directory of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeEntry {
    /// Its number in records; never used again.
    pub index: VolumeIndex,
    /// Its name, `data` unless somebody chose another.
    pub name: VolumeName,
    /// The directory.
    pub pvol: PathBuf,
    /// What its last opening left; absent before the first.
    #[serde(default)]
    pub session: Option<Session>,
    /// Its newest finished base copy of this epoch.
    #[serde(default)]
    pub base: Option<Base>,
}

/// A volume that has left its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerVolume {
    /// Its number in records.
    pub index: VolumeIndex,
    /// The name that it had.
    pub name: VolumeName,
}

impl VolumeEntry {
    /// A directory that was never opened.
    #[must_use]
    pub fn new(index: VolumeIndex, name: VolumeName, pvol: PathBuf) -> VolumeEntry {
        VolumeEntry { index, name, pvol, session: None, base: None }
    }
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
    /// It was on another disk than the system and the journal.
    #[serde(default)]
    pub apart: bool,
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
    /// Its BaseBegin, when it is in the journal and not on a tape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Seq>,
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
    pub const SCHEMA: u32 = 3;

    /// Reads the file of a group.
    ///
    /// # Errors
    /// No such group (exit code 10), or a file that is not one.
    pub fn load(group: &GroupDir) -> Result<GroupFile> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no group {}", group.name()));
        GroupFile::load_at(&group.file())?.ok_or_else(missing)
    }

    /// That of a group that is being made or deleted; `None` when none is.
    ///
    /// # Errors
    /// As [`GroupFile::load`].
    pub fn load_passing(group: &GroupDir) -> Result<Option<GroupFile>> {
        GroupFile::load_at(&group.passing())
    }

    fn load_at(path: &Path) -> Result<Option<GroupFile>> {
        match fs::read_to_string(path) {
            Ok(text) => GroupFile::parse(path, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("read {}", path.display()), error)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<GroupFile> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let broken = |error| {
            let (shown, dir) = (path.display(), path.parent().unwrap_or(path).display());
            let hint = format!("put a copy of it back, or give the group up: mv {dir} ELSEWHERE");
            Error::new(ErrorKind::Damaged, format!("{shown} is not a group file")).because(error).hint(hint)
        };
        let Version { schema } = serde_json::from_str(text).map_err(broken)?;
        match schema {
            // 2 says of no directory of tapes that it was apart
            2 | Self::SCHEMA => {
                let file: GroupFile = serde_json::from_str(text).map_err(broken)?;
                Ok(GroupFile { schema: Self::SCHEMA, ..file })
            }
            1 => serde_json::from_str::<Schema1>(text).map(GroupFile::from).map_err(broken),
            later => {
                let (shown, known) = (path.display(), Self::SCHEMA);
                Err(Error::failed(format!("{shown} is of schema {later}; this program knows 1 to {known}")))
            }
        }
    }

    /// Writes the file of a group: under another name, synced, then renamed over the old one. Mode 0600.
    ///
    /// # Errors
    /// The operating system says no; the old file is still there then.
    pub fn store(&self, group: &GroupDir) -> Result<()> {
        self.store_at(group, &group.file())
    }

    /// The same of a group that is about to be made.
    ///
    /// # Errors
    /// As [`GroupFile::store`].
    pub fn store_passing(&self, group: &GroupDir) -> Result<()> {
        self.store_at(group, &group.passing())
    }

    fn store_at(&self, group: &GroupDir, path: &Path) -> Result<()> {
        let fail = |error: io::Error| Error::io(format!("write {}", path.display()), error);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| fail(error.into()))?;
        text.push(b'\n');
        let temporary = || tempfile::Builder::new().prefix(".group.json.").tempfile_in(group.path());
        let make = || Operation::Create { directory: CWD, name: group.path().as_os_str().as_bytes().into() };
        let file = disk::call(Label::StateCreate, make, temporary).map_err(fail)?;
        disk::append(Label::StateWrite, file.as_file(), &text).map_err(|errno| fail(errno.into()))?;
        disk::sync(Label::StateSync, file.as_file()).map_err(|errno| fail(errno.into()))?;
        disk::rename(Label::StateRename, file.path(), path).map_err(fail)?;
        // it has another name now
        let _ = file.into_temp_path().keep();
        disk::sync_parent(Label::StateNameSync, path).map_err(fail)
    }

    /// The volume of this name; without one the only volume.
    ///
    /// # Errors
    /// 10 when there is none of this name or none at all, 2 when there are several to choose from.
    pub fn volume(&self, name: Option<&VolumeName>) -> Result<&VolumeEntry> {
        let group = &self.name;
        let known =
            || self.volumes.iter().map(|volume| format!("{group}/{}", volume.name)).collect::<Vec<_>>().join(", ");
        match (name, self.volumes.as_slice()) {
            (_, []) => Err(Error::new(ErrorKind::NotFound, format!("group {group} has no volume yet"))
                .hint(format!("reelfs pair create {group}/{} --pvol DIR", VolumeName::ONLY))),
            (None, [only]) => Ok(only),
            (None, _) => {
                Err(Error::usage(format!("group {group} has several volumes")).hint(format!("one of {}", known())))
            }
            (Some(name), volumes) => volumes.iter().find(|volume| volume.name == *name).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("group {group} has no volume {name}"))
                    .hint(format!("it has {}", known()))
            }),
        }
    }

    /// The volumes that a name on the command line means: the one named, or all.
    ///
    /// # Errors
    /// As [`GroupFile::volume`], but several are welcome.
    pub fn chosen(&self, name: Option<&VolumeName>) -> Result<Vec<&VolumeEntry>> {
        match name {
            None if self.volumes.len() > 1 => Ok(self.volumes.iter().collect()),
            name => self.volume(name).map(|volume| vec![volume]),
        }
    }

    /// All volumes that records may be of, as the labels of tapes list them.
    #[must_use]
    pub fn label_volumes(&self) -> Vec<LabelVolume> {
        let former = self.former.iter().map(|volume| LabelVolume::new(volume.index, volume.name.clone()));
        let mut all: Vec<LabelVolume> = self
            .volumes
            .iter()
            .map(|volume| LabelVolume::new(volume.index, volume.name.clone()))
            .chain(former)
            .collect();
        all.sort_by_key(|volume| volume.index);
        all
    }

    /// A volume leaves.
    pub fn part_with(&mut self, index: VolumeIndex) {
        if let Some(at) = self.volumes.iter().position(|entry| entry.index == index) {
            let VolumeEntry { index, name, .. } = self.volumes.remove(at);
            self.former.push(FormerVolume { index, name });
        }
    }

    /// What a volume is called where only people read: the group's name, and its own when there are several.
    #[must_use]
    pub fn title(&self, volume: &VolumeEntry) -> String {
        match self.volumes.len() {
            1 => self.name.to_string(),
            _ => format!("{}/{}", self.name, volume.name),
        }
    }

    /// The base copy from which on the whole group can be restored; `None` while a volume has none.
    #[must_use]
    pub fn base(&self) -> Option<Base> {
        let bases: Option<Vec<Base>> = self.volumes.iter().map(|volume| volume.base).collect();
        bases?.into_iter().max_by_key(|base| base.seq)
    }

    /// Remembers the newest finished base copy of a volume.
    pub fn set_base(&mut self, index: VolumeIndex, base: Base) {
        if let Some(entry) = self.volumes.iter_mut().find(|entry| entry.index == index) {
            entry.base = Some(base);
        }
    }

    /// Remembers what the last opening of a volume left.
    pub fn set_session(&mut self, index: VolumeIndex, session: Session) {
        if let Some(entry) = self.volumes.iter_mut().find(|entry| entry.index == index) {
            entry.session = Some(session);
        }
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

/// As groups were made before they could have several volumes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema1 {
    #[serde(rename = "schema")]
    _schema: u32,
    name: GroupName,
    uuid: Uuid,
    epoch: Epoch,
    pvol: PathBuf,
    journal: PathBuf,
    created: Timestamp,
    #[serde(default)]
    on_full: OnFull,
    #[serde(default)]
    session: Option<Session>,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    base: Option<Base>,
    #[serde(default)]
    last_marker: Option<LastMarker>,
}

impl From<Schema1> for GroupFile {
    fn from(old: Schema1) -> GroupFile {
        let Schema1 {
            _schema,
            name,
            uuid,
            epoch,
            pvol,
            journal,
            created,
            on_full,
            session,
            targets,
            base,
            last_marker,
        } = old;
        let index = VolumeIndex::FIRST;
        let volume = VolumeEntry { index, name: VolumeName::unnamed(index), pvol, session, base };
        let (schema, volumes, former, volumes_ever) = (GroupFile::SCHEMA, vec![volume], Vec::new(), 1);
        GroupFile {
            schema,
            name,
            uuid,
            epoch,
            volumes,
            former,
            volumes_ever,
            journal,
            created,
            on_full,
            settings: Settings::default(),
            targets,
            consumers: Vec::new(),
            last_marker,
            number: None,
            origin: JournalOrigin::default(),
        }
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
            volumes: vec![VolumeEntry {
                base: Some(Base { uuid: Uuid::from_u128(8), seq: Seq(9), began: None }),
                ..VolumeEntry::new(VolumeIndex::FIRST, VolumeName::unnamed(VolumeIndex::FIRST), "/srv/docs".into())
            }],
            former: Vec::new(),
            volumes_ever: 1,
            journal: "/j/docs.jvol".into(),
            created: Timestamp(5),
            on_full: OnFull::Block,
            settings: Settings::default(),
            targets: Vec::new(),
            consumers: Vec::new(),
            last_marker: Some(LastMarker { name: "m".into(), seq: Seq(3), time: Timestamp(4) }),
            number: Some(3),
            origin: JournalOrigin::default(),
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
            apart: true,
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
        let later = GroupFile::parse(path, r#"{"schema": 4, "new": true}"#).expect_err("later");
        assert_eq!(later.to_string(), "/x/group.json is of schema 4; this program knows 1 to 3");
        assert_eq!(GroupFile::parse(path, "rubbish").expect_err("rubbish").code(), 19);
    }

    #[test]
    fn a_group_of_the_first_schema_has_one_volume() {
        let old = r#"{"schema": 1, "name": "docs", "uuid": "00000000-0000-0000-0000-000000000007", "epoch": 1,
            "pvol": "/srv/docs", "journal": "/j/docs.jvol", "created": 5, "on_full": "block", "session": null, "targets": [],
            "base": {"uuid": "00000000-0000-0000-0000-000000000008", "seq": 9},
            "last_marker": {"name": "m", "seq": 3, "time": 4}}"#;
        let file = GroupFile::parse(Path::new("/x/group.json"), old).expect("an old group file");
        assert_eq!(file, GroupFile { number: None, ..example() });
    }

    #[test]
    fn a_name_is_needed_only_to_choose() {
        let mut file = example();
        let names = |chosen: Result<Vec<&VolumeEntry>>| {
            chosen
                .map(|all| all.iter().map(|one| one.name.to_string()).collect::<Vec<_>>())
                .map_err(|error| error.code())
        };
        let logs: VolumeName = "logs".parse().expect("name");
        assert_eq!(file.volume(None).map(|volume| volume.index).ok(), Some(VolumeIndex(0)));
        assert_eq!(file.volume(Some(&logs)).expect_err("not there").code(), 10);
        file.volumes.push(VolumeEntry::new(VolumeIndex(1), logs.clone(), "/srv/logs".into()));
        assert_eq!(file.volume(None).expect_err("two").code(), 2);
        assert_eq!(file.volume(Some(&logs)).map(|volume| volume.index).ok(), Some(VolumeIndex(1)));
        assert_eq!(names(file.chosen(None)), Ok(vec!["data".to_owned(), "logs".to_owned()]));
        assert_eq!(names(file.chosen(Some(&logs))), Ok(vec!["logs".to_owned()]));
        assert_eq!(file.base(), None, "one has none yet");
        file.volumes.clear();
        assert_eq!(names(file.chosen(None)), Err(10));
    }
}
