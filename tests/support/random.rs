//! Random numbers that are the same in every run of the same seed.

/// An endless stream of bytes from a seed.
pub struct Random(blake3::OutputReader);

impl Random {
    /// The stream of this name and number.
    pub fn new(name: &str, number: u64) -> Random {
        Random(blake3::Hasher::new().update(name.as_bytes()).update(&number.to_le_bytes()).finalize_xof())
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }

    /// So many bytes, which do not compress.
    pub fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).expect("fits into memory")];
        self.0.fill(&mut bytes);
        bytes
    }

    /// One of these.
    pub fn one_of<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }
}
