//! Disks that stop under load: ext4 and XFS cut off in the middle, with volume and journal on the disk or either of them alone.
//!
//! What was synced is there again after the next mount, the epoch stays, and a restore is a twin of the volume.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::XattrFlags;
use support::{Disk, FileSystem, Mount, Random, Sandbox, Tree, tools, wait};

/// What a file may hold after the cut: what was acknowledged, or that with the change that was under way.
struct Kept {
    acknowledged: Vec<u8>,
    under_way: Option<Vec<u8>>,
    /// That change is made in the file; else another file takes its name.
    in_place: bool,
}

impl Kept {
    fn new(acknowledged: Vec<u8>) -> Kept {
        Kept { acknowledged, under_way: None, in_place: false }
    }

    /// Whether a cut may leave this. A write that was under way, and has no durable record, may be there in parts: pages of it (also
    /// when the daemon is killed in the middle of it), and of the bytes that it adds any number, zeros among them.
    fn may_be(&self, there: &[u8]) -> bool {
        let Some(under_way) = self.under_way.as_deref().filter(|next| *next != there) else {
            return there == self.acknowledged || self.under_way.as_deref() == Some(there);
        };
        if !self.in_place {
            return there == self.acknowledged;
        }
        let (before, longest) = (&self.acknowledged, self.acknowledged.len().max(under_way.len()));
        let may_be_at = |(at, byte): (usize, &u8)| match before.get(at) {
            Some(acknowledged) => acknowledged == byte || under_way.get(at) == Some(byte),
            None => under_way.get(at) == Some(byte) || *byte == 0,
        };
        (before.len()..=longest).contains(&there.len()) && there.iter().enumerate().all(may_be_at)
    }
}

/// One writer in a directory of its own, which syncs whatever it does, until its disk is gone.
struct Syncer {
    directory: String,
    random: Random,
    files: BTreeMap<String, Kept>,
    done: u64,
}

/// What a sync said, unless the disk was being stopped meanwhile: ext4 answers 0 to an fsync(2) whose transaction it throws
/// away at that moment (`jbd2_complete_transaction` takes one that is neither running nor committing for done).
fn acknowledged(synced: std::io::Result<()>, is_cut: &AtomicBool) -> std::io::Result<()> {
    if is_cut.load(Ordering::SeqCst) { Err(std::io::ErrorKind::Interrupted.into()) } else { synced }
}

impl Syncer {
    fn new(number: u64) -> Syncer {
        let random = Random::new("syncer", number);
        Syncer { directory: format!("syncer{number}"), random, files: BTreeMap::new(), done: 0 }
    }

    /// A directory and a few files, on disk before anything is cut.
    fn prepare(&mut self, root: &Path) {
        let place = root.join(&self.directory);
        fs::create_dir_all(&place).unwrap();
        for name in ["table", "log", "kept"] {
            let bytes = self.random.bytes(if name == "log" { 0 } else { 64 << 10 });
            fs::write(place.join(name), &bytes).unwrap();
            File::open(place.join(name)).and_then(|file| file.sync_all()).unwrap();
            self.files.insert(name.to_owned(), Kept::new(bytes));
        }
        File::open(place).and_then(|directory| directory.sync_all()).unwrap();
    }

    /// Changes one file through an open handle and syncs it.
    fn change(&mut self, root: &Path, name: &str, is_cut: &AtomicBool) -> std::io::Result<()> {
        let kept = self.files.get_mut(name).expect("prepared");
        let file = File::options().write(true).open(root.join(&self.directory).join(name))?;
        for _ in 0..1 + self.random.below(8) {
            let mut next = kept.acknowledged.clone();
            let length = 1 + self.random.below(8_000);
            let block = self.random.bytes(length);
            let end = next.len() as u64;
            let offset = if name == "log" { end } else { self.random.below(end.max(1)) };
            next.resize(next.len().max(usize::try_from(offset).unwrap() + block.len()), 0);
            next[usize::try_from(offset).unwrap()..][..block.len()].copy_from_slice(&block);
            (kept.under_way, kept.in_place) = (Some(next.clone()), true);
            file.write_all_at(&block, offset)?;
            acknowledged(if self.random.below(2) == 0 { file.sync_data() } else { file.sync_all() }, is_cut)?;
            *kept = Kept::new(next);
            self.done += 1;
        }
        Ok(())
    }

