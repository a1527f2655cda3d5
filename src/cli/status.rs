//! `reelfs status`: a short tree for each group, one fact a word.

use reelfs_journal::GroupName;
use reelfs_volume::{DirtyCounts, OnFull};
use serde::Serialize;

use crate::cli::Context;
use crate::daemon::{Live, LiveMount};
use crate::error::{Error, ErrorKind, Result};
use crate::group_file::VolumeEntry;
use crate::group_table::GroupTable;
use crate::output::{Output, Tone, count, json_line};
use crate::pair;
use crate::pair_state::PairState;
use crate::reads::Reads;
use crate::size::Size;
use crate::state::GroupDir;
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
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for group in &groups {
        match GroupStatus::of(group) {
            Ok(status) => {
                print(&status, &context.output)?;
                rows.push(Row::of(&status));
            }
            // one broken group must not hide the others
            Err(error) if arguments.group.is_none() => broken.push((group, error)),
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
    context.output.document(&Report { groups: rows })?;
    refuse_broken(broken)
}

/// That some of the groups could not be looked at, when the others are told.
///
/// # Errors
/// 3 when there is one; what is wrong with the first.
pub(super) fn refuse_broken(broken: Vec<(&GroupDir, Error)>) -> Result<()> {
    let others = broken.len().saturating_sub(1);
    let Some((group, error)) = broken.into_iter().next() else { return Ok(()) };
    let rest = if others == 0 { String::new() } else { format!(", and {} more,", count(others as u64, "group")) };
    let message = format!("group {}{rest} cannot be looked at", group.name());
    let hint = error.hint_text().map(str::to_owned);
    let told = Error::new(ErrorKind::Incomplete, message).because(error);
    Err(hint.into_iter().fold(told, Error::hint))
}

/// One group as `reelfs status --json` shows it, on one line.
///
/// # Errors
/// Never for any group that there is.
pub(crate) fn document(status: &GroupStatus) -> Result<String> {
    let report = Report { groups: vec![Row::of(status)] };
    json_line(&report)
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
    let table = GroupTable::of(status);
    let number = table.number.map_or_else(|| "no number".to_owned(), |number| format!("number {number}"));
    let (volumes, journals) = (table.data_volumes.len() as u64, table.journal_volumes.len() as u64);
    let volumes = (count(volumes, "data volume"), count(journals, "journal volume"));
    output.say(format!("  group         {number}, {}, {}, {}", table.attribute, volumes.0, volumes.1))?;
    for volume in &file.volumes {
        output.say(place(status, volume))?;
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
    if let Some(base) = &file.base() {
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

/// Where a volume is, and where it is mounted; in a group of several its name and state, too.
fn place(status: &GroupStatus, volume: &VolumeEntry) -> String {
    let pvol = volume.pvol.display();
    let mount = status.live.as_ref().and_then(|live| Some((live.pid, live.mount_of(&volume.name)?)));
    let mounted = mount.map_or_else(String::new, |(pid, mount)| {
        let in_place = mount.mountpoint == volume.pvol;
        let place = if in_place { "in place".to_owned() } else { format!("at {}", mount.mountpoint.display()) };
        let reads = match &mount.reads {
            Reads::On => ", passthrough reads".to_owned(),
            Reads::Off => String::new(),
            Reads::Refused(why) => format!(", passthrough reads refused: {why}"),
        };
        format!("  mounted {place}  (process {pid}, {}{reads})", count(mount.open_files, "open file"))
    });
    if status.file.volumes.len() == 1 {
        return format!("  pvol          {pvol}{mounted}");
    }
    let (name, word) = (volume.name.as_str(), status.state_of(Some(volume.index)).word());
    format!("  volume        {name}  {word}  {pvol}{mounted}")
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
    pvol: Option<String>,
    mount: Option<Mount>,
    volumes: Vec<Volume>,
    journal: Option<Journal>,
    targets: Vec<Target>,
    base: Option<Base>,
    last_marker: Option<Marker>,
    clock: Option<Clock>,
    busy: Option<String>,
    troubles: Vec<String>,
    #[serde(flatten)]
    table: GroupTable,
}

#[derive(Serialize)]
struct Volume {
    name: String,
    index: u16,
    pvol: String,
    state: &'static str,
    reason: Option<&'static str>,
    mount: Option<Mount>,
    base: Option<Base>,
}

impl Volume {
    fn of(status: &GroupStatus, volume: &VolumeEntry) -> Volume {
        let suspension = status.suspension(Some(volume.index));
        let live = status.live.as_ref();
        Volume {
            name: volume.name.to_string(),
            index: volume.index.0,
            pvol: volume.pvol.display().to_string(),
            state: status.state_of(Some(volume.index)).word(),
            reason: suspension.map(|(suspension, _)| pair::word(suspension.reason)),
            mount: live.and_then(|live| Some(Mount::of(live, live.mount_of(&volume.name)?))),
            base: volume.base.map(base),
        }
    }
}

impl Mount {
    fn of(live: &Live, mount: &LiveMount) -> Mount {
        Mount {
            mountpoint: mount.mountpoint.display().to_string(),
            pid: live.pid,
            since: rfc3339(mount.since),
            open_files: mount.open_files,
            reads: mount.reads.clone(),
            writers_waiting: mount.waiting,
            writers_slowed: mount.slowed,
            delay_ms: mount.delay_ms,
        }
    }
}

fn base(base: crate::group_file::Base) -> Base {
    Base { uuid: base.uuid.to_string(), seq: base.seq.0 }
}

#[derive(Serialize)]
struct Mount {
    mountpoint: String,
    pid: u32,
    since: String,
    open_files: u64,
    #[serde(flatten)]
    reads: Reads,
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
            reason: status.suspension(None).map(|(suspension, _)| pair::word(suspension.reason)),
            on_full: file.on_full,
            dirty: status.suspension(None).map(|(_, counts)| counts),
            pvol: file.volumes.first().map(|volume| volume.pvol.display().to_string()),
            volumes: file.volumes.iter().map(|volume| Volume::of(status, volume)).collect(),
            mount: live.and_then(|live| Some(Mount::of(live, live.mounts.first()?))),
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
            base: file.base().map(base),
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
            table: GroupTable::of(status),
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
