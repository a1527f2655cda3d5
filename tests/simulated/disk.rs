//! A disk whose power can go: a watcher that writes down how every call could be taken back, and takes back what was not
//! synced.
//!
//! The calls are made for real, on a file system in memory. When the power goes, objects keep their inode numbers and
//! generations: pages get older bytes, names are taken back, what was removed comes back from a stash beside the volume.
//!
//! What may be lost is modelled after a file system with a journal of its own (ext4, XFS): its own metadata (names, sizes,
//! attributes) keep their order, so of what is not synced any prefix may have reached the disk; a sync of one object makes
//! durable everything of it and what came before. Pages of data are in no order at all: each may hold any state since the
//! last sync of its file, or sectors of several. The PVOL and the state directory, with the journal volume in it, are two
//! file systems. The mapped in-flight table is never synced: each page of it may show any earlier moment.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::ThreadId;

use reelfs_journal::disk::{Call, Label, Mistake, Operation, Verdict, Watcher};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::domain::Domain;
use super::ring::{SimRing, wait_for_end};
use super::trace::Trace;
use super::undo::{Meta, Standing, Undo};
use crate::support::Random;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes that a disk writes whole.
const SECTOR: usize = 512;
/// Earlier moments of the in-flight table that are kept.
const MOMENTS: usize = 24;

/// An object that was seen.
pub(super) struct Object {
    pub(super) domain: Domain,
    pub(super) path: OwnedFd,
    pub(super) data: Option<File>,
}

/// An inode number, and the number of a page of its bytes.
type PageOf = (u64, u64);

/// Bytes of a page before a change, and when that was.
struct Older {
    stamp: u64,
    bytes: Vec<u8>,
}

#[derive(Default)]
pub(super) struct State {
    /// The call at which the power goes; 0: none.
    cut_at: u64,
    calls: u64,
    is_cut: bool,
    is_off: bool,
    stamp: u64,
    stashed: u64,
    pub(super) objects: HashMap<u64, Object>,
    pages: BTreeMap<PageOf, Vec<Older>>,
    metas: HashMap<Domain, Vec<Meta>>,
    pending: HashMap<ThreadId, Meta>,
    syncing: HashMap<ThreadId, u64>,
    moments: Vec<Vec<u8>>,
    ring: SimRing,
}

/// The disk.
pub struct SimDisk {
    volume: PathBuf,
    groups: PathBuf,
    stash: PathBuf,
    in_flight: PathBuf,
    mistake: Option<Mistake>,
    /// What it was asked for.
    pub trace: Trace,
    state: Mutex<State>,
}

impl SimDisk {
    /// The disk below a volume and a state directory; `stash` is an empty directory of the same file system.
    pub fn new(volume: &Path, groups: &Path, stash: &Path, in_flight: &Path) -> SimDisk {
        let (volume, groups, stash) = (volume.to_owned(), groups.to_owned(), stash.to_owned());
        SimDisk {
            volume,
            groups,
            stash,
            in_flight: in_flight.to_owned(),
            mistake: None,
            trace: Trace::default(),
            state: Mutex::default(),
        }
    }

    /// The program that uses it shall make a mistake.
    pub fn with_mistake(self, mistake: Option<Mistake>) -> SimDisk {
        SimDisk { mistake, ..self }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics")
    }

    /// The power goes at the call of this number from now, the first being 1; 0: never.
    pub fn cut_at(&self, number: u64) {
        let mut state = self.state();
        (state.cut_at, state.calls, state.is_cut, state.is_off) = (number, 0, false, false);
    }

    /// The power goes now, unless it has gone.
    pub fn cut_now(&self) {
        let mut state = self.state();
        if !state.is_cut {
            self.stop(&mut state);
        }
    }

    fn stop(&self, state: &mut State) {
        state.is_cut = true;
        self.keep_moment(state);
        state.ring.stop(&self.groups);
    }

    /// No power cut is due any more; false: the power has gone already.
    pub fn call_off(&self) -> bool {
        let mut state = self.state();
        state.cut_at = 0;
        !state.is_cut
    }

    /// Whether the power has gone.
    pub fn is_cut(&self) -> bool {
        self.state().is_cut
    }

    /// Nothing is written down any more, and everything until now is durable.
    pub fn settle(&self) {
        let mut state = self.state();
        self.forget(&mut state);
        state.is_off = true;
    }

