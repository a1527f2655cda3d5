//! The journal group table: number, name, attribute and status of a group, its data volumes and its journal volumes.

use serde::Serialize;

use crate::output::Output;
use crate::size::Size;
use crate::status::GroupStatus;

/// What the storage people's journal group table says of a group. Its name and status stand beside it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GroupTable {
    /// The number on this machine; absent when an earlier version made the group.
    pub number: Option<u32>,
    /// MASTER: it makes journals.
    pub attribute: &'static str,
    /// By index, which pairs a volume with its secondary.
    pub data_volumes: Vec<DataVolume>,
    /// By index; the first is in use.
    pub journal_volumes: Vec<JournalVolume>,
    /// The pool that a spare comes from.
    pub spare_pool: Option<String>,
}

/// A directory whose changes are journaled.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DataVolume {
    pub index: u16,
    /// UUID of the group and index: the same volume nowhere else.
    pub id: String,
    pub name: String,
    pub path: String,
    pub status: &'static str,
    /// How far the base copy is: absent before it and after it.
    pub base_pointer: Option<BasePointer>,
    /// The record at which the newest base copy was whole.
    pub base_seq: Option<u64>,
}

/// How far a base copy is, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct BasePointer {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// A journal volume.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct JournalVolume {
    pub index: u16,
    pub id: String,
    pub path: String,
    pub size_bytes: Option<u64>,
    /// The pool that it came from and goes back to.
    pub pool: Option<String>,
    /// Other users may read it.
    pub visible: bool,
}

impl GroupTable {
    pub(crate) fn of(status: &GroupStatus) -> GroupTable {
        let file = &status.file;
        let copying = status.live.as_ref().and_then(|live| live.activity.as_ref());
        let copying = copying.filter(|activity| activity.verb == "reelfs base copy");
        // one after the other is copied, and the pointer is that of the one it is at
        let pointer =
            copying.map(|activity| BasePointer { done_bytes: activity.step.done, total_bytes: activity.step.total });
        let data = file.volumes.iter().map(|entry| DataVolume {
            index: entry.index.0,
            id: format!("{}:{}", file.uuid, entry.index),
            name: entry.name.to_string(),
            path: entry.pvol.display().to_string(),
            status: status.state_of(Some(entry.index)).word(),
            base_pointer: pointer,
            base_seq: entry.base.map(|base| base.seq.0),
        });
        let size = std::fs::metadata(&file.journal).ok().map(|metadata| metadata.len());
        let journal = JournalVolume {
            index: 0,
            id: format!("{}:j0", file.uuid),
            path: file.journal.display().to_string(),
            size_bytes: size,
            pool: file.origin.pool.as_ref().map(ToString::to_string),
            visible: file.origin.visible,
        };
        GroupTable {
            number: file.number,
            attribute: "MASTER",
            data_volumes: data.collect(),
            journal_volumes: vec![journal],
            spare_pool: file.origin.spare.as_ref().map(ToString::to_string),
        }
    }

    /// The table as lines of text.
    pub(crate) fn say(&self, output: &Output) -> crate::error::Result<()> {
        let number = self.number.map_or_else(|| "none".to_owned(), |number| number.to_string());
        output.say(format!("number    {number}, attribute {}", self.attribute))?;
        for volume in &self.data_volumes {
            let base = match (volume.base_pointer, volume.base_seq) {
                (Some(at), _) => format!("base pointer {} of {}", Size(at.done_bytes), Size(at.total_bytes)),
                (None, Some(seq)) => format!("base whole at seq {seq}"),
                (None, None) => "no base".to_owned(),
            };
            output
                .say(format!("volume {}  {}  {}  {base}  {}", volume.index, volume.name, volume.status, volume.path))?;
        }
        for volume in &self.journal_volumes {
            let size = volume.size_bytes.map_or_else(|| "not there".to_owned(), |bytes| Size(bytes).to_string());
            let pool = volume.pool.as_ref().map_or_else(String::new, |pool| format!("  of pool {pool}"));
            let seen = if volume.visible { "  readable by everybody" } else { "" };
            output.say(format!("jvol {}    {size}{pool}{seen}  {}", volume.index, volume.path))?;
        }
        match &self.spare_pool {
            Some(pool) => output.say(format!("spare     from pool {pool}")),
            None => Ok(()),
        }
    }
}
