//! What can be asked of a group: done by the process that has it mounted, or right here when nobody has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reelfs_fuse::MountOptions;
use reelfs_journal::{Seq, Tags, Timestamp, VolumeName};
use reelfs_transport::control::{Answer, Connection, ControlError};
use reelfs_volume::Held;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base_copy;
use crate::consumer::{self, Ask};
use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, Destination};
use crate::group_file::LastMarker;
use crate::journal_grow;
use crate::mount_options::{self, Awake, Passthrough};
use crate::open_group::OpenGroup;
use crate::open_volume::OpenVolume;
use crate::output::Output;
use crate::overlap;
use crate::pair;
use crate::pair_state::PairVerb;
use crate::retention::{self, Pruned};
use crate::secondary::Secondary;
use crate::settings::{Changes, Settings};
use crate::size::Size;
use crate::state::GroupDir;
use crate::through_journal;

/// How long a frozen marker waits for the changes that are under way, and holds up new ones meanwhile.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

/// One request, as it travels over the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// How the mount is.
    Status,
    /// Name this moment.
    Mark {
        /// Its name.
        name: String,
        /// A line about it.
        note: String,
        /// What programs say about it.
        tags: Tags,
        /// With no change under way.
        freeze: bool,
    },
    /// A base tape of what is there now in each volume, and the changes that make them exact.
    BaseCopy {
        /// The directory that gets them.
        to: PathBuf,
        /// Only of this volume.
        #[serde(default)]
        volume: Option<VolumeName>,
    },
    /// What is there now in each volume, through the journal, and the records exported to a directory.
    BaseThrough {
        /// The directory, besides those that the group knows.
        to: Option<PathBuf>,
        /// Only of this volume.
        #[serde(default)]
        volume: Option<VolumeName>,
    },
    /// Everything that is not yet in the directory.
    Export {
        /// The directory that gets it.
        to: PathBuf,
    },
    /// Remove tapes that are no longer kept.
    Prune {
        /// From this directory; from all that the group knows if there is none.
        dir: Option<PathBuf>,
        /// Only say which.
        dry_run: bool,
    },
    /// Stop journaling; what changes is noted.
    Split {
        /// Only this volume.
        #[serde(default)]
        volume: Option<VolumeName>,
        /// At a named point that is set for it.
        #[serde(default)]
        marker: Option<String>,
    },
    /// Journal again, and tell what changed meanwhile.
    Resync {
        /// Only this volume.
        #[serde(default)]
        volume: Option<VolumeName>,
        /// All that is there, whatever changed.
        #[serde(default)]
        full: bool,
    },
    /// Change what it does by itself.
    Set {
        /// What is to be changed.
        changes: Changes,
    },
    /// The wall clock is right, whatever was believed before.
    AcceptClock,
    /// A directory becomes a volume of the group.
    AddVolume {
        /// What to call it.
        volume: VolumeName,
        /// The directory.
        pvol: PathBuf,
        /// What is to become its secondary, to be looked at before it joins.
        #[serde(default)]
        secondary: Option<Secondary>,
    },
    /// A volume leaves the group.
    RemoveVolume {
        /// Which.
        volume: VolumeName,
    },
    /// A replica or a site far away has something to say.
    Consumer(Ask),
    /// A larger journal.
    Grow {
        /// Its new size in bytes.
        size_bytes: u64,
    },
    /// Mount a further volume.
    Mount(FurtherMount),
    /// Unmount; the process ends with its last mount.
    Umount {
        /// Where; without it the first one.
        #[serde(default)]
        mountpoint: Option<PathBuf>,
    },
}

/// A mount that a process makes besides its first; whoever asks has checked the place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherMount {
    /// Of which volume.
    pub volume: VolumeName,
    /// Where.
    pub mountpoint: PathBuf,
    /// Everybody may use it.
    pub allow_other: bool,
    /// Options for the kernel.
    pub kernel: Vec<String>,
    /// Refuse instead of adopting what changed behind the mount.
    pub strict: bool,
    /// Without a control directory.
    #[serde(default)]
    pub no_control_dir: bool,
    /// When reads pass through to the files of the volume.
    #[serde(default)]
    pub passthrough: Passthrough,
    /// When processors are kept from halting.
    #[serde(default)]
    pub awake: Awake,
}

