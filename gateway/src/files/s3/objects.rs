//! Operations on objects.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, header};
use mesh::{Code, Fault};
use percent_encoding::percent_decode_str;
use proto::storage::{ByteRange, Description, Entry};
use query::file::FilePath;
use s3s::{
    S3Request, S3Response,
    dto::{
        CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, DeleteObjectInput, DeleteObjectOutput,
        DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error as DeleteError, GetObjectInput, GetObjectOutput,
        HeadObjectInput, HeadObjectOutput, MetadataDirective, PutObjectInput, PutObjectOutput, Range, StreamingBlob,
    },
};

use super::{
    description::{conditional_entry, etag, metadata, moment, precondition, written},
    fault::{ETAG, error_of, invalid, not_implemented, with_code},
};
use crate::{
    error,
    files::{
        CopyKind, FileParts, FileTarget, NewFile, ProjectFiles, Streamed, Transfer,
        conditional::{self, ConditionOutcome},
        disposition,
        download::{self, NOSNIFF, SANDBOX},
        list, remove, transfer, write,
    },
};

/// Most keys of one deletion. Source: Amazon S3 API reference, DeleteObjects.
const KEYS_MAX: usize = 1000;

/// The bucket `id` of the project.
pub fn bucket(files: &ProjectFiles, id: &str) -> Result<FileTarget, Fault> {
    let found = files.project.buckets.iter().find(|bucket| bucket.id == id);
    let bucket = found.ok_or_else(|| Fault::new(Code::UnknownBucket, format!("bucket {id} is not known")))?;
    Ok(FileTarget { bucket: bucket.clone(), path: FilePath::default() })
}

/// The file that a key of a bucket names. Errors: no key may be so.
pub fn target(files: &ProjectFiles, id: &str, key: &str) -> Result<FileTarget, Fault> {
    let target = bucket(files, id)?;
    let path = FilePath::from_key(key).map_err(Fault::from)?;
    if path.is_root() {
        return Err(error::bad_request("invalid key: must not be empty"));
    }
    Ok(FileTarget { path, ..target })
}

/// As [`target`], of a key that names a file that is there: none ends with a slash.
fn existing(files: &ProjectFiles, id: &str, key: &str) -> Result<FileTarget, Fault> {
    match key.ends_with('/') {
        true => {
            bucket(files, id)?;
            Err(Fault::new(Code::NotFound, "file not found"))
        }
        false => target(files, id, key),
    }
}

/// Refuses a version: there are none.
fn check_version(version: Option<&String>) -> Result<(), Fault> {
    match version.is_none_or(|version| version == "null") {
        true => Ok(()),
        false => Err(with_code("NoSuchVersion", Fault::new(Code::NotFound, "files have no versions"))),
    }
}

/// The bytes of a request as a body.
pub fn body_of(blob: Option<StreamingBlob>) -> Body {
    blob.map_or_else(Body::empty, Body::from_stream)
}

/// `PutObject`
pub async fn put(files: &ProjectFiles, request: S3Request<PutObjectInput>) -> Result<PutObjectOutput, Fault> {
    let S3Request { input, headers, uri, .. } = request;
    check_no_part(uri.query().unwrap_or_default())?;
    if input.write_offset_bytes.is_some() {
        return Err(not_implemented("x-amz-write-offset-bytes"));
    }
    let target = target(files, &input.bucket, &input.key)?;
    let (content_type, meta) = written(&headers, input.content_type.as_deref(), input.metadata.as_ref())?;
    let size = input.content_length.and_then(|size| u64::try_from(size).ok());
    let file = NewFile { target, content_type, meta, precondition: precondition(&headers)?, size };
    let stored = Box::pin(write(files, file, &mut body_of(input.body))).await?;
    let entry = stored.entry.unwrap_or_default();
    Ok(PutObjectOutput { e_tag: Some(etag(&entry.etag)), ..PutObjectOutput::default() })
}

