//! A replica that is open: batches go in, checkpoints come out.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use reelfs_journal::{Amended, Change, FileId, HybridClock, Name, Position, Seq, Timestamp};
use reelfs_volume::{Places, Recalled, Stat, Volume};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::first::own_ids;
use super::journal::before;
use super::objects::{Entry, Objects};
use super::replica::{Beside, ReplicaFile};
use super::stretch::{Cut, Outline, Stretch};
use super::{Options, Reached, Source, consumer};
use crate::consumer::Pointers;
use crate::error::{Error, ErrorKind, Result};
use crate::restore::{Player, Stage, misfit};

/// An open replica, before its session begins.
pub(super) struct Opened {
    volume: Volume,
    scratch: Name,
    recalled: Recalled,
    redo: Option<Redo>,
}

/// A batch that was begun and not ended.
struct Redo {
    stretch: Stretch,
    outline: Outline,
    cut: Cut,
    places: Places,
    touched: Touched,
}

/// Objects of which records speak.
#[derive(Default)]
struct Touched {
    files: HashSet<FileId>,
    /// Objects may have come to an end of which no record speaks.
    bracket: bool,
}

impl Touched {
    fn take(&mut self, change: &Change<'_>) {
        self.files.insert(change.file());
        match change {
            Change::Create { parent, .. } | Change::Link { parent, .. } | Change::Unlink { parent, .. } => {
                self.files.insert(*parent);
            }
            Change::Rename { parent, new_parent, replaced, .. } => self.files.extend([*parent, *new_parent, *replaced]),
            Change::Marker { kind, .. } => self.bracket |= kind.begins_bracket() || kind.ends_bracket(),
            _ => {}
        }
    }
}

/// Opens a replica: its objects are found again, and nothing else must be there.
pub(super) fn open(beside: &Beside, replica: &ReplicaFile, source: &mut dyn Source) -> Result<(Opened, Objects)> {
    let volume = Volume::replica(open_root(beside, replica)?, replica.root);
    let volume = volume.map_err(|errno| own_ids(beside, errno))?;
    let objects = Objects::open(beside.dir(), replica.objects)?;
    objects.clean();
    let redo = replica.applying.map(|to| Redo::read(replica, source, to)).transpose()?;
    let scratch = replica.scratch()?;
    let mut look = Look { replica, objects: &objects, redo: redo.as_ref(), edited: None };
    let recalled = volume.recall(&scratch, &mut |found| look.which(found));
    let recalled = recalled.map_err(|errno| own_ids(beside, errno))?;
    look.judge(beside, &recalled)?;
    Ok((Opened { volume, scratch, recalled, redo }, objects))
}

fn open_root(beside: &Beside, replica: &ReplicaFile) -> Result<OwnedFd> {
    let shown = beside.tree().display();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(beside.tree(), flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => {
            Error::new(ErrorKind::NotFound, format!("the replica {shown} is gone")).hint("is its disk mounted?")
        }
        errno => Error::io(format!("open the replica {shown}"), errno.into()),
    })?;
    let own = Stat::identified(&root, b"").map_err(|errno| own_ids(beside, errno))?.id;
    if own != replica.own_root {
        let message = format!("another directory stands where the replica {shown} was");
        return Err(Error::new(ErrorKind::WouldOverwrite, message)
            .hint(format!("is its disk mounted? {} is of the one that was there", beside.dir().display())));
    }
    Ok(root)
}

impl Redo {
    fn read(replica: &ReplicaFile, source: &mut dyn Source, to: Seq) -> Result<Redo> {
        let gone = || {
            let message = format!("records {} to {to} were being applied, and are not at hand", replica.at.seq.next());
            Error::new(ErrorKind::TapeNeeded, message)
                .hint("the replica is no state that the primary had until they are there again")
        };
        let stretch = source.next(&replica.at)?.filter(|stretch| stretch.last >= to).ok_or_else(gone)?;
        let outline = stretch.outline(replica.at, replica.stands, (to, Timestamp(i64::MAX)), &Amended::default())?;
        let cut = outline.cuts.last().copied().filter(|cut| cut.position.seq == to).ok_or_else(gone)?;
        let (mut places, mut touched) = (Places::default(), Touched::default());
        stretch.records((replica.at.seq.next(), to), &outline.amends, &mut |_, change| {
            places.take(&change);
            touched.take(&change);
            Ok(())
        })?;
        touched.bracket |= replica.stands.inside().is_some();
        Ok(Redo { stretch, outline, cut, places, touched })
    }
}

