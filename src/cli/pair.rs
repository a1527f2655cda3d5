//! `reelfs pair`: split, resync, show and list.

use std::path::PathBuf;

use clap::Subcommand;
use reelfs_journal::{GroupName, VolumeName};
use reelfs_volume::{DirtyCounts, OnFull};
use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::export::Exported;
use crate::group_file::VolumeEntry;
use crate::output::count;
use crate::pair::{self, Brought, Done, Parted};
use crate::pair_state::PairState;
use crate::progress::Progress;
use crate::request::{self, Request, Step};
use crate::scope::Scope;
use crate::secondary::{self, Secondary};
use crate::size::Size;
use crate::state::GroupDir;
use crate::status::GroupStatus;
use crate::when::rfc3339;

#[derive(Debug, Subcommand)]
pub(crate) enum PairVerb {
    /// Make a directory a volume of a group; all volumes of a group have one order of changes
    #[command(
        after_help = "Examples:\n  reelfs pair create shop/db --pvol /data/db\n  reelfs pair create shop/logs --pvol \
                            /data/logs --to media:/media/disk\n  reelfs pair create shop/img --pvol /data/img --to /srv/replica\n\n\
                            --to makes the first copy: on tapes in a directory that is there (media:DIR), or as a replica, which \
                            `reelfs follow`\nkeeps. Without it mount the volume, and make a base copy."
    )]
    Create(CreateArgs),
    /// Take a volume out of its group; its directory and the tapes stay as they are
    #[command(after_help = "Example:\n  reelfs pair delete shop/logs")]
    Delete(DeleteArgs),
    /// Stop journaling: applications go on, and what changes is only noted
    #[command(
        after_help = "Examples:\n  reelfs pair split docs\n  reelfs pair split docs --at marker:before-upgrade\n\nWith \
                            --at the marker is set with no change under way: it is the last point that can be restored."
    )]
    Split(SplitArgs),
    /// Journal again, and tell what changed meanwhile; exports to the known directories when the journal is full
    #[command(
        after_help = "Examples:\n  reelfs pair resync docs\n  reelfs pair resync docs --full\n\nMoments between the \
                            suspension and the end of the resync cannot be restored. With --full all that is\nthere goes \
                            through the journal, as a base that later tapes can stand on, whatever changed. A copy\nthat was \
                            interrupted goes on."
    )]
    Resync(ResyncArgs),
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
    /// The group, or one volume of it
    #[arg(value_name = "GROUP[/VOLUME]")]
    pub pair: Scope,
    /// Exit with 16 when the state is another one
    #[arg(long, value_name = "STATE")]
    pub check: Option<PairState>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SplitArgs {
    /// The group, or one volume of it
    #[arg(value_name = "GROUP[/VOLUME]")]
    pub pair: Scope,
    /// Set a marker of this name, and suspend there
    #[arg(long, value_name = "marker:NAME", value_parser = marker_name)]
    pub at: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResyncArgs {
    /// The group, or one volume of it
    #[arg(value_name = "GROUP[/VOLUME]")]
    pub pair: Scope,
    /// All that is there, whatever changed
    #[arg(long)]
    pub full: bool,
}

/// The name of a point that is to be set.
fn marker_name(text: &str) -> std::result::Result<String, String> {
    let name = text.strip_prefix("marker:").ok_or("a split sets its marker itself: write marker:NAME")?;
    crate::point::check_marker_name(name).map_err(|error| error.to_string())?;
    Ok(name.to_owned())
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// What to call it
    #[arg(value_name = "GROUP/VOLUME")]
    pub pair: Scope,
    /// The directory to protect
    #[arg(long, value_name = "DIR")]
    pub pvol: PathBuf,
    /// The secondary, which gets the first copy: a directory of tapes, or a replica on this machine
    #[arg(long, value_name = "media:DIR|DIR")]
    pub to: Option<Secondary>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Which
    #[arg(value_name = "GROUP/VOLUME")]
    pub pair: Scope,
}

#[derive(Serialize)]
struct Report<'a, T> {
    group: &'a GroupName,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<&'a VolumeName>,
    state: &'static str,
    #[serde(flatten)]
    what: T,
}

pub(crate) fn run(verb: &PairVerb, context: &Context) -> Result<()> {
    match verb {
        PairVerb::Create(arguments) => create(arguments, context),
        PairVerb::Delete(arguments) => delete(&arguments.pair, context),
        PairVerb::Split(arguments) => split(arguments, context),
        PairVerb::Resync(arguments) => resync(arguments, context),
        PairVerb::Show(arguments) => show(arguments, context),
        PairVerb::List(ListArgs {}) => list(context),
    }
}

