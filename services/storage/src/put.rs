//! Files that come as a stream of messages.

use bytes::Bytes;
use mesh::{Fault, clock};
use proto::{
    auth::SignedGrant,
    grant::Verifier,
    storage::{PutBegin, PutFinish, PutRequest, put_request::Part},
};
use query::{
    file::{FileOperation, FilePath, FileTerms},
    media_type,
};
use tonic::Streaming;

use crate::{
    Error,
    backend::Upload,
    buckets::{Bucket, Buckets},
    content_type::{self, SNIFFED_BYTES},
    object::{Publication, Published},
};

/// Most bytes of the user's metadata: as many as stores of clouds take.
pub const META_BYTES: usize = 2048;

/// The terms of a grant for `operation` that is not void.
pub fn terms(verifier: &Verifier, grant: Option<SignedGrant>, operation: FileOperation) -> Result<FileTerms, Error> {
    let grant = grant.ok_or(Error::WrongGrant("there is none"))?;
    let terms = verifier.file_terms(grant)?;
    if terms.operation != operation {
        return Err(Error::WrongGrant("it is for another operation"));
    }
    if clock::unix_ms(std::time::SystemTime::now()) >= terms.expires_ms {
        return Err(Error::WrongGrant("it is void"));
    }
    Ok(terms)
}

/// The path of terms that are not provisional.
pub fn final_path(terms: &FileTerms) -> Result<&FilePath, Error> {
    match &terms.path {
        Some(path) if !terms.is_provisional => Ok(path),
        Some(_) | None => Err(Error::WrongGrant("it is provisional")),
    }
}

/// The beginning of a stream that brings a file.
pub async fn beginning(messages: &mut Streaming<PutRequest>) -> Result<PutBegin, PutError> {
    match messages.message().await?.and_then(|message| message.part) {
        Some(Part::Begin(begin)) => Ok(begin),
        _ => Err(Error::Malformed("an upload must start with its beginning".to_owned()).into()),
    }
}

/// Takes in the file of a stream, and publishes it. Dropped, or where the stream ends early, nothing is left.
pub async fn put(
    (buckets, verifier): (&Buckets, &Verifier),
    begin: PutBegin,
    mut messages: Streaming<PutRequest>,
) -> Result<Published, PutError> {
    let terms = terms(verifier, begin.grant.clone(), FileOperation::Create)?;
    let bucket = buckets.find(&terms.project, &terms.bucket)?;
    let mut incoming = Box::pin(Incoming::begin(&bucket, terms, begin)).await?;
    let finish = loop {
        let message = tokio::select! {
            message = messages.message() => message?,
            () = incoming.upload.is_in_the_way() => return Err(Error::Overloaded.into()),
        };
        match message.and_then(|message| message.part) {
            Some(Part::Data(data)) => incoming.take(data).await?,
            Some(Part::Finish(finish)) => break finish,
            Some(Part::Begin(_)) => return Err(Error::Malformed("an upload has one beginning".to_owned()).into()),
            None => return Err(Error::BrokenOff.into()),
        }
    };
    Ok(Box::pin(incoming.finish(verifier, finish)).await?)
}

/// Error of a stream, or of the file in it.
pub enum PutError {
    /// Of the stream.
    Stream(tonic::Status),
    /// Of the file.
    File(Error),
}

impl From<tonic::Status> for PutError {
    fn from(status: tonic::Status) -> Self {
        PutError::Stream(status)
    }
}

impl From<Error> for PutError {
    fn from(error: Error) -> Self {
        PutError::File(error)
    }
}

impl From<PutError> for tonic::Status {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Stream(status) => status,
            PutError::File(error) => Fault::from(error).into(),
        }
    }
}

/// A file that is coming in. Dropped, it leaves nothing.
pub struct Incoming<'a> {
    bucket: &'a Bucket,
    terms: FileTerms,
    /// Its path, as far as it is known.
    at: FilePath,
    upload: Upload,
    /// As declared; empty: by the name.
    content_type: String,
    meta: String,
    /// Its first bytes, until there are enough to tell its type.
    beginning: Vec<u8>,
    size: u64,
    /// The unfinished uploads that are joined in it.
    uploads: Vec<String>,
    /// Whether it is joined of the parts of one of them, which ends with it.
    is_of_parts: bool,
}

impl<'a> Incoming<'a> {
    /// Begins to take in a file.
    pub async fn begin(bucket: &'a Bucket, terms: FileTerms, begin: PutBegin) -> Result<Self, Error> {
        Self::begin_of(bucket, terms, begin, Vec::new()).await
    }

