//! Killed: after SIGKILL of the daemon at any moment, everything acknowledged is there, volume and journal agree, and a
//! restore equals the volume.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use support::{Disk, FileSystem, Mount, Random, Sandbox, Tree, tools, wait};

/// What one writer was told: the files of its directory, byte by byte.
#[derive(Default)]
struct Acknowledged {
    files: BTreeMap<String, Vec<u8>>,
    /// Names that the operation in flight was about when the daemon was killed: they may be either way.
    uncertain: BTreeSet<String>,
}

/// One writer, in a directory of its own. Ends when the mount is dead.
struct Writer {
    directory: String,
    random: Random,
    told: Acknowledged,
}

impl Writer {
    fn new(number: u64) -> Writer {
        Writer {
            directory: format!("writer{number}"),
            random: Random::new("killed", number),
            told: Acknowledged::default(),
        }
    }

    fn run(&mut self, mount: &Path, is_over: &AtomicBool) {
        let place = mount.join(&self.directory);
        if !matches!(fs::create_dir(&place).map_err(|error| error.raw_os_error()), Ok(()) | Err(Some(17))) {
            return;
        }
        while !is_over.load(Ordering::Relaxed) {
            let (one, two) = (format!("f{}", self.random.below(30)), format!("f{}", self.random.below(30)));
            let result = match self.random.below(10) {
                0..=3 => self.create(&place, &one),
                4..=6 => self.write(&place, &one),
                7 => self.rename(&place, &one, &two),
                8 => self.remove(&place, &one),
                _ => self.cut(&place, &one),
            };
            match result.map_err(|error| error.raw_os_error().map(Errno::from_raw_os_error)) {
                // what the file system itself refuses was acknowledged as refused
                Ok(()) | Err(Some(Errno::NOSPC | Errno::NOENT)) => {}
                Err(_) => {
                    self.told.uncertain.extend([one, two]);
                    return;
                }
            }
        }
    }

    fn create(&mut self, place: &Path, name: &str) -> std::io::Result<()> {
        let file = File::create(place.join(name))?;
        let length = self.random.below(20_000);
        let bytes = self.random.bytes(length);
        self.told.files.insert(name.to_owned(), Vec::new());
        self.put(&file, name, 0, &bytes)
    }

    /// Every part that was acknowledged counts, also of a write that was cut short.
    fn put(&mut self, file: &File, name: &str, offset: usize, bytes: &[u8]) -> std::io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let length = file.write_at(&bytes[done..], (offset + done) as u64)?;
            let known = self.told.files.entry(name.to_owned()).or_default();
            let end = offset + done + length;
            known.resize(known.len().max(end), 0);
            known[offset + done..end].copy_from_slice(&bytes[done..done + length]);
            done += length;
        }
        Ok(())
    }

    fn write(&mut self, place: &Path, name: &str) -> std::io::Result<()> {
        let file = File::options().write(true).open(place.join(name))?;
        let (offset, length) = (self.random.below(30_000), self.random.below(9_000));
        let bytes = self.random.bytes(length);
        self.put(&file, name, usize::try_from(offset).expect("small"), &bytes)
    }

    fn rename(&mut self, place: &Path, one: &str, two: &str) -> std::io::Result<()> {
        fs::rename(place.join(one), place.join(two))?;
        if let Some(bytes) = self.told.files.remove(one) {
            self.told.files.insert(two.to_owned(), bytes);
        }
        Ok(())
    }

    fn remove(&mut self, place: &Path, name: &str) -> std::io::Result<()> {
        fs::remove_file(place.join(name))?;
        self.told.files.remove(name);
        Ok(())
    }

    fn cut(&mut self, place: &Path, name: &str) -> std::io::Result<()> {
        let size = self.random.below(25_000);
        File::options().write(true).open(place.join(name))?.set_len(size)?;
        let bytes = self.told.files.entry(name.to_owned()).or_default();
        bytes.resize(usize::try_from(size).expect("small"), 0);
        Ok(())
    }

    /// Compares what is there with what was acknowledged; what is uncertain is taken as it is.
    fn check(&mut self, root: &Path) -> Result<(), String> {
        let place = root.join(&self.directory);
        let mut there = BTreeMap::new();
        for entry in fs::read_dir(&place).into_iter().flatten() {
            let entry = entry.map_err(|error| error.to_string())?;
            let bytes = fs::read(entry.path()).map_err(|error| error.to_string())?;
            there.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
        }
        let names: BTreeSet<String> = there.keys().chain(self.told.files.keys()).cloned().collect();
        for name in names.difference(&self.told.uncertain) {
            let (real, told) = (there.get(name), self.told.files.get(name));
            if real != told {
                let length = |bytes: Option<&Vec<u8>>| bytes.map(Vec::len);
                return Err(format!(
                    "{}/{name}: {:?} bytes, acknowledged {:?}",
                    self.directory,
                    length(real),
                    length(told)
                ));
            }
        }
        self.told = Acknowledged { files: there, uncertain: BTreeSet::new() };
        Ok(())
    }
}

