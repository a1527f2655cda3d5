//! The tapes at hand for one group: which there are, which are damaged, and what they lead to.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;

use reelfs_archive::{
    Catalog, CatalogTape, Chain, Depth, GroupSummary, SealedTape, TapeError, TapeHead, TapeKind, TapeName, VerifiedTape,
};
use reelfs_journal::{Epoch, GroupName, Seq};
use uuid::Uuid;

use super::told;
use crate::error::{Error, ErrorKind, Result};
use crate::point::Point;
use crate::points::{BaseTape, Glance, Glances, Happening, History, Resolver, Stretch, Target};
use crate::when::Zone;

/// A tape that is at hand.
#[derive(Debug, Clone)]
pub struct Tape {
    /// Where.
    pub path: PathBuf,
    /// What it says about itself.
    pub head: TapeHead,
}

impl Tape {
    /// Its name, as `ls` shows it when nobody has renamed it.
    #[must_use]
    pub fn name(&self) -> String {
        self.head.name().to_string()
    }

    /// Opens it and reads all of it.
    ///
    /// # Errors
    /// It is not what it was when the catalog was made, or damaged (19).
    pub fn verify(&self, depth: Depth, progress: &mut dyn FnMut(u64)) -> Result<VerifiedTape> {
        let mut open = || -> std::result::Result<VerifiedTape, TapeError> {
            let file = File::open(&self.path).map_err(|source| TapeError::Io {
                operation: "open",
                source,
            })?;
            SealedTape::open(file)?.verify(depth, progress)
        };
        let tape = open().map_err(|error| tape_error(&self.path, error))?;
        if tape.head().label.tape != self.head.label.tape || tape.head().root != self.head.root {
            let message = format!("tape {} was replaced by another one meanwhile", self.path.display());
            return Err(Error::new(ErrorKind::Foreign, message));
        }
        Ok(tape)
    }
}

/// A file that has the name of a tape and cannot be read as one.
#[derive(Debug)]
struct Broken {
    error: Error,
    name: Option<TapeName>,
}

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

/// The tapes at hand for one group.
pub struct Deck {
    /// The group's name.
    pub group: GroupName,
    /// The group.
    pub uuid: Uuid,
    /// In order.
    pub epochs: Vec<EpochTapes>,
    /// In the same order.
    pub histories: Vec<History>,
    /// What a person should know, and what does not stop anything.
    pub warnings: Vec<String>,
    broken: Vec<Broken>,
    last_read: RefCell<Option<(PathBuf, Rc<VerifiedTape>)>>,
}

