//! Fields that several kinds of records have: what an object is, its attributes, names of extended ones.

use uuid::Uuid;

use crate::bytes::{Reader, Writer};
use crate::{Attributes, NodeKind, RecordError};

pub(super) fn encode_attributes(attributes: &Attributes, writer: &mut Writer<'_>) {
    writer.u32(attributes.mode);
    writer.u32(attributes.uid);
    writer.u32(attributes.gid);
    writer.file_time(attributes.mtime);
}

pub(super) fn decode_attributes(reader: &mut Reader<'_>) -> Result<Attributes, RecordError> {
    let mode = reader.u32("mode")?;
    if mode & !0o7777 != 0 {
        return Err(RecordError::Range("mode"));
    }
    Ok(Attributes { mode, uid: reader.u32("uid")?, gid: reader.u32("gid")?, mtime: reader.file_time("mtime")? })
}

pub(super) fn encode_node(kind: &NodeKind, writer: &mut Writer<'_>) {
    match kind {
        NodeKind::File => writer.u8(0),
        NodeKind::Directory => writer.u8(1),
        NodeKind::Symlink(target) => {
            writer.u8(2);
            writer.blob(target);
        }
        NodeKind::Fifo => writer.u8(3),
        NodeKind::Socket => writer.u8(4),
        NodeKind::CharDevice(device) => {
            writer.u8(5);
            writer.u64(*device);
        }
        NodeKind::BlockDevice(device) => {
            writer.u8(6);
            writer.u64(*device);
        }
    }
}

pub(super) fn decode_node(reader: &mut Reader<'_>) -> Result<NodeKind, RecordError> {
    Ok(match reader.u8("type")? {
        0 => NodeKind::File,
        1 => NodeKind::Directory,
        2 => {
            let target = reader.blob("target")?;
            if target.is_empty() || target.len() > 4096 || target.contains(&0) {
                return Err(RecordError::Range("target"));
            }
            NodeKind::Symlink(target.to_vec())
        }
        3 => NodeKind::Fifo,
        4 => NodeKind::Socket,
        5 => NodeKind::CharDevice(reader.u64("device")?),
        6 => NodeKind::BlockDevice(reader.u64("device")?),
        _ => return Err(RecordError::Range("type")),
    })
}

pub(super) fn decode_xattr_name(reader: &mut Reader<'_>) -> Result<Vec<u8>, RecordError> {
    let name = reader.blob("attribute name")?;
    if name.is_empty() || name.len() > 255 || name.contains(&0) {
        return Err(RecordError::Range("attribute name"));
    }
    Ok(name.to_vec())
}

pub(super) fn decode_uuid(reader: &mut Reader<'_>) -> Result<Uuid, RecordError> {
    Uuid::from_slice(reader.take(16, "uuid")?).map_err(|_| RecordError::Range("uuid"))
}
