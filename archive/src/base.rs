//! Writing base tapes: a directory tree as ordinary tar entries, and the control data that says what they are.

use std::io::{self, Write};

use reelfs_journal::{Attributes, Change, FileId, Name, NodeKind, Record, VolumeIndex, Xattr};

use crate::compress::FrameSink;
use crate::header::padded;
use crate::index::Counts;
use crate::pax::{Entry, archive_path};
use crate::update::Press;
use crate::{Label, Sealed, TapeError, TapeKind, WriteOptions};

/// Holes begin and end at multiples of this, except at the end of a file.
const GRAIN: u64 = 4096;
/// Files in more pieces than this are written without their holes.
pub(crate) const EXTENTS_MAX: usize = 1 << 20;

/// One name of the tree, for a tar entry.
#[derive(Debug, Clone, Copy)]
pub struct BaseFile<'a> {
    /// The object.
    pub file: FileId,
    /// Its path from the volume's root, which has none.
    pub path: &'a [Name],
    /// What it is.
    pub kind: &'a NodeKind,
    /// As they stand.
    pub attributes: &'a Attributes,
    /// As they stand, ACLs included.
    pub xattrs: &'a [Xattr],
    /// Size of a regular file in bytes.
    pub size: u64,
    /// Where it has data: offset and length in bytes, rising. `&[(0, size)]` if it has no holes.
    pub extents: &'a [(u64, u64)],
    /// Another name of the same object that is already on the tape.
    pub hard_link: Option<&'a [Name]>,
}

/// What reads a file's bytes: fills the buffer from this offset, as `pread` does.
pub type Source<'a> = dyn FnMut(&mut [u8], u64) -> io::Result<usize> + 'a;

/// Writes a base tape.
pub struct BaseWriter<W: Write> {
    press: Press<W>,
    tree: Counts,
    /// A file's bytes could not be read: its entry is not whole.
    is_broken: bool,
}

impl<W: Write> BaseWriter<W> {
    /// Begins a tape with this label ([`Label::base`]).
    ///
    /// # Errors
    /// What is wrong with the label, or what `out` says.
    pub fn new(out: W, label: Label, options: WriteOptions) -> Result<Self, TapeError> {
        Ok(BaseWriter {
            press: Press::start(out, label, TapeKind::Base, options)?,
            tree: Counts::default(),
            is_broken: false,
        })
    }

    /// Takes the control data of a name: a [`Change::Entry`]. The record gets the number of the base copy's begin
    /// and the index of the label's volume.
    ///
    /// # Errors
    /// [`TapeError::Unfit`] for any other change; else what the output says.
    pub fn entry(&mut self, change: &Change<'_>) -> Result<(), TapeError> {
        if !matches!(change, Change::Entry { .. }) {
            return Err(TapeError::Unfit("a change that is not an entry on a base tape"));
        }
        self.push(change)
    }

    fn push(&mut self, change: &Change<'_>) -> Result<(), TapeError> {
        let Label { first, first_time, .. } = self.press.label;
        let volume = self.press.label.volumes.first().map_or(VolumeIndex::FIRST, |volume| volume.index);
        let record = Record {
            seq: first,
            more: false,
            time: first_time,
            wall: first_time,
            uid: 0,
            pid: 0,
            volume,
            change: change.clone(),
        };
        let encoded = record.encode();
        self.press.chunks.push(&mut self.press.sink, encoded.control(), encoded.data())
    }

    /// Writes the tar entry of a name, and the record of where a regular file's bytes are. A file may change meanwhile:
    /// exactly `size` bytes are written, zeros where it has become shorter. Sockets have no tar entry.
    ///
    /// # Errors
    /// [`TapeError::Source`] when its bytes cannot be read: the tape is then good for nothing. Else what the output
    /// says.
    pub fn file(&mut self, file: &BaseFile<'_>, source: &mut Source<'_>) -> Result<(), TapeError> {
        if *file.kind == NodeKind::Socket {
            return Ok(());
        }
        let has_data = *file.kind == NodeKind::File && file.hard_link.is_none();
        let layout = if has_data { Layout::of(file) } else { Layout::default() };
        let sink = &mut self.press.sink;
        let entry = Entry {
            path: archive_path(file.path, file.kind),
            kind: file.kind,
            attributes: file.attributes,
            xattrs: file.xattrs,
            hard_link: file.hard_link.map(|path| archive_path(path, file.kind)),
            data_len: layout.stream_length(),
            sparse_size: layout.is_sparse().then_some(file.size),
        };
        sink.write(&entry.headers())?;
        let stream_offset = sink.stream_offset();
        sink.write(&layout.map)?;
        for &(offset, length) in &layout.extents {
            let copied = copy(sink, source, offset, length);
            self.is_broken |= copied.is_err();
            copied.map_err(|error| match error {
                Copy::Tape(error) => error,
                Copy::Source(offset, source) => {
                    let path = String::from_utf8_lossy(&entry.path).into_owned();
                    TapeError::Source { path, offset, source }
                }
            })?;
        }
        sink.pad_block()?;
        self.tree.files += 1;
        if !has_data {
            return Ok(());
        }
        self.tree.file_bytes += layout.data_length();
        let stream_length = layout.stream_length();
        self.push(&Change::BaseData { file: file.file, stream_offset, stream_length, size: file.size })
    }

