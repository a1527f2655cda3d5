//! A volume of an open group: its directory opened, recovered, adopted, ready to be changed.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use reelfs_journal::{JournalError, VolumeIndex, VolumeName};
use reelfs_volume::{
    Group, Identity, Lost, NewEpoch, OpenError, Opened, Primary, Session, VolumeOptions, restore_mark,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::group_file::{GroupFile, VolumeEntry};
use crate::output::{Output, count};
use crate::state::GroupDir;

/// An open volume.
#[derive(Debug, Clone)]
pub struct OpenVolume {
    /// Its number in records.
    pub index: VolumeIndex,
    /// Its name.
    pub name: VolumeName,
    /// The directory.
    pub primary: Arc<Primary>,
    /// The device that it lies on, whatever is mounted over it.
    pub device: u64,
    /// To be completed when it is closed.
    pub session: Session,
}

/// Opens a volume of a group whose journal is open; what happened behind the mount is told through `output`.
///
/// # Errors
/// 10 when the directory is gone, 19 when the journal is damaged, 14 when `strict` refuses to adopt.
pub(crate) fn open(
    dir: &GroupDir,
    file: &GroupFile,
    entry: &VolumeEntry,
    group: &Arc<Group>,
    strict: bool,
    output: &Output,
) -> Result<(OpenVolume, Option<NewEpoch>)> {
    let root = open_root(file, entry)?;
    let stat = rustix::fs::fstat(&root);
    let device = stat.map_err(|error| Error::io("look at the PVOL", error.into()))?.st_dev;
    let state = dir.make_volume(entry.index)?;
    let (index, session) = (entry.index, entry.session.clone());
    let opened = Primary::join(group, VolumeOptions { root, index, state, session, strict })
        .map_err(|error| open_error(file, Some(entry), error))?;
    tell(&file.title(entry), &opened, output);
    let Opened { primary, session, replaced, .. } = opened;
    Ok((OpenVolume { index, name: entry.name.clone(), primary, device, session }, replaced))
}

fn open_root(file: &GroupFile, entry: &VolumeEntry) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (shown, title) = (entry.pvol.display(), file.title(entry));
    let opened = rustix::fs::open(&entry.pvol, flags, Mode::empty());
    // a dead mount in its place may well let itself be opened, and says what it is when it is asked something
    let root = opened.and_then(|root| rustix::fs::fstatfs(&root).map(|_| root)).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR => {
            let give_up = if file.volumes.len() == 1 { "group delete" } else { "pair delete" };
            Error::new(ErrorKind::NotFound, format!("the PVOL {shown} of group {title} is gone"))
                .hint(format!("bring the directory back, or run: reelfs {give_up} {title}"))
        }
        Errno::NOTCONN => Error::new(ErrorKind::Busy, format!("{shown} is a mount whose daemon is dead"))
            .hint(format!("reelfs umount {shown}")),
        error => Error::io(format!("open the PVOL {shown}"), error.into()),
    })?;
    if entry.pvol.join(restore_mark(file.uuid)).exists() {
        let message = format!("the PVOL {shown} of group {title} holds a restore that is not finished");
        return Err(Error::new(ErrorKind::WouldOverwrite, message).hint(format!(
            "run the restore again; or, if all is there that you want, remove {}",
            entry.pvol.join(restore_mark(file.uuid)).display()
        )));
    }
    let other = entry.session.as_ref().is_some_and(|last| Identity::of(&root).is_ok_and(|now| now != last.identity));
    let empty = std::fs::read_dir(&entry.pvol).is_ok_and(|mut entries| entries.next().is_none());
    if other && empty {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the PVOL {shown} of group {title} is empty and not the directory that it was"),
        )
        .hint("is its disk mounted?"));
    }
    Ok(root)
}