/// Refuses a part whose upload is not named, or an upload without a part: it would be written as the whole file.
fn check_no_part(query: &str) -> Result<(), Fault> {
    let names = query.split('&').filter_map(|parameter| parameter.split('=').next());
    for (found, missing) in [("partNumber", "uploadId"), ("uploadId", "partNumber")] {
        if names.clone().any(|name| percent_decode_str(name).eq(found.bytes())) {
            return Err(invalid("InvalidArgument", format!("invalid {found}: expected {missing} beside it")));
        }
    }
    Ok(())
}

/// Errors: a condition of a request to read a file says that it is not wanted.
fn check_conditions(headers: &HeaderMap, entry: &Entry) -> Result<(), Fault> {
    match conditional::evaluate(headers, &conditional_entry(entry))? {
        ConditionOutcome::Go => Ok(()),
        ConditionOutcome::NotModified => {
            let etag = etag(&entry.etag);
            Err(invalid("NotModified", "the file was not modified").with(ETAG, format!("\"{}\"", etag.value())))
        }
        ConditionOutcome::Failed => {
            Err(Fault::new(Code::Precondition, "the file is not as the condition of the request says"))
        }
    }
}

/// The bytes that a range asks for.
fn byte_range(range: &Range) -> ByteRange {
    match range {
        Range::Int { first, last } => ByteRange { first: Some(*first), last: *last },
        Range::Suffix { length } => ByteRange { first: None, last: Some(*length) },
    }
}

/// `GetObject`
pub async fn get(
    files: &ProjectFiles,
    request: S3Request<GetObjectInput>,
) -> Result<S3Response<GetObjectOutput>, Fault> {
    let S3Request { input, headers, .. } = request;
    check_version(input.version_id.as_ref())?;
    if input.part_number.is_some() {
        return Err(not_implemented("partNumber of a file"));
    }
    let target = existing(files, &input.bucket, &input.key)?;
    let ranges = input.range.iter().map(byte_range).collect();
    let parts = FileParts { ranges, ..FileParts::default() };
    let file = match Box::pin(download::open(files, &target, parts)).await {
        Err(fault) => return Err(missing_folder(fault)),
        file => file?,
    };
    check_conditions(&headers, &file.entry)?;
    if let Some(fault) = file.unsatisfiable() {
        return Err(fault);
    }
    let entry = file.entry.clone();
    let (size, content_range) = match file.head.parts.as_slice() {
        [part] => {
            let last = part.start + part.size - 1;
            (part.size, Some(format!("bytes {}-{last}/{}", part.start, entry.size)))
        }
        _ => (entry.size, None),
    };
    let data = download::paced(&files.service, file.data()).map_err(std::io::Error::other);
    let body = s3s::Body::http_body_unsync(Body::from_stream(data));
    let is_part = content_range.is_some();
    let output = GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(StreamingBlob::from(body)),
        cache_control: target.bucket.spec.cache_control.clone(),
        content_disposition: saved_as(&target, &entry.content_type, &input)?,
        content_length: i64::try_from(size).ok(),
        content_range,
        content_type: Some(entry.content_type.clone()),
        e_tag: Some(etag(&entry.etag)),
        last_modified: moment(entry.modified_ms),
        metadata: metadata(&entry),
        ..GetObjectOutput::default()
    };
    let mut response = S3Response::new(output);
    response.status = is_part.then_some(http::StatusCode::PARTIAL_CONTENT);
    response.extensions.insert(Streamed { size });
    response.headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response.headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
    Ok(response)
}

/// The disposition of a file that browsers must not show. Errors: the address asks for one that they would.
fn saved_as(target: &FileTarget, content_type: &str, input: &GetObjectInput) -> Result<Option<String>, Fault> {
    let told = input.response_content_type.as_deref().unwrap_or(content_type);
    if target.bucket.spec.inline || !disposition::is_active(told) {
        return Ok(None);
    }
    let is_shown = |disposition: &str| {
        let kind = disposition.split(';').next().unwrap_or_default();
        !kind.trim().eq_ignore_ascii_case("attachment")
    };
    if input.response_content_disposition.as_deref().is_some_and(is_shown) {
        let message = format!("invalid response-content-disposition: files of the type {told} are attachments");
        return Err(invalid("InvalidArgument", message));
    }
    Ok(disposition::attachment(target.path.name()).to_str().ok().map(str::to_owned))
}