    /// Compressed bytes written so far (what is still being compressed is not counted).
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.press.sink.written()
    }

    /// Finishes the tape.
    ///
    /// # Errors
    /// [`TapeError::Unfit`] after a file that could not be read; else what the output says.
    pub fn seal(self, sealed: reelfs_journal::Timestamp) -> Result<Sealed<W>, TapeError> {
        if self.is_broken {
            return Err(TapeError::Unfit("a file whose bytes could not be read"));
        }
        let last_time = self.press.label.first_time;
        self.press.seal(None, sealed.max(last_time), last_time, self.tree)
    }
}

/// How a file's bytes stand in its tar entry.
#[derive(Default)]
struct Layout {
    /// GNU sparse map, version 1.0, in whole blocks; empty for a file without holes.
    map: Vec<u8>,
    extents: Vec<(u64, u64)>,
}

impl Layout {
    fn of(file: &BaseFile<'_>) -> Layout {
        let whole = Layout { map: Vec::new(), extents: if file.size == 0 { Vec::new() } else { vec![(0, file.size)] } };
        let Some(extents) = normalize(file.extents, file.size) else {
            return whole;
        };
        let map = sparse_map(&extents, file.size);
        let sparse = Layout { map, extents };
        // a reader tells a sparse entry by its being shorter than the file
        if sparse.stream_length() < file.size { sparse } else { whole }
    }

    fn is_sparse(&self) -> bool {
        !self.map.is_empty()
    }

    fn data_length(&self) -> u64 {
        self.extents.iter().map(|(_, length)| length).sum()
    }

    fn stream_length(&self) -> u64 {
        self.map.len() as u64 + self.data_length()
    }
}

/// Extents within the file, rounded outwards to whole grains, touching ones joined; `None` if there are too many or
/// they do not rise.
fn normalize(extents: &[(u64, u64)], size: u64) -> Option<Vec<(u64, u64)>> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &(offset, length) in extents {
        let start = offset / GRAIN * GRAIN;
        let end = offset.checked_add(length)?.checked_next_multiple_of(GRAIN)?.min(size);
        match ranges.last_mut() {
            _ if length == 0 || start >= size => {}
            Some((last_start, _)) if start < *last_start => return None,
            Some((_, last_end)) if start <= *last_end => *last_end = end.max(*last_end),
            _ => ranges.push((start, end)),
        }
        if ranges.len() > EXTENTS_MAX {
            return None;
        }
    }
    Some(ranges.into_iter().map(|(start, end)| (start, end - start)).collect())
}

fn sparse_map(extents: &[(u64, u64)], size: u64) -> Vec<u8> {
    let ends_with_hole = extents.last().is_none_or(|(offset, length)| offset + length < size);
    let mut text = format!("{}\n", extents.len() + usize::from(ends_with_hole));
    for (offset, length) in extents {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    if ends_with_hole {
        text.push_str(&format!("{size}\n0\n"));
    }
    let mut map = text.into_bytes();
    map.resize(usize::try_from(padded(map.len() as u64)).unwrap_or(map.len()), 0);
    map
}

enum Copy {
    Tape(TapeError),
    Source(u64, io::Error),
}

/// Reads straight into the frames.
fn copy<W: Write>(sink: &mut FrameSink<W>, source: &mut Source<'_>, mut offset: u64, length: u64) -> Result<(), Copy> {
    let end = offset + length;
    while offset < end {
        let space = sink.space();
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(space.len());
        let read = match source(&mut space[..wanted], offset) {
            Ok(0) => return sink.zeros(end - offset).map_err(Copy::Tape),
            Ok(read) => read.min(wanted),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Copy::Source(offset, error)),
        };
        sink.advance(read).map_err(Copy::Tape)?;
        offset += read as u64;
    }
    Ok(())
}
