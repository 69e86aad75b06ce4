//! Authorization of files: from an access and the policy of its path to a grant.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use proto::{
    auth::{AuthorizeFilesRequest, FileAccess, FileSignature, FileVerdict},
    grant::Signer,
};
use query::{
    Guard, Object, Operation, Value,
    file::{FileOperation, FilePath, FileTerms},
};

use crate::{
    context::{FileContext, FileSize, RequestContext},
    error::Error,
    eval::{self, Verdict},
    explain::{self, Refusal},
    file_policy::{FilePolicies, Found},
    grant::{Caller, GRANT_LIFETIME_MS},
    key,
    path::Root,
    rule::{self, Kind, Policy},
};

/// The text of a denial, which clients of earlier servers know.
const DENIED: &str = "You are not authorized to make this request";
/// Most levels and nodes of a file's metadata.
const META_LIMITS: Guard = Guard::new(32, 1024);
/// The longest that the signature of an address may be good for, in seconds.
const SIGNATURE_SECONDS: u32 = 604_800;

/// An access in the form that rules read.
struct Requested {
    bucket: String,
    operation: FileOperation,
    path: Option<FilePath>,
    size: FileSize,
    content_type: String,
    meta: Option<Object>,
}

impl TryFrom<FileAccess> for Requested {
    type Error = query::Error;

    fn try_from(access: FileAccess) -> Result<Self, query::Error> {
        let operation = FileOperation::try_from(access.operation())?;
        let meta = match access.meta.as_str() {
            "" => None,
            text => match proto::json::parse(text.as_bytes(), META_LIMITS)? {
                Value::Object(object) => Some(object),
                other => {
                    return Err(query::Error::Malformed(format!(
                        "invalid meta: expected object, found {}",
                        other.kind()
                    )));
                }
            },
        };
        let size = match access.size {
            Some(size) => FileSize::Known(size),
            None if access.no_size => FileSize::None,
            None => FileSize::Unknown,
        };
        let path = access.path.as_deref().map(FilePath::from_key).transpose()?;
        Ok(Self { bucket: access.bucket, operation, path, size, content_type: access.content_type, meta })
    }
}

impl Requested {
    /// Whether something that a rule may look at is not known yet.
    fn is_provisional(&self) -> bool {
        self.path.is_none() || self.size == FileSize::Unknown
    }

    fn file<'a>(&'a self, params: &'a [(String, String)]) -> FileContext<'a> {
        let Self { path, size, content_type, meta, .. } = self;
        FileContext { path: path.as_ref(), params, size: *size, content_type, meta: meta.as_ref() }
    }
}

