//! A change's fields into control data and journal data.

use super::fields::{encode_attributes, encode_node};
use super::{Control, kind};
use crate::bytes::Writer;
use crate::{AmendOutcome, Change, active};

pub(super) fn encode_change<'c>(change: &'c Change<'_>, control: &mut Control, writer: &mut Writer<'_>) -> &'c [u8] {
    match change {
        Change::Write { offset, data, size, mtime, .. } => {
            control.kind = kind::WRITE;
            (control.offset, control.length, control.size) = (*offset, data.len() as u64, *size);
            writer.file_time(*mtime);
            return data;
        }
        Change::SetSize { size, mtime, .. } => {
            (control.kind, control.size) = (kind::SET_SIZE, *size);
            writer.file_time(*mtime);
        }
        Change::Zero { offset, length, size, mtime, .. } => {
            control.kind = kind::ZERO;
            (control.offset, control.length, control.size) = (*offset, *length, *size);
            writer.file_time(*mtime);
        }
        Change::Punch { offset, length, mtime, .. } => {
            control.kind = kind::PUNCH;
            (control.offset, control.length) = (*offset, *length);
            writer.file_time(*mtime);
        }
        Change::Allocate { offset, length, size, mtime, .. } => {
            control.kind = kind::ALLOCATE;
            (control.offset, control.length, control.size) = (*offset, *length, *size);
            writer.file_time(*mtime);
        }
        Change::Create { parent, name, kind, attributes, xattrs, parent_mtime, .. } => {
            control.kind = kind::CREATE;
            writer.file_id(*parent);
            writer.name(name);
            encode_node(kind, writer);
            encode_attributes(attributes, writer);
            writer.xattrs(xattrs);
            writer.file_time(*parent_mtime);
        }
        Change::Link { parent, name, parent_mtime, .. } | Change::Unlink { parent, name, parent_mtime, .. } => {
            control.kind = if matches!(change, Change::Link { .. }) { kind::LINK } else { kind::UNLINK };
            writer.file_id(*parent);
            writer.name(name);
            writer.file_time(*parent_mtime);
        }
        Change::Rename { parent, name, new_parent, new_name, replaced, flags, parent_mtime, .. } => {
            control.kind = kind::RENAME;
            writer.file_id(*parent);
            writer.name(name);
            writer.file_id(*new_parent);
            writer.name(new_name);
            writer.file_id(*replaced);
            writer.u32(*flags);
            writer.file_time(*parent_mtime);
        }
        Change::Drop { .. } => control.kind = kind::DROP,
        Change::SetAttr { attributes, .. } => {
            control.kind = kind::SET_ATTR;
            encode_attributes(attributes, writer);
        }
        Change::SetXattr { xattr, .. } => {
            control.kind = kind::SET_XATTR;
            writer.blob(&xattr.name);
            writer.blob(&xattr.value);
        }
        Change::RemoveXattr { name, .. } => {
            control.kind = kind::REMOVE_XATTR;
            writer.blob(name);
        }
        Change::Sync { .. } => control.kind = kind::SYNC,
        Change::Active { entries } => {
            control.kind = kind::ACTIVE;
            active::encode(entries, writer);
        }
        Change::Amend { amended, outcome } => {
            (control.kind, control.offset) = (kind::AMEND, amended.0);
            match outcome {
                AmendOutcome::Void => writer.u8(0),
                AmendOutcome::Short { length, size } => {
                    writer.u8(1);
                    (control.length, control.size) = (*length, *size);
                }
            }
        }
        Change::BaseBegin { base, .. } => {
            control.kind = kind::BASE_BEGIN;
            writer.0.extend_from_slice(base.as_bytes());
        }
        Change::Entry { parent, name, kind, attributes, xattrs, size, .. } => {
            (control.kind, control.size) = (kind::ENTRY, *size);
            writer.file_id(*parent);
            writer.name(name);
            encode_node(kind, writer);
            encode_attributes(attributes, writer);
            writer.xattrs(xattrs);
        }
        Change::BaseData { stream_offset, stream_length, size, .. } => {
            control.kind = kind::BASE_DATA;
            (control.offset, control.length, control.size) = (*stream_offset, *stream_length, *size);
        }
        Change::BaseEnd { base, began, digest } => {
            (control.kind, control.offset) = (kind::BASE_END, began.0);
            writer.0.extend_from_slice(base.as_bytes());
            writer.0.extend_from_slice(digest);
        }
        Change::ListBegin { .. } => control.kind = kind::LIST_BEGIN,
        Change::ListEnd { .. } => control.kind = kind::LIST_END,
        Change::Marker { kind, epoch, name, note, tags, since } => {
            control.kind = kind::MARKER;
            writer.u8(kind::marker_code(*kind));
            writer.u32(epoch.0);
            writer.i64(since.0);
            writer.blob(name.as_bytes());
            writer.blob(note.as_bytes());
            writer.tags(tags);
        }
    }
    &[]
}
