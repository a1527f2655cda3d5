//! Positions in a history: a sequence number and a digest of everything up to it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Epoch, Seq};

/// 32 bytes of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest before the first record of a group.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The digest after one more record: BLAKE3 over this digest, the 64 bytes of control data and the journal data.
    /// It depends on the records alone, not on how they were cut into tapes. Computed off the write path.
    #[must_use]
    pub fn chain(&self, control: &[u8], data: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(control).update(data);
        Digest(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut digest, hex) = ([0; 32], text.as_bytes());
        if hex.len() != 64 || !text.is_ascii() {
            return Err("a digest is 64 hexadecimal digits");
        }
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| "not hexadecimal")?;
        }
        Ok(Digest(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A point of one history. Two sites that hold the same number and another digest have diverged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which history.
    pub epoch: Epoch,
    /// The last record up to which it counts.
    pub seq: Seq,
    /// Chained digest of all records up to it.
    pub digest: Digest,
}
