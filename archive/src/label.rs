//! The label: what a tape says about itself at its beginning.

use reelfs_journal::{Digest, Epoch, GroupName, Position, Seq, Timestamp, VolumeIndex, VolumeName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::SEQ_MAX;
use crate::{TapeError, TapeKind};

/// The tape format that this program writes, and the highest that it reads.
pub const FORMAT_VERSION: u32 = 2;

/// The lowest format whose readers know that a group may have several volumes.
const SEVERAL_VOLUMES: u32 = 2;

/// Most bytes of a label.
pub(crate) const LABEL_MAX: usize = 64 << 10;

/// The tape before this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its UUID.
    pub tape: Uuid,
    /// The file name it was written under.
    pub name: String,
    /// Its root digest.
    pub root: Digest,
}

/// A volume of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelVolume {
    /// The index that its records carry.
    pub index: VolumeIndex,
    /// Its name; tapes of format 1 do not tell it.
    pub name: Option<VolumeName>,
}

impl LabelVolume {
    /// A volume with its name.
    #[must_use]
    pub fn new(index: VolumeIndex, name: VolumeName) -> LabelVolume {
        LabelVolume { index, name: Some(name) }
    }

    /// The volume of a group that has only one, which nobody gave a name.
    #[must_use]
    pub fn only() -> LabelVolume {
        LabelVolume::new(VolumeIndex::FIRST, VolumeName::unnamed(VolumeIndex::FIRST))
    }

    /// The name to call it by.
    #[must_use]
    pub fn called(&self) -> VolumeName {
        self.name.clone().unwrap_or_else(|| VolumeName::unnamed(self.index))
    }
}

/// What the labels of format 1 leave out.
fn only_unnamed() -> Vec<LabelVolume> {
    vec![LabelVolume { index: VolumeIndex::FIRST, name: None }]
}

/// How the frames were made; for people, a reader needs none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameParameters {
    /// Most uncompressed bytes of a frame.
    pub bytes: u32,
    /// Base-2 logarithm of the zstd window.
    pub window_log: u32,
    /// zstd level.
    pub level: i32,
}

/// What a tape says about itself at its beginning. Where it ends is in the [`crate::Index`]: a tape is written in one
/// pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Format version it was written in.
    pub format: u32,
    /// Lowest format version whose readers understand it.
    pub readable_from: u32,
    /// The tape.
    pub tape: Uuid,
    /// The group's name, for people.
    pub group: GroupName,
    /// The group.
    pub group_uuid: Uuid,
    /// Which history.
    pub epoch: Epoch,
    /// What it holds.
    pub kind: TapeKind,
    /// The base copy, on base tapes.
    pub base: Option<Uuid>,
    /// Base tape: the one volume that it holds. Update tape: all volumes of the group when it was written, and those that
    /// left and have records on it. Indexes rise.
    #[serde(default = "only_unnamed")]
    pub volumes: Vec<LabelVolume>,
    /// First record; on a base tape the number of its `BaseBegin`.
    pub first: Seq,
    /// Time of that record.
    pub first_time: Timestamp,
    /// Position before the first record; base tapes may not know it.
    pub before: Option<Position>,
    /// The tape before it, if there is one.
    pub previous: Option<Previous>,
    /// Which part of how many; always 1 of 1 in this version.
    pub part: (u32, u32),
    /// Host that wrote it.
    pub host: String,
    /// Program and version that wrote it.
    pub program: String,
    /// Wall time of its writing.
    pub created: Timestamp,
    /// How its frames were made.
    pub frames: FrameParameters,
}

impl Label {
    /// A label for a new update tape that goes on after `before`; `first_time` is the time of its first record. Only
    /// records of these volumes can go on it.
    #[must_use]
    pub fn update(
        group: GroupName,
        group_uuid: Uuid,
        before: Position,
        first_time: Timestamp,
        volumes: Vec<LabelVolume>,
    ) -> Label {
        let mut label = Label::new(TapeKind::Update, group, group_uuid, before.epoch, before.seq.next(), first_time);
        label.before = Some(before);
        label.hold(volumes);
        label
    }

