//! Uploads in parts, which come at once and in any order, and are joined when all have come.

use futures::TryStreamExt;
use proto::{
    auth::SignedGrant,
    storage::{
        JoinPartsRequest, JoinPartsResponse, JoinedPart, ListPartsRequest, ListPartsResponse, PutBegin, PutFinish,
        PutRequest, PutResponse, StoredPart, UploadPart, put_request::Part,
    },
};
use query::file::{FileOperation, FilePath, FileTerms, PAGE_MAX};
use tonic::Streaming;

use super::{Uploads, ids::UploadId, named_path, sizes::ComingPart};
use crate::{
    Error,
    buckets::Bucket,
    object::{Entry, Publication},
    put::{self, Incoming, PutError},
    read::Parts,
    record::{Found, PARTS_MAX},
};

/// Media type of a part.
const BYTES: &str = "application/octet-stream";

/// An upload in parts, for which there is a grant.
struct OpenUpload {
    bucket: std::sync::Arc<Bucket>,
    name: String,
    terms: FileTerms,
    found: Found,
}

impl OpenUpload {
    async fn of(uploads: &Uploads, grant: Option<SignedGrant>, id: &str) -> Result<Self, Error> {
        let terms = put::terms(&uploads.verifier, grant, FileOperation::Create)?;
        let UploadId { bucket, name } = uploads.ids.open(&terms.project, id)?;
        let bucket = uploads.buckets.find(&terms.project, &bucket)?;
        let found = bucket.backend()?.find_upload(&name).await?;
        if !found.record.in_parts {
            return Err(Error::NoUpload);
        }
        if terms.bucket != bucket.id() || named_path(&terms)?.as_str() != found.record.path {
            return Err(Error::WrongGrant("it is for another file"));
        }
        Ok(Self { bucket, name, terms, found })
    }
}

/// Takes in a part, which counts once it is whole.
pub async fn put(
    uploads: &Uploads,
    (grant, UploadPart { id, number }): (Option<SignedGrant>, UploadPart),
    mut messages: Streaming<PutRequest>,
) -> Result<PutResponse, PutError> {
    if !(1..=PARTS_MAX).contains(&number) {
        let message = format!("invalid number of a part: expected 1 to {PARTS_MAX}, found {number}");
        return Err(Error::Malformed(message).into());
    }
    let OpenUpload { bucket, name, found, .. } = OpenUpload::of(uploads, grant, &id).await?;
    if found.is_published {
        return Err(Error::NoUpload.into());
    }
    let backend = bucket.backend()?;
    let file = FilePath::from_key(&found.record.path).map_err(Error::from)?;
    let mut coming = match bucket.size_limit(&file).is_some() || bucket.has_quota() {
        true => {
            let part = uploads.part_sizes.begin(backend, &name, number).await?;
            Some(CountedPart { bucket: &bucket, name: &name, file: &file, part: Some(part) })
        }
        false => None,
    };
    let path = backend.part_path(&name, number);
    let mut upload = backend.begin(Some(&path), BYTES, "").await?;
    loop {
        let message = tokio::select! {
            message = messages.message() => message?,
            () = upload.is_in_the_way() => return Err(Error::Overloaded.into()),
        };
        match message.and_then(|message| message.part) {
            Some(Part::Data(data)) => {
                if let Some(coming) = &coming {
                    coming.grow(data.len() as u64).await?;
                }
                uploads.taken_bytes.inc_by(data.len() as u64);
                upload.write(data).await?;
            }
            Some(Part::Finish(_)) => break,
            Some(Part::Begin(_)) => return Err(Error::Malformed("an upload has one beginning".to_owned()).into()),
            None => return Err(Error::BrokenOff.into()),
        }
    }
    let publication = Publication {
        path,
        content_type: BYTES.to_owned(),
        meta: String::new(),
        precondition: None,
        needs_parent: false,
    };
    let published = Box::pin(upload.publish(publication)).await?;
    backend.touch_upload(&name).await?;
    if let Some(coming) = &mut coming {
        coming.stored();
    }
    Ok(PutResponse { entry: Some(published.file.into()), created: published.created, ..PutResponse::default() })
}

