//! Anonymous memory mappings, which return their memory to the system when they are dropped.
//!
//! The allocator keeps what it was given for some time: of a few large answers, hundreds of megabytes.

use memmap2::MmapMut;

/// Anonymous mapping: a buffer of a fixed size, filled from its start. Only what is filled takes memory.
#[derive(Debug)]
pub struct Mapping {
    map: MmapMut,
    len: usize,
}

impl Mapping {
    /// A mapping of `size` bytes; `None` where the system has no room for them.
    pub fn new(size: usize) -> Option<Self> {
        MmapMut::map_anon(size).ok().map(|map| Self { map, len: 0 })
    }

    /// Bytes that are filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Moves all of `bytes` to the end.
    ///
    /// # Panics
    /// Where they do not fit.
    pub fn take(&mut self, bytes: &mut Vec<u8>) {
        self.map[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        bytes.clear();
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.map[..self.len]
    }
}
