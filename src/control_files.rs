//! What is behind the control directory of a mount: status, position and lag of its group, and markers.

use std::ffi::OsStr;
use std::sync::Arc;

use reelfs_fuse::{CONTROL_DIR, ControlFiles, Fact, Told};
use reelfs_journal::{FileTime, Seq, Tags, Timestamp};
use rustix::io::Errno;

use crate::cli::status_document;
use crate::error::{Error, ErrorKind};
use crate::open_group::OpenGroup;
use crate::open_volume::OpenVolume;
use crate::request::{self, Request};
use crate::status::GroupStatus;
use crate::triggers;

/// For a volume that has nothing of that name itself.
pub(crate) fn of(group: &Arc<OpenGroup>, volume: &OpenVolume) -> Option<ControlFiles> {
    let primary = &volume.primary;
    if let Ok(own) = primary.lookup(primary.root(), OsStr::new(CONTROL_DIR)) {
        primary.forget(own.id.ino, 1);
        tracing::warn!("{} has a {CONTROL_DIR} of its own: the mount shows that one", volume.name);
        return None;
    }
    let (ours, theirs, state, name) = (group.clone(), group.clone(), group.clone(), volume.name.clone());
    Some(ControlFiles {
        tell: Box::new(move |fact| tell(&ours, fact)),
        mark: Box::new(move |text| mark(&theirs, text).map_err(refused)),
        pair: Box::new(move || state.state(Some(&name)).word()),
    })
}

fn tell(group: &OpenGroup, fact: Fact) -> rustix::io::Result<Told> {
    let now = group.journal().clock_state().believed;
    let text = match fact {
        Fact::Status => GroupStatus::of(group.dir()).and_then(|status| status_document(&status)).map_err(refused)?,
        Fact::Position => {
            let pointers = group.journal().jvol().pointers();
            format!("seq:{} epoch:{}\n", pointers.next.previous(), group.file().epoch)
        }
        Fact::Lag => {
            let behind = behind_ms(group);
            let since = behind.map_or(Timestamp(0), |ms| Timestamp(now.0.saturating_sub(ms.saturating_mul(1_000_000))));
            return Ok(Told { text: lag(behind).into_bytes(), time: FileTime::from(since) });
        }
    };
    Ok(Told { text: text.into_bytes(), time: FileTime::from(now) })
}

/// A sign and nine digits, always as long: milliseconds, or -1.
fn lag(behind_ms: Option<i64>) -> String {
    format!("{:+010}\n", behind_ms.unwrap_or(-1).min(999_999_999))
}

/// How old the oldest record is that a directory of tapes, a replica or a site lacks; `None` when there is none of them.
fn behind_ms(group: &OpenGroup) -> Option<i64> {
    let file = group.file();
    let tapes = file.targets.iter().map(|target| target.seq);
    let others = file.consumers.iter().map(|consumer| consumer.pointers.already_restored);
    let slowest: Seq = tapes.chain(others).min()?;
    let pointers = group.journal().jvol().pointers();
    let first = slowest.next().max(pointers.out);
    if first >= pointers.next {
        return Some(0);
    }
    // it may have been freed meanwhile
    let age = triggers::age(group, first, &pointers).unwrap_or_default();
    Some(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// The first line is the name, the others are a note.
fn mark(group: &OpenGroup, text: &str) -> Result<(), Error> {
    let (name, note) = text.split_once('\n').unwrap_or((text, ""));
    let (name, note) = (name.to_owned(), note.trim_end().replace('\n', " "));
    let request = Request::Mark { name, note, tags: Tags::default(), freeze: false };
    request::perform(group, &[], &request, &mut |_| {}).map(|_| ())
}

/// There is room for a number alone; the sentence goes to the log.
fn refused(error: Error) -> Errno {
    tracing::warn!(%error, "asked through the control directory");
    match error.kind() {
        ErrorKind::Usage => Errno::INVAL,
        ErrorKind::State | ErrorKind::Busy => Errno::BUSY,
        ErrorKind::JournalFull | ErrorKind::NoSpace => Errno::NOSPC,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_always_as_long() {
        let cases = [(None, "-000000001\n"), (Some(0), "+000000000\n"), (Some(1_234), "+000001234\n")];
        for (behind, text) in cases.into_iter().chain([(Some(i64::MAX), "+999999999\n")]) {
            assert_eq!(lag(behind), text);
        }
    }
}
