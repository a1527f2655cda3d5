//! Instants as people write them: absolute, local, relative, Unix.

use chrono::{DateTime, Duration, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime};
use reelfs_journal::Timestamp;

use crate::error::{Error, Result};
use crate::when::Zone;

/// `@1763600000[.5]`, with the `@` taken off.
pub(super) fn unix(text: &str, number: &str) -> Result<Timestamp> {
    let (sign, digits) = number.strip_prefix('-').map_or((1, number), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        let error = Error::usage(format!("`{text}` is not seconds since 1970"));
        return Err(match number {
            "" => error,
            _ => error.hint(format!("a marker of a tape is written marker:{number}")),
        });
    }
    let nanos = fraction.map_or(Ok(0), |digits| nanoseconds(text, digits))?;
    let seconds: i128 = whole.parse().map_err(|_| out_of_range(text))?;
    let total = sign * (seconds.saturating_mul(i128::from(Timestamp::SECOND)).saturating_add(i128::from(nanos)));
    i64::try_from(total).map(Timestamp).map_err(|_| out_of_range(text))
}

/// `2h`, `1h30m`, `2 days` before now.
pub(super) fn before(text: &str, duration: &str, now: Timestamp) -> Result<Timestamp> {
    let spelled = "write -2h, -1h30m, '90min ago' or '2 days ago'";
    let units = duration.split(|c: char| !c.is_alphabetic()).filter(|unit| !unit.is_empty());
    for unit in units {
        if unit == "M" || unit == "y" || unit.starts_with("month") || unit.starts_with("year") {
            return Err(Error::usage(format!("`{text}`: months and years differ in length"))
                .hint("count days or weeks, or write the date and the time: '2026-11-20 12:00'"));
        }
    }
    let duration = humantime::parse_duration(duration)
        .map_err(|error| Error::usage(format!("`{text}`: {error}")).hint(spelled))?;
    let nanos = i64::try_from(duration.as_nanos()).ok().and_then(|nanos| now.0.checked_sub(nanos));
    nanos.map(Timestamp).ok_or_else(|| out_of_range(text))
}

/// A date and a time, or a time of today, with or without an offset or a zone.
pub(super) fn absolute(text: &str, now: Timestamp, local: &Zone) -> Result<Timestamp> {
    let (date, rest) = match split_date(text) {
        Some((date, rest)) => (Some(parse_date(text, date)?), rest),
        None => (None, text),
    };
    let split = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.' | ',')).unwrap_or(rest.len());
    let (time, zone) = (&rest[..split], rest[split..].trim_start());
    if time.is_empty() {
        return Err(date.map_or_else(|| not_an_instant(text), |date| bare_date(text, date)));
    }
    let time = parse_time(text, time)?;
    let zone = if zone.is_empty() { *local } else { parse_zone(text, zone)? };
    let naive = date.unwrap_or_else(|| zone.show(now).date_naive()).and_time(time);
    let instant = resolve(&naive, &zone)?;
    let nanos = instant.timestamp_nanos_opt().map(Timestamp).ok_or_else(|| out_of_range(text))?;
    if date.is_none() && nanos > now {
        return Err(Error::usage(format!("`{text}` is still to come today"))
            .hint(format!("for yesterday write '{}'", (naive - Duration::days(1)).format("%Y-%m-%d %H:%M:%S"))));
    }
    Ok(nanos)
}

/// Splits `2026-11-20` from what follows it. A time without a date gives nothing.
fn split_date(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let date = &text[..end];
    if !date.contains('-') {
        return None;
    }
    let rest = &text[end..];
    Some((date, rest.strip_prefix(['T', 't']).unwrap_or(rest).trim_start()))
}

fn parse_date(text: &str, date: &str) -> Result<NaiveDate> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next(), parts.next(), parts.next());
    let shape = [year, month, day].map(|part| part.map_or(0, str::len)) == [4, 2, 2] && parts.next().is_none();
    let number = |part: Option<&str>| part.and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0);
    if !shape {
        return Err(Error::usage(format!("`{text}`: a date is written 2026-11-20")));
    }
    i32::try_from(number(year))
        .ok()
        .and_then(|year| NaiveDate::from_ymd_opt(year, number(month), number(day)))
        .ok_or_else(|| Error::usage(format!("`{text}`: there is no day {date}")))
}

