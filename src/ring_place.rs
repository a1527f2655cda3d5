//! Where the ring before a journal is: in memory that outlives the process, and nobody else's.

use std::path::PathBuf;

/// Directories in the order in which they are tried: `/run/reelfs` for root, `$XDG_RUNTIME_DIR/reelfs` for others, then
/// `/dev/shm/reelfs-UID`.
#[must_use]
pub fn places() -> Vec<PathBuf> {
    let user = rustix::process::geteuid();
    let runtime = if user.is_root() {
        Some(PathBuf::from("/run/reelfs"))
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map(|path| PathBuf::from(path).join("reelfs"))
    };
    let shared = PathBuf::from(format!("/dev/shm/reelfs-{}", user.as_raw()));
    runtime.filter(|path| path.is_absolute()).into_iter().chain([shared]).collect()
}
