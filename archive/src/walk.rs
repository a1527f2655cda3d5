//! Checks the tar entries of a base tape: what a stock tar would make of them is what the records say, and stays
//! beneath `base`. Nothing is unpacked here, or anywhere else by their names.

use crate::TapeError;
use crate::bytes::{BaseBytes, BaseExtent, tree_frames};
use crate::header::{BLOCK, announced_size, padded};
use crate::pax::BASE;
use crate::sealed::SealedTape;

/// Longest pax header: paths, and 64 extended attributes of 64 KiB.
const PAX_MAX: u64 = 5 << 20;

/// Where the walk is: places in the tree's frames, in order, as if nothing lay between them.
struct Reader<'a> {
    bytes: &'a mut BaseBytes,
    /// Begin and end in the uncompressed stream of each run of frames.
    runs: Vec<(u64, u64)>,
    run: usize,
    at: u64,
}

impl Reader<'_> {
    fn is_done(&mut self) -> bool {
        while self.runs.get(self.run).is_some_and(|(_, end)| self.at == *end) {
            self.run += 1;
            self.at = self.runs.get(self.run).map_or(self.at, |(begin, _)| *begin);
        }
        self.run == self.runs.len()
    }

    /// Bytes that must lie in the present run: entries are never cut by other members.
    fn check(&self, length: u64) -> Result<u64, TapeError> {
        let end = self.at.checked_add(length);
        let fits = end.zip(self.runs.get(self.run)).filter(|(end, run)| *end <= run.1);
        fits.map(|(end, _)| end).ok_or_else(|| malformed("an entry is cut off"))
    }

    fn take(&mut self, length: u64, into: &mut Vec<u8>) -> Result<(), TapeError> {
        let end = self.check(length)?;
        into.clear();
        while self.at < end {
            let bytes = self.bytes.bytes_at(self.at)?;
            let step = bytes.len().min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
            into.extend_from_slice(&bytes[..step]);
            self.at += step as u64;
        }
        Ok(())
    }
}

/// Walks all entries and gives their number; the data of regular files must be at these places, in this order.
pub(crate) fn walk_tree(bytes: &mut BaseBytes, tape: &SealedTape, extents: &[BaseExtent]) -> Result<u64, TapeError> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in tree_frames(tape).iter() {
        let span = tape.frames.span(number)?;
        let end = span.stream + u64::from(span.raw);
        match runs.last_mut() {
            Some(run) if run.1 == span.stream => run.1 = end,
            _ => runs.push((span.stream, end)),
        }
    }
    let at = runs.first().map_or(0, |run| run.0);
    let mut reader = Reader { bytes, runs, run: 0, at };
    let (mut header, mut extension, mut files) = (Vec::new(), Vec::new(), 0);
    let mut extents = extents.iter();
    while !reader.is_done() {
        reader.take(BLOCK as u64, &mut header)?;
        let mut pax = Pax::default();
        while matches!(header[156], b'x' | b'L' | b'K') {
            let size = checked_size(&header)?;
            if size > PAX_MAX {
                return Err(malformed("a pax header is too long"));
            }
            reader.take(padded(size), &mut extension)?;
            pax.extend(header[156], extension.get(..size as usize).unwrap_or_default())?;
            reader.take(BLOCK as u64, &mut header)?;
        }
        let size = match pax.size {
            Some(size) => checked_size(&header).map(|_| size)?,
            None => checked_size(&header)?,
        };
        check_entry(&header, &pax)?;
        if header[156] == b'0' {
            let expected = extents.next().map(|extent| (extent.stream_offset, extent.stream_length));
            if expected != Some((reader.at, size)) {
                return Err(malformed("a file's bytes are not where its record says"));
            }
            // its bytes are unpacked once, to see that they can be
            skip(&mut reader, padded(size))?;
        } else if size != 0 {
            return Err(malformed("an entry that is no file has bytes"));
        }
        files += 1;
    }
    if extents.next().is_some() { Err(malformed("a file's bytes are missing")) } else { Ok(files) }
}

