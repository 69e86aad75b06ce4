//! Grants: what the rule engine allows, in a form that only it can make.
//!
//! In the process of the rule engine a [`Grant`] is proof by its type: [`Signer::grant`] alone makes one. Where it
//! leaves the process it is signed with a keyed BLAKE3 hash under the key of the mesh, and the service that acts
//! verifies that.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use query::{
    Error, GrantTerms,
    file::{FileOperation, FilePath, FileTerms},
};

use crate::wire::auth::v1 as wire;

/// Makes grants. Only the rule engine has one.
#[derive(Clone)]
pub struct Signer(Keys);

/// Verifies grants.
#[derive(Clone)]
pub struct Verifier(Keys);

/// A key for each kind of grant: one is never taken for the other.
#[derive(Clone)]
struct Keys {
    tables: Key,
    files: Key,
    calls: Key,
    workers: Key,
    events: Key,
}

#[derive(Clone)]
struct Key(Arc<[u8; 32]>);

/// A grant of the rule engine: the authorised access to one resource.
#[derive(Clone)]
pub struct Grant(Form);

#[derive(Clone)]
enum Form {
    /// Made in this process.
    Issued { terms: Arc<GrantTerms>, key: Key },
    /// From another process; anybody may have written it.
    Signed { grant: Bytes, signature: Bytes },
}

/// Error of a grant that is not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unverified {
    /// The signature is missing or of another key.
    #[error("invalid signature: the nodes of this mesh must have the same mesh_key")]
    Signature,
    /// The content is malformed, such as that of another version.
    #[error("invalid grant: {0}")]
    Malformed(String),
}

/// Signer and verifier for the key derived from `secret`.
pub fn pair(secret: &[u8]) -> (Signer, Verifier) {
    let key = |context: &str| Key(Arc::new(blake3::derive_key(context, secret)));
    let keys = Keys {
        tables: key("perigee mesh grant v2"),
        files: key("perigee mesh file grant v1"),
        calls: key("perigee mesh call grant v1"),
        workers: key("perigee mesh worker grant v1"),
        events: key("perigee mesh event grant v1"),
    };
    (Signer(keys.clone()), Verifier(keys))
}

impl Signer {
    /// The grant with these terms.
    pub fn grant(&self, terms: GrantTerms) -> Grant {
        Grant(Form::Issued { terms: Arc::new(terms), key: self.0.tables.clone() })
    }

    /// The grant with these terms for a file. It is always signed: beside the bytes of a file that costs nothing.
    pub fn file_grant(&self, terms: FileTerms) -> wire::SignedGrant {
        self.0.files.signed(&wire::FileGrant::from(terms))
    }

    /// The grant to be a worker, signed.
    pub fn worker_grant(&self, grant: &wire::WorkerGrant) -> wire::SignedGrant {
        self.0.workers.signed(grant)
    }

    /// The grant to queue custom events, signed.
    pub fn event_grant(&self, grant: &wire::EventGrant) -> wire::SignedGrant {
        self.0.events.signed(grant)
    }

    /// The grant to call a function, signed.
    pub fn call_grant(&self, grant: &wire::CallGrant) -> wire::SignedGrant {
        self.0.calls.signed(grant)
    }
}

impl Verifier {
    /// The terms of a grant of this process, or of one that was signed with the same key.
    pub fn terms(&self, grant: Grant) -> Result<Arc<GrantTerms>, Unverified> {
        let (grant, signature) = match grant.0 {
            Form::Issued { terms, .. } => return Ok(terms),
            Form::Signed { grant, signature } => (grant, signature),
        };
        self.0.tables.verify(&grant, &signature)?;
        let grant = wire::Grant::decode(grant).map_err(malformed)?;
        GrantTerms::try_from(grant).map(Arc::new).map_err(malformed)
    }

    /// The terms of a grant for a file that was signed with the same key.
    pub fn file_terms(&self, grant: wire::SignedGrant) -> Result<FileTerms, Unverified> {
        let wire::SignedGrant { grant, signature } = grant;
        self.0.files.verify(&grant, &signature)?;
        let grant = wire::FileGrant::decode(grant).map_err(malformed)?;
        FileTerms::try_from(grant).map_err(malformed)
    }

