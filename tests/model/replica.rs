//! A replica that is made of nothing but records.

use std::fs::File;
use std::path::Path;

use reelfs_journal::{Change, MarkerKind, Name, Record};
use reelfs_volume::{Primary, Stat, Volume};

use super::replay::Replay;
use crate::support::{Sandbox, Tree};

/// Every record in order, on an empty replica.
pub fn replica(
    records: Vec<Record<'static>>,
    primary: &Primary,
    begin: &Tree,
    sandbox: &Sandbox,
) -> Result<Tree, String> {
    let place = sandbox.directory("svol");
    let root_id = primary.root_id();
    let root = || File::open(&place).expect("the replica");
    let volume = Volume::replica(root().into(), root_id).expect("a replica");
    let mut attributes = Stat::at(root(), b"").expect("a directory").attributes();
    let node = &begin.nodes()[Path::new("")];
    attributes.mode = node.mode;
    attributes.mtime.seconds = node.mtime.0;
    attributes.mtime.nanos = u32::try_from(node.mtime.1).expect("below a second");
    volume.set_attributes(root_id, &attributes).expect("the root's attributes");
    let replay = Replay::new(records);
    let mut bracket = None;
    for record in replay.records() {
        let failed = |error| format!("record {} {:?}: {error}", record.seq, record.change);
        match (&record.change, &mut bracket) {
            (Change::Marker { kind, .. }, None) if kind.begins_bracket() => {
                let scratch = Name::new(b".scratch").expect("a name");
                bracket = Some(volume.bracket(scratch).map_err(failed)?);
            }
            (Change::Marker { kind, .. }, Some(_)) if kind.ends_bracket() => {
                bracket.take().map_or(Ok(()), |open| open.end()).map_err(failed)?;
            }
            (Change::Marker { kind: MarkerKind::ResyncBegin | MarkerKind::RecoveryBegin, .. }, Some(open)) => {
                open.again()
            }
            (change, Some(open)) => open.change(change).map_err(failed)?,
            (_, None) => replay.apply(record, &volume)?,
        }
    }
    Ok(Tree::of(&place))
}
