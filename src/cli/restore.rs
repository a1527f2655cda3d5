//! `reelfs restore`: a moment comes back, from tapes alone.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::point::SPELLINGS;
use crate::progress::Progress as Shown;
use crate::restore::{self, Deck, Part, Phase, Plan, Progress, Request, Summary, Tape};
use crate::scope::Scope;
use crate::size::Size;
use crate::when::rfc3339;

const EXAMPLES: &str = "\
Examples:
  reelfs restore --tapes /media/disk --to ~/back                     as it was when the last tape was sealed
  reelfs restore --tapes /media/disk --at '2026-11-20 12:51' --to ~/back --dry-run
  reelfs restore --tapes /media/disk --at marker:before-upgrade --path etc/app --to ~/back";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{SPELLINGS}"))]
pub(crate) struct RestoreArgs {
    /// A directory of tapes; may be given more than once
    #[arg(long, value_name = "DIR", required = true)]
    pub tapes: Vec<PathBuf>,
    /// Which group, when the tapes are of several; or one volume of it
    #[arg(long, value_name = "NAME[/VOLUME]")]
    pub group: Option<Scope>,
    /// Which moment; see --help for every spelling
    #[arg(long, value_name = "POINT", default_value = "latest", allow_hyphen_values = true)]
    pub at: String,
    /// Only these files and directories; when there are several volumes, each begins with the name of its volume
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub path: Vec<PathBuf>,
    /// The directory to restore into: empty, or not there yet; several volumes each get a directory of their name in it
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Print the plan and stop
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// For scripts that say it everywhere: a restore goes into an empty directory, and asks nothing
    #[arg(short, long, hide = true)]
    pub yes: bool,
    /// Leave out suid and sgid bits, capabilities and device nodes
    #[arg(long)]
    pub safe: bool,
    /// Give all files to the caller; exit code 3 when that changed an owner
    #[arg(long)]
    pub no_owner: bool,
}

pub(crate) fn run(arguments: &RestoreArgs, context: &Context) -> Result<()> {
    let point = context.point(&arguments.at)?;
    let output = &context.output;
    let mut watch = watcher(context);
    let deck = Deck::open(&arguments.tapes, arguments.group.as_ref(), &mut |done, total| {
        watch(Progress { phase: Phase::Read, done, total, reached: None })
    })?;
    let request = Request {
        to: arguments.to.clone(),
        tapes: arguments.tapes.clone(),
        paths: arguments.path.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
        safe: arguments.safe,
        no_owner: arguments.no_owner,
        ..Request::default()
    };
    // one of the same name may be another
    let known = crate::group_file::GroupFile::load(&context.state.group(&deck.group));
    let is_it = known.as_ref().map_or(true, |file| file.uuid == deck.uuid);
    if is_it && crate::mounts::is_at(&crate::mounts::place(&request.to)?, &deck.group)? {
        // the mark of an unfinished restore would be journaled, and no restore of such a moment could begin with its own
        let message = format!("{} is where group {} is mounted", request.to.display(), deck.group);
        let hint = "restore into a directory in it, or elsewhere, and move what you need: mv journals it";
        return Err(Error::usage(message).hint(hint));
    }
    restore::check(&request.to, &request.tapes, deck.uuid)?;
    let target = deck.resolve(&point, output.zone)?;
    let plan = Plan::new(&deck, target)?;
    for warning in deck.warnings.iter().filter(|_| !output.quiet) {
        output.warn(warning);
    }
    output.confirm(output.zone.echo(plan.target.time, plan.target.seq, Some(&plan.target.tape)))?;
    if arguments.dry_run {
        return tell_plan(&plan, &request, context);
    }
    let summary = restore::run(&deck, &plan, &request, &mut watch)?;
    tell_summary(&plan, &request, &summary, context)?;
    if summary.owners_changed > 0 {
        let message = format!("{} objects now belong to you, not to their owners", summary.owners_changed);
        return Err(Error::new(ErrorKind::Incomplete, message));
    }
    Ok(())
}

