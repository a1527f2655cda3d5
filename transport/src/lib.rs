//! Where tapes go, and control messages both ways. Tapes are opaque bytes here.

pub mod control;
pub mod directory;
