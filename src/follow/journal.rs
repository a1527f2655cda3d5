//! Following a group on this machine: its journal volume is read directly, up to what the mount process says is settled.

use std::path::Path;
use std::time::Duration;

use reelfs_journal::{HybridClock, Jvol, Position, Seq, Timestamp, VolumeIndex};
use reelfs_volume::{Session, believed_clock};

use super::Source;
use super::stretch::{Held, Stretch};
use crate::consumer::{self, Ask, Consumer, Readable};
use crate::error::{Error, ErrorKind, Result};
use crate::group_file::GroupFile;
use crate::lock::GroupLock;
use crate::open_group::OpenGroup;
use crate::output::Output;
use crate::request::{self, Request};
use crate::state::GroupDir;

/// How often the journal is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// So often in a row somebody else may be at the group, or the mount just ending: for a minute.
const PATIENCE: u32 = 300;

/// The journal of a group, mounted or not.
pub struct JournalSource {
    group: GroupDir,
    volume: VolumeIndex,
    output: Output,
    /// What the last sessions of all volumes were when there was nothing new, while nobody had the group open.
    quiet: Option<(Vec<Option<Session>>, Seq)>,
    failures: u32,
}

/// What came of a look at a group that nobody has mounted.
enum Look<T> {
    Seen(T),
    /// Another reelfs is at it.
    Busy,
    /// It was not closed; opening it settles everything.
    Unclean,
}

impl JournalSource {
    /// Of this volume of the group.
    #[must_use]
    pub fn new(group: GroupDir, volume: VolumeIndex, output: &Output) -> JournalSource {
        JournalSource { group, volume, output: output.clone(), quiet: None, failures: 0 }
    }

    /// The replica is one that the group knows, and stands in its history.
    ///
    /// # Errors
    /// 15 when what it lacks was freed, 21 when it has diverged.
    pub fn enlist(&mut self, consumer: &Consumer) -> Result<()> {
        let file = GroupFile::load(&self.group)?;
        if consumer.epoch > file.epoch {
            let message =
                format!("the replica stands in epoch {}, and group {} in {}", consumer.epoch, file.name, file.epoch);
            return Err(Error::new(ErrorKind::Foreign, message));
        }
        let known = |known: &Consumer| known.id == consumer.id && known.position() == consumer.position();
        if file.consumers.iter().any(known) {
            return Ok(());
        }
        let ask = Request::Consumer(Ask::Enlist { consumer: consumer.clone() });
        request::run(&self.group, &ask, &self.output, &mut |_| {})
    }

    fn unmounted<T>(&self, look: impl FnOnce(GroupFile) -> Result<T>) -> Result<Look<T>> {
        let Ok(_lock) = GroupLock::attempt(&self.group, "reelfs follow")? else {
            return Ok(Look::Busy);
        };
        let file = GroupFile::load(&self.group)?;
        if file.volumes.iter().flat_map(|entry| &entry.session).any(|session| session.clean.is_none()) {
            return Ok(Look::Unclean);
        }
        look(file).map(Look::Seen)
    }

    /// What the group believed of the clock when it was last open, in this boot of the machine, and what follows from it now.
    fn believed(&self, last: Timestamp) -> Option<Timestamp> {
        let now = crate::clock::of_machine().read();
        let believed = believed_clock(self.group.path(), now)?;
        Some(HybridClock::after(believed, last).tick(now))
    }

    fn settle(&self) -> Result<()> {
        OpenGroup::open(&self.group, "reelfs follow", false, &self.output)?.close()
    }

    fn readable(&mut self, after: Seq) -> Result<Option<Readable>> {
        let ask = Request::Consumer(Ask::Window { after });
        match request::ask::<Readable>(&self.group, &ask, &mut |_| {}) {
            Ok(Some(readable)) => return Ok(Some(readable)),
            Ok(None) => {}
            Err(error) => return self.later(error).map(|()| None),
        }
        let quiet = self.quiet.clone();
        let look = self.unmounted(|file| {
            let sessions: Vec<_> = file.volumes.iter().map(|entry| entry.session.clone()).collect();
            if quiet.as_ref().is_some_and(|(known, seq)| (known, *seq) == (&sessions, after)) {
                return Ok((None, sessions));
            }
            let jvol = Jvol::open(&file.journal, file.uuid)?;
            let pointers = jvol.pointers();
            let readable = Readable::of(&jvol, &file, after, pointers.next.previous(), pointers.last_time)?;
            Ok((Some(readable), sessions))
        })?;
        match look {
            Look::Seen((readable, sessions)) => {
                if readable.as_ref().is_none_or(Readable::is_empty) {
                    self.quiet = Some((sessions, after));
                }
                Ok(readable)
            }
            Look::Busy => self.later(Error::new(ErrorKind::Busy, "another reelfs is at the group")).map(|()| None),
            Look::Unclean => self.settle().map(|()| None),
        }
    }

    /// An error that may be gone in a moment, because the mount is coming or going, is passed over for a while.
    fn later(&mut self, error: Error) -> Result<()> {
        let passes = matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::State | ErrorKind::Busy);
        self.failures += 1;
        if passes && self.failures < PATIENCE { Ok(()) } else { Err(error) }
    }
}

impl Source for JournalSource {
    fn next(&mut self, at: &Position) -> Result<Option<Stretch>> {
        loop {
            let failures = self.failures;
            match self.readable(at.seq)? {
                Some(readable) => {
                    self.failures = 0;
                    if readable.is_empty() {
                        return Ok(None);
                    }
                    let held = Held::Journal(Box::new(readable.open()?));
                    let now = readable.now.or_else(|| self.believed(readable.time));
                    return Ok(Some(Stretch { held, last: readable.last, volume: self.volume, now }));
                }
                None if self.failures == failures && self.quiet.as_ref().is_some_and(|(_, seq)| *seq == at.seq) => {
                    self.failures = 0;
                    return Ok(None);
                }
                None => pause(), // it comes or goes, or was settled: look again
            }
        }
    }

    fn report(&mut self, consumer: &Consumer, is_done: bool) -> Result<()> {
        let ask = Request::Consumer(Ask::Report { consumer: consumer.clone() });
        match request::ask::<()>(&self.group, &ask, &mut |_| {}) {
            Ok(Some(())) => return Ok(()),
            Ok(None) if !is_done => return Ok(()),
            Ok(None) => {}
            // what is confirmed later is confirmed as well
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
            Err(error) => return self.later(error),
        }
        let group = self.group.clone();
        let look = self.unmounted(|mut file| {
            consumer::report(&mut file, consumer)?;
            file.store(&group)
        })?;
        match look {
            Look::Seen(()) | Look::Busy | Look::Unclean => Ok(()),
        }
    }

    fn wait(&mut self) {
        pause();
    }
}

/// The group lets go of a replica: nothing is kept for it any more.
///
/// # Errors
/// 10 when it does not know it.
pub fn forget(group: &GroupDir, dir: &Path, output: &Output) -> Result<()> {
    let ask = Request::Consumer(Ask::Dismiss { dir: dir.to_owned() });
    request::run(group, &ask, output, &mut |_| {})
}

/// The time of now, for whoever delays.
#[must_use]
pub fn before(now: Timestamp, delay: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX)))
}

#[expect(clippy::disallowed_methods, reason = "the journal is written by another process, which tells nobody")]
fn pause() {
    std::thread::sleep(EVERY);
}
