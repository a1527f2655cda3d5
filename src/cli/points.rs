//! `reelfs points`: what one can go back to.

use std::path::PathBuf;

use reelfs_journal::{Seq, Tags, Timestamp};
use serde::Serialize;

use crate::cli::Context;
use crate::error::Result;
use crate::group_file::GroupFile;
use crate::output::Tone;
use crate::points::{History, Uncertain};
use crate::progress::Progress;
use crate::restore::{self, Deck, Live};
use crate::scope::Scope;
use crate::size::Size;
use crate::when::rfc3339;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  reelfs points docs\n  reelfs points docs/web\n  reelfs points --tapes /media/disk\n  \
                  reelfs points docs --kind marker,quiet"
)]
#[command(group(clap::ArgGroup::new("where").required(true).multiple(true).args(["group", "tapes"])))]
pub(crate) struct PointsArgs {
    /// The group, or one volume of it: its journal, and the directories it was exported to
    #[arg(value_name = "GROUP[/VOLUME]")]
    pub group: Option<Scope>,
    /// A directory of tapes instead: nothing else is needed. The group is named only to choose among several
    #[arg(long, value_name = "DIR")]
    pub tapes: Vec<PathBuf>,
    /// Only points of these kinds; without it all but quiet moments, of which the newest is shown
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub kind: Vec<PointKind>,
}

/// What a line of the list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PointKind {
    Window,
    Gap,
    Base,
    Marker,
    Quiet,
    ClockStep,
    Uncertain,
    Unreachable,
}