    /// Replaces a file as careful programs do: a new one, synced, renamed over it, and the directory synced; or the file once
    /// more, which ext4 and XFS take for its new name too.
    fn replace(&mut self, root: &Path, is_cut: &AtomicBool) -> std::io::Result<()> {
        let place = root.join(&self.directory);
        let length = 1 + self.random.below(100_000);
        let bytes = self.random.bytes(length);
        let file = File::create(place.join("new"))?;
        file.write_all_at(&bytes, 0)?;
        acknowledged(file.sync_all(), is_cut)?;
        let kept = self.files.get_mut("kept").expect("prepared");
        kept.under_way = Some(bytes.clone());
        fs::rename(place.join("new"), place.join("kept"))?;
        let last = if self.random.below(2) == 0 { File::open(place)? } else { file };
        acknowledged(last.sync_all(), is_cut)?;
        *kept = Kept::new(bytes);
        self.done += 1;
        Ok(())
    }

    /// Makes a file and syncs it alone: ext4 and XFS keep its name too.
    fn make(&mut self, root: &Path, is_cut: &AtomicBool) -> std::io::Result<()> {
        let (name, length) = (format!("made{}", self.done), 1 + self.random.below(9_000));
        let bytes = self.random.bytes(length);
        let file = File::create(root.join(&self.directory).join(&name))?;
        file.write_all_at(&bytes, 0)?;
        acknowledged(file.sync_all(), is_cut)?;
        self.files.insert(name, Kept::new(bytes));
        self.done += 1;
        Ok(())
    }

    fn run(&mut self, root: &Path, is_cut: &AtomicBool) {
        loop {
            let result = match self.random.below(5) {
                0 => self.replace(root, is_cut),
                1 => self.change(root, "log", is_cut),
                2 => self.change(root, "kept", is_cut),
                3 => self.make(root, is_cut),
                _ => self.change(root, "table", is_cut),
            };
            if result.is_err() {
                return;
            }
        }
    }

    fn check(&mut self, pvol: &Path) -> Result<(), String> {
        for (name, kept) in &mut self.files {
            let path = pvol.join(&self.directory).join(name);
            let there = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            if !kept.may_be(&there) {
                let (is, was) = (there.len(), kept.acknowledged.len());
                let under_way = kept.under_way.as_ref().map(Vec::len);
                let place = there.iter().zip(&kept.acknowledged).position(|(a, b)| a != b);
                let path = path.display();
                return Err(format!(
                    "{path}: {is} bytes, acknowledged {was}, under way {under_way:?}, parts at {place:?}"
                ));
            }
            *kept = Kept::new(there);
        }
        Ok(())
    }
}

/// One who changes old files and names all over a tree, and never syncs.
struct Churner {
    random: Random,
    done: u64,
}

impl Churner {
    fn place(&mut self, root: &Path) -> PathBuf {
        let (directory, file) = (self.random.below(20), self.random.below(24));
        root.join(format!("old/{directory}/{file}"))
    }

    fn prepare(&mut self, root: &Path) {
        for directory in 0..20 {
            fs::create_dir_all(root.join(format!("old/{directory}"))).unwrap();
            for file in 0..20 {
                let length = self.random.below(9_000);
                fs::write(root.join(format!("old/{directory}/{file}")), self.random.bytes(length)).unwrap();
            }
        }
        fs::write(root.join("old/large"), self.random.bytes(6 << 20)).unwrap();
    }

