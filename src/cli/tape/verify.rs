//! `reelfs tape verify`: every byte is read, every digest and every record checked; then how the tapes follow each other.

use std::fs::File;
use std::path::{Path, PathBuf};

use reelfs_archive::{Catalog, Chain, Depth, Overlap, SealedTape, TapeError, TapeHead, VerifiedTape};
use reelfs_journal::GroupName;
use serde::Serialize;

use super::{TapePathsArgs, VolumeJson, of_several_volumes, scan, volumes_json, volumes_text};
use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::output::{Tone, count};
use crate::progress::Progress;
use crate::size::Size;

#[derive(Serialize)]
struct Checked {
    path: String,
    ok: bool,
    bytes: u64,
    /// None of a tape that cannot be read.
    volumes: Vec<VolumeJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    tapes: u64,
    damaged: u64,
    gaps: u64,
    bytes: u64,
}

pub(super) fn run(arguments: &TapePathsArgs, context: &Context) -> Result<()> {
    let catalog = scan(&arguments.paths)?;
    let output = &context.output;
    let mut summary = Summary { tapes: 0, damaged: 0, gaps: 0, bytes: 0 };
    let several = of_several_volumes(&catalog);
    let mut tell = |path: &Path, head: Option<&TapeHead>, error: Option<String>| -> Result<()> {
        let bytes = head.map_or(0, |head| head.bytes);
        summary.tapes += 1;
        summary.bytes += bytes;
        summary.damaged += u64::from(error.is_some());
        let shown = path.display();
        let label = head.map(|head| &head.label);
        let of = label.filter(|label| several.contains(&label.group_uuid)).map(volumes_text);
        let of = of.map_or_else(String::new, |volumes| format!("  of {volumes}"));
        match &error {
            None => output.say(format!("{}  {shown}  {}{of}", output.paint(Tone::Good, "ok     "), Size(bytes)))?,
            Some(error) => output.say(format!("{}  {shown}: {error}", output.paint(Tone::Bad, "damaged")))?,
        }
        let checked = Checked {
            path: shown.to_string(),
            ok: error.is_none(),
            bytes,
            volumes: label.map(volumes_json).unwrap_or_default(),
            message: error,
        };
        output.event("verbose_status", &checked)
    };
    let chains = chains(&catalog);
    let mut forks = Vec::new();
    let mut progress = Progress::new(output, "verify");
    for path in files(&catalog) {
        let outcome = verify(&path, &mut |done, total| progress.set(done, total, ""));
        let outcome = outcome.and_then(|tape| {
            forks.extend(parted(&chains, &path, &tape)?);
            Ok(tape)
        });
        let head = outcome.as_ref().ok().map(VerifiedTape::head);
        tell(&path, head, outcome.as_ref().err().map(ToString::to_string))?;
    }
    drop(progress);
    for damaged in catalog.damaged() {
        tell(&damaged.path, None, Some(damaged.error.to_string()))?;
    }
    let diverged = tell_chains(&chains, &forks, context, &mut summary);
    output.event("summary", &summary)?;
    if summary.damaged > 0 {
        let message = format!("{} of {} damaged", summary.damaged, count(summary.tapes, "tape"));
        return Err(
            Error::new(ErrorKind::Damaged, message).hint("take another copy of it, or export to a new directory")
        );
    }
    if diverged {
        return Err(Error::new(ErrorKind::Foreign, "there are two histories of one group among these tapes"));
    }
    Ok(())
}

/// Every file, copies too: each may be the damaged one.
fn files(catalog: &Catalog) -> Vec<PathBuf> {
    let all = catalog.tapes().iter().flat_map(|tape| std::iter::once(&tape.path).chain(&tape.copies));
    all.cloned().collect()
}

fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> std::result::Result<VerifiedTape, TapeError> {
    let file = File::open(path).map_err(|source| TapeError::Io { operation: "open the tape", source })?;
    let tape = SealedTape::open(file)?;
    let bytes = tape.head().bytes;
    tape.verify(Depth::Records, &mut |done| progress(done, bytes))
}

fn chains(catalog: &Catalog) -> Vec<(GroupName, Chain<'_>)> {
    let of_group = |group: reelfs_archive::GroupSummary| {
        let chain = move |epoch| (group.name.clone(), catalog.chain(group.uuid, epoch));
        group.epochs.into_iter().map(chain)
    };
    catalog.groups().into_iter().flat_map(of_group).collect()
}

/// The tapes that begin or end within this one and tell another history.
fn parted<'c>(
    chains: &[(GroupName, Chain<'c>)],
    path: &Path,
    tape: &VerifiedTape,
) -> std::result::Result<Vec<Overlap<'c>>, TapeError> {
    let overlaps = chains.iter().flat_map(|(_, chain)| &chain.overlaps).filter(|overlap| overlap.within.path == path);
    let forks = overlaps.map(|overlap| Ok((!overlap.agrees(tape)?).then_some(*overlap)));
    forks.filter_map(std::result::Result::transpose).collect()
}

/// Gaps are worth a word and no failure: a tape may be elsewhere. Gives whether a history has forked.
fn tell_chains(
    chains: &[(GroupName, Chain<'_>)],
    forks: &[Overlap<'_>],
    context: &Context,
    summary: &mut Summary,
) -> bool {
    for (group, chain) in chains {
        for gap in &chain.gaps {
            summary.gaps += 1;
            context.output.warn(format!("group {group}: seq {} to {} are not here", gap.from, gap.to));
        }
    }
    let mut clashes = Vec::new();
    for (group, chain) in chains {
        clashes.extend(chain.diverged.iter().map(|clash| (group, clash.seq, clash.left, clash.right)));
    }
    clashes
        .extend(forks.iter().map(|fork| (&fork.within.head.label.group, fork.position.seq, fork.end_of, fork.within)));
    for (group, seq, left, right) in &clashes {
        let (left, right) = (left.path.display(), right.path.display());
        context.output.warn(format!("group {group} has diverged at seq {seq}: {left}, {right}"));
    }
    !clashes.is_empty()
}
