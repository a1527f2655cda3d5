//! The first copy of a replica: a restore that stays open, and the table of what it made.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use reelfs_journal::{Position, Timestamp, VolumeName};
use reelfs_volume::Stat;
use rustix::io::Errno;

use super::journal::before;
use super::objects::Objects;
use super::replica::{Beside, ReplicaFile, Stands};
use crate::consumer::{Ask, new_id};
use crate::error::{Error, ErrorKind, Result};
use crate::output::Output;
use crate::point::Point;
use crate::request::{self, Request};
use crate::restore::{self, Deck, Part, Plan, Progress, Standing};
use crate::scope::Scope;
use crate::state::GroupDir;
use crate::status::GroupStatus;

/// From directories of tapes: as late as they reach, or as late as `delay` allows.
///
/// # Errors
/// As a restore.
pub fn from_tapes(
    beside: &Beside,
    tapes: &[PathBuf],
    scope: Option<&Scope>,
    (now, delay): (Timestamp, Option<Duration>),
    output: &Output,
    watch: &mut dyn FnMut(Progress),
) -> Result<ReplicaFile> {
    let deck = Deck::open(tapes, scope, &mut |_, _| {})?;
    refuse_several(&deck)?;
    let request = restore::Request { to: beside.tree().to_owned(), tapes: tapes.to_vec(), ..Default::default() };
    if restore::check(&request.to, &request.tapes, deck.uuid)? != Standing::Interrupted {
        beside.forget()?;
    }
    let point = delay.map_or(Point::Latest, |delay| Point::Time(before(now, delay)));
    let target = match deck.resolve(&point, output.zone) {
        // nothing leads to a time before the base copy
        Err(error) if delay.is_some() && error.kind() == ErrorKind::OutsideWindow => {
            deck.resolve(&Point::Oldest, output.zone)
        }
        resolved => resolved,
    }?;
    let plan = Plan::new(&deck, target)?;
    let part = only_part(&plan)?;
    let made = restore::make(&deck, &plan, &request, watch)?;
    let several = || Error::failed("a replica of several volumes was made");
    let (tree, root_mtime) = made.tree.zip(made.root_mtime).ok_or_else(several)?;
    let own = |errno: Errno| own_ids(beside, errno);
    let mut entries = HashMap::with_capacity(tree.files.len());
    for file in tree.files.iter().filter(|file| **file != tree.volume.root_id()) {
        entries.insert(*file, tree.volume.own_id(*file).map_err(own)?);
    }
    let objects = Objects::create(beside.dir(), 0, entries)?;
    let replica = ReplicaFile {
        schema: ReplicaFile::SCHEMA,
        id: new_id(),
        group: deck.group.clone(),
        uuid: deck.uuid,
        volume: part.volume,
        volume_name: part.name.clone(),
        root: tree.volume.root_id(),
        own_root: tree.volume.own_id(tree.volume.root_id()).map_err(own)?,
        at: position(&deck, &plan, part)?,
        time: plan.target.time,
        stands: Stands::Outside,
        applying: None,
        objects: objects.extent(),
        root_mtime,
        stamp: None,
    };
    beside.store(&replica)?;
    made.destination.finish(Some(root_mtime))?;
    objects.clean();
    Ok(replica)
}

/// A replica is of one volume.
fn refuse_several(deck: &Deck) -> Result<()> {
    let names = deck.volumes.names();
    if deck.scope.volume.is_some() || names.len() < 2 {
        return Ok(());
    }
    let known: Vec<String> = names.into_iter().map(|name| format!("{}/{name}", deck.group)).collect();
    let message = format!("the tapes are of several volumes of group {}, and a replica is of one", deck.group);
    Err(Error::usage(message).hint(format!("one of {}", known.join(", "))))
}

/// What the plan leads to, of one volume.
fn only_part(plan: &Plan) -> Result<&Part> {
    match plan.parts.as_slice() {
        [part] => Ok(part),
        _ => Err(Error::failed(format!("several volumes of group {} have one name", plan.group))),
    }
}

