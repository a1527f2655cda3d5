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
            wait_for_end(&ring);
            ring.write_all_at(&head, 0).expect("memory has room");
        }
    }

    /// Memory goes.
    pub(super) fn lose(&mut self, directory: &Path) {
        let known = self.0.take().map(|(path, _)| path).or_else(|| find(directory));
        if let Some(path) = known
            && let Ok(ring) = File::open(&path)
        {
            wait_for_end(&ring);
            fs::remove_file(path).expect("it is there");
        }
    }
}

/// Threads of the program that has ended may still be at it, other than those of a killed process: it is theirs as long as one
/// of them is.
fn wait_for_end(ring: &File) {
    rustix::fs::flock(ring, FlockOperation::LockExclusive).expect("a lock");
}

fn find(directory: &Path) -> Option<PathBuf> {
    fs::read_link(directory.join("sim.jvol.ring")).ok()
}
