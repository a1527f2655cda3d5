//! One component of a path, as bytes.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// A file name: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`. Bytes, not UTF-8. A record never holds a path, so a
/// path cannot escape from its directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// Why some bytes are not a file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No byte at all.
    #[error("a name is empty")]
    Empty,
    /// More than 255 bytes.
    #[error("a name has {0} bytes, more than 255")]
    TooLong(usize),
    /// A slash or a NUL.
    #[error("a name holds a `/` or a NUL")]
    Separator,
    /// `.` or `..`.
    #[error("a name is `.` or `..`")]
    Dots,
}

impl Name {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 255;

    /// Checks the rules.
    ///
    /// # Errors
    /// Which rule is broken.
    pub fn new(bytes: &[u8]) -> Result<Name, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.len() > Self::LEN_MAX => Err(NameError::TooLong(bytes.len())),
            _ if bytes.iter().any(|&byte| byte == b'/' || byte == 0) => Err(NameError::Separator),
            _ => Ok(Name(bytes.into())),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as the operating system's string.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl TryFrom<&OsStr> for Name {
    type Error = NameError;

    fn try_from(name: &OsStr) -> Result<Name, NameError> {
        Name::new(name.as_bytes())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_os_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}
