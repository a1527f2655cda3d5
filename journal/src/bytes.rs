//! Bounded little-endian reading and writing of record fields.

use crate::{FileId, FileTime, Name, RecordError, Tags, Xattr};

/// Appends fields to a buffer.
pub(crate) struct Writer<'a>(pub(crate) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn file_time(&mut self, time: FileTime) {
        self.i64(time.seconds);
        self.u32(time.nanos);
    }

    pub(crate) fn file_id(&mut self, id: FileId) {
        self.u64(id.ino);
        self.u32(id.generation);
    }

    /// Bytes with a 32-bit length before them.
    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn name(&mut self, name: &Name) {
        self.u8(u8::try_from(name.as_bytes().len()).unwrap_or(0));
        self.0.extend_from_slice(name.as_bytes());
    }

    pub(crate) fn xattrs(&mut self, xattrs: &[Xattr]) {
        self.u16(u16::try_from(xattrs.len()).unwrap_or(u16::MAX));
        for xattr in xattrs {
            self.blob(&xattr.name);
            self.blob(&xattr.value);
        }
    }

    /// Nothing for no tags: such a marker has the bytes that it had before there were tags.
    pub(crate) fn tags(&mut self, tags: &Tags) {
        if tags.is_empty() {
            return;
        }
        self.u8(u8::try_from(tags.iter().len()).unwrap_or(u8::MAX));
        for text in tags.iter().flat_map(|(key, value)| [key, value]) {
            self.u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
            self.0.extend_from_slice(text.as_bytes());
        }
    }
}

/// Takes fields from a buffer; every length is checked before anything is allocated.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(RecordError::Short(what))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, RecordError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, RecordError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn i64(&mut self, what: &'static str) -> Result<i64, RecordError> {
        Ok(i64::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn file_time(&mut self, what: &'static str) -> Result<FileTime, RecordError> {
        let time = FileTime { seconds: self.i64(what)?, nanos: self.u32(what)? };
        if time.nanos < 1_000_000_000 { Ok(time) } else { Err(RecordError::Range(what)) }
    }

    pub(crate) fn file_id(&mut self, what: &'static str) -> Result<FileId, RecordError> {
        Ok(FileId { ino: self.u64(what)?, generation: self.u32(what)? })
    }

    pub(crate) fn blob(&mut self, what: &'static str) -> Result<&'a [u8], RecordError> {
        let length = self.u32(what)?;
        self.take(usize::try_from(length).map_err(|_| RecordError::Range(what))?, what)
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, RecordError> {
        String::from_utf8(self.blob(what)?.to_vec()).map_err(|_| RecordError::Range(what))
    }

    pub(crate) fn name(&mut self, what: &'static str) -> Result<Name, RecordError> {
        let length = self.u8(what)?;
        Ok(Name::new(self.take(usize::from(length), what)?)?)
    }

    pub(crate) fn xattrs(&mut self, what: &'static str) -> Result<Vec<Xattr>, RecordError> {
        let count = self.u16(what)?;
        let mut xattrs = Vec::new();
        for _ in 0..count {
            let name = self.blob(what)?.to_vec();
            let value = self.blob(what)?.to_vec();
            if name.is_empty() || name.len() > 255 || name.contains(&0) || value.len() > 65_536 {
                return Err(RecordError::Range(what));
            }
            xattrs.push(Xattr { name, value });
        }
        Ok(xattrs)
    }

    fn short_text(&mut self, what: &'static str) -> Result<String, RecordError> {
        let length = self.u8(what)?;
        String::from_utf8(self.take(usize::from(length), what)?.to_vec()).map_err(|_| RecordError::Range(what))
    }

    /// Nothing left is no tags; a count of zero is no other spelling of that.
    pub(crate) fn tags(&mut self, what: &'static str) -> Result<Tags, RecordError> {
        if self.0.is_empty() {
            return Ok(Tags::default());
        }
        let count = self.u8(what)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push((self.short_text(what)?, self.short_text(what)?));
        }
        if pairs.is_empty() {
            Err(RecordError::Range(what))
        } else {
            Tags::new(pairs).map_err(|_| RecordError::Range(what))
        }
    }

    pub(crate) fn end(&self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::Long(self.0.len())) }
    }
}
