//! What applications were promised by their syncs, while they make random changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reelfs::open_group::OpenGroup;
use reelfs_journal::{Seq, Tags};
use reelfs_volume::{Reason, ResyncError};

use super::site::primary;
use crate::model::{Door, Step};
use crate::support::Random;

/// A directory below which and above which more is than any look ahead reaches.
const FAR: &str = "far/from/all";

/// A file, whatever its names.
#[derive(Default)]
struct Body {
    /// What was synced last, and every state since.
    states: Vec<Vec<u8>>,
    is_synced: bool,
}

/// Names, bodies, and what of them is promised.
#[derive(Default)]
pub struct Promises {
    names: BTreeMap<PathBuf, usize>,
    bodies: Vec<Body>,
    directories: BTreeSet<PathBuf>,
    /// Names that were synced and not touched since.
    fixed: BTreeSet<PathBuf>,
    /// What was done, for whoever must find out why it was not enough.
    told: Vec<String>,
}

impl Promises {
    /// An opening has made everything durable as it stands.
    pub fn settle(&mut self, pvol: &Path) {
        *self = Promises::default();
        let mut known = BTreeMap::new();
        for entry in walkdir::WalkDir::new(pvol).sort_by_file_name() {
            let entry = entry.expect("the volume can be walked");
            let path = entry.path().strip_prefix(pvol).expect("is below").to_owned();
            let meta = entry.metadata().expect("a stat");
            if meta.is_dir() {
                self.directories.insert(path);
            } else if meta.is_file() {
                let bodies = &mut self.bodies;
                let body = *known.entry(meta.ino()).or_insert_with(|| {
                    let bytes = fs::read(entry.path()).expect("it can be read");
                    bodies.push(Body { states: vec![bytes], is_synced: true });
                    bodies.len() - 1
                });
                self.fixed.insert(path.clone());
                self.names.insert(path, body);
            }
        }
    }

    fn some_place(&self, random: &mut Random) -> PathBuf {
        let directories: Vec<&PathBuf> = self.directories.iter().collect();
        random.one_of(&directories).join(format!("f{}", random.below(4)))
    }

    fn some_file(&self, random: &mut Random) -> Option<PathBuf> {
        let names: Vec<&PathBuf> = self.names.keys().collect();
        (!names.is_empty()).then(|| (*random.one_of(&names)).clone())
    }

    /// A state that a file may have from now on, whether or not the change is acknowledged.
    fn change(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let body = &mut self.bodies[self.names[path]];
        let mut next = body.states.last().cloned().unwrap_or_default();
        change(&mut next);
        body.states.push(next);
    }

    /// One change or sync; an error is one that the power cut must explain.
    pub fn step(&mut self, group: &OpenGroup, random: &mut Random) -> Result<(), String> {
        let step = match random.below(24) {
            0 => return self.of_the_group(group, random),
            1..=5 => self.name_step(random),
            6..=9 => self.sync_step(random),
            10 => self.attribute_step(random),
            _ => self.content_step(random),
        };
        step.map_or(Ok(()), |step| self.play(group, &step))
    }

    fn play(&mut self, group: &OpenGroup, step: &Step) -> Result<(), String> {
        let done = Door::new(&primary(group), (0, 0)).play(step);
        self.told.push(format!("{} -> {done:?}", short(step)));
        done.map_err(|error| format!("{step:?} answers {error}, after\n  {}", self.told.join("\n  ")))?;
        self.acknowledged(step);
        Ok(())
    }

    /// Makes a directory that is so far from the root that nobody who changes something in it looks ahead to the root.
    pub fn make_far(&mut self, group: &OpenGroup) -> Result<(), String> {
        let mut path = PathBuf::new();
        for part in Path::new(FAR) {
            path.push(part);
            self.play(group, &Step::Mkdir { path: path.clone(), mode: 0o755 })?;
        }
        Ok(())
    }