fn skip(reader: &mut Reader<'_>, length: u64) -> Result<(), TapeError> {
    let end = reader.check(length)?;
    while reader.at < end {
        let step = reader.bytes.bytes_at(reader.at)?.len() as u64;
        reader.at = end.min(reader.at + step);
    }
    Ok(())
}

/// The size in a header whose magic and checksum are right.
fn checked_size(header: &[u8]) -> Result<u64, TapeError> {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    let digits = header[148..156].split(|byte| *byte == 0 || *byte == b' ').find(|digits| !digits.is_empty());
    let stored =
        digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|text| u64::from_str_radix(text, 8).ok());
    if stored != Some(sum) || &header[257..265] != b"ustar\x0000" {
        return Err(malformed("a tar header is not one"));
    }
    announced_size(header).ok_or_else(|| malformed("a tar header has no size"))
}

/// What a pax header says, as far as it matters here.
#[derive(Default)]
struct Pax {
    size: Option<u64>,
    path: Option<Vec<u8>>,
    linkpath: Option<Vec<u8>>,
}

impl Pax {
    fn extend(&mut self, entry_type: u8, data: &[u8]) -> Result<(), TapeError> {
        let name = || data.strip_suffix(&[0]).ok_or_else(|| malformed("a long name does not end"));
        match entry_type {
            b'L' => once(&mut self.path, name()?),
            b'K' => once(&mut self.linkpath, name()?),
            _ => self.records(data),
        }
    }

    /// Records are taken by their length: a value may hold line feeds.
    fn records(&mut self, mut records: &[u8]) -> Result<(), TapeError> {
        while !records.is_empty() {
            let ((key, value), rest) = split_record(records).ok_or_else(|| malformed("a pax header is not one"))?;
            records = rest;
            match key {
                b"path" => once(&mut self.path, value)?,
                b"linkpath" => once(&mut self.linkpath, value)?,
                b"size" if self.size.is_none() => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(|| malformed("a pax size is not a number"))?);
                }
                b"size" | b"GNU.sparse.name" | b"hdrcharset" => return Err(malformed("a pax record is never written")),
                _ => {}
            }
        }
        Ok(())
    }
}

fn once(name: &mut Option<Vec<u8>>, value: &[u8]) -> Result<(), TapeError> {
    match name.replace(value.to_vec()) {
        None => Ok(()),
        Some(_) => Err(malformed("an entry has two names")),
    }
}

type KeyValue<'a> = (&'a [u8], &'a [u8]);

fn split_record(records: &[u8]) -> Option<(KeyValue<'_>, &[u8])> {
    let blank = records.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..blank]).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some(((&body[..equals], &body[equals + 1..]), rest))
}

/// The type is one that the writer makes, and the name and a hard link's target lie beneath `base`.
fn check_entry(header: &[u8], pax: &Pax) -> Result<(), TapeError> {
    if !matches!(header[156], b'0'..=b'6') {
        return Err(malformed("an entry has a type that is never written"));
    }
    let text = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let path = pax.path.clone().unwrap_or_else(|| {
        let prefix = text(&header[345..500]);
        let separator: &[u8] = if prefix.is_empty() { &[] } else { b"/" };
        [&prefix, separator, &text(&header[..100])].concat()
    });
    let link = pax.linkpath.clone().unwrap_or_else(|| text(&header[157..257]));
    if !is_beneath(&path) || header[156] == b'1' && !is_beneath(&link) {
        return Err(malformed("an entry lies outside `base`"));
    }
    Ok(())
}

fn is_beneath(path: &[u8]) -> bool {
    let mut names = path.strip_suffix(b"/").unwrap_or(path).split(|byte| *byte == b'/');
    names.next() == Some(BASE) && names.all(|name| !matches!(name, b"" | b"." | b"..") && !name.contains(&0))
}

fn malformed(reason: &str) -> TapeError {
    TapeError::malformed("base", reason)
}