    fn write(&mut self, path: &Path, at: u64) -> std::io::Result<()> {
        let length = 1 + self.random.below(5_000);
        let bytes = self.random.bytes(length);
        File::options().write(true).open(path)?.write_all_at(&bytes, at)
    }

    fn change(&mut self, root: &Path) -> std::io::Result<()> {
        let path = self.place(root);
        match self.random.below(12) {
            0 | 1 => {
                let at = self.random.below(6 << 20);
                self.write(&root.join("old/large"), at)
            }
            2 | 3 => {
                let end = fs::metadata(&path)?.len();
                self.write(&path, end)
            }
            4 => self.write(&path, 0),
            5 => fs::remove_file(path),
            6 => fs::rename(path, self.place(root)),
            7 => fs::hard_link(path, self.place(root)),
            8 => fs::set_permissions(
                path,
                fs::Permissions::from_mode(0o600 | u32::try_from(self.random.below(64)).unwrap()),
            ),
            9 => File::options().write(true).open(path)?.set_len(self.random.below(20_000)),
            10 => rustix::fs::setxattr(path, "user.n", &self.random.bytes(20), XattrFlags::empty()).map_err(Into::into),
            _ => {
                let length = self.random.below(20_000);
                fs::write(path, self.random.bytes(length))
            }
        }
    }

    fn run(&mut self, root: &Path, is_cut: &AtomicBool) {
        loop {
            match self.change(root).map_err(|error| error.kind()) {
                Ok(()) => self.done += 1,
                // below a place where nothing is mounted any more nothing is found
                Err(ErrorKind::NotFound | ErrorKind::AlreadyExists) if !is_cut.load(Ordering::SeqCst) => {}
                Err(_) => return,
            }
        }
    }
}

/// A group whose disk stops while it is written to, and comes back with what had reached it.
struct Site {
    disk: Disk,
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
    point: PathBuf,
    syncers: Vec<Syncer>,
    churner: Churner,
    random: Random,
}

/// What lies on the disk that stops.
#[derive(Clone, Copy, PartialEq)]
enum OnIt {
    Both,
    Pvol,
    Journal,
}

impl Site {
    fn new(file_system: FileSystem, mebibytes: u64, on_it: OnIt) -> Site {
        let sandbox = Sandbox::new();
        let disk = Disk::new(&sandbox, "disk", file_system, mebibytes);
        let place = |name, is_on_it| if is_on_it { disk.directory(name) } else { sandbox.directory(name) };
        let (pvol, tapes) = (place("pvol", on_it != OnIt::Journal), sandbox.directory("tapes"));
        let journals = place("journal", on_it != OnIt::Pvol);
        let place = ["--pvol", text(&pvol), "--journal", text(&journals), "--size", "64MiB"];
        sandbox.reelfs(["group", "create", "cut"].into_iter().chain(place)).ok();
        let point = sandbox.directory("mnt");
        let syncers = (0..3).map(Syncer::new).collect();
        let churner = Churner { random: Random::new("churner", 0), done: 0 };
        Site { disk, sandbox, pvol, tapes, point, syncers, churner, random: Random::new("when", on_it as u64) }
    }

    fn mount(&self) -> Mount {
        Mount::new(&self.sandbox, "cut", &self.point, &[])
    }

    /// Works for a while, then cuts; with an export on the way, which frees the journal: its records are not needed again
    /// only if the PVOL is on disk.
    fn work_until_cut(&mut self, mount: Mount, with_export: bool) {
        let (is_cut, pause) = (AtomicBool::new(false), Duration::from_millis(50 + self.random.below(300)));
        std::thread::scope(|scope| {
            for syncer in &mut self.syncers {
                let (root, is_cut) = (&*self.point, &is_cut);
                scope.spawn(move || syncer.run(root, is_cut));
            }
            let churner = &mut self.churner;
            let (root, is_cut_too) = (&*self.point, &is_cut);
            scope.spawn(move || churner.run(root, is_cut_too));
            wait::pause(pause);
            if with_export {
                self.sandbox.export("cut", &self.tapes);
                wait::pause(Duration::from_millis(20));
            }
            is_cut.store(true, Ordering::SeqCst);
            // without flushing its own journal: what was not asked to be durable may go
            tools::run("xfs_io", &["-x", "-c", "shutdown", text(self.disk.path())]);
            wait::pause(Duration::from_millis(20));
            mount.kill();
        });
        self.disk.umount();
        self.disk.mount();
    }