    fn forget(&self, state: &mut State) {
        *state = State { stashed: state.stashed, ..State::default() };
        for entry in fs::read_dir(&self.stash).expect("the stash").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() { fs::remove_dir(&path) } else { fs::remove_file(&path) }
                .expect("the stash is ours");
        }
    }

    fn keep_moment(&self, state: &mut State) {
        if let Ok(bytes) = fs::read(&self.in_flight) {
            if state.moments.len() == MOMENTS {
                state.moments.remove(0);
            }
            state.moments.push(bytes);
        }
    }

    /// Leaves what the page cache had when the process ended: only the in-flight table has moved on since. What was not synced
    /// can still be lost.
    pub fn kill(&self) {
        self.trace.note("KILLED".to_owned());
        let ring = self.state().ring.file(&self.groups);
        ring.iter().for_each(wait_for_end);
        let mut state = self.state();
        if let Some(last) = state.moments.last() {
            fs::write(&self.in_flight, last).expect("the table is ours");
        }
        state.ring.kill();
        state.pending.clear();
        state.syncing.clear();
    }

    /// Leaves what the disk may hold after a power cut.
    pub fn lose(&self, random: &mut Random) {
        let ring = self.state().ring.file(&self.groups);
        ring.iter().for_each(wait_for_end);
        let mut state = self.state();
        state.ring.lose(&self.groups);
        let pages: Vec<(PageOf, Vec<Vec<u8>>)> = std::mem::take(&mut state.pages)
            .into_iter()
            .map(|((ino, page), older)| {
                let mut states: Vec<Vec<u8>> = older.into_iter().map(|older| older.bytes).collect();
                states.push(state.objects[&ino].page(page));
                ((ino, page), states)
            })
            .collect();
        for domain in [Domain::Volume, Domain::State] {
            let mut metas = state.metas.remove(&domain).unwrap_or_default();
            let kept = match random.below(4) {
                0 => metas.len(),
                1 => 0,
                _ => usize::try_from(random.below(metas.len() as u64 + 1)).expect("small"),
            };
            self.trace.note(format!("LOST: {} of {} changes in {domain:?}", metas.len() - kept, metas.len()));
            while metas.len() > kept {
                metas.pop().expect("longer").take_back(&state.objects);
            }
        }
        let keeps_all = random.below(8) == 0;
        for ((ino, page), states) in pages {
            let size = state.objects[&ino].size();
            let mut bytes = if keeps_all { states[states.len() - 1].clone() } else { random.one_of(&states).clone() };
            if !keeps_all && random.below(6) == 0 {
                for sector in 0..PAGE / SECTOR {
                    let range = sector * SECTOR..(sector + 1) * SECTOR;
                    let from = random.one_of(&states)[range.clone()].to_vec();
                    bytes[range].copy_from_slice(&from);
                }
            }
            let begin = page * PAGE as u64;
            let length = usize::try_from(size.saturating_sub(begin)).unwrap_or(PAGE).min(PAGE);
            if let Some(data) = &state.objects[&ino].data {
                data.write_all_at(&bytes[..length], begin).expect("memory has room");
            }
        }
        if !state.moments.is_empty() {
            let length = state.moments[0].len();
            let mut table = vec![0; length];
            for at in (0..length).step_by(PAGE) {
                table[at..at + PAGE].copy_from_slice(&random.one_of(&state.moments)[at..at + PAGE]);
            }
            if self.in_flight.exists() {
                fs::write(&self.in_flight, table).expect("the table is ours");
            }
        }
        self.forget(&mut state);
    }

    /// Makes an object known; gives its inode number.
    fn see(&self, state: &mut State, file: BorrowedFd<'_>) -> u64 {
        let stat = rustix::fs::fstat(file).expect("an open object");
        if let std::collections::hash_map::Entry::Vacant(place) = state.objects.entry(stat.st_ino) {
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            let path = fs::read_link(&link).expect("a descriptor has a path");
            let domain = match () {
                () if path.starts_with(&self.volume) => Domain::Volume,
                () if path.starts_with(&self.groups) => Domain::State,
                () => Domain::Elsewhere,
            };
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            let data = is_file.then(|| File::options().read(true).write(true).open(&link).expect("root may"));
            let path = rustix::io::fcntl_dupfd_cloexec(file, 0).expect("a descriptor");
            place.insert(Object { domain, path, data });
        }
        stat.st_ino
    }

    /// A directory and a name in it; a path from the current directory is taken apart.
    fn place(&self, state: &mut State, directory: BorrowedFd<'_>, name: &[u8]) -> (u64, Vec<u8>) {
        match name.iter().rposition(|&byte| byte == b'/') {
            Some(at) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let parent = rustix::fs::openat(CWD, &name[..at], flags, Mode::empty()).expect("the state directory");
                (self.see(state, parent.as_fd()), name[at + 1..].to_vec())
            }
            None => (self.see(state, directory), name.to_vec()),
        }
    }

    /// What stands under a name, made known.
    fn find(&self, state: &mut State, directory: u64, name: &[u8]) -> Option<u64> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(&state.objects[&directory].path, name, flags, Mode::empty()).ok()?;
        Some(self.see(state, found.as_fd()))
    }

    fn older(&self, state: &mut State, ino: u64, from: u64, to: u64) {
        if state.objects[&ino].domain == Domain::Elsewhere {
            return;
        }
        let stamp = state.stamp;
        for page in from / PAGE as u64..to.div_ceil(PAGE as u64) {
            let bytes = state.objects[&ino].page(page);
            state.pages.entry((ino, page)).or_default().push(Older { stamp, bytes });
        }
    }

    /// A name is about to lose what stands there: how it comes back.
    fn before_removal(&self, state: &mut State, directory: u64, name: &[u8], ino: u64) -> Undo {
        let stat = rustix::fs::fstat(&state.objects[&ino].path).expect("an open object");
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_directory && stat.st_nlink > 1 {
            return Undo::Link { ino, directory, name: name.to_vec() };
        }
        state.stashed += 1;
        let stashed = self.stash.join(format!("s{}", state.stashed));
        let place = &state.objects[&directory].path;
        if is_directory {
            // an empty one that nobody misses is removed in its place
            rustix::fs::renameat(place, name, CWD, &stashed).expect("an empty directory");
            rustix::fs::mkdirat(place, name, Mode::from_raw_mode(0o700)).expect("its name is free");
        } else {
            rustix::fs::linkat(place, name, CWD, &stashed, AtFlags::empty()).expect("the same file system");
        }
        Undo::Unstash { stashed, directory, name: name.to_vec() }
    }

    fn before_rename(
        &self,
        state: &mut State,
        meta: &mut Meta,
        (from, name): (u64, Vec<u8>),
        (to, new_name): (u64, Vec<u8>),
        exchange: bool,
    ) -> Option<()> {
        let ino = self.find(state, from, &name)?;
        let other = self.find(state, to, &new_name).filter(|other| *other != ino);
        meta.attributes(&state.objects, from);
        meta.attributes(&state.objects, to);
        meta.touches.extend([Some(ino), other].into_iter().flatten());
        if let Some(other) = other.filter(|_| !exchange) {
            meta.undo.push(self.before_removal(state, to, &new_name, other));
        }
        meta.undo.push(Undo::Rename { from, name, to, new_name, exchange });
        Some(())
    }

    /// How a call can be taken back; none: it changes nothing that could be lost.
    fn meta(&self, state: &mut State, call: &Call<'_>) -> Option<Meta> {
        let mut meta = Meta { stamp: state.stamp, touches: Vec::new(), undo: Vec::new(), before: Vec::new() };
        match &call.operation {
            Operation::Write { file, offset, bytes } => {
                let ino = self.see(state, *file);
                let size = state.objects[&ino].size();
                let from = offset.unwrap_or(size);
                self.older(state, ino, from, from + bytes.len() as u64);
                if from + bytes.len() as u64 <= size {
                    return None;
                }
                meta.attributes(&state.objects, ino);
            }
            Operation::Allocate { file, offset, length, .. } => {
                let ino = self.see(state, *file);
                let end = (offset + length).min(state.objects[&ino].size().max(*offset));
                self.older(state, ino, *offset, end);
                meta.attributes(&state.objects, ino);
            }
            Operation::SetSize { file, size } => {
                let ino = self.see(state, *file);
                let present = state.objects[&ino].size();
                self.older(state, ino, (*size).min(present), (*size).max(present).min(present + PAGE as u64));
                meta.attributes(&state.objects, ino);
            }
            Operation::SetAttributes { file } => {
                let ino = self.see(state, *file);
                meta.attributes(&state.objects, ino);
            }
            Operation::Create { directory, name } if call.label != Label::StateCreate => {
                let (directory, name) = self.place(state, *directory, name);
                if let Some(ino) = self.find(state, directory, &name) {
                    // opened, and perhaps cut to nothing
                    if call.label != Label::KnownCreate {
                        return None;
                    }
                    let size = state.objects[&ino].size();
                    self.older(state, ino, 0, size);
                    meta.attributes(&state.objects, ino);
                } else {
                    meta.attributes(&state.objects, directory);
                    meta.undo.push(Undo::Unname { directory, name });
                }
            }
            Operation::Link { file, directory, name } => {
                let ino = self.see(state, *file);
                let (directory, name) = self.place(state, *directory, name);
                meta.attributes(&state.objects, directory);
                meta.touches.push(ino);
                meta.undo.push(Undo::Unname { directory, name });
            }
            Operation::Remove { directory, name } => {
                let (directory, name) = self.place(state, *directory, name);
                let ino = self.find(state, directory, &name)?;
                meta.attributes(&state.objects, directory);
                meta.touches.push(ino);
                meta.undo.push(self.before_removal(state, directory, &name, ino));
            }
            Operation::Rename { from, name, to, new_name, exchange } => {
                let (from, to) = (self.place(state, *from, name), self.place(state, *to, new_name));
                self.before_rename(state, &mut meta, from, to, *exchange)?;
            }
            Operation::Create { .. } | Operation::Sync { .. } | Operation::SyncAll { .. } | Operation::Store => {
                return None;
            }
        }
        Some(meta)
    }

    fn synced(&self, state: &mut State, operation: &Operation<'_>, stamp: u64) {
        match operation {
            Operation::Sync { file } => {
                let ino = self.see(state, *file);
                let domain = state.objects[&ino].domain;
                let metas = state.metas.entry(domain).or_default();
                let last = metas.iter().rposition(|meta| meta.stamp <= stamp && meta.touches.contains(&ino));
                metas.drain(..last.map_or(0, |last| last + 1));
                state.pages.retain(|(of, _), older| {
                    older.retain(|older| *of != ino || older.stamp > stamp);
                    !older.is_empty()
                });
            }
            Operation::SyncAll { file } => {
                let ino = self.see(state, *file);
                let domain = state.objects[&ino].domain;
                state.metas.entry(domain).or_default().retain(|meta| meta.stamp > stamp);
                let State { objects, pages, .. } = state;
                pages.retain(|(of, _), older| {
                    older.retain(|older| objects[of].domain != domain || older.stamp > stamp);
                    !older.is_empty()
                });
            }
            _ => {}
        }
    }
}

