//! Grants: what the rule engine allows, in a form that only it can make.
//!
//! In the process of the rule engine a [`Grant`] is proof by its type: [`Signer::grant`] alone makes one. Where it
//! leaves the process it is signed with a keyed BLAKE3 hash under the key of the mesh, and the service that acts
//! verifies that.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use query::{Error, GrantTerms};

use crate::wire::auth::v1 as wire;

/// Makes grants. Only the rule engine has one.
#[derive(Clone)]
pub struct Signer(Key);

/// Verifies grants.
#[derive(Clone)]
pub struct Verifier(Key);

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
#[derive(Debug, thiserror::Error)]
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
    let key = Key(Arc::new(blake3::derive_key("perigee mesh grant v2", secret)));
    (Signer(key.clone()), Verifier(key))
}

impl Signer {
    /// The grant with these terms.
    pub fn grant(&self, terms: GrantTerms) -> Grant {
        Grant(Form::Issued { terms: Arc::new(terms), key: self.0.clone() })
    }
}

impl Verifier {
    /// The terms of a grant of this process, or of one that was signed with the same key.
    pub fn terms(&self, grant: Grant) -> Result<Arc<GrantTerms>, Unverified> {
        let (grant, signature) = match grant.0 {
            Form::Issued { terms, .. } => return Ok(terms),
            Form::Signed { grant, signature } => (grant, signature),
        };
        // Compared in constant time.
        let is_signed = <[u8; 32]>::try_from(&signature[..]).is_ok_and(|signature| self.0.hash(&grant) == signature);
        if !is_signed {
            return Err(Unverified::Signature);
        }
        let malformed = |error: &dyn std::fmt::Display| Unverified::Malformed(error.to_string());
        let grant = wire::Grant::decode(grant).map_err(|error| malformed(&error))?;
        GrantTerms::try_from(grant).map(Arc::new).map_err(|error: Error| malformed(&error))
    }
}

impl Key {
    fn hash(&self, message: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, message)
    }
}

impl From<Grant> for wire::SignedGrant {
    fn from(grant: Grant) -> Self {
        match grant.0 {
            Form::Issued { terms, key } => {
                let grant = wire::Grant::from(Arc::unwrap_or_clone(terms)).encode_to_vec();
                let signature = key.hash(&grant).as_bytes().to_vec();
                Self { grant: grant.into(), signature: signature.into() }
            }
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
    fn a_signed_text_that_is_no_grant_is_malformed() {
        let (_, verifier) = pair(b"secret");
        let grant = Bytes::from_static(b"\xff\xff");
        let signature = verifier.0.hash(&grant).as_bytes().to_vec().into();
        let refused = verifier.terms(wire::SignedGrant { grant, signature }.into());
        assert!(matches!(refused, Err(Unverified::Malformed(_))));
    }
}
