//! The tapes at hand for one group: which there are, which are damaged, and what they lead to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use reelfs_archive::{Catalog, Chain, Depth, LabelVolume, Overlap, VerifiedTape};
use reelfs_journal::{Change, Epoch, GroupName, Record, Seq, Timestamp, VolumeIndex};
use uuid::Uuid;

use super::choose::{Broken, broken_tapes, choose_group};
use super::live::Live;
use super::tape::{Tape, raise_descriptor_limit, tape_error};
use super::told::{self, Told};
use super::whose::{narrow, quiet_volumes, volumes_of};
use crate::error::{Error, ErrorKind, Result};
use crate::point::Point;
use crate::points::{BaseTape, Glance, Glances, Happening, History, Resolver, Stretch, Target};
use crate::scope::Scope;
use crate::volumes::Volumes;
use crate::when::Zone;

/// The tapes of one epoch.
#[derive(Debug)]
pub struct EpochTapes {
    /// Which epoch.
    pub epoch: Epoch,
    /// Update tapes in order.
    pub updates: Vec<Tape>,
    /// Base tapes in order.
    pub bases: Vec<Tape>,
    /// The first record at which two tapes tell different stories, and their names.
    diverged: Option<(Seq, String, String)>,
}

/// How much of the tapes is read: bytes done, bytes in all.
pub type Watch<'w> = dyn FnMut(u64, u64) + 'w;

/// Which record, and who asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Its number.
    pub seq: Seq,
    /// Its hybrid time.
    pub time: Timestamp,
    /// The volume that it concerns; none when it is of the whole group.
    pub volume: Option<VolumeIndex>,
    /// The requester's user.
    pub uid: u32,
    /// The requester's process, 0 if unknown.
    pub pid: u32,
}

impl Who {
    /// Of this record.
    #[must_use]
    pub fn of(record: &Record<'_>) -> Who {
        let volume = Some(record.volume).filter(|_| !record.is_of_group());
        Who { seq: record.seq, time: record.time, volume, uid: record.uid, pid: record.pid }
    }
}

/// Takes a record and what it really did; says whether to go on.
pub type Visit<'v> = dyn FnMut(Who, Option<Change<'_>>) -> Result<bool> + 'v;

/// The tapes at hand for one group.
pub struct Deck {
    /// The group's name.
    pub group: GroupName,
    /// The group.
    pub uuid: Uuid,
    /// The group, or the one volume of it that was asked for.
    pub scope: Scope,
    /// The volumes that were asked for: all of the group, or those of one name.
    pub volumes: Volumes,
    /// In order.
    pub epochs: Vec<EpochTapes>,
    /// In the same order; of the volumes that were asked for.
    pub histories: Vec<History>,
    /// What a person should know, and what does not stop anything.
    pub warnings: Vec<String>,
    live: Option<Live>,
    broken: Vec<Broken>,
    read: RefCell<HashMap<PathBuf, Rc<VerifiedTape>>>,
    told: RefCell<HashMap<PathBuf, Rc<Told>>>,
}

