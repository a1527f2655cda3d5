//! How many tapes are kept in a directory: what a restore from the oldest kept base needs always stays, and so does what a site or a
//! replica has not applied.

use std::fs::File;
use std::path::{Path, PathBuf};

use reelfs_archive::{Catalog, CatalogTape};
use reelfs_journal::disk::{self, Label};
use reelfs_journal::{Epoch, Seq, Timestamp};
use serde::{Deserialize, Serialize};

use crate::consumer::{Consumer, Way};
use crate::error::{Error, Result};
use crate::export::tape_error;
use crate::group_file::GroupFile;
use crate::points::Base;
use crate::restore::{Deck, EpochTapes};
use crate::scope::Scope;
use crate::settings::Settings;

/// What was removed from a directory, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The tapes, oldest first.
    pub tapes: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
    /// Tapes beyond the limits that stay, because a kept one stands on them.
    pub needed: u64,
    /// Tapes beyond the limits that stay, each with the reason, oldest first.
    #[serde(default)]
    pub kept: Vec<Kept>,
    /// Base tapes that do not read back, and on which all would stand that stays: what is older is not removed.
    #[serde(default)]
    pub damaged: Vec<PathBuf>,
}

/// A tape that lies beyond the limits and stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The tape.
    pub tape: PathBuf,
    /// Why it stays.
    pub why: String,
}

/// Why a tape of a directory may not go, whatever the settings say: somebody whose progress the group knows has not applied it. A
/// site applies the tapes of its directory; a replica whatever follows in its epoch, from wherever it gets it.
fn waited_for(file: &GroupFile, dir: &Path, tape: &CatalogTape) -> Option<String> {
    let (epoch, last) = end(tape);
    let lacks = |known: &&Consumer| {
        let concerns = match known.way {
            Way::Tapes => known.dir == dir,
            Way::Journal => known.epoch == epoch,
        };
        concerns && known.pointers.already_restored < last
    };
    let known = file.consumers.iter().filter(lacks).min_by_key(|known| known.pointers.already_restored)?;
    let (who, restored) = (known.way.word(), known.pointers.already_restored);
    Some(match known.way {
        Way::Tapes => format!("the {who} has acknowledged only up to record {restored}"),
        Way::Journal => format!("the {who} {} has applied only up to record {restored}", known.dir.display()),
    })
}

/// Where a tape ends in the history of its group.
fn end(tape: &CatalogTape) -> (Epoch, Seq) {
    (tape.head.label.epoch, tape.head.last())
}

/// Works out what the settings of a group let go of in a directory, called by its real path as the group knows it.
///
/// # Errors
/// The tapes there cannot be read.
pub fn plan(file: &GroupFile, dir: &Path, now: Timestamp) -> Result<Pruned> {
    let dirs = [dir.to_owned()];
    let catalog = Catalog::scan(&dirs).map_err(|error| tape_error("read the tapes", error))?;
    let mut tapes: Vec<&CatalogTape> =
        catalog.tapes().iter().filter(|tape| tape.head.label.group_uuid == file.uuid).collect();
    tapes.sort_by_key(|tape| end(tape));
    let within = within(&file.settings, &tapes, now);
    // the newest tape is always wanted
    let Some(oldest) = tapes.get(within.min(tapes.len().saturating_sub(1))) else { return Ok(Pruned::default()) };
    let deck = Deck::open(&dirs, Some(&Scope::group(file.name.clone())), &mut |_, _| {})?;
    let epoch = oldest.head.label.epoch;
    // another group may have the name
    let known = deck.epoch(epoch).ok().filter(|_| deck.uuid == file.uuid);
    let Some((at_hand, history)) = known else { return Ok(Pruned::default()) };
    // nothing is let go of when what stays could not be restored: each volume that was there then needs its base
    let last = oldest.head.last();
    let bases: Option<Vec<&Base>> = history.alive(last).map(|volume| history.base_for(volume, last)).collect();
    let bases = bases.unwrap_or_default();
    let Some(began) = bases.iter().map(|base| base.began).min() else { return Ok(Pruned::default()) };
    let is_needed = |tape: &CatalogTape| tape.head.label.epoch >= epoch && end(tape) >= (epoch, began);
    let mut pruned = Pruned::default();
    for tape in tapes.iter().take(within) {
        let why = if is_needed(tape) {
            pruned.needed += 1;
            Some(format!("what is kept stands on it: a restore to record {last} begins at record {began}"))
        } else {
            waited_for(file, dir, tape)
        };
        match why {
            Some(why) => pruned.kept.push(Kept { tape: tape.path.clone(), why }),
            None => {
                pruned.tapes.push(tape.path.clone());
                pruned.bytes += tape.head.bytes;
            }
        }
    }
    if !pruned.tapes.is_empty()
        && let Some((name, error)) = unreadable(&deck, at_hand, &bases)
    {
        let why = format!("the base of what would stay, {name}, does not read back: {error}");
        tracing::warn!("no tape is removed: {why}");
        pruned.needed += pruned.tapes.len() as u64;
        pruned.damaged.push(dir.join(name));
        let spared = pruned.tapes.drain(..).map(|tape| Kept { tape, why: why.clone() });
        pruned.kept.splice(0..0, spared);
        pruned.bytes = 0;
    }
    Ok(pruned)
}

