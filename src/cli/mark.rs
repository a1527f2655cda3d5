//! `reelfs mark`: names this moment.

use std::time::Duration;

use reelfs_journal::{GroupName, Tags};
use serde::Serialize;

use crate::cli::{Context, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::hook::Hook;
use crate::point::check_marker_name;
use crate::request::{self, Marked, Request};
use crate::when::rfc3339;

const EXAMPLES: &str = "\
Examples:
  reelfs mark docs before-upgrade --note 'pg 17' --tag release=17 --tag by=cron
  reelfs restore --tapes DIR --at marker:before-upgrade --to ~/back

A hook (--exec) brings a database to rest and prints the line READY. Then the marker is placed,
and the hook's input ends: it lets the database go on, and ends with exit code 0. Whatever else it
says or does before READY, there is no marker. It finds REELFS_GROUP and REELFS_MARKER in its
environment.

  SQLite: nobody else writes between BEGIN and COMMIT
  reelfs mark app nightly --freeze --exec \\
    \"sqlite3 /srv/app/app.db 'BEGIN IMMEDIATE' '.shell echo READY' '.shell cat' 'COMMIT'\"

  PostgreSQL: a checkpoint makes its recovery after a restore short
  reelfs mark db nightly --freeze --exec 'psql -c CHECKPOINT >&2 && echo READY && cat'";

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
    /// Run `sh -c CMD`, wait for its line READY, place the marker, close its input and wait for its end
    #[arg(long, value_name = "CMD")]
    pub exec: Option<String>,
    /// How long the hook may take until READY, and again until its end
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::settings::parse_duration)]
    #[arg(requires = "exec")]
    pub timeout: Duration,
    /// Come back only when every replica and site has applied the marker
    #[arg(long, value_name = "applied", value_parser = ["applied"])]
    pub wait: Option<String>,
    /// How long to wait for that; then the exit code is 17, and the marker stands
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = crate::settings::parse_duration)]
    #[arg(requires = "wait")]
    pub wait_timeout: Duration,
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
    let (of, output) = (group.clone(), context.output.clone());
    let place = move || request::run::<Marked>(&of, &request, &output, &mut |_| {});
    let Some(command) = &arguments.exec else {
        let marked = place()?;
        tell(arguments, &marked, context)?;
        return applied(arguments, &marked, context);
    };
    let mut hook = Hook::start(command, group.name(), &arguments.name, arguments.timeout)?;
    hook.check()?;
    let placed = hook.place(request::connect(&group)?.is_some(), place)?;
    let let_go = hook.let_go();
    let marked = match placed {
        Ok(marked) => marked,
        Err(error) => {
            if let Err(reason) = let_go {
                context.output.warn(reason);
            }
            return Err(error);
        }
    };
    // the marker stands, whoever reads of it
    let told = tell(arguments, &marked, context);
    let stands = |but: Error| format!("marker {} stands at seq {}, but {}", arguments.name, marked.seq, but.chain());
    match let_go {
        Ok(true) => told.and_then(|()| applied(arguments, &marked, context)),
        Ok(false) => {
            context.output.warn("the hook had ended before the marker was placed: it held nothing for it");
            told.and_then(|()| applied(arguments, &marked, context))
        }
        Err(error) => Err(Error::new(ErrorKind::Incomplete, stands(error))),
    }
}

/// Waits for whoever follows, when that was asked for.
fn applied(arguments: &MarkArgs, marked: &Marked, context: &Context) -> Result<()> {
    if arguments.wait.is_none() {
        return Ok(());
    }
    let group = context.state.existing(&arguments.group)?;
    // the marker was told already
    wait::applied::wait(&group, marked.seq, None, arguments.wait_timeout, context).map(|_| ())
}

fn tell(arguments: &MarkArgs, marked: &Marked, context: &Context) -> Result<()> {
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
