//! Proof that a message was made by the one service that may make it: a keyed BLAKE3 hash under the key of the mesh.

/// Seals messages. Only the service that may make them has one.
#[derive(Clone)]
pub struct Sealer {
    key: [u8; 32],
}

/// Opens sealed messages.
#[derive(Clone)]
pub struct Opener {
    key: [u8; 32],
}

/// Both ends for the key that `secret` stands for.
pub fn pair(secret: &[u8]) -> (Sealer, Opener) {
    let key = blake3::derive_key("perigee mesh seal v1", secret);
    (Sealer { key }, Opener { key })
}

impl Sealer {
    /// The seal of `message`.
    pub fn seal(&self, message: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, message).as_bytes()
    }
}

impl Opener {
    /// Whether `seal` was made for `message` with the same key; compares in constant time.
    pub fn is_sealed(&self, message: &[u8], seal: &[u8]) -> bool {
        <[u8; 32]>::try_from(seal).is_ok_and(|seal| blake3::keyed_hash(&self.key, message) == seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_message_open_a_seal() {
        let (sealer, opener) = pair(b"secret");
        let seal = sealer.seal(b"grant");
        assert!(opener.is_sealed(b"grant", &seal));
        assert!(!opener.is_sealed(b"grant!", &seal));
        assert!(!pair(b"other").1.is_sealed(b"grant", &seal));
    }

    #[test]
    fn a_seal_that_is_changed_or_cut_is_none() {
        let (sealer, opener) = pair(b"secret");
        let mut seal = sealer.seal(b"grant");
        for cut in [&b""[..], &seal[..31]] {
            assert!(!opener.is_sealed(b"grant", cut));
        }
        seal[0] ^= 1;
        assert!(!opener.is_sealed(b"grant", &seal));
    }
}