    fn check(&mut self, when: &str) {
        for syncer in &mut self.syncers {
            let checked = syncer.check(&self.pvol);
            assert!(checked.is_ok(), "{when}, {} changes: {}", syncer.done, checked.unwrap_err());
        }
    }
}

fn cut_for_real(mut site: Site, rounds: usize) {
    let mut epoch = 1;
    let mut mount = site.mount();
    site.syncers.iter_mut().for_each(|syncer| syncer.prepare(&site.point));
    site.churner.prepare(&site.point);
    site.sandbox.base("cut", &site.tapes);
    for round in 0..rounds {
        let when = format!("round {round}");
        // while nothing is journaled, a sync is one of the file, and there is nothing to do again
        let is_split = round % 3 == 2;
        if is_split {
            site.sandbox.reelfs(["pair", "split", "cut"]).ok();
        }
        site.work_until_cut(mount, round % 2 == 1);
        mount = site.mount();
        let log = mount.log();
        let is_redone = log.contains("of the journal done again on the PVOL");
        assert!(log.contains("the machine stopped") && is_redone != is_split, "{when}:\n{log}");
        // the map of a suspension is not on disk change by change
        assert_eq!(log.contains("begins, and the next export writes a new base"), is_split, "{when}:\n{log}");
        epoch += u64::from(is_split);
        assert_eq!(site.sandbox.reelfs(["group", "show", "cut", "--json"]).ok().json()["epoch"], epoch, "{when}");
        site.check(&when);
        // what the PVOL is now is what the tapes say
        site.sandbox.export("cut", &site.tapes);
        let restored = site.sandbox.restore(&site.tapes, "latest", "restored");
        Tree::of(&site.pvol).assert_same(&Tree::of(&restored), &when);
        fs::remove_dir_all(restored).unwrap();
    }
    // a group that is deleted instead of mounted again keeps nothing back either
    site.work_until_cut(mount, false);
    site.sandbox.reelfs(["group", "delete", "cut", "--yes"]).ok();
    site.check("deleted");
    assert!(site.syncers.iter().all(|syncer| syncer.done > 0), "nothing was ever acknowledged");
    assert!(site.churner.done > 0);
}

fn can_cut() -> bool {
    tools::root() && tools::present(&["mkfs.ext4", "mkfs.xfs", "xfs_io"])
}

#[test]
fn ext4_stops_with_the_journal_on_it() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Ext4, 200, OnIt::Both), tools::rounds(10, 200));
    }
}

#[test]
fn ext4_stops_and_the_journal_is_elsewhere() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Ext4, 100, OnIt::Pvol), tools::rounds(10, 200));
    }
}

#[test]
fn xfs_stops_with_the_journal_on_it() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Xfs, 400, OnIt::Both), tools::rounds(10, 200));
    }
}

#[test]
fn xfs_stops_and_the_journal_is_elsewhere() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Xfs, 320, OnIt::Pvol), tools::rounds(10, 200));
    }
}

#[test]
fn ext4_stops_and_only_the_journal_is_on_it() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Ext4, 140, OnIt::Journal), tools::rounds(10, 200));
    }
}

#[test]
fn xfs_stops_and_only_the_journal_is_on_it() {
    if can_cut() {
        cut_for_real(Site::new(FileSystem::Xfs, 400, OnIt::Journal), tools::rounds(10, 200));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}