/// A part that counts against the limits of its bucket as it comes. Dropped, it counts no longer, unless it is stored.
struct CountedPart<'a> {
    bucket: &'a Bucket,
    /// Of the upload.
    name: &'a str,
    file: &'a FilePath,
    part: Option<ComingPart>,
}

impl CountedPart<'_> {
    async fn grow(&self, bytes: u64) -> Result<(), Error> {
        let Some(part) = &self.part else { return Ok(()) };
        put::check_size(self.bucket, self.file, part.grow(bytes))?;
        self.bucket.hold_upload(self.name, self.file, || part.total()).await
    }

    fn stored(&mut self) {
        if let Some(part) = &mut self.part {
            part.stored();
        }
    }
}

impl Drop for CountedPart<'_> {
    fn drop(&mut self) {
        let Some(ended) = self.part.take().map(ComingPart::end) else { return };
        self.bucket.shrink_upload(self.name, || ended.total().or(Some(0)));
    }
}

/// A page of the parts that have come.
pub async fn list(uploads: &Uploads, request: ListPartsRequest) -> Result<ListPartsResponse, Error> {
    let ListPartsRequest { grant, id, after, limit } = request;
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Error::Malformed(format!("invalid limit: expected 1 to {PAGE_MAX}, found {limit}")));
    }
    let OpenUpload { bucket, name, .. } = OpenUpload::of(uploads, grant, &id).await?;
    let stored = bucket.backend()?.parts(&name).await?;
    let mut stored = stored.into_iter().filter(|part| part.number > after);
    let parts = stored.by_ref().take(limit as usize).map(|part| StoredPart {
        number: part.number,
        size: part.size,
        etag: part.etag,
        modified_ms: part.modified_ms,
    });
    let parts = parts.collect();
    Ok(ListPartsResponse { parts, more: stored.next().is_some() })
}

/// Joins parts, and publishes the file. Where it was published before, a provisional grant is enough for its answer.
pub async fn join(uploads: &Uploads, request: JoinPartsRequest) -> Result<JoinPartsResponse, Error> {
    let JoinPartsRequest { grant, id, parts, precondition } = request;
    let OpenUpload { bucket, name, terms, found } = OpenUpload::of(uploads, grant, &id).await?;
    let backend = bucket.backend()?;
    if found.is_published {
        // Who did not see the answer comes again.
        return match backend.info(named_path(&terms)?).await? {
            Entry::File(file) => Ok(JoinPartsResponse { entry: Some(file.into()), created: false }),
            Entry::Folder { .. } => Err(Error::NoUpload),
        };
    }
    let (content_type, meta) = (found.record.content_type, found.record.meta);
    let begin = PutBegin { content_type, meta, ..PutBegin::default() };
    let incoming = Box::pin(Incoming::begin_of(&bucket, terms, begin, vec![name.clone()])).await?;
    let mut incoming = incoming.of_parts();
    let turn = uploads.takeovers.begin(&name);
    let joined = async {
        for part in parts {
            join_one(&bucket, &name, part, &mut incoming).await?;
        }
        Ok::<_, Error>(())
    };
    tokio::select! {
        joined = joined => joined?,
        () = turn.taken_over.cancelled() => return Err(Error::TakenOver),
    }
    let finish = PutFinish { precondition, ..PutFinish::default() };
    // Parts that still come are of no use.
    uploads.part_sizes.forget(&name);
    let published = Box::pin(incoming.finish(&uploads.verifier, finish)).await?;
    Ok(JoinPartsResponse { entry: Some(published.file.into()), created: published.created })
}

async fn join_one(
    bucket: &Bucket,
    name: &str,
    JoinedPart { number, etag }: JoinedPart,
    incoming: &mut Incoming<'_>,
) -> Result<(), Error> {
    let backend = bucket.backend()?;
    let (file, reader) = match backend.read(&backend.part_path(name, number)).await {
        // Another request has joined them, or removed the upload.
        Err(Error::NotFound) => return Err(Error::TakenOver),
        read => read?,
    };
    if file.etag != etag {
        return Err(Error::Precondition);
    }
    let mut pieces = reader.parts(Parts::Whole);
    while let Some(piece) = pieces.try_next().await? {
        incoming.take(piece).await?;
    }
    Ok(())
}
