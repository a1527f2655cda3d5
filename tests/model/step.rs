//! One system call of a random sequence. It is drawn as plain numbers and becomes a step only when it is played: every
//! index wraps around what exists at that moment, so that every sequence, and every part of it, is a valid one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Paths longer than this are not made deeper, so that no path meets the kernel's limit in one place only.
const PATH_BYTES_MAX: usize = 2_000;
/// No file becomes longer.
const FILE_BYTES_MAX: u64 = 100_000;

/// The numbers that a step is made of.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    verb: u8,
    one: u16,
    two: u16,
    names: u8,
    number: u32,
    length: u16,
}

/// Draws the numbers of one step.
pub fn draw() -> impl Strategy<Value = Draw> {
    (any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>(), any::<u32>(), any::<u16>())
        .prop_map(|(verb, one, two, names, number, length)| Draw { verb, one, two, names, number, length })
}

/// The sequence of this number: always the same one.
pub fn sequence(number: usize, steps: usize) -> Vec<Draw> {
    let seed: [u8; 32] = *blake3::hash(format!("sequence {number}").as_bytes()).as_bytes();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let tree = proptest::collection::vec(draw(), steps).new_tree(&mut runner).expect("steps can be drawn");
    tree.current()
}

/// What exists when a step is made: paths in order, and how many handles are open.
#[derive(Debug, Default)]
pub struct Seen {
    /// Directories, the root ("") included.
    pub directories: Vec<PathBuf>,
    /// Regular files.
    pub files: Vec<PathBuf>,
    /// Everything else.
    pub others: Vec<PathBuf>,
    /// Open handles.
    pub handles: usize,
}

