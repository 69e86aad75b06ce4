//! Uploads in parts. Source: Amazon S3 API reference, multipart upload.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::HeaderMap;
use mesh::{Code, Fault, seal};
use proto::{
    Links,
    auth::{FileAccess, WireFileOperation},
    storage::{
        BeginUploadRequest, DropUploadRequest, FindUploadRequest, FindUploadResponse, JoinPartsRequest, JoinedPart,
        ListPartsRequest, ListPartsResponse, PutBegin, PutFinish, StoredPart, UploadPart,
    },
};
use query::{
    file::{FileOperation, PAGE_MAX},
    media_type,
};
use s3s::{
    S3Request,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CompletedPart, CopyPartResult, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, ListPartsInput, ListPartsOutput, Part, UploadPartCopyInput, UploadPartCopyOutput,
        UploadPartInput, UploadPartOutput,
    },
};

use super::{
    description::{etag, moment, opaque, precondition, written},
    fault::{error_of, invalid, not_implemented},
    objects::{body_of, read, source, source_conditions, target},
};
use crate::{
    edge::Credential,
    files::{
        FileTarget, ProjectFiles,
        project_files::access,
        upload::{Put, Sending},
    },
};

/// Least bytes of all parts but the last.
const PART_BYTES_MIN: u64 = 5 << 20;
/// Most parts of an upload.
const PARTS_MAX: usize = 10_000;
/// How long a request to join parts waits before its answer begins: what takes longer is answered bit by bit.
const ANSWER_BEGINS: Duration = Duration::from_secs(10);

/// An upload that the caller may go on with.
struct OpenUpload {
    id: String,
    found: FindUploadResponse,
}

impl OpenUpload {
    /// The upload `id` of the file at `target`. Errors: it is of another file, or of another key.
    async fn of(files: &ProjectFiles, target: &FileTarget, id: &str) -> Result<Self, Fault> {
        let request = FindUploadRequest { project: files.project.id.to_string(), id: id.to_owned() };
        let found = files.service.mesh().storage().find_upload(&files.caller.call, request).await?;
        let is_own = found.in_parts
            && found.bucket == target.bucket.id
            && found.path == target.path.as_str()
            && found.owner == owner(files);
        match is_own {
            true => Ok(Self { id: id.to_owned(), found }),
            false => Err(Fault::new(Code::NotFound, "upload not found")),
        }
    }

    /// The access of who writes the file, with its size where that is known.
    fn access(&self, size: Option<u64>) -> FileAccess {
        let FindUploadResponse { bucket, path, content_type, meta, .. } = &self.found;
        let name = path.rsplit('/').next().unwrap_or(path);
        FileAccess {
            bucket: bucket.clone(),
            operation: WireFileOperation::from(FileOperation::Create).into(),
            path: Some(path.clone()),
            size,
            content_type: media_type::kept(content_type, name).to_owned(),
            meta: meta.clone(),
            no_size: false,
        }
    }

    async fn page(&self, files: &ProjectFiles, after: u32, limit: u32) -> Result<ListPartsResponse, Fault> {
        let grant = files.grant(self.access(None)).await?;
        let request = ListPartsRequest { grant, id: self.id.clone(), after, limit };
        Ok(files.service.mesh().storage().list_parts(&files.caller.call, request).await?)
    }

    /// All parts that have come.
    async fn parts(&self, files: &ProjectFiles) -> Result<Vec<StoredPart>, Fault> {
        let mut all: Vec<StoredPart> = Vec::new();
        loop {
            let after = all.last().map_or(0, |part| part.number);
            let ListPartsResponse { parts, more } = self.page(files, after, PAGE_MAX).await?;
            all.extend(parts);
            if !more || all.len() >= PARTS_MAX {
                return Ok(all);
            }
        }
    }
}

/// What tells the access key of a request from others.
pub fn owner(files: &ProjectFiles) -> Vec<u8> {
    let id = match &files.credential {
        Credential::AccessKey(id) => id.as_str(),
        Credential::Token | Credential::Signature(_) => "",
    };
    seal::hash_of(&[files.project.id.as_bytes(), b"s3", id.as_bytes()]).as_bytes().to_vec()
}

