//! Restore: from a directory of tapes to a directory, at any moment the tapes reach. Needs nothing but the tapes.
//!
//! The point is looked up ([`crate::points`]), the plan names the tapes ([`Plan`]), all of them are read whole, the names are
//! folded in memory ([`Survey`]), the target is probed, and only then is anything written. Two ways lead to the same
//! tree: [`Method::Newest`] builds what stands at the end, [`Method::Replay`] builds the base and applies every record.

mod builder;
mod choose;
mod deck;
mod live;
mod plan;
mod probe;
mod reel;
mod replay;
mod survey;
mod tape;
mod target;
mod told;

use std::path::PathBuf;

use reelfs_journal::{FileId, FileTime, Name, NodeKind, Seq, Timestamp};
use reelfs_volume::Volume;

pub use builder::{Builder, Built, Restraint};
pub(crate) use choose::broken_tapes;
pub use deck::{Deck, EpochTapes, Visit, Watch, Who};
pub use live::{JOURNAL, Live};
pub use plan::{Needed, Plan};
pub use probe::{Needs, probe};
pub use reel::{Reel, Step, Winding};
pub(crate) use replay::misfit;
pub use replay::{Player, Stage, replay};
pub use survey::{Selection, Survey};
pub use tape::Tape;
pub(crate) use tape::tape_error;
pub use target::{Destination, Standing, check, mark_name};
pub use told::Told;

use crate::error::{Error, ErrorKind, Result};

/// How the tree is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Names as they stand at the end, then only the bytes of what is still there.
    #[default]
    Newest,
    /// The tree at the end of the base copy, then one record after the other.
    Replay,
}

/// What is to be restored, and how.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The target directory.
    pub to: PathBuf,
    /// Directories of tapes, only to see that the target does not lie in one of them.
    pub tapes: Vec<PathBuf>,
    /// Paths relative to the root; none means everything.
    pub paths: Vec<Vec<u8>>,
    /// No suid, no sgid, no capabilities, no devices.
    pub safe: bool,
    /// All files belong to the caller.
    pub no_owner: bool,
    /// How the tree is made; what leaves something out is always made by [`Method::Newest`].
    pub method: Method,
}

/// What a long restore is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Tapes are looked at, to know what they lead to.
    Read,
    /// The tapes that are needed are read whole.
    Verify,
    /// Names and attributes are collected.
    Survey,
    /// The tree is made.
    Write,
    /// Everything is brought to disk.
    Sync,
}

impl Phase {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Phase::Read => "read tapes",
            Phase::Verify => "verify",
            Phase::Survey => "survey",
            Phase::Write => "replay",
            Phase::Sync => "sync",
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Bytes to do in this phase, as far as that is known.
    pub total: u64,
    /// The record that it has reached.
    pub reached: Option<(Seq, Timestamp)>,
}

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Tapes read.
    pub tapes: u64,
    /// Records after the base's `BaseBegin`.
    pub records: u64,
    /// Objects in the tree, the root not counted.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Objects whose owner was not taken over, though it is another one.
    pub owners_changed: u64,
    /// An interrupted restore was cleared away first.
    pub again: bool,
}

/// Does it: verify, survey, probe, write, sync; then the incomplete mark goes.
///
/// # Errors
/// Everything that can be wrong with tapes and target; up to the probe nothing is changed.
pub fn run(deck: &Deck, plan: &Plan, request: &Request, watch: &mut dyn FnMut(Progress)) -> Result<Summary> {
    let made = make(deck, plan, request, watch)?;
    made.destination.finish(made.root_mtime)?;
    Ok(made.summary)
}

/// A tree that is complete and on disk, and still carries the incomplete mark.
pub struct Made {
    /// The tree; it knows all its objects.
    pub volume: Volume,
    /// Where it is; to be finished.
    pub destination: Destination,
    /// Its objects, the root among them.
    pub files: Vec<FileId>,
    /// Modification time that the root gets at the end.
    pub root_mtime: FileTime,
    /// What was done.
    pub summary: Summary,
}

