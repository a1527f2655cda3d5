//! How a mount serves what is read through read-only handles, as `status` tells it.

use serde::{Deserialize, Serialize};

/// Who reads for read-only handles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "passthrough", content = "why")]
pub enum Reads {
    /// The kernel from the files of the volume.
    On,
    /// The mount: it takes writes, or it was asked for.
    #[default]
    Off,
    /// The mount, because the kernel does not; why.
    Refused(String),
}

impl From<reelfs_fuse::Passthrough> for Reads {
    fn from(passthrough: reelfs_fuse::Passthrough) -> Reads {
        match passthrough {
            reelfs_fuse::Passthrough::On => Reads::On,
            reelfs_fuse::Passthrough::Off => Reads::Off,
            reelfs_fuse::Passthrough::Refused(why) => Reads::Refused(why),
        }
    }
}
