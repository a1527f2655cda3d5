//! `reelfs group list`.

use serde::Serialize;

use crate::cli::Context;
use crate::cli::status::refuse_broken;
use crate::error::Result;
use crate::group_file::GroupFile;

#[derive(Serialize)]
struct Groups {
    groups: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    group: String,
    uuid: String,
    pvol: Option<String>,
    volumes: Vec<String>,
    journal: String,
}

pub(super) fn run(context: &Context) -> Result<()> {
    let (groups, mut rows, mut broken) = (context.state.groups()?, Vec::new(), Vec::new());
    for group in &groups {
        // one broken group must not hide the others
        match GroupFile::load(group) {
            Ok(file) => rows.push(Row {
                group: file.name.to_string(),
                uuid: file.uuid.to_string(),
                pvol: file.volumes.first().map(|volume| volume.pvol.display().to_string()),
                volumes: file.volumes.iter().map(|volume| volume.pvol.display().to_string()).collect(),
                journal: file.journal.display().to_string(),
            }),
            Err(error) => broken.push((group, error)),
        }
    }
    let width = rows.iter().map(|row| row.group.len()).max().unwrap_or(0);
    for row in &rows {
        let first = row.volumes.first().map_or("no volume yet", String::as_str);
        context.output.say(format!("{:width$}  {first}", row.group))?;
        for volume in row.volumes.iter().skip(1) {
            context.output.say(format!("{:width$}  {volume}", ""))?;
        }
    }
    if groups.is_empty() {
        context.output.note("no groups; make one: reelfs group create NAME --pvol DIR");
    }
    context.output.document(&Groups { groups: rows })?;
    refuse_broken(broken)
}
