//! The bytes of files on a base tape.

use std::io;
use std::sync::Arc;

use crate::TapeError;
use crate::base::EXTENTS_MAX;
use crate::decode::{FrameStream, Frames};
use crate::header::BLOCK;
use crate::sealed::{BODY_FRAME, SealedTape};

/// Frames that are decoded and thrown away rather than sought over.
const SKIP_MAX: usize = 4;
/// Most digits of a number in a sparse map, its line feed included.
const NUMBER_MAX: usize = 21;

/// Where a base tape has the bytes of a file, as [`reelfs_journal::Change::BaseData`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseExtent {
    /// Offset of its data in the uncompressed tar stream.
    pub stream_offset: u64,
    /// Length of that data; less than the size if it has holes.
    pub stream_length: u64,
    /// File size in bytes.
    pub size: u64,
}

/// What takes a file's bytes: offset in the file, bytes. Holes are left out.
pub type Sink<'a> = dyn FnMut(u64, &[u8]) -> io::Result<()> + 'a;

/// Reads the bytes of files on a verified base tape. Frames are decoded ahead on a thread; cheapest when files are
/// asked for in the order of the tape.
pub struct BaseBytes {
    frames: Arc<Frames>,
    /// Numbers of the frames that hold the tree.
    numbers: Arc<[u64]>,
    stream: Option<FrameStream>,
    /// Place in `numbers` of the frame that the stream gives next.
    next: usize,
    /// The frame last decoded, its place in `numbers`, and where its content begins in the uncompressed stream.
    current: Option<(usize, u64, Vec<u8>)>,
}

/// The frames that hold the tree.
pub(crate) fn tree_frames(tape: &SealedTape) -> Arc<[u64]> {
    let mut chunks = tape.head.index.chunks.iter().flat_map(|chunk| [chunk.frame, chunk.frame + 1]).peekable();
    (BODY_FRAME..tape.index_frame).filter(|frame| chunks.next_if_eq(frame).is_none()).collect()
}

impl BaseBytes {
    pub(crate) fn new(frames: Arc<Frames>, numbers: Arc<[u64]>) -> BaseBytes {
        BaseBytes { frames, numbers, stream: None, next: 0, current: None }
    }

    /// Gives the bytes of a file to `sink`, in rising order.
    ///
    /// # Errors
    /// What is wrong with the tape, or [`TapeError::Sink`].
    pub fn file(&mut self, extent: BaseExtent, sink: &mut Sink<'_>) -> Result<(), TapeError> {
        let BaseExtent { stream_offset, stream_length, size } = extent;
        let end = stream_offset.checked_add(stream_length);
        if end.is_none() || stream_length > size {
            return Err(malformed("its place on the tape is out of range"));
        }
        if stream_length == size {
            return self.copy(stream_offset, size, 0, sink);
        }
        let (map, map_len) = self.sparse_map(extent)?;
        let mut at = stream_offset + map_len;
        for (offset, length) in map {
            self.copy(at, length, offset, sink)?;
            at += length;
        }
        Ok(())
    }

    fn copy(&mut self, mut from: u64, mut length: u64, mut to: u64, sink: &mut Sink<'_>) -> Result<(), TapeError> {
        while length > 0 {
            let bytes = self.bytes_at(from)?;
            let step = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            sink(to, &bytes[..step]).map_err(TapeError::Sink)?;
            let step = step as u64;
            (from, to, length) = (from + step, to + step, length - step);
        }
        Ok(())
    }

    /// Reads a GNU sparse map, version 1.0, and its length in whole blocks.
    fn sparse_map(&mut self, extent: BaseExtent) -> Result<(Vec<(u64, u64)>, u64), TapeError> {
        let mut at = extent.stream_offset;
        let count = self.number(&mut at)?;
        if count > EXTENTS_MAX as u64 + 1 {
            return Err(malformed("its map of holes is too long"));
        }
        let (mut map, mut end, mut data) = (Vec::new(), 0, 0);
        for _ in 0..count {
            let (offset, length) = (self.number(&mut at)?, self.number(&mut at)?);
            let next = offset.checked_add(length).filter(|next| offset >= end && *next <= extent.size);
            end = next.ok_or_else(|| malformed("its map of holes does not rise"))?;
            data += length;
            map.push((offset, length));
        }
        let map_len = (at - extent.stream_offset).next_multiple_of(BLOCK as u64);
        if map_len + data != extent.stream_length {
            return Err(malformed("its map of holes does not fit its length"));
        }
        Ok((map, map_len))
    }

    fn number(&mut self, at: &mut u64) -> Result<u64, TapeError> {
        let mut value: u64 = 0;
        for digits in 0..NUMBER_MAX {
            let byte = self.bytes_at(*at)?[0];
            *at += 1;
            match byte {
                b'0'..=b'9' => {
                    let next = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(byte - b'0')));
                    value = next.ok_or_else(|| malformed("its map of holes is out of range"))?;
                }
                b'\n' if digits > 0 => return Ok(value),
                _ => break,
            }
        }
        Err(malformed("its map of holes is not one"))
    }

    /// The bytes from this offset of the uncompressed stream to the end of their frame; never empty.
    pub(crate) fn bytes_at(&mut self, offset: u64) -> Result<&[u8], TapeError> {
        let held = |current: &(usize, u64, Vec<u8>)| offset >= current.1 && offset - current.1 < current.2.len() as u64;
        if !self.current.as_ref().is_some_and(held) {
            self.seek(offset)?;
        }
        match &self.current {
            Some(current) if held(current) => {
                Ok(usize::try_from(offset - current.1).ok().and_then(|skip| current.2.get(skip..)).unwrap_or_default())
            }
            _ => Err(malformed("its bytes are not where the tape holds files")),
        }
    }

    /// Makes the frame current that holds this offset.
    fn seek(&mut self, offset: u64) -> Result<(), TapeError> {
        let after = self.frames.spans.partition_point(|span| span.stream <= offset) as u64;
        let place = self.numbers.binary_search(&after.saturating_sub(1));
        let place = place.map_err(|_| malformed("its bytes are not where the tape holds files"))?;
        if self.stream.is_none() || place < self.next || place > self.next + SKIP_MAX {
            let numbers = Arc::clone(&self.numbers);
            let ahead = (place..numbers.len()).map(move |place| numbers[place]);
            self.stream = Some(FrameStream::new(Arc::clone(&self.frames), ahead)?);
            self.next = place;
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.next <= place {
            let (number, raw) = stream.next()?.ok_or_else(|| malformed("the tape ends before its bytes"))?;
            let begins = self.frames.span(number)?.stream;
            if let Some((_, _, used)) = self.current.replace((self.next, begins, raw)) {
                stream.give_back(used);
            }
            self.next += 1;
        }
        Ok(())
    }
}

fn malformed(reason: &str) -> TapeError {
    TapeError::malformed("a file's bytes", reason)
}
