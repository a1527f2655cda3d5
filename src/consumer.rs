//! Consumers of a journal: replicas that follow it and sites that acknowledge its tapes, each with its four pointers.

use std::path::{Path, PathBuf};

use reelfs_journal::{Digest, Epoch, Jvol, Place, Position, Seq, Timestamp, VolumeIndex};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::export;
use crate::group_file::GroupFile;
use crate::open_group::OpenGroup;

/// How a consumer gets the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A replica on this machine that reads the journal volume.
    Journal,
    /// A site that gets the tapes of a directory.
    Tapes,
}

impl Way {
    /// One word: what the consumer is to people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Way::Journal => "replica",
            Way::Tapes => "site",
        }
    }
}

/// The four pointers, as `journal show` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointers {
    /// The last record that is on its way to it.
    pub read_scheduled: Seq,
    /// The last record that it has.
    pub already_read: Seq,
    /// The last record that is being applied.
    pub restore_scheduled: Seq,
    /// The last record that is applied, for good.
    pub already_restored: Seq,
}

impl Pointers {
    /// All of them at one record.
    #[must_use]
    pub fn at(seq: Seq) -> Pointers {
        Pointers { read_scheduled: seq, already_read: seq, restore_scheduled: seq, already_restored: seq }
    }
}

/// Somebody whose progress the group knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// The replica's own identity, or that of the site's entry here.
    pub id: Uuid,
    /// How it gets the journal.
    pub way: Way,
    /// The replica, or the directory of tapes.
    pub dir: PathBuf,
    /// The volume that a replica is of; tapes are of all.
    #[serde(default)]
    pub volume: Option<VolumeIndex>,
    /// The history that it stands in.
    pub epoch: Epoch,
    /// How far it is.
    pub pointers: Pointers,
    /// Chained digest at the last applied record.
    pub digest: Digest,
    /// Records that it has not applied stay in the journal.
    pub holds: bool,
    /// It stands inside a bracket ("resync"), not in a state that the primary had.
    #[serde(default)]
    pub inside: Option<String>,
    /// When it was heard of last.
    pub heard: Timestamp,
}

impl Consumer {
    /// The last applied record, as a position.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.pointers.already_restored, digest: self.digest }
    }
}

/// What a consumer asks the group's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// Know me from now on, and keep what I lack.
    Enlist {
        /// Who and where.
        consumer: Consumer,
    },
    /// What may be read after a record.
    Window {
        /// The last one that is there already.
        after: Seq,
    },
    /// How far I am.
    Report {
        /// Who and where.
        consumer: Consumer,
    },
    /// Forget whoever is at this directory.
    Dismiss {
        /// The replica or the directory of tapes.
        dir: PathBuf,
    },
    /// Forget a directory of tapes, and the site that acknowledged them.
    DropTapes {
        /// The directory.
        dir: PathBuf,
    },
    /// A site has applied the tapes of a directory up to a record.
    Acknowledge {
        /// The directory.
        dir: PathBuf,
        /// The record.
        upto: Seq,
        /// From now on records stay until they are acknowledged, or no longer.
        required: Option<bool>,
    },
}

/// Settled, durable records that may be read from the journal volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readable {
    /// The history that is being written.
    pub epoch: Epoch,
    /// The journal volume.
    pub journal: PathBuf,
    /// The group.
    pub group: Uuid,
    /// First record, and its position; one after `last` when nothing is new.
    pub first: (Seq, u64),
    /// Last record.
    pub last: Seq,
    /// The position after it.
    pub end: u64,
    /// Until when it speaks.
    pub time: Timestamp,
    /// What time the group believes it to be; nobody says while it is not mounted.
    #[serde(default)]
    pub now: Option<Timestamp>,
}

impl Readable {
    /// The records after `after` up to `last` of a journal.
    ///
    /// # Errors
    /// 15 when they were freed.
    pub fn of(jvol: &Jvol, file: &GroupFile, after: Seq, last: Seq, time: Timestamp) -> Result<Readable> {
        check_held(jvol, file, after)?;
        let (from, to) = (jvol.place(after.next())?, jvol.place(last.max(after).next())?);
        Ok(Readable {
            epoch: file.epoch,
            journal: jvol.path(),
            group: file.uuid,
            first: (from.seq, from.position),
            last: to.seq.previous(),
            end: to.position,
            time,
            now: None,
        })
    }

    /// Nothing is new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.0 > self.last
    }

    /// The records, to be read.
    ///
    /// # Errors
    /// The journal volume cannot be opened.
    pub fn open(&self) -> Result<Jvol> {
        let (from, next) =
            (Place { seq: self.first.0, position: self.first.1 }, Place { seq: self.last.next(), position: self.end });
        Ok(Jvol::window(&self.journal, self.group, from, next)?)
    }
}

