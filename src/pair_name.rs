//! What a pair is called on the command line: its group, and in a group of several volumes which of them.

use std::fmt;
use std::str::FromStr;

use reelfs_journal::{GroupName, VolumeName};

/// `GROUP` or `GROUP/VOLUME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairName {
    /// The group.
    pub group: GroupName,
    /// The volume; `None` means the only one, or all of them.
    pub volume: Option<VolumeName>,
}

impl FromStr for PairName {
    type Err = String;

    fn from_str(text: &str) -> Result<PairName, String> {
        let (group, volume) = match text.split_once('/') {
            Some((group, volume)) => (group, Some(volume)),
            None => (text, None),
        };
        let group = group.parse().map_err(|error: reelfs_journal::GroupNameError| error.to_string())?;
        let volume = volume.map(str::parse).transpose();
        let volume = volume.map_err(|error: reelfs_journal::VolumeNameError| error.to_string())?;
        Ok(PairName { group, volume })
    }
}

impl fmt::Display for PairName {
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
    fn a_group_or_one_volume_of_it() {
        let read = |text: &str| text.parse::<PairName>().map(|name| name.to_string());
        assert_eq!(read("docs"), Ok("docs".to_owned()));
        assert_eq!(read("shop/logs"), Ok("shop/logs".to_owned()));
        for wrong in ["", "/", "docs/", "/data", "a/b/c", "A/b", "a/B"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
