//! The parts that no digest covers, because a reader makes them again and compares: root member, padding, seek table.

use reelfs_journal::Digest;
use xxhash_rust::xxh64::xxh64;

use crate::TapeError;
use crate::compress::Written;
use crate::header::{BLOCK, member, member_data};
use crate::index::FrameEntry;

/// The root member's name.
const ROOT_NAME: &str = "reelfs/root.b3";
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const PAD_MAGIC: u32 = 0x184d_2a50;
const TABLE_MAGIC: u32 = 0x184d_2a5e;
const FOOTER_MAGIC: u32 = 0x8f92_eab1;
/// Footer descriptor: entries have checksums, nothing else.
const DESCRIPTOR: u8 = 0x80;
/// Length of the seek table's end: number of frames, descriptor, magic.
pub(crate) const FOOTER_LEN: usize = 9;
const TABLE_ENTRY_LEN: usize = 12;
const SKIPPABLE_HEADER_LEN: usize = 8;
/// Bytes of a raw-block frame before its content: magic, descriptor, content size, block header.
pub(crate) const RAW_FRAME_HEAD: usize = 10;
/// Uncompressed length of the root frame: header, one block of text, two blocks of zeros.
const ROOT_RAW_LEN: usize = 4 * BLOCK;
/// Length of the root frame.
const ROOT_FRAME_LEN: usize = RAW_FRAME_HEAD + ROOT_RAW_LEN + 4;
/// Tapes longer than this are padded to whole tape records.
const SMALL_MAX: u64 = 1 << 20;
const UNIT_SMALL: u64 = 4 << 10;
const UNIT_LARGE: u64 = 256 << 10;

/// A zstd frame that holds its content as it is, 256 to 65,791 bytes, with a content checksum. There is one way only to
/// make it.
pub(crate) fn raw_frame(content: &[u8]) -> Result<Vec<u8>, TapeError> {
    let length = content.len().checked_sub(256).and_then(|length| u16::try_from(length).ok());
    let length = length.ok_or(TapeError::Unfit("a plain frame outside 256 to 65,791 bytes"))?;
    let mut frame = Vec::with_capacity(RAW_FRAME_HEAD + content.len() + 4);
    frame.extend_from_slice(&ZSTD_MAGIC);
    frame.push(0x64); // content size in 2 bytes, single segment, content checksum
    frame.extend_from_slice(&length.to_le_bytes());
    let block = (u32::from(length) + 256) << 3 | 1; // raw, last
    frame.extend_from_slice(&block.to_le_bytes()[..3]);
    frame.extend_from_slice(content);
    frame.extend_from_slice(&checksum(content));
    Ok(frame)
}

fn checksum(content: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh64(content, 0).to_le_bytes();
    [a, b, c, d]
}

/// Root digest: BLAKE3 over a prefix and, for each frame before the root member, its two lengths and its digest.
#[derive(Default)]
pub(crate) struct RootHasher(blake3::Hasher);

impl RootHasher {
    pub(crate) fn new() -> RootHasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"reelfs tape root 1\n");
        RootHasher(hasher)
    }

    pub(crate) fn frame(&mut self, FrameEntry(packed, raw, digest): &FrameEntry) {
        self.0.update(&packed.to_le_bytes()).update(&raw.to_le_bytes()).update(&digest.0);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// What the root member says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) digest: Digest,
    /// Number of the index's first frame.
    pub(crate) index_frame: u64,
}

impl Root {
    fn text(&self) -> String {
        format!("reelfs root 1\nblake3 {}\nindex frame {:012}\n", self.digest, self.index_frame)
    }

    /// The root frame: root member and the end of the archive.
    pub(crate) fn frame(&self) -> Result<Vec<u8>, TapeError> {
        let mut content = member(ROOT_NAME, self.text().as_bytes());
        content.resize(ROOT_RAW_LEN, 0);
        raw_frame(&content)
    }