fn parse_time(text: &str, time: &str) -> Result<NaiveTime> {
    let (clock, fraction) = match time.split_once(['.', ',']) {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (time, None),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let numeric = parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()));
    if !numeric || !matches!(parts.len(), 2 | 3) || (fraction.is_some() && parts.len() == 2) {
        return Err(Error::usage(format!("`{text}`: a time is written 12:30, 12:30:15 or 12:30:15.123456789")));
    }
    let nanos = fraction.map_or(Ok(0), |digits| nanoseconds(text, digits))?;
    let number = |index: usize| parts.get(index).and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0);
    if number(2) == 60 {
        return Err(Error::usage(format!("`{text}`: no clock here shows a leap second"))
            .hint("write second 59, or 00 of the next minute"));
    }
    NaiveTime::from_hms_nano_opt(number(0), number(1), number(2), nanos)
        .ok_or_else(|| Error::usage(format!("`{text}`: no clock shows {clock}")))
}

fn nanoseconds(text: &str, digits: &str) -> Result<u32> {
    if digits.len() > 9 {
        return Err(Error::usage(format!("`{text}`: times have at most nine digits after the point")));
    }
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::usage(format!("`{text}`: after the point come digits")));
    }
    format!("{digits:0<9}").parse().map_err(|_| out_of_range(text))
}

fn parse_zone(text: &str, zone: &str) -> Result<Zone> {
    if zone == "Z" || zone == "z" {
        return Ok(Zone::UTC);
    }
    if let Some(digits) = zone.strip_prefix(['+', '-']) {
        let compact = match digits.split_once(':') {
            Some((hours, minutes)) if hours.len() == 2 && minutes.len() == 2 => format!("{hours}{minutes}"),
            Some(_) => String::new(),
            None if digits.len() == 2 => format!("{digits}00"),
            None => digits.to_owned(),
        };
        let plain = compact.len() == 4 && compact.bytes().all(|byte| byte.is_ascii_digit());
        let number = if plain { compact.parse::<i32>().ok() } else { None };
        let seconds = number.filter(|n| n / 100 <= 15 && n % 100 < 60).map(|n| (n / 100) * 3600 + (n % 100) * 60);
        let sign = if zone.starts_with('-') { -1 } else { 1 };
        return seconds
            .and_then(|seconds| FixedOffset::east_opt(sign * seconds))
            .map(Zone::Fixed)
            .ok_or_else(|| Error::usage(format!("`{text}`: an offset is written +09:00, +0900 or +09")));
    }
    zone.parse().map(Zone::Named).map_err(|_| {
        Error::usage(format!("`{text}`: `{zone}` is not a time zone"))
            .hint("write an offset like +01:00, or a name like Europe/Berlin")
    })
}

/// The one instant of a wall clock time; a time that a clock change doubles or skips is refused with both ways out.
fn resolve(naive: &NaiveDateTime, zone: &Zone) -> Result<DateTime<FixedOffset>> {
    let shown = naive.format("%Y-%m-%d %H:%M:%S%.f");
    match zone.instants(naive) {
        MappedLocalTime::Single(instant) => Ok(instant),
        MappedLocalTime::Ambiguous(one, other) => {
            let (first, second) = (one.min(other), one.max(other));
            Err(Error::usage(format!("{shown} happened twice in {}", zone.name())).hint(format!(
                "write {} or {}",
                spell(&first),
                spell(&second)
            )))
        }
        MappedLocalTime::None => {
            let error = Error::usage(format!("{shown} never happened in {}: the clock was put forward", zone.name()));
            let day = Duration::days(1);
            let offset = |near: Option<NaiveDateTime>| near.and_then(|near| zone.instants(&near).earliest());
            let (Some(before), Some(after)) =
                (offset(naive.checked_sub_signed(day)), offset(naive.checked_add_signed(day)))
            else {
                return Err(error);
            };
            let (before, after) = (*before.offset(), *after.offset());
            // the skipped wall clock read with the offset after the change lies before it, and the other way round
            let early = naive.and_local_timezone(after).single().map(|time| time.with_timezone(&before));
            let late = naive.and_local_timezone(before).single().map(|time| time.with_timezone(&after));
            Err(match (early, late) {
                (Some(early), Some(late)) => error.hint(format!("write {} or {}", spell(&early), spell(&late))),
                _ => error,
            })
        }
    }
}

fn spell(time: &DateTime<FixedOffset>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
}

fn bare_date(text: &str, date: NaiveDate) -> Error {
    let (morning, evening) = (date.format("%Y-%m-%d 00:00"), date.format("%Y-%m-%d 23:59:59.999999999"));
    Error::usage(format!("`{text}` is a whole day: is its beginning meant, or its end"))
        .hint(format!("write '{morning}' or '{evening}'"))
}

fn not_an_instant(text: &str) -> Error {
    Error::usage(format!("`{text}` is not a time")).hint("write '2026-11-20 12:00', 12:30, -2h or seq:4711")
}

fn out_of_range(text: &str) -> Error {
    Error::usage(format!("`{text}` is outside the years 1677 to 2262"))
}
