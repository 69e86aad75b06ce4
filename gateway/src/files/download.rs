//! Files that are read.

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use mesh::{Code, Fault};
use proto::{
    Links,
    link::Messages,
    storage::{ByteRange, Entry, GetRequest, GetResponse, Head, ImageRequest, get_response::Part},
};
use query::file::FileOperation;
use tokio::sync::mpsc;

use super::{
    FilesRequest, ProjectFiles,
    compression::{self, Coding},
    conditional::{self, ConditionOutcome},
    disposition, image, list, missing_part,
    multipart::MultipartRanges,
    project_files::access,
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
pub(super) const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
/// No type is guessed.
pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What of a file is wanted.
#[derive(Default)]
pub(crate) struct FileParts {
    /// Parts; none: all of it.
    pub(crate) ranges: Vec<ByteRange>,
    /// Parts count only if the file has this entity tag.
    pub(crate) ranges_if_etag: Option<String>,
    /// Parts count only if the file was last modified in this second since the Unix epoch.
    pub(crate) ranges_if_modified_s: Option<i64>,
    /// The file is an image, and parts are of what is made of it.
    pub(crate) image: Option<ImageRequest>,
}

/// A file whose bytes are on their way.
pub(crate) struct FileStream {
    /// The file.
    pub(crate) entry: Entry,
    /// The parts that follow.
    pub(crate) head: Head,
    messages: Messages<GetResponse>,
}

impl FileStream {
    /// The bytes of the file, or of its parts one after the other.
    pub(crate) fn data(self) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
        self.messages.map(|message| match message?.part {
            Some(Part::Data(data)) => Ok(data),
            Some(Part::Head(_)) | None => Err(missing_part("a second head of a file")),
        })
    }

    /// The fault of parts none of which is in the file.
    pub(crate) fn unsatisfiable(&self) -> Option<Fault> {
        let message = || format!("no range is in the file of {} bytes", self.entry.size);
        self.head.unsatisfiable.then(|| Fault::new(Code::Range, message()))
    }
}

/// Opens a file that the caller may read.
pub(crate) async fn open(files: &ProjectFiles, target: &FileTarget, parts: FileParts) -> Result<FileStream, Fault> {
    let grant = files.grant(access(target, FileOperation::Read)).await?;
    let FileParts { ranges, ranges_if_etag, ranges_if_modified_s, image } = parts;
    let message = GetRequest { grant, ranges, ranges_if_etag, ranges_if_modified_s, image };
    let mut messages = Box::pin(files.service.mesh().storage().get(&files.caller.call, message)).await?;
    let Some(Part::Head(head)) = messages.next().await.transpose()?.and_then(|message| message.part) else {
        return Err(missing_part("no head of a file"));
    };
    let entry = head.entry.clone().ok_or_else(|| missing_part("no entry of a file"))?;
    Ok(FileStream { entry, head, messages })
}

/// `GET` of a file.
pub async fn get(request: &FilesRequest<'_>) -> Result<Response, Fault> {
    let target = request.file_target()?;
    let image = image::wanted(&request.parameters, &request.head.headers)?;
    let ranges = range::ranges(&request.head.headers);
    let (ranges_if_etag, ranges_if_modified_s) = match conditional::if_range(&request.head.headers) {
        None => (None, None),
        Some(Ok(etag)) => (Some(etag), None),
        Some(Err(second)) => (None, Some(second)),
    };
    let parts = FileParts { ranges, ranges_if_etag, ranges_if_modified_s, image };
    let file = open(&request.files, &target, parts).await?;
    match decided(request, &target, &file.entry)? {
        Some(response) => Ok(response),
        None => answered(request, &target, file),
    }
}

/// `HEAD` of a file.
pub async fn head(request: &FilesRequest<'_>) -> Result<Response, Fault> {
    let target = request.file_target()?;
    let entry = match image::wanted(&request.parameters, &request.head.headers)? {
        None => list::info(&request.files, &target).await?,
        // Its size is not known before it is made.
        image => open(&request.files, &target, FileParts { image, ..FileParts::default() }).await?.entry,
    };
    if entry.is_folder {
        return Err(error::bad_request(format!("{} is a folder", target.path)));
    }
    if let Some(response) = decided(request, &target, &entry)? {
        return Ok(response);
    }
    let mut response = Response::new(Body::empty());
    describe(request, &target, &entry, response.headers_mut())?;
    response.headers_mut().insert(header::CONTENT_LENGTH, entry.size.into());
    Coding::of(&request.head.headers, &entry).describe(response.headers_mut());
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
            Coding::of(&request.head.headers, entry).describe(response.headers_mut());
            response.headers_mut().remove(header::CONTENT_TYPE);
            response.headers_mut().remove(header::CONTENT_ENCODING);
            Ok(Some(response))
        }
    }
}