    /// Reads a root frame; only the canonical one is one.
    pub(crate) fn parse(frame: &[u8]) -> Option<Root> {
        let content = frame.get(RAW_FRAME_HEAD..RAW_FRAME_HEAD + ROOT_RAW_LEN)?;
        let sample = Root { digest: Digest::ZERO, index_frame: 0 }.text();
        let data = member_data(ROOT_NAME, sample.len(), &content[..2 * BLOCK])?;
        let mut lines = std::str::from_utf8(data).ok()?.lines().skip(1);
        let digest = lines.next()?.strip_prefix("blake3 ")?.parse().ok()?;
        let index_frame = lines.next()?.strip_prefix("index frame ")?.parse().ok()?;
        let root = Root { digest, index_frame };
        (root.frame().ok()? == frame).then_some(root)
    }
}

/// Where a frame lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    /// Where its content begins in the uncompressed stream.
    pub(crate) stream: u64,
    pub(crate) packed: u32,
    pub(crate) raw: u32,
    pub(crate) check: [u8; 4],
}

/// Root frame, padding and seek table for these frames.
pub(crate) fn tail(frames: &[Written], root: &Root) -> Result<Vec<u8>, TapeError> {
    let mut bytes = root.frame()?;
    let count = u32::try_from(frames.len() + 2).map_err(|_| TapeError::Unfit("more than 4 billion frames"))?;
    let before: u64 = frames.iter().map(|frame| u64::from(frame.entry.0)).sum::<u64>() + bytes.len() as u64;
    let padding = pad_len(before, u64::from(count));
    let root_check = bytes.last_chunk().copied().unwrap_or_default();
    bytes.extend_from_slice(&PAD_MAGIC.to_le_bytes());
    bytes.extend_from_slice(&padding.to_le_bytes());
    bytes.resize(bytes.len() + padding as usize, 0);

    bytes.extend_from_slice(&TABLE_MAGIC.to_le_bytes());
    let table_len = (u64::from(count) * TABLE_ENTRY_LEN as u64) + FOOTER_LEN as u64;
    let table_len = u32::try_from(table_len).map_err(|_| TapeError::Unfit("too many frames"))?;
    bytes.extend_from_slice(&table_len.to_le_bytes());
    let mut entry = |packed: u32, raw: u32, check: [u8; 4]| {
        bytes.extend_from_slice(&packed.to_le_bytes());
        bytes.extend_from_slice(&raw.to_le_bytes());
        bytes.extend_from_slice(&check);
    };
    for frame in frames {
        entry(frame.entry.0, frame.entry.1, frame.check);
    }
    entry(ROOT_FRAME_LEN as u32, ROOT_RAW_LEN as u32, root_check);
    entry(SKIPPABLE_HEADER_LEN as u32 + padding, 0, checksum(&[]));
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.push(DESCRIPTOR);
    bytes.extend_from_slice(&FOOTER_MAGIC.to_le_bytes());
    Ok(bytes)
}

/// Bytes of zeros in the padding frame of a tape whose frames take `before` bytes and whose table has `count` entries.
fn pad_len(before: u64, count: u64) -> u32 {
    let table = count * TABLE_ENTRY_LEN as u64 + (SKIPPABLE_HEADER_LEN + FOOTER_LEN) as u64;
    let length = before + SKIPPABLE_HEADER_LEN as u64 + table;
    let unit = if length > SMALL_MAX { UNIT_LARGE } else { UNIT_SMALL };
    u32::try_from(length.next_multiple_of(unit) - length).unwrap_or(0)
}

/// Length of the seek table frame that a footer announces, if the footer is one and the table fits in the file.
pub(crate) fn table_len(footer: &[u8; FOOTER_LEN], file_len: u64) -> Option<u64> {
    let count = u32::from_le_bytes([footer[0], footer[1], footer[2], footer[3]]);
    let magic = u32::from_le_bytes([footer[5], footer[6], footer[7], footer[8]]);
    let length = u64::from(count) * TABLE_ENTRY_LEN as u64 + (SKIPPABLE_HEADER_LEN + FOOTER_LEN) as u64;
    (magic == FOOTER_MAGIC && footer[4] == DESCRIPTOR && count >= 5 && length < file_len).then_some(length)
}

