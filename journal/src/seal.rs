//! What an export may take: a settled end of the journal.

use crate::{Seq, Timestamp};

/// Every record up to `last` is settled and durable, and no record after it carries a time up to `time`: a tape that
/// ends here vouches for the time until then, quiet or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The last settled record.
    pub last: Seq,
    /// Hybrid time of the seal.
    pub time: Timestamp,
}
