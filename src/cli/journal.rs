//! `reelfs journal`: the journal volume in numbers, larger, repaired, and pools of prepared ones.

mod grow;
mod pool;
mod repair;

use clap::Subcommand;
use reelfs_journal::{GroupName, Seq};
use serde::Serialize;

use crate::cli::Context;
use crate::consumer::Way;
use crate::error::{Error, ErrorKind, Result};
use crate::group_file::VolumeEntry;
use crate::journal_state::JournalState;
use crate::output::{Tone, count};
use crate::size::Size;
use crate::status::GroupStatus;
use crate::when::rfc3339;

#[derive(Debug, Subcommand)]
pub(crate) enum JournalVerb {
    /// Where it begins and ends, how full it is, and what each directory of tapes still lacks
    #[command(after_help = "Example:\n  reelfs journal show docs --json")]
    Show(ShowArgs),
    /// Make it larger, also while the group is mounted; it never shrinks
    Grow(grow::GrowArgs),
    /// Write durable records that do not read back again, from tapes that hold them
    Repair(repair::RepairArgs),
    /// Journal volumes prepared beforehand, for `reelfs group create --pool`
    #[command(subcommand)]
    Pool(pool::PoolVerb),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The group
    pub group: GroupName,
}

#[derive(Serialize)]
struct Shown<'a> {
    group: &'a GroupName,
    path: String,
    size_bytes: u64,
    journal_out: u64,
    journal_in: u64,
    durable: u64,
    used_ratio: f64,
    data_bytes: u64,
    first_time: Option<String>,
    last_time: Option<String>,
    full_in_seconds: Option<u64>,
    warn_ratio: f64,
    delay_ms: f64,
    consumers: Vec<Consumer>,
}

#[derive(Serialize)]
struct Consumer {
    kind: &'static str,
    dir: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    already_read: u64,
    read_scheduled: u64,
    already_restored: Option<u64>,
    restore_scheduled: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<String>,
    holds: bool,
    waiting_records: u64,
    waiting_bytes: u64,
}

pub(crate) fn run(verb: &JournalVerb, context: &Context) -> Result<()> {
    match verb {
        JournalVerb::Show(arguments) => show(arguments, context),
        JournalVerb::Grow(arguments) => grow::run(arguments, context),
        JournalVerb::Repair(arguments) => repair::run(arguments, context),
        JournalVerb::Pool(verb) => pool::run(verb, context),
    }
}

fn show(arguments: &ShowArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let status = GroupStatus::of(&group)?;
    let Some(journal) = &status.journal else {
        let (name, why) = (&arguments.group, status.busy.clone().or_else(|| status.troubles.first().cloned()));
        let message = format!("the journal of {name} cannot be looked at: {}", why.unwrap_or_default());
        return Err(Error::new(ErrorKind::Busy, message));
    };
    print(&status, journal, context)?;
    context.output.document(&Shown {
        group: &arguments.group,
        path: status.file.journal.display().to_string(),
        size_bytes: journal.size_bytes,
        journal_out: journal.first.0,
        journal_in: journal.last.next().0,
        durable: journal.durable.0,
        used_ratio: journal.used,
        data_bytes: journal.data_bytes,
        first_time: journal.first_time.map(rfc3339),
        last_time: journal.last_time.map(rfc3339),
        full_in_seconds: journal.full_in_seconds(),
        warn_ratio: f64::from(status.file.settings.warn.0) / 100.0,
        delay_ms: status.live.as_ref().map_or(0.0, |live| live.delay_ms()),
        consumers: consumers(&status, journal),
    })
}

/// The volume that a consumer is a replica of.
fn volume_of<'s>(status: &'s GroupStatus, known: &crate::consumer::Consumer) -> Option<&'s VolumeEntry> {
    status.file.volumes.iter().find(|entry| known.volume == Some(entry.index))
}