impl Deck {
    /// Looks at all tapes of directories (and single tapes), and chooses the group.
    ///
    /// # Errors
    /// No tape (10), several groups and no choice (2), two groups of one name (21), nothing but damaged tapes (19).
    pub fn open(paths: &[PathBuf], group: Option<&str>) -> Result<Deck> {
        for path in paths {
            std::fs::metadata(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::new(
                    ErrorKind::NotFound,
                    format!("there is no directory of tapes {}", path.display()),
                ),
                _ => Error::io(format!("open {}", path.display()), error),
            })?;
        }
        let catalog = Catalog::scan(paths).map_err(|error| tape_error(&paths[0], error))?;
        let broken = broken_tapes(&catalog);
        let chosen = choose_group(&catalog.groups(), group, &broken, paths)?;
        let mut deck = Deck {
            group: chosen.name,
            uuid: chosen.uuid,
            epochs: Vec::new(),
            histories: Vec::new(),
            warnings: Vec::new(),
            broken: broken
                .into_iter()
                .filter(|broken| broken.may_belong_to(group))
                .collect(),
            last_read: RefCell::new(None),
        };
        let mut epochs = chosen.epochs;
        epochs.sort_unstable();
        for epoch in epochs {
            deck.add_epoch(epoch, &catalog.chain(chosen.uuid, epoch));
        }
        deck.warn_about_broken();
        Ok(deck)
    }

    fn add_epoch(&mut self, epoch: Epoch, chain: &Chain<'_>) {
        let tape = |tape: &&CatalogTape| Tape {
            path: tape.path.clone(),
            head: tape.head.clone(),
        };
        let updates: Vec<Tape> = chain.updates.iter().map(tape).collect();
        let bases: Vec<Tape> = chain.bases.iter().map(tape).collect();
        let mut told = Vec::new();
        for tape in &updates {
            match self.read_told(tape) {
                Ok(happenings) => told.extend(happenings),
                Err(error) => self.broken.push(Broken {
                    error,
                    name: Some(tape.head.name()),
                }),
            }
        }
        let known_bases: Vec<BaseTape> = bases.iter().filter_map(base_tape).collect();
        self.histories
            .push(History::new(epoch, stretches(&updates), &known_bases, told));
        let diverged = chain.diverged.first();
        let diverged = diverged.map(|d| (d.seq, d.left.head.name().to_string(), d.right.head.name().to_string()));
        self.epochs.push(EpochTapes {
            epoch,
            updates,
            bases,
            diverged,
        });
    }

    fn read_told(&self, tape: &Tape) -> Result<Vec<Happening>> {
        let verified = self.read(tape)?;
        Ok(told::read(&verified)
            .map_err(|error| tape_error(&tape.path, error))?
            .happenings)
    }

    /// The tape, read whole once; the last one asked for is kept open.
    fn read(&self, tape: &Tape) -> Result<Rc<VerifiedTape>> {
        if let Some((path, verified)) = &*self.last_read.borrow()
            && *path == tape.path
        {
            return Ok(verified.clone());
        }
        let verified = Rc::new(tape.verify(Depth::Bytes, &mut |_| {})?);
        *self.last_read.borrow_mut() = Some((tape.path.clone(), verified.clone()));
        Ok(verified)
    }

    fn warn_about_broken(&mut self) {
        for broken in &self.broken {
            self.warnings.push(broken.error.to_string());
        }
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
            let message = format!(
                "two histories of {}: tapes {left} and {right} differ at record {seq}",
                self.group
            );
            return Err(Error::new(ErrorKind::Foreign, message)
                .hint("keep the tapes of one history in a directory of their own and restore from there"));
        }
        Ok((tapes, &self.histories[index]))
    }

    /// Looks a point up.
    ///
    /// # Errors
    /// As [`Resolver::resolve`]; and 19 when a damaged tape may be what stands in the way.
    pub fn resolve(&self, point: &Point, zone: Zone) -> Result<Target> {
        for tapes in &self.epochs {
            self.epoch(tapes.epoch)?;
        }
        let resolver = Resolver {
            group: self.group.as_str(),
            histories: &self.histories,
            glances: self,
            zone,
        };
        let found = resolver.resolve(point);
        let end = self
            .epochs
            .last()
            .and_then(|tapes| tapes.updates.last())
            .map_or(Seq::ZERO, |tape| tape.head.last());
        let blocking = match (&found, point) {
            (Ok(_), Point::Latest | Point::LastBase | Point::LastMarker | Point::Marker { .. }) => {
                self.broken.iter().find(|broken| broken.may_hold_after(end))
            }
            (Ok(_), _) => None,
            (Err(error), _) => {
                let nothing = self.histories.iter().all(|history| history.windows().next().is_none());
                let any = nothing || error.kind() == ErrorKind::TapeNeeded;
                self.broken
                    .iter()
                    .find(|broken| any || broken.may_hold_after(end) || broken.is_base())
            }
        };
        match (blocking, found) {
            (None, found) => found,
            (Some(broken), found) => {
                let hint = match found {
                    Ok(target) => format!("without that tape the last point is --at seq:{}", target.seq),
                    Err(error) => format!("without that tape: {error}"),
                };
                Err(Error::new(ErrorKind::Damaged, broken.error.to_string()).hint(hint))
            }
        }
    }
}

