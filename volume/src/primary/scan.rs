//! Scanning: a whole volume is looked at before it is mounted, by several threads. It finds what changed, by its change time, and
//! makes the objects known that a redo needs.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reelfs_journal::{Clock, FileId, FileTime, Name, Timestamp};
use rustix::fs::Dir;
use rustix::io::Result;

use super::Primary;
use crate::node::Node;
use crate::stat::Stat;
use crate::sys;
use crate::volume::open_directory;

/// Threads that look, at most: they wait for the disk more than for a processor.
const THREADS: usize = 8;
/// Directories for which a further thread is worth its while.
const FEW: usize = 8;

/// A whole volume looked at, before it is mounted.
#[derive(Default)]
pub(super) struct Scan {
    /// Every directory there is.
    pub(super) directories: HashSet<FileId>,
    pub(super) changed_directories: Vec<Arc<Node>>,
    pub(super) changed: Vec<Found>,
    /// The root, and what no known name leads to.
    pub(super) placeless: Vec<Arc<Node>>,
    pub(super) estimate: u64,
}

pub(super) struct Found {
    pub(super) parent: Arc<Node>,
    pub(super) name: Name,
    pub(super) stat: Stat,
}

/// What a scan looks for.
pub(super) struct ScanFor<'a> {
    /// Change times after this are news; `None`: nothing is.
    pub(super) since: Option<Timestamp>,
    /// Directories that the journal has told; others are news with all beneath them.
    pub(super) known: &'a HashSet<FileId>,
    /// Inode numbers to make known to the volume, for redo.
    pub(super) wanted: &'a HashSet<u64>,
    /// By which `since` was.
    pub(super) clock: &'a dyn Clock,
}

impl ScanFor<'_> {
    fn is_news(&self, stat: &Stat) -> bool {
        self.since.is_some_and(|since| self.clock.shown(stat.ctime) > FileTime::from(since))
    }
}

impl Scan {
    /// Journal bytes that telling all of it takes, about.
    pub(super) fn estimate(&self) -> u64 {
        self.estimate
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changed_directories.is_empty() && self.changed.is_empty()
    }

    /// Changed directories, other changed objects.
    pub(super) fn counts(&self) -> (u64, u64) {
        let others = self.changed.iter().filter(|found| !found.stat.is_directory()).count();
        (self.changed_directories.len() as u64, others as u64)
    }
}

/// A directory to be looked into.
struct Visit {
    directory: Arc<Node>,
    /// Its names are news.
    is_listed: bool,
    /// So is everything below it.
    in_full: bool,
}

/// What was found in one directory.
#[derive(Default)]
struct Seen {
    /// Directories, and what is wanted.
    wanted: Vec<(Name, Stat)>,
    changed: Vec<Found>,
    estimate: u64,
}

impl Primary {
    /// Looks at everything, level by level. What it gives is in the same order however many threads there are.
    pub(super) fn scan(&self, look: &ScanFor<'_>) -> Result<Scan> {
        let root = self.volume.root.clone();
        let stat = self.volume.stat(&root)?;
        let in_full = look.since.is_some() && !look.known.contains(&root.id) && !look.known.is_empty();
        let mut level = vec![Visit { directory: root, is_listed: in_full || look.is_news(&stat), in_full }];
        let mut scan = Scan::default();
        while !level.is_empty() {
            let seen = self.look_into(look, &level)?;
            let mut below = Vec::new();
            for (visit, seen) in level.into_iter().zip(seen) {
                scan.directories.insert(visit.directory.id);
                scan.changed.extend(seen.changed);
                scan.estimate += seen.estimate;
                below.extend(
                    seen.wanted.into_iter().filter_map(|(name, stat)| self.make_known(look, &visit, &name, &stat)),
                );
                if visit.is_listed {
                    scan.changed_directories.push(visit.directory);
                }
            }
            level = below;
        }
        Ok(scan)
    }

    /// An object that is wanted; a directory is visited.
    fn make_known(&self, look: &ScanFor<'_>, visit: &Visit, name: &Name, stat: &Stat) -> Option<Visit> {
        let node = self.volume.nodes.intern(stat.id, stat.file_type, 0);
        node.add_link(&visit.directory, name);
        let in_full = visit.in_full || (look.since.is_some() && !look.known.contains(&stat.id));
        let is_listed = in_full || look.is_news(stat);
        stat.is_directory().then_some(Visit { directory: node, is_listed, in_full })
    }

    /// What is in each of these directories.
    fn look_into(&self, look: &ScanFor<'_>, level: &[Visit]) -> Result<Vec<Seen>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut seen = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(visit) = level.get(number) else { return Ok(seen) };
                seen.push((number, self.list(look, visit)?));
            }
        };
        let mut seen = std::thread::scope(|scope| -> Result<Vec<(usize, Seen)>> {
            let more = (level.len() / FEW).min(THREADS - 1);
            // where there can be no more threads, those that there are do it
            let helpers: Vec<_> = (0..more)
                .map_while(|_| std::thread::Builder::new().name("scan".to_owned()).spawn_scoped(scope, work).ok())
                .collect();
            let mut seen = work()?;
            for helper in helpers {
                seen.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(seen)
        })?;
        seen.sort_unstable_by_key(|(number, _)| *number);
        Ok(seen.into_iter().map(|(_, seen)| seen).collect())
    }

    fn list(&self, look: &ScanFor<'_>, visit: &Visit) -> Result<Seen> {
        let mut seen = Seen::default();
        let path = self.volume.path(&visit.directory)?;
        // as they lie on the disk: a listing is in the order of a hash, and a cold table of inodes is read once
        let mut entries = Vec::new();
        for entry in Dir::read_from(open_directory(&path)?)? {
            let entry = entry?;
            if let Ok(name) = Name::new(entry.file_name().to_bytes()) {
                entries.push((entry.ino(), name));
            }
        }
        entries.sort_unstable();
        for (_, name) in entries {
            self.look_at(look, visit, &path, name, &mut seen)?;
        }
        Ok(seen)
    }

    fn look_at(&self, look: &ScanFor<'_>, visit: &Visit, path: &OwnedFd, name: Name, seen: &mut Seen) -> Result<()> {
        let mut stat = Stat::at(path, name.as_bytes())?;
        if stat.file_system != self.volume.file_system {
            tracing::warn!(name = %name, "another file system is mounted inside the volume and is not part of it");
            return Ok(());
        }
        let Visit { directory, is_listed, in_full } = visit;
        let is_wanted = stat.is_directory() || look.wanted.contains(&stat.id.ino);
        let is_news = *in_full || look.is_news(&stat);
        if *is_listed || is_news || is_wanted {
            stat.id.generation = sys::generation(path, name.as_bytes())?;
        }
        if *is_listed {
            seen.estimate += 512;
        }
        if is_wanted {
            seen.wanted.push((name.clone(), stat));
        }
        if is_news {
            seen.estimate += 1024 + stat.blocks * 512;
            seen.changed.push(Found { parent: directory.clone(), name, stat });
        }
        Ok(())
    }
}
