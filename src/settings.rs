//! What an administrator sets for a group and may change while it is mounted: when it warns, when tapes are written by themselves, and
//! how many are kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use reelfs_volume::{OnFull, WARN_PERCENT};
use serde::{Deserialize, Serialize};

/// A part of the journal, 1 to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = String;

    /// `80%` or `80`.
    fn from_str(text: &str) -> Result<Percent, String> {
        let number = text.trim().trim_end_matches('%').trim_end().parse::<u8>().ok();
        let percent = number.filter(|number| (1..=100).contains(number)).map(Percent);
        percent.ok_or_else(|| format!("`{text}` is not a part of the journal: write 1% to 100%"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// A setting that can be switched off: `never` (or `all`, of what is kept).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch<T> {
    /// As set.
    On(T),
    /// Off.
    Off,
}

impl<T: FromStr> FromStr for Switch<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Switch<T>, T::Err> {
        if matches!(text, "never" | "all" | "off") { Ok(Switch::Off) } else { text.parse().map(Switch::On) }
    }
}

impl<T> Switch<T> {
    fn on(self) -> Option<T> {
        match self {
            Switch::On(value) => Some(value),
            Switch::Off => None,
        }
    }
}

/// A length of time as a person writes it: `90s`, `5m`, `1h 30m`.
///
/// # Errors
/// It is none; what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| match text.trim().parse::<u64>() {
        Ok(number) => format!("`{text}` has no unit: {number}s, {number}m or {number}h"),
        Err(_) => format!("`{text}`: {error}"),
    })
}

/// A length of time, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub u64);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        let duration = parse_duration(text)?;
        let seconds = Seconds(duration.as_secs());
        (seconds.0 > 0).then_some(seconds).ok_or_else(|| format!("`{text}` is less than a second"))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_secs(self.0)).fmt(f)
    }
}

/// The settings of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// From this occupancy on it is warned, and writers are slowed down.
    pub warn: Percent,
    /// From this occupancy on a mount exports to every directory that the group knows.
    pub export_at: Option<Percent>,
    /// So often, whenever there is something new.
    pub export_every: Option<Seconds>,
    /// When the oldest change that is not on tapes yet is so old.
    pub export_age: Option<Seconds>,
    /// When so many bytes are not on tapes yet.
    pub export_size: Option<u64>,
    /// How many tapes are kept in each directory, the newest, base tapes included.
    pub keep_tapes: Option<u64>,
    /// How old tapes become.
    pub keep_age: Option<Seconds>,
    /// How many bytes of tapes are kept in each directory.
    pub keep_size: Option<u64>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            warn: Percent(WARN_PERCENT),
            export_at: Some(Percent(50)),
            export_every: None,
            export_age: None,
            export_size: None,
            keep_tapes: None,
            keep_age: None,
            keep_size: None,
        }
    }
}

/// What is to be changed; what is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// What happens when the journal is full.
    pub on_full: Option<OnFull>,
    /// See [`Settings::warn`].
    pub warn: Option<Percent>,
    /// See [`Settings::export_at`].
    pub export_at: Option<Switch<Percent>>,
    /// See [`Settings::export_every`].
    pub export_every: Option<Switch<Seconds>>,
    /// See [`Settings::export_age`].
    pub export_age: Option<Switch<Seconds>>,
    /// See [`Settings::export_size`].
    pub export_size: Option<Switch<u64>>,
    /// See [`Settings::keep_tapes`].
    pub keep_tapes: Option<Switch<u64>>,
    /// See [`Settings::keep_age`].
    pub keep_age: Option<Switch<Seconds>>,
    /// See [`Settings::keep_size`].
    pub keep_size: Option<Switch<u64>>,
}

impl Changes {
    /// The settings after them.
    #[must_use]
    pub fn applied(&self, settings: Settings) -> Settings {
        fn set<T: Copy>(change: Option<Switch<T>>, before: Option<T>) -> Option<T> {
            change.map_or(before, Switch::on)
        }
        Settings {
            warn: self.warn.unwrap_or(settings.warn),
            export_at: set(self.export_at, settings.export_at),
            export_every: set(self.export_every, settings.export_every),
            export_age: set(self.export_age, settings.export_age),
            export_size: set(self.export_size, settings.export_size),
            keep_tapes: set(self.keep_tapes, settings.keep_tapes),
            keep_age: set(self.keep_age, settings.keep_age),
            keep_size: set(self.keep_size, settings.keep_size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_what_is_off_goes() {
        let changes = Changes {
            export_at: Some("never".parse().expect("off")),
            export_age: Some("1h".parse().expect("an hour")),
            ..Changes::default()
        };
        let after = changes.applied(Settings::default());
        let wanted = Settings { export_at: None, export_age: Some(Seconds(3600)), ..Settings::default() };
        assert_eq!(after, wanted);
        let line = serde_json::to_string(&changes).expect("a line");
        assert_eq!(serde_json::from_str::<Changes>(&line).expect("the same"), changes, "{line}");
        assert_eq!(serde_json::from_str::<Settings>("{}").expect("an older file"), Settings::default());
    }

    #[test]
    fn a_part_is_one_to_a_hundred() {
        assert_eq!("80%".parse(), Ok(Percent(80)));
        for wrong in ["0", "101%", "%", "-1", "8.5%"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
        assert!("0s".parse::<Seconds>().is_err());
    }
}