impl Caller<'_> {
    /// Verdicts on all accesses of a request, in their order.
    pub fn files(&mut self, request: AuthorizeFilesRequest, signer: &Signer) -> Result<Vec<FileVerdict>, Error> {
        let AuthorizeFilesRequest { accesses, each, signature, .. } = request;
        if let Some(signature) = signature {
            return accesses.into_iter().map(|access| self.signed_file(access, &signature, signer)).collect();
        }
        let mut verdicts = Vec::with_capacity(accesses.len());
        for (index, access) in accesses.into_iter().enumerate() {
            let requested = Requested::try_from(access)?;
            verdicts.push(match self.file(&requested) {
                Ok(covers) => FileVerdict { grant: Some(signer.file_grant(self.file_terms(requested))), covers },
                Err(_) if each => FileVerdict::default(),
                Err(refusal) => return Err(self.file_refused(refusal, &requested, index)),
            });
        }
        Ok(verdicts)
    }

    /// The signature of an address for an access that the caller is allowed.
    pub fn sign_file(&mut self, access: FileAccess, seconds: u32) -> Result<FileSignature, Error> {
        let requested = Requested::try_from(access)?;
        if !(1..=SIGNATURE_SECONDS).contains(&seconds) {
            let message = format!("invalid expires: expected 1 to {SIGNATURE_SECONDS} seconds, found {seconds}");
            return Err(query::Error::Malformed(message).into());
        }
        if let Err(refusal) = self.file(&requested) {
            return Err(self.file_refused(refusal, &requested, 0));
        }
        if self.looks_at_content(&requested) {
            let message = "an address cannot be signed for PUT where the rule looks at args.size, args.contentType or \
                           args.meta, which nobody knows yet";
            return Err(Error::Denied { message: message.to_owned(), explanation: String::new(), access: 0 });
        }
        let expires_s = self.now_ms / 1000 + i64::from(seconds);
        let key = key::primary_of(self.project.keys.specs()).ok_or_else(|| Error::NoKey(self.id.to_owned()))?;
        let message = self.message(&requested, expires_s);
        let key = EncodingKey::from_secret(key.secret.as_bytes());
        let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).map_err(Error::Sign)?;
        Ok(FileSignature { expires_s, signature })
    }

    /// Whether the rule of a file that will be written looks at what it will be.
    fn looks_at_content(&self, requested: &Requested) -> bool {
        let policies = self.project.bucket(&requested.bucket);
        let found = policies.zip(requested.path.as_ref()).and_then(|(of, path)| of.find(path, requested.operation));
        let policy = found.and_then(|found| found.policy);
        let is_content = |root: &Root| policy.is_some_and(|policy| rule::depends_on(&policy.rule, *root));
        requested.operation == FileOperation::Create
            && [Root::Size, Root::ContentType, Root::Meta].iter().any(is_content)
    }

    /// The grant of who has a signed address: rules were asked when it was signed.
    fn signed_file(&self, access: FileAccess, signed: &FileSignature, signer: &Signer) -> Result<FileVerdict, Error> {
        let requested = Requested::try_from(access)?;
        let message = self.message(&requested, signed.expires_s);
        let is_of = |secret: &str| {
            let key = DecodingKey::from_secret(secret.as_bytes());
            // What is no base64 is no signature.
            crypto::verify(&signed.signature, message.as_bytes(), &key, Algorithm::HS256).unwrap_or(false)
        };
        if !self.project.keys.specs().iter().any(|key| is_of(&key.secret)) {
            return Err(Error::Signature("the signature of the address is invalid"));
        }
        if self.now_ms / 1000 >= signed.expires_s {
            return Err(Error::Signature("the address has expired"));
        }
        Ok(FileVerdict { grant: Some(signer.file_grant(self.file_terms(requested))), covers: false })
    }

    /// What is signed: no line of it can be another, since paths have no line breaks.
    fn message(&self, requested: &Requested, expires_s: i64) -> String {
        let (bucket, operation) = (&requested.bucket, requested.operation.name());
        let path = requested.path.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("perigee file v1\n{}\n{bucket}\n{operation}\n{expires_s}\n{path}", self.id)
    }

    fn file_terms(&self, requested: Requested) -> FileTerms {
        let is_provisional = requested.is_provisional();
        FileTerms {
            project: self.id.to_owned(),
            bucket: requested.bucket,
            operation: requested.operation,
            path: requested.path,
            size: match requested.size {
                FileSize::Known(size) => Some(size),
                FileSize::None | FileSize::Unknown => None,
            },
            is_provisional,
            expires_ms: self.now_ms + GRANT_LIFETIME_MS,
        }
    }

    /// Whether the access is allowed, and everything below its path too.
    fn file(&mut self, requested: &Requested) -> Result<bool, Refusal> {
        let project = self.project;
        let Some(policies) = project.bucket(&requested.bucket) else { return Err(Refusal::Rule(None)) };
        let Some(path) = &requested.path else {
            return self.some_file(policies, requested).map(|()| false);
        };
        let Some(Found { policy: Some(policy), params }) = policies.find(path, requested.operation) else {
            return Err(Refusal::Rule(None));
        };
        self.decide_file(policy, requested, &params)?;
        Ok(policies.is_alike_below(path, policy))
    }

    /// Whether some path could be allowed.
    fn some_file(&mut self, policies: &FilePolicies, requested: &Requested) -> Result<(), Refusal> {
        let mut refusal = Refusal::Rule(None);
        for policy in policies.all(requested.operation) {
            match self.decide_file(policy, requested, &[]) {
                Ok(()) => return Ok(()),
                // A token could help.
                Err(told @ Refusal::Token(_)) => refusal = told,
                Err(Refusal::Rule(_) | Refusal::Condition(_)) => {}
            }
        }
        Err(refusal)
    }

    fn decide_file(
        &mut self,
        policy: &Policy,
        requested: &Requested,
        params: &[(String, String)],
    ) -> Result<(), Refusal> {
        if matches!(policy.rule.kind, Kind::Allow) {
            return Ok(());
        }
        let verified = self.verified();
        let file = requested.file(params);
        let claims = verified.as_ref().ok().map(|verified| &verified.claims);
        let request = RequestContext { file: Some(file), ..self.file_context(claims) };
        let refusal = match &verified {
            Ok(_) => None,
            // No token helps.
            Err(_) if !eval::is_passable(&policy.rule, Operation::Read) => Some(Refusal::Rule(None)),
            Err(reason) if policy.anonymous => Some(Refusal::Token(*reason)),
            Err(reason) => return Err(Refusal::Token(*reason)),
        };
        if requested.is_provisional() {
            return match eval::is_satisfiable(policy, &request) {
                true => Ok(()),
                false => Err(refusal.unwrap_or(Refusal::Rule(None))),
            };
        }
        match eval::verdict(&policy.rule, &request) {
            Verdict::Where(_) => Ok(()),
            Verdict::Deny(error) => Err(refusal.unwrap_or_else(|| Refusal::Rule(error.map(str::to_owned)))),
        }
    }

    fn file_context<'f>(&'f self, claims: Option<&'f Object>) -> RequestContext<'f> {
        let stranger = RequestContext::of(self.id, self.project.mode, Operation::Read, self.now);
        RequestContext { token: self.token, claims, ..stranger }
    }

    fn file_refused(&mut self, refusal: Refusal, requested: &Requested, index: usize) -> Error {
        let explanation = match (self.development, &requested.path) {
            (Some(development), Some(path)) => {
                let found = self.project.bucket(&requested.bucket).and_then(|of| of.find(path, requested.operation));
                let (policy, params) = found.map(|found| (found.policy, found.params)).unwrap_or_default();
                let verified = self.verified().ok();
                let claims = verified.as_ref().map(|verified| &verified.claims);
                let request = RequestContext { file: Some(requested.file(&params)), ..self.file_context(claims) };
                let of = (requested.bucket.as_str(), requested.operation, path);
                format!("; {}", explain::file_refusal(&refusal, policy, of, &request, &development.token_options))
            }
            (Some(_) | None, _) => String::new(),
        };
        match refusal {
            Refusal::Token(reason) => Error::Unauthenticated { reason, explanation, access: index },
            Refusal::Rule(own) => {
                Error::Denied { message: own.unwrap_or_else(|| DENIED.to_owned()), explanation, access: index }
            }
            Refusal::Condition(_) => Error::Denied { message: DENIED.to_owned(), explanation, access: index },
        }
    }
}

#[cfg(test)]
mod tests;
