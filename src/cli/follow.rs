//! `reelfs follow`: a replica that goes on with every change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use reelfs_journal::{GroupName, Timestamp, VolumeName};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::Context;
use crate::consumer::Pointers;
use crate::error::{Error, ErrorKind, Result};
use crate::follow::journal::{JournalSource, forget};
use crate::follow::replica::{Beside, ReplicaFile};
use crate::follow::tapes::TapeSource;
use crate::follow::{self, Followed, Options, Reached, Source, consumer, first};
use crate::output::count;
use crate::overlap;
use crate::progress::Progress;
use crate::restore;
use crate::scope::Scope;
use crate::state::GroupDir;
use crate::when::rfc3339;

const EXAMPLES: &str = "\
Examples:
  reelfs follow docs --to /srv/replica                 a group on this machine, mounted or not
  reelfs follow shop/web --to /srv/web                 one volume of a group that has several
  reelfs follow --tapes /media/disk --to /srv/replica  tapes, as they come in
  reelfs follow --tapes DIR --to DIR2 --once           everything that is there, and end
  reelfs follow docs --to /srv/replica --delay 1h      an hour behind, against mistakes
  reelfs follow --to /srv/replica --status             how far it is
  reelfs follow docs --to /srv/replica --forget        the journal keeps nothing for it any more

The first run makes the replica, in a directory that is empty or not there yet. What it knows of itself
is beside it, in NAME.replica. It may be stopped and killed at any moment; the same command goes on.
Nobody else may change it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FollowArgs {
    /// The group, or one volume of a group of several (GROUP/VOLUME); with --tapes only to choose
    #[arg(required_unless_present_any = ["tapes", "status"])]
    pub group: Option<Scope>,
    /// A directory of tapes; may be given more than once
    #[arg(long, value_name = "DIR")]
    pub tapes: Vec<PathBuf>,
    /// The replica
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// End when there is nothing new
    #[arg(long)]
    pub once: bool,
    /// Apply nothing that is younger than this; the first copy of a group on this machine is of the moment when it is made
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    pub delay: Option<Duration>,
    /// Say how far the replica is, and do nothing
    #[arg(long, conflicts_with_all = ["once", "delay", "forget", "tapes"])]
    pub status: bool,
    /// The group lets go of the replica; its directory stays
    #[arg(long, conflicts_with_all = ["once", "delay", "tapes"])]
    pub forget: bool,
}

pub(crate) fn run(arguments: &FollowArgs, context: &Context) -> Result<()> {
    let beside = Beside::of(&arguments.to)?;
    if arguments.status {
        return status(&beside, context);
    }
    let group = match (&arguments.group, arguments.tapes.is_empty()) {
        (Some(scope), true) => Some(context.state.existing(&scope.group)?),
        _ => None,
    };
    if arguments.forget {
        let group = group.ok_or_else(|| Error::usage("--forget needs the group"))?;
        forget_all(&group, &beside, context)?;
        let shown = beside.tree().display();
        return context.output.confirm(format!("{} keeps nothing for {shown} any more", group.name()));
    }
    let kept = keep(arguments, beside, group.as_ref(), context)?;
    tell_summary((&kept.group, &kept.volume), &kept.beside, &kept.followed, context)
}

/// The group lets go of a replica, and of what a first copy came through that was not finished.
fn forget_all(group: &GroupDir, beside: &Beside, context: &Context) -> Result<()> {
    let was_copied = first::is_copied(beside, group)?;
    if was_copied {
        // nobody takes it from a copy that runs; but the disk of the replica may be why it does not
        let locked = if beside.dir().is_dir() { Beside::of(beside.tree())?.lock().map(Some) } else { Ok(None) };
        if let Err(error) = locked.as_ref()
            && error.kind() == ErrorKind::Busy
        {
            return locked.map(|_| ());
        }
        first::forget_base(beside, group, &context.output)?;
        if let Err(error) = first::drop_base(beside, group, &context.output) {
            context.output.warn(error.to_string());
        }
    }
    match forget(group, beside.tree(), &context.output) {
        Err(error) if was_copied && error.kind() == ErrorKind::NotFound => Ok(()),
        forgotten => forgotten,
    }
}

/// Makes the replica of a volume, brings it up to date once, and says nothing but how far it is.
pub(super) fn make_replica(pair: &Scope, to: &Path, context: &Context) -> Result<()> {
    let arguments = FollowArgs {
        group: Some(pair.clone()),
        tapes: Vec::new(),
        to: to.to_owned(),
        once: true,
        delay: None,
        status: false,
        forget: false,
    };
    let group = context.state.existing(&pair.group)?;
    keep(&arguments, Beside::of(to)?, Some(&group), context).map(|_| ())
}