#[derive(Serialize)]
struct Row {
    group: String,
    volume: String,
    pvol: String,
    state: &'static str,
    reason: Option<&'static str>,
    since: Option<String>,
    on_full: OnFull,
    dirty: Option<DirtyCounts>,
    secondaries: Vec<Secondary>,
}

impl Row {
    fn of(status: &GroupStatus, volume: &VolumeEntry) -> Row {
        let suspension = status.suspension(Some(volume.index));
        Row {
            group: status.file.name.to_string(),
            volume: volume.name.to_string(),
            pvol: volume.pvol.display().to_string(),
            state: status.state_of(Some(volume.index)).word(),
            reason: suspension.map(|(suspension, _)| pair::word(suspension.reason)),
            since: suspension.map(|(suspension, _)| rfc3339(suspension.time)),
            on_full: status.file.on_full,
            dirty: suspension.map(|(_, counts)| counts),
            secondaries: secondary::known(&status.file, volume),
        }
    }
}

fn line(status: &GroupStatus, volume: &VolumeEntry, context: &Context) -> String {
    let index = Some(volume.index);
    let since = status
        .suspension(index)
        .map(|(suspension, _)| format!(", since {}", context.output.zone.text(suspension.time)));
    let (name, word) = (status.file.title(volume), status.state_of(index).word());
    let known = secondary::known(&status.file, volume);
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    let to = if known.is_empty() { String::new() } else { format!("  -> {}", known.join(", ")) };
    format!("{name:15} {word}    {}{}{to}", status.plain_of(index), since.unwrap_or_default())
}

fn show(arguments: &ShowArgs, context: &Context) -> Result<()> {
    let pair = &arguments.pair;
    let status = GroupStatus::of(&context.state.existing(&pair.group)?)?;
    for volume in status.file.chosen(pair.volume.as_ref())? {
        context.output.say(line(&status, volume, context))?;
        context.output.document(&Row::of(&status, volume))?;
    }
    let Some(wanted) = arguments.check else { return Ok(()) };
    let others = |volume: &&VolumeEntry| status.state_of(Some(volume.index)) != wanted;
    match status.file.chosen(pair.volume.as_ref())?.into_iter().find(others) {
        Some(volume) => {
            let (name, is) = (status.file.title(volume), status.state_of(Some(volume.index)).word());
            Err(Error::new(ErrorKind::State, format!("{name} is {is}, not {}", wanted.word())))
        }
        None => Ok(()),
    }
}

fn list(context: &Context) -> Result<()> {
    let (groups, mut pairs, mut broken) = (context.state.groups()?, Vec::new(), Vec::new());
    for group in &groups {
        // one broken group must not hide the others
        let status = match GroupStatus::of(group) {
            Ok(status) => status,
            Err(error) => {
                broken.push((group, error));
                continue;
            }
        };
        for volume in &status.file.volumes {
            context.output.say(line(&status, volume, context))?;
            pairs.push(Row::of(&status, volume));
        }
    }
    context.output.document(&Rows { pairs })?;
    super::status::refuse_broken(broken)
}

#[derive(Serialize)]
struct Rows {
    pairs: Vec<Row>,
}

/// The volume, which must be named: a group may have several.
fn named(pair: &Scope) -> Result<VolumeName> {
    pair.volume.clone().ok_or_else(|| {
        let group = &pair.group;
        Error::usage(format!("`{group}` names no volume"))
            .hint(format!("give it one of your own: {group}/NAME, {group}/{} say", VolumeName::ONLY))
    })
}

#[derive(Serialize)]
struct Joined<'a> {
    group: &'a GroupName,
    volume: VolumeName,
    pvol: String,
    index: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    secondary: Option<&'a Secondary>,
}

fn create(arguments: &CreateArgs, context: &Context) -> Result<()> {
    let (pair, volume) = (&arguments.pair, named(&arguments.pair)?);
    let group = context.state.existing(&pair.group)?;
    let secondary = arguments.to.as_ref().map(Secondary::absolute).transpose()?;
    let (pvol, to) = (super::absolute(&arguments.pvol)?, secondary.clone());
    let request = Request::AddVolume { volume: volume.clone(), pvol, secondary: to };
    let made: pair::Created = request::run(&group, &request, &context.output, &mut |_| {})?;
    let pvol = made.pvol.display().to_string();
    if let Some(secondary) = &secondary {
        first_copy(&group, (pair, &volume), secondary, context).map_err(|error| {
            let again = match secondary {
                Secondary::Media(dir) => format!("reelfs base copy {pair} --to {}", dir.display()),
                Secondary::Replica(dir) => format!("reelfs follow {pair} --to {}", dir.display()),
            };
            let hint = error.hint_text().map_or_else(String::new, |hint| format!("{hint}; then: "));
            error.within(format!("{pair} has joined, and its first copy could not be made")).hint(hint + &again)
        })?;
    }
    let (index, secondary) = (made.index.0, secondary.as_ref());
    context.output.document(&Joined { group: &pair.group, volume, pvol: pvol.clone(), index, secondary })?;
    context.output.confirm(format!("{pair}: {pvol} has joined group {}", pair.group))?;
    match secondary {
        Some(Secondary::Media(dir)) => {
            context.output.confirm(format!("  its base is on tapes in {}", dir.display()))?;
        }
        Some(Secondary::Replica(dir)) => {
            let shown = dir.display();
            context.output.confirm(format!("  its replica is {shown}; keep it: reelfs follow {pair} --to {shown}"))?;
        }
        None => {}
    }
    context.output.confirm(format!("  next: reelfs mount {pair} MOUNTPOINT     ({pvol} itself, or an empty directory)"))
}

