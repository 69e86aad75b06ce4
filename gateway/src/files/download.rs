//! Files that are read.

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use mesh::{Code, Fault};
use proto::{
    Links,
    link::Messages,
    storage::{Entry, GetRequest, GetResponse, Head, InfoRequest, get_response::Part},
};
use query::file::FileOperation;
use tokio::sync::mpsc;

use super::{
    FilesRequest, access,
    conditional::{self, ConditionOutcome},
    disposition, missing_part,
    multipart::MultipartRanges,
    range,
    target::FileTarget,
};
use crate::{Service, error, http::answer};

/// Response extension of an answer whose bytes come as they are taken: no answer that is held in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streamed {
    /// Bytes of the answer.
    pub(crate) size: u64,
}

/// Bytes that a client has to take before it counts as silent.
const TAKEN_BYTES: usize = 64 * 1024;
/// The user's metadata of a file.
pub(super) const META: HeaderName = HeaderName::from_static("x-meta");
/// What browsers may do with a file that they show as a page.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");

/// `GET` of a file.
pub async fn get(request: &FilesRequest<'_>) -> Result<Response, Fault> {
    let target = request.file_target()?;
    let grant = request.grant(access(&target, FileOperation::Read)).await?;
    let ranges = range::ranges(&request.head.headers);
    let (ranges_if_etag, ranges_if_modified_s) = match conditional::if_range(&request.head.headers) {
        None => (None, None),
        Some(Ok(etag)) => (Some(etag), None),
        Some(Err(second)) => (None, Some(second)),
    };
    let message = GetRequest { grant, ranges, ranges_if_etag, ranges_if_modified_s };
    let mut messages = Box::pin(request.service.mesh().storage().get(&request.caller.call, message)).await?;
    let Some(Part::Head(head)) = messages.next().await.transpose()?.and_then(|message| message.part) else {
        return Err(missing_part("no head of a file"));
    };
    let entry = head.entry.clone().ok_or_else(|| missing_part("no entry of a file"))?;
    if let Some(response) = decided(request, &target, &entry)? {
        return Ok(response);
    }
    answered(request, &target, &entry, head, messages)
}

/// `HEAD` of a file.
pub async fn head(request: &FilesRequest<'_>) -> Result<Response, Fault> {
    let target = request.file_target()?;
    let grant = request.grant(access(&target, FileOperation::Read)).await?;
    let info = request.service.mesh().storage().info(&request.caller.call, InfoRequest { grant }).await?;
    let entry = info.entry.ok_or_else(|| missing_part("no entry of a file"))?;
    if entry.is_folder {
        return Err(error::bad_request(format!("{} is a folder", target.path)));
    }
    if let Some(response) = decided(request, &target, &entry)? {
        return Ok(response);
    }
    let mut response = Response::new(Body::empty());
    describe(request, &target, &entry, response.headers_mut())?;
    response.headers_mut().insert(header::CONTENT_LENGTH, entry.size.into());
    Ok(response)
}

/// The answer of a request whose conditions decide it.
fn decided(request: &FilesRequest<'_>, target: &FileTarget, entry: &Entry) -> Result<Option<Response>, Fault> {
    match conditional::evaluate(&request.head.headers, entry)? {
        ConditionOutcome::Go => Ok(None),
        ConditionOutcome::Failed => {
            Err(Fault::new(Code::Precondition, "the file is not as the condition of the request says"))
        }
        ConditionOutcome::NotModified => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            describe(request, target, entry, response.headers_mut())?;
            response.headers_mut().remove(header::CONTENT_TYPE);
            Ok(Some(response))
        }
    }
}

