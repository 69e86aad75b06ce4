//! Bodies of requests on their way through the protocol's library.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use mesh::{Code, Fault};
use s3s::{StdError, TrailingHeaders};

use super::{
    XML_BYTES,
    checksum::Checksums,
    chunks::CHUNK_TOO_LARGE,
    fault::{invalid, with_code},
};

/// The body of a request, of which what was not read can be taken back. Clones are the same.
#[derive(Clone)]
pub struct SharedBody(Arc<Mutex<Body>>);

impl SharedBody {
    /// Shares `body`.
    pub fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    /// What is left of it.
    pub fn take(&self) -> Body {
        std::mem::take(&mut *self.body())
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        // A body that panicked gives nothing more.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&*self.body())
    }
}

/// The bytes of a file, which end with a fault where they are not what their signature, their hash or their checksums
/// are of.
pub struct CheckedBody {
    inner: s3s::Body,
    checksums: Option<Checksums>,
    trailers: Option<TrailingHeaders>,
}

impl CheckedBody {
    /// The bytes of `inner`, with the checksums of the request's `headers` and of what follows the bytes.
    pub fn new(inner: s3s::Body, headers: &HeaderMap, trailers: Option<TrailingHeaders>) -> Result<Self, Fault> {
        Ok(Self { inner, checksums: Some(Checksums::of(headers)?), trailers })
    }

    /// What is wrong at the end of the bytes.
    fn end(&mut self) -> Option<Fault> {
        let checksums = self.checksums.take()?;
        let trailers = self.trailers.as_ref().and_then(TrailingHeaders::take).unwrap_or_default();
        checksums.check(&trailers).err()
    }
}

impl HttpBody for CheckedBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        let next = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(next) => next,
        };
        Poll::Ready(match next {
            None => this.end().map(|fault| Err(fault.into())),
            Some(Err(cause)) => Some(Err(Box::new(broken_off(cause)))),
            Some(Ok(frame)) => {
                if let (Some(checksums), Some(data)) = (&mut this.checksums, frame.data_ref()) {
                    checksums.update(data);
                }
                Some(Ok(frame))
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.inner)
    }
}

/// Why the bytes of a request end early.
fn broken_off(cause: StdError) -> Fault {
    let cause = match cause.downcast::<Fault>() {
        Ok(fault) => return *fault,
        Err(cause) => cause.to_string(),
    };
    // The library has no type for them.
    for (found, code, message) in [
        ("Sha256Mismatch", "XAmzContentSHA256Mismatch", "the body does not have the hash of x-amz-content-sha256"),
        ("SignatureMismatch", "SignatureDoesNotMatch", "the signature of a chunk of the body is invalid"),
        (CHUNK_TOO_LARGE, "InvalidRequest", "a chunk of the body that is signed has more than 16 MiB"),
        ("Incomplete", "IncompleteBody", "the body has fewer bytes than were announced"),
        ("LengthMismatch", "InvalidRequest", "the body has more bytes than were announced"),
    ] {
        if cause.contains(found) {
            return invalid(code, message);
        }
    }
    invalid("IncompleteBody", format!("the body broke off: {cause}"))
}

/// The whole body of a request that has XML, with its checksums. Errors: it is too large, or not what was signed.
pub async fn xml(body: CheckedBody) -> Result<Bytes, Fault> {
    let collected = http_body_util::Limited::new(body, XML_BYTES).collect().await;
    let collected = collected.map_err(|cause| match cause.downcast::<http_body_util::LengthLimitError>() {
        Ok(_) => {
            let message = format!("the body is over the limit of {XML_BYTES} bytes");
            with_code("MaxMessageLengthExceeded", Fault::new(Code::TooLarge, message))
        }
        Err(cause) => broken_off(cause),
    })?;
    Ok(collected.to_bytes())
}
