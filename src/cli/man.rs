//! `reelfs man`: the manual page, made from the same tree of verbs as the help.

use std::fmt::Write as _;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::Context;
use crate::cli::args::Cli;
use crate::error::{Error, ErrorKind, Result};
use crate::output::write_stdout;
use crate::point::SPELLINGS;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  reelfs man | man -l -\n  reelfs man restore | man -l -")]
pub(crate) struct ManArgs {
    /// The page of one verb, `tape export` for instance; without it, the page of the program
    pub verb: Vec<String>,
}

pub(crate) fn run(arguments: &ManArgs, context: &Context) -> Result<()> {
    let page = page(&arguments.verb)?;
    if context.output.json {
        return context.output.document(&serde_json::json!({"format": "roff", "page": page}));
    }
    write_stdout(&page)
}

fn page(verb: &[String]) -> Result<String> {
    let mut command = Cli::command();
    command.build();
    let mut name = "reelfs".to_owned();
    for word in verb {
        let found = command.get_subcommands().find(|command| command.get_name() == word.as_str()).cloned();
        let Some(found) = found else {
            let verbs: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            return Err(
                Error::usage(format!("`{name} {word}` is no verb")).hint(format!("there are: {}", verbs.join(", ")))
            );
        };
        let _ = write!(name, " {word}");
        command = found;
    }
    let fail = |error| Error::io("write the manual page", error);
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(fail)?;
    if verb.is_empty() {
        reference().to_writer(&mut page).map_err(fail)?;
    }
    String::from_utf8(page).map_err(|error| Error::failed("write the manual page").because(error))
}

/// What belongs to no verb: the spellings of a point, exit codes, environment, files.
fn reference() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["POINTS IN TIME"]).control("nf", []);
    for line in SPELLINGS.lines().skip(1) {
        roff.text([roman(line.trim())]);
    }
    roff.control("fi", []).control("SH", ["EXIT STATUS"]);
    let mut kinds = ErrorKind::ALL;
    kinds.sort_by_key(|kind| kind.code());
    for kind in kinds {
        roff.control("TP", []).text([bold(kind.code().to_string())]).text([roman(kind.meaning())]);
    }
    roff.text([roman("Codes may be added; treat an unknown one as a failure.")]);
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in [
        ("REELFS_STATE_DIR", "where groups are kept; default /var/lib/reelfs for root, else $XDG_STATE_HOME/reelfs"),
        ("REELFS_LOG", "what is logged to stderr, like info,reelfs_journal=trace"),
        ("TZ", "the zone that times are read and printed in"),
        ("NO_COLOR, CLICOLOR_FORCE", "colour"),
    ] {
        roff.control("TP", []).text([bold(name)]).text([roman(meaning)]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_program_and_of_a_verb() {
        let whole = page(&[]).expect("page");
        assert!(whole.contains("EXIT STATUS") && whole.contains("seq:4711"), "{whole}");
        let export = page(&["tape".into(), "export".into()]).expect("page");
        assert!(export.contains("reelfs\\-tape\\-export"), "{export}");
        assert_eq!(page(&["tap".into()]).expect_err("no verb").code(), 2);
    }
}
