//! `reelfs tape ack`: a far site says what it has applied.

use std::path::PathBuf;

use reelfs_journal::{GroupName, Seq};
use serde::Serialize;

use crate::cli::{Context, wait};
use crate::consumer::{Ask, Consumer};
use crate::error::{Error, Result};
use crate::group_file::GroupFile;
use crate::overlap;
use crate::request::{self, Request};

#[derive(Debug, clap::Args)]
pub(crate) struct TapeAckArgs {
    /// The group
    pub group: GroupName,
    /// The last record applied there: N, seq:N or marker:NAME
    #[arg(long, value_name = "POINT")]
    pub upto: String,
    /// The directory of the tapes; may be left out when the group has one
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Whether journal records stay from now on until they are acknowledged; otherwise a verified tape is enough
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"], hide_possible_values = true)]
    pub require: Option<String>,
}

#[derive(Serialize)]
struct Acknowledged {
    group: String,
    dir: String,
    already_read: u64,
    already_restored: u64,
    required: bool,
}

pub(super) fn run(arguments: &TapeAckArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let upto = match arguments.upto.parse::<u64>() {
        Ok(number) => Seq(number),
        Err(_) => wait::applied::resolve(&group, &arguments.upto, context)?,
    };
    let targets = GroupFile::load(&group)?.targets;
    let dir = match (&arguments.from, targets.as_slice()) {
        (Some(dir), _) => overlap::real(dir)?,
        (None, [one]) => one.dir.clone(),
        (None, several) => {
            let known: Vec<String> = several.iter().map(|target| target.dir.display().to_string()).collect();
            let message = format!("{} has {} directories of tapes: say which", arguments.group, several.len());
            return Err(Error::usage(message).hint(format!("--from one of: {}", known.join(", "))));
        }
    };
    let required = arguments.require.as_ref().map(|word| word == "yes");
    let ask = Request::Consumer(Ask::Acknowledge { dir, upto, required });
    let site: Consumer = request::run(&group, &ask, &context.output, &mut |_| {})?;
    let restored = site.pointers.already_restored;
    context.output.confirm(format!("{} is applied up to seq {restored}", site.dir.display()))?;
    context.output.document(&Acknowledged {
        group: arguments.group.to_string(),
        dir: site.dir.display().to_string(),
        already_read: site.pointers.already_read.0,
        already_restored: restored.0,
        required: site.holds,
    })
}
