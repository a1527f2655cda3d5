//! Restore: from a directory of tapes to a directory, at any moment the tapes reach. Needs nothing but the tapes.
//!
//! The point is looked up ([`crate::points`]), the plan names the tapes ([`Plan`]), all of them are read whole, the names are
//! folded in memory ([`Survey`]), the target is probed, and only then is anything written. Two ways lead to the same
//! tree: [`Method::Newest`] builds what stands at the end, [`Method::Replay`] builds the base and applies every record.

mod builder;
mod choose;
mod deck;
mod live;
mod part;
mod plan;
mod probe;
mod reel;
mod replay;
mod survey;
mod tape;
mod target;
mod told;
mod whose;

use std::path::PathBuf;

use reelfs_journal::{FileId, FileTime, Name, NodeKind, Seq, Timestamp};
use reelfs_volume::Volume;

pub use builder::{Builder, Built, Restraint};
pub(crate) use choose::broken_tapes;
pub use deck::{Deck, EpochTapes, Visit, Watch, Who};
pub use live::{JOURNAL, Live};
pub use plan::{Needed, Part, Plan};
pub use probe::{Needs, probe};
pub use reel::{Reel, Step, Winding};
pub(crate) use replay::misfit;
pub use replay::{Player, Stage, replay};
pub use survey::{Selection, Survey};
pub use tape::Tape;
pub(crate) use tape::tape_error;
pub use target::{Destination, Standing, check};
pub use told::Told;

use self::part::{Surveyed, choose_parts};
use crate::error::{Error, Result};

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
    /// The target directory. When the group has several volumes, each gets a directory of its name in it.
    pub to: PathBuf,
    /// Directories of tapes, only to see that the target does not lie in one of them.
    pub tapes: Vec<PathBuf>,
    /// Paths relative to the root, after the volume's name when there are several; none means everything.
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

/// Does it: verify, survey, probe, write, sync; then the incomplete mark goes. All volumes are verified, surveyed and probed
/// before anything is written for one of them.
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
    /// Where it is; to be finished.
    pub destination: Destination,
    /// The volume that it is; none when each volume has a directory in it.
    pub tree: Option<MadeTree>,
    /// Modification time that the root gets at the end, when it is a volume's.
    pub root_mtime: Option<FileTime>,
    /// What was done.
    pub summary: Summary,
}

/// A volume that was made.
pub struct MadeTree {
    /// The tree; it knows all its objects.
    pub volume: Volume,
    /// Its objects, the root among them.
    pub files: Vec<FileId>,
}

/// The same up to the incomplete mark, which stays.
///
/// # Errors
/// As [`run`].
pub fn make(deck: &Deck, plan: &Plan, request: &Request, watch: &mut dyn FnMut(Progress)) -> Result<Made> {
    let standing = check(&request.to, &request.tapes, plan.uuid)?;
    let restraint = restraint(request);
    let surveyed = survey_all(deck, plan, request, watch)?;
    let mut trees = Vec::with_capacity(surveyed.len());
    for part in &surveyed {
        trees.push(part.select(restraint).map_err(|error| plan.of_part(part.part, error))?);
    }
    let mut needs = Needs::default();
    for (part, tree) in surveyed.iter().zip(&trees) {
        needs.add(&part.survey, tree, restraint);
    }
    let made = standing == Standing::Missing && !request.to.exists();
    let whole = Destination::make(&request.to, standing, plan.uuid)?;
    // another restore may have begun and ended there meanwhile
    let standing = check(&request.to, &request.tapes, plan.uuid)?;
    if let Err(error) = probe(&whole, &needs, restraint) {
        if made {
            // it was not there before, and it is empty
            let _ = std::fs::remove_dir(&request.to);
        }
        return Err(error);
    }
    whole.begin()?;
    let mut summary = Summary {
        tapes: plan.tapes().len() as u64,
        records: plan.records(),
        owners_changed: if request.no_owner { needs.foreign_owners() } else { 0 },
        again: standing == Standing::Interrupted,
        ..Summary::default()
    };
    let work = Work { plan, request, restraint, total: needs.bytes() };
    let (mut root_mtime, mut only) = (None, None);
    for (part, tree) in surveyed.iter().zip(&trees) {
        let mtime = part.root_mtime()?;
        if plan.is_split {
            let path = request.to.join(part.part.name.as_str());
            let own = Destination::make(&path, Standing::Missing, plan.uuid)?;
            own.begin()?;
            let written = work.write(part, tree, &own, summary.bytes, watch);
            summary.bytes += written.map_err(|error| plan.of_part(part.part, error))?.1;
            own.finish(Some(mtime))?;
        } else {
            let (volume, bytes) = work.write(part, tree, &whole, summary.bytes, watch)?;
            summary.bytes += bytes;
            root_mtime = Some(mtime);
            only = Some(MadeTree { volume, files: tree.objects.iter().copied().collect() });
        }
        summary.files += tree.objects.len() as u64 - 1;
    }
    Ok(Made { destination: whole, tree: only, root_mtime, summary })
}

