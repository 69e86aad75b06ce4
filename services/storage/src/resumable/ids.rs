//! Ids of uploads: bucket and name, encrypted and authenticated, so that nobody makes one up.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mesh::seal::{self, Sealer};

use crate::Error;

/// Seals and opens ids.
#[derive(Clone)]
pub struct UploadIds(Sealer);

/// The upload that an id tells.
#[derive(Debug, PartialEq)]
pub struct UploadId {
    /// Id of its bucket.
    pub bucket: String,
    /// Its name in the bucket.
    pub name: String,
}

impl UploadIds {
    /// Keys derived from `secret`.
    pub fn new(secret: &[u8]) -> Self {
        Self(Sealer::new("perigee file upload v1", secret))
    }

    /// The id of an upload of a project.
    pub fn seal(&self, project: &str, bucket: &str, name: &str) -> String {
        let context = seal::hash_of(&[project.as_bytes()]);
        URL_SAFE_NO_PAD.encode(self.0.seal(context.as_bytes(), format!("{name}{bucket}").as_bytes()))
    }

    /// What an id tells. Errors: it is none of an upload of the project.
    pub fn open(&self, project: &str, id: &str) -> Result<UploadId, Error> {
        let context = seal::hash_of(&[project.as_bytes()]);
        let sealed = URL_SAFE_NO_PAD.decode(id).ok();
        let told = sealed.and_then(|sealed| self.0.open(context.as_bytes(), sealed));
        let told = told.and_then(|told| String::from_utf8(told).ok()).ok_or(Error::NoUpload)?;
        let (name, bucket) = told.split_at_checked(crate::NAME_CHARS).ok_or(Error::NoUpload)?;
        Ok(UploadId { bucket: bucket.to_owned(), name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_one_project_and_nobody_else_makes_one() {
        let (ids, name) = (UploadIds::new(b"secret"), crate::random_name());
        let id = ids.seal("shop", "files", &name);
        assert_eq!(ids.open("shop", &id).ok(), Some(UploadId { bucket: "files".to_owned(), name }));
        assert!(ids.open("other", &id).is_err());
        assert!(UploadIds::new(b"another").open("shop", &id).is_err());
        for forged in ["", "x", "../x", "%", &id[1..]] {
            assert!(matches!(ids.open("shop", forged), Err(Error::NoUpload)), "{forged}");
        }
    }
}