fn first_copy(
    group: &GroupDir,
    (pair, volume): (&Scope, &VolumeName),
    secondary: &Secondary,
    context: &Context,
) -> Result<()> {
    match secondary {
        Secondary::Media(dir) => {
            let mut progress = Progress::new(&context.output, "base copy");
            let mut step = |step: Step| progress.set(step.done, step.total, "");
            let request = Request::BaseCopy { to: dir.clone(), volume: Some(volume.clone()) };
            let exported: Exported = request::run(group, &request, &context.output, &mut step)?;
            drop(progress);
            exported.warnings.iter().for_each(|warning| context.output.warn(warning));
            Ok(())
        }
        Secondary::Replica(dir) => super::follow::make_replica(pair, dir, context),
    }
}

fn delete(pair: &Scope, context: &Context) -> Result<()> {
    let volume = named(pair)?;
    let group = context.state.existing(&pair.group)?;
    let request = Request::RemoveVolume { volume };
    let done: Done = request::run(&group, &request, &context.output, &mut |_| {})?;
    context.output.document(&Report { group: &pair.group, volume: pair.volume.as_ref(), state: "SMPL", what: done })?;
    context.output.confirm(format!("{pair} has left its group; its directory and the tapes stay as they are"))
}

fn split(arguments: &SplitArgs, context: &Context) -> Result<()> {
    let pair = &arguments.pair;
    let group = context.state.existing(&pair.group)?;
    let request = Request::Split { volume: pair.volume.clone(), marker: arguments.at.clone() };
    let split: Parted = request::run(&group, &request, &context.output, &mut |_| {})?;
    context.output.document(&Report {
        group: &pair.group,
        volume: pair.volume.as_ref(),
        state: "SUSP",
        what: split,
    })?;
    if split.already {
        return context.output.confirm(format!("{pair} is suspended already"));
    }
    if let (Some(marked), Some(name)) = (split.marker, &arguments.at) {
        let (seq, time) = (marked.seq, context.output.zone.text(marked.time));
        context.output.confirm(format!("marker {name} at seq {seq}, {time}: the last point that can be restored"))?;
    }
    context.output.confirm(format!(
        "{pair}: PAIR -> SUSP (user); what changes is noted, bring it back: reelfs pair resync {pair}"
    ))
}

fn resync(arguments: &ResyncArgs, context: &Context) -> Result<()> {
    let pair = &arguments.pair;
    let group = context.state.existing(&pair.group)?;
    let mut progress = Progress::new(&context.output, "resync");
    let mut step = |step: Step| progress.set(step.done, step.total, "");
    let request = Request::Resync { volume: pair.volume.clone(), full: arguments.full };
    let brought: Brought = request::run(&group, &request, &context.output, &mut step)?;
    drop(progress);
    let volume = pair.volume.as_ref();
    context.output.document(&Report { group: &pair.group, volume, state: "PAIR", what: brought })?;
    let resynced = brought.told;
    if let Some(epoch) = resynced.new_epoch {
        return context.output.confirm(format!(
            "{pair}: the journal had lost what it held; epoch {epoch} begins, with a new base in every directory of tapes"
        ));
    }
    let (directories, objects) = (count(resynced.directories, "directory"), count(resynced.objects, "object"));
    if brought == Brought::default() {
        return context.output.confirm(format!("{pair} is PAIR; nothing had to be told again"));
    }
    if let Some(seq) = brought.base {
        return context.output.confirm(format!(
            "{pair}: COPY -> PAIR; through the journal: {directories}, {objects}, {}; from seq {seq} on no earlier base is needed",
            Size(resynced.bytes)
        ));
    }
    context.output.confirm(format!(
        "{pair}: SUSP -> COPY -> PAIR; told again: the names in {directories}, {objects}, {}",
        Size(resynced.bytes)
    ))
}