/// Takes the disk's room away and gives it back, until it is over.
fn fill_now_and_then(disk: &Disk, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        wait::pause(Duration::from_millis(60));
        let filler = disk.fill(100);
        wait::pause(Duration::from_millis(40));
        fs::remove_file(filler).expect("the filler is ours");
    }
}

#[test]
fn everything_acknowledged_survives_and_the_twin_stays_exact() {
    if !tools::root() || !tools::present(&["mkfs.ext4"]) {
        return;
    }
    let (sandbox, fast) = (Sandbox::new(), Sandbox::in_memory());
    let disk = Disk::new(&fast, "disk", FileSystem::Ext4, 64);
    let pvol = disk.directory("pvol");
    let mut tapes = fast.directory("tapes");
    sandbox.group_of_size("killed", &pvol, "256MiB");
    sandbox.base("killed", &tapes);
    let point = sandbox.directory("mnt");
    let mut writers: Vec<Writer> = (0..4).map(Writer::new).collect();
    let mut random = Random::new("when", 0);
    let rounds = tools::rounds(50, 2_000);
    for round in 0..rounds {
        let mount = Mount::new(&sandbox, "killed", &point, &[]);
        let below = Tree::of(&pvol);
        for writer in &mut writers {
            let checked = writer.check(mount.path()).and_then(|()| writer.check(&pvol));
            assert!(checked.is_ok(), "after kill {round}: {}\n{}", checked.unwrap_err(), mount.log());
        }
        if round % 8 == 7 {
            // a new base now and then, so that a restore has few tapes to read
            fs::remove_dir_all(&tapes).unwrap();
            tapes = fast.directory(&format!("tapes{round}"));
            sandbox.base("killed", &tapes);
        }
        sandbox.export("killed", &tapes);
        let restored = fast.restore(&tapes, "latest", "restored");
        below.assert_same(&Tree::of(&restored), &format!("after kill {round}"));
        fs::remove_dir_all(restored).unwrap();
        let is_over = AtomicBool::new(false);
        let pause = Duration::from_millis(20 + random.below(250));
        std::thread::scope(|scope| {
            for writer in &mut writers {
                let (root, is_over) = (&*point, &is_over);
                scope.spawn(move || writer.run(root, is_over));
            }
            let (disk, is_over) = (&disk, &is_over);
            let filler = (round % 3 == 1).then(|| scope.spawn(move || fill_now_and_then(disk, is_over)));
            wait::pause(pause);
            let log = if round % 2 == 0 { mount.kill() } else { mount.kill_and_leave() };
            assert!(!log.contains("panicked at"), "{log}");
            is_over.store(true, Ordering::Relaxed);
            drop(filler);
        });
    }
    let files: usize = writers.iter().map(|writer| writer.told.files.len()).sum();
    assert!(files > 20, "the writers were not at work: {files} files");
}

#[test]
fn a_dead_mount_of_our_own_is_replaced() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    sandbox.group("stale", &pvol);
    let mount = sandbox.mount("stale", "mnt");
    fs::write(mount.join("file"), b"acknowledged").unwrap();
    mount.kill_and_leave();
    let point = sandbox.path("mnt");
    assert_eq!(fs::read_dir(&point).unwrap_err().raw_os_error(), Some(Errno::NOTCONN.raw_os_error()));
    let mount = Mount::new(&sandbox, "stale", &point, &[]);
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"acknowledged");
    mount.umount();
}
