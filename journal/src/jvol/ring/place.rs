//! Where the ring of a journal volume is: a link beside the journal volume says so, from before the first record that goes
//! through it until nothing of it is needed any more.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use uuid::Uuid;

use super::super::file::VolumeFile;
use super::super::geometry::JvolGeometry;
use super::header::HEADER_LEN;
use super::{Header, Lengths, Place, Ring};
use crate::JournalError;
use crate::disk::{self, Label, Operation};
use crate::map::MappedFile;

/// What `statfs(2)` calls a file system in memory.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// How long a killed process may take to end (10 s).
const LOOKS: u32 = 1_000;
const BETWEEN: Duration = Duration::from_millis(10);

/// What the last process left.
#[derive(Debug)]
pub(in crate::jvol) enum Left {
    /// Nothing, or what another boot of the machine or another journal volume left: as lost as the page cache is.
    Nothing,
    /// Records that are in it may be in no journal volume.
    Ring(Ring),
    /// There was one in this boot of the machine, and it is gone or not whole: records that were in it are lost.
    Lost,
}

/// The link beside a journal volume.
fn link_of(jvol: &Path) -> PathBuf {
    let mut name = jvol.as_os_str().to_owned();
    name.push(".ring");
    name.into()
}

/// The name of the ring of a journal volume in a boot of the machine.
fn name_of(group: Uuid, file: &VolumeFile, boot: Uuid) -> Result<String, JournalError> {
    let metadata = file.file.metadata().map_err(|source| file.error("stat", source))?;
    Ok(format!("{group}-{:x}-{:x}-{boot}.ring", metadata.dev(), metadata.ino()))
}

/// Whether a ring of that name is that of a journal volume, if its inode number is known, whatever number its device has got when
/// it was mounted again.
fn is_name_of(path: &Path, group: Uuid, ino: Option<u64>, boot: Uuid) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let end = ino.map_or_else(|| format!("-{boot}.ring"), |ino| format!("-{ino:x}-{boot}.ring"));
    name.starts_with(&format!("{group}-")) && name.ends_with(&end)
}

/// The boot of the machine.
fn boot() -> Option<Uuid> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok()
}

fn header(file: &VolumeFile, geometry: JvolGeometry, group: Uuid, boot: Uuid) -> Result<Header, JournalError> {
    Ok(Header { group, boot, jvol: (ino_of(file)?, geometry.size), lengths: Lengths::of(geometry) })
}

fn ino_of(file: &VolumeFile) -> Result<u64, JournalError> {
    Ok(file.file.metadata().map_err(|source| file.error("stat", source))?.ino())
}

/// Looks for what the last process left of the ring of a journal volume that begins at `out`, and waits until it has ended.
pub(in crate::jvol) fn look(
    file: &VolumeFile,
    geometry: JvolGeometry,
    group: Uuid,
    out: Place,
) -> Result<Left, JournalError> {
    let link = link_of(&file.path);
    let path = match fs::read_link(&link) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Left::Nothing),
        Err(source) => return Err(JournalError::Io { operation: "read link", path: link, source }),
    };
    let Some(boot) = boot() else { return Ok(Left::Nothing) };
    if !is_name_of(&path, group, Some(ino_of(file)?), boot) {
        return Ok(Left::Nothing);
    }
    let failed = |operation| {
        let path = path.clone();
        move |source: io::Error| JournalError::Io { operation, path, source }
    };
    let ring = match open(&path, false) {
        Ok(ring) => ring,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Left::Lost),
        Err(error) => return Err(failed("open")(error)),
    };
    let owner = file.file.metadata().map_err(|source| file.error("stat", source))?.uid();
    if !is_of(&ring, owner).map_err(failed("stat"))? {
        return Ok(Left::Lost);
    }
    lock_after(&ring).map_err(failed("lock"))?;
    let wanted = header(file, geometry, group, boot)?;
    if ring.metadata().map_err(failed("stat"))?.len() != wanted.lengths.file() {
        return Ok(Left::Lost);
    }
    let map = MappedFile::new(&ring).map_err(failed("map"))?;
    if map.lend(0, HEADER_LEN) != wanted.encode() {
        return Ok(Left::Lost);
    }
    let ring = Ring { map, lengths: wanted.lengths, path, link, _file: ring };
    Ok(if ring.fits(geometry, out) { Left::Ring(ring) } else { Left::Lost })
}

/// Whether a ring was made by us, or by who has the journal volume, and nobody else could read or write it: bytes of others would
/// become records.
fn is_of(ring: &File, owner: u32) -> io::Result<bool> {
    let found = ring.metadata()?;
    let is_theirs = found.uid() == owner || found.uid() == rustix::process::geteuid().as_raw();
    let is_private = found.is_file() && found.mode() & 0o077 == 0;
    Ok(is_theirs && is_private && rustix::fs::fstatfs(ring)?.f_type == TMPFS)
}

/// Removes what the last process left, and what says where it is.
pub(in crate::jvol) fn remove_left(file: &VolumeFile, group: Uuid) -> Result<(), JournalError> {
    discard(&file.path, group, Some(&file.file)).map_err(|source| file.error("remove the ring of", source))
}

/// Removes what is left of the ring of a journal volume that goes, and of whatever was in it. The journal volume may be gone already.
///
/// # Errors
/// What the system says.
pub fn discard_ring(jvol: &Path, group: Uuid) -> io::Result<()> {
    discard(jvol, group, File::open(jvol).ok().as_ref())
}

