//! `reelfs tape export`: what is not yet in a directory goes onto tapes there.

use reelfs_journal::GroupName;
use serde::Serialize;

use super::TapeExportArgs;
use crate::cli::Context;
use crate::error::Result;
use crate::export::{Exported, Made};
use crate::output::Output;
use crate::progress::Progress;
use crate::request::{self, Request};
use crate::size::Size;
use crate::when::rfc3339;

pub(super) fn run(arguments: &TapeExportArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let request = Request::Export { to: crate::cli::absolute(&arguments.to)? };
    let mut progress = Progress::records(&context.output, "export");
    let mut step = |step: request::Step| progress.set(step.done, step.total, "");
    let exported: Exported = request::run(&group, &request, &context.output, &mut step)?;
    drop(progress);
    report(&arguments.group, &exported, context)
}

#[derive(Serialize)]
struct MadeTapes<'a> {
    group: &'a GroupName,
    tapes: Vec<MadeTape>,
    warnings: &'a [String],
}

/// See [`made_tape`].
#[derive(Serialize)]
pub(in crate::cli) struct MadeTape {
    name: String,
    path: String,
    kind: String,
    first: u64,
    last: u64,
    bytes: u64,
    sealed: String,
}

/// Each tape made on a line, then the warnings.
pub(in crate::cli) fn report(group: &GroupName, exported: &Exported, context: &Context) -> Result<()> {
    let output = &context.output;
    for made in &exported.tapes {
        output.say(line(made, output))?;
    }
    if exported.tapes.is_empty() {
        output.confirm(format!("nothing new in group {group}"))?;
    }
    for warning in &exported.warnings {
        output.warn(warning);
    }
    output.document(&MadeTapes {
        group,
        tapes: exported.tapes.iter().map(made_tape).collect(),
        warnings: &exported.warnings,
    })
}

/// A tape in one line, with the local time until which it vouches.
pub(in crate::cli) fn line(made: &Made, output: &Output) -> String {
    let (name, kind, bytes) = (file_name(made), made.kind, Size(made.bytes));
    let (first, last, sealed) = (made.first, made.last, output.zone.text(made.sealed));
    format!("{name}  {kind}  seq {first} to {last}  {bytes}  sealed {sealed}")
}

/// A tape as it is told to programs.
pub(in crate::cli) fn made_tape(made: &Made) -> MadeTape {
    MadeTape {
        name: file_name(made),
        path: made.path.display().to_string(),
        kind: made.kind.to_string(),
        first: made.first.0,
        last: made.last.0,
        bytes: made.bytes,
        sealed: rfc3339(made.sealed),
    }
}

fn file_name(made: &Made) -> String {
    made.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