/// Directories of tapes, with what their sites have acknowledged; then replicas.
fn consumers(status: &GroupStatus, journal: &JournalState) -> Vec<Consumer> {
    let known = |dir: &std::path::Path| status.file.consumers.iter().find(|known| known.dir == dir);
    let tapes = journal.waiting.iter().map(|waiting| {
        let site = known(&waiting.dir).map(|known| known.pointers);
        Consumer {
            kind: "tapes",
            dir: waiting.dir.display().to_string(),
            volume: None,
            read_scheduled: waiting.read_scheduled.0,
            already_read: waiting.seq.0,
            restore_scheduled: site.map(|site| site.restore_scheduled).or(waiting.restore_scheduled).map(|seq| seq.0),
            already_restored: site.map(|site| site.already_restored).or(waiting.restored).map(|seq| seq.0),
            inside: None,
            holds: true,
            waiting_records: waiting.records,
            waiting_bytes: waiting.bytes,
        }
    });
    let replicas = status.file.consumers.iter().filter(|known| known.way == Way::Journal).map(|replica| Consumer {
        kind: "replica",
        dir: replica.dir.display().to_string(),
        volume: volume_of(status, replica).map(|volume| volume.name.to_string()),
        read_scheduled: replica.pointers.read_scheduled.0,
        already_read: replica.pointers.already_read.0,
        restore_scheduled: Some(replica.pointers.restore_scheduled.0),
        already_restored: Some(replica.pointers.already_restored.0),
        inside: replica.inside.clone(),
        holds: replica.holds,
        waiting_records: journal.last.0.saturating_sub(replica.pointers.already_restored.0),
        waiting_bytes: journal.lacks(replica.id),
    });
    replicas.chain(tapes).collect()
}

fn print(status: &GroupStatus, journal: &JournalState, context: &Context) -> Result<()> {
    let (output, file) = (&context.output, &status.file);
    let percent = journal.used * 100.0;
    output.say(format!("group         {}", output.paint(Tone::Strong, file.name.as_str())))?;
    output.say(format!("journal       {}, {}", file.journal.display(), Size(journal.size_bytes)))?;
    output.say(format!("journal-out   seq {}", journal.first))?;
    output.say(format!("journal-in    seq {}", journal.last.next()))?;
    output.say(format!("durable       up to seq {}", journal.durable))?;
    output.say(format!(
        "used          {percent:.1} %, {}, {}",
        count(journal.records(), "record"),
        Size(journal.data_bytes)
    ))?;
    if let Some(seconds) = journal.full_in_seconds() {
        let time = humantime::format_duration(std::time::Duration::from_secs(seconds));
        output.say(format!("full in       {time}, as it fills since seq {}", journal.first))?;
    }
    output.say(format!("warns         from {} on", file.settings.warn))?;
    if let Some(live) = status.live.as_ref().filter(|live| live.delay_ms() > 0.0) {
        output.say(format!(
            "slows         each MiB by {:.1} ms; {} requests so far",
            live.delay_ms(),
            live.slowed()
        ))?;
    }
    for waiting in &journal.waiting {
        let lacks = format!("lacks {}, {}", count(waiting.records, "record"), Size(waiting.bytes));
        output.say(format!("tapes in      {} up to seq {}, {lacks}", waiting.dir.display(), waiting.seq))?;
        let pointer = |seq: Option<Seq>| seq.map_or_else(|| "unknown".to_owned(), |seq| format!("seq {seq}"));
        output.say(format!(
            "              already read seq {}, read scheduled seq {}, already restored {}, restore scheduled {}",
            waiting.seq,
            waiting.read_scheduled,
            pointer(waiting.restored),
            pointer(waiting.restore_scheduled)
        ))?;
    }
    for known in &file.consumers {
        let pointers = &known.pointers;
        let inside = known.inside.as_ref().map_or_else(String::new, |what| format!("  inside a {what}"));
        let volume = volume_of(status, known).filter(|_| file.volumes.len() > 1);
        let volume = volume.map_or_else(String::new, |volume| format!(" of {}", file.title(volume)));
        output.say(format!(
            "{:13} {}{volume} read seq {} of {}, restored {} of {}{inside}",
            known.way.word(),
            known.dir.display(),
            pointers.already_read,
            pointers.read_scheduled,
            pointers.already_restored,
            pointers.restore_scheduled
        ))?;
    }
    Ok(())
}