/// `CreateMultipartUpload`
pub async fn create(
    files: &ProjectFiles,
    request: S3Request<CreateMultipartUploadInput>,
) -> Result<CreateMultipartUploadOutput, Fault> {
    let S3Request { input, headers, .. } = request;
    let target = target(files, &input.bucket, &input.key)?;
    let (content_type, meta) = written(&headers, input.content_type.as_deref(), input.metadata.as_ref())?;
    let access = FileAccess {
        no_size: false,
        content_type: media_type::kept(&content_type, target.path.name()).to_owned(),
        meta: meta.clone(),
        ..access(&target, FileOperation::Create)
    };
    let grant = files.grant(access).await?;
    let label = String::new();
    let request =
        BeginUploadRequest { grant, content_type, meta, owner: owner(files), label, in_parts: true, partial: false };
    let begun = files.service.mesh().storage().begin_upload(&files.caller.call, request).await?;
    Ok(CreateMultipartUploadOutput {
        abort_date: moment(begun.expires_ms),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(begun.id),
        ..CreateMultipartUploadOutput::default()
    })
}

/// `UploadPart`
pub async fn put(files: &ProjectFiles, input: UploadPartInput) -> Result<UploadPartOutput, Fault> {
    let target = target(files, &input.bucket, &input.key)?;
    let upload = OpenUpload::of(files, &target, &input.upload_id).await?;
    let begin = begin(files, &upload, input.part_number).await?;
    let announced = input.content_length.and_then(|size| u64::try_from(size).ok());
    let mut body = body_of(input.body);
    let send = async |mut sending: Sending| {
        if !sending.begin(begin).await {
            return Ok(());
        }
        let Some(sent) = sending.body(&mut body).await? else { return Ok(()) };
        if let Some(size) = announced.filter(|size| *size != sent) {
            return Err(invalid("IncompleteBody", format!("the part has {sent} bytes, but {size} were announced")));
        }
        sending.finish(PutFinish::default()).await;
        Ok(())
    };
    let stored = Put::new(&files.service).run(&files.caller.call, send).await?;
    let entry = stored.entry.unwrap_or_default();
    Ok(UploadPartOutput { e_tag: Some(etag(&entry.etag)), ..UploadPartOutput::default() })
}

/// The beginning of a part.
async fn begin(files: &ProjectFiles, upload: &OpenUpload, number: i32) -> Result<PutBegin, Fault> {
    let number = u32::try_from(number).ok().filter(|number| (1..=PARTS_MAX).contains(&(*number as usize)));
    let number =
        number.ok_or_else(|| invalid("InvalidArgument", format!("invalid partNumber: expected 1 to {PARTS_MAX}")))?;
    let grant = files.grant(upload.access(None)).await?;
    let part = Some(UploadPart { id: upload.id.clone(), number });
    Ok(PutBegin { grant, part, ..PutBegin::default() })
}

/// `UploadPartCopy`
pub async fn copy(
    files: &Arc<ProjectFiles>,
    request: S3Request<UploadPartCopyInput>,
) -> Result<UploadPartCopyOutput, Fault> {
    let S3Request { input, headers, .. } = request;
    let target = target(files, &input.bucket, &input.key)?;
    let upload = OpenUpload::of(files, &target, &input.upload_id).await?;
    let begin = begin(files, &upload, input.part_number).await?;
    let range = input.copy_source_range.as_deref().map(copied_range).transpose()?;
    let conditions = source_conditions(&headers);
    let data = read(files, &source(files, &input.copy_source)?, (range, &conditions)).await?;
    let stored = Put::new(&files.service).run(&files.caller.call, |sending| send_all(sending, begin, data)).await?;
    let entry = stored.entry.unwrap_or_default();
    let result = CopyPartResult {
        e_tag: Some(etag(&entry.etag)),
        last_modified: moment(entry.modified_ms),
        ..CopyPartResult::default()
    };
    Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() })
}

async fn send_all(
    mut sending: Sending,
    begin: PutBegin,
    data: impl Stream<Item = Result<Bytes, Fault>> + Send,
) -> Result<(), Fault> {
    let mut data = Box::pin(data);
    if !sending.begin(begin).await {
        return Ok(());
    }
    while let Some(piece) = data.next().await {
        if !sending.data(piece?).await {
            return Ok(());
        }
    }
    sending.finish(PutFinish::default()).await;
    Ok(())
}

fn copied_range(text: &str) -> Result<proto::storage::ByteRange, Fault> {
    let malformed = || invalid("InvalidArgument", "invalid x-amz-copy-source-range: expected bytes=FIRST-LAST");
    let (first, last) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(malformed)?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = number(first).zip(number(last)).filter(|(first, last)| first <= last).ok_or_else(malformed)?;
    Ok(proto::storage::ByteRange { first: Some(first), last: Some(last) })
}

