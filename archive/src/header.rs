//! Tar headers: the canonical ones of a tape's own members, and the raw fields of the tree's entries.

use tar::{EntryType, Header};

/// A tar block.
pub(crate) const BLOCK: usize = 512;
/// The modification time of a tape's own members, 2026-01-01T00:00:00Z: fixed, so that a reader can recompute the
/// header.
const MEMBER_MTIME: u64 = 1_767_225_600;

/// Length rounded up to whole tar blocks.
pub(crate) fn padded(length: u64) -> u64 {
    length.next_multiple_of(BLOCK as u64)
}

/// The one header that a tape's own member of this name and size has.
pub(crate) fn member_header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = Header::new_ustar();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MEMBER_MTIME);
    header.set_size(size);
    header.set_entry_type(EntryType::Regular);
    let field = &mut header.as_old_mut().name;
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name.as_bytes()[..length]);
    header.set_cksum();
    *header.as_bytes()
}

/// A whole member: header, data, zeros up to the block.
pub(crate) fn member(name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = member_header(name, data.len() as u64).to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The data of a member of this name, if `bytes` are exactly that member, canonical header and zero padding included.
pub(crate) fn member_data<'a>(name: &str, size: usize, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (header, rest) = bytes.split_at_checked(BLOCK)?;
    let (data, padding) = rest.split_at_checked(size)?;
    let canonical = header == member_header(name, size as u64)
        && padding.len() < BLOCK
        && bytes.len().is_multiple_of(BLOCK)
        && padding.iter().all(|&byte| byte == 0);
    canonical.then_some(data)
}

/// The size that a ustar header announces, if it is an octal number.
pub(crate) fn announced_size(header: &[u8]) -> Option<u64> {
    let field = header.get(124..136)?;
    let digits = field.split(|&byte| byte == 0 || byte == b' ').next()?;
    let text = std::str::from_utf8(digits).ok()?;
    u64::from_str_radix(text, 8).ok()
}