fn answered(
    request: &FilesRequest<'_>,
    target: &FileTarget,
    entry: &Entry,
    head: Head,
    messages: Messages<GetResponse>,
) -> Result<Response, Fault> {
    if head.unsatisfiable {
        let fault = Fault::new(Code::Range, format!("no range is in the file of {} bytes", entry.size));
        let mut response = answer::fault(&fault, &request.caller.call);
        response.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{}", entry.size))?);
        return Ok(response);
    }
    let data = messages.map(|message| match message?.part {
        Some(Part::Data(data)) => Ok(data),
        Some(Part::Head(_)) | None => Err(missing_part("a second head of a file")),
    });
    let mut headers = HeaderMap::new();
    describe(request, target, entry, &mut headers)?;
    let (status, size, body) = match head.parts.as_slice() {
        [] => (StatusCode::OK, entry.size, streamed(request.service, data)),
        [part] => {
            let last = part.start + part.size - 1;
            headers.insert(header::CONTENT_RANGE, text(format!("bytes {}-{last}/{}", part.start, entry.size))?);
            (StatusCode::PARTIAL_CONTENT, part.size, streamed(request.service, data))
        }
        parts => {
            let ranges = MultipartRanges::new(parts, &entry.content_type, entry.size);
            headers.insert(header::CONTENT_TYPE, text(ranges.content_type())?);
            let size = ranges.size();
            (StatusCode::PARTIAL_CONTENT, size, streamed(request.service, ranges.framed(data.boxed())))
        }
    };
    headers.insert(header::CONTENT_LENGTH, size.into());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(Streamed { size });
    Ok(response)
}

/// The headers that describe a file.
fn describe(
    request: &FilesRequest<'_>,
    target: &FileTarget,
    entry: &Entry,
    headers: &mut HeaderMap,
) -> Result<(), Fault> {
    let spec = &target.bucket.spec;
    headers.insert(header::ETAG, conditional::etag(&entry.etag)?);
    headers.extend(conditional::last_modified(entry).map(|modified| (header::LAST_MODIFIED, modified)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let cache_control = spec.cache_control.as_ref().and_then(|text| HeaderValue::from_str(text).ok());
    headers.insert(header::CACHE_CONTROL, cache_control.unwrap_or(CACHE_CONTROL));
    headers.insert(header::CONTENT_TYPE, text(entry.content_type.clone())?);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
    if !entry.meta.is_empty()
        && let Ok(meta) = HeaderValue::from_str(&ascii(&entry.meta))
    {
        headers.insert(META, meta);
    }
    let name = match request.parameters.get("download") {
        Some("") => Some(target.path.name()),
        Some(name) => Some(name),
        None => (!spec.inline && disposition::is_active(&entry.content_type)).then(|| target.path.name()),
    };
    headers.extend(name.map(|name| (header::CONTENT_DISPOSITION, disposition::attachment(name))));
    Ok(())
}

fn text(text: String) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(&text).map_err(|error| Fault::internal("the file cannot be described", error))
}

/// JSON in ASCII: other characters can only be in its strings.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

/// A body whose bytes are read as the client takes them, one piece ahead. It ends where the client takes none for too long.
fn streamed(service: &Service, data: impl Stream<Item = Result<Bytes, Fault>> + Send + 'static) -> Body {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let idle = service.config().write_timeout;
    let stop = service.tasks().stop().clone();
    service.tasks().spawn("files: download", async move {
        stop.run_until_cancelled(pump(Box::pin(data), sender, idle)).await;
    });
    let pieces = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    Body::from_stream(pieces)
}

async fn pump(
    mut data: impl Stream<Item = Result<Bytes, Fault>> + Send + Unpin,
    sender: mpsc::Sender<Result<Bytes, std::io::Error>>,
    idle: Duration,
) {
    loop {
        let piece = tokio::select! {
            piece = data.next() => piece,
            // The client has left.
            () = sender.closed() => return,
        };
        let Some(piece) = piece else { return };
        let mut piece = match piece {
            Ok(piece) => piece,
            Err(fault) => {
                // Where the client takes nothing more, it need not see that this is not the end.
                let _ = tokio::time::timeout(idle, sender.send(Err(std::io::Error::other(fault)))).await;
                return;
            }
        };
        while !piece.is_empty() {
            let part = piece.split_to(piece.len().min(TAKEN_BYTES));
            if !matches!(tokio::time::timeout(idle, sender.send(Ok(part))).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}
