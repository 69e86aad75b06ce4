//! Sealed bytes: what clients keep for this mesh, encrypted and authenticated. A client can neither make such bytes up nor
//! learn from them what is in them.

/// Bytes that are sealed bytes' beginning: the authentication tag.
pub const TAG_BYTES: usize = 16;

/// Seals and opens bytes, by a synthetic initialisation vector: the tag of what is sealed begins its key stream, so that
/// equal bytes are sealed alike and no counter is needed.
#[derive(Clone)]
pub struct Sealer {
    tag_key: [u8; 32],
    stream_key: [u8; 32],
}

impl Sealer {
    /// With keys that are derived from `secret` for `purpose`: what is sealed for one is none of another.
    pub fn new(purpose: &str, secret: &[u8]) -> Self {
        let key = |part: &str| blake3::derive_key(&format!("{purpose} {part}"), secret);
        Self { tag_key: key("tag"), stream_key: key("stream") }
    }

    /// `plain` sealed, for who knows `context`, which has as many bytes each time.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let tag = self.tag(context, plain);
        let mut bytes = [&tag[..], plain].concat();
        self.crypt(tag, &mut bytes[TAG_BYTES..]);
        bytes
    }

    /// What was sealed for the same `context`; `None` for what was not.
    pub fn open(&self, context: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let (tag, bytes) = sealed.split_first_chunk_mut::<TAG_BYTES>()?;
        let tag = *tag;
        self.crypt(tag, bytes);
        // Compared in constant time, as hashes are.
        let is_ours = blake3::hash(&self.tag(context, bytes)) == blake3::hash(&tag);
        is_ours.then(|| sealed.split_off(TAG_BYTES))
    }

    fn tag(&self, context: &[u8], plain: &[u8]) -> [u8; TAG_BYTES] {
        let hash = blake3::Hasher::new_keyed(&self.tag_key).update(context).update(plain).finalize();
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    /// Encrypts, or decrypts, by the key stream of a tag.
    fn crypt(&self, tag: [u8; TAG_BYTES], bytes: &mut [u8]) {
        let mut stream = vec![0; bytes.len()];
        blake3::Hasher::new_keyed(&self.stream_key).update(&tag).finalize_xof().fill(&mut stream);
        for (byte, mask) in bytes.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
}

/// The hash of `parts`, of which none can be taken for a part of another.
pub fn hash_of(parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_for_the_same_purpose_secret_and_context() {
        let sealer = Sealer::new("test", b"secret");
        for plain in [&b""[..], b"a", &[7; 100]] {
            let sealed = sealer.seal(b"1", plain);
            assert_eq!(sealer.open(b"1", sealed.clone()).as_deref(), Some(plain));
            assert_eq!(sealer.open(b"2", sealed.clone()), None);
            assert_eq!(Sealer::new("test", b"other").open(b"1", sealed.clone()), None);
            assert_eq!(Sealer::new("other", b"secret").open(b"1", sealed), None);
        }
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(hash_of(&[b"ab", b"c"]), hash_of(&[b"a", b"bc"]));
        assert_ne!(hash_of(&[b"a"]), hash_of(&[b"a", b""]));
    }

    #[test]
    fn what_was_changed_cut_or_made_up_is_not_opened() {
        let sealer = Sealer::new("test", b"secret");
        let sealed = sealer.seal(b"", b"some bytes");
        assert!(!sealed.windows(4).any(|bytes| bytes == b"some"));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(sealer.open(b"", changed), None, "{at}");
            assert_eq!(sealer.open(b"", sealed[..at].to_vec()), None, "{at}");
        }
    }
}