/// Why a group or a volume of it cannot be opened, as a sentence with an exit code.
pub(crate) fn open_error(file: &GroupFile, entry: Option<&VolumeEntry>, error: OpenError) -> Error {
    let name = entry.map_or_else(|| file.name.to_string(), |entry| file.title(entry));
    let pvol = entry.map_or_else(String::new, |entry| entry.pvol.display().to_string());
    match error {
        OpenError::Journal(error @ JournalError::Damaged { .. }) => {
            Error::new(ErrorKind::Damaged, format!("the journal of group {name} is damaged"))
                .because(error)
                .hint(format!("where a tape holds the record: reelfs journal repair {} --dry-run", file.name))
        }
        OpenError::Journal(error) => Error::from(error),
        OpenError::NoGenerations => Error::usage(format!("the PVOL {pvol}: {error}"))
            .hint("ext4, XFS, btrfs and tmpfs serve; overlayfs, NFS and FUSE do not"),
        OpenError::Changed { .. } => {
            Error::new(ErrorKind::WouldOverwrite, format!("the PVOL of group {name}: {error}"))
                .hint("without --strict the changes are adopted into the journal")
        }
        OpenError::Volume { what, source: Errno::NOSPC } => {
            Error::io(format!("{what} of group {name}"), Errno::NOSPC.into())
                .hint(format!("make room on the disk of {pvol} without editing files there, then again"))
        }
        OpenError::Volume { what, source } => Error::io(format!("{what} of group {name}"), source.into()),
    }
}

/// One sentence for each thing that happened while nobody was looking.
fn tell(name: &str, opened: &Opened, output: &Output) {
    if let Some(reason) = opened.replaced {
        let why = match reason {
            NewEpoch::OtherVolume => "the PVOL is another directory than it was",
            NewEpoch::PowerCut => "the machine stopped without closing the PVOL, and nobody knows what it lost",
            NewEpoch::RingGone => "the memory with what was journaled last is gone, and nobody knows what was in it",
            NewEpoch::DiskRefused => "the disk of the PVOL refused what had been written to it, and nobody knows what",
            NewEpoch::ClockWentBack => "the clock shows a time before the PVOL was last closed",
            NewEpoch::CutOff => "an opening of the PVOL was cut off when it had begun a new epoch",
            NewEpoch::TooMuchChanged => "more changed behind the mount than the journal can take",
        };
        output.warn(format!("{name}: {why}: epoch {} begins, and the next export writes a new base", opened.epoch));
    }
    if let (Some(lost), Some(recovered)) = (opened.lost, opened.recovered) {
        let why = match lost {
            Lost::PowerCut => "the machine stopped without closing the PVOL",
            Lost::RingGone => "the memory with what was journaled last is gone",
            Lost::DiskRefused => "the disk of the PVOL refused what had been written to it",
        };
        let redone = count(recovered.redone, "change");
        output.note(format!("{name}: {why}: {redone} of the journal done again on the PVOL"));
        if recovered.suspended {
            output.warn(format!("{name}: the journal has no room for what may differ: the pair is suspended"));
            output.note(format!("bring it back: reelfs pair resync {name}"));
        } else if recovered.told > 0 {
            let told = count(recovered.told, "object");
            let bytes = crate::size::Size(recovered.told_bytes);
            output.note(format!("{name}: {told} that may differ from the journal told again, {bytes}"));
        }
        if recovered.left > 0 {
            let left = count(recovered.left, "file");
            output.warn(format!("{name}: {left} changed since the power came back: left as they are now"));
        }
    } else if let Some(recovered) = opened.recovered {
        output.note(format!(
            "{name}: recovered after an unclean stop: {} changes finished, {} amended, {} announced",
            recovered.finished, recovered.amended, recovered.announced
        ));
    }
    if !opened.adopted.is_empty() {
        output.note(format!(
            "{name}: changed behind the mount and adopted: {} and {}, {}",
            count(opened.adopted.directories, "directory"),
            count(opened.adopted.files, "file"),
            crate::size::Size(opened.adopted.bytes)
        ));
    }
}
