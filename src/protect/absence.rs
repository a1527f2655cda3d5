//! Noticing that a directory that was missing has come back.

use std::path::Path;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Calls `back` when something appears on the way to the directory. It is a hint, no more: a disk that is mounted there
/// gives none. Ends when what it returns is dropped; `None` when nothing can be watched.
pub(super) fn watch(dir: &Path, back: impl Fn() + Send + 'static) -> Option<RecommendedWatcher> {
    let above = dir.ancestors().skip(1).find(|path| path.is_dir())?;
    let awaited = dir.to_owned();
    let noticed = move |event: notify::Result<notify::Event>| {
        let appears = |event: &notify::Event| matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_));
        let on_the_way = |event: &notify::Event| event.paths.iter().any(|path| awaited.starts_with(path));
        if event.is_ok_and(|event| appears(&event) && on_the_way(&event)) {
            back();
        }
    };
    let mut watcher = notify::recommended_watcher(noticed)
        .inspect_err(|error| tracing::debug!(%error, "nothing to watch with"))
        .ok()?;
    let watched = watcher.watch(above, RecursiveMode::NonRecursive);
    watched.inspect_err(|error| tracing::debug!(%error, "cannot watch")).ok()?;
    Some(watcher)
}