/// A replica that was followed into.
struct Kept {
    group: GroupName,
    volume: VolumeName,
    beside: Beside,
    followed: Followed,
}

fn keep(arguments: &FollowArgs, beside: Beside, group: Option<&GroupDir>, context: &Context) -> Result<Kept> {
    check_places(arguments, &beside, group)?;
    if let (Some(group), None) = (group, beside.load()?) {
        // before anything is made there
        let named = arguments.group.as_ref().and_then(|scope| scope.volume.as_ref());
        crate::group_file::GroupFile::load(group)?.volume(named)?;
    }
    let stop = stop_on_signals()?;
    let beside = beside.lock()?;
    let replica = match beside.load()? {
        Some(replica) if !first::is_unfinished(&beside, &replica) => {
            check_volume(arguments, &beside, &replica)?;
            replica
        }
        _ => make(arguments, &beside, group, context)?,
    };
    let mut source: Box<dyn Source> = match group {
        Some(group) => Box::new(enlisted(&beside, &replica, group, context)?),
        None => Box::new(TapeSource::new(arguments.tapes.clone(), &replica, arguments.once, &context.output)),
    };
    let options = Options { once: arguments.once, delay: arguments.delay, stop, clock: &*context.clock };
    let (group, volume) = (replica.group.clone(), replica.volume_name.clone());
    let mut teller = Teller::new(context);
    let followed = follow::run(&beside, replica, &mut *source, &options, &mut |reached| teller.tell(reached))?;
    drop(teller);
    Ok(Kept { group, volume, beside, followed })
}

/// The replica lies apart from what it is a replica of.
fn check_places(arguments: &FollowArgs, beside: &Beside, group: Option<&GroupDir>) -> Result<()> {
    let apart = |what: &str, other: &std::path::Path| -> Result<()> {
        overlap::refuse_inside(what, other, "the replica", beside.tree())?;
        overlap::refuse_inside("the replica", beside.tree(), what, other)
    };
    for tapes in &arguments.tapes {
        if !tapes.exists() {
            let message = format!("there is no directory of tapes {}", tapes.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        apart("the directory of tapes", tapes)?;
    }
    let Some(group) = group else { return Ok(()) };
    let status = crate::status::GroupStatus::of(group)?;
    for entry in &status.file.volumes {
        apart("the PVOL", &entry.pvol)?;
    }
    for mount in status.live.iter().flat_map(|live| &live.mounts) {
        apart("the mount", &mount.mountpoint)?;
    }
    Ok(())
}

/// A replica that is there goes on with the volume that it is of.
fn check_volume(arguments: &FollowArgs, beside: &Beside, replica: &ReplicaFile) -> Result<()> {
    match arguments.group.as_ref().and_then(|scope| scope.volume.as_ref()) {
        Some(wanted) if *wanted != replica.volume_name => {
            let (shown, group, known) = (beside.tree().display(), &replica.group, &replica.volume_name);
            Err(Error::new(ErrorKind::Foreign, format!("{shown} is a replica of volume {known} of {group}"))
                .hint("follow another volume into another directory"))
        }
        _ => Ok(()),
    }
}

fn make(arguments: &FollowArgs, beside: &Beside, group: Option<&GroupDir>, context: &Context) -> Result<ReplicaFile> {
    let output = &context.output;
    let mut shown: Option<(restore::Phase, Progress)> = None;
    let mut watch = |progress: restore::Progress| {
        if shown.as_ref().is_none_or(|(phase, _)| *phase != progress.phase) {
            shown = None;
            shown = Some((progress.phase, Progress::new(output, progress.phase.word())));
        }
        if let Some((_, bar)) = &mut shown {
            bar.set(progress.done, progress.total, "");
        }
    };
    match group {
        Some(group) => {
            let file = crate::group_file::GroupFile::load(group)?;
            let named = arguments.group.as_ref().and_then(|scope| scope.volume.as_ref());
            let volume = &file.volume(named)?.name;
            restore::check(beside.tree(), &[], file.uuid)?;
            first::from_group(beside, (group, volume), context.now(), output, &mut watch)
        }
        None => {
            let when = (context.now(), arguments.delay);
            first::from_tapes(beside, &arguments.tapes, arguments.group.as_ref(), when, output, &mut watch)
        }
    }
}

/// The group knows the replica, and its first tapes are needed no more.
fn enlisted(beside: &Beside, replica: &ReplicaFile, group: &GroupDir, context: &Context) -> Result<JournalSource> {
    let file = crate::group_file::GroupFile::load(group)?;
    if file.uuid != replica.uuid {
        let message = format!("{} is a replica of another group ({})", beside.tree().display(), replica.group);
        return Err(Error::new(ErrorKind::Foreign, message).hint("follow into another directory"));
    }
    let mut source = JournalSource::new(group.clone(), replica.volume, &context.output);
    source.enlist(&consumer(beside, replica, Pointers::at(replica.at.seq), context.now()))?;
    first::drop_base(beside, group, &context.output)?;
    Ok(source)
}

fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // the second one ends it as if killed, and the next run goes on
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| Error::io("watch signals", error))?;
    }
    Ok(stop)
}