/// The same up to the incomplete mark, which stays.
///
/// # Errors
/// As [`run`].
pub fn make(deck: &Deck, plan: &Plan, request: &Request, watch: &mut dyn FnMut(Progress)) -> Result<Made> {
    let standing = check(&request.to, &request.tapes, plan.uuid)?;
    let total = plan.bytes();
    let reel = plan.load(deck, &mut |done| {
        watch(Progress { phase: Phase::Verify, done, total, reached: None });
    })?;
    let restraint = restraint(request);
    let (began, ended, target) = (plan.base.began, plan.base.ended, plan.target.seq);
    let mut surveyed = |step: &Step<'_>| {
        let reached = Some((step.seq, step.time));
        watch(Progress { phase: Phase::Survey, done: step.seq.0 - began.0, total: target.0 - began.0, reached });
    };
    let survey = Survey::new(&reel, began, ended, target, &mut surveyed)?;
    let selection = Selection::new(&survey.names, &request.paths, &|kind| restraint.admits(kind))?;
    let needs = Needs::new(&survey, &selection, restraint);
    let made = standing == Standing::Missing && !request.to.exists();
    let destination = Destination::make(&request.to, standing, plan.uuid)?;
    if let Err(error) = probe(&destination, &needs, restraint) {
        if made {
            // it was not there before, and it is empty
            let _ = std::fs::remove_dir(&request.to);
        }
        return Err(error);
    }
    destination.begin()?;
    let plain = restraint.is_none() && request.paths.is_empty();
    let mut summary = Summary {
        tapes: plan.tapes().count() as u64,
        records: plan.records(),
        owners_changed: if request.no_owner { needs.foreign_owners() } else { 0 },
        again: standing == Standing::Interrupted,
        ..Summary::default()
    };
    let total = needs.bytes();
    let mut wrote = |done: u64, step: Option<&Step<'_>>| {
        let reached = step.map(|step| (step.seq, step.time));
        watch(Progress { phase: Phase::Write, done, total: total.max(done), reached });
    };
    let volume = Volume::replica(destination.root()?, survey.names.root());
    let volume = volume.map_err(|errno| Error::io(format!("open {}", request.to.display()), errno.into()))?;
    let built = if plain && request.method == Method::Replay {
        by_replay(plan, &reel, &volume, &mut wrote)?
    } else {
        let builder = Builder { volume: &volume, names: &survey.names, selection: &selection, restraint };
        builder.build(&reel, &survey, (began.next(), target), &mut wrote)?
    };
    (summary.files, summary.bytes) = (selection.objects.len() as u64 - 1, built.bytes);
    watch(Progress { phase: Phase::Sync, done: total, total, reached: Some((target, plan.target.time)) });
    volume.sync().map_err(|errno| Error::io(format!("bring {} to disk", request.to.display()), errno.into()))?;
    let root_mtime = root_mtime(&survey)?;
    let files = selection.objects.iter().copied().collect();
    Ok(Made { volume, destination, files, root_mtime, summary })
}

fn restraint(request: &Request) -> Restraint {
    let caller = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Restraint { safe: request.safe, owner: request.no_owner.then(caller) }
}

fn root_mtime(survey: &Survey) -> Result<FileTime> {
    let unknown = || Error::new(ErrorKind::Damaged, "the tapes say nothing about the root directory");
    Ok(survey.names.node(survey.names.root()).ok_or_else(unknown)?.attributes.mtime)
}

/// The tree as it stood at the end of the base copy, then every record after it.
fn by_replay(
    plan: &Plan,
    reel: &Reel,
    volume: &Volume,
    progress: &mut dyn FnMut(u64, Option<&Step<'_>>),
) -> Result<Built> {
    let (began, ended) = (plan.base.began, plan.base.ended);
    let survey = Survey::new(reel, began, ended, ended, &mut |_| {})?;
    let everything = |_: &NodeKind| true;
    let selection = Selection::new(&survey.names, &[], &everything)?;
    let builder = Builder { volume, names: &survey.names, selection: &selection, restraint: Restraint::default() };
    let mut built = builder.build(reel, &survey, (began.next(), ended), progress)?;
    let scratch = Name::new(format!(".reelfs-bracket-{}", plan.uuid).as_bytes());
    let scratch = scratch.map_err(|error| Error::failed(error.to_string()))?;
    built.bytes += replay(reel, volume, &scratch, (ended.next(), plan.target.seq), progress)?;
    Ok(built)
}

#[cfg(test)]
mod tests;