impl FurtherMount {
    /// What it is mounted with; `source` is shown as the source of the mount.
    #[must_use]
    pub fn options(&self, source: &str) -> MountOptions {
        MountOptions {
            mountpoint: self.mountpoint.clone(),
            source: source.to_owned(),
            allow_other: self.allow_other,
            kernel_options: self.kernel.clone(),
            threads: mount_options::threads(),
            control_dir: !self.no_control_dir,
            passthrough: self.passthrough.is_wanted(&self.kernel),
            awake: self.awake.is_wanted(),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Done so far: bytes of a base copy, records of an export.
    pub done: u64,
    /// Of how much.
    pub total: u64,
}

/// A marker that was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// Where it stands.
    pub seq: Seq,
    /// Its time.
    pub time: Timestamp,
}

/// What became of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedClock {
    /// It was believed before.
    pub already: bool,
    /// What it shows.
    pub time: Timestamp,
}

impl Request {
    /// What the lock and `status` call it.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Status => "reelfs status",
            Request::Mark { .. } => "reelfs mark",
            Request::BaseCopy { .. } | Request::BaseThrough { .. } => "reelfs base copy",
            Request::Export { .. } => "reelfs tape export",
            Request::Prune { .. } => "reelfs tape prune",
            Request::Split { .. } => "reelfs pair split",
            Request::Resync { .. } => "reelfs pair resync",
            Request::Set { .. } => "reelfs group set",
            Request::AcceptClock => "reelfs clock accept",
            Request::AddVolume { .. } => "reelfs pair create",
            Request::RemoveVolume { .. } => "reelfs pair delete",
            Request::Consumer(Ask::Acknowledge { .. }) => "reelfs tape ack",
            Request::Consumer(_) => "reelfs follow",
            Request::Grow { .. } => "reelfs journal grow",
            Request::Mount(_) => "reelfs mount",
            Request::Umount { .. } => "reelfs umount",
        }
    }
}

/// Asks the process that has the group mounted; `None` when there is none.
///
/// # Errors
/// What that process answers, with its exit code; 18 when it goes away in the middle.
pub fn ask<D: DeserializeOwned>(
    group: &GroupDir,
    request: &Request,
    progress: &mut dyn FnMut(Step),
) -> Result<Option<D>> {
    let Some(mut connection) = connect(group)? else {
        return Ok(None);
    };
    converse(group, &mut connection, request, progress).map(Some)
}

/// A connection to the process that has the group mounted.
///
/// # Errors
/// It is there and cannot be reached (18).
pub fn connect(group: &GroupDir) -> Result<Option<Connection>> {
    Connection::connect(group.path()).map_err(|error| unreachable(group, error))
}

/// What the mount process says of itself, if there is one.
///
/// # Errors
/// As [`ask`]; one that says nothing for 30 seconds counts as one that cannot be reached.
pub fn ask_status<D: DeserializeOwned>(group: &GroupDir) -> Result<Option<D>> {
    let Some(mut connection) = connect(group)? else {
        return Ok(None);
    };
    connection.set_timeout(Some(STATUS_MAX)).map_err(|error| unreachable(group, error))?;
    converse(group, &mut connection, &Request::Status, &mut |_| {}).map(Some)
}

/// For so long it may be at something that it does not put off.
const STATUS_MAX: Duration = Duration::from_secs(30);

/// One request on an open connection, up to its last answer.
///
/// # Errors
/// As [`ask`].
pub fn converse<D: DeserializeOwned>(
    group: &GroupDir,
    connection: &mut Connection,
    request: &Request,
    progress: &mut dyn FnMut(Step),
) -> Result<D> {
    match connection.ask(request, progress).map_err(|error| unreachable(group, error))? {
        Answer::Done(done) => Ok(done),
        Answer::Failed { code, message, hint } => {
            let error = Error::new(ErrorKind::from_code(code), message);
            Err(hint.into_iter().fold(error, Error::hint))
        }
        Answer::Progress(Step { .. }) => Err(Error::failed("progress is no last answer")),
    }
}

