//! The writing end of the frame stream: fills frames, compresses them on worker threads, emits them in order.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use reelfs_journal::Digest;
use zstd_safe::{CCtx, CParameter};

use crate::TapeError;
use crate::index::FrameEntry;

/// Most uncompressed bytes of a frame.
pub(crate) const FRAME_BYTES: usize = 4 << 20;
/// The window is the frame: page journals rewrite the same pages, and a longer window pays more than a higher level.
pub(crate) const WINDOW_LOG: u32 = 22;

/// One frame on its way through a worker.
struct Job {
    /// As long as the longest frame, whatever this one is: filling it up again would cost as much as a copy.
    raw: Vec<u8>,
    length: usize,
    packed: Vec<u8>,
    reply: SyncSender<Job>,
    /// Set by the worker.
    result: Result<Digest, &'static str>,
}

/// A frame that is in the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) entry: FrameEntry,
    /// The frame's content checksum, its last four bytes.
    pub(crate) check: [u8; 4],
}

/// Collects bytes into frames.
pub(crate) struct FrameSink<W> {
    out: W,
    jobs: Option<Sender<Job>>,
    pending: VecDeque<Receiver<Job>>,
    pending_max: usize,
    workers: Vec<JoinHandle<()>>,
    /// The frame being filled: its length is `FRAME_BYTES`, of which `filled` count.
    raw: Vec<u8>,
    filled: usize,
    spare: Vec<(Vec<u8>, Vec<u8>)>,
    frames: Vec<Written>,
    submitted: u64,
    stream_bytes: u64,
    written: u64,
}