    /// What a grant to be a worker says that was signed with the same key.
    pub fn worker_grant(&self, grant: wire::SignedGrant) -> Result<wire::WorkerGrant, Unverified> {
        let wire::SignedGrant { grant, signature } = grant;
        self.0.workers.verify(&grant, &signature)?;
        wire::WorkerGrant::decode(grant).map_err(malformed)
    }

    /// What a grant to queue custom events says that was signed with the same key.
    pub fn event_grant(&self, grant: wire::SignedGrant) -> Result<wire::EventGrant, Unverified> {
        let wire::SignedGrant { grant, signature } = grant;
        self.0.events.verify(&grant, &signature)?;
        wire::EventGrant::decode(grant).map_err(malformed)
    }

    /// What a grant to call a function says that was signed with the same key.
    pub fn call_grant(&self, grant: wire::SignedGrant) -> Result<wire::CallGrant, Unverified> {
        let wire::SignedGrant { grant, signature } = grant;
        self.0.calls.verify(&grant, &signature)?;
        wire::CallGrant::decode(grant).map_err(malformed)
    }
}

fn malformed(error: impl std::fmt::Display) -> Unverified {
    Unverified::Malformed(error.to_string())
}

impl Key {
    fn hash(&self, message: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, message)
    }

    /// The message of a grant, signed.
    fn signed(&self, grant: &impl Message) -> wire::SignedGrant {
        let grant = grant.encode_to_vec();
        let signature = self.hash(&grant).as_bytes().to_vec();
        wire::SignedGrant { grant: grant.into(), signature: signature.into() }
    }

    /// Compares the signature of `message` in constant time.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Unverified> {
        let is_signed = <[u8; 32]>::try_from(signature).is_ok_and(|signature| self.hash(message) == signature);
        if is_signed { Ok(()) } else { Err(Unverified::Signature) }
    }
}

impl From<FileTerms> for wire::FileGrant {
    fn from(terms: FileTerms) -> Self {
        Self {
            project: terms.project,
            bucket: terms.bucket,
            operation: wire::FileOperation::from(terms.operation).into(),
            path: terms.path.map(|path| path.as_str().to_owned()),
            size: terms.size,
            provisional: terms.is_provisional,
            expires_ms: terms.expires_ms,
        }
    }
}

impl TryFrom<wire::FileGrant> for FileTerms {
    type Error = Error;

    fn try_from(grant: wire::FileGrant) -> Result<Self, Error> {
        Ok(Self {
            operation: FileOperation::try_from(grant.operation())?,
            project: grant.project,
            bucket: grant.bucket,
            path: grant.path.map(|path| FilePath::from_key(&path)).transpose()?,
            size: grant.size,
            is_provisional: grant.provisional,
            expires_ms: grant.expires_ms,
        })
    }
}

impl From<FileOperation> for wire::FileOperation {
    fn from(operation: FileOperation) -> Self {
        match operation {
            FileOperation::Create => Self::Create,
            FileOperation::Read => Self::Read,
            FileOperation::Delete => Self::Delete,
            FileOperation::List => Self::List,
        }
    }
}

impl TryFrom<wire::FileOperation> for FileOperation {
    type Error = Error;

    fn try_from(operation: wire::FileOperation) -> Result<Self, Error> {
        match operation {
            wire::FileOperation::Create => Ok(Self::Create),
            wire::FileOperation::Read => Ok(Self::Read),
            wire::FileOperation::Delete => Ok(Self::Delete),
            wire::FileOperation::List => Ok(Self::List),
            wire::FileOperation::Unspecified => Err(Error::Malformed("operation is missing".to_owned())),
        }
    }
}

impl From<Grant> for wire::SignedGrant {
    fn from(grant: Grant) -> Self {
        match grant.0 {
            Form::Issued { terms, key } => key.signed(&wire::Grant::from(Arc::unwrap_or_clone(terms))),
            Form::Signed { grant, signature } => Self { grant, signature },
        }
    }
}

