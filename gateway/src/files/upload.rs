//! Files that are written: the bytes of a request on their way to storage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use mesh::{Call, Code, Fault, Mesh};
use proto::{
    Links,
    auth::FileAccess,
    storage::{Precondition, PutBegin, PutFinish, PutRequest, PutResponse, put_request::Part},
};
use query::{Guard, Value, file::FileOperation, media_type};
use tokio::{sync::mpsc, time::Instant};

use super::{
    FilesRequest, ProjectFiles, disposition::is_list, download::META, precondition, project_files::access, stored,
    target::FileTarget,
};
use crate::{Service, error};

/// Bytes of a message to storage.
pub const MESSAGE_BYTES: usize = 256 * 1024;
/// Bytes per second that a client has to send on average, beyond the time for which it may be silent.
const SLOWEST_RATE: u64 = 1024;
/// Most bytes of a media type.
const TYPE_BYTES: usize = 255;
/// Most levels and nodes of the user's metadata.
const META_LIMITS: Guard = Guard::new(32, 1024);

/// A file that is to be written.
pub(crate) struct NewFile {
    /// Where.
    pub(crate) target: FileTarget,
    /// Its media type as declared, and checked; empty: by the name.
    pub(crate) content_type: String,
    /// The user's metadata, checked; empty: none.
    pub(crate) meta: String,
    /// What must hold of the file that is there.
    pub(crate) precondition: Option<Precondition>,
    /// Bytes of the body, where they are known.
    pub(crate) size: Option<u64>,
}

/// `PUT` of a file.
pub async fn put(request: &FilesRequest<'_>, body: &mut Body) -> Result<Response, Fault> {
    let target = request.file_target()?;
    let content_type = content_type(&request.head.headers)?;
    let meta = match request.head.headers.get(META) {
        None => String::new(),
        Some(text) => meta(text.to_str().map_err(|_| error::bad_request("invalid x-meta: expected ASCII"))?)?,
    };
    let precondition = precondition(request)?;
    let size = HttpBody::size_hint(body).exact();
    let file = NewFile { target: target.clone(), content_type, meta, precondition, size };
    let response = write(&request.files, file, body).await?;
    stored(&target, response.entry, response.created)
}

/// Writes the body as a file.
pub(crate) async fn write(files: &ProjectFiles, file: NewFile, body: &mut Body) -> Result<PutResponse, Fault> {
    let NewFile { target, content_type, meta, precondition, size } = file;
    let content_type = media_type::kept(&content_type, target.path.name()).to_owned();
    let access = FileAccess {
        size,
        no_size: false,
        content_type: content_type.clone(),
        meta: meta.clone(),
        ..access(&target, FileOperation::Create)
    };
    let grant = files.grant(access.clone()).await?;
    let begin = PutBegin { grant, content_type, meta, ..PutBegin::default() };
    let send = async |mut sending: Sending| {
        if !sending.begin(begin).await {
            return Ok(());
        }
        let sent = sending.body(body).await?;
        let grant = match (size, sent) {
            (_, None) => return Ok(()),
            (Some(size), Some(sent)) if size != sent => {
                return Err(error::bad_request(format!("the file has {sent} bytes, but {size} were announced")));
            }
            (Some(_), Some(_)) => None,
            // What was not known is judged before anybody sees the file.
            (None, Some(size)) => files.grant(FileAccess { size: Some(size), ..access }).await?,
        };
        sending.finish(PutFinish { grant, precondition, ..PutFinish::default() }).await;
        Ok(())
    };
    Put::new(&files.service).run(&files.caller.call, send).await
}

/// The media type that a request declares; empty where it declares none.
fn content_type(headers: &HeaderMap) -> Result<String, Fault> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(String::new()) };
    checked_type(value.to_str().unwrap_or("\0"))
}

/// `text` as a media type. Errors: it is none.
pub(crate) fn checked_type(text: &str) -> Result<String, Fault> {
    let text = text.trim();
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_type = essence.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
    let is_printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if text.is_empty() || is_type && is_printable && !is_list(text) && text.len() <= TYPE_BYTES {
        return Ok(text.to_owned());
    }
    Err(error::bad_request(format!("invalid content-type: expected type/subtype of at most {TYPE_BYTES} bytes")))
}

