//! `reelfs tape show`: the label of one tape, and what it holds.

use std::fs::File;

use reelfs_archive::{SealedTape, TapeHead};
use serde::Serialize;

use super::{TapeShowArgs, VolumeJson, failure, volumes_json, volumes_text};
use crate::cli::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::output::{Tone, count};
use crate::size::Size;
use crate::when::rfc3339;

#[derive(Serialize)]
struct Shown {
    name: String,
    tape: String,
    group: String,
    group_uuid: String,
    epoch: u32,
    kind: String,
    volumes: Vec<VolumeJson>,
    first: u64,
    last: u64,
    first_time: String,
    last_time: String,
    sealed: String,
    previous: Option<String>,
    base: Option<String>,
    records: u64,
    data_bytes: u64,
    files: u64,
    file_bytes: u64,
    bytes: u64,
    frames: usize,
    root: String,
    format: u32,
    host: String,
    program: String,
    created: String,
}

pub(super) fn run(arguments: &TapeShowArgs, context: &Context) -> Result<()> {
    let shown = arguments.tape.display();
    let file = File::open(&arguments.tape).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("there is no tape {shown}")),
        _ => Error::io(format!("open {shown}"), error),
    })?;
    let tape = SealedTape::open(file).map_err(|error| failure(&format!("read {shown}"), error))?;
    let head = tape.head();
    print(head, context)?;
    context.output.document(&describe(head))
}

fn print(head: &TapeHead, context: &Context) -> Result<()> {
    let output = &context.output;
    let (label, index) = (&head.label, &head.index);
    output.say(output.paint(Tone::Strong, &head.name().to_string()))?;
    output.say(format!("tape      {}", label.tape))?;
    output.say(format!("group     {} ({}), epoch {}", label.group, label.group_uuid, label.epoch))?;
    output.say(format!("volumes   {}", volumes_text(label)))?;
    output.say(format!(
        "records   seq {} to {}: {}, {}",
        head.first(),
        head.last(),
        count(index.counts.records, "record"),
        Size(index.counts.bytes)
    ))?;
    if index.counts.files > 0 {
        output.say(format!("files     {}, {}", index.counts.files, Size(index.counts.file_bytes)))?;
    }
    output.say(format!("first     {}", output.zone.text(label.first_time)))?;
    output.say(format!("last      {}", output.zone.text(index.last_time)))?;
    output.say(format!("sealed    {}", output.zone.text(index.sealed)))?;
    output.say(format!("size      {} in {} frames", Size(head.bytes), index.frames.len()))?;
    output.say(format!("previous  {}", label.previous.as_ref().map_or("none", |previous| previous.name.as_str())))?;
    output.say(format!("root      {}", head.root))?;
    output.say(format!("written   by {} on {}, {}", label.program, label.host, output.zone.text(label.created)))
}

fn describe(head: &TapeHead) -> Shown {
    let (label, index) = (&head.label, &head.index);
    Shown {
        name: head.name().to_string(),
        tape: label.tape.to_string(),
        group: label.group.to_string(),
        group_uuid: label.group_uuid.to_string(),
        epoch: label.epoch.0,
        kind: label.kind.to_string(),
        volumes: volumes_json(label),
        first: head.first().0,
        last: head.last().0,
        first_time: rfc3339(label.first_time),
        last_time: rfc3339(index.last_time),
        sealed: rfc3339(index.sealed),
        previous: label.previous.as_ref().map(|previous| previous.name.clone()),
        base: label.base.map(|base| base.to_string()),
        records: index.counts.records,
        data_bytes: index.counts.bytes,
        files: index.counts.files,
        file_bytes: index.counts.file_bytes,
        bytes: head.bytes,
        frames: index.frames.len(),
        root: head.root.to_string(),
        format: label.format,
        host: label.host.clone(),
        program: label.program.clone(),
        created: rfc3339(label.created),
    }
}
