//! `reelfs group create`: checks everything first, then makes the journal volume, and the group file last.

use std::fs;
use std::path::PathBuf;

use reelfs_journal::{GroupName, Jvol};
use reelfs_volume::OnFull;
use serde::Serialize;

use super::set::TapeSettings;
use crate::cli::Context;
use crate::error::{Error, Result};
use crate::group::{self, NewGroup};
use crate::pool::{JournalOrigin, PoolName};
use crate::progress::Progress;
use crate::settings::{Changes, Percent, Settings};
use crate::size::Size;

const EXAMPLES: &str = "\
Examples:
  reelfs group create docs --pvol /data/docs
  reelfs group create docs --pvol /data/docs --journal /mnt/ssd --size 20GiB
  reelfs group create docs --pvol /data/docs --pool fast
  reelfs group create shop --journal /mnt/ssd && reelfs pair create shop/db --pvol /data/db

The journal holds changes until they are on tapes. It is filled with zeros once, so that a sync never has to allocate.
When it is full, applications go on and the changes are only noted, unless --on-full says otherwise. It is not encrypted.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CreateArgs {
    /// What to call it: 1 to 32 of a-z, 0-9 and _
    pub group: GroupName,
    /// The directory to protect; without it volumes join by `reelfs pair create`
    #[arg(long, value_name = "DIR")]
    pub pvol: Option<PathBuf>,
    /// Where the journal goes; another disk than the directory's is better [default: the state directory]
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// A prepared journal volume of this pool (`reelfs journal pool`) becomes the journal
    #[arg(long, value_name = "POOL", conflicts_with = "journal")]
    pub pool: Option<PoolName>,
    /// Size of the journal, 16 MiB at least; with --pool the least that will do [default: 1GiB; with --pool any]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// When the disk of the journal fails, a prepared journal volume of this pool takes over
    #[arg(long, value_name = "POOL")]
    pub spare_pool: Option<PoolName>,
    /// Other users may read the journal; it holds every byte of every file, whatever the modes of the files
    #[arg(long)]
    pub journal_visible: bool,
    /// What happens when the journal is full
    #[arg(long, value_name = "POLICY", default_value = "suspend")]
    pub on_full: Policy,
    /// From this occupancy of the journal on, warn and slow writers down; 100% never slows
    #[arg(long, value_name = "PERCENT", default_value = "80%")]
    pub warn: Percent,
    #[command(flatten)]
    pub tapes: TapeSettings,
}

/// What happens when the journal is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// Applications go on, what changes is only noted; `reelfs pair resync` brings the pair back
    Suspend,
    /// Writers wait until an export makes room
    Block,
    /// Writers get "no space left on device"
    Fail,
}

impl From<Policy> for OnFull {
    fn from(policy: Policy) -> OnFull {
        match policy {
            Policy::Suspend => OnFull::Suspend,
            Policy::Block => OnFull::Block,
            Policy::Fail => OnFull::Fail,
        }
    }
}

#[derive(Serialize)]
struct Created<'a> {
    group: &'a GroupName,
    uuid: String,
    pvol: Option<String>,
    journal: String,
    journal_size_bytes: u64,
}

pub(crate) fn run(arguments: &CreateArgs, context: &Context) -> Result<()> {
    if let Some(size) = arguments.size.filter(|size| size.0 < Jvol::SIZE_MIN) {
        let least = Size(Jvol::SIZE_MIN);
        return Err(Error::usage(format!("a journal of {size} is too small; {least} is the least")));
    }
    let new = NewGroup {
        name: arguments.group.clone(),
        pvol: arguments.pvol.clone(),
        journal: arguments.journal.clone(),
        size: arguments.size,
        origin: JournalOrigin {
            pool: arguments.pool.clone(),
            spare: arguments.spare_pool.clone(),
            visible: arguments.journal_visible,
        },
        on_full: arguments.on_full.into(),
        settings: Changes { warn: Some(arguments.warn), ..arguments.tapes.changes() }.applied(Settings::default()),
        created: context.now(),
    };
    let mut progress = Progress::new(&context.output, "zero-fill");
    let file = group::create(&context.state, &new, &mut |done, total| progress.set(done, total, ""))?;
    drop(progress);
    let size = fs::metadata(&file.journal).map_or(Size(0), |metadata| Size(metadata.len()));
    if file.origin.visible {
        context.output.warn("every user can read in the journal what the files hold, whatever the modes of the files");
    }
    let pvol = file.volumes.first().map(|volume| volume.pvol.display().to_string());
    let journal = file.journal.display().to_string();
    context.output.document(&Created {
        group: &file.name,
        uuid: file.uuid.to_string(),
        pvol: pvol.clone(),
        journal: journal.clone(),
        journal_size_bytes: size.0,
    })?;
    let name = &file.name;
    let what = pvol.as_ref().map_or_else(String::new, |pvol| format!("{pvol}, "));
    context.output.confirm(format!("group {name} created: {what}journal {journal}, {size}"))?;
    context.output.confirm(match pvol {
        Some(pvol) => format!("  next: reelfs mount {name} MOUNTPOINT     ({pvol} itself, or an empty directory)"),
        None => format!("  next: reelfs pair create {name}/VOLUME --pvol DIR     for each directory"),
    })
}
