//! Points in time as people write them: the one grammar of `--at`, `--since` and `--until`.

mod instant;

use std::fmt;

use reelfs_journal::{Seq, Timestamp};

use crate::error::{Error, Result};
use crate::when::{Zone, rfc3339};

/// A point of a history, not yet looked up in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// The end of the last tape.
    Latest,
    /// The first point that can be restored.
    Oldest,
    /// The last record whose time is not after this.
    Time(Timestamp),
    /// After this record.
    Seq(Seq),
    /// A marker of this name.
    Marker {
        /// The name.
        name: String,
        /// How many newer markers of the same name to pass over: 0 is the newest, 1 (written `~2`) the one before.
        back: u32,
    },
    /// The end of this tape, by its name or the beginning of it.
    Tape(String),
    /// The end of the newest base copy.
    LastBase,
    /// The newest marker, whatever its name.
    LastMarker,
    /// The newest moment at which no file was open for writing.
    LastQuiet,
}

/// Every spelling on one line each, for the help of `--at`.
pub const SPELLINGS: &str = "\
Points in time:
  2026-11-20T12:04:59.871203Z        an instant; up to nine digits after the point
  '2026-11-20 12:04 +09:00'          the same with an offset (or -04, or Europe/Berlin)
  '2026-11-20 12:04'                 local time; refused when a clock change makes it ambiguous
  12:30                              today
  -2h  -1h30m  '2 days ago'          before now
  @1763600000.5                      seconds since 1970
  seq:4711  '#4711'                  after that record
  marker:NAME  marker:NAME~2         the newest marker of that name, the one before
  tape:NAME                          the end of that tape
  latest  oldest  last-base  last-marker  last-quiet";

/// Longest marker name, in bytes.
pub const MARKER_NAME_MAX: usize = 128;

impl Point {
    /// Reads a point. `now` is what `-2h` counts from; `zone` is where a time without an offset is meant.
    ///
    /// # Errors
    /// A sentence that says how to write it instead; exit code 2.
    pub fn parse(text: &str, now: Timestamp, zone: &Zone) -> Result<Point> {
        let text = text.trim();
        if let Some(point) = keyword(text)? {
            return Ok(point);
        }
        if let Some(number) = text.strip_prefix("seq:").or_else(|| text.strip_prefix('#')) {
            return sequence(text, number);
        }
        if let Some(tape) = text.strip_prefix("tape:") {
            return match tape {
                "" => Err(Error::usage("`tape:` names no tape").hint("`reelfs tape list DIR` shows the names")),
                _ => Ok(Point::Tape(tape.to_owned())),
            };
        }
        if let Some(marker) = text.strip_prefix("marker:") {
            return marker_point(marker);
        }
        if let Some(unix) = text.strip_prefix('@') {
            return instant::unix(text, unix).map(Point::Time);
        }
        if let Some(duration) = relative(text) {
            return instant::before(text, duration, now).map(Point::Time);
        }
        if text.contains('~') && !text.starts_with(|c: char| c.is_ascii_digit()) {
            return marker_point(text);
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return instant::absolute(text, now, zone).map(Point::Time);
        }
        Err(unknown(text))
    }
}

impl fmt::Display for Point {
    /// A spelling that reads back as the same point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Latest => f.write_str("latest"),
            Point::Oldest => f.write_str("oldest"),
            Point::LastBase => f.write_str("last-base"),
            Point::LastMarker => f.write_str("last-marker"),
            Point::LastQuiet => f.write_str("last-quiet"),
            Point::Time(time) => f.write_str(&rfc3339(*time)),
            Point::Seq(seq) => write!(f, "seq:{seq}"),
            Point::Marker { name, back: 0 } => write!(f, "marker:{name}"),
            Point::Marker { name, back } => write!(f, "marker:{name}~{}", u64::from(*back) + 1),
            Point::Tape(name) => write!(f, "tape:{name}"),
        }
    }
}

/// Checks the name of a marker that is to be set: what can be written after `marker:` and nothing else.
///
/// # Errors
/// Which rule is broken; exit code 2.
pub fn check_marker_name(name: &str) -> Result<()> {
    let reason = match name {
        "" => "it is empty",
        _ if name.len() > MARKER_NAME_MAX => "it is longer than 128 bytes",
        _ if name.contains('~') => "`~` counts markers of one name",
        _ if name.chars().any(char::is_control) => "it holds a control character",
        _ if name.trim() != name => "it begins or ends with a space",
        _ => return Ok(()),
    };
    Err(Error::usage(format!("`{}` cannot be the name of a marker: {reason}", name.escape_debug())))
}

fn keyword(text: &str) -> Result<Option<Point>> {
    Ok(Some(match text {
        "latest" => Point::Latest,
        "oldest" => Point::Oldest,
        "last-base" => Point::LastBase,
        "last-marker" => Point::LastMarker,
        "last-quiet" => Point::LastQuiet,
        "now" => {
            return Err(Error::usage("`now` is not a point of a tape: a tape knows nothing after it was sealed")
                .hint("`latest` is the end of the last tape; export once more to have what came since"));
        }
        "" => return Err(Error::usage("the point is empty").hint(SPELLINGS)),
        _ => return Ok(None),
    }))
}

fn sequence(text: &str, number: &str) -> Result<Point> {
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse::<u64>() {
        Ok(seq @ 1..) if digits => Ok(Point::Seq(Seq(seq))),
        Ok(0) if digits => Err(Error::usage(format!("`{text}`: sequence numbers begin at 1")).hint("try `oldest`")),
        _ => Err(Error::usage(format!("`{text}` is not a sequence number")).hint("write seq:4711 or '#4711'")),
    }
}

fn marker_point(text: &str) -> Result<Point> {
    let (name, count) = match text.rsplit_once('~') {
        None => (text, 1),
        Some((name, count)) => match count.parse::<u32>() {
            Ok(value @ 1..) if !count.starts_with('+') => (name, value),
            _ => {
                return Err(Error::usage(format!("`{text}`: after `~` comes a number from 1"))
                    .hint("NAME~1 is the newest marker of that name, NAME~2 the one before"));
            }
        },
    };
    check_marker_name(name)?;
    Ok(Point::Marker { name: name.to_owned(), back: count - 1 })
}

/// `-2h` or `2h ago`, without the sign and without the `ago`.
fn relative(text: &str) -> Option<&str> {
    let ago = text.strip_suffix("ago").filter(|rest| rest.ends_with(char::is_whitespace));
    let minus = text.strip_prefix('-').filter(|rest| rest.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    ago.or(minus).map(str::trim)
}

fn unknown(text: &str) -> Error {
    let error = Error::usage(format!("`{}` is not a point in time", text.escape_debug()));
    match text {
        "yesterday" | "today" | "tomorrow" => error.hint("write the date and the time: '2026-11-20 12:00'"),
        _ if check_marker_name(text).is_ok() && !text.contains(' ') => {
            error.hint(format!("if it is a marker, write marker:{text}"))
        }
        _ => error.hint(SPELLINGS),
    }
}

#[cfg(test)]
mod tests;