impl From<wire::SignedGrant> for Grant {
    /// The encoded grant, not yet verified; see [`Verifier::terms`].
    fn from(signed: wire::SignedGrant) -> Self {
        Self(Form::Signed { grant: signed.grant, signature: signed.signature })
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Form::Issued { terms, .. } => f.debug_tuple("Grant").field(terms).finish(),
            Form::Signed { .. } => f.debug_tuple("Grant").field(&"signed").finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use query::{Columns, Filter, Operation};

    use super::*;

    fn terms(table: &str) -> GrantTerms {
        GrantTerms {
            project: "shop".to_owned(),
            database: "music".to_owned(),
            table: table.to_owned(),
            operation: Operation::Read,
            filter: Filter::IsNull { column: "deleted".to_owned() },
            check: Filter::TRUE,
            columns: Columns::default().into(),
            allow_all: false,
            expires_ms: 5,
        }
    }

    fn signed(secret: &[u8], table: &str) -> wire::SignedGrant {
        pair(secret).0.grant(terms(table)).into()
    }

    #[test]
    fn a_grant_is_accepted_near_and_far() {
        let (signer, verifier) = pair(b"secret");
        let grant = signer.grant(terms("album"));
        assert_eq!(*verifier.terms(grant.clone()).unwrap(), terms("album"));
        let far = wire::SignedGrant::decode(wire::SignedGrant::from(grant).encode_to_vec().as_slice()).unwrap();
        assert_eq!(*verifier.terms(far.into()).unwrap(), terms("album"));
    }

    #[test]
    fn a_grant_that_is_passed_on_keeps_its_signature() {
        let first = signed(b"secret", "album");
        assert_eq!(wire::SignedGrant::from(Grant::from(first.clone())), first);
    }

    #[test]
    fn a_foreign_changed_or_cut_signature_is_refused() {
        let (_, verifier) = pair(b"secret");
        let sound = signed(b"secret", "album");
        let mut changed = sound.signature.to_vec();
        changed[0] ^= 1;
        for (grant, signature) in [
            (sound.grant.clone(), signed(b"other", "album").signature),
            (signed(b"secret", "artist").grant, sound.signature.clone()),
            (sound.grant.clone(), changed.into()),
            (sound.grant.clone(), sound.signature.slice(..31)),
            (sound.grant.clone(), Bytes::new()),
        ] {
            let refused = verifier.terms(wire::SignedGrant { grant, signature }.into());
            assert!(matches!(refused, Err(Unverified::Signature)));
        }
    }

    #[test]
    fn a_grant_for_a_file_is_none_for_a_table_and_the_other_way_round() {
        let (signer, verifier) = pair(b"secret");
        let terms = FileTerms {
            project: "shop".to_owned(),
            bucket: "files".to_owned(),
            operation: FileOperation::Create,
            path: FilePath::parse("/a/b").ok(),
            size: Some(3),
            is_provisional: false,
            expires_ms: 5,
        };
        let grant = signer.file_grant(terms.clone());
        assert_eq!(verifier.file_terms(grant.clone()).unwrap(), terms);
        assert!(matches!(pair(b"other").1.file_terms(grant.clone()), Err(Unverified::Signature)));
        assert!(matches!(verifier.terms(grant.into()), Err(Unverified::Signature)));
        assert!(matches!(verifier.file_terms(signed(b"secret", "album")), Err(Unverified::Signature)));
    }

    #[test]
    fn a_grant_for_a_call_is_for_nothing_else() {
        let (signer, verifier) = pair(b"secret");
        let grant = wire::CallGrant { service: "mail".to_owned(), expires_ms: 5, ..Default::default() };
        let call = signer.call_grant(&grant);
        assert_eq!(verifier.call_grant(call.clone()).unwrap(), grant);
        assert!(matches!(pair(b"other").1.call_grant(call.clone()), Err(Unverified::Signature)));
        assert!(matches!(verifier.file_terms(call.clone()), Err(Unverified::Signature)));
        assert!(matches!(verifier.terms(call.into()), Err(Unverified::Signature)));
        assert!(matches!(verifier.call_grant(signed(b"secret", "album")), Err(Unverified::Signature)));
    }

    #[test]
    fn a_signed_text_that_is_no_grant_is_malformed() {
        let (_, verifier) = pair(b"secret");
        let grant = Bytes::from_static(b"\xff\xff");
        let signature = verifier.0.tables.hash(&grant).as_bytes().to_vec().into();
        let refused = verifier.terms(wire::SignedGrant { grant, signature }.into());
        assert!(matches!(refused, Err(Unverified::Malformed(_))));
    }
}
