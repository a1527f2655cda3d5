//! `reelfs wait`: back when a group is in a state, or when its consumers have applied something.

pub(super) mod applied;

use std::path::PathBuf;
use std::time::Duration;

use reelfs_journal::GroupName;
use serde::Serialize;

use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::pair_state::PairState;
use crate::status::GroupStatus;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Example:
  reelfs wait docs --state PAIR --timeout 10m && echo everything is journaled
  reelfs wait docs --applied marker:before-upgrade";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WaitArgs {
    /// The group
    pub group: GroupName,
    /// The state to wait for: SMPL, COPY, PAIR or SUSP
    #[arg(long, value_name = "STATE", required_unless_present = "applied", conflicts_with = "applied")]
    pub state: Option<PairState>,
    /// Wait until replicas and sites have applied it: latest, seq:N or marker:NAME
    #[arg(long, value_name = "POINT")]
    pub applied: Option<String>,
    /// Only this replica, or the site of this directory of tapes
    #[arg(long, value_name = "DIR", requires = "applied")]
    pub consumer: Option<PathBuf>,
    /// How long to wait; then the exit code is 17
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = crate::settings::parse_duration)]
    pub timeout: Duration,
}

#[derive(Serialize)]
struct Reached<'a> {
    group: &'a GroupName,
    state: &'static str,
}

pub(crate) fn run(arguments: &WaitArgs, context: &Context) -> Result<()> {
    let name = &arguments.group;
    let group = context.state.existing(name)?;
    let Some(wanted) = arguments.state else {
        let seq = applied::resolve(&group, arguments.applied.as_deref().unwrap_or("latest"), context)?;
        let applied = applied::wait(&group, seq, arguments.consumer.as_deref(), arguments.timeout, context)?;
        return context.output.document(&applied);
    };
    // not the wall clock, which may step
    let until = context.clock.read().boot.saturating_add(arguments.timeout);
    loop {
        let status = GroupStatus::of(&group)?;
        let state = status.state();
        if state == wanted && status.is_certain() {
            return context.output.document(&Reached { group: name, state: state.word() });
        }
        if context.clock.read().boot >= until {
            let waited = humantime::format_duration(arguments.timeout);
            let message = format!("{name} is {} after {waited}, not {}", state.word(), wanted.word());
            return Err(Error::new(ErrorKind::TimedOut, message).hint(format!("why: reelfs status {name}")));
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a state is looked at now and then: it may be reached without any process"
)]
fn pause() {
    std::thread::sleep(EVERY);
}
