//! `reelfs tape verify`: every byte is read, every digest and every record checked; then how the tapes follow each other.

use std::fs::File;
use std::path::{Path, PathBuf};

use reelfs_archive::{Catalog, Depth, SealedTape, TapeError};
use serde::Serialize;

use super::{TapePathsArgs, scan};
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
    let mut tell = |path: &Path, bytes: u64, error: Option<String>| -> Result<()> {
        summary.tapes += 1;
        summary.bytes += bytes;
        summary.damaged += u64::from(error.is_some());
        let shown = path.display();
        match &error {
            None => output.say(format!("{}  {shown}  {}", output.paint(Tone::Good, "ok     "), Size(bytes)))?,
            Some(error) => output.say(format!("{}  {shown}: {error}", output.paint(Tone::Bad, "damaged")))?,
        }
        let checked = Checked { path: shown.to_string(), ok: error.is_none(), bytes, message: error };
        output.event("verbose_status", &checked)
    };
    let mut progress = Progress::new(output, "verify");
    for path in files(&catalog) {
        let outcome = verify(&path, &mut |done, total| progress.set(done, total, ""));
        tell(&path, *outcome.as_ref().unwrap_or(&0), outcome.err().map(|error| error.to_string()))?;
    }
    drop(progress);
    for damaged in catalog.damaged() {
        tell(&damaged.path, 0, Some(damaged.error.to_string()))?;
    }
    let diverged = tell_chains(&catalog, context, &mut summary);
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

fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> std::result::Result<u64, TapeError> {
    let file = File::open(path).map_err(|source| TapeError::Io { operation: "open the tape", source })?;
    let tape = SealedTape::open(file)?;
    let bytes = tape.head().bytes;
    tape.verify(Depth::Records, &mut |done| progress(done, bytes))?;
    Ok(bytes)
}

/// Gaps are worth a word and no failure: a tape may be elsewhere. Gives whether a history has forked.
fn tell_chains(catalog: &Catalog, context: &Context, summary: &mut Summary) -> bool {
    let mut diverged = false;
    for group in catalog.groups() {
        for &epoch in &group.epochs {
            let chain = catalog.chain(group.uuid, epoch);
            for gap in &chain.gaps {
                summary.gaps += 1;
                context.output.warn(format!("group {}: seq {} to {} are not here", group.name, gap.from, gap.to));
            }
            for clash in &chain.diverged {
                diverged = true;
                let (left, right) = (clash.left.path.display(), clash.right.path.display());
                context.output.warn(format!("group {} has diverged at seq {}: {left}, {right}", group.name, clash.seq));
            }
        }
    }
    diverged
}
