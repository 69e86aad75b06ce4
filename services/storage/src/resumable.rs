//! Resumable uploads: files that come in several streams, with failures of clients and nodes between them.
//!
//! What has come is kept in the bucket itself, so that any node goes on with it. The file is there once all of it has
//! come, as a whole.

mod append;
mod checksum;
mod concat;
mod ids;
mod listing;
mod parts;
mod sizes;
mod takeover;

use mesh::{clock, telemetry::Counter};
use proto::{
    auth::SignedGrant,
    grant::Verifier,
    storage::{
        BeginUploadRequest, BeginUploadResponse, ConcatUploadsRequest, ConcatUploadsResponse, DropUploadRequest,
        FindUploadRequest, FindUploadResponse, JoinPartsRequest, JoinPartsResponse, ListPartsRequest,
        ListPartsResponse, ListUploadsRequest, ListUploadsResponse, PutRequest, PutResponse, Resumption, UploadPart,
    },
};
use query::{
    file::{FileOperation, FilePath, FileTerms},
    media_type,
};
use tonic::Streaming;

use self::{
    ids::{UploadId, UploadIds},
    sizes::PartSizes,
    takeover::Takeovers,
};
use crate::{
    Error,
    buckets::{Bucket, Buckets},
    put::{self, PutError, final_path},
    record::{self, Record},
};

/// The resumable uploads of all buckets. Clones are the same.
#[derive(Clone)]
pub struct Uploads {
    buckets: Buckets,
    verifier: Verifier,
    ids: UploadIds,
    takeovers: Takeovers,
    part_sizes: PartSizes,
    taken_bytes: Counter,
}

impl Uploads {
    /// Uploads into `buckets`, whose ids are sealed with keys derived from `secret`. Bytes that come are counted.
    pub fn new(buckets: Buckets, verifier: Verifier, secret: &[u8], taken_bytes: Counter) -> Self {
        let (ids, takeovers, part_sizes) = (UploadIds::new(secret), Takeovers::default(), PartSizes::default());
        Self { buckets, verifier, ids, takeovers, part_sizes, taken_bytes }
    }

    /// Begins an upload.
    pub async fn begin(&self, request: BeginUploadRequest) -> Result<BeginUploadResponse, Error> {
        let BeginUploadRequest { grant, content_type, meta, owner, label, in_parts, partial } = request;
        let terms = put::terms(&self.verifier, grant, FileOperation::Create)?;
        let (path, size) = match in_parts {
            true => (named_path(&terms)?, 0),
            false => (final_path(&terms)?, terms.size.ok_or(Error::WrongGrant("it is for no size"))?),
        };
        if path.is_root() {
            return Err(Error::IsFolder(path.to_string()));
        }
        let bucket = self.buckets.find(&terms.project, &terms.bucket)?;
        put::check_meta(&meta)?;
        put::check_size(&bucket, path, size)?;
        put::check_declared(&bucket, media_type::kept(&content_type, path.name()))?;
        check_label(&label)?;
        let owner = told_owner(owner)?;
        let name = record::name(path, &owner);
        let path_of = path.as_str().to_owned();
        let (is_partial, joined_of) = (partial, Vec::new());
        let record = Record { path: path_of, size, content_type, meta, owner, label, in_parts, is_partial, joined_of };
        bucket.hold_upload(&name, path, || Some(size)).await?;
        let held = HeldUpload { bucket: &bucket, name: &name };
        bucket.begin_upload(&name, true);
        bucket.backend()?.begin_upload(&name, &record).await?;
        held.keep();
        let expires_ms = record::expires_ms(clock::unix_ms(std::time::SystemTime::now()));
        Ok(BeginUploadResponse { id: self.ids.seal(&terms.project, &terms.bucket, &name), expires_ms })
    }

    /// What is known of an upload.
    pub async fn find(&self, request: FindUploadRequest) -> Result<FindUploadResponse, Error> {
        let UploadId { bucket, name } = self.ids.open(&request.project, &request.id)?;
        let found = self.buckets.find(&request.project, &bucket)?.backend()?.find_upload(&name).await?;
        Ok(found.into_wire(bucket))
    }