impl Watcher for SimDisk {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let mut state = self.state();
        if state.is_off {
            return Verdict::Proceed;
        }
        if state.is_cut {
            self.trace.call(call, " without power");
            return Verdict::Fail(Errno::IO);
        }
        state.calls += 1;
        state.stamp += 1;
        if state.calls == state.cut_at {
            self.trace.call(call, " CUT");
            self.stop(&mut state);
            return Verdict::Fail(Errno::IO);
        }
        self.trace.call(call, "");
        let thread = std::thread::current().id();
        match &call.operation {
            Operation::Store => self.keep_moment(&mut state),
            Operation::Sync { .. } | Operation::SyncAll { .. } => {
                let stamp = state.stamp;
                state.syncing.insert(thread, stamp);
            }
            _ => {
                if let Some(meta) = self.meta(&mut state, call) {
                    state.pending.insert(thread, meta);
                }
            }
        }
        Verdict::Proceed
    }

    fn after(&self, call: &Call<'_>, is_done: bool) {
        let mut state = self.state();
        let thread = std::thread::current().id();
        let stamp = state.syncing.remove(&thread);
        let meta = state.pending.remove(&thread);
        if !is_done {
            return;
        }
        if let Some(mut meta) = meta {
            if let Some(Undo::Unname { directory, name }) = meta.undo.last() {
                // only now the new object is known
                meta.touches.extend(self.find(&mut state, *directory, name));
            }
            let domain = meta.touches.first().map_or(Domain::Elsewhere, |ino| state.objects[ino].domain);
            state.metas.entry(domain).or_default().push(meta);
        }
        if let Some(stamp) = stamp.filter(|_| !state.is_cut) {
            self.synced(&mut state, &call.operation, stamp);
        }
    }

    fn mistake(&self) -> Option<Mistake> {
        self.mistake
    }
}

impl Object {
    pub(super) fn size(&self) -> u64 {
        rustix::fs::fstat(&self.path).expect("an open object").st_size.unsigned_abs()
    }

    /// A page as it stands, zeros behind the end.
    fn page(&self, page: u64) -> Vec<u8> {
        let mut bytes = vec![0; PAGE];
        if let Some(data) = &self.data {
            let mut done = 0;
            while let Ok(length @ 1..) = data.read_at(&mut bytes[done..], page * PAGE as u64 + done as u64) {
                done += length;
            }
        }
        bytes
    }
}
