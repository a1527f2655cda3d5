//! Where the crates of reelfs come together: the command line, the mount process and the restore engine.

pub mod base_copy;
pub mod cli;
pub mod demo;
pub mod error;
pub mod export;
pub mod group;
pub mod group_file;
pub mod lock;
pub mod namespace;
pub mod open_group;
pub mod output;
pub mod overlap;
pub mod point;
pub mod points;
pub mod progress;
pub mod restore;
pub mod size;
pub mod state;
pub mod when;
