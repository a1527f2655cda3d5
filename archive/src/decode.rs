//! The reading end of the frame stream: one frame at a time, or ahead on a thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use reelfs_journal::Digest;
use zstd_safe::DCtx;

use crate::TapeError;
use crate::compress::FRAME_BYTES;
use crate::index::FrameEntry;
use crate::trailer::Span;

/// Frames that are decoded ahead.
const AHEAD: usize = 3;

/// The frames of an open tape, and what they must be. Each time one is read its digest is checked, so a file that
/// changes under an open tape is noticed.
pub(crate) struct Frames {
    pub(crate) file: File,
    /// All frames, the root frame and the padding last.
    pub(crate) spans: Vec<Span>,
    /// Digests of the frames before the root frame.
    pub(crate) digests: Vec<Digest>,
}

impl Frames {
    pub(crate) fn span(&self, frame: u64) -> Result<Span, TapeError> {
        let span = usize::try_from(frame).ok().and_then(|frame| self.spans.get(frame)).copied();
        span.ok_or_else(|| TapeError::malformed(format!("frame {frame}"), "it is not in the seek table"))
    }

    /// The frame as the index and the root describe it.
    pub(crate) fn entry(&self, frame: u64) -> Result<FrameEntry, TapeError> {
        let span = self.span(frame)?;
        let digest = usize::try_from(frame).ok().and_then(|frame| self.digests.get(frame)).copied();
        let digest = digest.ok_or_else(|| TapeError::malformed(format!("frame {frame}"), "it has no digest"))?;
        Ok(FrameEntry(span.packed, span.raw, digest))
    }

    pub(crate) fn altered(&self, frame: u64, reason: &'static str) -> TapeError {
        TapeError::Altered { frame, offset: self.span(frame).map_or(0, |span| span.offset), reason }
    }

    /// Reads a frame's bytes as they are in the file. Its length was bounded when the seek table was read.
    pub(crate) fn read(&self, frame: u64, packed: &mut Vec<u8>) -> Result<(), TapeError> {
        let span = self.span(frame)?;
        packed.resize(span.packed as usize, 0);
        self.file.read_exact_at(packed, span.offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.altered(frame, "the file has become shorter"),
            _ => TapeError::Io { operation: "read the tape", source: error },
        })
    }

    /// The same, checked against the frame's digest and the seek table's checksum.
    pub(crate) fn read_checked(&self, frame: u64, packed: &mut Vec<u8>) -> Result<(), TapeError> {
        self.read(frame, packed)?;
        if blake3::hash(packed) != blake3::Hash::from_bytes(self.entry(frame)?.2.0) {
            return Err(self.altered(frame, "its bytes are not those that were written"));
        }
        if packed.last_chunk() != Some(&self.span(frame)?.check) {
            return Err(self.altered(frame, "the seek table has another checksum for it"));
        }
        Ok(())
    }
}

/// Decodes frames one by one.
pub(crate) struct Unpacker {
    context: DCtx<'static>,
    packed: Vec<u8>,
}

impl Unpacker {
    pub(crate) fn new() -> Unpacker {
        Unpacker { context: DCtx::create(), packed: Vec::new() }
    }

    /// Reads, checks and decodes a frame. What it unpacks to is bounded by the seek table, and that by the frame size.
    pub(crate) fn frame(&mut self, frames: &Frames, frame: u64, raw: &mut Vec<u8>) -> Result<(), TapeError> {
        frames.read_checked(frame, &mut self.packed)?;
        let raw_len = frames.span(frame)?.raw as usize;
        self.unpack(raw_len, raw).map_err(|reason| TapeError::malformed(format!("frame {frame}"), reason))
    }

    fn unpack(&mut self, raw_len: usize, raw: &mut Vec<u8>) -> Result<(), &'static str> {
        if raw_len > FRAME_BYTES {
            return Err("it is larger than a frame may be");
        }
        if zstd_safe::find_frame_compressed_size(&self.packed) != Ok(self.packed.len()) {
            return Err("it is not exactly one zstd frame");
        }
        // decoded in one step into a buffer of the announced size: no window is allocated, and nothing runs over
        raw.resize(raw_len, 0);
        let length = self.context.decompress(raw.as_mut_slice(), &self.packed).map_err(zstd_safe::get_error_name)?;
        if length == raw_len { Ok(()) } else { Err("it does not unpack to the announced length") }
    }
}

/// Decodes a run of frames ahead, on a thread of its own.
pub(crate) struct FrameStream {
    decoded: Receiver<Result<(u64, Vec<u8>), TapeError>>,
    used: Sender<Vec<u8>>,
}

impl FrameStream {
    pub(crate) fn new(
        frames: Arc<Frames>,
        numbers: impl Iterator<Item = u64> + Send + 'static,
    ) -> Result<FrameStream, TapeError> {
        let (send, decoded) = mpsc::sync_channel(AHEAD);
        let (used, spare) = mpsc::channel::<Vec<u8>>();
        let work = move || {
            let mut unpacker = Unpacker::new();
            for number in numbers {
                let mut raw = spare.try_recv().unwrap_or_default();
                let result = unpacker.frame(&frames, number, &mut raw).map(|()| (number, raw));
                let failed = result.is_err();
                if send.send(result).is_err() || failed {
                    return;
                }
            }
        };
        let spawned = thread::Builder::new().name("reelfs-unpack".into()).spawn(work);
        spawned.map_err(TapeError::io("start a decoding thread"))?;
        Ok(FrameStream { decoded, used })
    }

    /// The next frame's number and content; `None` after the last one and after an error.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, TapeError> {
        self.decoded.recv().ok().transpose()
    }

    /// Gives a buffer back for further frames.
    pub(crate) fn give_back(&self, raw: Vec<u8>) {
        // the thread may be done
        let _done = self.used.send(raw);
    }
}