    /// Changes a file of the root through a name in the far directory, which it has for that long: where it stands afterwards
    /// no names changed.
    pub fn change_from_afar(&mut self, group: &OpenGroup, random: &mut Random) -> Result<(), String> {
        let near: Vec<PathBuf> = self.names.keys().filter(|name| name.components().count() == 1).cloned().collect();
        if near.is_empty() {
            return Ok(());
        }
        let (from, far) = (random.one_of(&near).clone(), Path::new(FAR).join(format!("f{}", random.below(4))));
        if self.names.contains_key(&far) {
            self.fixed.remove(&far);
            self.play(group, &Step::Unlink { path: far.clone() })?;
        }
        self.play(group, &Step::Link { from, to: far.clone() })?;
        for _ in 0..=random.below(2) {
            let step = self.content_step_of(far.clone(), random);
            self.play(group, &step)?;
        }
        self.play(group, &Step::Unlink { path: far })
    }

    fn of_the_group(&mut self, group: &OpenGroup, random: &mut Random) -> Result<(), String> {
        let primary = primary(group);
        let which = random.below(6);
        self.told.push(format!("suspend, resync, mark or free: {which}, suspended {}", primary.suspension().is_some()));
        match which {
            0 | 1 => primary.suspend(Reason::User).map_err(|error| format!("suspend: {error}")),
            2 | 3 if primary.suspension().is_some() => {
                match primary.resync(&mut || false, &mut |_, _| {}) {
                    // nobody empties this journal while the applications go on: it stays suspended
                    Ok(_) | Err(ResyncError::NoRoom) => Ok(()),
                    Err(error) => Err(format!("resync: {error}")),
                }
            }
            4 => group
                .journal()
                .mark("m", "", &Tags::default(), Vec::new())
                .map(|_| ())
                .map_err(|error| format!("mark: {error}")),
            // what an export does at its end when nothing can be freed
            _ => {
                let sync = primary.sync_volume().map_err(|error| format!("sync the volume: {error}"));
                let jvol = primary.jvol();
                let out = jvol.pointers().out;
                sync.and_then(|()| jvol.free(out, jvol.out_digest()).map_err(|error| format!("free: {error}")))
            }
        }
    }

    fn content_step(&mut self, random: &mut Random) -> Option<Step> {
        let path = self.some_file(random)?;
        Some(self.content_step_of(path, random))
    }

    fn content_step_of(&mut self, path: PathBuf, random: &mut Random) -> Step {
        match random.below(8) {
            0 => {
                let size = random.below(30_000);
                self.change(&path, |bytes| bytes.resize(usize::try_from(size).expect("small"), 0));
                Step::SetSize { path, size }
            }
            1 => {
                let (offset, length) = (random.below(15_000), 1 + random.below(9_000));
                self.change(&path, |bytes| {
                    let (begin, end) = (offset as usize, (offset + length) as usize);
                    let size = bytes.len();
                    bytes[begin.min(size)..end.min(size)].fill(0);
                });
                Step::Allocate { path, mode: 3, offset, length }
            }
            _ => {
                let (offset, length) = (random.below(20_000), 1 + random.below(6_000));
                let written = random.bytes(length);
                self.change(&path, |bytes| {
                    let (begin, end) = (offset as usize, (offset + length) as usize);
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[begin..end].copy_from_slice(&written);
                });
                Step::Write { path, offset, bytes: written }
            }
        }
    }

    fn name_step(&mut self, random: &mut Random) -> Option<Step> {
        let place = self.some_place(random);
        let is_there = self.names.contains_key(&place);
        let from = self.some_file(random);
        let step = match random.below(8) {
            0 if self.directories.len() < 4 => {
                let path = PathBuf::from(format!("d{}", self.directories.len()));
                (!self.directories.contains(&path)).then_some(Step::Mkdir { path, mode: 0o755 })
            }
            1 | 2 if from.is_some() => Some(Step::Rename { from: from?, to: place, flags: 0 }),
            3 if from.is_some() && !is_there => Some(Step::Link { from: from?, to: place }),
            4 if from.is_some() => Some(Step::Unlink { path: from? }),
            _ if !is_there => Some(Step::Create { path: place, mode: 0o644 }),
            _ => None,
        };
        match &step {
            Some(Step::Rename { from, to, .. } | Step::Link { from, to }) => {
                self.fixed.remove(to);
                if matches!(step, Some(Step::Rename { .. })) {
                    self.fixed.remove(from);
                }
            }
            Some(Step::Unlink { path }) => _ = self.fixed.remove(path),
            _ => {}
        }
        step
    }

