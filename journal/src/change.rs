//! Everything that can happen to a volume.

use std::borrow::Cow;

use uuid::Uuid;

use crate::{Active, Attributes, Epoch, FileId, FileTime, MarkerKind, Name, NodeKind, Seq, Tags, Timestamp, Xattr};

/// `renameat2`: fail when the new name exists.
pub const RENAME_NOREPLACE: u32 = 1;
/// `renameat2`: exchange the two names.
pub const RENAME_EXCHANGE: u32 = 2;

/// What an earlier record really did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmendOutcome {
    /// Nothing: its operation failed.
    Void,
    /// Only the first `length` bytes were written, and the file was `size` bytes long then.
    Short {
        /// Bytes really written.
        length: u64,
        /// File size left behind.
        size: u64,
    },
}

/// A change to a volume. Every change is absolute and says what was *left*, not what was asked for.
///
/// `mtime` is the modification time that the change left on the file; `parent_mtime` the one it left on the directory
/// (on both directories, for a rename between two).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a> {
    /// Bytes written.
    Write {
        /// The file.
        file: FileId,
        /// Where, in bytes.
        offset: u64,
        /// What, at most [`crate::DATA_MAX`] bytes.
        data: Cow<'a, [u8]>,
        /// File size afterwards.
        size: u64,
        /// Left on the file.
        mtime: FileTime,
    },
    /// The file was cut or extended.
    SetSize {
        /// The file.
        file: FileId,
        /// File size afterwards.
        size: u64,
        /// Left on the file.
        mtime: FileTime,
    },
    /// A range was made zeros (`FALLOC_FL_ZERO_RANGE`).
    Zero {
        /// The file.
        file: FileId,
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// File size afterwards.
        size: u64,
        /// Left on the file.
        mtime: FileTime,
    },
    /// A range was made a hole (`FALLOC_FL_PUNCH_HOLE`).
    Punch {
        /// The file.
        file: FileId,
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// Left on the file.
        mtime: FileTime,
    },
    /// Space was reserved.
    Allocate {
        /// The file.
        file: FileId,
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// File size afterwards.
        size: u64,
        /// Left on the file.
        mtime: FileTime,
    },
    /// A new object under a new name.
    Create {
        /// The directory.
        parent: FileId,
        /// The name in it.
        name: Name,
        /// The new object.
        file: FileId,
        /// What it is.
        kind: NodeKind,
        /// As they stand, inheritance from the directory included.
        attributes: Attributes,
        /// Inherited ACLs and whatever else it was born with.
        xattrs: Vec<Xattr>,
        /// Left on the directory.
        parent_mtime: FileTime,
    },
    /// A further name of a file.
    Link {
        /// The file.
        file: FileId,
        /// The directory of the new name.
        parent: FileId,
        /// The new name.
        name: Name,
        /// Left on the directory.
        parent_mtime: FileTime,
    },
    /// A name removed (`unlink`, or `rmdir` of an empty directory).
    Unlink {
        /// The directory.
        parent: FileId,
        /// The name.
        name: Name,
        /// What it named.
        file: FileId,
        /// Left on the directory.
        parent_mtime: FileTime,
    },
    /// A name moved.
    Rename {
        /// What moved.
        file: FileId,
        /// The old directory.
        parent: FileId,
        /// The old name.
        name: Name,
        /// The new directory.
        new_parent: FileId,
        /// The new name.
        new_name: Name,
        /// What the new name stood for before, or [`FileId::NONE`]: replaced, or exchanged.
        replaced: FileId,
        /// [`RENAME_NOREPLACE`] and [`RENAME_EXCHANGE`].
        flags: u32,
        /// Left on both directories.
        parent_mtime: FileTime,
    },
    /// The last handle of a nameless file was closed: it is gone.
    Drop {
        /// The file.
        file: FileId,
    },
    /// Mode, owner and modification time, all as they stand.
    SetAttr {
        /// The object.
        file: FileId,
        /// As they stand.
        attributes: Attributes,
    },
    /// An extended attribute or an ACL was set.
    SetXattr {
        /// The object.
        file: FileId,
        /// Name and value.
        xattr: Xattr,
    },
    /// An extended attribute or an ACL was removed.
    RemoveXattr {
        /// The object.
        file: FileId,
        /// Its full name.
        name: Vec<u8>,
    },
    /// An fsync boundary: any prefix of the journal up to here is a state that a crash could have left.
    Sync {
        /// The file, or [`FileId::NONE`] for everything.
        file: FileId,
    },
    /// What may change before its own records are durable: it is durable itself before the volume is touched.
    Active {
        /// At most [`crate::ACTIVE_MAX`].
        entries: Vec<Active>,
    },
    /// What an earlier record really did.
    Amend {
        /// That record.
        amended: Seq,
        /// What it did.
        outcome: AmendOutcome,
    },
    /// A base copy started: what its base tape holds counts as standing here.
    BaseBegin {
        /// The base copy.
        base: Uuid,
        /// The volume's root directory.
        root: FileId,
    },
    /// An object's name and state, as they stand. Making, linking or moving whatever is needed to make it true.
    Entry {
        /// The directory, or [`FileId::NONE`] for a nameless open file (its name is then `?`) and for the root.
        parent: FileId,
        /// The name in it.
        name: Name,
        /// The object.
        file: FileId,
        /// What it is.
        kind: NodeKind,
        /// As they stand.
        attributes: Attributes,
        /// All of them, as they stand.
        xattrs: Vec<Xattr>,
        /// Size of a regular file in bytes, else 0.
        size: u64,
    },
    /// Where a base tape holds the bytes of a file: only on base tapes, never in a JVOL.
    BaseData {
        /// The file.
        file: FileId,
        /// Offset of its member's data in the uncompressed tar stream.
        stream_offset: u64,
        /// Length of that data in the stream (less than the size when it is sparse).
        stream_length: u64,
        /// File size in bytes.
        size: u64,
    },
    /// The base copy is complete: from here on every point can be restored.
    BaseEnd {
        /// The base copy.
        base: Uuid,
        /// Its [`Change::BaseBegin`].
        began: Seq,
        /// Root digest of the base tape.
        digest: [u8; 32],
    },
    /// The entries of this directory follow; together they are all it has. Ends with [`Change::ListEnd`].
    ListBegin {
        /// The directory.
        directory: FileId,
    },
    /// Names of the directory that no [`Change::Entry`] told since [`Change::ListBegin`] are gone.
    ListEnd {
        /// The directory.
        directory: FileId,
    },
    /// Control information for people and for the other side.
    Marker {
        /// Why.
        kind: MarkerKind,
        /// The epoch it stands in.
        epoch: Epoch,
        /// The name of a named point, else empty.
        name: String,
        /// Free text, may be empty.
        note: String,
        /// What programs say about a named point.
        tags: Tags,
        /// The time since when the bracket's state is uncertain (begin markers), else the marker's own time.
        since: Timestamp,
    },
}