/// The first of these bases whose tape, read whole, is not what was written: update tapes are read whenever a deck is opened.
fn unreadable(deck: &Deck, at_hand: &EpochTapes, bases: &[&Base]) -> Option<(String, Error)> {
    let tapes = bases.iter().filter_map(|base| {
        at_hand.bases.iter().find(|tape| base.tape.as_ref().is_some_and(|name| tape.name() == *name))
    });
    tapes.map(|tape| (tape, deck.verified(tape, &mut |_| {}))).find_map(|(tape, read)| Some((tape.name(), read.err()?)))
}

/// How many of the oldest tapes lie beyond a limit.
fn within(settings: &Settings, tapes: &[&CatalogTape], now: Timestamp) -> usize {
    let mut bytes = 0;
    let too_many = |rank: u64| settings.keep_tapes.is_some_and(|most| rank > most);
    let too_old = |tape: &CatalogTape| {
        let age = now.0.saturating_sub(tape.head.index.sealed.0) / Timestamp::SECOND;
        settings.keep_age.is_some_and(|most| u64::try_from(age).is_ok_and(|age| age > most.0))
    };
    for (index, tape) in tapes.iter().enumerate().rev() {
        bytes += tape.head.bytes;
        let rank = (tapes.len() - index) as u64;
        if too_many(rank) || too_old(tape) || settings.keep_size.is_some_and(|most| bytes > most) {
            return index + 1;
        }
    }
    0
}

/// Removes what the settings let go of, oldest first, so that what an interruption leaves is a chain.
///
/// # Errors
/// The tapes cannot be read or removed.
pub fn prune(file: &GroupFile, dir: &Path, now: Timestamp, dry_run: bool) -> Result<Pruned> {
    let pruned = plan(file, dir, now)?;
    if dry_run || pruned.tapes.is_empty() {
        return Ok(pruned);
    }
    for tape in &pruned.tapes {
        disk::remove(Label::TapePrune, tape).map_err(|error| Error::io(format!("remove {}", tape.display()), error))?;
        tracing::info!(tape = %tape.display(), "no longer kept");
    }
    let synced = File::open(dir).and_then(|dir| Ok(disk::sync(Label::TapePruneSync, dir)?));
    synced.map_err(|error| Error::io(format!("sync {}", dir.display()), error))?;
    Ok(pruned)
}

/// Whether anything is ever let go of.
#[must_use]
pub fn is_limited(settings: &Settings) -> bool {
    settings.keep_tapes.is_some() || settings.keep_age.is_some() || settings.keep_size.is_some()
}
