//! `reelfs group show`.

use serde::Serialize;

use super::NameArgs;
use crate::cli::Context;
use crate::error::Result;
use crate::group_table::GroupTable;
use crate::status::GroupStatus;
use crate::when::rfc3339;

#[derive(Serialize)]
struct Shown {
    group: String,
    uuid: String,
    epoch: u32,
    pvol: String,
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

pub(super) fn run(arguments: &NameArgs, context: &Context) -> Result<()> {
    let group = context.state.existing(&arguments.group)?;
    let status = GroupStatus::of(&group)?;
    let (table, file) = (GroupTable::of(&status), &status.file);
    let output = &context.output;
    output.say(format!("group     {}", output.paint(crate::output::Tone::Strong, file.name.as_str())))?;
    output.say(format!("uuid      {}", file.uuid))?;
    output.say(format!("epoch     {}", file.epoch))?;
    output.say(format!("pvol      {}", file.pvol.display()))?;
    output.say(format!("journal   {}", file.journal.display()))?;
    output.say(format!("created   {}", output.zone.text(file.created)))?;
    output.say(format!("state     {}", group.path().display()))?;
    match &file.base {
        Some(base) => output.say(format!("base      {} (seq {})", base.uuid, base.seq))?,
        None => output.say("base      none yet")?,
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
        pvol: file.pvol.display().to_string(),
        journal: file.journal.display().to_string(),
        created: rfc3339(file.created),
        state_dir: group.path().display().to_string(),
        base: file.base.map(|base| Base { uuid: base.uuid.to_string(), seq: base.seq.0 }),
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
