//! `reelfs wait --applied`: back when replicas and far sites have applied a record.

use std::path::Path;
use std::time::Duration;

use reelfs_journal::Seq;
use serde::Serialize;

use crate::cli::Context;
use crate::consumer::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::group_file::GroupFile;
use crate::overlap;
use crate::point::Point;
use crate::restore::{Deck, Live};
use crate::scope::Scope;
use crate::state::GroupDir;
use crate::status::GroupStatus;

/// Who has applied what was waited for.
#[derive(Serialize)]
pub(in crate::cli) struct Applied {
    group: String,
    seq: u64,
    consumers: Vec<String>,
}

/// The record that is meant.
///
/// # Errors
/// 2 for a point of another kind, 10 when there is no such marker.
pub(in crate::cli) fn resolve(group: &GroupDir, text: &str, context: &Context) -> Result<Seq> {
    let file = GroupFile::load(group)?;
    let marker = |name: &str| file.last_marker.as_ref().filter(|last| last.name == name).map(|last| last.seq);
    match context.point(text)? {
        Point::Seq(seq) => Ok(seq),
        Point::Latest => {
            let status = GroupStatus::of(group)?;
            let last = status.journal.map(|journal| journal.last);
            last.ok_or_else(|| Error::new(ErrorKind::Busy, format!("group {} is busy", file.name)))
        }
        Point::Marker { name, back: 0 } if marker(&name).is_some() => Ok(marker(&name).unwrap_or(Seq::ZERO)),
        Point::Marker { name, back } => {
            let live = Live::open(group, &file)?;
            let tapes: Vec<_> = file.targets.iter().map(|target| target.dir.clone()).collect();
            let deck = Deck::of_group(
                &tapes,
                (Scope::group(file.name.clone()), file.uuid),
                &file.label_volumes(),
                live,
                &mut |_, _| {},
            )?;
            let marks = deck.histories.iter().rev().flat_map(|history| history.marks.iter().rev());
            let found = marks.filter(|mark| mark.name == name).nth(usize::try_from(back).unwrap_or(usize::MAX));
            let missing = || Error::new(ErrorKind::NotFound, format!("{} has no marker {name}", file.name));
            Ok(found.ok_or_else(missing)?.seq)
        }
        _ => Err(Error::usage(format!("--applied takes latest, seq:N or marker:NAME, not {text}"))),
    }
}

/// Waits until all consumers, or the one of `dir`, have applied the record.
///
/// # Errors
/// 16 when nobody follows, 17 when the time is over.
pub(in crate::cli) fn wait(
    group: &GroupDir,
    seq: Seq,
    dir: Option<&Path>,
    timeout: Duration,
    context: &Context,
) -> Result<Applied> {
    let dir = dir.map(overlap::real).transpose()?;
    // not the wall clock, which may step
    let until = context.clock.read().boot.saturating_add(timeout);
    loop {
        let file = GroupFile::load(group)?;
        let meant = |known: &&Consumer| dir.as_ref().is_none_or(|dir| known.dir == *dir);
        let consumers: Vec<&Consumer> = file.consumers.iter().filter(meant).collect();
        if consumers.is_empty() {
            let who = dir.as_ref().map_or_else(String::new, |dir| format!(" at {}", dir.display()));
            return Err(Error::new(ErrorKind::State, format!("nobody{who} follows group {}", file.name))
                .hint(format!("reelfs follow {} --to DIR, or reelfs tape ack {} --upto N", file.name, file.name)));
        }
        let behind = consumers.iter().find(|known| known.pointers.already_restored < seq);
        let Some(behind) = behind else {
            let consumers = consumers.iter().map(|known| known.dir.display().to_string()).collect();
            return Ok(Applied { group: file.name.to_string(), seq: seq.0, consumers });
        };
        if context.clock.read().boot >= until {
            let (who, at) = (behind.dir.display(), behind.pointers.already_restored);
            let waited = humantime::format_duration(timeout);
            let message = format!("record {seq} was not applied within {waited}: {who} is at {at}");
            return Err(Error::new(ErrorKind::TimedOut, message).hint(format!("reelfs journal show {}", file.name)));
        }
        super::pause();
    }
}