fn unreachable(group: &GroupDir, error: ControlError) -> Error {
    let message = format!("the mount process of group {} does not answer", group.name());
    Error::new(ErrorKind::Unreachable, message).because(error).hint(format!("its log is {}", group.log().display()))
}

/// Does it: through the mount process when there is one, else by opening the group for as long as it takes.
///
/// # Errors
/// What the operation says; 11 when another reelfs works on the group.
pub fn run<D: DeserializeOwned>(
    group: &GroupDir,
    request: &Request,
    output: &Output,
    progress: &mut dyn FnMut(Step),
) -> Result<D> {
    if let Some(done) = ask(group, request, progress)? {
        return Ok(done);
    }
    let open = OpenGroup::open(group, request.verb(), false, output)?;
    let outcome = perform(&open, &[], request, progress);
    let closed = open.close();
    let value = outcome?;
    closed?;
    serde_json::from_value(value).map_err(|error| Error::failed("read the answer").because(error))
}

/// What happens in the end, in whichever process.
///
/// # Errors
/// What the operation says; `Status` and `Umount` are the mount process's own (16 here).
pub fn perform(
    group: &OpenGroup,
    mountpoints: &[PathBuf],
    request: &Request,
    progress: &mut dyn FnMut(Step),
) -> Result<serde_json::Value> {
    let mut step = |done, total| progress(Step { done, total });
    group.journal().settle_loss();
    match request {
        Request::Mark { name, note, tags, freeze } => to_json(&mark(group, (name, note, tags), *freeze)?),
        Request::BaseCopy { to, volume } => {
            let destination = Destination::check(&group.file(), &group.devices(), mountpoints, to)?;
            let _alone = group.alone();
            pair::admit(group, volume.as_ref(), PairVerb::BaseCopy)?;
            let _copying = group.begin_copy();
            to_json(&base_copy::base_copy(group, volume.as_ref(), &destination, &mut step)?)
        }
        Request::Export { to } => {
            let destination = Destination::check(&group.file(), &group.devices(), mountpoints, to)?;
            let _alone = group.alone();
            let mut exported = export::export(group, &destination, None, &mut step)?;
            if retention::is_limited(&group.file().settings)
                && let Err(error) = prune(group, Some(&destination.dir), false)
            {
                exported.warnings.push(format!("older tapes could not be removed: {}", error.chain()));
            }
            to_json(&exported)
        }
        Request::Prune { dir, dry_run } => {
            let _alone = group.alone();
            to_json(&prune(group, dir.as_deref(), *dry_run)?)
        }
        Request::Split { volume, marker: None } => to_json(&pair::split(group, volume.as_ref())?),
        Request::Split { volume, marker: Some(marker) } => to_json(&pair::split_at(group, volume.as_ref(), marker)?),
        Request::Resync { volume, full } => {
            let _alone = group.alone();
            to_json(&pair::resync(group, (volume.as_ref(), *full), mountpoints, &mut step)?)
        }
        Request::BaseThrough { to, volume } => {
            let check = |to: &PathBuf| Destination::check(&group.file(), &group.devices(), mountpoints, to);
            let to = to.as_ref().map(check).transpose()?;
            let _alone = group.alone();
            pair::admit(group, volume.as_ref(), PairVerb::BaseCopy)?;
            let _copying = group.begin_copy();
            let (volume, to) = (volume.as_ref(), to.as_ref());
            to_json(&through_journal::base_copy(group, volume, to, mountpoints, &mut step)?)
        }
        Request::AddVolume { volume, pvol, secondary } => {
            let _alone = group.alone();
            to_json(&pair::create(group, (volume, pvol), secondary.as_ref(), mountpoints)?)
        }
        Request::RemoveVolume { volume } => {
            let _alone = group.alone();
            to_json(&pair::delete(group, volume, mountpoints)?)
        }
        Request::Status | Request::Mount(_) | Request::Umount { .. } => {
            Err(Error::new(ErrorKind::State, "the group is not mounted"))
        }
        Request::Consumer(ask) => consumer::perform(group, ask),
        Request::Grow { size_bytes } => {
            let jvol = group.journal().jvol();
            to_json(&journal_grow::grow(group.file().name.as_str(), jvol, Size(*size_bytes), &mut step)?)
        }
        Request::Set { changes } => to_json(&set(group, changes)?),
        Request::AcceptClock => to_json(&accept_clock(group)?),
    }
}