    /// A label for the base tape of the base copy of one volume that began at record `began`.
    #[must_use]
    pub fn base(
        group: GroupName,
        group_uuid: Uuid,
        epoch: Epoch,
        base: Uuid,
        began: Seq,
        began_time: Timestamp,
        volume: LabelVolume,
    ) -> Label {
        let mut label = Label::new(TapeKind::Base, group, group_uuid, epoch, began, began_time);
        label.base = Some(base);
        label.hold(vec![volume]);
        label
    }

    /// A reader of format 1 takes every record for one of the only volume: it must not read what has another.
    fn hold(&mut self, mut volumes: Vec<LabelVolume>) {
        volumes.sort_by_key(|volume| volume.index);
        let is_first = |volume: &LabelVolume| volume.index == VolumeIndex::FIRST;
        self.readable_from = if volumes.iter().all(is_first) { 1 } else { SEVERAL_VOLUMES };
        self.volumes = volumes;
    }

    /// The volume with this index is on the label.
    #[must_use]
    pub fn lists(&self, index: VolumeIndex) -> bool {
        self.volumes.iter().any(|volume| volume.index == index)
    }

    fn new(
        kind: TapeKind,
        group: GroupName,
        group_uuid: Uuid,
        epoch: Epoch,
        first: Seq,
        first_time: Timestamp,
    ) -> Label {
        Label {
            format: FORMAT_VERSION,
            readable_from: 1,
            tape: new_identity(),
            group,
            group_uuid,
            epoch,
            kind,
            base: None,
            volumes: Vec::new(),
            first,
            first_time,
            before: None,
            previous: None,
            part: (1, 1),
            host: host_name(),
            program: format!("reelfs {}", env!("CARGO_PKG_VERSION")),
            created: first_time,
            frames: FrameParameters { bytes: 0, window_log: 0, level: 0 },
        }
    }

    /// Takes the label member's text apart and checks that it makes sense.
    pub(crate) fn parse(text: &[u8]) -> Result<Label, TapeError> {
        #[derive(Deserialize)]
        struct Readable {
            readable_from: u32,
        }
        let malformed = |error: serde_json::Error| TapeError::malformed("label", error.to_string());
        let Readable { readable_from } = serde_json::from_slice(text).map_err(malformed)?;
        if readable_from > FORMAT_VERSION {
            return Err(TapeError::Version { needs: readable_from, reads: FORMAT_VERSION });
        }
        let label: Label = serde_json::from_slice(text).map_err(malformed)?;
        label.check()?;
        Ok(label)
    }

