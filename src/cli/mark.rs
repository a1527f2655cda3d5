//! `reelfs mark`: names this moment.

use reelfs_journal::{GroupName, Tags};
use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, Result};
use crate::point::check_marker_name;
use crate::request::{self, Marked, Request};
use crate::when::rfc3339;

const EXAMPLES: &str = "\
Example:
  reelfs mark docs before-upgrade --note 'pg 17' --tag release=17 --tag by=cron
  reelfs restore --tapes DIR --at marker:before-upgrade --to ~/back";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MarkArgs {
    /// The group
    pub group: GroupName,
    /// What the moment is called; names may repeat, the newest counts
    pub name: String,
    /// A line about it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// What a program wants to find again; may be given up to 32 times
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    pub tags: Vec<String>,
    /// Let changes under way end first, and no new one begin, for the moment in which the marker is placed
    #[arg(long)]
    pub freeze: bool,
}

#[derive(Serialize)]
struct MarkedAt<'a> {
    group: &'a GroupName,
    marker: &'a str,
    seq: u64,
    time: String,
}

pub(crate) fn run(arguments: &MarkArgs, context: &Context) -> Result<()> {
    check_marker_name(&arguments.name)?;
    let tags = tags(&arguments.tags)?;
    let group = context.state.existing(&arguments.group)?;
    let (name, note) = (arguments.name.clone(), arguments.note.clone());
    let request = Request::Mark { name, note, tags, freeze: arguments.freeze };
    let marked: Marked = request::run(&group, &request, &context.output, &mut |_| {})?;
    told(arguments, marked, context)
}

fn told(arguments: &MarkArgs, marked: Marked, context: &Context) -> Result<()> {
    context.output.document(&MarkedAt {
        group: &arguments.group,
        marker: &arguments.name,
        seq: marked.seq.0,
        time: rfc3339(marked.time),
    })?;
    let at = context.output.zone.text(marked.time);
    context.output.confirm(format!("marker {} at {at} seq {}", arguments.name, marked.seq))
}

fn tags(words: &[String]) -> Result<Tags> {
    let usage = |what: String| Error::usage(what).hint("write --tag KEY=VALUE, once for each key");
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(usage(format!("--tag `{}` has no `=`", word.escape_debug()))),
    };
    let pairs: Vec<(String, String)> = words.iter().map(pair).collect::<Result<_>>()?;
    Tags::new(pairs).map_err(|error| usage(format!("--tag: {error}")))
}