impl Glances for Deck {
    fn glance(&self, epoch: Epoch, stretch: &Stretch, visit: &mut dyn FnMut(Glance) -> bool) -> Result<()> {
        let tapes = self.epochs.iter().find(|tapes| tapes.epoch == epoch);
        let tape = tapes.and_then(|tapes| tapes.updates.iter().find(|tape| tape.name() == stretch.name));
        let Some(tape) = tape else { return Ok(()) };
        let verified = self.read(tape)?;
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

impl Broken {
    fn may_belong_to(&self, group: Option<&str>) -> bool {
        match (&self.name, group) {
            (Some(name), Some(group)) => name.group.as_str() == group,
            _ => true,
        }
    }

    fn may_hold_after(&self, end: Seq) -> bool {
        self.name.as_ref().is_none_or(|name| name.last > end)
    }

    fn is_base(&self) -> bool {
        self.name.as_ref().is_none_or(|name| name.kind == TapeKind::Base)
    }
}

fn broken_tapes(catalog: &Catalog) -> Vec<Broken> {
    let same_as_good = |name: &TapeName| catalog.tapes().iter().any(|tape| tape.head.name() == *name);
    let broken = catalog.damaged().iter().map(|damaged| {
        let name = damaged
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| TapeName::from_str(name).ok());
        let message = format!("tape {}: {}", damaged.path.display(), damaged.error);
        Broken {
            error: Error::new(ErrorKind::Damaged, message),
            name,
        }
    });
    broken
        .filter(|broken| !broken.name.as_ref().is_some_and(same_as_good))
        .collect()
}

fn choose_group(
    groups: &[GroupSummary],
    wanted: Option<&str>,
    broken: &[Broken],
    paths: &[PathBuf],
) -> Result<GroupSummary> {
    let fits = |group: &&GroupSummary| wanted.is_none_or(|name| group.name.as_str() == name);
    let fitting: Vec<&GroupSummary> = groups.iter().filter(fits).collect();
    let names = |groups: &[&GroupSummary]| {
        let mut names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    let place = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    match fitting.as_slice() {
        [one] => Ok(GroupSummary {
            uuid: one.uuid,
            name: one.name.clone(),
            epochs: one.epochs.clone(),
            tapes: one.tapes,
        }),
        [] if broken.iter().any(|broken| broken.may_belong_to(wanted)) => {
            let first = broken.iter().find(|broken| broken.may_belong_to(wanted));
            Err(first.map_or_else(
                || Error::failed("no tape"),
                |broken| Error::new(ErrorKind::Damaged, broken.error.to_string()),
            ))
        }
        [] if groups.is_empty() => Err(Error::new(ErrorKind::NotFound, format!("there is no tape in {place}"))),
        [] => {
            let all: Vec<&GroupSummary> = groups.iter().collect();
            let message = format!("no tape of {} in {place}", wanted.unwrap_or_default());
            Err(Error::new(ErrorKind::NotFound, message).hint(format!("the tapes there are of {}", names(&all))))
        }
        [first, rest @ ..] if rest.iter().all(|group| group.name == first.name) => {
            let message = format!(
                "{place} holds tapes of {} different groups that are all named {}",
                fitting.len(),
                first.name
            );
            Err(Error::new(ErrorKind::Foreign, message)
                .hint("they come from different hosts or different times: keep them in directories of their own"))
        }
        several => Err(
            Error::usage(format!("{place} holds tapes of several groups: {}", names(several)))
                .hint(format!("choose one with --group {}", several[0].name)),
        ),
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
    let base = tape.head.label.base?;
    Some(BaseTape {
        base,
        began: tape.head.first(),
        digest: tape.head.root.0,
        name: tape.name(),
    })
}

/// The error of a tape, with its path and its exit code.
pub(super) fn tape_error(path: &Path, error: TapeError) -> Error {
    let kind = match &error {
        TapeError::Version { .. } | TapeError::NotATape => ErrorKind::Damaged,
        TapeError::Io { source, .. } => match crate::error::io_kind(source) {
            ErrorKind::Failed if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::TapeNeeded,
            kind => kind,
        },
        TapeError::Sink(source) => crate::error::io_kind(source),
        error if error.is_damage() => ErrorKind::Damaged,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("tape {}: {error}", path.display()))
}
