//! The volumes of a group, as tapes and the group itself name them.

use std::collections::{BTreeMap, BTreeSet};

use reelfs_archive::LabelVolume;
use reelfs_journal::{VolumeIndex, VolumeName};

/// Which volumes there are, and what they are called. A name may be given again after its volume left; an index never is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volumes {
    names: BTreeMap<VolumeIndex, VolumeName>,
}

impl Volumes {
    /// Those of a group of one volume.
    #[must_use]
    pub fn only() -> Volumes {
        let mut volumes = Volumes::default();
        volumes.add(&LabelVolume::only());
        volumes
    }

    /// Takes one in; what is said last about a volume counts.
    pub fn add(&mut self, volume: &LabelVolume) {
        if volume.name.is_some() || !self.names.contains_key(&volume.index) {
            self.names.insert(volume.index, volume.called());
        }
    }

    /// What a volume is called.
    #[must_use]
    pub fn name(&self, index: VolumeIndex) -> VolumeName {
        self.names.get(&index).cloned().unwrap_or_else(|| VolumeName::unnamed(index))
    }

    /// All of them, by index.
    pub fn indexes(&self) -> impl Iterator<Item = VolumeIndex> {
        self.names.keys().copied()
    }

    /// The volumes that have, or had, this name.
    #[must_use]
    pub fn named(&self, name: &VolumeName) -> BTreeSet<VolumeIndex> {
        self.names.iter().filter(|(_, own)| *own == name).map(|(index, _)| *index).collect()
    }

    /// Their names, each once.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&VolumeName> {
        self.names.values().collect()
    }

    /// There is more than one name: what concerns one of them must say which.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.names().len() > 1
    }

    /// Leaves only these.
    pub fn keep(&mut self, indexes: &BTreeSet<VolumeIndex>) {
        self.names.retain(|index, _| indexes.contains(index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(index: u16, name: &str) -> LabelVolume {
        LabelVolume::new(VolumeIndex(index), name.parse().expect("a name"))
    }

    #[test]
    fn the_last_name_counts_and_a_name_may_come_again() {
        let mut volumes = Volumes::default();
        volumes.add(&LabelVolume { index: VolumeIndex(0), name: None });
        assert_eq!(volumes, Volumes::only());
        volumes.add(&volume(0, "mail"));
        volumes.add(&LabelVolume { index: VolumeIndex(0), name: None });
        assert_eq!(volumes.name(VolumeIndex(0)).as_str(), "mail");
        assert!(!volumes.are_several());
        volumes.add(&volume(2, "mail"));
        assert!(!volumes.are_several());
        assert_eq!(volumes.named(&"mail".parse().expect("a name")), BTreeSet::from([VolumeIndex(0), VolumeIndex(2)]));
        volumes.add(&volume(1, "web"));
        assert!(volumes.are_several());
        assert_eq!(volumes.name(VolumeIndex(9)).as_str(), "volume_9");
        volumes.keep(&BTreeSet::from([VolumeIndex(1)]));
        assert_eq!(volumes.indexes().collect::<Vec<_>>(), [VolumeIndex(1)]);
    }
}
