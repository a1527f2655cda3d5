//! Tar entries of the tree: a ustar header, and before it a pax header for what does not fit.

use reelfs_journal::{Attributes, FileTime, Name, NodeKind, Xattr};
use tar::{EntryType, Header};

use crate::acl;
use crate::header::BLOCK;

/// The directory beneath which a base tape holds the tree.
pub(crate) const BASE: &[u8] = b"base";

const NAME_MAX: usize = 100;
const PREFIX_MAX: usize = 155;
/// Largest number of 11 and of 7 octal digits.
const OCTAL_11_MAX: u64 = (1 << 33) - 1;
const OCTAL_7_MAX: u32 = (1 << 21) - 1;

/// What a tar entry says.
pub(crate) struct Entry<'a> {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: &'a NodeKind,
    pub(crate) attributes: &'a Attributes,
    pub(crate) xattrs: &'a [Xattr],
    pub(crate) hard_link: Option<Vec<u8>>,
    /// Bytes of data that follow.
    pub(crate) data_len: u64,
    /// The file's size, if the data that follows is a map and what lies between its holes.
    pub(crate) sparse_size: Option<u64>,
}

/// The path of an object in the archive; directories end with a slash.
pub(crate) fn archive_path(path: &[Name], kind: &NodeKind) -> Vec<u8> {
    let mut bytes = BASE.to_vec();
    for name in path {
        bytes.push(b'/');
        bytes.extend_from_slice(name.as_bytes());
    }
    if *kind == NodeKind::Directory {
        bytes.push(b'/');
    }
    bytes
}

/// Appends a pax record: its own length in decimal, a blank, `key=value`, a line feed.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + decimal_digits(length) {
        length = rest + decimal_digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}

/// A time in decimal: the seconds are rounded down, so a fraction before 1970 has to be turned round.
fn decimal_time(FileTime { seconds, nanos }: FileTime) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}"),
        _ => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
    }
}

/// The name of an extended attribute as a keyword. An equals sign would end it, so such names are written as GNU tar
/// 1.35 writes them.
fn xattr_keyword(name: &[u8]) -> Vec<u8> {
    let mut keyword = b"SCHILY.xattr.".to_vec();
    let coded = name.contains(&b'=') || name.windows(3).any(|three| three == b"%25" || three == b"%3D");
    for &byte in name {
        match byte {
            b'%' if coded => keyword.extend_from_slice(b"%25"),
            b'=' => keyword.extend_from_slice(b"%3D"),
            _ => keyword.push(byte),
        }
    }
    keyword
}

fn xattr_records(records: &mut Vec<u8>, xattrs: &[Xattr]) {
    for Xattr { name, value } in xattrs {
        let acl_keyword: Option<&[u8]> = match name.as_slice() {
            b"system.posix_acl_access" => Some(b"SCHILY.acl.access"),
            b"system.posix_acl_default" => Some(b"SCHILY.acl.default"),
            _ => None,
        };
        match acl_keyword.zip(acl::to_text(value)) {
            Some((keyword, text)) => record(records, keyword, text.as_bytes()),
            None => record(records, &xattr_keyword(name), value),
        }
    }
}

/// Puts a path into name and prefix, where both GNU tar and bsdtar take its bytes as they are.
fn fit_path(header: &mut Header, path: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else {
        return false;
    };
    let split = if path.len() <= NAME_MAX {
        Some((&[][..], path))
    } else {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let fits = |at: &usize| *at > 0 && *at <= PREFIX_MAX && (1..=NAME_MAX).contains(&(path.len() - at - 1));
        slashes.into_iter().find(fits).map(|at| (&path[..at], &path[at + 1..]))
    };
    let (prefix, name) = split.unwrap_or_else(|| (&[][..], &path[..NAME_MAX]));
    ustar.name[..name.len()].copy_from_slice(name);
    ustar.prefix[..prefix.len()].copy_from_slice(prefix);
    split.is_some()
}