/// `ListParts`
pub async fn list(files: &ProjectFiles, input: ListPartsInput) -> Result<ListPartsOutput, Fault> {
    let target = target(files, &input.bucket, &input.key)?;
    let upload = OpenUpload::of(files, &target, &input.upload_id).await?;
    let number = |name: &str, text: Option<i32>, default: i32| {
        let number = u32::try_from(text.unwrap_or(default));
        number.map_err(|_| invalid("InvalidArgument", format!("invalid {name}: must not be negative")))
    };
    let limit = number("max-parts", input.max_parts, 1000)?.clamp(1, PAGE_MAX);
    let after = input.part_number_marker;
    let page = upload.page(files, number("part-number-marker", after, 0)?, limit).await?;
    let parts: Vec<Part> = page.parts.into_iter().map(told).collect();
    Ok(ListPartsOutput {
        abort_date: moment(upload.found.expires_ms),
        is_truncated: Some(page.more),
        max_parts: i32::try_from(limit).ok(),
        next_part_number_marker: parts.last().and_then(|part| part.part_number),
        part_number_marker: Some(after.unwrap_or_default()),
        parts: Some(parts),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        ..ListPartsOutput::default()
    })
}

fn told(part: StoredPart) -> Part {
    Part {
        part_number: i32::try_from(part.number).ok(),
        size: i64::try_from(part.size).ok(),
        e_tag: Some(etag(&part.etag)),
        last_modified: moment(part.modified_ms),
        ..Part::default()
    }
}

/// `AbortMultipartUpload`
pub async fn abort(
    files: &ProjectFiles,
    input: AbortMultipartUploadInput,
) -> Result<AbortMultipartUploadOutput, Fault> {
    let target = target(files, &input.bucket, &input.key)?;
    let upload = OpenUpload::of(files, &target, &input.upload_id).await?;
    let request = DropUploadRequest { grant: files.grant(upload.access(None)).await?, id: upload.id };
    files.service.mesh().storage().drop_upload(&files.caller.call, request).await?;
    Ok(AbortMultipartUploadOutput::default())
}

/// `CompleteMultipartUpload`
pub async fn complete(
    files: Arc<ProjectFiles>,
    request: S3Request<CompleteMultipartUploadInput>,
) -> Result<CompleteMultipartUploadOutput, Fault> {
    let S3Request { input, headers, .. } = request;
    check_no_checksum(&headers)?;
    let target = target(&files, &input.bucket, &input.key)?;
    let upload = OpenUpload::of(&files, &target, &input.upload_id).await?;
    let precondition = precondition(&headers)?;
    let wanted = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let (parts, size) = match upload.found.published {
        true => (Vec::new(), None),
        false => {
            let (parts, size) = chosen(&wanted, &upload.parts(&files).await?)?;
            check_size(input.mpu_object_size, size)?;
            (parts, Some(size))
        }
    };
    // What is joined is judged first: an answer that has begun can tell no status.
    let grant = files.grant(upload.access(size)).await?;
    let request = JoinPartsRequest { grant, id: upload.id, parts, precondition };
    let of = (input.bucket, input.key);
    let mut joining = Box::pin(join(files, request, of));
    match tokio::time::timeout(ANSWER_BEGINS, &mut joining).await {
        Ok(joined) => joined,
        Err(_) => {
            let joined = async move { joining.await.map_err(error_of) };
            Ok(CompleteMultipartUploadOutput {
                future: Some(Box::pin(joined)),
                ..CompleteMultipartUploadOutput::default()
            })
        }
    }
}

async fn join(
    files: Arc<ProjectFiles>,
    request: JoinPartsRequest,
    (bucket, key): (String, String),
) -> Result<CompleteMultipartUploadOutput, Fault> {
    let joined = files.service.mesh().storage().join_parts(&files.caller.call, request).await?;
    let entry = joined.entry.unwrap_or_default();
    Ok(CompleteMultipartUploadOutput {
        e_tag: Some(etag(&entry.etag)),
        location: Some(format!("/s3/{}/{bucket}/{key}", files.project.id)),
        bucket: Some(bucket),
        key: Some(key),
        ..CompleteMultipartUploadOutput::default()
    })
}