fn answered(request: &FilesRequest<'_>, target: &FileTarget, file: FileStream) -> Result<Response, Fault> {
    let (entry, service) = (file.entry.clone(), &request.files.service);
    if let Some(fault) = file.unsatisfiable() {
        let mut response = answer::fault(&fault, &request.files.caller.call);
        response.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{}", entry.size))?);
        return Ok(response);
    }
    let parts = file.head.parts.clone();
    let data = file.data();
    let coding = Coding::of(&request.head.headers, &entry);
    let mut headers = HeaderMap::new();
    describe(request, target, &entry, &mut headers)?;
    let (status, size, body) = match parts.as_slice() {
        [] if coding == Coding::Gzip => (StatusCode::OK, entry.size, streamed(service, compression::gzip(data))),
        [] => (StatusCode::OK, entry.size, streamed(service, data)),
        [part] => {
            let last = part.start + part.size - 1;
            headers.insert(header::CONTENT_RANGE, text(format!("bytes {}-{last}/{}", part.start, entry.size))?);
            (StatusCode::PARTIAL_CONTENT, part.size, streamed(service, data))
        }
        parts => {
            let ranges = MultipartRanges::new(parts, &entry.content_type, entry.size);
            headers.insert(header::CONTENT_TYPE, text(ranges.content_type())?);
            let size = ranges.size();
            (StatusCode::PARTIAL_CONTENT, size, streamed(service, ranges.framed(data.boxed())))
        }
    };
    headers.insert(header::CONTENT_LENGTH, size.into());
    coding.describe(&mut headers);
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

/// A body whose bytes are read as the client takes them.
fn streamed(service: &Service, data: impl Stream<Item = Result<Bytes, Fault>> + Send + 'static) -> Body {
    Body::from_stream(paced(service, data).map_err(std::io::Error::other))
}

/// The bytes of `data`, read as they are taken, one piece ahead. Where none is taken for too long, they end with a fault.
pub(crate) fn paced(
    service: &Service,
    data: impl Stream<Item = Result<Bytes, Fault>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(1);
    let idle = service.config().write_timeout;
    let stop = service.tasks().stop().clone();
    service.tasks().spawn("files: download", async move {
        stop.run_until_cancelled(pump(Box::pin(data), sender, idle)).await;
    });
    to_its_end(receiver)
}

/// What comes of a file: bytes, or `None` at its end.
type Pumped = Result<Option<Bytes>, Fault>;

/// The bytes that are pumped. Who sees no fault has all of them: an answer need not tell its size.
fn to_its_end(receiver: mpsc::Receiver<Pumped>) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
    stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Ok(None)) => None,
            Some(Ok(Some(data))) => Some((Ok(data), Some(receiver))),
            Some(Err(fault)) => Some((Err(fault), None)),
            None => {
                let message = "the file broke off: it was not taken in time, or the server stops";
                Some((Err(Fault::new(Code::Deadline, message)), None))
            }
        }
    })
}

async fn pump(
    mut data: impl Stream<Item = Result<Bytes, Fault>> + Send + Unpin,
    sender: mpsc::Sender<Pumped>,
    idle: Duration,
) {
    loop {
        let piece = tokio::select! {
            piece = data.next() => piece,
            // The client has left.
            () = sender.closed() => return,
        };
        let mut piece = match piece.transpose() {
            Ok(Some(piece)) => piece,
            last => {
                // Where the client takes nothing more, what is missing tells it.
                let _ = tokio::time::timeout(idle, sender.send(last)).await;
                return;
            }
        };
        while !piece.is_empty() {
            let part = piece.split_to(piece.len().min(TAKEN_BYTES));
            if !matches!(tokio::time::timeout(idle, sender.send(Ok(Some(part)))).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_not_taken_in_time_has_no_end() {
        for (silent_s, expected) in [(29, Ok(9)), (31, Err(Code::Deadline))] {
            let data = stream::iter(["abc", "def", "ghi"]).map(|piece| Ok(Bytes::from(piece)));
            let (sender, receiver) = mpsc::channel(1);
            let taking = async {
                let mut taken = Box::pin(to_its_end(receiver));
                let first = taken.next().await.transpose().expect("it begins").map_or(0, |piece| piece.len());
                tokio::time::sleep(Duration::from_secs(silent_s)).await;
                let rest = taken.map_ok(|piece| piece.len()).try_collect::<Vec<_>>().await;
                rest.map(|rest| first + rest.iter().sum::<usize>())
            };
            let ((), taken) = tokio::join!(pump(data, sender, Duration::from_secs(30)), taking);
            assert_eq!(taken.map_err(|fault| fault.code), expected);
        }
    }
}