impl Deck {
    /// Looks at all tapes of directories (and single tapes), and chooses the group and, if one is named, its volume.
    ///
    /// # Errors
    /// No tape or no such volume (10), several groups and no choice (2), two groups of one name (21), nothing but damaged tapes (19).
    pub fn open(paths: &[PathBuf], wanted: Option<&Scope>, progress: &mut Watch<'_>) -> Result<Deck> {
        for path in paths {
            std::fs::metadata(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::new(ErrorKind::NotFound, format!("there is no directory of tapes {}", path.display()))
                }
                _ => Error::io(format!("open {}", path.display()), error),
            })?;
        }
        let catalog = Catalog::scan(paths).map_err(|error| tape_error(&place(paths), error))?;
        let broken = broken_tapes(&catalog);
        let group = wanted.map(|scope| scope.group.as_str());
        let chosen = choose_group(&catalog.groups(), group, &broken, paths)?;
        let scope = Scope { group: chosen.name, volume: wanted.and_then(|scope| scope.volume.clone()) };
        let volumes = volumes_of(&catalog, chosen.uuid, &[]);
        Deck::fill(catalog, broken, (scope, chosen.uuid), volumes, None, progress)
    }

    /// Looks at everything of a group that lives on this machine: its journal, and the tapes in these directories as far as
    /// they are there. `volumes` are those that the group has, or had.
    ///
    /// # Errors
    /// A directory cannot be read, or there is no such volume (10).
    pub fn of_group(
        paths: &[PathBuf],
        (scope, uuid): (Scope, Uuid),
        volumes: &[LabelVolume],
        live: Live,
        progress: &mut Watch<'_>,
    ) -> Result<Deck> {
        let present: Vec<&PathBuf> = paths.iter().filter(|path| path.is_dir()).collect();
        let catalog = Catalog::scan(&present).map_err(|error| tape_error(&place(paths), error))?;
        let broken = broken_tapes(&catalog);
        let volumes = volumes_of(&catalog, uuid, volumes);
        let mut deck = Deck::fill(catalog, broken, (scope, uuid), volumes, Some(live), progress)?;
        for absent in paths.iter().filter(|path| !path.is_dir()) {
            deck.warnings.push(format!("the tapes in {} are not at hand", absent.display()));
        }
        Ok(deck)
    }

    fn fill(
        mut catalog: Catalog,
        broken: Vec<Broken>,
        (scope, uuid): (Scope, Uuid),
        mut volumes: Volumes,
        live: Option<Live>,
        progress: &mut Watch<'_>,
    ) -> Result<Deck> {
        raise_descriptor_limit();
        narrow(&mut volumes, &scope)?;
        let group = scope.group.clone();
        let mut epochs: Vec<Epoch> =
            catalog.groups().into_iter().filter(|known| known.uuid == uuid).flat_map(|known| known.epochs).collect();
        epochs.extend(live.as_ref().map(|live| live.epoch));
        epochs.sort_unstable();
        epochs.dedup();
        let broken = broken.into_iter().filter(|broken| broken.may_belong_to(Some(group.as_str()))).collect();
        let mut deck = Deck {
            group,
            uuid,
            scope,
            volumes,
            epochs: Vec::new(),
            histories: Vec::new(),
            warnings: Vec::new(),
            live,
            broken,
            read: RefCell::default(),
            told: RefCell::default(),
        };
        for epoch in epochs {
            deck.read_updates(&mut catalog, epoch, progress);
            deck.add_epoch(epoch, &catalog.chain(uuid, epoch));
        }
        deck.warnings.extend(deck.broken.iter().map(|broken| broken.error.to_string()));
        Ok(deck)
    }

    /// A volume was asked for, and this is another one.
    fn is_outside(&self, volume: VolumeIndex) -> bool {
        self.scope.volume.is_some() && !self.volumes.indexes().any(|own| own == volume)
    }

    /// Reads the update tapes that the history is made of. One that does not read is left out, and what others hold of its
    /// records takes its place.
    fn read_updates(&mut self, catalog: &mut Catalog, epoch: Epoch, progress: &mut Watch<'_>) {
        loop {
            let updates: Vec<Tape> =
                catalog.chain(self.uuid, epoch).updates.iter().map(|tape| Tape::new(tape)).collect();
            let total = updates.iter().map(|tape| tape.head.bytes).sum();
            let (mut done, mut all_read) = (0, true);
            for tape in &updates {
                let read = self.verified(tape, &mut |bytes| progress(done + bytes, total));
                done += tape.head.bytes;
                if let Err(error) = read.and_then(|_| self.told(tape)) {
                    self.broken.push(Broken { error, name: Some(tape.head.name()) });
                    catalog.leave_out(&tape.path);
                    all_read = false;
                }
            }
            if all_read {
                return;
            }
        }
    }

    fn add_epoch(&mut self, epoch: Epoch, chain: &Chain<'_>) {
        let updates: Vec<Tape> = chain.updates.iter().map(|tape| Tape::new(tape)).collect();
        let bases: Vec<Tape> = chain.bases.iter().map(|tape| Tape::new(tape)).collect();
        let tells = updates.iter().filter_map(|tape| self.told(tape).ok());
        let mut told: Vec<Happening> = tells.flat_map(|tells| tells.happenings.clone()).collect();
        let mut stretches = stretches(&updates);
        if let Some(live) = self.live.as_ref().filter(|live| live.epoch == epoch) {
            let on_tape = stretches.last().map_or(Seq::ZERO, |stretch| stretch.last);
            match live.told(on_tape.next()) {
                Ok((stretch, happenings)) => {
                    stretches.push(stretch);
                    told.extend(happenings);
                }
                Err(error) => self.warnings.push(error.to_string()),
            }
        }
        told.extend(quiet_volumes(&updates, &told));
        told.retain(|happening| happening.is_of_group() || !self.is_outside(happening.volume));
        let known_bases: Vec<BaseTape> = bases.iter().filter_map(base_tape).collect();
        self.histories.push(History::new(epoch, stretches, &known_bases, told));
        let diverged = self.find_fork(chain);
        self.epochs.push(EpochTapes { epoch, updates, bases, diverged });
    }

    /// Two tapes that tell different histories of the same records: their ends say so, or what the end of one says is not
    /// what the records of the other lead to.
    fn find_fork(&self, chain: &Chain<'_>) -> Option<(Seq, String, String)> {
        // one that does not read takes no part
        let is_fork = |overlap: &&Overlap<'_>| {
            let within = self.verified(&Tape::new(overlap.within), &mut |_| {});
            within.is_ok_and(|within| overlap.agrees(&within).is_ok_and(|agrees| !agrees))
        };
        let clash = chain.diverged.first().map(|clash| (clash.seq, clash.left, clash.right));
        let clash = clash.or_else(|| {
            let fork = chain.overlaps.iter().find(is_fork)?;
            Some((fork.position.seq, fork.end_of, fork.within))
        });
        clash.map(|(seq, left, right)| (seq, left.head.name().to_string(), right.head.name().to_string()))
    }

    /// What an update tape tells; read once.
    ///
    /// # Errors
    /// It does not read back (19).
    pub fn told(&self, tape: &Tape) -> Result<Rc<Told>> {
        if let Some(told) = self.told.borrow().get(&tape.path) {
            return Ok(told.clone());
        }
        let verified = self.verified(tape, &mut |_| {})?;
        let told = Rc::new(told::read(&verified).map_err(|error| tape_error(&tape.path, error))?);
        self.told.borrow_mut().insert(tape.path.clone(), told.clone());
        Ok(told)
    }

    /// The tape, read whole, once: it stays open from the check to the end, so that nobody can put another in its place.
    ///
    /// # Errors
    /// It is damaged (19).
    pub fn verified(&self, tape: &Tape, progress: &mut dyn FnMut(u64)) -> Result<Rc<VerifiedTape>> {
        if let Some(verified) = self.read.borrow().get(&tape.path) {
            return Ok(verified.clone());
        }
        let verified = Rc::new(tape.verify(Depth::Bytes, progress)?);
        self.read.borrow_mut().insert(tape.path.clone(), verified.clone());
        Ok(verified)
    }

    /// The tapes of an epoch.
    ///
    /// # Errors
    /// Two tapes of it tell different stories (21).
    pub fn epoch(&self, epoch: Epoch) -> Result<(&EpochTapes, &History)> {
        let index = self.epochs.iter().position(|tapes| tapes.epoch == epoch);
        let index = index.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no tape of epoch {epoch}")))?;
        let tapes = &self.epochs[index];
        if let Some((seq, left, right)) = &tapes.diverged {
            let message =
                format!("the history of {} has diverged: tapes {left} and {right} differ at record {seq}", self.group);
            return Err(Error::new(ErrorKind::Foreign, message)
                .hint("keep the tapes of one history in a directory of their own and restore from there"));
        }
        Ok((tapes, &self.histories[index]))
    }

    /// Visits the records of an epoch from `from` on that are at hand and concern the volumes that were asked for, over gaps,
    /// with what each really did (`None` when that was nothing), until the visitor says no.
    ///
    /// # Errors
    /// A tape does not read back (19), or the visitor's.
    pub fn records(&self, epoch: Epoch, from: Seq, visit: &mut Visit<'_>) -> Result<()> {
        let (tapes, history) = self.epoch(epoch)?;
        let visit: &mut Visit<'_> = &mut |who, change| match who.volume {
            Some(volume) if self.is_outside(volume) => Ok(true),
            _ => visit(who, change),
        };
        for stretch in history.stretches.iter().filter(|stretch| stretch.last >= from) {
            let first = stretch.first.max(from);
            let tape = tapes.updates.iter().find(|tape| tape.name() == stretch.name);
            let goes_on = match (tape, &self.live) {
                (Some(tape), _) => self.tape_records(tape, (first, stretch.last), visit)?,
                (None, Some(live)) => live.visit((first, stretch.last), visit)?,
                (None, None) => true,
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    fn tape_records(&self, tape: &Tape, (first, last): (Seq, Seq), visit: &mut Visit<'_>) -> Result<bool> {
        let fail = |error| tape_error(&tape.path, error);
        let verified = self.verified(tape, &mut |_| {})?;
        let told = self.told(tape)?;
        let mut records = verified.records(first).map_err(fail)?;
        while let Some(raw) = records.next().map_err(fail)? {
            let record = raw.decode().map_err(fail)?;
            if record.seq > last {
                break;
            }
            let who = Who::of(&record);
            if !visit(who, told.amends.real(record))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Visits the names and attributes on a base tape.
    ///
    /// # Errors
    /// The tape is not at hand (15) or does not read back (19), or the visitor's.
    pub fn base_records(&self, name: &str, visit: &mut dyn FnMut(&Change<'_>) -> Result<()>) -> Result<()> {
        let tape = self.epochs.iter().flat_map(|tapes| &tapes.bases).find(|tape| tape.name() == name);
        let tape = tape.ok_or_else(|| Error::new(ErrorKind::TapeNeeded, format!("tape {name} is not here")))?;
        let fail = |error| tape_error(&tape.path, error);
        let verified = self.verified(tape, &mut |_| {})?;
        let mut records = verified.records(tape.head.first()).map_err(fail)?;
        while let Some(raw) = records.next().map_err(fail)? {
            visit(&raw.decode().map_err(fail)?.change)?;
        }
        Ok(())
    }

    /// Looks a point up.
    ///
    /// # Errors
    /// As [`Resolver::resolve`]; and 19 when a damaged tape may be what stands in the way.
    pub fn resolve(&self, point: &Point, zone: Zone) -> Result<Target> {
        for tapes in &self.epochs {
            self.epoch(tapes.epoch)?;
        }
        let (group, volumes) = (self.scope.to_string(), &self.volumes);
        let resolver = Resolver { group: &group, volumes, histories: &self.histories, glances: self, zone };
        let found = resolver.resolve(point);
        let blocking =
            self.broken.iter().find(|broken| !self.is_made_up_for(broken) && self.blocks(broken, point, &found));
        match (blocking, found) {
            (None, found) => found,
            (Some(broken), found) => {
                let hint = match found {
                    Ok(target) => format!("without that tape the last point is --at seq:{}", target.seq),
                    Err(error) => format!("without that tape: {error}"),
                };
                Err(Error::new(broken.error.kind(), broken.error.to_string()).hint(hint))
            }
        }
    }

    /// Other tapes (or the journal) hold all its records.
    fn is_made_up_for(&self, broken: &Broken) -> bool {
        let Some(name) = broken.name.as_ref().filter(|_| !broken.is_base()) else { return false };
        let own = self.histories.iter().filter(|history| history.epoch == Some(name.epoch));
        own.flat_map(|history| &history.runs).any(|run| run.first <= name.first && name.last <= run.last)
    }

    /// What was found, or not found, may be otherwise because this tape is damaged.
    fn blocks(&self, broken: &Broken, point: &Point, found: &Result<Target>) -> bool {
        let stretches = self.histories.iter().flat_map(|history| &history.stretches);
        let end = stretches.map(|stretch| stretch.last).max().unwrap_or(Seq::ZERO);
        match (found, point) {
            (Ok(_), Point::Latest) => broken.may_hold_after(end),
            (Ok(target), Point::LastBase) => broken.may_hold_after(target.seq),
            (Ok(target), Point::LastMarker | Point::LastQuiet) => {
                broken.may_hold_records() && broken.may_hold_after(target.seq)
            }
            (Ok(_), _) => false,
            (Err(error), Point::Marker { .. } | Point::LastMarker | Point::LastQuiet)
                if error.kind() == ErrorKind::NotFound =>
            {
                broken.may_hold_records()
            }
            (Err(error), Point::Tape(id)) if error.kind() == ErrorKind::NotFound => broken.may_begin_with(id),
            (Err(error), _) => {
                let nothing = self.histories.iter().all(|history| history.windows().next().is_none());
                let beyond = !matches!(point, Point::Seq(seq) if *seq <= end) && broken.may_hold_after(end);
                nothing || error.kind() == ErrorKind::TapeNeeded || beyond || broken.is_base()
            }
        }
    }
}

impl Glances for Deck {
    fn glance(&self, epoch: Epoch, stretch: &Stretch, visit: &mut dyn FnMut(Glance) -> bool) -> Result<()> {
        let tapes = self.epochs.iter().find(|tapes| tapes.epoch == epoch);
        let tape = tapes.and_then(|tapes| tapes.updates.iter().find(|tape| tape.name() == stretch.name));
        let Some(tape) = tape else {
            return self.live.as_ref().map_or(Ok(()), |live| live.glance(stretch, visit));
        };
        let verified = self.verified(tape, &mut |_| {})?;
        let fail = |error| tape_error(&tape.path, error);
        for control in verified.controls() {
            let glance = told::glance(&control.map_err(fail)?);
            if glance.seq > stretch.last || (glance.seq >= stretch.first && !visit(glance)) {
                break;
            }
        }
        Ok(())
    }
}

/// Tapes as stretches without overlap: where two tapes hold the same records, the earlier one counts.
fn stretches(updates: &[Tape]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::with_capacity(updates.len());
    for tape in updates {
        let mut stretch = Stretch {
            first: tape.head.first(),
            last: tape.head.last(),
            first_time: tape.head.label.first_time,
            sealed: tape.head.index.sealed,
            name: tape.name(),
        };
        if let Some(before) = stretches.last()
            && stretch.first <= before.last
        {
            stretch.first = before.last.next();
            let later = |chunk: &&reelfs_archive::Chunk| chunk.last >= stretch.first;
            let chunk = tape.head.index.chunks.iter().find(later);
            stretch.first_time = chunk.map_or(stretch.first_time, |chunk| chunk.first_time);
        }
        stretches.push(stretch);
    }
    stretches
}

fn base_tape(tape: &Tape) -> Option<BaseTape> {
    let (base, volume) = (tape.head.label.base?, tape.head.label.volumes.first()?.index);
    Some(BaseTape { volume, base, began: tape.head.first(), digest: tape.head.root.0, name: tape.name() })
}

fn place(paths: &[PathBuf]) -> PathBuf {
    paths.first().cloned().unwrap_or_default()
}
