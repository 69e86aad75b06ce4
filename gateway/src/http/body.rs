//! Request bodies: their limits, and how they are read.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use mesh::{Code, Fault};

use crate::{catalogue::Project, config::Config, error};

/// How long the rest of an oversized body is read and discarded.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the whole body of a request to a project, up to the limit of the node and of the project.
///
/// Errors: `TOO_LARGE` with the limit; `BAD_REQUEST` where the client breaks off.
pub async fn read(config: &Config, project: &Project, body: Body) -> Result<Bytes, Fault> {
    collect(body, limit(config, Some(project)), DRAIN_TIMEOUT).await
}

/// Reads and discards what is left of the body of a refused request, within bounds: a client that is still sending when
/// the connection closes never sees the answer.
pub async fn discard(body: Body, limit: usize) {
    drain(body, limit, DRAIN_TIMEOUT).await;
}

/// The body limit in bytes for a request to `project`: the lower of the node's and the project's.
pub fn limit(config: &Config, project: Option<&Project>) -> usize {
    let node = config.body_bytes;
    let own = project.and_then(|project| project.spec.limits.body_bytes);
    own.map_or(node, |own| own.min(node))
}

/// The fault of a body over its `limit`; `seen` bytes, where its size was declared.
pub fn too_large(limit: usize, seen: Option<u64>) -> Fault {
    let seen = seen.map(|seen| format!(" of {seen} bytes")).unwrap_or_default();
    Fault::new(Code::TooLarge, format!("the body{seen} is over the limit of {limit} bytes"))
}

async fn collect(mut body: Body, limit: usize, drain_timeout: Duration) -> Result<Bytes, Fault> {
    let declared = HttpBody::size_hint(&body).lower();
    if declared > limit as u64 {
        Box::pin(drain(body, limit, drain_timeout)).await;
        return Err(too_large(limit, Some(declared)));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| error::bad_request(format!("the body broke off: {cause}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            Box::pin(drain(body, limit, drain_timeout)).await;
            return Err(too_large(limit, None));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Reads and discards the rest of an oversized body, up to four times the limit and for `timeout`.
///
/// A client that is still sending when the connection closes never sees the answer.
async fn drain(mut body: Body, limit: usize, timeout: Duration) {
    let mut left = limit.saturating_mul(4);
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            if size > left {
                return;
            }
            left -= size;
        }
    };
    // Whether the client was heard to its end changes nothing of the answer.
    let _ = tokio::time::timeout(timeout, reading).await;
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_the_limit() {
        let fault = collect(Body::from("12345"), 4, DRAIN_TIMEOUT).await.expect_err("it is over the limit");
        assert_eq!(fault.code, Code::TooLarge);
        assert_eq!(fault.message, "the body of 5 bytes is over the limit of 4 bytes");
        assert_eq!(collect(Body::from("1234"), 4, DRAIN_TIMEOUT).await.as_deref(), Ok(&b"1234"[..]));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_that_never_comes_is_refused_soon() {
        let endless = futures::stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from("12345")) })
            .chain(futures::stream::pending());
        let body = Body::from_stream(endless);
        let fault = collect(body, 4, Duration::from_millis(1)).await.expect_err("it is over the limit");
        assert_eq!(fault.code, Code::TooLarge);
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let pieces = ["ab", "cd", "ef"].map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece)));
        let body = Body::from_stream(futures::stream::iter(pieces));
        assert_eq!(collect(body, 6, DRAIN_TIMEOUT).await.as_deref(), Ok(&b"abcdef"[..]));
    }

    /// A body of `count` pieces of `bytes` each, whose length nobody declared, and how many of them were taken.
    fn pieces(bytes: usize, count: usize) -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let taking = taken.clone();
        let pieces = futures::stream::iter(0..count).map(move |_| {
            taking.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Bytes::from(vec![b'x'; bytes]))
        });
        (Body::from_stream(pieces), taken)
    }

    #[tokio::test]
    async fn the_rest_of_a_body_over_the_limit_is_heard_up_to_four_times_the_limit() {
        for (bytes, count, limit, expected) in [
            // One piece is within the limit, the second over it; four more are read, and the next is one too many.
            (4, 100, 4, 7),
            (5, 100, 4, 5),
            (3, 100, 5, 2 + 6 + 1),
            (4, 3, 4, 3),
        ] {
            let (body, taken) = pieces(bytes, count);
            let fault = collect(body, limit, DRAIN_TIMEOUT).await.expect_err("it is over the limit");
            assert_eq!(fault.message, format!("the body is over the limit of {limit} bytes"));
            assert_eq!(taken.load(Ordering::Relaxed), expected, "{count} pieces of {bytes}");
        }
        let (body, _) = pieces(4, 3);
        assert_eq!(collect(body, 12, DRAIN_TIMEOUT).await.map(|body| body.len()), Ok(12));
    }
}
