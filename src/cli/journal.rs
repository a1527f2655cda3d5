//! `reelfs journal`: the journal volume in numbers.

use clap::Subcommand;
use reelfs_journal::GroupName;
use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
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
    dir: String,
    already_read: u64,
    waiting_records: u64,
    waiting_bytes: u64,
}

pub(crate) fn run(verb: &JournalVerb, context: &Context) -> Result<()> {
    let JournalVerb::Show(arguments) = verb;
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
        consumers: journal
            .waiting
            .iter()
            .map(|waiting| Consumer {
                dir: waiting.dir.display().to_string(),
                already_read: waiting.seq.0,
                waiting_records: waiting.records,
                waiting_bytes: waiting.bytes,
            })
            .collect(),
    })
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
        output.say(format!("slows         each request by {:.1} ms; {} so far", live.delay_ms(), live.slowed()))?;
    }
    for waiting in &journal.waiting {
        let lacks = format!("lacks {}, {}", count(waiting.records, "record"), Size(waiting.bytes));
        output.say(format!("tapes in      {} up to seq {}, {lacks}", waiting.dir.display(), waiting.seq))?;
    }
    Ok(())
}