/// `text` as the user's metadata. Errors: it is no JSON object.
pub(crate) fn meta(text: &str) -> Result<String, Fault> {
    match proto::json::parse(text.as_bytes(), META_LIMITS) {
        Ok(Value::Object(_)) => Ok(text.trim().to_owned()),
        Ok(other) => Err(error::bad_request(format!("invalid meta: expected object, found {}", other.kind()))),
        Err(error) => Err(error::bad_request(format!("invalid meta: {error}"))),
    }
}

/// A call that writes a file.
pub struct Put {
    mesh: Mesh,
    idle: Duration,
}

/// The way to storage of one file.
pub struct Sending {
    messages: mpsc::Sender<PutRequest>,
    idle: Duration,
}

impl Put {
    /// A call for a client that may be silent for as long as one that reads.
    pub fn new(service: &Service) -> Self {
        Self { mesh: service.mesh().clone(), idle: service.config().write_timeout }
    }

    /// Runs `send` and storage side by side. What `send` says went wrong is the error; else what storage says.
    pub async fn run<F>(&self, call: &Call, send: impl FnOnce(Sending) -> F) -> Result<PutResponse, Fault>
    where
        F: Future<Output = Result<(), Fault>>,
    {
        // One message at a time: a client sends no faster than storage takes.
        let (sender, receiver) = mpsc::channel(1);
        let messages = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let storing = self.mesh.storage().put(call, messages.boxed());
        let sending = send(Sending { messages: sender, idle: self.idle });
        let (sent, stored) = futures::future::join(Box::pin(sending), Box::pin(storing)).await;
        sent?;
        Ok(stored?)
    }
}

impl Sending {
    /// Begins the file; whether storage goes on.
    pub async fn begin(&mut self, begin: PutBegin) -> bool {
        self.send(Part::Begin(begin)).await
    }

    /// Sends bytes; whether storage goes on.
    pub async fn data(&mut self, data: Bytes) -> bool {
        self.send(Part::Data(data)).await
    }

    /// Ends the file.
    pub async fn finish(&mut self, finish: PutFinish) {
        self.send(Part::Finish(finish)).await;
    }

    /// Sends the whole body; its size, or `None` where storage has ended.
    ///
    /// Errors: the client breaks off, or is silent for too long.
    pub async fn body(&mut self, body: &mut Body) -> Result<Option<u64>, Fault> {
        let mut size = 0;
        let mut pace = Pace::new(self.idle);
        loop {
            let chunk = tokio::select! {
                chunk = chunk(body, &mut pace) => chunk,
                () = self.messages.closed() => return Ok(None),
            };
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(BrokenOff { data, fault }) => {
                    // A resumable upload keeps it; whether storage goes on is of no matter then.
                    self.data(data).await;
                    return Err(fault);
                }
            };
            let Some(chunk) = chunk else { return Ok(Some(size)) };
            size += chunk.len() as u64;
            if !self.data(chunk).await {
                return Ok(None);
            }
        }
    }

    /// Waits for what the client sends next, as long as storage goes on; `None` where it has ended.
    ///
    /// Errors: those of `next`, and the client is silent for too long.
    pub async fn wait<T>(&self, next: impl Future<Output = Result<T, Fault>>) -> Result<Option<T>, Fault> {
        tokio::select! {
            next = tokio::time::timeout(self.idle, next) => next.map_err(|_| silent(self.idle))?.map(Some),
            () = self.messages.closed() => Ok(None),
        }
    }

    async fn send(&self, part: Part) -> bool {
        self.messages.send(PutRequest { part: Some(part) }).await.is_ok()
    }
}

fn silent(idle: Duration) -> Fault {
    Fault::new(Code::Deadline, format!("the body did not go on for {} seconds", idle.as_secs()))
}

/// How fast a client sends, as long as it is waited for.
struct Pace {
    idle: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(idle: Duration) -> Self {
        Self { idle, waited: Duration::ZERO, bytes: 0 }
    }

    /// What `next` gives. Errors: it takes as long as a client may be silent, or the client is too slow all in all.
    async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Fault> {
        let started = Instant::now();
        let next = tokio::time::timeout(self.idle, next).await.map_err(|_| silent(self.idle))?;
        self.waited += started.elapsed();
        let late = self.waited.saturating_sub(self.idle).as_secs();
        if self.bytes < late.saturating_mul(SLOWEST_RATE) {
            return Err(Fault::new(
                Code::Deadline,
                format!("the body came at less than {SLOWEST_RATE} bytes a second"),
            ));
        }
        Ok(next)
    }

    fn took(&mut self, data: &Bytes) {
        self.bytes += data.len() as u64;
    }
}