#[derive(Serialize)]
struct ReachedJson {
    seq: u64,
    time: String,
    of_seq: u64,
    lag_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<&'static str>,
}

fn json(reached: &Reached, now: Timestamp) -> ReachedJson {
    let behind = now.0.saturating_sub(reached.time.0).max(0) as f64 / Timestamp::SECOND as f64;
    ReachedJson {
        seq: reached.seq.0,
        time: rfc3339(reached.time),
        of_seq: reached.of.0,
        lag_seconds: if reached.seq < reached.of { behind } else { 0.0 },
        inside: reached.inside,
    }
}

/// Says how far the replica is: a bar on a terminal, JSON lines, and a sentence when it enters or leaves a bracket.
struct Teller<'c> {
    context: &'c Context,
    bar: Option<Progress>,
    inside: Option<&'static str>,
}

impl<'c> Teller<'c> {
    fn new(context: &'c Context) -> Teller<'c> {
        Teller { context, bar: None, inside: None }
    }

    fn tell(&mut self, reached: Reached) {
        let output = &self.context.output;
        if reached.seq == reached.of && reached.is_done {
            self.bar = None; // it has everything
        } else {
            let bar = self.bar.get_or_insert_with(|| Progress::records(output, "follow"));
            bar.set(reached.seq.0, reached.of.0, &output.zone.text_seconds(reached.time));
        }
        if !reached.is_done {
            return;
        }
        // a reader who has gone is noticed at the result
        let _ = output.event("reached", &json(&reached, self.context.now()));
        if self.inside != reached.inside {
            match reached.inside {
                Some(what) => {
                    output.note(format!("inside a {what} since seq {}: not a state the primary had", reached.seq))
                }
                None => output.note(format!("at seq {} again a state the primary had", reached.seq)),
            }
            self.inside = reached.inside;
        }
    }
}

#[derive(Serialize)]
struct SummaryJson<'a> {
    group: &'a GroupName,
    volume: &'a VolumeName,
    to: String,
    #[serde(flatten)]
    reached: ReachedJson,
    records: u64,
}

fn tell_summary(
    (group, volume): (&GroupName, &VolumeName),
    beside: &Beside,
    followed: &Followed,
    context: &Context,
) -> Result<()> {
    let (output, reached) = (&context.output, &followed.reached);
    let at = output.zone.text(reached.time);
    let shown = beside.tree().display();
    output.confirm(format!("{shown} is at {at} seq {}: {}", reached.seq, count(followed.records, "record")))?;
    if let Some(what) = reached.inside {
        output.warn(format!("{shown} is inside a {what}, not a state the primary had"));
    }
    let reached = json(reached, context.now());
    output.event("summary", &SummaryJson { group, volume, to: shown.to_string(), reached, records: followed.records })
}

#[derive(Serialize)]
struct StatusJson {
    group: GroupName,
    volume: VolumeName,
    uuid: String,
    to: String,
    epoch: u32,
    seq: u64,
    time: String,
    applying: Option<u64>,
    inside: Option<&'static str>,
    objects_bytes: u64,
}

fn status(beside: &Beside, context: &Context) -> Result<()> {
    let shown = beside.tree().display();
    let replica = beside.load()?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{shown} is no replica that was followed into"))
            .hint(format!("reelfs follow GROUP --to {shown} makes it one"))
    })?;
    let output = &context.output;
    let scope = Scope { group: replica.group.clone(), volume: Some(replica.volume_name.clone()) };
    output.say(format!("replica       {shown} of {scope} (epoch {})", replica.at.epoch))?;
    output.say(format!("applied       seq {} at {}", replica.at.seq, output.zone.text(replica.time)))?;
    match (replica.applying, replica.stands.inside()) {
        (Some(to), _) => {
            output.say(format!("stands        among records up to seq {to}: not a state the primary had"))?
        }
        (None, Some(what)) => output.say(format!("stands        inside a {what}, not a state the primary had"))?,
        (None, None) => output.say("stands        in a state that the primary had")?,
    }
    output.document(&StatusJson {
        group: replica.group.clone(),
        volume: replica.volume_name.clone(),
        uuid: replica.uuid.to_string(),
        to: shown.to_string(),
        epoch: replica.at.epoch.0,
        seq: replica.at.seq.0,
        time: rfc3339(replica.time),
        applying: replica.applying.map(|seq| seq.0),
        inside: replica.stands.inside(),
        objects_bytes: replica.objects.bytes,
    })
}
