//! `reelfs clock`: whether the wall clock is believed, and the word that it is right.

use clap::Subcommand;
use reelfs_journal::GroupName;
use serde::Serialize;

use crate::cli::Context;
use crate::error::Result;
use crate::request::{self, AcceptedClock, Request};
use crate::when::rfc3339;

#[derive(Debug, Subcommand)]
pub(crate) enum ClockVerb {
    /// Believe the wall clock again, which stepped by more than five minutes: later records get its time
    #[command(
        after_help = "Example:\n  reelfs clock accept docs\n\nUntil then, times of records go on as if the wall \
                            clock had not stepped. `reelfs status` says when that is so."
    )]
    Accept(AcceptArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AcceptArgs {
    /// The group
    pub group: GroupName,
}

#[derive(Serialize)]
struct Shown<'a> {
    group: &'a GroupName,
    already: bool,
    time: String,
}

pub(crate) fn run(verb: &ClockVerb, context: &Context) -> Result<()> {
    let ClockVerb::Accept(arguments) = verb;
    let (name, group) = (&arguments.group, context.state.existing(&arguments.group)?);
    let accepted: AcceptedClock = request::run(&group, &Request::AcceptClock, &context.output, &mut |_| {})?;
    context.output.document(&Shown { group: name, already: accepted.already, time: rfc3339(accepted.time) })?;
    let time = context.output.zone.text(accepted.time);
    context.output.confirm(match accepted.already {
        true => format!("{name}: the clock is believed already: {time}"),
        false => format!("{name}: the clock is believed from now on: {time}"),
    })
}