/// Shows progress: bars and JSON lines know themselves how often they are drawn, but telling a time is not for every record.
fn watcher(context: &Context) -> impl FnMut(Progress) {
    const EVERY: u64 = 256;
    let output = context.output.clone();
    let mut shown: Option<(Phase, Shown)> = None;
    let mut calls = 0_u64;
    move |progress: Progress| {
        let same = shown.as_ref().is_some_and(|(phase, _)| *phase == progress.phase);
        if !same {
            // the bar before goes first, so that two are never on the screen
            shown = None;
            shown = Some((progress.phase, Shown::new(&output, progress.phase.word())));
            calls = 0;
        }
        calls += 1;
        if (calls % EVERY == 1 || progress.done == progress.total)
            && let Some((_, bar)) = &mut shown
        {
            let reached = progress.reached.map(|(_, time)| match output.json {
                true => rfc3339(time),
                false => output.zone.text_seconds(time),
            });
            bar.set(progress.done, progress.total, &reached.unwrap_or_default());
        }
    }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[derive(Serialize)]
struct AtJson {
    epoch: u32,
    seq: u64,
    time: String,
    tape: String,
}

#[derive(Serialize)]
struct TapeJson {
    tape: String,
    kind: String,
    path: String,
    bytes: u64,
    from_seq: u64,
    to_seq: u64,
    from_time: String,
    sealed: String,
}

#[derive(Serialize)]
struct VolumeJson {
    volume: String,
    to: String,
    /// Its base tape; absent when the base is in the records.
    base: Option<String>,
    records: u64,
}

#[derive(Serialize)]
struct PlanJson {
    group: String,
    volumes: Vec<VolumeJson>,
    at: AtJson,
    tapes: Vec<TapeJson>,
    bytes: u64,
    records: u64,
}

fn at_json(plan: &Plan) -> AtJson {
    let target = &plan.target;
    AtJson { epoch: target.epoch.0, seq: target.seq.0, time: rfc3339(target.time), tape: target.tape.clone() }
}

fn volumes_json(plan: &Plan, request: &Request) -> Vec<VolumeJson> {
    let volume = |part: &Part| {
        let to = if plan.is_split { request.to.join(part.name.as_str()) } else { request.to.clone() };
        let (volume, base) = (part.name.to_string(), part.base_tape.as_ref().map(Tape::name));
        VolumeJson { volume, to: to.display().to_string(), base, records: part.records() }
    };
    plan.parts.iter().map(volume).collect()
}

/// Which volumes go where, when that is worth a word.
fn volumes_text(plan: &Plan) -> String {
    if !plan.is_split {
        return String::new();
    }
    let names: Vec<&str> = plan.parts.iter().map(|part| part.name.as_str()).collect();
    format!(", {} to directories of their own: {}", count(names.len() as u64, "volume"), names.join(", "))
}

fn tape_json(tape: &Tape) -> TapeJson {
    let head = &tape.head;
    TapeJson {
        tape: tape.name(),
        kind: head.label.kind.to_string(),
        path: tape.path.display().to_string(),
        bytes: head.bytes,
        from_seq: head.first().0,
        to_seq: head.last().0,
        from_time: rfc3339(head.label.first_time),
        sealed: rfc3339(head.index.sealed),
    }
}

fn tell_plan(plan: &Plan, request: &Request, context: &Context) -> Result<()> {
    let output = &context.output;
    for tape in plan.tapes() {
        let (from, to) = (tape.head.label.first_time, tape.head.index.sealed);
        let (from, to) = (output.zone.text_seconds(from), output.zone.text_seconds(to));
        let size = Size(tape.head.bytes).to_string();
        output.say(format!("{:6} {size:>11}  {from} to {to}  {}", tape.head.label.kind.to_string(), tape.name()))?;
    }
    output.say(format!(
        "would restore to {}: reads {}, {}, and {} after the base{}",
        request.to.display(),
        count(plan.tapes().len() as u64, "tape"),
        Size(plan.bytes()),
        count(plan.records(), "record"),
        volumes_text(plan)
    ))?;
    output.document(&PlanJson {
        group: plan.group.to_string(),
        volumes: volumes_json(plan, request),
        at: at_json(plan),
        tapes: plan.tapes().into_iter().map(tape_json).collect(),
        bytes: plan.bytes(),
        records: plan.records(),
    })
}

#[derive(Serialize)]
struct SummaryJson {
    group: String,
    volumes: Vec<VolumeJson>,
    at: AtJson,
    to: String,
    tapes: u64,
    records: u64,
    files: u64,
    bytes: u64,
    owners_changed: u64,
    cleared_interrupted: bool,
}

fn tell_summary(plan: &Plan, request: &Request, summary: &Summary, context: &Context) -> Result<()> {
    let output = &context.output;
    if summary.again {
        output.note(format!("an interrupted restore was cleared from {} first", request.to.display()));
    }
    output.confirm(format!(
        "restored {}, {}, to {} ({} and {}){}",
        count(summary.files, "object"),
        Size(summary.bytes),
        request.to.display(),
        count(summary.tapes, "tape"),
        count(summary.records, "record"),
        volumes_text(plan)
    ))?;
    let &Summary { tapes, records, files, bytes, owners_changed, again } = summary;
    output.event(
        "summary",
        &SummaryJson {
            group: plan.group.to_string(),
            volumes: volumes_json(plan, request),
            at: at_json(plan),
            to: request.to.display().to_string(),
            tapes,
            records,
            files,
            bytes,
            owners_changed,
            cleared_interrupted: again,
        },
    )
}