    /// The rules that a label keeps, for writers and readers alike.
    pub(crate) fn check(&self) -> Result<(), TapeError> {
        let wrong = |reason: &str| Err(TapeError::malformed("label", reason));
        if self.epoch.0 > 999_999 || self.first == Seq::ZERO || self.first > SEQ_MAX {
            return wrong("its epoch or first record is out of range");
        }
        if self.part != (1, 1) {
            return wrong("tapes in parts are unknown to this version");
        }
        let rises = self.volumes.windows(2).all(|pair| pair[0].index < pair[1].index);
        let enough = self.volumes.len() == 1 || (self.kind == TapeKind::Update && !self.volumes.is_empty());
        if !rises || !enough {
            return wrong("its volumes are not those that such a tape has");
        }
        match (self.kind, self.base, self.before) {
            (TapeKind::Base, None, _) => wrong("a base tape needs a base copy"),
            (TapeKind::Update, Some(_), _) => wrong("an update tape has no base copy"),
            (TapeKind::Update, None, None) => wrong("an update tape needs the position before it"),
            (TapeKind::Update, None, Some(before))
                if before.seq.0.checked_add(1) != Some(self.first.0) || before.epoch > self.epoch =>
            {
                wrong("the position before it is not that of the record before its first")
            }
            _ => Ok(()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a tape gets its identity; a test may set another")]
fn new_identity() -> Uuid {
    Uuid::new_v4()
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAPE: Uuid = Uuid::from_u128(7);

    fn volume(index: u16, name: &str) -> LabelVolume {
        LabelVolume::new(VolumeIndex(index), name.parse().expect("a name"))
    }

    fn update(volumes: Vec<LabelVolume>) -> Label {
        let before = Position { epoch: Epoch(1), seq: Seq(4), digest: Digest::ZERO };
        let label = Label::update("docs".parse().expect("a name"), Uuid::nil(), before, Timestamp(9), volumes);
        Label { tape: TAPE, host: "here".into(), program: "reelfs".into(), ..label }
    }

    fn text(label: &Label) -> String {
        serde_json::to_string(label).expect("JSON")
    }

    /// The field table of docs/FORMAT-tape.md, byte for byte.
    fn golden(readable_from: u32, volumes: &str) -> String {
        let (nil, zeros) = (Uuid::nil(), "0".repeat(64));
        format!(
            "{{\"format\":2,\"readable_from\":{readable_from},\"tape\":\"{TAPE}\",\"group\":\"docs\",\"group_uuid\":\"{nil}\",\
             \"epoch\":1,\"kind\":\"update\",\"base\":null,{volumes}\"first\":5,\"first_time\":9,\
             \"before\":{{\"epoch\":1,\"seq\":4,\"digest\":\"{zeros}\"}},\"previous\":null,\"part\":[1,1],\
             \"host\":\"here\",\"program\":\"reelfs\",\"created\":9,\
             \"frames\":{{\"bytes\":0,\"window_log\":0,\"level\":0}}}}"
        )
    }

    #[test]
    fn golden_bytes_of_a_label() {
        let only = update(vec![LabelVolume::only()]);
        assert_eq!(text(&only), golden(1, "\"volumes\":[{\"index\":0,\"name\":\"data\"}],"));
        let two = update(vec![volume(3, "web"), volume(0, "data")]);
        let list = "\"volumes\":[{\"index\":0,\"name\":\"data\"},{\"index\":3,\"name\":\"web\"}],";
        assert_eq!(text(&two), golden(2, list));
        for label in [only, two] {
            assert_eq!(Label::parse(text(&label).as_bytes()).expect("a label"), label);
        }
    }

    #[test]
    fn a_label_of_format_1_is_of_one_volume_without_a_name() {
        let label = Label::parse(golden(1, "").as_bytes()).expect("a label");
        assert_eq!(label.volumes, [LabelVolume { index: VolumeIndex(0), name: None }]);
        assert_eq!(label.volumes[0].called().as_str(), "data");
    }

    #[test]
    fn old_readers_are_kept_from_what_they_would_take_for_the_only_volume() {
        assert_eq!(update(vec![volume(0, "mail")]).readable_from, 1);
        assert_eq!(update(vec![volume(1, "data")]).readable_from, 2);
        assert_eq!(update(vec![volume(0, "data"), volume(1, "web")]).readable_from, 2);
        let base = |volume| {
            let group = "docs".parse().expect("a name");
            Label::base(group, Uuid::nil(), Epoch(1), TAPE, Seq(1), Timestamp(1), volume).readable_from
        };
        assert_eq!([base(LabelVolume::only()), base(volume(1, "web"))], [1, 2]);
    }

    #[test]
    fn lists_of_volumes_that_cannot_be_are_refused() {
        let entry = |index: u32, name: &str| format!("{{\"index\":{index},\"name\":\"{name}\"}}");
        for list in [
            String::new(),
            format!("{},{}", entry(0, "a"), entry(0, "b")),
            format!("{},{}", entry(1, "a"), entry(0, "b")),
            entry(0, ".."),
            entry(65_536, "a"),
        ] {
            let text = golden(1, &format!("\"volumes\":[{list}],"));
            assert!(Label::parse(text.as_bytes()).is_err(), "{list}");
        }
    }
}