/// An entry that says more about the next one.
fn extension(bytes: &mut Vec<u8>, entry_type: EntryType, name: &[u8], data: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    header.set_entry_type(entry_type);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

impl Entry<'_> {
    /// Long names, pax header (each if needed) and ustar header, in whole blocks.
    pub(crate) fn headers(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut header = Header::new_ustar();
        let long = self.names(&mut header, &mut records);
        self.numbers(&mut header, &mut records);
        if self.hard_link.is_none() {
            xattr_records(&mut records, self.xattrs);
        }
        header.set_cksum();
        let mut bytes = Vec::with_capacity(4 * BLOCK);
        for (entry_type, name) in &long {
            extension(&mut bytes, *entry_type, b"././@LongLink", &[name.as_slice(), &[0]].concat());
        }
        if !records.is_empty() {
            extension(&mut bytes, EntryType::XHeader, b"base/PaxHdr", &records);
        }
        bytes.extend_from_slice(header.as_bytes());
        bytes
    }

    /// Puts the names into the header, or into pax records, or, if they are long and not UTF-8, gives them for GNU's
    /// long names: GNU tar complains about `hdrcharset`, and bsdtar about bytes without it.
    fn names(&self, header: &mut Header, records: &mut Vec<u8>) -> Vec<(EntryType, Vec<u8>)> {
        let link: &[u8] = match (&self.hard_link, self.kind) {
            (Some(path), _) => path,
            (None, NodeKind::Symlink(target)) => target,
            _ => &[],
        };
        let mut long = Vec::new();
        let mut elsewhere = |key: &[u8], name: &[u8], entry_type| match std::str::from_utf8(name) {
            Ok(_) => record(records, key, name),
            Err(_) => long.push((entry_type, name.to_vec())),
        };
        if !fit_path(header, &self.path) {
            elsewhere(b"path", &self.path, EntryType::GNULongName);
        }
        let length = link.len().min(NAME_MAX);
        header.as_old_mut().linkname[..length].copy_from_slice(&link[..length]);
        if link.len() > NAME_MAX {
            elsewhere(b"linkpath", link, EntryType::GNULongLink);
        }
        if let Some(size) = self.sparse_size {
            record(records, b"GNU.sparse.major", b"1");
            record(records, b"GNU.sparse.minor", b"0");
            record(records, b"GNU.sparse.realsize", size.to_string().as_bytes());
        }
        long
    }

    fn numbers(&self, header: &mut Header, records: &mut Vec<u8>) {
        let Attributes { mode, uid, gid, mtime } = *self.attributes;
        header.set_mode(mode);
        header.set_uid(u64::from(uid.min(OCTAL_7_MAX)));
        header.set_gid(u64::from(gid.min(OCTAL_7_MAX)));
        for (key, id) in [(b"uid", uid), (b"gid", gid)] {
            if id > OCTAL_7_MAX {
                record(records, key, id.to_string().as_bytes());
            }
        }
        let seconds = u64::try_from(mtime.seconds).unwrap_or(0);
        header.set_mtime(seconds.min(OCTAL_11_MAX));
        if mtime.nanos != 0 || mtime.seconds < 0 || seconds > OCTAL_11_MAX {
            record(records, b"mtime", decimal_time(mtime).as_bytes());
        }
        header.set_size(self.data_len.min(OCTAL_11_MAX));
        if self.data_len > OCTAL_11_MAX {
            record(records, b"size", self.data_len.to_string().as_bytes());
        }
        let (entry_type, device) = match self.kind {
            _ if self.hard_link.is_some() => (EntryType::Link, 0),
            NodeKind::File | NodeKind::Socket => (EntryType::Regular, 0),
            NodeKind::Directory => (EntryType::Directory, 0),
            NodeKind::Symlink(_) => (EntryType::Symlink, 0),
            NodeKind::Fifo => (EntryType::Fifo, 0),
            NodeKind::CharDevice(device) => (EntryType::Char, *device),
            NodeKind::BlockDevice(device) => (EntryType::Block, *device),
        };
        header.set_entry_type(entry_type);
        if let Some(ustar) = header.as_ustar_mut() {
            // Linux has 12 bits of major and 20 of minor number: both fit
            ustar.set_device_major(((device >> 32) as u32).min(OCTAL_7_MAX));
            ustar.set_device_minor((device as u32).min(OCTAL_7_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_record_counts_its_own_digits() {
        for length in [1, 2, 80, 89, 90, 91, 92, 93, 94, 980, 985, 986, 987, 988, 989, 990, 99_990] {
            let mut records = Vec::new();
            record(&mut records, b"key", &vec![b'v'; length]);
            let text = String::from_utf8(records).expect("text");
            let announced: usize = text.split(' ').next().expect("a length").parse().expect("a number");
            assert_eq!(announced, text.len());
        }
    }

    #[test]
    fn times_before_1970_are_turned_round() {
        let text = |seconds, nanos| decimal_time(FileTime { seconds, nanos });
        assert_eq!(text(-2, 500_000_000), "-1.500000000");
        assert_eq!(text(-1, 999_999_999), "-0.000000001");
        assert_eq!(text(-1, 0), "-1");
        assert_eq!(text(0, 1), "0.000000001");
        assert_eq!(text(i64::MIN, 1), "-9223372036854775807.999999999");
    }

    #[test]
    fn an_equals_sign_does_not_end_an_attribute_name() {
        assert_eq!(xattr_keyword(b"user.a=b%"), b"SCHILY.xattr.user.a%3Db%25");
        assert_eq!(xattr_keyword(b"user.100%"), b"SCHILY.xattr.user.100%");
    }
}
