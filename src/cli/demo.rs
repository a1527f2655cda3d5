//! `reelfs demo`: the whole story on temporary directories.

use crate::cli::Context;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(after_help = "Needs nothing and leaves nothing behind.\n\nExample:\n  reelfs demo")]
pub(crate) struct DemoArgs {}

pub(crate) fn run(_arguments: &DemoArgs, context: &Context) -> Result<()> {
    let _ = context.now();
    Err(super::not_wired("demo"))
}
