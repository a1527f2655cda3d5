//! What the mount says about an object in extended attributes that no listing shows, so that nobody copies them.

use std::ffi::OsStr;

use reelfs_volume::Primary;
use rustix::io::{Errno, Result};

use crate::control::Control;

/// All of their names begin so; nobody sets or removes one.
const PREFIX: &[u8] = b"user.reelfs.";

/// Whether a name is one of ours, whatever the object itself has.
pub(crate) fn is_about(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX)
}

/// A list of names, each with a NUL behind it, without ours.
pub(crate) fn without_about(names: Vec<u8>) -> Vec<u8> {
    if !names.windows(PREFIX.len()).any(|window| window == PREFIX) {
        return names;
    }
    names.split_inclusive(|&byte| byte == 0).filter(|name| !name.starts_with(PREFIX)).flatten().copied().collect()
}

/// The value.
///
/// # Errors
/// `ENODATA`: there is none of that name; `ESTALE`: the object has no name any more.
pub(crate) fn about(control: &Control, primary: &Primary, ino: u64, name: &OsStr) -> Result<Vec<u8>> {
    match name.as_encoded_bytes().strip_prefix(PREFIX) {
        Some(b"seq") => Ok(primary.jvol().pointers().next.previous().to_string().into_bytes()),
        Some(b"pair") => Ok(control.pair().as_bytes().to_vec()),
        Some(b"backend") => Ok(primary.backend(ino)?.into_encoded_bytes()),
        _ => Err(Errno::NODATA),
    }
}
