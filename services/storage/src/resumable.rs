//! Resumable uploads: files that come in several streams, with failures of clients and nodes between them.
//!
//! What has come is kept in the bucket itself, so that any node goes on with it. The file is there once all of it has
//! come, as a whole.

mod append;
mod checksum;
mod ids;
mod takeover;

use mesh::{clock, telemetry::Counter};
use proto::{
    auth::SignedGrant,
    grant::Verifier,
    storage::{
        BeginUploadRequest, BeginUploadResponse, DropUploadRequest, FindUploadRequest, FindUploadResponse, PutRequest,
        PutResponse, Resumption,
    },
};
use query::{file::FileOperation, media_type};
use tonic::Streaming;

use self::{
    ids::{UploadId, UploadIds},
    takeover::Takeovers,
};
use crate::{
    Error,
    buckets::Buckets,
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
    taken_bytes: Counter,
}

impl Uploads {
    /// Uploads into `buckets`, whose ids are sealed with keys derived from `secret`. Bytes that come are counted.
    pub fn new(buckets: Buckets, verifier: Verifier, secret: &[u8], taken_bytes: Counter) -> Self {
        Self { buckets, verifier, ids: UploadIds::new(secret), takeovers: Takeovers::default(), taken_bytes }
    }

    /// Begins an upload.
    pub async fn begin(&self, request: BeginUploadRequest) -> Result<BeginUploadResponse, Error> {
        let BeginUploadRequest { grant, content_type, meta, owner, label } = request;
        let terms = put::terms(&self.verifier, grant, FileOperation::Create)?;
        let path = final_path(&terms)?;
        let size = terms.size.ok_or(Error::WrongGrant("it is for no size"))?;
        if path.is_root() {
            return Err(Error::IsFolder(path.to_string()));
        }
        let bucket = self.buckets.find(&terms.project, &terms.bucket)?;
        put::check_meta(&meta)?;
        put::check_size(&bucket, size)?;
        put::check_declared(&bucket, media_type::kept(&content_type, path.name()))?;
        if label.len() > record::LABEL_BYTES {
            let (limit, found) = (record::LABEL_BYTES, label.len());
            return Err(Error::Malformed(format!("the metadata is over the limit of {limit} bytes: it has {found}")));
        }
        let owner = match <[u8; 32]>::try_from(owner) {
            Ok(owner) => blake3::Hash::from_bytes(owner).to_hex().to_string(),
            Err(owner) if owner.is_empty() => String::new(),
            Err(_) => return Err(Error::Malformed("invalid owner: expected 32 bytes".to_owned())),
        };
        let record = Record { path: path.as_str().to_owned(), size, content_type, meta, owner, label };
        let name = record::name(path);
        bucket.backend()?.begin_upload(&name, &record).await?;
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

    /// Removes an upload.
    pub async fn remove(&self, request: DropUploadRequest) -> Result<(), Error> {
        let terms = put::terms(&self.verifier, request.grant, FileOperation::Create)?;
        let UploadId { bucket: of, name } = self.ids.open(&terms.project, &request.id)?;
        let bucket = self.buckets.find(&terms.project, &of)?;
        let found = bucket.backend()?.find_upload(&name).await?;
        if of != terms.bucket || found.record.path != final_path(&terms)?.as_str() {
            return Err(Error::WrongGrant("it is for another file"));
        }
        // A stream that still goes on ends.
        let _turn = self.takeovers.begin(&name);
        bucket.backend()?.drop_upload(&name).await
    }
}
