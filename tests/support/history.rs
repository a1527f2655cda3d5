//! A small group with a past: a base tape, three update tapes, and what the volume was at the end of each.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Random, Sandbox, Tree};

/// A group `docs` in a sandbox, unmounted, and its tapes.
pub struct History {
    /// Where everything is.
    pub sandbox: Sandbox,
    /// The protected directory.
    pub pvol: PathBuf,
    /// The directory of tapes.
    pub tapes: PathBuf,
    /// The volume when marker `m1`, `m2`, `m3` was set; a tape was sealed after each.
    pub states: Vec<Tree>,
}

impl History {
    /// Base, then three times: change, mark, export.
    pub fn new() -> History {
        let sandbox = Sandbox::new();
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        fs::create_dir(pvol.join("d")).expect("an empty volume");
        fs::write(pvol.join("d/was-there"), Random::new("history", 0).bytes(5_000)).expect("a file");
        sandbox.group_of_size("docs", &pvol, "16MiB");
        sandbox.base("docs", &tapes);
        let mut history = History { sandbox, pvol, tapes, states: Vec::new() };
        for number in 1..=3 {
            history.go_on(number);
        }
        history
    }

    /// Mounts, changes something, sets marker `mN`, exports, unmounts.
    pub fn go_on(&mut self, number: u64) {
        let mount = self.sandbox.mount("docs", "mnt");
        fs::write(mount.join(&format!("new{number}")), Random::new("history", number).bytes(700)).expect("a file");
        fs::write(mount.join("d/was-there"), format!("as of {number}")).expect("a file");
        self.sandbox.mark("docs", &format!("m{number}"));
        self.states.push(Tree::of(&self.pvol));
        self.sandbox.export("docs", &self.tapes);
        mount.umount();
    }

    /// Base tape first, then the update tape that ends the base copy, then the one that ends with marker `m1`, ..
    pub fn tape(&self, number: usize) -> PathBuf {
        let (base, updates): (Vec<_>, Vec<_>) =
            self.sandbox.tapes(&self.tapes).into_iter().partition(|tape| tape.to_string_lossy().contains(".base."));
        [base, updates].concat().remove(number)
    }

    /// A fresh copy of the directory of tapes.
    pub fn copy_of_tapes(&self, name: &str) -> PathBuf {
        let copy = self.sandbox.path(name);
        drop(fs::remove_dir_all(&copy));
        fs::create_dir(&copy).expect("a directory in the sandbox");
        for tape in self.sandbox.tapes(&self.tapes) {
            fs::copy(&tape, copy.join(tape.file_name().expect("a tape has a name"))).expect("a copy");
        }
        copy
    }

    /// The tape of the same name in a copy of the directory.
    pub fn tape_in(&self, copy: &Path, number: usize) -> PathBuf {
        copy.join(self.tape(number).file_name().expect("a tape has a name"))
    }
}