    fn sync_step(&mut self, random: &mut Random) -> Option<Step> {
        if random.below(5) == 0 {
            let directories: Vec<&PathBuf> = self.directories.iter().collect();
            return Some(Step::Sync { path: (*random.one_of(&directories)).clone() });
        }
        Some(Step::Sync { path: self.some_file(random)? })
    }

    fn attribute_step(&mut self, random: &mut Random) -> Option<Step> {
        let path = self.some_file(random)?;
        Some(match random.below(2) {
            0 => Step::Chmod { path, mode: *random.one_of(&[0o600, 0o644, 0o755]) },
            _ => {
                let length = random.below(200);
                Step::SetXattr { path, name: "user.one", value: random.bytes(length), flags: 0 }
            }
        })
    }

    fn acknowledged(&mut self, step: &Step) {
        match step {
            Step::Create { path, .. } => {
                self.bodies.push(Body { states: vec![Vec::new()], is_synced: false });
                self.names.insert(path.clone(), self.bodies.len() - 1);
            }
            Step::Mkdir { path, .. } => _ = self.directories.insert(path.clone()),
            Step::Link { from, to } => _ = self.names.insert(to.clone(), self.names[from]),
            Step::Unlink { path } => _ = self.names.remove(path),
            Step::Rename { from, to, .. } => {
                let body = self.names[from];
                if self.names.get(to) != Some(&body) {
                    self.names.remove(from);
                    self.names.insert(to.clone(), body);
                }
            }
            Step::Sync { path } if self.directories.contains(path) => {
                let inside = self.names.keys().filter(|name| name.parent() == Some(path)).cloned();
                self.fixed.extend(inside);
            }
            Step::Sync { path } => {
                let number = self.names[path];
                let body = &mut self.bodies[number];
                body.states.drain(..body.states.len() - 1);
                body.is_synced = true;
                let names = self.names.iter().filter(|(_, body)| **body == number);
                self.fixed.extend(names.map(|(name, _)| name.clone()));
            }
            _ => {}
        }
    }

    /// Fails unless what was promised is there.
    pub fn check(&self, pvol: &Path) -> Result<(), String> {
        for path in &self.fixed {
            let body = &self.bodies[self.names[path]];
            let wrong = |error: String| format!("{}: {error}, after\n  {}", path.display(), self.told.join("\n  "));
            let there = fs::read(pvol.join(path)).map_err(|error| wrong(error.to_string()))?;
            if body.is_synced {
                body.check(&there).map_err(wrong)?;
            }
        }
        Ok(())
    }
}

/// A step without its bytes.
fn short(step: &Step) -> String {
    match step {
        Step::Write { path, offset, bytes } => format!("Write {} {offset}+{}", path.display(), bytes.len()),
        other => format!("{other:?}"),
    }
}

impl Body {
    /// Each byte is that of the synced state, or of a later one.
    fn check(&self, there: &[u8]) -> Result<(), String> {
        if !self.states.iter().any(|state| state.len() == there.len()) {
            let sizes: Vec<usize> = self.states.iter().map(Vec::len).collect();
            return Err(format!("{} bytes, promised was one of {sizes:?}", there.len()));
        }
        let is_whole =
            |at: usize, part: &[u8]| self.states.iter().any(|state| state.get(at..at + part.len()) == Some(part));
        if there.chunks(512).enumerate().all(|(number, part)| is_whole(number * 512, part)) {
            return Ok(());
        }
        let wrong = there.iter().enumerate().position(|(at, byte)| {
            !self.states.iter().any(|state| state.get(at).map_or(*byte == 0, |known| known == byte))
        });
        match wrong {
            None => Ok(()),
            Some(at) => {
                Err(format!("byte {at} of {} was never so since the sync ({} states)", there.len(), self.states.len()))
            }
        }
    }
}