/// A body that breaks off, or is too slow.
#[derive(Debug)]
struct BrokenOff {
    /// Bytes that came before.
    data: Bytes,
    fault: Fault,
}

/// The next bytes of a body, as many as are there up to the size of a message; `None` at its end.
///
/// Not cancel safe: what was read is lost with it.
async fn chunk(body: &mut Body, pace: &mut Pace) -> Result<Option<Bytes>, BrokenOff> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while first.len() + all.len() < MESSAGE_BYTES {
        let frame = pace.wait(body.frame()).await;
        let frame = frame.and_then(|frame| frame.transpose().map_err(broken_off));
        let frame = match frame {
            Ok(frame) => frame,
            Err(fault) => return Err(BrokenOff { data: if all.is_empty() { first } else { all.freeze() }, fault }),
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.into_data() else { continue };
        pace.took(&data);
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(MESSAGE_BYTES);
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    let chunk = if all.is_empty() { first } else { all.freeze() };
    Ok((!chunk.is_empty()).then_some(chunk))
}

/// Why a body breaks off: what its own reader found, or that the client has left.
fn broken_off(cause: axum::Error) -> Fault {
    let mut cause = cause.into_inner();
    // Each layer around a body puts its error into one of its own.
    while cause.is::<axum::Error>() {
        cause = cause.downcast::<axum::Error>().map_or_else(|other| other, |layer| layer.into_inner());
    }
    match cause.downcast::<Fault>() {
        Ok(fault) => *fault,
        Err(cause) => error::bad_request(format!("the body broke off: {cause}")),
    }
}

/// Bytes that a reader of forms may take ahead without telling anything of them.
const UNTOLD_BYTES: usize = 1 << 20;

/// Counts what a reader of forms takes ahead: the heads of its parts, and what it was not asked for yet.
#[derive(Clone, Default)]
pub struct TakenAhead(Arc<AtomicUsize>);

impl TakenAhead {
    /// The reader has told of something.
    pub fn told(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The bytes of `body`, one frame each time that the reader is polled: it would take all that is there.
    ///
    /// Errors: it takes too much without telling anything, or the client is silent for as long as `idle`.
    pub fn stream(&self, body: Body, idle: Duration) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
        let taken = self.clone();
        let reading = (body.into_data_stream(), taken, Pace::new(idle), false);
        stream::unfold(reading, move |(mut data, taken, mut pace, has_given)| async move {
            if has_given {
                tokio::task::yield_now().await;
            }
            let next = match pace.wait(data.next()).await {
                Err(fault) => Err(fault),
                Ok(next) => next?.map_err(|cause| error::bad_request(format!("the body broke off: {cause}"))),
            };
            let next = next.and_then(|data| taken.take(data));
            if let Ok(data) = &next {
                pace.took(data);
            }
            Some((next, (data, taken, pace, true)))
        })
    }

    fn take(&self, data: Bytes) -> Result<Bytes, Fault> {
        match self.0.fetch_add(data.len(), Ordering::Relaxed) > UNTOLD_BYTES {
            true => Err(error::bad_request("a part of the form has too long a head")),
            false => Ok(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of one byte every `gap`.
    fn trickle(gap: Duration) -> Body {
        Body::from_stream(stream::unfold((), move |()| async move {
            tokio::time::sleep(gap).await;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x")), ()))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_ends() {
        let idle = Duration::from_secs(30);
        for (gap, expected) in [(29, "less than 1024 bytes a second"), (31, "did not go on for 30 seconds")] {
            let mut body = trickle(Duration::from_secs(gap));
            let BrokenOff { data, fault } = chunk(&mut body, &mut Pace::new(idle)).await.expect_err("it is too slow");
            assert_eq!((fault.code, data.is_empty()), (Code::Deadline, gap > 30), "what came is not lost");
            assert!(fault.message.contains(expected), "{}", fault.message);
        }
        let form = TakenAhead::default().stream(trickle(Duration::from_secs(29)), idle);
        let last = Box::pin(form).filter_map(async |next| next.err()).boxed().next().await;
        assert_eq!(last.map(|fault| fault.code), Some(Code::Deadline));
    }

    #[test]
    fn a_type_is_one_type() {
        for sound in ["", "text/plain", "video/mp4; codecs=\"a, b\""] {
            assert!(checked_type(sound).is_ok(), "{sound}");
        }
        for wrong in ["text", "image/png;, text/html", "image/png, text/html", "a/b\r\nx: y"] {
            assert!(checked_type(wrong).is_err(), "{wrong}");
        }
    }
}