/// A folder is no object.
fn missing_folder(fault: Fault) -> Fault {
    match fault.code == Code::BadRequest && fault.message.ends_with(" is a folder") {
        true => Fault::new(Code::NotFound, "file not found"),
        false => fault,
    }
}

/// The first and the last byte of a file of `size` bytes that a range asks for. Errors: none is in the file.
fn bytes_of(range: &Range, size: u64) -> Result<(u64, u64), Fault> {
    let (first, end) = match range {
        Range::Int { first, last } => (*first, last.map_or(size, |last| last.saturating_add(1).min(size))),
        Range::Suffix { length } => (size.saturating_sub(*length), size),
    };
    match first < end {
        true => Ok((first, end - 1)),
        false => Err(Fault::new(Code::Range, format!("no range is in the file of {size} bytes"))),
    }
}

/// `HeadObject`
pub async fn head(files: &ProjectFiles, request: S3Request<HeadObjectInput>) -> Result<HeadObjectOutput, Fault> {
    let S3Request { input, headers, .. } = request;
    check_version(input.version_id.as_ref())?;
    if input.part_number.is_some() {
        return Err(not_implemented("partNumber of a file"));
    }
    let target = existing(files, &input.bucket, &input.key)?;
    let entry = list::info(files, &target).await?;
    if entry.is_folder {
        return Err(Fault::new(Code::NotFound, "file not found"));
    }
    check_conditions(&headers, &entry)?;
    let part = input.range.as_ref().map(|range| bytes_of(range, entry.size)).transpose()?;
    let size = part.map_or(entry.size, |(first, last)| last - first + 1);
    Ok(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: target.bucket.spec.cache_control.clone(),
        content_length: i64::try_from(size).ok(),
        content_range: part.map(|(first, last)| format!("bytes {first}-{last}/{}", entry.size)),
        metadata: metadata(&entry),
        e_tag: Some(etag(&entry.etag)),
        last_modified: moment(entry.modified_ms),
        content_type: Some(entry.content_type),
        ..HeadObjectOutput::default()
    })
}

/// `DeleteObject`
pub async fn delete(files: &ProjectFiles, request: S3Request<DeleteObjectInput>) -> Result<DeleteObjectOutput, Fault> {
    let S3Request { input, headers, .. } = request;
    check_version(input.version_id.as_ref())?;
    delete_key(files, (&input.bucket, &input.key), &headers).await?;
    Ok(DeleteObjectOutput::default())
}

/// Deletes a file; one that is not there is deleted already.
async fn delete_key(files: &ProjectFiles, (id, key): (&str, &str), headers: &HeaderMap) -> Result<(), Fault> {
    let deleted = match existing(files, id, key) {
        Ok(target) => remove(files, &target, false, precondition(headers)?).await,
        Err(fault) => Err(fault),
    };
    match deleted {
        Err(fault) if fault.code == Code::NotFound => Ok(()),
        // A folder is no object.
        Err(fault) if fault.code == Code::BadRequest && fault.message == "cannot delete the folder" => Ok(()),
        deleted => deleted,
    }
}

/// `DeleteObjects`
pub async fn delete_many(
    files: &ProjectFiles,
    request: S3Request<DeleteObjectsInput>,
) -> Result<DeleteObjectsOutput, Fault> {
    let DeleteObjectsInput { bucket: id, delete, .. } = request.input;
    bucket(files, &id)?;
    if delete.objects.is_empty() || delete.objects.len() > KEYS_MAX {
        let message = format!("invalid keys: expected 1 to {KEYS_MAX}, found {}", delete.objects.len());
        return Err(invalid("MalformedXML", message));
    }
    let is_quiet = delete.quiet.unwrap_or_default();
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in delete.objects {
        let done = match check_version(object.version_id.as_ref()) {
            Ok(()) if object.e_tag.is_some() || object.size.is_some() || object.last_modified_time.is_some() => {
                Err(not_implemented("a condition of one of many deletions"))
            }
            Ok(()) => delete_key(files, (&id, &object.key), &HeaderMap::new()).await,
            Err(fault) => Err(fault),
        };
        match done {
            Ok(()) if is_quiet => {}
            Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() }),
            Err(fault) => {
                let error = error_of(fault);
                errors.push(DeleteError {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(object.key),
                    version_id: None,
                });
            }
        }
    }
    Ok(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..DeleteObjectsOutput::default() })
}

