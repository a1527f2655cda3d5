//! `reelfs group show`.

use reelfs_volume::OnFull;
use serde::Serialize;

use super::NameArgs;
use crate::cli::Context;
use crate::error::Result;
use crate::group_file::{GroupFile, VolumeEntry};
use crate::group_table::GroupTable;
use crate::output::Output;
use crate::settings::Settings;
use crate::size::Size;
use crate::status::GroupStatus;
use crate::when::rfc3339;

#[derive(Serialize)]
struct Shown {
    group: String,
    uuid: String,
    epoch: u32,
    pvol: Option<String>,
    volumes: Vec<Volume>,
    journal: String,
    created: String,
    state_dir: String,
    on_full: OnFull,
    settings: Settings,
    base: Option<Base>,
    targets: Vec<Target>,
    status: &'static str,
    #[serde(flatten)]
    table: GroupTable,
}

#[derive(Serialize)]
struct Volume {
    index: u16,
    name: String,
    pvol: String,
    base: Option<Base>,
}

#[derive(Serialize)]
struct Base {
    uuid: String,
    seq: u64,
}

#[derive(Serialize)]
struct Target {
    dir: String,
    epoch: u32,
    seq: u64,
    tape: Option<String>,
}

fn shown_volume(volume: &VolumeEntry) -> Volume {
    Volume {
        index: volume.index.0,
        name: volume.name.to_string(),
        pvol: volume.pvol.display().to_string(),
        base: volume.base.map(shown_base),
    }
}

fn shown_base(base: crate::group_file::Base) -> Base {
    Base { uuid: base.uuid.to_string(), seq: base.seq.0 }
}

pub(super) fn run(arguments: &NameArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let status = GroupStatus::of(&group)?;
    let (table, file) = (GroupTable::of(&status), &status.file);
    let output = &context.output;
    output.say(format!("group     {}", output.paint(crate::output::Tone::Strong, file.name.as_str())))?;
    output.say(format!("uuid      {}", file.uuid))?;
    output.say(format!("epoch     {}", file.epoch))?;
    output.say(format!("journal   {}", file.journal.display()))?;
    output.say(format!("created   {}", output.zone.text(file.created)))?;
    output.say(format!("state     {}", group.path().display()))?;
    settings(file, output)?;
    for volume in &file.volumes {
        if file.volumes.len() > 1 {
            output.say(format!("volume    {} (index {})", volume.name, volume.index))?;
        }
        output.say(format!("pvol      {}", volume.pvol.display()))?;
        match &volume.base {
            Some(base) => output.say(format!("base      {} (seq {})", base.uuid, base.seq))?,
            None => output.say("base      none yet")?,
        }
    }
    output.say(format!("status    {}", status.state().word()))?;
    table.say(output)?;
    for target in &file.targets {
        let tape = target.last_seen_tape.as_deref().unwrap_or("no tape");
        output.say(format!("tapes in  {} up to seq {} ({tape})", target.dir.display(), target.seq))?;
    }
    output.document(&Shown {
        group: file.name.to_string(),
        uuid: file.uuid.to_string(),
        epoch: file.epoch.0,
        pvol: file.volumes.first().map(|volume| volume.pvol.display().to_string()),
        volumes: file.volumes.iter().map(shown_volume).collect(),
        journal: file.journal.display().to_string(),
        created: rfc3339(file.created),
        state_dir: group.path().display().to_string(),
        on_full: file.on_full,
        settings: file.settings,
        base: file.base().map(shown_base),
        targets: file
            .targets
            .iter()
            .map(|target| Target {
                dir: target.dir.display().to_string(),
                epoch: target.epoch.0,
                seq: target.seq.0,
                tape: target.last_seen_tape.clone(),
            })
            .collect(),
        status: status.state().word(),
        table,
    })
}

/// What it does by itself, one line a setting that is on.
fn settings(file: &GroupFile, output: &Output) -> Result<()> {
    let set = &file.settings;
    let policy = match file.on_full {
        OnFull::Suspend => "suspended",
        OnFull::Block => "writers wait",
        OnFull::Fail => "writers get ENOSPC",
    };
    output.say(format!("when full {policy}; writers are slowed down from {} on", set.warn))?;
    let exports = [
        set.export_at.map(|part| format!("at {part} of the journal")),
        set.export_every.map(|every| format!("every {every}")),
        set.export_age.map(|age| format!("when a change is {age} old")),
        set.export_size.map(|bytes| format!("after {}", Size(bytes))),
    ];
    let exports: Vec<String> = exports.into_iter().flatten().collect();
    if !exports.is_empty() {
        output.say(format!("exports   {}", exports.join(", ")))?;
    }
    let kept = [
        set.keep_tapes.map(|number| format!("{number} tapes")),
        set.keep_age.map(|age| format!("tapes of {age}")),
        set.keep_size.map(|bytes| Size(bytes).to_string()),
    ];
    let kept: Vec<String> = kept.into_iter().flatten().collect();
    if !kept.is_empty() {
        output.say(format!("keeps     {}", kept.join(", ")))?;
    }
    Ok(())
}
