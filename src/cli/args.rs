//! What can be typed: the tree of verbs and the flags that all of them take.

use std::path::PathBuf;

use clap::{ColorChoice, Parser, Subcommand};

use crate::cli::{
    base, clock, completions, demo, follow, group, journal, log, man, mark, mount, pair, points, protect, restore,
    status, tape, umount, wait,
};

const EXAMPLES: &str = "\
Examples:
  reelfs protect ~/thesis ~/thesis --tapes /media/disk     all in one, until Ctrl-C
  reelfs points --tapes /media/disk                        what can I go back to?
  reelfs restore --tapes /media/disk --at -2h --to ~/back  go back two hours

  reelfs group create docs --pvol /data/docs               the same by hand
  reelfs mount docs /srv/docs
  reelfs base copy docs --to /media/disk
  reelfs tape export docs --to /media/disk

Exit codes: 0 done, 2 usage, 3 incomplete, 10 not found, 11 in use, 13 outside the window, 14 would overwrite,
15 tape missing, 19 damaged, 21 foreign or diverged, 22 no space; the others are in `reelfs man`.";

/// Records every change of a directory, carries it away on tapes, and gives back any moment of it.
#[derive(Debug, Parser)]
#[command(name = "reelfs", version, propagate_version = true, after_help = EXAMPLES, max_term_width = 120)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Results as JSON, errors as JSON on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colour: auto, always or never
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub color: ColorChoice,
    /// Where groups are kept [default: /var/lib/reelfs for root, else ~/.local/state/reelfs]
    #[arg(long, global = true, value_name = "DIR", env = "REELFS_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Read and print times in UTC
    #[arg(long, global = true)]
    pub utc: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make, list, show and delete groups: a protected directory and its journal
    #[command(subcommand)]
    Group(group::GroupVerb),
    /// Mount the directory of a group: from then on every change is journaled
    Mount(mount::MountArgs),
    /// Unmount, and wait until the journal is closed
    Umount(umount::UmountArgs),
    /// Name this moment, to restore to it later
    Mark(mark::MarkArgs),
    /// Copy what is in the directory now, as the ground that later tapes stand on
    #[command(subcommand)]
    Base(base::BaseVerb),
    /// Write, list, show and verify tapes
    #[command(subcommand)]
    Tape(tape::TapeVerb),
    /// Volumes of a group: join, leave, suspend, and come back with only what changed
    #[command(subcommand, after_help = crate::pair_state::help())]
    Pair(pair::PairVerb),
    /// The journal volume: in numbers, larger, and pools of prepared ones
    #[command(subcommand)]
    Journal(journal::JournalVerb),
    /// Whether the wall clock is believed
    #[command(subcommand)]
    Clock(clock::ClockVerb),
    /// What can I go back to: the window, gaps, base copies, markers
    Points(points::PointsArgs),
    /// What happened: every change, by whom and when
    Log(log::LogArgs),
    /// Bring a moment back, from tapes alone, into an empty directory
    Restore(restore::RestoreArgs),
    /// Keep a replica that goes on with every change, from the journal or from tapes
    Follow(follow::FollowArgs),
    /// All in one: mount a directory and keep writing tapes of it until Ctrl-C
    Protect(protect::ProtectArgs),
    /// How the groups are
    Status(status::StatusArgs),
    /// Wait until a group is in a state
    Wait(wait::WaitArgs),
    /// The whole story on temporary directories, in under a minute
    Demo(demo::DemoArgs),
    /// Completions for a shell, on stdout
    Completions(completions::CompletionsArgs),
    /// The manual page, on stdout
    Man(man::ManArgs),
}

impl Verb {
    /// It does not end by itself.
    pub(crate) fn stays(&self) -> bool {
        matches!(self, Verb::Mount(_) | Verb::Follow(_) | Verb::Protect(_))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_point_may_begin_with_a_hyphen() {
        for at in ["-2h", "-1h30m", "2h ago", "#7"] {
            let cli = Cli::try_parse_from(["reelfs", "restore", "--tapes", "t", "--at", at, "--to", "d", "--dry-run"]);
            match cli.expect(at).verb {
                Verb::Restore(arguments) => assert_eq!((arguments.at.as_str(), arguments.dry_run), (at, true)),
                verb => panic!("{verb:?}"),
            }
        }
    }

    #[test]
    fn every_line_of_help_fits() {
        fn walk(command: &mut clap::Command) {
            let text = command.render_long_help().to_string();
            for line in text.lines() {
                assert!(line.chars().count() <= 120, "{}: {line}", command.get_name());
            }
            assert!(command.get_about().is_some(), "{} says nothing about itself", command.get_name());
            command.get_subcommands_mut().for_each(walk);
        }
        walk(&mut Cli::command());
    }
}