fn discard(jvol: &Path, group: Uuid, file: Option<&File>) -> io::Result<()> {
    let found = file.map(File::metadata).transpose()?;
    let owner = found.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), MetadataExt::uid);
    let is_ours = |path: &Path| {
        let is_named = boot().is_some_and(|boot| is_name_of(path, group, found.as_ref().map(MetadataExt::ino), boot));
        is_named
            && open(path, false).is_ok_and(|ring| is_of(&ring, owner).unwrap_or(false) && lock(&ring).unwrap_or(false))
    };
    remove(&link_of(jvol), is_ours)
}

/// The link first: a ring that nobody knows of says nothing.
fn remove(link: &Path, is_ours: impl FnOnce(&Path) -> bool) -> io::Result<()> {
    let path = match fs::read_link(link) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_ours = is_ours(&path);
    disk::remove(Label::JvolRingRemove, link)?;
    if !is_ours {
        return Ok(());
    }
    match disk::remove(Label::JvolRingRemove, &path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open(path: &Path, makes: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(makes).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    if makes { disk::create(Label::JvolRingCreate, path, &options) } else { options.open(path) }
}

/// A directory in memory that is ours alone to write.
fn prepare(place: &Path) -> io::Result<()> {
    // nothing is made where it is of no use
    let above = place.parent().unwrap_or(place);
    if rustix::fs::statfs(above)?.f_type != TMPFS {
        return Err(io::ErrorKind::Unsupported.into());
    }
    match fs::DirBuilder::new().mode(0o700).create(place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(place)?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if !is_ours {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// Waits for a process that was killed: its descriptors go one after the other, and that of the group's lock, which we have, may go
/// before that of the ring.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel tells nobody when it is done with a process that is not his child"
)]
fn lock_after(ring: &File) -> io::Result<()> {
    for _ in 0..LOOKS {
        if lock(ring)? {
            return Ok(());
        }
        std::thread::sleep(BETWEEN);
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "the process that had it has not ended: look for it with `fuser -v`"))
}

/// False: somebody has it.
fn lock(ring: &File) -> io::Result<bool> {
    match rustix::fs::flock(ring, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Ring {
    /// Makes the ring of a journal volume in one of these directories, empty at this place in the journal: in the first one
    /// that is in memory and has room.
    ///
    /// # Errors
    /// The last one's; there is no ring then.
    pub(in crate::jvol) fn make(
        places: &[PathBuf],
        file: &VolumeFile,
        geometry: JvolGeometry,
        group: Uuid,
        at: Place,
    ) -> Result<Ring, JournalError> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let boot = boot().ok_or_else(|| file.error("ask for the boot of the machine", missing()))?;
        let (name, header) = (name_of(group, file, boot)?, header(file, geometry, group, boot)?);
        let mut last = file.error("find memory for its ring", missing());
        for place in places {
            let path = place.join(&name);
            match Ring::make_in(place, &path, link_of(&file.path), &header, at) {
                Ok(ring) => return Ok(ring),
                Err(source) => last = JournalError::Io { operation: "make its ring", path, source },
            }
        }
        Err(last)
    }

    fn make_in(place: &Path, path: &Path, link: PathBuf, header: &Header, at: Place) -> io::Result<Ring> {
        prepare(place)?;
        // without a link it is nobody's
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = open(path, true)?;
        // named when nothing can go wrong any more
        let map = Ring::fill(&file, header, at).and_then(|()| MappedFile::new(&file)).and_then(|map| {
            let (directory, name) = (rustix::fs::CWD, std::os::unix::ffi::OsStrExt::as_bytes(link.as_os_str()));
            let operation = || Operation::Create { directory, name: name.into() };
            disk::call(Label::JvolRingName, operation, || symlink(path, &link)).map(|()| map)
        });
        if map.is_err() {
            let _ = fs::remove_file(path);
        }
        Ok(Ring { map: map?, lengths: header.lengths, path: path.to_owned(), link, _file: file })
    }

    fn fill(file: &File, header: &Header, at: Place) -> io::Result<()> {
        lock(file)?;
        let length = header.lengths.file();
        let operation = || Operation::Allocate { file: file.as_fd(), offset: 0, length, may_grow: true };
        // real memory, or a full file system would kill us at a store
        disk::call(Label::JvolRingAllocate, operation, || {
            rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length)
        })?;
        let mut bytes = header.encode().to_vec();
        bytes.resize(super::DRAINED_NEXT * 8 + 8, 0);
        let words = [
            (super::HEAD_POSITION, at.position),
            (super::HEAD_NEXT, at.next),
            (super::DRAINED_POSITION, at.position),
            (super::DRAINED_NEXT, at.next),
        ];
        for (word, value) in words {
            bytes[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        if disk::write_at(Label::JvolRingHeader, file, &bytes, 0)? != bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Something that was in it is lost: so says what is left of it from now on, however far others write the journal.
    pub(in crate::jvol) fn give_up_memory(&self) -> Result<(), JournalError> {
        disk::remove(Label::JvolRingRemove, &self.path).map_err(|source| JournalError::Io {
            operation: "remove",
            path: self.path.clone(),
            source,
        })
    }

    /// Nothing of it is needed any more.
    pub(in crate::jvol) fn remove(&self) -> io::Result<()> {
        remove(&self.link, |path| path == self.path)
    }
}