/// Looking at what is there: who is who, and what somebody else has done.
struct Look<'l> {
    replica: &'l ReplicaFile,
    objects: &'l Objects,
    redo: Option<&'l Redo>,
    edited: Option<PathBuf>,
}

impl Look<'_> {
    fn which(&mut self, found: &reelfs_volume::Found<'_>) -> Option<FileId> {
        let is_root = found.path.as_os_str().is_empty();
        let file = if is_root { Some(self.replica.root) } else { self.objects.of_own(found.stat.id) };
        let ours = self
            .redo
            .is_some_and(|redo| redo.touched.bracket || file.is_some_and(|file| redo.touched.files.contains(&file)));
        // a batch that was begun has taken the stamp from the root
        let is_later = self.replica.stamp.is_some_and(|stamp| found.stat.ctime > stamp);
        if file.is_some() && is_later && !ours && !(is_root && self.redo.is_some()) && self.edited.is_none() {
            self.edited = Some(found.path.to_owned());
        }
        file
    }

    /// Somebody else's hand in the replica is told, and nothing is done about it.
    fn judge(&self, beside: &Beside, recalled: &Recalled) -> Result<()> {
        let edited = |what: String| {
            Error::new(
                ErrorKind::WouldOverwrite,
                format!("the replica {} was changed by somebody: {what}", beside.tree().display()),
            )
            .hint("move what you need out of it, remove it, and follow into a new directory")
        };
        let made_by_us = |path: &std::path::Path| {
            let name = path.file_name().map(std::os::unix::ffi::OsStrExt::as_bytes).map(Name::new);
            self.redo.is_some_and(|redo| {
                name.and_then(std::result::Result::ok).is_some_and(|name| redo.places.mentions(&name))
            })
        };
        if let Some(stranger) = recalled.strangers().find(|path| !made_by_us(path)) {
            return Err(edited(format!("{} is not of the primary", stranger.display())));
        }
        let gone = |file: &FileId| {
            let ours = self.redo.is_some_and(|redo| redo.touched.bracket || redo.touched.files.contains(file));
            !recalled.files.contains(file) && !ours
        };
        let missing = self.objects.files().filter(gone).count();
        match (&self.edited, missing) {
            (Some(path), 0) if path.as_os_str().is_empty() => {
                Err(edited("its root directory is not as it was".to_owned()))
            }
            (Some(path), 0) => Err(edited(format!("{} is not as it was", path.display()))),
            (Some(path), missing) => {
                let at = if path.as_os_str().is_empty() { "the root".to_owned() } else { path.display().to_string() };
                Err(edited(format!("{missing} of its objects are gone; look at {at}")))
            }
            (None, 0) => Ok(()),
            (None, missing) => Err(edited(format!("{missing} of its objects are gone"))),
        }
    }
}

/// A replica that is being written.
pub(super) struct Session<'o> {
    beside: &'o Beside,
    replica: ReplicaFile,
    volume: &'o Volume,
    objects: Objects,
    player: Player<'o>,
    options: &'o Options<'o>,
    /// The last record that there is.
    latest: Seq,
    /// Nothing was said to the source yet.
    is_new: bool,
    /// The time, where the source does not know it: a step of the wall clock brings nothing forward and holds nothing back.
    believed: HybridClock,
    /// What is amended in what was seen, up to `looked`, while only a part of that is applied.
    amended: Amended,
    looked: Seq,
    /// What comes next on the tapes, all of which were read to find that, is of this time and too young so far.
    later: Option<Timestamp>,
}

