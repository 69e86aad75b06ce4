//! Checksums that clients send with the bytes of a file, before or after them.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};
use mesh::Fault;
use s3s::crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};

use super::fault::invalid;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");
/// What the names of headers of checksums begin with.
const PREFIX: &str = "x-amz-checksum-";

/// An algorithm at work.
enum Hasher {
    Crc32(Box<Crc32>),
    Crc32c(Box<Crc32c>),
    Crc64Nvme(Box<Crc64Nvme>),
    Md5(Box<Md5>),
    Sha1(Box<Sha1>),
    Sha256(Box<Sha256>),
}

impl Hasher {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "crc32" => Hasher::Crc32(Box::new(Crc32::new())),
            "crc32c" => Hasher::Crc32c(Box::new(Crc32c::new())),
            "crc64nvme" => Hasher::Crc64Nvme(Box::new(Crc64Nvme::new())),
            "sha1" => Hasher::Sha1(Box::new(Sha1::new())),
            "sha256" => Hasher::Sha256(Box::new(Sha256::new())),
            _ => return None,
        })
    }

    fn update(&mut self, data: &[u8]) {
        match self {
            Hasher::Crc32(hasher) => hasher.update(data),
            Hasher::Crc32c(hasher) => hasher.update(data),
            Hasher::Crc64Nvme(hasher) => hasher.update(data),
            Hasher::Md5(hasher) => hasher.update(data),
            Hasher::Sha1(hasher) => hasher.update(data),
            Hasher::Sha256(hasher) => hasher.update(data),
        }
    }

    fn digest(self) -> String {
        match self {
            Hasher::Crc32(hasher) => STANDARD.encode(hasher.finalize()),
            Hasher::Crc32c(hasher) => STANDARD.encode(hasher.finalize()),
            Hasher::Crc64Nvme(hasher) => STANDARD.encode(hasher.finalize()),
            Hasher::Md5(hasher) => STANDARD.encode(hasher.finalize()),
            Hasher::Sha1(hasher) => STANDARD.encode(hasher.finalize()),
            Hasher::Sha256(hasher) => STANDARD.encode(hasher.finalize()),
        }
    }
}

/// A checksum that is expected.
struct Expected {
    header: HeaderName,
    hasher: Hasher,
    /// In base64; `None`: it follows the bytes.
    digest: Option<String>,
}

/// The checksums of a body.
pub struct Checksums(Vec<Expected>);

impl Checksums {
    /// Those that the headers of a request tell, or announce. Errors: one has no known algorithm, or is none.
    pub fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        let mut expected = Vec::new();
        for (header, value) in headers {
            let hasher = match header.as_str().strip_prefix(PREFIX) {
                // They say how checksums are made, and are none.
                Some("algorithm" | "mode" | "type") => continue,
                Some(name) => Some(Hasher::named(name).ok_or_else(|| unknown(name))?),
                None if *header == CONTENT_MD5 => Some(Hasher::Md5(Box::new(Md5::new()))),
                None => None,
            };
            let Some(hasher) = hasher else { continue };
            let digest = value.to_str().map_err(|_| malformed(header))?.trim().to_owned();
            STANDARD.decode(&digest).map_err(|_| malformed(header))?;
            expected.push(Expected { header: header.clone(), hasher, digest: Some(digest) });
        }
        for announced in headers.get_all(TRAILER) {
            for name in announced.to_str().map_err(|_| malformed(&TRAILER))?.split(',').map(str::trim) {
                let Some(algorithm) = name.strip_prefix(PREFIX) else { continue };
                let hasher = Hasher::named(algorithm).ok_or_else(|| unknown(algorithm))?;
                let header = HeaderName::try_from(name).map_err(|_| malformed(&TRAILER))?;
                expected.push(Expected { header, hasher, digest: None });
            }
        }
        Ok(Self(expected))
    }

    /// Takes in more bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.0.iter_mut().for_each(|expected| expected.hasher.update(data));
    }

    /// Errors: the bytes do not have one of the checksums, or it did not follow in `trailers`.
    pub fn check(self, trailers: &HeaderMap) -> Result<(), Fault> {
        for Expected { header, hasher, digest } in self.0 {
            let told = match digest {
                Some(digest) => digest,
                None => {
                    let value = trailers.get(&header).and_then(|value| value.to_str().ok());
                    let missing = || invalid("InvalidRequest", format!("{header} was announced and did not follow"));
                    value.ok_or_else(missing)?.trim().to_owned()
                }
            };
            if hasher.digest() != told {
                return Err(invalid("BadDigest", format!("the body does not have the checksum of {header}")));
            }
        }
        Ok(())
    }
}

fn unknown(name: &str) -> Fault {
    let message = format!("invalid checksum {name:?}: expected crc32, crc32c, crc64nvme, sha1 or sha256");
    invalid("InvalidRequest", message)
}

fn malformed(header: &HeaderName) -> Fault {
    invalid("InvalidDigest", format!("invalid {header}: expected base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let value = http::HeaderValue::from_str(value).expect("the test sends a legal header");
            (HeaderName::from_static(name), value)
        });
        pairs.collect()
    }

    fn checked(pairs: &[(&'static str, &str)], trailers: &[(&'static str, &str)]) -> Result<(), String> {
        let code = |fault: Fault| fault.detail("s3").unwrap_or_default().to_owned();
        let mut checksums = Checksums::of(&headers(pairs)).map_err(code)?;
        checksums.update(b"hel");
        checksums.update(b"lo");
        checksums.check(&headers(trailers)).map_err(code)
    }

    #[test]
    fn every_checksum_that_is_told_is_compared() {
        let (crc32, sha1) =
            (("x-amz-checksum-crc32", "NhCmhg=="), ("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00="));
        let md5 = ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==");
        assert_eq!(checked(&[], &[]), Ok(()));
        assert_eq!(checked(&[crc32, sha1, md5], &[]), Ok(()));
        assert_eq!(checked(&[("x-amz-trailer", "x-amz-checksum-crc32")], &[crc32]), Ok(()));
        for (told, trailers, code) in [
            (&[("x-amz-checksum-crc32", "NhCmhw==")][..], &[][..], "BadDigest"),
            (&[crc32, ("content-md5", "XUFAKrxLKna5cZ2REBfFkQ==")], &[], "BadDigest"),
            (&[("x-amz-trailer", "x-amz-checksum-crc32")], &[("x-amz-checksum-crc32", "NhCmhw==")], "BadDigest"),
            (&[("x-amz-trailer", "x-amz-checksum-crc32")], &[], "InvalidRequest"),
            (&[("x-amz-checksum-md4", "NhCmhg==")], &[], "InvalidRequest"),
            (&[("x-amz-checksum-crc32", "%")], &[], "InvalidDigest"),
        ] {
            assert_eq!(checked(told, trailers), Err(code.to_owned()), "{told:?}");
        }
    }
}
