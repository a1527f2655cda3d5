//! Writing tapes: what both kinds share, and update tapes.

use std::io::Write;

use reelfs_journal::{CONTROL_LEN, Digest, Position, Record, Timestamp, VolumeIndex};

use crate::chunk::ChunkWriter;
use crate::compress::{FRAME_BYTES, FrameSink, WINDOW_LOG};
use crate::header::member;
use crate::index::{Counts, Index};
use crate::label::{FrameParameters, LABEL_MAX};
use crate::trailer::{Root, RootHasher, raw_frame, tail};
use crate::{Label, TapeError, TapeKind, TapeName, readme};

/// The label member's name.
pub(crate) const LABEL_NAME: &str = "reelfs/label.json";
/// The index member's name.
pub(crate) const INDEX_NAME: &str = "reelfs/index.json";

/// How to write.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// Compression threads, at least 1.
    pub threads: usize,
    /// zstd level.
    pub level: i32,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions { threads: 2, level: 3 }
    }
}

/// A finished tape.
#[derive(Debug)]
pub struct Sealed<W> {
    /// What it was written to, flushed but not synced.
    pub out: W,
    /// The file name that belongs to it.
    pub name: TapeName,
    /// Digest of everything on it.
    pub root: Digest,
    /// Its label.
    pub label: Label,
    /// Its index.
    pub index: Index,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The part of a writer that both kinds of tapes share.
pub(crate) struct Press<W> {
    pub(crate) sink: FrameSink<W>,
    pub(crate) chunks: ChunkWriter,
    pub(crate) label: Label,
}

impl<W: Write> Press<W> {
    /// Writes README and label.
    pub(crate) fn start(out: W, mut label: Label, kind: TapeKind, options: WriteOptions) -> Result<Self, TapeError> {
        label.check()?;
        if label.kind != kind {
            return Err(TapeError::Unfit("a label of the other kind"));
        }
        let bytes = FRAME_BYTES as u32;
        label.frames = FrameParameters { bytes, window_log: WINDOW_LOG, level: options.level };
        let mut sink = FrameSink::new(out, options.threads, options.level)?;
        let text = member(readme::NAME, readme::text(&label).as_bytes());
        sink.ready_made(&raw_frame(&text)?, text.len())?;
        let mut json = to_json(&label)?;
        json.push(b'\n');
        if json.len() > LABEL_MAX {
            return Err(TapeError::Unfit("a label of more than 64 KiB"));
        }
        sink.write(&member(LABEL_NAME, &json))?;
        sink.cut()?;
        Ok(Press { sink, chunks: ChunkWriter::new(kind), label })
    }

    /// Writes index, root, padding and seek table.
    pub(crate) fn seal(
        self,
        after: Option<Position>,
        sealed: Timestamp,
        last_time: Timestamp,
        tree: Counts,
    ) -> Result<Sealed<W>, TapeError> {
        let Press { mut sink, mut chunks, label } = self;
        chunks.flush(&mut sink)?;
        sink.cut()?;
        let counts = Counts { files: tree.files, file_bytes: tree.file_bytes, ..chunks.counts() };
        let frames = sink.drain()?.iter().map(|frame| frame.entry).collect();
        let chunks = chunks.into_chunks();
        let index = Index { tape: label.tape, complete: true, after, sealed, last_time, counts, chunks, frames };
        let index_frame = sink.frame_number();
        sink.write(&member(INDEX_NAME, &to_json(&index)?))?;
        sink.cut()?;

        let frames = sink.drain()?;
        let mut hasher = RootHasher::new();
        frames.iter().for_each(|frame| hasher.frame(&frame.entry));
        let root = Root { digest: hasher.finish(), index_frame };
        let tail = tail(frames, &root)?;
        let (out, bytes) = sink.finish(&tail)?;
        let (group, last) = (label.group.clone(), index.last(label.first));
        let name = TapeName { group, epoch: label.epoch, first: label.first, last, kind: label.kind };
        Ok(Sealed { out, name, root: root.digest, label, index, bytes })
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, TapeError> {
    serde_json::to_vec(value).map_err(|error| TapeError::malformed("own JSON", error.to_string()))
}

/// Whether the record's volume is on the label; markers of the whole group carry index 0, whoever is in it.
pub(crate) fn may_hold(label: &Label, control: &[u8; CONTROL_LEN]) -> bool {
    let volume = Record::peek_volume(control);
    label.lists(volume) || (volume == VolumeIndex::FIRST && Record::is_marker(control))
}

/// Writes an update tape: records in order, without a gap.
pub struct UpdateWriter<W: Write> {
    press: Press<W>,
    position: Position,
    last_time: Timestamp,
}

impl<W: Write> UpdateWriter<W> {
    /// Begins a tape with this label ([`Label::update`]).
    ///
    /// # Errors
    /// What is wrong with the label, or what `out` says.
    pub fn new(out: W, label: Label, options: WriteOptions) -> Result<Self, TapeError> {
        let before = label.before.ok_or(TapeError::Unfit("an update tape without the position before it"))?;
        let position = Position { epoch: label.epoch, ..before };
        let last_time = label.first_time;
        Ok(UpdateWriter { press: Press::start(out, label, TapeKind::Update, options)?, position, last_time })
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`TapeError::Order`] when it is not the next one, [`TapeError::Unfit`] when its volume is not on the label; else what
    /// the output says.
    pub fn record(&mut self, control: &[u8; CONTROL_LEN], data: &[u8]) -> Result<(), TapeError> {
        let (seq, time) = Record::peek(control);
        let expected = self.position.seq.next();
        if seq != expected {
            return Err(TapeError::Order { expected, found: seq });
        }
        if !may_hold(&self.press.label, control) {
            return Err(TapeError::Unfit("a record of a volume that is not on the label"));
        }
        self.press.chunks.push(&mut self.press.sink, control, [data, &[]])?;
        let digest = self.position.digest.chain(control, data);
        self.position = Position { seq, digest, ..self.position };
        self.last_time = time;
        Ok(())
    }

    /// Where the history stands after the records given so far.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Compressed bytes written so far (what is still being compressed is not counted).
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.press.sink.written()
    }

    /// Bytes of journal data given so far.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.press.chunks.counts().bytes
    }

    /// Finishes the tape; it vouches for the time until `sealed`.
    ///
    /// # Errors
    /// [`TapeError::Empty`] without a record; else what the output says.
    pub fn seal(self, sealed: Timestamp) -> Result<Sealed<W>, TapeError> {
        if self.press.chunks.counts().records == 0 {
            return Err(TapeError::Empty);
        }
        self.press.seal(Some(self.position), sealed.max(self.last_time), self.last_time, Counts::default())
    }
}
