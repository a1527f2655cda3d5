//! The command line: one verb a file; here they are told apart, run, and their errors become exit codes.

pub mod args;
mod base;
mod clock;
mod completions;
mod demo;
mod follow;
mod group;
mod helper;
mod journal;
mod log;
mod log_lines;
mod man;
mod mark;
mod mount;
mod pair;
mod points;
mod protect;
mod restore;
mod status;
mod tape;
mod umount;
mod wait;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind as ClapKind;
use reelfs_journal::{Clock, Timestamp};

use crate::error::{Error, Result};
use crate::output::Output;
use crate::point::Point;
use crate::state::StateDir;
use crate::when::Zone;
use args::{Cli, Global, Verb};

/// What every verb gets besides its arguments.
pub struct Context {
    /// Where results go.
    pub output: Output,
    /// Where groups are kept.
    pub state: StateDir,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
}

impl Context {
    fn new(global: &Global) -> Result<Context> {
        let zone = if global.utc { Zone::UTC } else { Zone::from_environment() };
        let output = Output::new(global.json, global.quiet, global.verbose, global.color, zone);
        Ok(Context {
            output,
            state: StateDir::resolve(global.state_dir.as_deref())?,
            clock: crate::clock::of_machine(),
        })
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.read().wall
    }

    /// Reads a point in time as the user writes it.
    ///
    /// # Errors
    /// It is none (exit code 2).
    pub fn point(&self, text: &str) -> Result<Point> {
        Point::parse(text, self.now(), &self.output.zone)
    }
}

pub(crate) use status::document as status_document;

/// Runs the command line; the whole program.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    #[cfg(debug_assertions)]
    if let Some(text) = std::env::var_os(reelfs_journal::disk::FAILPOINT_VARIABLE)
        && let Err(error) = reelfs_journal::disk::arm_failpoint(&text.to_string_lossy())
    {
        Output::plain(json).error(&Error::usage(error.to_string()));
        return ExitCode::from(2);
    }
    if arguments.first().is_some_and(|program| helper::is_meant(program)) {
        return helper::main(&arguments);
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if error.kind() == ClapKind::InvalidSubcommand && helper::is_implied(&arguments) => {
            return helper::main(&arguments);
        }
        Err(error) => return usage(&error, json),
    };
    let early = Output::plain(json);
    let context = match Context::new(&cli.global) {
        Ok(context) => context,
        Err(error) => {
            early.error(&error);
            return ExitCode::from(error.code());
        }
    };
    match log_lines::begin(cli.verb.stays(), &context.output).and_then(|()| run(cli.verb, &context)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            context.output.error(&error);
            ExitCode::from(error.code())
        }
    }
}

fn run(verb: Verb, context: &Context) -> Result<()> {
    match verb {
        Verb::Group(verb) => group::run(verb, context),
        Verb::Mount(arguments) => mount::run(&arguments, context),
        Verb::Umount(arguments) => umount::run(&arguments, context),
        Verb::Mark(arguments) => mark::run(&arguments, context),
        Verb::Base(verb) => base::run(&verb, context),
        Verb::Tape(verb) => tape::run(&verb, context),
        Verb::Pair(verb) => pair::run(&verb, context),
        Verb::Journal(verb) => journal::run(&verb, context),
        Verb::Clock(verb) => clock::run(&verb, context),
        Verb::Wait(arguments) => wait::run(&arguments, context),
        Verb::Points(arguments) => points::run(&arguments, context),
        Verb::Log(arguments) => log::run(&arguments, context),
        Verb::Restore(arguments) => restore::run(&arguments, context),
        Verb::Follow(arguments) => follow::run(&arguments, context),
        Verb::Protect(arguments) => protect::run(&arguments, context),
        Verb::Status(arguments) => status::run(&arguments, context),
        Verb::Demo(arguments) => demo::run(&arguments, context),
        Verb::Completions(arguments) => completions::run(&arguments, context),
        Verb::Man(arguments) => man::run(&arguments, context),
    }
}

/// What clap has to say: help and version on stdout with code 0, a mistake on stderr with code 2.
fn usage(error: &clap::Error, json: bool) -> ExitCode {
    let asked = matches!(error.kind(), ClapKind::DisplayHelp | ClapKind::DisplayVersion);
    if !asked && json {
        let text = error.render().to_string();
        let (first, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (error, hint) = (Error::usage(line(first.trim_start_matches("error: "))), line(rest));
        Output::plain(true).error(&if hint.is_empty() { error } else { error.hint(hint) });
    } else {
        // a reader of the help who has gone is no failure
        let _ = error.print();
    }
    if asked { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// The path as the mount process must see it, whose current directory is another.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io("find the current directory", error))
}
