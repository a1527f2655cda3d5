//! Times for people and programs: local with the offset, or UTC, always with nine digits.

use chrono::{DateTime, FixedOffset, Local, MappedLocalTime, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use reelfs_journal::{Seq, Timestamp};

/// The zone in which times are read and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// What the machine is set to.
    Local,
    /// A zone of the IANA database, by name.
    Named(Tz),
    /// An offset that never changes.
    Fixed(FixedOffset),
}

impl Zone {
    /// UTC.
    pub const UTC: Zone = Zone::Named(Tz::UTC);

    /// The zone of the user: `TZ` when it names one, else the machine's.
    #[must_use]
    pub fn from_environment() -> Zone {
        let named = std::env::var("TZ").ok().and_then(|name| name.trim_start_matches(':').parse().ok());
        named.map_or(Zone::Local, Zone::Named)
    }

    /// The instants that a wall clock in this zone shows as `naive`: one, two, or none.
    #[must_use]
    pub fn instants(&self, naive: &NaiveDateTime) -> MappedLocalTime<DateTime<FixedOffset>> {
        match self {
            Zone::Local => Local.from_local_datetime(naive).map(|time| time.fixed_offset()),
            Zone::Named(zone) => zone.from_local_datetime(naive).map(|time| time.fixed_offset()),
            Zone::Fixed(offset) => offset.from_local_datetime(naive),
        }
    }

    /// The instant as this zone's wall clock shows it.
    #[must_use]
    pub fn show(&self, time: Timestamp) -> DateTime<FixedOffset> {
        let utc = DateTime::<Utc>::from_timestamp_nanos(time.0);
        match self {
            Zone::Local => utc.with_timezone(&Local).fixed_offset(),
            Zone::Named(zone) => utc.with_timezone(zone).fixed_offset(),
            Zone::Fixed(offset) => utc.with_timezone(offset),
        }
    }

    /// `2026-11-20 13:04:59.871203000 +01:00`.
    #[must_use]
    pub fn text(&self, time: Timestamp) -> String {
        self.show(time).format("%Y-%m-%d %H:%M:%S%.9f %:z").to_string()
    }

    /// `2026-11-20 13:04:59 +01:00`: for tables, where the number beside it is exact.
    #[must_use]
    pub fn text_seconds(&self, time: Timestamp) -> String {
        self.show(time).format("%Y-%m-%d %H:%M:%S %:z").to_string()
    }

    /// What the zone is called in a sentence.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Zone::Local => "the local zone".to_owned(),
            Zone::Named(zone) => zone.name().to_owned(),
            Zone::Fixed(offset) => offset.fix().to_string(),
        }
    }

    /// The answer to "what did it make of my words": `at 2026-11-20 13:04:59.871203000 +01:00 (12:04:59.871203000Z) = seq
    /// 918244, tape docs-...`.
    #[must_use]
    pub fn echo(&self, time: Timestamp, seq: Seq, tape: Option<&str>) -> String {
        let utc = DateTime::<Utc>::from_timestamp_nanos(time.0);
        let here = self.show(time);
        let same_day = here.date_naive() == utc.date_naive();
        let format = if same_day { "%H:%M:%S%.9fZ" } else { "%Y-%m-%d %H:%M:%S%.9fZ" };
        let tape = tape.map_or_else(String::new, |name| format!(", tape {name}"));
        format!("at {} ({}) = seq {seq}{tape}", self.text(time), utc.format(format))
    }
}

/// `2026-11-20T12:04:59.871203000Z`, for JSON.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    DateTime::<Utc>::from_timestamp_nanos(time.0).format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Timestamp = Timestamp(1_795_176_299_871_203_000);

    #[test]
    fn prints_nine_digits_and_the_offset() {
        let berlin = Zone::Named(Tz::Europe__Berlin);
        assert_eq!(berlin.text(TIME), "2026-11-20 13:04:59.871203000 +01:00");
        assert_eq!(rfc3339(TIME), "2026-11-20T12:04:59.871203000Z");
        assert_eq!(rfc3339(Timestamp(-1)), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(Timestamp(i64::MIN)), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(rfc3339(Timestamp(i64::MAX)), "2262-04-11T23:47:16.854775807Z");
    }

    #[test]
    fn echoes_as_resolved_with_the_date_when_it_differs() {
        let berlin = Zone::Named(Tz::Europe__Berlin);
        assert_eq!(
            berlin.echo(TIME, Seq(918_244), Some("docs-1")),
            "at 2026-11-20 13:04:59.871203000 +01:00 (12:04:59.871203000Z) = seq 918244, tape docs-1"
        );
        let tokyo = Zone::Named(Tz::Asia__Tokyo);
        let evening = Timestamp(TIME.0 + 6 * 3600 * Timestamp::SECOND);
        assert_eq!(
            tokyo.echo(evening, Seq(1), None),
            "at 2026-11-21 03:04:59.871203000 +09:00 (2026-11-20 18:04:59.871203000Z) = seq 1"
        );
    }
}