/// Refuses a checksum of the whole file: parts are verified as they come, and what is joined by their entity tags.
fn check_no_checksum(headers: &HeaderMap) -> Result<(), Fault> {
    let mut names = headers.keys().map(|name| name.as_str());
    match names.find(|name| name.starts_with("x-amz-checksum-") && *name != "x-amz-checksum-type") {
        Some(name) => Err(not_implemented(&format!("the header {name}"))),
        None => Ok(()),
    }
}

fn check_size(announced: Option<i64>, size: u64) -> Result<(), Fault> {
    match announced.is_none_or(|announced| u64::try_from(announced) == Ok(size)) {
        true => Ok(()),
        false => Err(invalid("InvalidRequest", format!("the parts have {size} bytes, and others were announced"))),
    }
}

/// The parts that are to be joined, and their bytes. Errors: they are not in order, too small, or not those that have come.
fn chosen(wanted: &[CompletedPart], stored: &[StoredPart]) -> Result<(Vec<JoinedPart>, u64), Fault> {
    if wanted.is_empty() || wanted.len() > PARTS_MAX {
        let message = format!("invalid parts: expected 1 to {PARTS_MAX}, found {}", wanted.len());
        return Err(invalid("MalformedXML", message));
    }
    let number = |part: &CompletedPart| part.part_number.and_then(|number| u32::try_from(number).ok());
    let is_first = wanted.first().and_then(number).is_some_and(|number| number > 0);
    if !is_first || !wanted.is_sorted_by(|part, next| number(part) < number(next)) {
        return Err(invalid("InvalidPartOrder", "parts must be in the order of their numbers"));
    }
    let (mut parts, mut size) = (Vec::with_capacity(wanted.len()), 0u64);
    for (index, part) in wanted.iter().enumerate() {
        let number = number(part).unwrap_or_default();
        let found = stored.binary_search_by_key(&number, |part| part.number).ok().map(|found| &stored[found]);
        let told = part.e_tag.as_ref().map(|etag| opaque(etag.value()));
        let Some(found) = found.filter(|found| told == Some(found.etag.as_str())) else {
            return Err(invalid("InvalidPart", format!("part {number} has not come, or has another entity tag")));
        };
        if found.size < PART_BYTES_MIN && index + 1 < wanted.len() {
            let message = format!("part {number} has {} bytes, expected at least {PART_BYTES_MIN}", found.size);
            return Err(invalid("EntityTooSmall", message));
        }
        size = size.saturating_add(found.size);
        parts.push(JoinedPart { number, etag: found.etag.clone() });
    }
    Ok((parts, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: i32, tag: &str) -> CompletedPart {
        CompletedPart { part_number: Some(number), e_tag: Some(etag(tag)), ..CompletedPart::default() }
    }

    #[test]
    fn parts_are_those_that_have_come_in_their_order() {
        let stored = |number, size, etag: &str| StoredPart { number, size, etag: etag.to_owned(), modified_ms: 1 };
        let stored = [stored(1, PART_BYTES_MIN, "a"), stored(3, 5, "c"), stored(7, 6, "d")];
        let code = |wanted: &[CompletedPart]| match chosen(wanted, &stored) {
            Ok((parts, size)) => Ok((parts.iter().map(|part| part.number).collect::<Vec<_>>(), size)),
            Err(fault) => Err(fault.detail("s3").unwrap_or_default().to_owned()),
        };
        assert_eq!(code(&[part(1, "a"), part(7, "d")]), Ok((vec![1, 7], PART_BYTES_MIN + 6)));
        assert_eq!(code(&[part(3, "c")]), Ok((vec![3], 5)));
        for (wanted, expected) in [
            (&[][..], "MalformedXML"),
            (&[part(7, "d"), part(1, "a")], "InvalidPartOrder"),
            (&[part(1, "a"), part(1, "a")], "InvalidPartOrder"),
            (&[part(0, "a")], "InvalidPartOrder"),
            (&[part(2, "b")], "InvalidPart"),
            (&[part(1, "b")], "InvalidPart"),
            (&[part(3, "c"), part(7, "d")], "EntityTooSmall"),
        ] {
            assert_eq!(code(wanted), Err(expected.to_owned()), "{wanted:?}");
        }
    }

    #[test]
    fn a_range_of_a_copied_part_has_both_ends() {
        assert_eq!(copied_range("bytes=2-5").map(|range| (range.first, range.last)), Ok((Some(2), Some(5))));
        for wrong in ["bytes=2-", "bytes=-2", "bytes=5-2", "2-5", "bytes=+2-5"] {
            assert!(copied_range(wrong).is_err(), "{wrong}");
        }
    }
}
