//! What the integration tests stand on: sandboxes, mounts that are always taken down, trees that can be compared.
#![allow(dead_code, unused_imports, reason = "every test binary uses another part of it")]

pub mod cutter;
pub mod disk;
pub mod follower;
pub mod history;
pub mod mount;
pub mod program;
pub mod random;
pub mod sandbox;
pub mod tools;
pub mod tree;
pub mod wait;

pub use cutter::cut_after;
pub use disk::{Disk, FileSystem};
pub use history::History;
pub use mount::Mount;
pub use program::Outcome;
pub use random::Random;
pub use sandbox::Sandbox;
pub use tree::Tree;
