//! `reelfs tape list`: the tapes in order, and what is between them.

use reelfs_archive::{Catalog, CatalogTape, GroupSummary};
use serde::Serialize;

use super::{TapePathsArgs, VolumeJson, of_several_volumes, scan, volumes_json, volumes_text};
use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::output::{Output, Tone, count};
use crate::size::Size;
use crate::when::rfc3339;

#[derive(Serialize)]
struct Listed {
    tapes: Vec<Row>,
    gaps: Vec<Gap>,
    damaged: Vec<Broken>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    path: String,
    copies: usize,
    group: String,
    group_uuid: String,
    epoch: u32,
    kind: String,
    volumes: Vec<VolumeJson>,
    first: u64,
    last: u64,
    first_time: String,
    sealed: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Gap {
    group: String,
    epoch: u32,
    first: u64,
    last: u64,
}

#[derive(Serialize)]
struct Broken {
    path: String,
    message: String,
}

pub(super) fn run(arguments: &TapePathsArgs, context: &Context) -> Result<()> {
    let catalog = scan(&arguments.paths)?;
    let output = &context.output;
    let mut gaps = Vec::new();
    for group in catalog.groups() {
        if catalog.groups().len() > 1 {
            output.say(output.paint(Tone::Strong, &format!("group {} ({})", group.name, group.uuid)))?;
        }
        gaps.extend(list_group(&catalog, &group, output)?);
    }
    let damaged: Vec<Broken> = catalog.damaged().iter().map(broken).collect();
    for tape in &damaged {
        output.warn(format!("{}: {}", tape.path, tape.message));
    }
    output.document(&Listed { tapes: catalog.tapes().iter().map(row).collect(), gaps, damaged })?;
    match catalog.damaged().len() as u64 {
        0 => Ok(()),
        number => Err(Error::new(ErrorKind::Incomplete, format!("{} cannot be read", count(number, "tape")))
            .hint("`reelfs tape verify` reads the others whole")),
    }
}

/// Prints the tapes of one group, and gives the gaps.
fn list_group(catalog: &Catalog, group: &GroupSummary, output: &Output) -> Result<Vec<Gap>> {
    let mut gaps = Vec::new();
    let says_volumes = of_several_volumes(catalog).contains(&group.uuid);
    for &epoch in &group.epochs {
        let chain = catalog.chain(group.uuid, epoch);
        let mut missing = chain.gaps.iter().peekable();
        let ours = |tape: &&CatalogTape| tape.head.label.group_uuid == group.uuid && tape.head.label.epoch == epoch;
        for tape in catalog.tapes().iter().filter(ours) {
            while let Some(gap) = missing.next_if(|gap| gap.to < tape.head.first()) {
                output.say(output.paint(Tone::Bad, &format!("  missing: seq {} to {}", gap.from, gap.to)))?;
            }
            let sealed = output.zone.text(tape.head.index.sealed);
            let copies = if tape.copies.is_empty() { "" } else { "  (twice or more)" };
            let (name, bytes) = (tape.head.name(), Size(tape.head.bytes).to_string());
            let several = if says_volumes { format!("  of {}", volumes_text(&tape.head.label)) } else { String::new() };
            output.say(format!("{name}  {bytes:>10}  sealed {sealed}{several}{copies}"))?;
        }
        for clash in &chain.diverged {
            let (left, right) = (clash.left.path.display(), clash.right.path.display());
            output.warn(format!("two histories of group {} at seq {}: {left} and {right}", group.name, clash.seq));
        }
        gaps.extend(chain.gaps.iter().map(|gap| Gap {
            group: group.name.to_string(),
            epoch: epoch.0,
            first: gap.from.0,
            last: gap.to.0,
        }));
    }
    Ok(gaps)
}

fn row(tape: &CatalogTape) -> Row {
    let (head, label) = (&tape.head, &tape.head.label);
    Row {
        name: head.name().to_string(),
        path: tape.path.display().to_string(),
        copies: tape.copies.len() + 1,
        group: label.group.to_string(),
        group_uuid: label.group_uuid.to_string(),
        epoch: label.epoch.0,
        kind: label.kind.to_string(),
        volumes: volumes_json(label),
        first: head.first().0,
        last: head.last().0,
        first_time: rfc3339(label.first_time),
        sealed: rfc3339(head.index.sealed),
        bytes: head.bytes,
    }
}

fn broken(damaged: &reelfs_archive::Damaged) -> Broken {
    Broken { path: damaged.path.display().to_string(), message: damaged.error.to_string() }
}