fn mark(group: &OpenGroup, (name, note, tags): (&str, &str, &Tags), freeze: bool) -> Result<Marked> {
    crate::point::check_marker_name(name)?;
    pair::admit(group, None, PairVerb::Mark)?;
    let volumes = group.volumes();
    let held = if freeze { hold(&volumes, name)? } else { Vec::new() };
    place_mark(group, (name, note, tags), held)
}

/// Sets a named point; what is held is given up as soon as it has its place.
pub(crate) fn place_mark(
    group: &OpenGroup,
    (name, note, tags): (&str, &str, &Tags),
    held: Vec<Held<'_>>,
) -> Result<Marked> {
    let set = group.journal().mark(name, note, tags, held);
    let (seq, time) = set.map_err(|error| Error::io("write the marker to the journal", error.into()))?;
    group.update(|file| file.last_marker = Some(LastMarker { name: name.to_owned(), seq, time }))?;
    Ok(Marked { seq, time })
}

fn prune(group: &OpenGroup, dir: Option<&Path>, dry_run: bool) -> Result<Pruned> {
    let file = group.file();
    if !retention::is_limited(&file.settings) {
        return Err(Error::usage(format!("group {} keeps all tapes", file.name))
            .hint(format!("say what to keep: reelfs group set {} --keep-tapes 100", file.name)));
    }
    let now = group.journal().clock_state().believed;
    let known: Vec<PathBuf> = file.targets.iter().map(|target| target.dir.clone()).collect();
    let mut all = Pruned::default();
    for known in dir.map_or(known, |dir| vec![dir.to_owned()]) {
        let dir = overlap::real(&known)?;
        let mut file = group.file();
        consumer::follow_link(&mut file, &known, &dir);
        if !dry_run {
            group.follow_link(&known, &dir)?;
        }
        let pruned = retention::prune(&file, &dir, now, dry_run)?;
        all.tapes.extend(pruned.tapes);
        all.kept.extend(pruned.kept);
        all.damaged.extend(pruned.damaged);
        (all.bytes, all.needed) = (all.bytes + pruned.bytes, all.needed + pruned.needed);
    }
    Ok(all)
}

fn set(group: &OpenGroup, changes: &Changes) -> Result<Settings> {
    group.update(|file| {
        file.settings = changes.applied(file.settings);
        file.on_full = changes.on_full.unwrap_or(file.on_full);
    })?;
    let file = group.file();
    group.journal().set_warning(file.settings.warn.0);
    group.journal().set_on_full(file.on_full);
    Ok(file.settings)
}

fn accept_clock(group: &OpenGroup) -> Result<AcceptedClock> {
    let journal = group.journal();
    let is_news = journal.accept_clock().map_err(|error| Error::io("note the clock", error))?;
    Ok(AcceptedClock { already: !is_news, time: journal.clock_state().shown })
}

/// No change is under way in any volume.
pub(crate) fn hold<'v>(volumes: &'v [OpenVolume], name: &str) -> Result<Vec<Held<'v>>> {
    let held: Option<Vec<_>> = volumes.iter().map(|volume| volume.primary.hold_changes(FREEZE_PATIENCE)).collect();
    held.ok_or_else(|| {
        let waited = FREEZE_PATIENCE.as_secs();
        let message = format!("changes under way did not end within {waited} s: marker {name} was not placed");
        Error::new(ErrorKind::TimedOut, message)
            .hint("is the disk of the PVOL stuck or very busy? try again, or without --freeze")
    })
}

fn to_json<T: Serialize>(value: &T) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Error::failed("write the answer").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_travel_in_order_and_are_checked_on_arrival() {
        let line = r#"{"verb":"mark","name":"m","note":"","tags":[["z","1"],["a","2"]],"freeze":true}"#;
        let request: Request = serde_json::from_str(line).expect("a request");
        assert_eq!(serde_json::to_string(&request).expect("a line"), line);
        assert!(serde_json::from_str::<Request>(&line.replace("\"a\"", "\"z\"")).is_err());
    }
}
