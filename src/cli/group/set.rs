//! `reelfs group set`: changes what a group does by itself, also while it is mounted.

use reelfs_journal::GroupName;
use reelfs_volume::OnFull;
use serde::Serialize;

use super::create::Policy;
use crate::cli::Context;
use crate::error::{Error, Result};
use crate::request::{self, Request};
use crate::settings::{Changes, Percent, Seconds, Settings, Switch};
use crate::size::Size;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  reelfs group set docs --warn 70%\n  reelfs group set docs --on-full block --export-at 30%"
)]
pub(crate) struct SetArgs {
    /// The group
    pub group: GroupName,
    /// What happens when the journal is full
    #[arg(long, value_name = "POLICY")]
    pub on_full: Option<Policy>,
    /// From this occupancy of the journal on, warn and slow writers down; 100% never slows
    #[arg(long, value_name = "PERCENT")]
    pub warn: Option<Percent>,
    #[command(flatten)]
    pub tapes: TapeSettings,
}

/// What a mount does with tapes by itself.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct TapeSettings {
    /// Export when the journal is so full, to every directory that the group knows; or never
    #[arg(long, value_name = "PERCENT")]
    pub export_at: Option<Switch<Percent>>,
    /// Export so often; or never
    #[arg(long, value_name = "DURATION")]
    pub export_every: Option<Switch<Seconds>>,
    /// Export when the oldest change that is on no tape yet is so old; or never
    #[arg(long, value_name = "DURATION")]
    pub export_age: Option<Switch<Seconds>>,
    /// Export when so much is on no tape yet; or never
    #[arg(long, value_name = "SIZE")]
    pub export_size: Option<Switch<Size>>,
    /// Keep so many tapes in each directory, the newest; or all
    #[arg(long, value_name = "N")]
    pub keep_tapes: Option<Switch<u64>>,
    /// Keep tapes for so long; or all
    #[arg(long, value_name = "DURATION")]
    pub keep_age: Option<Switch<Seconds>>,
    /// Keep so many bytes of tapes in each directory; or all
    #[arg(long, value_name = "SIZE")]
    pub keep_size: Option<Switch<Size>>,
}

impl TapeSettings {
    pub(crate) fn changes(&self) -> Changes {
        let bytes = |size: Switch<Size>| match size {
            Switch::On(size) => Switch::On(size.0),
            Switch::Off => Switch::Off,
        };
        Changes {
            export_at: self.export_at,
            export_every: self.export_every,
            export_age: self.export_age,
            export_size: self.export_size.map(bytes),
            keep_tapes: self.keep_tapes,
            keep_age: self.keep_age,
            keep_size: self.keep_size.map(bytes),
            ..Changes::default()
        }
    }
}

#[derive(Serialize)]
struct Set<'a> {
    group: &'a GroupName,
    #[serde(flatten)]
    settings: Settings,
}

pub(super) fn run(arguments: &SetArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let on_full = arguments.on_full.map(OnFull::from);
    let changes = Changes { on_full, warn: arguments.warn, ..arguments.tapes.changes() };
    if changes == Changes::default() {
        return Err(Error::usage("nothing to set").hint("what can be set: reelfs group set --help"));
    }
    let settings: Settings = request::run(&group, &Request::Set { changes }, &context.output, &mut |_| {})?;
    context.output.document(&Set { group: &arguments.group, settings })?;
    context.output.confirm(format!("{}: set; see it: reelfs group show {}", arguments.group, arguments.group))
}