impl<'o> Session<'o> {
    /// Does again what was begun, and is ready for what follows.
    pub(super) fn begin(
        beside: &'o Beside,
        mut replica: ReplicaFile,
        opened: &'o Opened,
        objects: Objects,
        options: &'o Options<'o>,
    ) -> Result<Session<'o>> {
        let volume = &opened.volume;
        let fail = |errno: Errno| Error::io(format!("bring {} in order", beside.tree().display()), errno.into());
        if replica.stamp.is_none() && opened.redo.is_none() {
            // the first copy was finished, and perhaps not quite
            volume.set_root_mtime(replica.root_mtime).map_err(fail)?;
            replica.stamp = Some(volume.stamp().map_err(fail)?);
            beside.store(&replica)?;
        }
        let mut stage = Stage::Outside;
        if replica.stands.inside().is_some() {
            stage = Stage::Inside(volume.reopen_bracket(opened.scratch.clone(), &opened.recalled).map_err(fail)?);
        } else if replica.stands != super::replica::Stands::Outside {
            stage = Stage::Begun;
        }
        if let Some(redo) = &opened.redo {
            stage = redo.names(volume, &opened.scratch, stage, &opened.recalled).map_err(fail)?;
            volume.set_root_mtime(replica.root_mtime).map_err(fail)?;
            redo.contents(volume, replica.at)?;
        }
        let player = Player::new(volume, opened.scratch.clone(), stage);
        let latest = replica.at.seq;
        let believed = HybridClock::new(options.clock.read(), replica.time);
        let (amended, looked) = (Amended::default(), latest);
        let mut session = Session {
            beside,
            replica,
            volume,
            objects,
            player,
            options,
            latest,
            is_new: true,
            believed,
            amended,
            looked,
            later: None,
        };
        if let Some(redo) = &opened.redo {
            session.checkpoint(&redo.cut, &Touched { files: redo.touched.files.clone(), bracket: true })?;
        }
        Ok(session)
    }

    /// Applies what there is; says whether that was anything.
    pub(super) fn go_on(&mut self, source: &mut dyn Source, tell: &mut dyn FnMut(Reached)) -> Result<bool> {
        if std::mem::take(&mut self.is_new) {
            source.report(&self.consumer(Pointers::at(self.replica.at.seq)), true)?;
            tell(self.reached());
        }
        // also when the source knows: a step is one against the last look
        let believed = self.believed.tick(self.options.clock.read());
        let until = |now| self.options.delay.map_or(Timestamp(i64::MAX), |delay| before(now, delay));
        if self.later.is_some_and(|later| later > until(believed)) {
            return Ok(false);
        }
        let Some(stretch) = source.next(&self.replica.at)? else {
            return Ok(false);
        };
        self.latest = stretch.last;
        let until = until(stretch.now.unwrap_or(believed));
        if self.options.delay.is_some() {
            // what it stops before for its time may say what a record really did that it does not stop before
            stretch.note_amended(self.looked.max(self.replica.at.seq).next(), &mut self.amended)?;
            self.looked = stretch.last;
        }
        let outline = stretch.outline(self.replica.at, self.replica.stands, (stretch.last, until), &self.amended)?;
        self.later = None;
        for cut in &outline.cuts {
            if self.options.stop.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(true);
            }
            self.batch(source, &stretch, &outline, cut, tell)?;
        }
        self.later = outline.later.filter(|_| matches!(stretch.held, super::stretch::Held::Tape(..)));
        match outline.epoch {
            Some((_, epoch)) if outline.cuts.is_empty() => Err(super::new_epoch(&self.replica.group, epoch)),
            _ => Ok(!outline.cuts.is_empty()),
        }
    }

    fn batch(
        &mut self,
        source: &mut dyn Source,
        stretch: &Stretch,
        outline: &Outline,
        cut: &Cut,
        tell: &mut dyn FnMut(Reached),
    ) -> Result<()> {
        let (at, to) = (self.replica.at.seq, cut.position.seq);
        self.replica.applying = Some(to);
        self.beside.store(&self.replica)?;
        let scheduled =
            Pointers { read_scheduled: stretch.last, already_read: to, restore_scheduled: to, already_restored: at };
        source.report(&self.consumer(scheduled), false)?;
        let (mut touched, player) = (Touched::default(), &mut self.player);
        stretch.records((at.next(), to), &outline.amends, &mut |seq, change| {
            touched.take(&change);
            player.step(seq, &change).map(|_| ())
        })?;
        tell(Reached { seq: to, is_done: false, ..self.reached() });
        self.checkpoint(cut, &touched)?;
        let done = Pointers { read_scheduled: stretch.last, ..Pointers::at(to) };
        source.report(&self.consumer(done), true)?;
        tell(self.reached());
        Ok(())
    }

    /// Brings the tree to disk and notes where it stands.
    fn checkpoint(&mut self, cut: &Cut, touched: &Touched) -> Result<()> {
        let fail = |errno: Errno| Error::io(format!("bring {} to disk", self.beside.tree().display()), errno.into());
        self.volume.sync().map_err(fail)?;
        let changed = self.changed_objects(touched)?;
        self.replica.objects = self.objects.append(&changed)?;
        self.replica.root_mtime = self.volume.root_mtime().map_err(fail)?;
        self.replica.stamp = Some(self.volume.stamp().map_err(fail)?);
        (self.replica.at, self.replica.time, self.replica.stands) = (cut.position, cut.time, cut.stands);
        self.replica.applying = None;
        self.amended.forget(cut.position.seq);
        self.beside.store(&self.replica)?;
        self.objects.clean();
        Ok(())
    }

    fn changed_objects(&self, touched: &Touched) -> Result<Vec<Entry>> {
        let mut changed: Vec<Entry> = Vec::new();
        let ended = |file: &FileId| !self.volume.knows(*file);
        if touched.bracket {
            changed.extend(self.objects.files().filter(ended).map(|file| (file, None)));
        }
        for file in touched.files.iter().filter(|file| **file != FileId::NONE && **file != self.replica.root) {
            if ended(file) {
                changed.push((*file, None));
                continue;
            }
            if self.objects.has(*file) && !touched.bracket {
                continue; // only a bracket ends an object and makes it anew
            }
            let own = self.volume.own_id(*file).map_err(|errno| own_ids(self.beside, errno))?;
            changed.push((*file, Some(own)));
        }
        // what ends gives its place up before another takes it
        changed.sort_by_key(|(_, own)| own.is_some());
        Ok(changed)
    }

    fn consumer(&self, pointers: Pointers) -> crate::consumer::Consumer {
        consumer(self.beside, &self.replica, pointers, self.now())
    }

    fn now(&self) -> Timestamp {
        self.options.clock.read().wall
    }

    /// How far it is.
    pub(super) fn reached(&self) -> Reached {
        Reached {
            seq: self.replica.at.seq,
            time: self.replica.time,
            of: self.latest.max(self.replica.at.seq),
            inside: self.replica.stands.inside(),
            is_done: true,
        }
    }
}

