//! The secondary of a pair: tapes in a directory, or a replica on this machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reelfs_volume::Identity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::consumer::Way;
use crate::error::{Error, ErrorKind, Result};
use crate::export::Destination;
use crate::follow::replica::Beside;
use crate::group_file::{GroupFile, VolumeEntry};
use crate::overlap;
use crate::restore;

/// Where the secondary of a pair is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "dir", rename_all = "kebab-case")]
pub enum Secondary {
    /// Tapes in this directory.
    Media(PathBuf),
    /// A replica in this directory, which `follow` keeps.
    Replica(PathBuf),
}

impl FromStr for Secondary {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Secondary, String> {
        let (kind, dir) = text.split_once(':').unwrap_or(("", text));
        match (kind, dir) {
            ("" | "media", "") => Err("it names no directory: media:DIR, or DIR".to_owned()),
            ("media", dir) => Ok(Secondary::Media(dir.into())),
            (word, _) if !word.is_empty() && !word.contains('/') => Err(format!(
                "`{word}:` is no kind of secondary: media:DIR, or DIR (./{text} for a directory of that name)"
            )),
            // sites will have names like this one; a typing mistake must not become a copy in the working directory
            _ if !text.contains('/') && !matches!(text, "." | "..") => {
                Err(format!("`{text}` is neither media:DIR nor a path: ./{text} for a directory of that name here"))
            }
            _ => Ok(Secondary::Replica(text.into())),
        }
    }
}

impl fmt::Display for Secondary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secondary::Media(dir) => write!(f, "media:{}", dir.display()),
            Secondary::Replica(dir) => write!(f, "{}", dir.display()),
        }
    }
}

impl Secondary {
    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        match self {
            Secondary::Media(dir) | Secondary::Replica(dir) => dir,
        }
    }

    /// The same with a directory that does not depend on where one stands.
    ///
    /// # Errors
    /// The working directory is gone.
    pub fn absolute(&self) -> Result<Secondary> {
        let dir = std::path::absolute(self.dir()).map_err(|error| Error::io("find the current directory", error))?;
        Ok(match self {
            Secondary::Media(_) => Secondary::Media(dir),
            Secondary::Replica(_) => Secondary::Replica(dir),
        })
    }

    /// Whether it can be the secondary of a directory that is about to join a group. Nothing is changed.
    ///
    /// # Errors
    /// 10 when the directory of tapes is not there, 14 when the replica's holds something, 2 when it overlaps with a PVOL, a
    /// mount, the journal or the state, or its file system cannot carry a replica.
    pub fn check(&self, file: &GroupFile, state: &Path, mountpoints: &[PathBuf], pvol: &Path) -> Result<()> {
        match self {
            Secondary::Media(dir) => {
                overlap::refuse_inside("the PVOL", pvol, "the tape directory", dir)?;
                Destination::check(file, &[], mountpoints, dir).map(|_| ())
            }
            Secondary::Replica(dir) => {
                let beside = Beside::of(dir)?;
                let others = file.volumes.iter().map(|entry| ("the PVOL", entry.pvol.as_path()));
                let others = others.chain([("the PVOL", pvol), ("the state directory", state)]);
                let mounts = mountpoints.iter().map(|mount| ("the mount", mount.as_path()));
                for (what, other) in others.chain(mounts) {
                    overlap::refuse_inside(what, other, "the replica", beside.tree())?;
                    overlap::refuse_inside("the replica", beside.tree(), what, other)?;
                }
                overlap::refuse_inside("the replica", beside.tree(), "the journal", &file.journal)?;
                restore::check(beside.tree(), &[], file.uuid)?;
                if beside.load()?.is_some() {
                    let message = format!("{} is a replica already", dir.display());
                    return Err(Error::new(ErrorKind::WouldOverwrite, message).hint("choose another directory"));
                }
                refuse_unfit(beside.tree())
            }
        }
    }
}

/// A file system whose files have no handles, and a place whose parent is not there.
fn refuse_unfit(tree: &Path) -> Result<()> {
    let parent = tree.parent().unwrap_or(tree);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = if tree.is_dir() { tree } else { parent };
    let looked = rustix::fs::open(place, flags, Mode::empty()).and_then(|place| Identity::of(&place).map(|_| ()));
    looked.map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => {
            Error::new(ErrorKind::NotFound, format!("the directory {} is not there", parent.display()))
                .hint("is the disk mounted? Otherwise make the directory first")
        }
        Errno::OPNOTSUPP => Error::usage(format!(
            "the file system of {} gives no file handles, so a replica there cannot be followed into",
            tree.display()
        ))
        .hint("ext4, XFS, btrfs and tmpfs serve"),
        errno => Error::io(format!("look at {}", place.display()), errno.into()),
    })
}

/// The secondaries of a volume that its group knows: directories of tapes once it has a base copy, and replicas.
#[must_use]
pub fn known(file: &GroupFile, volume: &VolumeEntry) -> Vec<Secondary> {
    let tapes = file.targets.iter().filter(|_| volume.base.is_some());
    let tapes = tapes.map(|target| Secondary::Media(target.dir.clone()));
    let replicas =
        file.consumers.iter().filter(|known| known.way == Way::Journal && known.volume == Some(volume.index));
    tapes.chain(replicas.map(|known| Secondary::Replica(known.dir.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secondary_is_written_in_two_ways_and_words_of_later_ones_are_refused() {
        let read = |text: &str| text.parse::<Secondary>();
        assert_eq!(read("media:/m"), Ok(Secondary::Media("/m".into())));
        assert_eq!(read("/srv/x:y"), Ok(Secondary::Replica("/srv/x:y".into())));
        assert_eq!(read("./osaka"), Ok(Secondary::Replica("./osaka".into())));
        assert_eq!(read("./media:x"), Ok(Secondary::Replica("./media:x".into())));
        for (text, part) in
            [("", "names no directory"), ("media:", "names no directory"), ("s3:bucket", "`s3:`"), ("osaka", "./osaka")]
        {
            assert!(read(text).is_err_and(|error| error.contains(part)), "{text}");
        }
        assert_eq!(Secondary::Media("/m".into()).to_string(), "media:/m");
        let json = serde_json::to_string(&Secondary::Replica("/r".into())).expect("JSON");
        assert_eq!(json, r#"{"kind":"replica","dir":"/r"}"#);
    }
}
