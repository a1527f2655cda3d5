//! The file name of a tape, which is its entry in every directory listing.

use std::fmt;
use std::str::FromStr;

use reelfs_journal::{Epoch, GroupName, Seq};
use serde::{Deserialize, Serialize};

/// The last number that fits into a tape's name.
pub(crate) const SEQ_MAX: Seq = Seq(999_999_999_999_999);

/// What a tape holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TapeKind {
    /// A directory tree as it stood while it was walked.
    Base,
    /// The records of a range.
    Update,
}

impl TapeKind {
    /// Its part of a tape's name.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            TapeKind::Base => "base",
            TapeKind::Update => "upd",
        }
    }
}

impl fmt::Display for TapeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TapeKind::Base => "base",
            TapeKind::Update => "update",
        })
    }
}

/// `GROUP-EPOCH-FIRST-LAST.{base,upd}.reel.tar.zst`, fixed in width so that `ls` sorts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TapeName {
    /// The group's name (its identity is its UUID, on the label).
    pub group: GroupName,
    /// Which history.
    pub epoch: Epoch,
    /// First record; on a base tape the number of its `BaseBegin`.
    pub first: Seq,
    /// Last record; on a base tape the same as `first`.
    pub last: Seq,
    /// What it holds.
    pub kind: TapeKind,
}

/// Why a file name is not a tape's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a tape: GROUP-EPOCH-FIRST-LAST.(base|upd).reel.tar.zst")]
pub struct TapeNameError(pub String);

impl TapeName {
    /// What every tape's name ends with.
    pub const SUFFIX: &'static str = ".reel.tar.zst";
    /// Digits of an epoch.
    pub const EPOCH_DIGITS: usize = 6;
    /// Digits of a sequence number.
    pub const SEQ_DIGITS: usize = 15;

    fn split(text: &str) -> Option<TapeName> {
        let (stem, tag) = text.strip_suffix(Self::SUFFIX)?.rsplit_once('.')?;
        let kind = match tag {
            "base" => TapeKind::Base,
            "upd" => TapeKind::Update,
            _ => return None,
        };
        let mut parts = stem.split('-');
        let group = parts.next()?.parse().ok()?;
        let epoch = u32::try_from(digits(parts.next()?, Self::EPOCH_DIGITS)?).ok()?;
        let first = digits(parts.next()?, Self::SEQ_DIGITS)?;
        let last = digits(parts.next()?, Self::SEQ_DIGITS)?;
        let in_order = if kind == TapeKind::Base { first == last } else { first <= last };
        (parts.next().is_none() && in_order).then_some(TapeName {
            group,
            epoch: Epoch(epoch),
            first: Seq(first),
            last: Seq(last),
            kind,
        })
    }
}

fn digits(text: &str, width: usize) -> Option<u64> {
    (text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

impl FromStr for TapeName {
    type Err = TapeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        TapeName::split(text).ok_or_else(|| TapeNameError(text.to_owned()))
    }
}

impl fmt::Display for TapeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TapeName { group, epoch, first, last, kind } = self;
        write!(f, "{group}-{:06}-{:015}-{:015}.{}{}", epoch.0, first.0, last.0, kind.tag(), Self::SUFFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_through_text_and_refuses_everything_else() {
        let text = "docs-000001-000000000000042-000000000001234.upd.reel.tar.zst";
        let name: TapeName = text.parse().expect("a tape's name");
        assert_eq!((name.first, name.last, name.kind), (Seq(42), Seq(1234), TapeKind::Update));
        assert_eq!(name.to_string(), text);
        for wrong in [
            "docs-000001-000000000000042-000000000001234.upd.reel.tar",
            "docs-000001-000000000000042-000000000001234.new.reel.tar.zst",
            "docs-000001-000000000000042-000000000001234.base.reel.tar.zst",
            "docs-000001-000000000000043-000000000000042.upd.reel.tar.zst",
            "docs-00001-000000000000042-000000000001234.upd.reel.tar.zst",
            "docs-000001-+00000000000042-000000000001234.upd.reel.tar.zst",
            "Docs-000001-000000000000042-000000000001234.upd.reel.tar.zst",
            "do-cs-000001-000000000000042-000000000001234.upd.reel.tar.zst",
            ".docs-000001-000000000000042-000000000001234.upd.reel.tar.zst.part",
        ] {
            assert!(wrong.parse::<TapeName>().is_err(), "{wrong}");
        }
    }
}
