//! Groups on disks that fail or lose their power: opened in this process, watched at the seam for the disk.
#![allow(dead_code, unused_imports, reason = "every test binary uses another part of it")]

pub mod disk;
pub mod domain;
pub mod failer;
pub mod promises;
pub mod ring;
pub mod site;
pub mod trace;
pub mod twin;
pub mod undo;

pub use disk::SimDisk;
pub use failer::{Failer, Fault};
pub use site::Site;
