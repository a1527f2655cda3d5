//! POSIX access control lists: from the kernel's binary form to the text that tar carries.

use std::fmt::Write;

const VERSION: u32 = 2;
const HEADER_LEN: usize = 4;
const ENTRY_LEN: usize = 8;

/// The text form of a `system.posix_acl_*` value, ids as numbers; `None` if it is not one.
pub(crate) fn to_text(value: &[u8]) -> Option<String> {
    let (header, entries) = value.split_at_checked(HEADER_LEN)?;
    if u32::from_le_bytes(*header.first_chunk()?) != VERSION || entries.is_empty() || entries.len() % ENTRY_LEN != 0 {
        return None;
    }
    let mut text = String::new();
    for entry in entries.chunks_exact(ENTRY_LEN) {
        let (tag, permissions) = (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
        let id = u32::from_le_bytes(*entry[4..].first_chunk()?);
        let (word, named) = match tag {
            0x01 => ("user", false),
            0x02 => ("user", true),
            0x04 => ("group", false),
            0x08 => ("group", true),
            0x10 => ("mask", false),
            0x20 => ("other", false),
            _ => return None,
        };
        if permissions > 7 {
            return None;
        }
        let bit = |mask: u16, letter: char| if permissions & mask == 0 { '-' } else { letter };
        let separator = if text.is_empty() { "" } else { "," };
        let id = if named { id.to_string() } else { String::new() };
        write!(text, "{separator}{word}:{id}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')).ok()?;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes_and_nothing_else() {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in
            [(1u16, 7u16, u32::MAX), (2, 6, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]
        {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        assert_eq!(to_text(&value).as_deref(), Some("user::rwx,user:1000:rw-,group::r-x,mask::rwx,other::---"));
        assert_eq!(to_text(&value[..value.len() - 1]), None);
        value[0] = 1;
        assert_eq!(to_text(&value), None);
    }
}
