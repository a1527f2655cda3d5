//! `reelfs group delete`: what is only in the journal is not thrown away without a word.

use reelfs_journal::{GroupName, Jvol, Record, Seq};
use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::group;
use crate::group_file::{GroupFile, VolumeEntry};
use crate::lock::GroupLock;
use crate::open_group::OpenGroup;
use crate::output::count;
use crate::state::GroupDir;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The protected directory and the tapes stay as they are.\n\nExample:\n  reelfs group delete docs"
)]
pub(crate) struct DeleteArgs {
    /// The group
    pub group: GroupName,
    /// Even when the journal holds changes that are on no tape, or cannot be looked at
    #[arg(short, long)]
    pub yes: bool,
    /// Say what would be deleted and lost, and stop
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Serialize)]
struct Deleted {
    group: String,
    pvol: Option<String>,
    pvols: Vec<String>,
    /// Not known of one that was not closed well.
    changes_lost: Option<u64>,
    /// It was not closed well: what the journal has is brought back first, and counted then.
    unclean: bool,
    /// Nothing was deleted.
    dry_run: bool,
}

impl Deleted {
    /// What was left of a group whose making or deletion was cut off.
    fn rest(name: &GroupName, dry_run: bool) -> Deleted {
        let (group, changes_lost) = (name.to_string(), Some(0));
        Deleted { group, pvol: None, pvols: Vec::new(), changes_lost, unclean: false, dry_run }
    }
}

pub(super) fn run(arguments: &DeleteArgs, context: &Context) -> Result<()> {
    let name = &arguments.group;
    if arguments.dry_run {
        return plan(name, context);
    }
    if group::delete_rest(&context.state, &context.state.group(name), arguments.yes)? {
        context.output.document(&Deleted::rest(name, false))?;
        return context.output.confirm(format!("what was left of group {name} is deleted"));
    }
    let group = context.state.existing(name)?;
    bring_back(&group, context)?;
    let lock = GroupLock::take(&group, "reelfs group delete")?;
    let file = GroupFile::load(&group)?;
    let waiting = waiting_changes(&file, context)?;
    if waiting > 0 && !arguments.yes {
        let name = &file.name;
        let message = format!("the journal of {name} holds {} that no tape has", count(waiting, "change"));
        let hint = format!("reelfs tape export {name} --to DIR, or give them up: reelfs group delete {name} --yes");
        return Err(Error::new(ErrorKind::WouldOverwrite, message).hint(hint));
    }
    group::delete(&context.state, &group, &file, lock)?;
    context.output.document(&Deleted {
        group: file.name.to_string(),
        pvol: file.volumes.first().map(|volume| volume.pvol.display().to_string()),
        pvols: file.volumes.iter().map(|volume| volume.pvol.display().to_string()).collect(),
        changes_lost: Some(waiting),
        unclean: false,
        dry_run: false,
    })?;
    let stays = match file.volumes.as_slice() {
        [] => String::new(),
        [only] => format!("; {} stays as it is", only.pvol.display()),
        several => format!("; the {} directories stay as they are", several.len()),
    };
    context.output.confirm(format!("group {} deleted{stays}", file.name))
}

/// What deleting it would do.
fn plan(name: &GroupName, context: &Context) -> Result<()> {
    let group = context.state.group(name);
    if !group.exists() && GroupFile::load_passing(&group)?.is_some() {
        context.output.document(&Deleted::rest(name, true))?;
        return context.output.say(format!("would delete what is left of group {name}"));
    }
    let group = context.state.existing(name)?;
    let _lock = GroupLock::take(&group, "reelfs group delete --dry-run")?;
    let file = GroupFile::load(&group)?;
    let pvols: Vec<String> = file.volumes.iter().map(|volume| volume.pvol.display().to_string()).collect();
    let waiting = waiting_changes(&file, context)?;
    let (journal, targets) = (file.journal.display(), file.targets.len() as u64);
    context.output.say(format!("would delete group {name} and its journal {journal}"))?;
    let unclean = !is_clean(&file);
    context.output.say(match waiting {
        _ if unclean => {
            "  lost      what no tape has; it was not closed well, and is brought back before that is counted"
                .to_owned()
        }
        0 => "  lost      nothing: all of it is on tapes".to_owned(),
        _ => format!("  lost      {} that no tape has: only with --yes", count(waiting, "change")),
    })?;
    pvols.iter().try_for_each(|pvol| context.output.say(format!("  stays     {pvol}")))?;
    if targets > 0 {
        context.output.say(format!("  stays     {} of tapes", count(targets, "directory")))?;
    }
    let (group, pvol) = (name.to_string(), pvols.first().cloned());
    let changes_lost = (!unclean).then_some(waiting);
    context.output.document(&Deleted { group, pvol, pvols, changes_lost, unclean, dry_run: true })
}

fn is_clean(file: &GroupFile) -> bool {
    let is_closed = |volume: &VolumeEntry| volume.session.as_ref().is_none_or(|session| session.clean.is_some());
    file.volumes.iter().all(is_closed)
}

/// After an unclean stop the journal may hold what the PVOL has lost: it goes back first. What is not there any more, or
/// damaged, cannot be used, and does not keep the group from being deleted.
fn bring_back(group: &GroupDir, context: &Context) -> Result<()> {
    let file = GroupFile::load(group)?;
    if is_clean(&file) {
        return Ok(());
    }
    match OpenGroup::open(group, "reelfs group delete", false, &context.output) {
        Ok(open) => open.close(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => {
            context.output.warn(error.to_string());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Changes that no directory of tapes has; our own markers are no loss. A journal that is not there holds none.
fn waiting_changes(file: &GroupFile, context: &Context) -> Result<u64> {
    if !file.journal.exists() {
        context.output.warn(format!("the journal {} is not there", file.journal.display()));
        return Ok(0);
    }
    let jvol = Jvol::open(&file.journal, file.uuid)?;
    let pointers = jvol.pointers();
    let on_tapes = file.targets.iter().filter(|target| target.epoch == file.epoch).map(|target| target.seq).max();
    let from = on_tapes.unwrap_or(Seq::ZERO).next().max(pointers.out);
    let (mut changes, mut controls) = (0, jvol.controls(from, pointers.next.previous())?);
    while let Some(control) = controls.next() {
        changes += u64::from(!Record::is_marker_or_amendment(control?));
    }
    Ok(changes)
}