    /// Begins to take in a file that is joined of the unfinished `uploads`.
    pub async fn begin_of(
        bucket: &'a Bucket,
        terms: FileTerms,
        begin: PutBegin,
        uploads: Vec<String>,
    ) -> Result<Self, Error> {
        let PutBegin { content_type, meta, .. } = begin;
        check_meta(&meta)?;
        let at = terms.path.clone().unwrap_or_default();
        check_size(bucket, &at, terms.size.unwrap_or_default())?;
        if !content_type.is_empty() {
            check_declared(bucket, &content_type)?;
        }
        let path = terms.path.as_ref();
        if let (Some(path), Some(size)) = (path, terms.size) {
            bucket.check_room(path, size, &uploads).await?;
        }
        let kept = media_type::kept(&content_type, path.map_or("", FilePath::name));
        let upload = bucket.backend()?.begin(path, kept, &meta).await?;
        Ok(Self {
            bucket,
            terms,
            at,
            upload,
            content_type,
            meta,
            beginning: Vec::new(),
            size: 0,
            uploads,
            is_of_parts: false,
        })
    }

    /// The file is joined of the parts of an upload, which ends with it.
    pub fn of_parts(self) -> Self {
        Self { is_of_parts: true, ..self }
    }

    /// Takes in more bytes.
    pub async fn take(&mut self, data: Bytes) -> Result<(), Error> {
        self.size += data.len() as u64;
        check_size(self.bucket, &self.at, self.size)?;
        if self.terms.size.is_some_and(|size| self.size > size) {
            return Err(Error::Malformed("the file has more bytes than were announced".to_owned()));
        }
        if self.beginning.len() < SNIFFED_BYTES && !self.bucket.spec.limits.types.is_empty() {
            let wanted = SNIFFED_BYTES - self.beginning.len();
            self.beginning.extend_from_slice(&data[..wanted.min(data.len())]);
        }
        self.upload.write(data).await
    }

    /// Publishes the file.
    pub async fn finish(self, verifier: &Verifier, finish: PutFinish) -> Result<Published, Error> {
        let PutFinish { grant, meta, precondition, needs_parent } = finish;
        let begun = self.terms;
        let last = match grant {
            None => begun,
            Some(grant) => {
                let last = terms(verifier, Some(grant), FileOperation::Create)?;
                let is_same = (&last.project, &last.bucket) == (&begun.project, &begun.bucket)
                    && begun.path.as_ref().is_none_or(|path| last.path.as_ref() == Some(path));
                if !is_same {
                    return Err(Error::WrongGrant("it is for another file"));
                }
                last
            }
        };
        let path = final_path(&last)?.clone();
        if last.size != Some(self.size) {
            return Err(Error::BrokenOff);
        }
        if path.is_root() {
            return Err(Error::IsFolder(path.to_string()));
        }
        let meta = if meta.is_empty() { self.meta } else { meta };
        check_meta(&meta)?;
        let content_type = media_type::kept(&self.content_type, path.name()).to_owned();
        content_type::check(&self.bucket.spec.limits.types, &content_type, &self.beginning)?;
        let publication = Publication { path, content_type, meta, precondition, needs_parent };
        match (self.is_of_parts, self.uploads.first().cloned()) {
            (true, Some(name)) => self.bucket.publish_parts(self.upload, publication, (name, self.size)).await,
            _ => self.bucket.publish(self.upload, publication, self.size, self.uploads).await,
        }
    }
}

/// Refuses a file at `path` that is over the limit of its bucket, or over a quota.
pub fn check_size(bucket: &Bucket, path: &FilePath, size: u64) -> Result<(), Error> {
    match bucket.size_limit(path) {
        Some(limit) if size > limit => Err(Error::TooLarge(limit)),
        Some(_) | None => Ok(()),
    }
}

/// Refuses a type before any byte is taken in.
pub fn check_declared(bucket: &Bucket, content_type: &str) -> Result<(), Error> {
    content_type::check_declared(&bucket.spec.limits.types, content_type)
}

/// Refuses metadata that is too large.
pub fn check_meta(meta: &str) -> Result<(), Error> {
    match meta.len() > META_BYTES {
        true => Err(Error::Malformed(format!(
            "the metadata is over the limit of {META_BYTES} bytes: it has {}",
            meta.len()
        ))),
        false => Ok(()),
    }
}
