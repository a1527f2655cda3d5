//! System calls that rustix does not offer; the crate's only unsafe code.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use reelfs_journal::checksum;
use rustix::io::{Errno, Result};

/// Largest file handle that the kernel gives (`MAX_HANDLE_SZ`), in bytes.
const HANDLE_MAX: usize = 128;

#[repr(C)]
struct FileHandle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    handle: [u8; HANDLE_MAX],
}

/// A 32-bit fingerprint of an object's generation, from its kernel file handle (`name_to_handle_at(2)`): CRC-32C over the
/// whole handle. Handles of one inode number differ in the 32-bit generation alone, and a CRC tells any two messages of
/// one length apart that differ within 32 consecutive bits; so two generations never share a fingerprint.
///
/// With an empty `name` the object is `directory` itself, which may be an `O_PATH` descriptor.
///
/// # Errors
/// `EOPNOTSUPP` when the file system has no handles.
pub fn generation(directory: impl AsFd, name: &[u8]) -> Result<u32> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let mut handle = FileHandle { bytes: 128, kind: 0, handle: [0; HANDLE_MAX] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call, `name` is NUL-terminated, and `handle` has room for the
    // `HANDLE_MAX` bytes that its `bytes` field announces.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            directory.as_fd().as_raw_fd(),
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            flags,
        )
    };
    if result != 0 {
        return Err(last_error());
    }
    let length = usize::try_from(handle.bytes).map_err(|_| Errno::OVERFLOW)?.min(HANDLE_MAX);
    Ok(checksum::crc32c_append(checksum::crc32c(&handle.kind.to_le_bytes()), &handle.handle[..length]))
}

/// Gives the calling thread a file mode mask of its own (`unshare(CLONE_FS)`), so that setting it does not race with
/// other threads.
///
/// # Errors
/// What `unshare(2)` says.
pub fn own_umask() -> Result<()> {
    // SAFETY: CLONE_FS only detaches the calling thread's umask, root and working directory from its siblings'.
    if unsafe { libc::unshare(libc::CLONE_FS) } == 0 { Ok(()) } else { Err(last_error()) }
}

#[repr(C)]
struct FsUuid {
    length: u8,
    uuid: [u8; 16],
}

/// The file system's UUID (`FS_IOC_GETFSUUID`), where kernel and file system tell it.
#[must_use]
pub fn file_system_uuid(file: impl AsFd) -> Option<[u8; 16]> {
    /// `_IOR(0x15, 0, struct fsuuid2)`, 17 bytes.
    const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;
    let mut uuid = FsUuid { length: 0, uuid: [0; 16] };
    // SAFETY: the ioctl writes at most the 17 bytes of `FsUuid`, as its number says.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_GETFSUUID, &raw mut uuid) };
    (result == 0 && uuid.length == 16).then_some(uuid.uuid)
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Keeps the allocator from giving large buffers out of memory that it has used before. glibc does once one was freed, as that is in
/// which a mount shakes hands with the kernel, and then writes zeros to all of it: 16 MiB for each thread that reads requests, or
/// not, by chance. Elsewhere this does nothing.
pub fn keep_large_buffers_apart() {
    #[cfg(target_env = "gnu")]
    {
        // more than any read or write, less than a buffer of fuser's; what is kept for smaller ones stays what it would be
        const APART: libc::c_int = 8 << 20;
        for (option, value) in [(libc::M_MMAP_THRESHOLD, APART), (libc::M_TRIM_THRESHOLD, 4 * APART)] {
            // SAFETY: mallopt(3) takes two numbers, and may be called at any time.
            let is_set = unsafe { libc::mallopt(option, value) } == 1;
            tracing::debug!(is_set, option, value, "the allocator");
        }
    }
}
