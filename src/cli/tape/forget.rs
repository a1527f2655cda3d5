//! `reelfs tape forget`: the journal keeps nothing any more for a directory of tapes that is gone for good.

use std::path::PathBuf;

use reelfs_journal::{GroupName, Seq};
use serde::Serialize;

use crate::cli::Context;
use crate::consumer::Ask;
use crate::error::{Error, ErrorKind, Result};
use crate::group_file::{GroupFile, Target};
use crate::overlap;
use crate::request::{self, Request};

#[derive(Debug, clap::Args)]
pub(crate) struct TapeForgetArgs {
    /// The group
    pub group: GroupName,
    /// The directory, which need not be there any more
    #[arg(long, value_name = "DIR")]
    pub tapes: PathBuf,
    /// Only say what would be forgotten
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Serialize)]
struct Forgotten<'a> {
    group: &'a GroupName,
    dry_run: bool,
    dir: String,
    /// The last record on its tapes.
    seq: Seq,
}

pub(super) fn run(arguments: &TapeForgetArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let file = GroupFile::load(&group)?;
    let Target { dir, seq, .. } = find(&file, arguments)?;
    let (name, shown, output) = (&arguments.group, dir.display().to_string(), &context.output);
    if !arguments.dry_run {
        let ask = Request::Consumer(Ask::DropTapes { dir });
        request::run::<serde_json::Value>(&group, &ask, output, &mut |_| {})?;
    }
    output.document(&Forgotten { group: name, dry_run: arguments.dry_run, dir: shown.clone(), seq })?;
    let verb = if arguments.dry_run { "would be forgotten" } else { "is forgotten" };
    output.confirm(format!("{name}: {shown} {verb}; its tapes end at seq {seq}, and stay where they are"))?;
    if file.targets.len() == 1 {
        output.confirm(format!(
            "  {name} has no other directory of tapes, so its journal fills up: reelfs base copy {name} --to DIR"
        ))?;
    }
    Ok(())
}

fn find(file: &GroupFile, arguments: &TapeForgetArgs) -> Result<Target> {
    let names = [overlap::real(&arguments.tapes).ok(), Some(arguments.tapes.clone())];
    let found = file.targets.iter().find(|known| names.iter().flatten().any(|name| *name == known.dir));
    found.cloned().ok_or_else(|| {
        let known: Vec<String> = file.targets.iter().map(|target| target.dir.display().to_string()).collect();
        let hint = if known.is_empty() { "it has none".to_owned() } else { format!("it has: {}", known.join(", ")) };
        let message = format!("group {} has no directory of tapes {}", file.name, arguments.tapes.display());
        Error::new(ErrorKind::NotFound, message).hint(hint)
    })
}