impl Redo {
    /// The names as they stand after the batch.
    fn names<'v>(
        &self,
        volume: &'v Volume,
        scratch: &Name,
        stage: Stage<'v>,
        recalled: &Recalled,
    ) -> rustix::io::Result<Stage<'v>> {
        let mut bracket = match stage {
            Stage::Inside(bracket) => bracket,
            Stage::Outside | Stage::Begun => volume.reopen_bracket(scratch.clone(), recalled)?,
        };
        bracket.redo_names(&self.places, recalled)?;
        if self.cut.stands.inside().is_some() {
            return Ok(Stage::Inside(bracket));
        }
        bracket.end()?;
        let is_outside = self.cut.stands == super::replica::Stands::Outside;
        Ok(if is_outside { Stage::Outside } else { Stage::Begun })
    }

    /// Bytes and attributes, in order.
    fn contents(&self, volume: &Volume, at: Position) -> Result<()> {
        volume.set_converging(true);
        let range = (at.seq.next(), self.cut.position.seq);
        let done = self.stretch.records(range, &self.outline.amends, &mut |seq, change| {
            let written = volume.apply_again(&change).map_err(|errno| misfit(seq, &change, errno))?;
            match &change {
                Change::Write { data, .. } if written < data.len() as u64 => Err(misfit(seq, &change, Errno::NOSPC)),
                _ => Ok(()),
            }
        });
        volume.set_converging(false);
        done
    }
}
