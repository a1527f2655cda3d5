//! `reelfs status`: a short tree for each group, one fact a word.

use reelfs_journal::GroupName;
use reelfs_volume::{DirtyCounts, OnFull};
use serde::Serialize;

use crate::cli::Context;
use crate::error::Result;
use crate::output::{Output, Tone, count};
use crate::pair;
use crate::pair_state::PairState;
use crate::size::Size;
use crate::status::GroupStatus;
use crate::when::rfc3339;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  reelfs status\n  reelfs status docs --json")]
pub(crate) struct StatusArgs {
    /// Only this group
    pub group: Option<GroupName>,
}

pub(crate) fn run(arguments: &StatusArgs, context: &Context) -> Result<()> {
    let groups = match &arguments.group {
        Some(name) => vec![context.state.existing(name)?],
        None => context.state.groups()?,
    };
    let mut rows = Vec::new();
    for group in &groups {
        match GroupStatus::of(group) {
            Ok(status) => {
                print(&status, &context.output)?;
                rows.push(Row::of(&status));
            }
            // one broken group must not hide the others
            Err(error) if arguments.group.is_none() => context.output.warn(error),
            Err(error) => return Err(error),
        }
    }
    if groups.is_empty() {
        let output = &context.output;
        output.say(format!("there is no group in {}", context.state.root().display()))?;
        output.say("  make one           reelfs group create NAME --pvol DIR")?;
        output.say("  or all in one      reelfs protect DIR DIR --tapes OTHER_DIR")?;
        output.say("  or just look on    reelfs demo")?;
    }
    context.output.document(&Report { groups: rows })
}

