//! The label: what a tape says about itself at its beginning.

use reelfs_journal::{Digest, Epoch, GroupName, Position, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::SEQ_MAX;
use crate::{TapeError, TapeKind};

/// The tape format that this program writes, and the highest that it reads.
pub const FORMAT_VERSION: u32 = 1;

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
    /// A label for a new update tape that goes on after `before`; `first_time` is the time of its first record.
    #[must_use]
    pub fn update(group: GroupName, group_uuid: Uuid, before: Position, first_time: Timestamp) -> Label {
        let mut label = Label::new(TapeKind::Update, group, group_uuid, before.epoch, before.seq.next(), first_time);
        label.before = Some(before);
        label
    }

    /// A label for the base tape of the base copy that began at record `began`.
    #[must_use]
    pub fn base(
        group: GroupName,
        group_uuid: Uuid,
        epoch: Epoch,
        base: Uuid,
        began: Seq,
        began_time: Timestamp,
    ) -> Label {
        let mut label = Label::new(TapeKind::Base, group, group_uuid, epoch, began, began_time);
        label.base = Some(base);
        label
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
            readable_from: FORMAT_VERSION,
            tape: new_identity(),
            group,
            group_uuid,
            epoch,
            kind,
            base: None,
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
