//! Where the crates of reelfs come together: the command line, the mount process and the restore engine.

pub mod background;
pub mod base_copy;
pub mod cli;
pub mod daemon;
pub mod demo;
pub mod error;
pub mod export;
pub mod group;
pub mod group_file;
pub mod hook;
pub mod journal_state;
pub mod lock;
pub mod log;
pub mod mount_options;
pub mod mountpoint;
pub mod mounts;
pub mod namespace;
pub mod open_group;
pub mod open_volume;
pub mod output;
pub mod overlap;
pub mod pair;

pub mod pair_state;
pub mod point;
pub mod points;
pub mod progress;
pub mod protect;
pub mod request;
pub mod restore;
pub mod scope;
mod served;
pub mod size;
pub mod state;
pub mod status;
pub mod volumes;
pub mod when;