fn check_held(jvol: &Jvol, file: &GroupFile, after: Seq) -> Result<()> {
    let pointers = jvol.pointers();
    if after.next() < pointers.out {
        let message = format!(
            "records {} to {} were freed from the journal of {}",
            after.next(),
            pointers.out.previous(),
            file.name
        );
        return Err(Error::new(ErrorKind::TapeNeeded, message).hint(
            "follow into a new directory, or follow the tapes that hold them: reelfs follow --tapes DIR --to DIR",
        ));
    }
    if after >= pointers.next {
        return Err(diverged(file, after));
    }
    Ok(())
}

fn diverged(file: &GroupFile, at: Seq) -> Error {
    let message = format!("the replica has diverged from group {} at record {at}", file.name);
    Error::new(ErrorKind::Foreign, message).hint("it stays as it is; follow into a new directory")
}

/// Does it on an open group.
///
/// # Errors
/// 21 when the consumer stands in another history, 15 when what it lacks is gone, 10 when nobody is at a directory.
pub fn perform(group: &OpenGroup, ask: &Ask) -> Result<serde_json::Value> {
    // an export goes by the positions that are known when it begins; a replica must not wait for a base copy to end
    let waits = !matches!(ask, Ask::Window { .. } | Ask::Report { .. });
    let _alone = waits.then(|| group.alone());
    match ask {
        Ask::Enlist { consumer } => {
            if let Some(index) = consumer.volume
                && !group.file().volumes.iter().any(|entry| entry.index == index)
            {
                let message = format!("the volume that {} is a replica of has left the group", consumer.dir.display());
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            check(group, &consumer.position())?;
            group.update(|file| set(file, consumer.clone()))?;
        }
        Ask::Window { after } => {
            let seal = group.journal().seal().map_err(|error| Error::io("seal the journal", error.into()))?;
            let readable = Readable::of(group.journal().jvol(), &group.file(), *after, seal.last, seal.time)?;
            let readable = Readable { now: Some(group.journal().believed_now()), ..readable };
            return serde_json::to_value(readable).map_err(|error| Error::failed("write the answer").because(error));
        }
        Ask::Report { consumer } => {
            let before = report(&mut group.file(), consumer)?;
            group.update(|file| {
                // checked a moment ago
                let _ = report(file, consumer);
            })?;
            if let Some(_alone) = group.try_alone()
                && consumer.holds
                && consumer.pointers.already_restored > before
            {
                export::free(group)?;
            }
        }
        Ask::Dismiss { dir } => dismiss(group, dir)?,
        Ask::DropTapes { dir } => {
            group.update(|file| {
                file.targets.retain(|target| target.dir != *dir);
                file.consumers.retain(|known| known.way != Way::Tapes || known.dir != *dir);
            })?;
            export::free(group)?;
        }
        Ask::Acknowledge { dir, upto, required } => {
            let consumer = acknowledge(group, dir, *upto, *required)?;
            return serde_json::to_value(consumer).map_err(|error| Error::failed("write the answer").because(error));
        }
    }
    Ok(serde_json::Value::Null)
}

/// The consumer stands in the history that the journal tells.
fn check(group: &OpenGroup, at: &Position) -> Result<()> {
    let file = group.file();
    check_held(group.journal().jvol(), &file, at.seq)?;
    let here = export::position_before(group, at.seq.next())?;
    if here.digest == at.digest { Ok(()) } else { Err(diverged(&file, at.seq)) }
}

/// Remembers a consumer, in place of what was known of it.
fn set(file: &mut GroupFile, consumer: Consumer) {
    file.consumers.retain(|known| known.dir != consumer.dir && known.id != consumer.id);
    file.consumers.push(consumer);
}

/// Moves the pointers of a consumer forward; gives what it had applied before.
///
/// # Errors
/// 10 when it is not known (any more).
pub fn report(file: &mut GroupFile, consumer: &Consumer) -> Result<Seq> {
    let name = file.name.clone();
    let known = file.consumers.iter_mut().find(|known| known.id == consumer.id);
    let known = known.ok_or_else(|| {
        let message = format!("group {name} does not know the replica {} any more", consumer.dir.display());
        Error::new(ErrorKind::NotFound, message).hint("it was forgotten; run follow again to enlist it anew")
    })?;
    let before = known.pointers.already_restored;
    if consumer.pointers.already_restored >= before {
        *known = consumer.clone();
    }
    Ok(before)
}

/// Forgets whoever is at a directory: the journal keeps nothing for it any more.
///
/// # Errors
/// 10 when nobody is there.
pub fn dismiss(group: &OpenGroup, dir: &Path) -> Result<()> {
    let file = group.file();
    if !file.consumers.iter().any(|known| known.dir == dir) {
        let known: Vec<String> = file.consumers.iter().map(|known| known.dir.display().to_string()).collect();
        let hint =
            if known.is_empty() { "nobody follows it".to_owned() } else { format!("known: {}", known.join(", ")) };
        let message = format!("group {} knows nothing of {}", file.name, dir.display());
        return Err(Error::new(ErrorKind::NotFound, message).hint(hint));
    }
    group.update(|file| file.consumers.retain(|known| known.dir != dir))?;
    export::free(group)
}

/// A directory of tapes that was known by one path, and the site that acknowledges them, are called by another one from now on.
pub(crate) fn follow_link(file: &mut GroupFile, known: &Path, dir: &Path) {
    if known != dir && file.target(dir).is_some() {
        file.targets.retain(|target| target.dir != known);
    }
    file.targets.iter_mut().filter(|target| target.dir == known).for_each(|target| target.dir = dir.to_owned());
    let sites = file.consumers.iter_mut().filter(|site| site.way == Way::Tapes && site.dir == known);
    sites.for_each(|site| site.dir = dir.to_owned());
}

/// Forgets the replicas of a volume that has left the group.
///
/// # Errors
/// When the state directory cannot be written, or as freeing says.
pub fn dismiss_volume(group: &OpenGroup, index: VolumeIndex) -> Result<()> {
    let is_of_it = |known: &Consumer| known.volume == Some(index);
    if !group.file().consumers.iter().any(is_of_it) {
        return Ok(());
    }
    group.update(|file| file.consumers.retain(|known| !is_of_it(known)))?;
    export::free(group)
}

/// A site says what it has applied: never back, never beyond what is on the tapes.
fn acknowledge(group: &OpenGroup, dir: &Path, upto: Seq, required: Option<bool>) -> Result<Consumer> {
    let file = group.file();
    let target = file.target(dir).ok_or_else(|| {
        let message = format!("group {} has no directory of tapes {}", file.name, dir.display());
        Error::new(ErrorKind::NotFound, message).hint(format!("reelfs status {} shows them", file.name))
    })?;
    if upto > target.seq {
        let message = format!("record {upto} is on no tape in {}: they end at {}", dir.display(), target.seq);
        return Err(Error::new(ErrorKind::OutsideWindow, message).hint("nothing can be applied that was not exported"));
    }
    let known = file.consumers.iter().find(|known| known.dir == dir);
    let restored = known.map_or(upto, |known| known.pointers.already_restored.max(upto));
    let jvol = group.journal().jvol();
    let digest = match known.filter(|known| known.pointers.already_restored == restored) {
        Some(known) => known.digest,
        // of what was freed nobody asks for the digest again
        None if restored.next() < jvol.pointers().out => jvol.out_digest(),
        None => export::position_before(group, restored.next())?.digest,
    };
    let consumer = Consumer {
        id: known.map_or_else(new_id, |known| known.id),
        way: Way::Tapes,
        dir: dir.to_owned(),
        volume: None,
        epoch: target.epoch,
        pointers: Pointers { read_scheduled: target.seq, already_read: target.seq, ..Pointers::at(restored) },
        digest,
        holds: required.unwrap_or_else(|| known.is_some_and(|known| known.holds)),
        inside: None,
        heard: group.journal().clock().read().wall,
    };
    group.update(|file| set(file, consumer.clone()))?;
    export::free(group)?;
    Ok(consumer)
}

/// Waits a while for replicas to apply what the journal keeps for them; says whether that made room.
#[must_use]
pub fn make_room(group: &OpenGroup) -> bool {
    let before = group.journal().jvol().pointers().out;
    let follows = |consumer: &Consumer| consumer.holds && consumer.way == Way::Journal;
    for _ in 0..ROOM_LOOKS {
        if !group.file().consumers.iter().any(follows) {
            return false;
        }
        if let Err(error) = export::free(group) {
            tracing::warn!(error = error.chain(), "no room could be made");
            return false;
        }
        if group.journal().jvol().pointers().out > before {
            return true;
        }
        pause();
    }
    false
}

/// How often it is looked whether a replica has made room: for half a minute.
const ROOM_LOOKS: u32 = 150;

#[expect(
    clippy::disallowed_methods,
    reason = "the replica's process says how far it is, and nobody waits for it but us"
)]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(200));
}

#[expect(clippy::disallowed_methods, reason = "an identity is random")]
pub(crate) fn new_id() -> Uuid {
    Uuid::new_v4()
}

/// The least position that the journal must keep the records after; `None` when nobody needs any to be kept.
#[must_use]
pub fn least_needed(file: &GroupFile) -> Option<Position> {
    let targets = file.targets.iter().map(crate::group_file::Target::position);
    let consumers = file.consumers.iter().filter(|consumer| consumer.holds).map(Consumer::position);
    targets.chain(consumers).min_by_key(|position| position.seq)
}
