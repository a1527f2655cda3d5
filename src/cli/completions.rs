//! `reelfs completions`: for bash, zsh, fish and others.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Context;
use crate::cli::args::Cli;
use crate::error::{Error, Result};
use crate::output::write_stdout;

const EXAMPLES: &str = "\
Examples:
  reelfs completions bash > /etc/bash_completion.d/reelfs
  reelfs completions fish > ~/.config/fish/completions/reelfs.fish";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

pub(crate) fn run(arguments: &CompletionsArgs, context: &Context) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "reelfs", &mut script);
    let script = String::from_utf8(script).map_err(|error| Error::failed("write completions").because(error))?;
    if context.output.json {
        return context.output.document(&serde_json::json!({"shell": arguments.shell.to_string(), "script": script}));
    }
    write_stdout(&script)
}