impl PointKind {
    fn word(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub(crate) fn run(arguments: &PointsArgs, context: &Context) -> Result<()> {
    let deck = open_deck(arguments.group.as_ref(), &arguments.tapes, context)?;
    let output = &context.output;
    for warning in deck.warnings.iter().filter(|_| !output.quiet) {
        output.warn(warning);
    }
    for tapes in &deck.epochs {
        deck.epoch(tapes.epoch)?;
    }
    let mut lines: Vec<Line> = deck.histories.iter().flat_map(|history| lines(history, &deck)).collect();
    match arguments.kind.as_slice() {
        [] => {
            let newest = deck.histories.iter().rev().find_map(History::last_quiet).map(|quiet| quiet.seq.0);
            lines.retain(|line| line.kind != PointKind::Quiet || Some(line.seq) == newest);
        }
        kinds => lines.retain(|line| kinds.contains(&line.kind)),
    }
    if output.json {
        return lines.iter().try_for_each(|line| output.document(line));
    }
    tell(&deck, &lines, arguments.kind.is_empty(), context)
}

/// The tapes in directories, or everything that this machine knows of a group.
pub(super) fn open_deck(scope: Option<&Scope>, tapes: &[PathBuf], context: &Context) -> Result<Deck> {
    let mut progress = Progress::new(&context.output, "read tapes");
    let Some(scope) = scope.filter(|_| tapes.is_empty()) else {
        return Deck::open(tapes, scope, &mut |done, total| progress.set(done, total, ""));
    };
    let group = context.state.existing(&scope.group)?;
    let file = GroupFile::load(&group)?;
    let live = Live::open(&group, &file)?;
    let directories: Vec<PathBuf> = file.targets.iter().map(|target| target.dir.clone()).collect();
    let (whose, volumes) = ((scope.clone(), file.uuid), file.label_volumes());
    Deck::of_group(&directories, whose, &volumes, live, &mut |done, total| progress.set(done, total, ""))
}

/// One line of the list, in JSON as it is.
#[derive(Serialize)]
struct Line {
    kind: PointKind,
    epoch: u32,
    seq: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_time: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    note: String,
    #[serde(skip_serializing_if = "Tags::is_empty", serialize_with = "Tags::as_object")]
    tags: Tags,
    tape: String,
    reachable: bool,
    #[serde(skip)]
    at: Timestamp,
    #[serde(skip)]
    until: Option<Timestamp>,
}

impl Line {
    fn new(kind: PointKind, history: &History, seq: Seq, time: Timestamp) -> Line {
        Line {
            kind,
            epoch: history.epoch.map_or(0, |epoch| epoch.0),
            seq: seq.0,
            time: rfc3339(time),
            to_seq: None,
            to_time: None,
            name: String::new(),
            volume: None,
            note: String::new(),
            tags: Tags::default(),
            tape: history.stretch(seq).map_or_else(String::new, |stretch| stretch.name.clone()),
            reachable: history.is_reached(seq) && history.bracket(seq).is_none() && !in_journal(history, seq),
            at: time,
            until: None,
        }
    }

    fn until(mut self, seq: Seq, time: Timestamp) -> Line {
        (self.to_seq, self.to_time, self.until) = (Some(seq.0), Some(rfc3339(time)), Some(time));
        self
    }
}

fn in_journal(history: &History, seq: Seq) -> bool {
    history.stretch(seq).is_some_and(|stretch| stretch.name == restore::JOURNAL)
}

/// Windows and gaps first, then everything else in order.
fn lines(history: &History, deck: &Deck) -> Vec<Line> {
    let mut lines = Vec::new();
    let called = |volume| deck.volumes.are_several().then(|| deck.volumes.name(volume).to_string());
    for run in history.windows() {
        if let Some((from, time)) = run.from {
            lines.push(Line::new(PointKind::Window, history, from, time).until(run.last, run.sealed));
        }
    }
    for pair in history.runs.windows(2) {
        let line = Line::new(PointKind::Gap, history, pair[0].last.next(), pair[0].sealed);
        lines.push(line.until(pair[1].first.previous(), pair[1].first_time));
    }
    let mut points: Vec<Line> = Vec::new();
    for base in &history.bases {
        let mut line = Line::new(PointKind::Base, history, base.ended, base.time);
        let size = base.tape.as_ref().and_then(|name| {
            let tapes = deck.epochs.iter().flat_map(|tapes| &tapes.bases);
            tapes.into_iter().find(|tape| tape.name() == *name)
        });
        line.name = base.tape.clone().unwrap_or_default();
        line.volume = called(base.volume);
        line.note = match size {
            Some(tape) => Size(tape.head.bytes).to_string(),
            None if base.is_in_journal => format!("in the journal, from record {} on", base.began),
            None => "its tape is not here".to_owned(),
        };
        points.push(line);
    }
    for mark in &history.marks {
        let mut line = Line::new(PointKind::Marker, history, mark.seq, mark.time);
        (line.name, line.note, line.tags) = (mark.name.clone(), mark.note.clone(), mark.tags.clone());
        points.push(line);
    }
    for step in &history.steps {
        let mut line = Line::new(PointKind::ClockStep, history, step.seq, step.time);
        line.note = format!("{}; it showed {}", step.note, rfc3339(step.shown));
        points.push(line);
    }
    for quiet in &history.quiet {
        let mut line = Line::new(PointKind::Quiet, history, quiet.seq, quiet.time);
        line.note = format!("no file open for writing since {}", rfc3339(quiet.since));
        points.push(line);
    }
    for bracket in &history.brackets {
        let kind = match bracket.why.is_out_of_reach() {
            true => PointKind::Unreachable,
            false => PointKind::Uncertain,
        };
        let first = Line::new(kind, history, bracket.first, bracket.since);
        let mut line = if bracket.end == Seq(u64::MAX) { first } else { first.until(bracket.end, bracket.until) };
        line.note = match bracket.why {
            Uncertain::Adopted => "changed behind the mount".to_owned(),
            Uncertain::Recovered => "read back after an unclean stop".to_owned(),
            Uncertain::Suspended => "suspended: changed while nothing was journaled".to_owned(),
            Uncertain::NoBase => "no base copy leads there".to_owned(),
            Uncertain::Left => "no volume is left".to_owned(),
        };
        line.volume = called(bracket.volume);
        points.push(line);
    }
    points.sort_by_key(|line| line.seq);
    lines.extend(points);
    lines
}

/// `is_whole`: nothing was left out.
fn tell(deck: &Deck, lines: &[Line], is_whole: bool, context: &Context) -> Result<()> {
    let (output, zone) = (&context.output, &context.output.zone);
    let (ranges, points): (Vec<&Line>, Vec<&Line>) =
        lines.iter().partition(|line| matches!(line.kind, PointKind::Window | PointKind::Gap));
    if is_whole && !ranges.iter().any(|line| line.kind == PointKind::Window) {
        output.say(format!("{}: nothing can be restored yet: no base copy is complete", deck.scope))?;
    }
    let gaps = if ranges.iter().any(|line| line.kind == PointKind::Gap) { "" } else { "; no gaps" };
    for line in ranges {
        let (from, to) = (zone.text(line.at), zone.text(line.until.unwrap_or(line.at)));
        let to_seq = line.to_seq.unwrap_or(line.seq);
        output.say(match line.kind {
            PointKind::Window => {
                format!("recovery window  {from} ... {to}   every change, seq {} to {to_seq}{gaps}", line.seq)
            }
            _ => output
                .paint(Tone::Bad, &format!("gap              records {} to {to_seq} are on no tape here", line.seq)),
        })?;
    }
    if points.is_empty() {
        return Ok(());
    }
    let width = points.iter().map(|line| line.name.len()).max().unwrap_or(0).max(4);
    let heading = format!("{:36}  {:>10}  {:11}  {:width$}  NOTE", "TIME", "SEQ", "KIND", "NAME");
    output.say(output.paint(Tone::Strong, &heading))?;
    for line in points {
        let remark = match (line.tape.as_str(), line.reachable, line.kind) {
            (restore::JOURNAL, _, _) => " (not on a tape yet)",
            (_, false, PointKind::Base | PointKind::Marker) => " (cannot be reached)",
            _ => "",
        };
        let until = line.to_seq.map_or_else(String::new, |to| format!(", to seq {to}"));
        let said: Vec<String> = [line.volume.clone().unwrap_or_default(), line.note.clone(), line.tags.to_string()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        let text = format!(
            "{:36}  {:>10}  {:11}  {:width$}  {}{until}{remark}",
            zone.text(line.at),
            line.seq,
            line.kind.word(),
            line.name,
            said.join("  ")
        );
        output.say(text.trim_end())?;
    }
    Ok(())
}
