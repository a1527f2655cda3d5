//! `reelfs protect`: all in one.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::cli::Context;
use crate::cli::mount::mount_options;
use crate::cli::tape::{MadeTape, line, made_tape};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::mount_options::Words;
use crate::open_group::OpenGroup;
use crate::output::{Output, count};
use crate::progress::Progress;
use crate::protect::{Keeper, Kept, News, Protection, keep};
use crate::size::Size;
use crate::systemd;

const EXAMPLES: &str = "\
Examples:
  reelfs protect ~/thesis ~/thesis --tapes /media/disk          in place
  reelfs protect /data/docs /srv/docs --tapes /mnt/nas --every 1h

The first run makes a group named after SRC (one made with `reelfs group create` is used as it is) and a base tape.
Then it stays in the foreground, prints each tape, and ends on Ctrl-C with a last one. Run again, after a reboot say,
it goes on where it stopped. When the tape disk is full or missing, it says so and tries again.";

/// More often than this a schedule would only write tapes.
const EVERY_MIN: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProtectArgs {
    /// The directory to protect
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// Where to work on it from now on; may be the same directory
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// The directory that gets the tapes
    #[arg(long, value_name = "DIR")]
    pub tapes: PathBuf,
    /// How often a tape is written
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = crate::settings::parse_duration)]
    pub every: Duration,
}

#[derive(Serialize)]
struct Protected<'a> {
    group: &'a str,
    is_new: bool,
    pvol: String,
    mountpoint: String,
    in_place: bool,
    tapes: String,
    every_seconds: u64,
    encrypted: bool,
    pid: u32,
}

#[derive(Serialize)]
struct TapeMade<'a> {
    group: &'a str,
    #[serde(flatten)]
    tape: MadeTape,
}

#[derive(Serialize)]
struct TapeFailed<'a> {
    group: &'a str,
    code: u8,
    message: &'a str,
}

#[derive(Serialize)]
struct Resumed<'a> {
    group: &'a str,
}

#[derive(Serialize)]
struct Summary<'a> {
    group: &'a str,
    tapes: String,
    tapes_made: u64,
    bytes: u64,
}

pub(crate) fn run(arguments: &ProtectArgs, context: &Context) -> Result<()> {
    if arguments.every < EVERY_MIN {
        return Err(Error::usage("a tape more often than every second is no schedule").hint("--every 5m"));
    }
    let (source, mountpoint) = (super::absolute(&arguments.source)?, super::absolute(&arguments.mountpoint)?);
    let tapes = super::absolute(&arguments.tapes)?;
    let protection = Protection::check(&context.state, &source, &mountpoint, &tapes, &context.output)?;
    let mut progress = Progress::new(&context.output, "zero-fill");
    protection.create(&context.state, context.now(), &mut |done, total| progress.set(done, total, ""))?;
    drop(progress);
    let open = OpenGroup::open(&protection.group, "reelfs protect", false, &context.output)?;
    let name = protection.file.name.to_string();
    let daemon = Daemon::start(
        open,
        protection.volume.index,
        &mount_options(&protection.file.title(&protection.volume), &Words::default(), &protection.point),
    )?;
    if let Err(error) = greet(arguments, context, &protection) {
        // whoever asked cannot be told: no mount stays behind
        daemon.worker().unmount()?;
        daemon.wait(|_| Ok(()))?;
        return Err(error);
    }
    let output = context.output.clone();
    let teller = move |news: &News<'_>| {
        // when nobody reads any more, the tapes are still wanted
        let _ = tell(news, &name, &output);
    };
    let keeper = Keeper::new(&protection, arguments.every, &context.output, teller);
    let kept = keep(daemon, keeper)?;
    farewell(&kept, context, &protection)
}

fn greet(arguments: &ProtectArgs, context: &Context, protection: &Protection) -> Result<()> {
    let (output, file, point) = (&context.output, &protection.file, &protection.point);
    let name = file.name.as_str();
    let (pvol, shown) = (protection.volume.pvol.display(), point.path.display());
    let (tapes, every) = (protection.tapes.dir.display(), humantime::format_duration(arguments.every));
    output.event(
        "mounted",
        &Protected {
            group: name,
            is_new: protection.is_new,
            pvol: pvol.to_string(),
            mountpoint: shown.to_string(),
            in_place: point.in_place,
            tapes: tapes.to_string(),
            every_seconds: arguments.every.as_secs(),
            encrypted: false,
            pid: std::process::id(),
        },
    )?;
    systemd::ready(&format!("{} is protected", file.title(&protection.volume)));
    let place = if point.in_place { "in place".to_owned() } else { format!("work in {shown}") };
    let made = if protection.is_new { "new group" } else { "group" };
    output.confirm(format!("{pvol} is protected: {made} {name}, {place}"))?;
    output.confirm(format!("  a tape in {tapes} every {every}; Ctrl-C ends with a last one"))?;
    if protection.needs_base {
        output.note("  the tapes are not encrypted: whoever has them can read them");
    }
    Ok(())
}

fn tell(news: &News<'_>, group: &str, output: &Output) -> Result<()> {
    match news {
        News::Tape(made) => {
            output.event("tape", &TapeMade { group, tape: made_tape(made) })?;
            output.say(line(made, output))
        }
        News::Warning(warning) => {
            output.warn(warning);
            Ok(())
        }
        News::Failed { error, sentence } => {
            output.warn(sentence);
            output.event("export_failed", &TapeFailed { group, code: error.code(), message: sentence })
        }
        News::Resumed => {
            output.note("the tapes go on");
            output.event("export_resumed", &Resumed { group })
        }
    }
}

fn farewell(kept: &Kept, context: &Context, protection: &Protection) -> Result<()> {
    let (name, tapes) = (protection.file.name.as_str(), protection.tapes.dir.display());
    let summary = Summary { group: name, tapes: tapes.to_string(), tapes_made: kept.tapes, bytes: kept.bytes };
    context.output.event("summary", &summary)?;
    let (made, bytes) = (count(kept.tapes, "tape"), Size(kept.bytes));
    context.output.confirm(format!("{name} is unmounted: {made} made, {bytes}, in {tapes}"))
}
