//! The ring before the journal of a simulated world: memory, which a power cut takes and a kill leaves as it was.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Bytes of a ring that say what is in it.
const HEAD: usize = 256;

/// How the ring stood when the program ended.
#[derive(Default)]
pub(super) struct SimRing(Option<(PathBuf, [u8; HEAD])>);

impl SimRing {
    /// The program has ended, whatever its threads still do.
    pub(super) fn stop(&mut self, directory: &Path) {
        let read = |path: PathBuf| {
            let mut head = [0; HEAD];
            File::open(&path).and_then(|ring| ring.read_exact_at(&mut head, 0)).ok().map(|()| (path, head))
        };
        self.0 = find(directory).and_then(read);
    }

    /// Memory stays.
    pub(super) fn kill(&mut self) {
        if let Some((path, head)) = self.0.take() {
            let ring = File::options().write(true).open(&path).expect("nothing goes after the end");
            ring.write_all_at(&head, 0).expect("memory has room");
        }
    }

    /// Memory goes.
    pub(super) fn lose(&mut self, directory: &Path) {
        if let Some(path) = self.path(directory) {
            _ = fs::remove_file(path);
        }
        self.0 = None;
    }

    /// Where it is, or was when the program ended.
    fn path(&self, directory: &Path) -> Option<PathBuf> {
        self.0.as_ref().map(|(path, _)| path.clone()).or_else(|| find(directory))
    }

    /// To be waited for until nobody has it.
    pub(super) fn file(&self, directory: &Path) -> Option<File> {
        self.path(directory).and_then(|path| File::open(path).ok())
    }
}

/// A killed process has no threads; those of a program that has ended here may still be at its ring, until the last of them
/// has given it up.
pub(super) fn wait_for_end(ring: &File) {
    rustix::fs::flock(ring, FlockOperation::LockExclusive).expect("a lock");
}

fn find(directory: &Path) -> Option<PathBuf> {
    fs::read_link(directory.join("sim.jvol.ring")).ok()
}