/// The file that a header names as the source of a copy.
pub fn source(files: &ProjectFiles, source: &CopySource) -> Result<FileTarget, Fault> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            check_version(version_id.as_deref().map(str::to_owned).as_ref())?;
            existing(files, bucket, key)
        }
        _ => Err(not_implemented("an access point")),
    }
}

/// What headers of conditions of the source of a copy begin with, before the names of those of a request.
const SOURCE_CONDITION: &str = "x-amz-copy-source-";

/// The conditions of the source of a copy, as if it were read.
pub fn source_conditions(headers: &HeaderMap) -> HeaderMap {
    let conditions = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(SOURCE_CONDITION).filter(|name| name.starts_with("if-"))?;
        Some((HeaderName::try_from(name).ok()?, value.clone()))
    });
    conditions.collect()
}

/// Errors: the source of a copy is not as its conditions say.
fn check_source(conditions: &HeaderMap, entry: &Entry) -> Result<(), Fault> {
    match conditional::evaluate(conditions, &conditional_entry(entry))? {
        ConditionOutcome::Go => Ok(()),
        ConditionOutcome::NotModified | ConditionOutcome::Failed => {
            Err(Fault::new(Code::Precondition, "the source is not as the condition of the request says"))
        }
    }
}

/// `CopyObject`
pub async fn copy(files: &ProjectFiles, request: S3Request<CopyObjectInput>) -> Result<CopyObjectOutput, Fault> {
    let S3Request { input, headers, uri, .. } = request;
    check_no_part(uri.query().unwrap_or_default())?;
    let (from, target) = (source(files, &input.copy_source)?, target(files, &input.bucket, &input.key)?);
    let (content_type, meta) = written(&headers, input.content_type.as_deref(), input.metadata.as_ref())?;
    let is_replaced = input.metadata_directive.as_ref().map(MetadataDirective::as_str) == Some("REPLACE");
    let description = is_replaced.then_some(Description { content_type, meta });
    if !is_replaced && (from.bucket.id == target.bucket.id && from.path == target.path) {
        return Err(invalid("InvalidRequest", "a copy to itself must replace the metadata"));
    }
    let conditions = source_conditions(&headers);
    let mut source_etag = String::new();
    if !conditions.is_empty() {
        let entry = list::info(files, &from).await?;
        check_source(&conditions, &entry)?;
        // What was judged is what is copied.
        source_etag = entry.etag;
    }
    let copied = Transfer::new(&from, &target, CopyKind::Copy, precondition(&headers)?);
    let copied = Transfer { description, source_etag, ..copied };
    let entry = Box::pin(transfer(files, copied)).await.map_err(missing_folder)?.entry.unwrap_or_default();
    let result = CopyObjectResult {
        e_tag: Some(etag(&entry.etag)),
        last_modified: moment(entry.modified_ms),
        ..CopyObjectResult::default()
    };
    Ok(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() })
}

/// The bytes of a part of a file that is read, for a request that writes them.
pub async fn read(
    files: &Arc<ProjectFiles>,
    target: &FileTarget,
    (range, conditions): (Option<ByteRange>, &HeaderMap),
) -> Result<impl futures::Stream<Item = Result<Bytes, Fault>> + Send + 'static + use<>, Fault> {
    let parts = FileParts { ranges: range.into_iter().collect(), ..FileParts::default() };
    let file = Box::pin(download::open(files, target, parts)).await.map_err(missing_folder)?;
    check_source(conditions, &file.entry)?;
    match file.unsatisfiable() {
        Some(fault) => Err(fault),
        None => Ok(file.data()),
    }
}
