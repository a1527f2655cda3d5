//! What the journal alone says: its records replayed into an empty directory, brackets as a whole.

use std::fs::{self, File};
use std::path::Path;

use reelfs_journal::{Amends, Change, Jvol, MarkerKind, Name, Record, Seq};
use reelfs_volume::{Bracket, Volume};

use crate::model::replay::records;
use crate::support::Tree;

/// Replays a journal that was never freed into `to`, which is made, and gives what stands there then. The journal begins
/// with an empty root of this id.
pub fn twin(jvol: &Jvol, root: reelfs_journal::FileId, to: &Path) -> Result<Tree, String> {
    if jvol.pointers().out != Seq(1) {
        return Err(format!("the journal begins at {} only", jvol.pointers().out));
    }
    fs::create_dir(to).map_err(|error| error.to_string())?;
    let directory = File::open(to).map_err(|error| error.to_string())?;
    let volume = Volume::replica(directory.into(), root).map_err(|error| error.to_string())?;
    volume.set_converging(true);
    let records = records(jvol);
    let mut amends = Amends::default();
    records.iter().for_each(|record| amends.note(&record.change));
    let mut bracket = None;
    for record in records {
        let (seq, verb) = (record.seq, record.change.verb());
        let Some(change) = amends.real(record) else { continue };
        step(&volume, &mut bracket, &change).map_err(|error| format!("record {seq} ({verb}): {error}"))?;
    }
    if bracket.is_some() {
        return Err("the journal ends inside a bracket".to_owned());
    }
    Ok(Tree::of(to))
}

fn step<'v>(
    volume: &'v Volume,
    bracket: &mut Option<Bracket<'v>>,
    change: &Change<'_>,
) -> Result<(), rustix::io::Errno> {
    if let Change::Marker { kind, .. } = change {
        if kind.begins_bracket() && bracket.is_none() {
            let scratch = Name::new(b".scratch-of-the-twin").expect("a name");
            *bracket = Some(volume.bracket(scratch)?);
        } else if let (MarkerKind::ResyncBegin | MarkerKind::RecoveryBegin, Some(open)) = (kind, bracket.as_mut()) {
            open.again();
        } else if kind.ends_bracket()
            && let Some(open) = bracket.take()
        {
            open.end()?;
        }
        return Ok(());
    }
    match bracket {
        Some(open) => open.change(change),
        None => volume.apply(change).map(|_| ()),
    }
}
