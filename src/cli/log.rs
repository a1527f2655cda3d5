//! `reelfs log`: what happened, by whom and when.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reelfs_journal::Tags;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::points::open_deck;
use crate::error::Result;
use crate::log::{self, Event, Filter};
use crate::output::Tone;
use crate::point::{Point, SPELLINGS};
use crate::scope::Scope;
use crate::when::rfc3339;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  reelfs log docs --path 'budget*.ods' --since -3h", after_long_help = SPELLINGS)]
#[command(group(clap::ArgGroup::new("where").required(true).multiple(true).args(["group", "tapes"])))]
pub(crate) struct LogArgs {
    /// The group, or one volume of it: its journal, and the directories it was exported to
    #[arg(value_name = "GROUP[/VOLUME]")]
    pub group: Option<Scope>,
    /// A directory of tapes instead: nothing else is needed. The group is named only to choose among several
    #[arg(long, value_name = "DIR")]
    pub tapes: Vec<PathBuf>,
    /// Only paths that match; when there are several volumes, a path begins with the name of its volume
    #[arg(long, value_name = "GLOB")]
    pub path: Option<String>,
    /// From this point on
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Up to this point
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub until: Option<String>,
}

pub(crate) fn run(arguments: &LogArgs, context: &Context) -> Result<()> {
    let mut filter = Filter::new(arguments.path.as_deref())?;
    let point = |text: &Option<String>| text.as_deref().map(|text| context.point(text)).transpose();
    let (since, until) = (point(&arguments.since)?, point(&arguments.until)?);
    let deck = open_deck(arguments.group.as_ref(), &arguments.tapes, context)?;
    let output = &context.output;
    for warning in deck.warnings.iter().filter(|_| !output.quiet) {
        output.warn(warning);
    }
    match since {
        Some(Point::Time(time)) => filter.since = time,
        Some(Point::Seq(seq)) => filter.first = seq,
        Some(point) => filter.first = deck.resolve(&point, output.zone)?.seq,
        None => {}
    }
    match until {
        Some(Point::Time(time)) => filter.until = time,
        Some(Point::Seq(seq)) => filter.last = seq,
        Some(point) => filter.last = deck.resolve(&point, output.zone)?.seq,
        None => {}
    }
    let mut heading = !output.quiet;
    log::tell(&deck, &filter, &mut |event| {
        if output.json {
            return output.document(&line(&event));
        }
        if std::mem::take(&mut heading) {
            let text = format!("{:>10}  {:36}  {:11}  WHAT", "SEQ", "TIME", "OP");
            output.say(output.paint(Tone::Strong, &text))?;
        }
        output.say(text(&event, context))
    })
}

fn text(event: &Event, context: &Context) -> String {
    let Event { who, op, path, other, range, note, tags, .. } = event;
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut what = vec![lossy(path)];
    what.extend(other.as_deref().map(|other| format!("-> {}", lossy(other))));
    what.extend(range.map(|(offset, length)| format!("{offset}+{length}")));
    what.extend([note.clone(), tags.to_string()]);
    let who_asked = if who.pid == 0 { String::new() } else { format!("uid {} pid {}", who.uid, who.pid) };
    what.push(who_asked);
    what.retain(|part| !part.is_empty());
    format!("{:>10}  {:36}  {op:11}  {}", who.seq, context.output.zone.text(who.time), what.join("  "))
}

#[derive(Serialize)]
struct Line {
    seq: u64,
    time: String,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    path: String,
    path_b64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    off: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    len: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(skip_serializing_if = "Tags::is_empty", serialize_with = "Tags::as_object")]
    tags: Tags,
    uid: u32,
    pid: u32,
}

fn line(event: &Event) -> Line {
    let lossy = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    Line {
        seq: event.who.seq.0,
        time: rfc3339(event.who.time),
        op: event.op,
        volume: event.volume.as_ref().map(ToString::to_string),
        path: lossy(&event.path),
        path_b64: BASE64.encode(&event.path),
        other: event.other.as_ref().map(lossy),
        other_b64: event.other.as_ref().map(|other| BASE64.encode(other)),
        off: event.range.map(|(offset, _)| offset),
        len: event.range.map(|(_, length)| length),
        note: event.note.clone(),
        tags: event.tags.clone(),
        uid: event.who.uid,
        pid: event.who.pid,
    }
}
