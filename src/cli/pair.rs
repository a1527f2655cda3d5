//! `reelfs pair`: split, resync, show and list.

use clap::Subcommand;
use reelfs_journal::GroupName;
use reelfs_volume::{DirtyCounts, OnFull, Resynced};
use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::output::count;
use crate::pair::{self, Done};
use crate::pair_state::PairState;
use crate::progress::Progress;
use crate::request::{self, Request, Step};
use crate::size::Size;
use crate::status::GroupStatus;
use crate::when::rfc3339;

#[derive(Debug, Subcommand)]
pub(crate) enum PairVerb {
    /// Stop journaling: applications go on, and what changes is only noted
    #[command(after_help = "Example:\n  reelfs pair split docs")]
    Split(PairArgs),
    /// Journal again, and tell what changed meanwhile; exports to the known directories when the journal is full
    #[command(after_help = "Example:\n  reelfs pair resync docs\n\nMoments between the suspension and the end of the \
                            resync cannot be restored.")]
    Resync(PairArgs),
    /// The state of a pair, and why
    #[command(
        after_help = "Examples:\n  reelfs pair show docs\n  reelfs pair show docs --check PAIR && echo journaled"
    )]
    Show(ShowArgs),
    /// The states of all pairs
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The group
    pub group: GroupName,
    /// Exit with 16 when the state is another one
    #[arg(long, value_name = "STATE")]
    pub check: Option<PairState>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PairArgs {
    /// The group
    pub group: GroupName,
}

#[derive(Serialize)]
struct Report<'a, T> {
    group: &'a GroupName,
    state: &'static str,
    #[serde(flatten)]
    what: T,
}

pub(crate) fn run(verb: &PairVerb, context: &Context) -> Result<()> {
    match verb {
        PairVerb::Split(arguments) => split(&arguments.group, context),
        PairVerb::Resync(arguments) => resync(&arguments.group, context),
        PairVerb::Show(arguments) => show(arguments, context),
        PairVerb::List(ListArgs {}) => list(context),
    }
}

#[derive(Serialize)]
struct Row {
    group: String,
    state: &'static str,
    reason: Option<&'static str>,
    since: Option<String>,
    on_full: OnFull,
    dirty: Option<DirtyCounts>,
}

impl Row {
    fn of(status: &GroupStatus) -> Row {
        let suspension = status.suspension.map(|(suspension, _)| suspension);
        Row {
            group: status.file.name.to_string(),
            state: status.state().word(),
            reason: suspension.map(|suspension| pair::word(suspension.reason)),
            since: suspension.map(|suspension| rfc3339(suspension.time)),
            on_full: status.file.on_full,
            dirty: status.suspension.map(|(_, counts)| counts),
        }
    }
}

fn line(status: &GroupStatus, context: &Context) -> String {
    let since =
        status.suspension.map(|(suspension, _)| format!(", since {}", context.output.zone.text(suspension.time)));
    let (name, word) = (status.file.name.as_str(), status.state().word());
    format!("{name:15} {word}    {}{}", status.plain(), since.unwrap_or_default())
}

fn show(arguments: &ShowArgs, context: &Context) -> Result<()> {
    let status = GroupStatus::of(&context.state.existing(&arguments.group)?)?;
    context.output.say(line(&status, context))?;
    context.output.document(&Row::of(&status))?;
    match arguments.check {
        Some(wanted) if wanted != status.state() => {
            let (name, is) = (&arguments.group, status.state().word());
            Err(Error::new(ErrorKind::State, format!("{name} is {is}, not {}", wanted.word())))
        }
        _ => Ok(()),
    }
}

fn list(context: &Context) -> Result<()> {
    let mut pairs = Vec::new();
    for group in context.state.groups()? {
        let status = GroupStatus::of(&group)?;
        context.output.say(line(&status, context))?;
        pairs.push(Row::of(&status));
    }
    context.output.document(&Rows { pairs })
}

#[derive(Serialize)]
struct Rows {
    pairs: Vec<Row>,
}

fn split(name: &GroupName, context: &Context) -> Result<()> {
    let group = context.state.existing(name)?;
    let split: Done = request::run(&group, &Request::Split, &context.output, &mut |_| {})?;
    context.output.document(&Report { group: name, state: "SUSP", what: split })?;
    context.output.confirm(match split.already {
        true => format!("{name} is suspended already"),
        false => {
            format!("{name}: PAIR -> SUSP (user); what changes is noted, bring it back: reelfs pair resync {name}")
        }
    })
}

fn resync(name: &GroupName, context: &Context) -> Result<()> {
    let group = context.state.existing(name)?;
    let mut progress = Progress::new(&context.output, "resync");
    let mut step = |step: Step| progress.set(step.done, step.total, "");
    let resynced: Resynced = request::run(&group, &Request::Resync, &context.output, &mut step)?;
    drop(progress);
    context.output.document(&Report { group: name, state: "PAIR", what: resynced })?;
    if let Some(epoch) = resynced.new_epoch {
        return context.output.confirm(format!(
            "{name}: the journal had lost what it held; epoch {epoch} begins, with a new base in every directory of tapes"
        ));
    }
    let (directories, objects) = (count(resynced.directories, "directory"), count(resynced.objects, "object"));
    if resynced == Resynced::default() {
        return context.output.confirm(format!("{name} is PAIR; nothing had to be told again"));
    }
    context.output.confirm(format!(
        "{name}: SUSP -> COPY -> PAIR; told again: the names in {directories}, {objects}, {}",
        Size(resynced.bytes)
    ))
}
