//! Files that are put together of several uploads, which may have come at once. Source: TUS 1.0.0, concatenation.

use std::time::SystemTime;

use futures::TryStreamExt;
use mesh::clock;
use proto::storage::{ConcatUploadsRequest, ConcatUploadsResponse, PutBegin, PutFinish};
use query::file::FileOperation;

use super::{Uploads, check_label, ids::UploadId, told_owner};
use crate::{
    Error,
    backend::Backend,
    buckets::Bucket,
    put::{self, Incoming, final_path},
    record::{self, OF_PATH_MAX, Record, expires_ms},
};

/// Joins uploads, and publishes the file. Who asks again, having not seen the answer, is answered alike.
pub async fn concat(uploads: &Uploads, request: ConcatUploadsRequest) -> Result<ConcatUploadsResponse, Error> {
    let ConcatUploadsRequest { grant, content_type, meta, owner, label, ids } = request;
    let terms = put::terms(&uploads.verifier, grant, FileOperation::Create)?;
    let (path, size) = (final_path(&terms)?.clone(), terms.size.ok_or(Error::WrongGrant("it is for no size"))?);
    let bucket = uploads.buckets.find(&terms.project, &terms.bucket)?;
    let backend = bucket.backend()?;
    check_label(&label)?;
    let owner = told_owner(owner)?;
    let names = names(uploads, (&terms.project, bucket.id()), &ids)?;
    let name = record::name_of_joined(&path, &owner, &names);
    let record = Record {
        path: path.as_str().to_owned(),
        size,
        content_type,
        meta,
        owner,
        label,
        in_parts: false,
        is_partial: false,
        joined_of: ids,
    };
    let is_done = match backend.find_upload(&name).await {
        Err(Error::NoUpload) => false,
        found => found?.is_published,
    };
    if !is_done {
        check_parts(backend, &record, &names).await?;
        let begin =
            PutBegin { content_type: record.content_type.clone(), meta: record.meta.clone(), ..PutBegin::default() };
        let mut incoming = Box::pin(Incoming::begin_of(&bucket, terms.clone(), begin, names.clone())).await?;
        for name in &names {
            let (_, mut pieces) = backend.read_upload(name).await?;
            while let Some(piece) = pieces.try_next().await? {
                incoming.take(piece).await?;
            }
        }
        Box::pin(incoming.finish(&uploads.verifier, PutFinish::default())).await?;
        backend.note_published(&name, &record).await?;
    }
    end_parts(uploads, &bucket, &names).await;
    let expires_ms = expires_ms(clock::unix_ms(SystemTime::now()));
    Ok(ConcatUploadsResponse { id: uploads.ids.seal(&terms.project, &terms.bucket, &name), expires_ms })
}

/// The names of the uploads with these ids, all of one bucket.
fn names(uploads: &Uploads, (project, of): (&str, &str), ids: &[String]) -> Result<Vec<String>, Error> {
    if !(1..=OF_PATH_MAX).contains(&ids.len()) {
        return Err(Error::Malformed(format!("invalid uploads: expected 1 to {OF_PATH_MAX}, found {}", ids.len())));
    }
    let mut names: Vec<String> = Vec::with_capacity(ids.len());
    for id in ids {
        let UploadId { bucket, name } = uploads.ids.open(project, id)?;
        if bucket != of {
            return Err(Error::Malformed("the uploads must be in the bucket of the file".to_owned()));
        }
        if names.contains(&name) {
            return Err(Error::Malformed("an upload can be joined once only".to_owned()));
        }
        names.push(name);
    }
    Ok(names)
}

/// Refuses uploads that are no parts of the file of `record`, not complete, or of somebody else.
async fn check_parts(backend: &Backend, record: &Record, names: &[String]) -> Result<(), Error> {
    let mut size = 0_u64;
    for name in names {
        let found = backend.find_upload(name).await?;
        if !found.record.is_partial || found.record.owner != record.owner {
            return Err(Error::NoUpload);
        }
        if found.is_published {
            return Err(Error::Conflict("an upload was joined already".to_owned()));
        }
        if found.offset != found.record.size {
            let (has, of) = (found.offset, found.record.size);
            return Err(Error::Conflict(format!("an upload is not complete: it has {has} of {of} bytes")));
        }
        size = size.saturating_add(found.record.size);
    }
    match size == record.size {
        true => Ok(()),
        false => Err(Error::WrongGrant("it is for another size")),
    }
}

/// Ends the uploads that were joined. Bytes that cannot be removed now are removed when they are void.
async fn end_parts(uploads: &Uploads, bucket: &Bucket, names: &[String]) {
    for name in names {
        // A stream that still goes on ends.
        let _turn = uploads.takeovers.begin(name);
        let Ok(backend) = bucket.backend() else { return };
        // It is remembered for who asks again.
        if let Err(error) = backend.close_upload(name).await {
            tracing::warn!(bucket = bucket.id(), %error, "the bytes of an upload that was joined could not be removed");
        }
        bucket.shrink_upload(name, || None);
    }
}