/// A system call with its arguments; paths from the root of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Create { path: PathBuf, mode: u32 },
    Mkdir { path: PathBuf, mode: u32 },
    Symlink { path: PathBuf, target: Vec<u8> },
    Mknod { path: PathBuf, kind: char, mode: u32 },
    Link { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    Rmdir { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, flags: u32 },
    Write { path: PathBuf, offset: u64, bytes: Vec<u8> },
    SetSize { path: PathBuf, size: u64 },
    Allocate { path: PathBuf, mode: i32, offset: u64, length: u64 },
    Copy { from: PathBuf, from_offset: u64, to: PathBuf, to_offset: u64, length: u64 },
    Chmod { path: PathBuf, mode: u32 },
    Chown { path: PathBuf, uid: u32, gid: u32 },
    Touch { path: PathBuf, mtime: (i64, i64) },
    SetXattr { path: PathBuf, name: &'static str, value: Vec<u8>, flags: i32 },
    RemoveXattr { path: PathBuf, name: &'static str },
    Sync { path: PathBuf },
    Open { path: PathBuf },
    WriteOpen { handle: usize, offset: u64, bytes: Vec<u8> },
    SizeOpen { handle: usize, size: u64 },
    Close { handle: usize },
}

/// Names are few, so that they meet; one is not UTF-8 and one is as long as names get.
fn name(number: usize) -> &'static OsStr {
    const LONG: [u8; 255] = [b'n'; 255];
    const NAMES: [&[u8]; 7] = [b"a", b"b", b"c", b"d", b"\xff\xc3(", b".hidden", &LONG];
    // the long one seldom, or paths end too soon
    OsStr::from_bytes(NAMES[if number % 32 == 31 { 6 } else { number % 6 }])
}

fn pick(from: &[PathBuf], index: u16) -> Option<PathBuf> {
    (!from.is_empty()).then(|| from[usize::from(index) % from.len()].clone())
}

/// Short writes mostly, some over several pages, at places that overlap.
fn bytes(draw: &Draw) -> Vec<u8> {
    let length = match draw.length % 4 {
        0 => 1 + usize::from(draw.length) % 16,
        1 | 2 => 1 + usize::from(draw.length) % 5_000,
        _ => 1 + usize::from(draw.length) % 20_000,
    };
    (0..length).map(|at| (at as u32).wrapping_mul(31).wrapping_add(draw.number >> 8).to_le_bytes()[0]).collect()
}

fn offset(draw: &Draw) -> u64 {
    match draw.two % 3 {
        0 => 0,
        1 => u64::from(draw.number) % 8_192,
        _ => u64::from(draw.number) % (FILE_BYTES_MAX - 20_000),
    }
}

impl Draw {
    /// The step that these numbers mean now; none when it needs what does not exist.
    pub fn step(&self, seen: &Seen) -> Option<Step> {
        let place = |directory: u16, number: usize| {
            let path = pick(&seen.directories, directory)?.join(name(number));
            (path.as_os_str().len() <= PATH_BYTES_MAX).then_some(path)
        };
        let (first, second) = (usize::from(self.names), usize::from(self.names / 7) + usize::from(self.length));
        let mode = [0o644, 0o600, 0o755, 0o4755, 0o2755, 0o0, 0o1777, 0o666][self.number as usize % 8];
        Some(match self.verb % 64 {
            0..=6 => Step::Create { path: place(self.one, first)?, mode },
            7..=10 => Step::Mkdir { path: place(self.one, first)?, mode: mode | 0o700 },
            11 | 12 => {
                Step::Symlink { path: place(self.one, first)?, target: [&b"../"[..], name(second).as_bytes()].concat() }
            }
            13 => Step::Mknod { path: place(self.one, first)?, kind: ['p', 's', 'c'][self.number as usize % 3], mode },
            14..=16 => Step::Link { from: pick(&self.leaves(seen), self.two)?, to: place(self.one, first)? },
            17..=20 => Step::Unlink { path: place(self.one, first)? },
            21 => Step::Unlink { path: pick(&seen.files, self.one)? },
            22 | 23 => Step::Rmdir { path: place(self.one, first)? },
            24..=28 => Step::Rename {
                from: place(self.one, first)?,
                to: place(self.two, second)?,
                flags: [0, 0, 0, 1, 2, 2][self.number as usize % 6],
            },
            29 | 30 => Step::Rename {
                from: pick(&[&seen.files[..], &seen.directories[1..]].concat(), self.one)?,
                to: place(self.two, second)?,
                flags: [0, 0, 1, 2][self.number as usize % 4],
            },
            31 => Step::Rename {
                from: pick(&seen.directories[1..], self.one)?,
                to: pick(&seen.directories[1..], self.two)?,
                flags: [0, 2][self.number as usize % 2],
            },
            _ => return self.step_on_one(seen),
        })
    }

    fn leaves(&self, seen: &Seen) -> Vec<PathBuf> {
        [&seen.files[..], &seen.others[..]].concat()
    }

    fn step_on_one(&self, seen: &Seen) -> Option<Step> {
        let file = || pick(&seen.files, self.one);
        let plain = || pick(&[&seen.files[..], &seen.directories[..]].concat(), self.one);
        let number = self.number as usize;
        let handle = usize::from(self.one) % seen.handles.max(1);
        let xattr = ["user.one", "user.two", "trusted.three"][usize::from(self.names) % 3];
        Some(match self.verb % 64 {
            32..=38 => Step::Write { path: file()?, offset: offset(self), bytes: bytes(self) },
            39 | 40 => Step::SetSize { path: file()?, size: u64::from(self.number) % FILE_BYTES_MAX },
            41..=43 => Step::Allocate {
                path: file()?,
                mode: [0, 1, 3, 3, 16, 17][number % 6],
                offset: u64::from(self.two),
                length: 1 + u64::from(self.length) / 4,
            },
            44 | 45 => Step::Copy {
                from: file()?,
                from_offset: u64::from(self.number) % 10_000,
                to: pick(&seen.files, self.two).filter(|to| Some(to) != file().as_ref())?,
                to_offset: u64::from(self.names) * 100,
                length: 1 + u64::from(self.length) / 4,
            },
            46 | 47 => {
                Step::Chmod { path: plain()?, mode: [0o644, 0o700, 0o4755, 0o2755, 0o1777, 0o0, 0o6711][number % 7] }
            }
            48 => Step::Chown {
                path: pick(&[self.leaves(seen), seen.directories.clone()].concat(), self.one)?,
                uid: [0, 1_000, 65_534, 4_000_000_000][number % 4],
                gid: [0, 1_001, 100][usize::from(self.names) % 3],
            },
            49 | 50 => Step::Touch {
                path: pick(&[self.leaves(seen), seen.directories.clone()].concat(), self.one)?,
                mtime: (
                    [0, -14_182_940, 1_763_600_000, 5_000_000_000][number % 4],
                    i64::from(self.number) % 1_000_000_000,
                ),
            },
            51..=53 => Step::SetXattr {
                path: plain()?,
                name: xattr,
                value: vec![b'v'; number % 300],
                flags: [0, 0, 1, 2][usize::from(self.two) % 4],
            },
            54 => Step::RemoveXattr { path: plain()?, name: xattr },
            55 => Step::Sync { path: plain()? },
            56..=58 => Step::Open { path: file()? },
            _ if seen.handles == 0 => return None,
            59 | 60 => Step::WriteOpen { handle, offset: offset(self), bytes: bytes(self) },
            61 => Step::SizeOpen { handle, size: u64::from(self.number) % FILE_BYTES_MAX },
            _ => Step::Close { handle },
        })
    }
}

/// The parent of a path of a step, and its last component.
pub fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
}
