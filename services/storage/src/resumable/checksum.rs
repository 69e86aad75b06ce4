//! Digests of what a stream brings, as clients tell them.

use proto::storage::{Checksum, checksum::Algorithm};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::Error;

/// A digest that is made as bytes come, and compared with the one that a client told.
pub struct Verification {
    hasher: Hasher,
    expected: Vec<u8>,
}

enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl TryFrom<Checksum> for Verification {
    type Error = Error;

    fn try_from(checksum: Checksum) -> Result<Self, Error> {
        let (hasher, bytes) = match checksum.algorithm() {
            Algorithm::Sha1 => (Hasher::Sha1(Sha1::new()), 20),
            Algorithm::Sha256 => (Hasher::Sha256(Sha256::new()), 32),
            Algorithm::Unspecified => return Err(Error::Malformed("algorithm of a checksum is missing".to_owned())),
        };
        let expected = checksum.digest;
        match expected.len() == bytes {
            true => Ok(Self { hasher, expected }),
            false => {
                let found = expected.len();
                Err(Error::Malformed(format!("invalid checksum: expected {bytes} bytes, found {found}")))
            }
        }
    }
}

impl Verification {
    /// Takes in more bytes.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.hasher {
            Hasher::Sha1(hasher) => hasher.update(data),
            Hasher::Sha256(hasher) => hasher.update(data),
        }
    }

    /// Whether what came is what was told.
    pub fn finish(self) -> Result<(), Error> {
        let found = match self.hasher {
            Hasher::Sha1(hasher) => hasher.finalize().to_vec(),
            Hasher::Sha256(hasher) => hasher.finalize().to_vec(),
        };
        if found == self.expected { Ok(()) } else { Err(Error::Checksum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_compared_with_the_digest() {
        // Source: FIPS 180-2, appendices A.1 and B.1.
        let digits = |hex: &str| -> Vec<u8> {
            hex.as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        };
        for (algorithm, digest) in [
            (Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (Algorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ] {
            let checksum = Checksum { algorithm: algorithm.into(), digest: digits(digest) };
            for (pieces, is_it) in [(&["a", "bc"][..], true), (&["abc", ""], true), (&["ab"], false), (&[], false)] {
                let mut verification = Verification::try_from(checksum.clone()).expect("it is sound");
                pieces.iter().for_each(|piece| verification.update(piece.as_bytes()));
                assert_eq!(verification.finish().is_ok(), is_it, "{algorithm:?} {pieces:?}");
            }
            let cut = Checksum { digest: digits(&digest[2..]), ..checksum };
            assert!(Verification::try_from(cut).is_err());
        }
        assert!(Verification::try_from(Checksum::default()).is_err());
    }
}