    /// Goes on with an upload.
    pub async fn append(
        &self,
        grant: Option<SignedGrant>,
        resumption: Resumption,
        messages: Streaming<PutRequest>,
    ) -> Result<PutResponse, PutError> {
        Box::pin(append::append(self, (grant, resumption), messages)).await
    }

    /// Takes in a part of an upload.
    pub async fn put_part(
        &self,
        grant: Option<SignedGrant>,
        part: UploadPart,
        messages: Streaming<PutRequest>,
    ) -> Result<PutResponse, PutError> {
        Box::pin(parts::put(self, (grant, part), messages)).await
    }

    /// The parts that have come of an upload.
    pub async fn list_parts(&self, request: ListPartsRequest) -> Result<ListPartsResponse, Error> {
        parts::list(self, request).await
    }

    /// Joins uploads that are parts of a file, and publishes it.
    pub async fn concat(&self, request: ConcatUploadsRequest) -> Result<ConcatUploadsResponse, Error> {
        Box::pin(concat::concat(self, request)).await
    }

    /// A page of the uploads in parts of one creator.
    pub async fn list(&self, request: ListUploadsRequest) -> Result<ListUploadsResponse, Error> {
        listing::list(self, request).await
    }

    /// Joins parts of an upload, and publishes the file.
    pub async fn join_parts(&self, request: JoinPartsRequest) -> Result<JoinPartsResponse, Error> {
        Box::pin(parts::join(self, request)).await
    }

    /// Removes an upload.
    pub async fn remove(&self, request: DropUploadRequest) -> Result<(), Error> {
        let terms = put::terms(&self.verifier, request.grant, FileOperation::Create)?;
        let UploadId { bucket: of, name } = self.ids.open(&terms.project, &request.id)?;
        let bucket = self.buckets.find(&terms.project, &of)?;
        let found = bucket.backend()?.find_upload(&name).await?;
        if of != terms.bucket || found.record.path != named_path(&terms)?.as_str() {
            return Err(Error::WrongGrant("it is for another file"));
        }
        // A stream that still goes on ends.
        let _turn = self.takeovers.begin(&name);
        bucket.backend()?.drop_upload(&name).await?;
        self.part_sizes.forget(&name);
        bucket.shrink_upload(&name, || None);
        Ok(())
    }
}

/// Room that is held for an upload that begins; given back when dropped, unless the upload has begun.
struct HeldUpload<'a> {
    bucket: &'a Bucket,
    name: &'a str,
}

impl HeldUpload<'_> {
    fn keep(self) {
        self.bucket.begin_upload(self.name, false);
        std::mem::forget(self);
    }
}

impl Drop for HeldUpload<'_> {
    fn drop(&mut self) {
        self.bucket.shrink_upload(self.name, || None);
    }
}

/// Refuses what its creator is told again that is too long.
fn check_label(label: &str) -> Result<(), Error> {
    let (limit, found) = (record::LABEL_BYTES, label.len());
    match found > limit {
        true => Err(Error::Malformed(format!("the metadata is over the limit of {limit} bytes: it has {found}"))),
        false => Ok(()),
    }
}

/// A creator, in hex; empty: whoever has the id.
fn told_owner(owner: Vec<u8>) -> Result<String, Error> {
    match <[u8; 32]>::try_from(owner) {
        Ok(owner) => Ok(blake3::Hash::from_bytes(owner).to_hex().to_string()),
        Err(owner) if owner.is_empty() => Ok(String::new()),
        Err(_) => Err(Error::Malformed("invalid owner: expected 32 bytes".to_owned())),
    }
}

/// The path of terms that may be provisional.
fn named_path(terms: &FileTerms) -> Result<&FilePath, Error> {
    terms.path.as_ref().ok_or(Error::WrongGrant("it is for no path"))
}
