//! `reelfs group show`.

use serde::Serialize;

use super::NameArgs;
use crate::cli::Context;
use crate::error::Result;
use crate::group_file::VolumeEntry;
use crate::group_table::GroupTable;
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
