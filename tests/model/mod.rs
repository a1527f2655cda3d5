//! The reference model: a file system in a `BTreeMap`, the steps that are played on it and on the real thing, and what
//! they are played with.
#![allow(dead_code, unused_imports, reason = "every test binary uses another part of it")]

pub mod directory;
pub mod door;
pub mod model_fs;
pub mod replay;
pub mod replica;
pub mod shrink;
pub mod step;

pub use directory::Directory;
pub use door::Door;
pub use model_fs::ModelFs;
pub use step::{Draw, Step};

/// What a step gives: a number (bytes copied, say), or the errno.
pub type Answer = Result<u64, rustix::io::Errno>;
