//! Whose records the tapes hold: the volumes of a group, those that are asked for, and those that were quiet.

use std::collections::BTreeSet;

use reelfs_archive::{Catalog, LabelVolume};
use reelfs_journal::{MarkerKind, Seq, VolumeIndex};
use uuid::Uuid;

use super::tape::Tape;
use crate::error::{Error, ErrorKind, Result};
use crate::points::{Happening, What};
use crate::scope::Scope;
use crate::volumes::Volumes;

/// The volumes of a group: as the tapes name them, in order, and last as the group itself does.
pub(super) fn volumes_of(catalog: &Catalog, uuid: Uuid, own: &[LabelVolume]) -> Volumes {
    let mut volumes = Volumes::default();
    let labels = catalog.tapes().iter().map(|tape| &tape.head.label).filter(|label| label.group_uuid == uuid);
    labels.flat_map(|label| &label.volumes).chain(own).for_each(|volume| volumes.add(volume));
    volumes
}

/// Leaves the volumes that are asked for.
pub(super) fn narrow(volumes: &mut Volumes, scope: &Scope) -> Result<()> {
    let Some(name) = &scope.volume else { return Ok(()) };
    let wanted: BTreeSet<VolumeIndex> = volumes.named(name);
    if wanted.is_empty() {
        let known: Vec<String> = volumes.names().into_iter().map(|name| format!("{}/{name}", scope.group)).collect();
        let message = format!("group {} has no volume {name}", scope.group);
        return Err(Error::new(ErrorKind::NotFound, message).hint(format!("it has {}", known.join(", "))));
    }
    volumes.keep(&wanted);
    Ok(())
}

/// Volumes that the labels list and of which no tape at hand holds a record. If the first tape is not the first of its
/// epoch, their records may be on the tapes before it, so they count as there.
pub(super) fn quiet_volumes(updates: &[Tape], told: &[Happening]) -> Vec<Happening> {
    let Some(first) = updates.first() else { return Vec::new() };
    let (seq, time) = (first.head.first(), first.head.label.first_time);
    let begins = |happening: &Happening| {
        happening.seq == seq && matches!(happening.what, What::Marker { kind: MarkerKind::EpochStart, .. })
    };
    if seq == Seq(1) || told.iter().any(begins) {
        return Vec::new();
    }
    let heard: BTreeSet<VolumeIndex> =
        told.iter().filter(|happening| !happening.is_of_group()).map(|happening| happening.volume).collect();
    let listed = updates.iter().flat_map(|tape| &tape.head.label.volumes).map(|volume| volume.index);
    let quiet: BTreeSet<VolumeIndex> = listed.filter(|volume| !heard.contains(volume)).collect();
    quiet.into_iter().map(|volume| Happening { seq, time, volume, what: What::Lives }).collect()
}
