//! A change from control data and journal data; every range is checked.

use std::borrow::Cow;

use super::fields::{decode_attributes, decode_node, decode_uuid, decode_xattr_name};
use super::{Control, DATA_MAX, kind};
use crate::bytes::Reader;
use crate::{AmendOutcome, Change, Epoch, RecordError, Seq, Timestamp, Xattr, active};

pub(super) fn decode_change<'a>(control: &Control, reader: &mut Reader<'a>) -> Result<Change<'a>, RecordError> {
    let &Control { kind, file, offset, length, size, .. } = control;
    let range_fits = offset.checked_add(length).is_some_and(|end| i64::try_from(end).is_ok());
    if !range_fits || i64::try_from(size).is_err() {
        return Err(RecordError::Range("range"));
    }
    Ok(match kind {
        kind::WRITE => {
            let mtime = reader.file_time("mtime")?;
            let data = reader.take(reader.0.len(), "data")?;
            if data.len() as u64 != length || data.len() > DATA_MAX {
                return Err(RecordError::Range("data"));
            }
            Change::Write { file, offset, data: Cow::Borrowed(data), size, mtime }
        }
        kind::SET_SIZE => Change::SetSize { file, size, mtime: reader.file_time("mtime")? },
        kind::ZERO => Change::Zero { file, offset, length, size, mtime: reader.file_time("mtime")? },
        kind::PUNCH => Change::Punch { file, offset, length, mtime: reader.file_time("mtime")? },
        kind::ALLOCATE => Change::Allocate { file, offset, length, size, mtime: reader.file_time("mtime")? },
        kind::CREATE => Change::Create {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            kind: decode_node(reader)?,
            attributes: decode_attributes(reader)?,
            xattrs: reader.xattrs("extended attributes")?,
            parent_mtime: reader.file_time("parent mtime")?,
        },
        kind::LINK => Change::Link {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            parent_mtime: reader.file_time("parent mtime")?,
        },
        kind::UNLINK => Change::Unlink {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            parent_mtime: reader.file_time("parent mtime")?,
        },
        kind::RENAME => Change::Rename {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            new_parent: reader.file_id("new parent")?,
            new_name: reader.name("new name")?,
            replaced: reader.file_id("replaced")?,
            flags: match reader.u32("flags")? {
                flags @ 0..=2 => flags,
                _ => return Err(RecordError::Range("rename flags")),
            },
            parent_mtime: reader.file_time("parent mtime")?,
        },
        kind::DROP => Change::Drop { file },
        kind::SET_ATTR => Change::SetAttr { file, attributes: decode_attributes(reader)? },
        kind::SET_XATTR => {
            let (name, value) = (decode_xattr_name(reader)?, reader.blob("value")?.to_vec());
            if value.len() > 65_536 {
                return Err(RecordError::Range("value"));
            }
            Change::SetXattr { file, xattr: Xattr { name, value } }
        }
        kind::REMOVE_XATTR => Change::RemoveXattr { file, name: decode_xattr_name(reader)? },
        kind::SYNC => Change::Sync { file },
        kind::ACTIVE => Change::Active { entries: active::decode(reader)? },
        kind::AMEND => Change::Amend {
            amended: Seq(offset),
            outcome: match reader.u8("outcome")? {
                0 => AmendOutcome::Void,
                1 => AmendOutcome::Short { length, size },
                _ => return Err(RecordError::Range("outcome")),
            },
        },
        kind::BASE_BEGIN => Change::BaseBegin { base: decode_uuid(reader)?, root: file },
        kind::ENTRY => Change::Entry {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            kind: decode_node(reader)?,
            attributes: decode_attributes(reader)?,
            xattrs: reader.xattrs("extended attributes")?,
            size,
        },
        kind::BASE_DATA => Change::BaseData { file, stream_offset: offset, stream_length: length, size },
        kind::BASE_END => {
            let base = decode_uuid(reader)?;
            let mut digest = [0; 32];
            digest.copy_from_slice(reader.take(32, "digest")?);
            Change::BaseEnd { base, began: Seq(offset), digest }
        }
        kind::LIST_BEGIN => Change::ListBegin { directory: file },
        kind::LIST_END => Change::ListEnd { directory: file },
        kind::MARKER => Change::Marker {
            kind: kind::marker_kind(reader.u8("marker kind")?)?,
            epoch: Epoch(reader.u32("epoch")?),
            since: Timestamp(reader.i64("since")?),
            name: reader.text("marker name")?,
            note: reader.text("marker note")?,
            tags: reader.tags("tags")?,
        },
        unknown => return Err(RecordError::UnknownKind(unknown)),
    })
}