/// From a group on this machine: its base in the journal, or else a base copy of its own, on tapes beside the replica for as long as
/// the restore takes.
///
/// # Errors
/// As an export, a base copy and a restore.
pub fn from_group(
    beside: &Beside,
    (group, volume): (&GroupDir, &VolumeName),
    now: Timestamp,
    output: &Output,
    watch: &mut dyn FnMut(Progress),
) -> Result<ReplicaFile> {
    drop_base(beside, group, output)?;
    let to = beside.base();
    std::fs::create_dir_all(&to).map_err(|error| Error::io(format!("make {}", to.display()), error))?;
    let scope = Scope { group: group.name().clone(), volume: Some(volume.clone()) };
    let tapes = std::slice::from_ref(&to);
    let mut fill = |request: &Request| -> Result<()> {
        let _: crate::export::Exported = request::run(group, request, output, &mut |step| {
            watch(Progress { phase: restore::Phase::Read, done: step.done, total: step.total, reached: None });
        })?;
        Ok(())
    };
    if has_base_in_journal(group, volume)? {
        fill(&Request::Export { to: to.clone() })?;
    }
    // without one, and when its records were freed meanwhile
    let leads = |deck: &Deck| deck.resolve(&Point::Latest, output.zone).is_ok();
    if !Deck::open(tapes, Some(&scope), &mut |_, _| {}).is_ok_and(|deck| leads(&deck)) {
        fill(&Request::BaseCopy { to: to.clone(), volume: Some(volume.clone()) })?;
    }
    from_tapes(beside, tapes, Some(&scope), (now, None), output, watch)
}

/// The newest base of a volume went through the journal, which holds all of it still: nothing need be read of the PVOL.
fn has_base_in_journal(group: &GroupDir, volume: &VolumeName) -> Result<bool> {
    let status = GroupStatus::of(group)?;
    let began = status.file.volume(Some(volume))?.base.and_then(|base| base.began);
    Ok(began.zip(status.journal).is_some_and(|(began, journal)| journal.first <= began))
}

/// Whether the group keeps records for a first copy: it runs, or was cut off.
///
/// # Errors
/// The group cannot be read.
pub fn is_copied(beside: &Beside, group: &GroupDir) -> Result<bool> {
    Ok(crate::group_file::GroupFile::load(group)?.target(&beside.base()).is_some())
}

/// The group keeps nothing for a first copy any more.
///
/// # Errors
/// 10 when it kept nothing.
pub fn forget_base(beside: &Beside, group: &GroupDir, output: &Output) -> Result<()> {
    let ask = Request::Consumer(Ask::DropTapes { dir: beside.base() });
    request::run(group, &ask, output, &mut |_| {})
}

/// Lets go of the tapes that a first copy came through.
///
/// # Errors
/// They cannot be removed.
pub fn drop_base(beside: &Beside, group: &GroupDir, output: &Output) -> Result<()> {
    let dir = beside.base();
    if is_copied(beside, group)? {
        forget_base(beside, group, output)?;
    }
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

/// Where the replica stands, with the digest.
fn position(deck: &Deck, plan: &Plan, part: &Part) -> Result<Position> {
    let last = part.updates.last();
    let last =
        last.ok_or_else(|| Error::new(ErrorKind::TapeNeeded, "no tape holds the records after the base copy"))?;
    let tape = deck.verified(&last.tape, &mut |_| {})?;
    tape.position_at(plan.target.seq).map_err(|error| restore::tape_error(&last.tape.path, error))
}

/// Why objects of the replica cannot be told apart.
pub(super) fn own_ids(beside: &Beside, errno: Errno) -> Error {
    let shown = beside.tree().display();
    match errno {
        Errno::OPNOTSUPP => Error::usage(format!(
            "the file system of {shown} gives no file handles, so a replica there cannot be followed into"
        ))
        .hint("ext4, XFS, btrfs and tmpfs serve"),
        errno => Error::io(format!("look at {shown}"), errno.into()),
    }
}

/// An unfinished first copy: the tree carries the incomplete mark.
#[must_use]
pub fn is_unfinished(beside: &Beside, replica: &ReplicaFile) -> bool {
    Stat::at(rustix::fs::CWD, mark(beside, replica).as_os_str().as_encoded_bytes()).is_ok()
}

fn mark(beside: &Beside, replica: &ReplicaFile) -> PathBuf {
    beside.tree().join(reelfs_volume::restore_mark(replica.uuid))
}
