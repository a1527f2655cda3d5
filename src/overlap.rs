//! Directories that must not lie in one another: what the mount journals must not be where the journal goes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The path without symbolic links, `.` and `..`; parts at its end that do not exist yet are kept as they are.
///
/// # Errors
/// A part of it cannot be looked at.
pub fn real(path: &Path) -> Result<PathBuf> {
    let fail = |error: io::Error| Error::io(format!("look at {}", path.display()), error);
    let absolute = std::path::absolute(path).map_err(fail)?;
    let mut missing: Vec<OsString> = Vec::new();
    let mut rest = absolute.as_path();
    loop {
        match fs::canonicalize(rest) {
            Ok(real) => return Ok(missing.iter().rev().fold(real, |path, name| path.join(name))),
            // what is not there yet, and a mount whose process is dead, are taken by their names
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotConnected) => {
                match (rest.file_name(), rest.parent()) {
                    (Some(name), Some(parent)) => {
                        missing.push(name.to_owned());
                        rest = parent;
                    }
                    _ => return Err(fail(error)),
                }
            }
            Err(error) => return Err(fail(error)),
        }
    }
}

/// `inner` is `outer` or lies beneath it, under whatever name: bind mounts are seen through.
///
/// # Errors
/// One of them cannot be looked at.
pub fn contains(outer: &Path, inner: &Path) -> Result<bool> {
    let (outer, inner) = (real(outer)?, real(inner)?);
    if inner.starts_with(&outer) {
        return Ok(true);
    }
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let Some(outer) = identity(&outer) else {
        return Ok(false);
    };
    Ok(inner.ancestors().any(|ancestor| identity(ancestor) == Some(outer)))
}

/// Refuses `inner` at or beneath `outer`, with a sentence that names both by what they are.
///
/// # Errors
/// They overlap (exit code 2).
pub fn refuse_inside(outer_what: &str, outer: &Path, inner_what: &str, inner: &Path) -> Result<()> {
    if !contains(outer, inner)? {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{inner_what} {} lies inside {outer_what} {}: it would be journaled into itself",
        inner.display(),
        outer.display()
    ))
    .hint(format!("choose a directory outside {}", outer.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sees_through_links_dots_and_what_is_not_there_yet() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let root = temporary.path();
        fs::create_dir_all(root.join("a/b")).expect("directories");
        fs::create_dir(root.join("ab")).expect("directory");
        symlink(root.join("a/b"), root.join("link")).expect("link");
        let inside = |outer: &str, inner: &str| contains(&root.join(outer), &root.join(inner)).expect("look");
        assert!(inside("a", "a"));
        assert!(inside("a", "a/b"));
        assert!(inside("a", "link"));
        assert!(inside("a", "a/new/newer"));
        assert!(inside("a", "ab/../a/b"));
        assert!(inside("link", "a/b/new"));
        assert!(!inside("a", "ab"));
        assert!(!inside("a/b", "a"));
        assert!(!inside("missing", "a"));
        let error = refuse_inside("the PVOL", &root.join("a"), "the journal", &root.join("a/b")).expect_err("nested");
        assert_eq!(error.code(), 2);
    }
}