fn print(status: &GroupStatus, output: &Output) -> Result<()> {
    let file = &status.file;
    let tone = match status.state() {
        PairState::Pair if status.live.is_some() => Tone::Good,
        PairState::Pair => Tone::Faint,
        PairState::Smpl | PairState::Copy => Tone::Warning,
        PairState::Susp => Tone::Bad,
    };
    let (name, word) = (output.paint(Tone::Strong, &format!("{:15}", file.name.as_str())), status.state().word());
    output.say(format!("{name} {}    {}", output.paint(tone, word), status.plain()))?;
    match &status.live {
        Some(live) => {
            let (pvol, point, pid) = (file.pvol.display(), live.mountpoint.display(), live.pid);
            let place = if live.mountpoint == file.pvol { "in place".to_owned() } else { format!("at {point}") };
            output.say(format!(
                "  pvol          {pvol}  mounted {place}  (process {pid}, {})",
                count(live.open_files, "open file")
            ))?;
        }
        None => output.say(format!("  pvol          {}", file.pvol.display()))?,
    }
    if let Some(journal) = &status.journal {
        let percent = journal.used * 100.0;
        let (size, records, last) = (Size(journal.size_bytes), count(journal.records(), "record"), journal.last);
        output.say(format!("  journal       {percent:.0} % of {size}  {records}, up to seq {last}"))?;
        for waiting in &journal.waiting {
            let dir = waiting.dir.display();
            let lacks = match waiting.records {
                0 => "has everything".to_owned(),
                records => format!("lacks {}, {}", count(records, "record"), Size(waiting.bytes)),
            };
            output.say(format!("  tapes         {dir}  up to seq {}  {lacks}", waiting.seq))?;
        }
    }
    if let Some(base) = &file.base {
        output.say(format!("  base          restores from seq {} on", base.seq))?;
    }
    if let Some(marker) = &file.last_marker {
        let at = output.zone.text(marker.time);
        output.say(format!("  last marker   {} at {at} (seq {})", marker.name, marker.seq))?;
    }
    if let Some(holder) = &status.busy {
        output.say(format!("  busy          process {holder} works on it"))?;
    }
    if let Some(activity) = status.live.as_ref().and_then(|live| live.activity.as_ref()) {
        output.say(format!("  busy          {} ({} of {})", activity.verb, activity.step.done, activity.step.total))?;
    }
    for trouble in &status.troubles {
        output.say(format!("  {} {trouble}", output.paint(Tone::Bad, "!")))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Report {
    groups: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    group: String,
    uuid: String,
    epoch: u32,
    state: &'static str,
    state_text: String,
    reason: Option<&'static str>,
    on_full: OnFull,
    dirty: Option<DirtyCounts>,
    pvol: String,
    mount: Option<Mount>,
    journal: Option<Journal>,
    targets: Vec<Target>,
    base: Option<Base>,
    last_marker: Option<Marker>,
    clock: Option<Clock>,
    busy: Option<String>,
    troubles: Vec<String>,
}

#[derive(Serialize)]
struct Mount {
    mountpoint: String,
    pid: u32,
    since: String,
    open_files: u64,
    writers_waiting: u64,
    writers_slowed: u64,
    delay_ms: f64,
}

#[derive(Serialize)]
struct Journal {
    path: String,
    size_bytes: u64,
    used_ratio: f64,
    data_bytes: u64,
    first: u64,
    last: u64,
    last_time: Option<String>,
}

#[derive(Serialize)]
struct Target {
    dir: String,
    seq: u64,
    tape: Option<String>,
    waiting_records: u64,
    waiting_bytes: u64,
}

#[derive(Serialize)]
struct Base {
    uuid: String,
    seq: u64,
}

#[derive(Serialize)]
struct Clock {
    shown: String,
    believed: String,
    ahead_seconds: Option<i64>,
}

#[derive(Serialize)]
struct Marker {
    name: String,
    seq: u64,
    time: String,
}

impl Row {
    fn of(status: &GroupStatus) -> Row {
        let file = &status.file;
        let (live, journal) = (status.live.as_ref(), status.journal.as_ref());
        let activity = live.and_then(|live| live.activity.as_ref()).map(|activity| activity.verb.clone());
        Row {
            group: file.name.to_string(),
            uuid: file.uuid.to_string(),
            epoch: file.epoch.0,
            state: status.state().word(),
            state_text: status.plain(),
            reason: status.suspension.map(|(suspension, _)| pair::word(suspension.reason)),
            on_full: file.on_full,
            dirty: status.suspension.map(|(_, counts)| counts),
            pvol: file.pvol.display().to_string(),
            mount: live.map(|live| Mount {
                mountpoint: live.mountpoint.display().to_string(),
                pid: live.pid,
                since: rfc3339(live.since),
                open_files: live.open_files,
                writers_waiting: live.waiting,
                writers_slowed: live.slowed,
                delay_ms: live.delay_ms,
            }),
            journal: journal.map(|journal| Journal {
                path: file.journal.display().to_string(),
                size_bytes: journal.size_bytes,
                used_ratio: journal.used,
                data_bytes: journal.data_bytes,
                first: journal.first.0,
                last: journal.last.0,
                last_time: journal.last_time.map(rfc3339),
            }),
            targets: journal.map_or_else(Vec::new, targets),
            base: file.base.map(|base| Base { uuid: base.uuid.to_string(), seq: base.seq.0 }),
            last_marker: file.last_marker.as_ref().map(|marker| Marker {
                name: marker.name.clone(),
                seq: marker.seq.0,
                time: rfc3339(marker.time),
            }),
            clock: live.map(|live| Clock {
                shown: rfc3339(live.clock.shown),
                believed: rfc3339(live.clock.believed),
                ahead_seconds: live.clock.ahead_ns.map(|ahead| ahead / 1_000_000_000),
            }),
            busy: activity.or_else(|| status.busy.clone()),
            troubles: status.troubles.clone(),
        }
    }
}

fn targets(journal: &crate::journal_state::JournalState) -> Vec<Target> {
    let row = |waiting: &crate::journal_state::Waiting| Target {
        dir: waiting.dir.display().to_string(),
        seq: waiting.seq.0,
        tape: waiting.tape.clone(),
        waiting_records: waiting.records,
        waiting_bytes: waiting.bytes,
    };
    journal.waiting.iter().map(row).collect()
}