/// Takes a seek table apart (its length is that of [`table_len`]) and checks it against the length of the file. Gives
/// the frames, root and padding last.
pub(crate) fn parse_table(table: &[u8], file_len: u64) -> Option<Vec<Span>> {
    let word = |at: usize| Some(u32::from_le_bytes(*table.get(at..)?.first_chunk()?));
    let body = table.len() - SKIPPABLE_HEADER_LEN;
    if word(0)? != TABLE_MAGIC || word(4)? as usize != body {
        return None;
    }
    let entries = table.get(SKIPPABLE_HEADER_LEN..table.len() - FOOTER_LEN)?;
    let mut spans = Vec::with_capacity(entries.len() / TABLE_ENTRY_LEN);
    let (mut offset, mut stream) = (0, 0);
    for entry in entries.chunks_exact(TABLE_ENTRY_LEN) {
        let field = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let (packed, raw) = (field(0), field(4));
        spans.push(Span { offset, stream, packed, raw, check: field(8).to_le_bytes() });
        offset += u64::from(packed);
        stream += u64::from(raw);
    }
    let [.., root, pad] = spans.as_slice() else { return None };
    let padding = pad_len(pad.offset, spans.len() as u64);
    let canonical = offset + table.len() as u64 == file_len
        && (root.packed as usize, root.raw as usize) == (ROOT_FRAME_LEN, ROOT_RAW_LEN)
        && (pad.packed, pad.raw, pad.check) == (SKIPPABLE_HEADER_LEN as u32 + padding, 0, checksum(&[]));
    canonical.then_some(spans)
}

/// The padding frame of this length is the one that the writer makes.
pub(crate) fn is_padding(frame: &[u8]) -> bool {
    let Some((header, zeros)) = frame.split_at_checked(SKIPPABLE_HEADER_LEN) else {
        return false;
    };
    let length = (zeros.len() as u32).to_le_bytes();
    header[..4] == PAD_MAGIC.to_le_bytes() && header[4..] == length && zeros.iter().all(|&byte| byte == 0)
}

/// The file begins as every tape does: a plain frame with the README.
pub(crate) fn begins_like_a_tape(head: &[u8]) -> bool {
    head.starts_with(&ZSTD_MAGIC) && head.get(RAW_FRAME_HEAD..).is_some_and(|text| text.starts_with(b"README.txt\0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of `docs/FORMAT-tape.md`.
    #[test]
    fn the_tail_is_as_documented() {
        let written =
            |packed, raw, byte| Written { entry: FrameEntry(packed, raw, Digest([byte; 32])), check: [byte; 4] };
        let frames = [written(100, 512, 1), written(200, 1024, 2), written(300, 2048, 3)];
        let root = Root { digest: Digest([0xab; 32]), index_frame: 2 };
        let bytes = tail(&frames, &root).expect("a tail");
        assert_eq!(bytes.len(), 4096 - 600);
        assert_eq!(bytes[..10], [0x28, 0xb5, 0x2f, 0xfd, 0x64, 0x00, 0x07, 0x01, 0x40, 0x00]);
        assert_eq!(&bytes[10..25], b"reelfs/root.b3\0");
        let text = format!("reelfs root 1\nblake3 {}\nindex frame 000000000002\n\0", "ab".repeat(32));
        assert_eq!(&bytes[522..522 + text.len()], text.as_bytes());
        assert_eq!(bytes[1034..2058], [0; 1024]);
        assert_eq!(bytes[2062..2066], [0x50, 0x2a, 0x4d, 0x18]);
        let table = &bytes[bytes.len() - 8 - 5 * 12 - 9..];
        assert_eq!(table[..8], [0x5e, 0x2a, 0x4d, 0x18, 69, 0, 0, 0]);
        assert_eq!(table[8..20], [100, 0, 0, 0, 0, 2, 0, 0, 1, 1, 1, 1]);
        assert_eq!(table[68..], [5, 0, 0, 0, 0x80, 0xb1, 0xea, 0x92, 0x8f]);
        let spans = parse_table(table, 4096).expect("a table");
        assert_eq!((spans[2].offset, spans[2].stream), (300, 1536));
        assert_eq!(Root::parse(&bytes[..ROOT_FRAME_LEN]), Some(root));
        assert!(is_padding(&bytes[ROOT_FRAME_LEN..bytes.len() - table.len()]));
    }

    #[test]
    fn a_tape_is_padded_to_whole_units() {
        for (before, count, unit) in [(1, 5, 4096), (4_000_000, 6, 262_144), ((1 << 20) - 100, 5, 262_144)] {
            let table = count * 12 + 17;
            assert_eq!((before + 8 + u64::from(pad_len(before, count)) + table) % unit, 0, "{before}");
        }
    }
}
