//! `reelfs umount`: back when the journal is closed and the process behind the mount has gone.

use std::path::{Path, PathBuf};

use reelfs_journal::GroupName;
use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::mounts::{self, MountEntry};
use crate::request::{self, Request};
use crate::scope::Scope;
use crate::unmount;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  reelfs umount /srv/docs")]
pub(crate) struct UmountArgs {
    /// Where it is mounted
    pub mountpoint: PathBuf,
}

#[derive(Serialize)]
struct Unmounted {
    mountpoint: String,
    group: String,
    clean: bool,
}

/// The group whose name was given instead of its mountpoint.
fn group_called(word: &Path, context: &Context) -> Option<GroupName> {
    let name = word.to_str()?.parse().ok()?;
    context.state.existing(&name).ok().map(|_| name)
}

pub(crate) fn run(arguments: &UmountArgs, context: &Context) -> Result<()> {
    let point = mounts::place(&arguments.mountpoint)?;
    let shown = point.display();
    let entry = mounts::at(&point)?.filter(MountEntry::is_ours).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("no group is mounted at {shown}")).hint(
            match group_called(&arguments.mountpoint, context) {
                Some(name) => format!("{name} is a group, and its mountpoint is asked for: reelfs status {name}"),
                None => "`reelfs status` shows what is mounted where".to_owned(),
            },
        )
    })?;
    let clean = match ask_its_process(&entry, &point, context)? {
        Some(()) => true,
        None => {
            // nobody answers: the process is dead, or belongs to another state directory
            let stale = entry.is_stale();
            if stale {
                unmount::detach(&point)?;
            } else if mounts::at(&point)?.is_some_and(|now| now.id == entry.id) {
                unmount::unmount(&point)?;
            }
            !stale
        }
    };
    let group = entry.source;
    context.output.document(&Unmounted { mountpoint: shown.to_string(), group: group.clone(), clean })?;
    if clean {
        context.output.confirm(format!("{group} is no longer mounted at {shown}"))
    } else {
        context.output.confirm(format!("{shown}: the process behind it was dead; the next mount of {group} recovers"))
    }
}

/// Asks the process behind a mount to end; `None` when it does not answer for this place.
fn ask_its_process(entry: &MountEntry, point: &Path, context: &Context) -> Result<Option<()>> {
    let Ok(pair) = entry.source.parse::<Scope>() else {
        return Ok(None);
    };
    let group = context.state.group(&pair.group);
    let Some(mut connection) = request::connect(&group)? else {
        return Ok(None);
    };
    let live: crate::daemon::Live = request::converse(&group, &mut connection, &Request::Status, &mut |_| {})?;
    if live.mounts.iter().all(|mount| mount.mountpoint != point) {
        return Ok(None);
    }
    let request = Request::Umount { mountpoint: Some(point.to_owned()) };
    request::converse::<()>(&group, &mut connection, &request, &mut |_| {})?;
    if live.mounts.len() == 1 {
        connection.wait_closed(); // the process ends with its last mount
    }
    Ok(Some(()))
}