fn restraint(request: &Request) -> Restraint {
    let caller = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Restraint { safe: request.safe, owner: request.no_owner.then(caller) }
}

/// Verifies the tapes of all volumes that are wanted, and collects their names.
fn survey_all<'p>(
    deck: &Deck,
    plan: &'p Plan,
    request: &Request,
    watch: &mut dyn FnMut(Progress),
) -> Result<Vec<Surveyed<'p>>> {
    let chosen = choose_parts(plan, &request.paths)?;
    let (mut done, total) = (0, chosen.iter().map(|(part, _)| part.bytes()).sum());
    let mut reels = Vec::with_capacity(chosen.len());
    for (part, _) in &chosen {
        reels.push(part.load(deck, &mut |bytes| {
            watch(Progress { phase: Phase::Verify, done: done + bytes, total, reached: None });
        })?);
        done += part.bytes();
    }
    let (mut done, total) = (0, chosen.iter().map(|(part, _)| plan.target.seq.0 - part.base.began.0).sum());
    let mut surveyed = Vec::with_capacity(chosen.len());
    for ((part, paths), reel) in chosen.into_iter().zip(reels) {
        let (began, target) = (part.base.began, plan.target.seq);
        let mut reached = |step: &Step<'_>| {
            let (done, reached) = (done + step.seq.0 - began.0, Some((step.seq, step.time)));
            watch(Progress { phase: Phase::Survey, done, total, reached });
        };
        let survey = Survey::new(&reel, &part.base, target, &mut reached);
        let survey = survey.map_err(|error| plan.of_part(part, error))?;
        surveyed.push(Surveyed { part, paths, reel, survey });
        done += target.0 - began.0;
    }
    Ok(surveyed)
}

/// What all volumes have in common while they are written.
struct Work<'w> {
    plan: &'w Plan,
    request: &'w Request,
    restraint: Restraint,
    total: u64,
}

impl Work<'_> {
    /// Makes the tree of one volume and brings it to disk; gives it and the bytes written. `before` were written for others.
    fn write(
        &self,
        part: &Surveyed<'_>,
        tree: &Selection<'_>,
        destination: &Destination,
        before: u64,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(Volume, u64)> {
        let (target, total) = (&self.plan.target, self.total);
        let mut wrote = |done: u64, step: Option<&Step<'_>>| {
            let (done, reached) = (before + done, step.map(|step| (step.seq, step.time)));
            watch(Progress { phase: Phase::Write, done, total: total.max(done), reached });
        };
        let shown = destination.path().display();
        let volume = Volume::replica(destination.root()?, part.survey.names.root());
        let volume = volume.map_err(|errno| Error::io(format!("open {shown}"), errno.into()))?;
        let plain = self.restraint.is_none() && self.request.paths.is_empty();
        let built = if plain && self.request.method == Method::Replay {
            by_replay(self.plan, part, &volume, &mut wrote)?
        } else {
            let (names, selection, restraint) = (&part.survey.names, tree, self.restraint);
            let builder = Builder { volume: &volume, names, selection, restraint };
            builder.build(&part.reel, &part.survey, (part.part.base.first(), target.seq), &mut wrote)?
        };
        watch(Progress { phase: Phase::Sync, done: total, total, reached: Some((target.seq, target.time)) });
        volume.sync().map_err(|errno| Error::io(format!("bring {shown} to disk"), errno.into()))?;
        Ok((volume, built.bytes))
    }
}

/// The tree as it stood at the end of the base copy, then every record after it.
fn by_replay(
    plan: &Plan,
    part: &Surveyed<'_>,
    volume: &Volume,
    progress: &mut dyn FnMut(u64, Option<&Step<'_>>),
) -> Result<Built> {
    let (reel, base, ended) = (&part.reel, &part.part.base, part.part.base.ended);
    let survey = Survey::new(reel, base, ended, &mut |_| {})?;
    let everything = |_: &NodeKind| true;
    let selection = Selection::new(&survey.names, &[], &everything)?;
    let builder = Builder { volume, names: &survey.names, selection: &selection, restraint: Restraint::default() };
    let mut built = builder.build(reel, &survey, (base.first(), ended), progress)?;
    let scratch = Name::new(format!(".reelfs-bracket-{}", plan.uuid).as_bytes());
    let scratch = scratch.map_err(|error| Error::failed(error.to_string()))?;
    built.bytes += replay(reel, volume, &scratch, (ended.next(), plan.target.seq), progress)?;
    Ok(built)
}

#[cfg(test)]
mod tests;
