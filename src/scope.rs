//! What a command is about: a group, or one volume of it.

use std::fmt;
use std::str::FromStr;

use reelfs_journal::{GroupName, VolumeName};

/// `G` or `G/VOL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The group.
    pub group: GroupName,
    /// The volume, when only one is meant.
    pub volume: Option<VolumeName>,
}

impl Scope {
    /// All of a group.
    #[must_use]
    pub fn group(group: GroupName) -> Scope {
        Scope { group, volume: None }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (group, volume) = match text.split_once('/') {
            Some((group, volume)) => (group, Some(volume)),
            None => (text, None),
        };
        let group = group.parse().map_err(|error: reelfs_journal::GroupNameError| error.to_string())?;
        let volume = volume.map(str::parse).transpose();
        Ok(Scope { group, volume: volume.map_err(|error: reelfs_journal::VolumeNameError| error.to_string())? })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.volume {
            Some(volume) => write!(f, "{}/{volume}", self.group),
            None => self.group.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_volumes_are_told_apart() {
        for (text, volume) in [("docs", None), ("docs/web", Some("web"))] {
            let scope: Scope = text.parse().expect(text);
            assert_eq!((scope.group.as_str(), scope.volume.as_ref().map(VolumeName::as_str)), ("docs", volume));
            assert_eq!(scope.to_string(), text);
        }
        for text in ["", "/", "docs/", "/web", "docs/web/x", "docs/..", "Docs"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }
}