impl Change<'_> {
    /// The object that the change is about: the file of a data or attribute change, the new object of a create, what a
    /// removed or moved name stood for; [`FileId::NONE`] for control information.
    #[must_use]
    pub fn file(&self) -> FileId {
        match self {
            Change::Write { file, .. }
            | Change::SetSize { file, .. }
            | Change::Zero { file, .. }
            | Change::Punch { file, .. }
            | Change::Allocate { file, .. }
            | Change::Create { file, .. }
            | Change::Link { file, .. }
            | Change::Unlink { file, .. }
            | Change::Rename { file, .. }
            | Change::Drop { file }
            | Change::SetAttr { file, .. }
            | Change::SetXattr { file, .. }
            | Change::RemoveXattr { file, .. }
            | Change::Sync { file }
            | Change::Entry { file, .. }
            | Change::BaseData { file, .. } => *file,
            Change::ListBegin { directory } | Change::ListEnd { directory } => *directory,
            Change::BaseBegin { root, .. } => *root,
            Change::Active { .. } | Change::Amend { .. } | Change::BaseEnd { .. } | Change::Marker { .. } => {
                FileId::NONE
            }
        }
    }

    /// The change's name for people and for `log`, one word.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Change::Write { .. } => "write",
            Change::SetSize { .. } => "truncate",
            Change::Zero { .. } => "zero",
            Change::Punch { .. } => "punch",
            Change::Allocate { .. } => "allocate",
            Change::Create { kind, .. } => match kind {
                NodeKind::File => "create",
                NodeKind::Directory => "mkdir",
                NodeKind::Symlink(_) => "symlink",
                NodeKind::Fifo | NodeKind::Socket | NodeKind::CharDevice(_) | NodeKind::BlockDevice(_) => "mknod",
            },
            Change::Link { .. } => "link",
            Change::Unlink { .. } => "unlink",
            Change::Rename { .. } => "rename",
            Change::Drop { .. } => "drop",
            Change::SetAttr { .. } => "setattr",
            Change::SetXattr { .. } => "setxattr",
            Change::RemoveXattr { .. } => "removexattr",
            Change::Sync { .. } => "sync",
            Change::Active { .. } => "active",
            Change::Amend { .. } => "amend",
            Change::BaseBegin { .. } => "base-begin",
            Change::Entry { .. } => "entry",
            Change::BaseData { .. } => "base-data",
            Change::BaseEnd { .. } => "base-end",
            Change::ListBegin { .. } => "list-begin",
            Change::ListEnd { .. } => "list-end",
            Change::Marker { .. } => "marker",
        }
    }

    /// The same change with its bytes owned, to keep it longer than the buffer it was read from.
    #[must_use]
    pub fn into_owned(self) -> Change<'static> {
        match self {
            Change::Write { file, offset, data, size, mtime } => {
                Change::Write { file, offset, data: Cow::Owned(data.into_owned()), size, mtime }
            }
            Change::SetSize { file, size, mtime } => Change::SetSize { file, size, mtime },
            Change::Zero { file, offset, length, size, mtime } => Change::Zero { file, offset, length, size, mtime },
            Change::Punch { file, offset, length, mtime } => Change::Punch { file, offset, length, mtime },
            Change::Allocate { file, offset, length, size, mtime } => {
                Change::Allocate { file, offset, length, size, mtime }
            }
            Change::Create { parent, name, file, kind, attributes, xattrs, parent_mtime } => {
                Change::Create { parent, name, file, kind, attributes, xattrs, parent_mtime }
            }
            Change::Link { file, parent, name, parent_mtime } => Change::Link { file, parent, name, parent_mtime },
            Change::Unlink { parent, name, file, parent_mtime } => Change::Unlink { parent, name, file, parent_mtime },
            Change::Rename { file, parent, name, new_parent, new_name, replaced, flags, parent_mtime } => {
                Change::Rename { file, parent, name, new_parent, new_name, replaced, flags, parent_mtime }
            }
            Change::Drop { file } => Change::Drop { file },
            Change::SetAttr { file, attributes } => Change::SetAttr { file, attributes },
            Change::SetXattr { file, xattr } => Change::SetXattr { file, xattr },
            Change::RemoveXattr { file, name } => Change::RemoveXattr { file, name },
            Change::Sync { file } => Change::Sync { file },
            Change::Active { entries } => Change::Active { entries },
            Change::Amend { amended, outcome } => Change::Amend { amended, outcome },
            Change::BaseBegin { base, root } => Change::BaseBegin { base, root },
            Change::Entry { parent, name, file, kind, attributes, xattrs, size } => {
                Change::Entry { parent, name, file, kind, attributes, xattrs, size }
            }
            Change::BaseData { file, stream_offset, stream_length, size } => {
                Change::BaseData { file, stream_offset, stream_length, size }
            }
            Change::BaseEnd { base, began, digest } => Change::BaseEnd { base, began, digest },
            Change::ListBegin { directory } => Change::ListBegin { directory },
            Change::ListEnd { directory } => Change::ListEnd { directory },
            Change::Marker { kind, epoch, name, note, tags, since } => {
                Change::Marker { kind, epoch, name, note, tags, since }
            }
        }
    }
}