impl<W: Write> FrameSink<W> {
    pub(crate) fn new(out: W, threads: usize, level: i32) -> Result<FrameSink<W>, TapeError> {
        let threads = threads.clamp(1, 64);
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (queue, context) = (Arc::clone(&queue), compressor(level)?);
            let worker = thread::Builder::new().name("reelfs-pack".into()).spawn(move || pack_frames(&queue, context));
            workers.push(worker.map_err(TapeError::io("start a compression thread"))?);
        }
        Ok(FrameSink {
            out,
            jobs: Some(jobs),
            pending: VecDeque::new(),
            pending_max: threads + 2,
            workers,
            raw: vec![0; FRAME_BYTES],
            filled: 0,
            spare: Vec::new(),
            frames: Vec::new(),
            submitted: 0,
            stream_bytes: 0,
            written: 0,
        })
    }

    /// Offset in the uncompressed stream where the next byte goes.
    pub(crate) fn stream_offset(&self) -> u64 {
        self.stream_bytes + self.filled as u64
    }

    /// Number of the frame that the next byte goes into.
    pub(crate) fn frame_number(&self) -> u64 {
        self.submitted
    }

    /// Compressed bytes in the output so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Room in the frame being filled: never empty. Say with [`FrameSink::advance`] how much of it was used.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.raw[self.filled..]
    }

    pub(crate) fn advance(&mut self, length: usize) -> Result<(), TapeError> {
        self.filled += length;
        if self.filled == FRAME_BYTES { self.cut() } else { Ok(()) }
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), TapeError> {
        while !bytes.is_empty() {
            let space = self.space();
            let length = space.len().min(bytes.len());
            space[..length].copy_from_slice(&bytes[..length]);
            self.advance(length)?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    pub(crate) fn zeros(&mut self, mut length: u64) -> Result<(), TapeError> {
        while length > 0 {
            let space = self.space();
            let step = usize::try_from(length).unwrap_or(usize::MAX).min(space.len());
            space[..step].fill(0);
            self.advance(step)?;
            length -= step as u64;
        }
        Ok(())
    }

    /// Zeros up to the next tar block.
    pub(crate) fn pad_block(&mut self) -> Result<(), TapeError> {
        self.zeros(self.stream_offset().next_multiple_of(512) - self.stream_offset())
    }

    /// Ends the frame being filled; an empty one stays.
    pub(crate) fn cut(&mut self) -> Result<(), TapeError> {
        if self.filled == 0 {
            return Ok(());
        }
        while self.pending.len() >= self.pending_max {
            self.emit_oldest()?;
        }
        let (next, packed) = self.spare.pop().unwrap_or_else(|| (vec![0; FRAME_BYTES], Vec::new()));
        let raw = mem::replace(&mut self.raw, next);
        let (reply, done) = mpsc::sync_channel(1);
        let job = Job { raw, length: self.filled, packed, reply, result: Err("not compressed") };
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(worker_gone)?;
        self.pending.push_back(done);
        self.submitted += 1;
        self.stream_bytes += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    /// A frame that somebody else has filled, without a copy: `frame` is [`FRAME_BYTES`] long before and after, and what it holds then
    /// is nothing. Only between frames.
    pub(crate) fn exchange(&mut self, frame: &mut Vec<u8>, length: usize) -> Result<(), TapeError> {
        self.cut()?;
        mem::swap(&mut self.raw, frame);
        self.filled = length;
        self.cut()
    }

    /// Puts a frame into the output that was made by hand. Only between frames.
    pub(crate) fn ready_made(&mut self, frame: &[u8], raw_len: usize) -> Result<(), TapeError> {
        self.cut()?;
        self.drain()?;
        self.emit(frame, raw_len, Digest(*blake3::hash(frame).as_bytes()))?;
        self.submitted += 1;
        self.stream_bytes += raw_len as u64;
        Ok(())
    }

    /// Waits for all frames to be in the output.
    pub(crate) fn drain(&mut self) -> Result<&[Written], TapeError> {
        while !self.pending.is_empty() {
            self.emit_oldest()?;
        }
        Ok(&self.frames)
    }

    /// Writes what follows the last frame and gives the output back, flushed.
    pub(crate) fn finish(mut self, tail: &[u8]) -> Result<(W, u64), TapeError> {
        self.drain()?;
        self.out.write_all(tail).and_then(|()| self.out.flush()).map_err(TapeError::io("write the tape"))?;
        drop(self.jobs.take());
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| worker_gone())?;
        }
        Ok((self.out, self.written + tail.len() as u64))
    }

    fn emit_oldest(&mut self) -> Result<(), TapeError> {
        let Some(done) = self.pending.pop_front() else {
            return Ok(());
        };
        let Job { raw, length, packed, result, .. } = done.recv().map_err(|_| worker_gone())?;
        let digest = result.map_err(|reason| TapeError::malformed("compression", reason))?;
        self.emit(&packed, length, digest)?;
        self.spare.push((raw, packed));
        Ok(())
    }

    fn emit(&mut self, frame: &[u8], raw_len: usize, digest: Digest) -> Result<(), TapeError> {
        self.out.write_all(frame).map_err(TapeError::io("write the tape"))?;
        let check = frame.last_chunk().copied().unwrap_or_default();
        let narrow = |length: usize| u32::try_from(length).map_err(|_| TapeError::Unfit("a frame of 4 GiB"));
        self.frames.push(Written { entry: FrameEntry(narrow(frame.len())?, narrow(raw_len)?, digest), check });
        self.written += frame.len() as u64;
        Ok(())
    }
}

fn worker_gone() -> TapeError {
    TapeError::Io { operation: "compress", source: io::Error::other("a compression thread is gone") }
}

fn compressor(level: i32) -> Result<CCtx<'static>, TapeError> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(WINDOW_LOG),
        CParameter::ChecksumFlag(true),
        CParameter::ContentSizeFlag(true),
    ] {
        let set = context.set_parameter(parameter).map_err(zstd_safe::get_error_name);
        set.map_err(|reason| TapeError::malformed("compression parameters", reason))?;
    }
    Ok(context)
}

fn pack_frames(queue: &Mutex<Receiver<Job>>, mut context: CCtx<'_>) {
    loop {
        let Ok(mut job) = queue.lock().recv() else { return };
        job.packed.clear();
        job.packed.reserve(zstd_safe::compress_bound(job.length));
        let packed = context.compress2(&mut job.packed, &job.raw[..job.length]).map_err(zstd_safe::get_error_name);
        job.result = packed.map(|_| Digest(*blake3::hash(&job.packed).as_bytes()));
        let reply = job.reply.clone();
        // a writer that gave up no longer waits for its frames
        let _given_up = reply.send(job);
    }
}
