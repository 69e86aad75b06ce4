//! HTTP as all protocols of the edge share it: the front that every request passes, bodies and answers.

mod admission;
pub mod answer;
mod cors;
mod front;
mod node;
mod path;
mod send_budget;
pub mod server;

pub(crate) use admission::Admission;
pub use front::Front;
pub(crate) use front::Visited;
pub(crate) use send_budget::SendBudget;

use std::{panic::AssertUnwindSafe, pin::Pin, task::Poll, time::Duration};

use axum::extract::FromRequestParts;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::{HeaderMap, header, request};
use http_body_util::BodyExt;
use mesh::{Call, Code, Fault, tasks::panic_text};

use crate::{Service, catalogue::Project, edge::Caller, error, graphql, grpc, rest};

/// How long a client may go on sending what is refused.
const SPILL: Duration = Duration::from_secs(2);

/// The call that is being answered. Where none is, no front is before the routes: one begins.
pub(crate) fn current() -> Call {
    Call::current().unwrap_or_else(|| Call::begin(None, None, None))
}

/// All routes of the public port, behind the front.
pub(crate) fn front(service: &Service) -> Front {
    let web = axum::Router::new()
        .merge(node::routes())
        .merge(rest::routes())
        .merge(graphql::routes())
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .with_state(service.clone());
    Front::new(service.clone(), web, grpc::routes(service))
}

/// `/live`, `/ready`, `/metrics` and the health check with all details, for the mesh port.
pub fn node_routes(mesh: mesh::Mesh) -> axum::Router {
    node::routes()
        .layer(axum::Extension(node::Details::Shown))
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .with_state(mesh)
}

/// The answer, unless the work panics or its time is over. A timer is set only for work that has to wait.
pub(crate) async fn guarded<T>(call: &Call, work: Pin<&mut impl Future<Output = T>>) -> Result<T, Fault> {
    let mut work = AssertUnwindSafe(work).catch_unwind();
    let ended = match (futures::poll!(&mut work), call.deadline) {
        (Poll::Ready(ended), _) => ended,
        (Poll::Pending, None) => work.await,
        (Poll::Pending, Some(deadline)) => tokio::time::timeout_at(deadline.into(), work)
            .await
            .map_err(|_| Fault::new(Code::Deadline, "the time for this request is over"))?,
    };
    ended.map_err(|panic| Fault::internal("the request could not be answered", panic_text(panic.as_ref())))
}

/// The whole body of a request to a project, up to the limit of the node and of the project.
///
/// Errors: `TOO_LARGE` with the limit; `BAD_REQUEST` where the client breaks off.
pub async fn body(service: &Service, project: &Project, body: axum::body::Body) -> Result<Bytes, Fault> {
    collected(body, body_limit(service, Some(project)), SPILL).await
}

/// Bytes that the body of a request to `project` may have.
pub(crate) fn body_limit(service: &Service, project: Option<&Project>) -> usize {
    let node = service.config().body_bytes;
    let own = project.and_then(|project| project.spec.limits.body_bytes);
    own.map_or(node, |own| own.min(node))
}

/// That a body is over its limit.
pub(crate) fn too_large(limit: usize, seen: Option<u64>) -> Fault {
    let seen = seen.map(|seen| format!(" of {seen} bytes")).unwrap_or_default();
    Fault::new(Code::TooLarge, format!("the body{seen} is over the limit of {limit} bytes"))
}

async fn collected(mut body: axum::body::Body, limit: usize, spill: Duration) -> Result<Bytes, Fault> {
    let told = axum::body::HttpBody::size_hint(&body).lower();
    if told > limit as u64 {
        spilled(body, limit, spill).await;
        return Err(too_large(limit, Some(told)));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| error::bad_request(format!("the body broke off: {cause}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            spilled(body, limit, spill).await;
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

/// Reads what is too much and forgets it, as long as it is not many times too much and comes soon: a client that is
/// still sending when the connection closes never sees why.
async fn spilled(mut body: axum::body::Body, limit: usize, spill: Duration) {
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
    let _ = tokio::time::timeout(spill, reading).await;
}

impl Caller {
    /// The caller whose request has these `headers`.
    ///
    /// The scheme before the token is optional and its case is free; `Bearer` alone means no token. Errors:
    /// `UNAUTHENTICATED` for a header that is not ASCII.
    pub(crate) fn of(call: Call, headers: &HeaderMap) -> Result<Self, Fault> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(Self { call, token: String::new() });
        };
        let text = value
            .to_str()
            .map_err(|_| Fault::new(Code::Unauthenticated, "the authorization header is not ASCII"))?
            .trim();
        let token = match text.split_at_checked(6) {
            Some((scheme, rest))
                if scheme.eq_ignore_ascii_case("bearer") && !rest.starts_with(|c: char| !c.is_whitespace()) =>
            {
                rest.trim_start()
            }
            _ => text,
        };
        Ok(Self { call, token: token.to_owned() })
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = axum::response::Response;

    async fn from_request_parts(parts: &mut request::Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let call = current();
        Caller::of(call.clone(), &parts.headers).map_err(|fault| answer::fault(&fault, &call))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt;
    use http::HeaderValue;

    use super::*;

    fn token(header: &[u8]) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(header).expect("the test sends a legal header"));
        let call = Call::begin(None, None, None);
        Caller::of(call, &headers).map(|caller| caller.token).map_err(|fault| fault.code)
    }

    #[test]
    fn the_scheme_of_a_token_is_optional_and_its_case_is_free() {
        for header in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c ", "a.b.c", " a.b.c"] {
            assert_eq!(token(header.as_bytes()).as_deref(), Ok("a.b.c"), "{header}");
        }
    }

    #[test]
    fn a_bare_scheme_is_no_token() {
        for header in ["Bearer", "bearer ", ""] {
            assert_eq!(token(header.as_bytes()).as_deref(), Ok(""), "{header:?}");
        }
    }

    #[test]
    fn a_token_that_begins_like_the_scheme_is_kept() {
        assert_eq!(token(b"bearertoken").as_deref(), Ok("bearertoken"));
    }

    #[test]
    fn a_token_that_is_not_ascii_is_refused() {
        assert_eq!(token("Bearer ä".as_bytes()), Err(Code::Unauthenticated));
    }

    #[tokio::test]
    async fn work_that_panics_is_an_internal_fault_without_its_text() {
        let call = Call::begin(None, None, Some(Duration::from_secs(60)));
        let fault =
            guarded(&call, pin!(async { panic!("a secret") })).await.map(|()| "no answer").expect_err("it panics");
        assert_eq!(fault.code, Code::Internal);
        assert!(!fault.message.contains("secret"), "{fault}");
        assert_eq!(guarded(&call, pin!(async { 7 })).await, Ok(7));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_the_limit() {
        let fault = collected(axum::body::Body::from("12345"), 4, SPILL).await.expect_err("it is over the limit");
        assert_eq!(fault.code, Code::TooLarge);
        assert_eq!(fault.message, "the body of 5 bytes is over the limit of 4 bytes");
        assert_eq!(collected(axum::body::Body::from("1234"), 4, SPILL).await.as_deref(), Ok(&b"1234"[..]));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_that_never_comes_is_refused_soon() {
        let endless = futures::stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from("12345")) })
            .chain(futures::stream::pending());
        let body = axum::body::Body::from_stream(endless);
        let fault = collected(body, 4, Duration::from_millis(1)).await.expect_err("it is over the limit");
        assert_eq!(fault.code, Code::TooLarge);
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let pieces = ["ab", "cd", "ef"].map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece)));
        let body = axum::body::Body::from_stream(futures::stream::iter(pieces));
        assert_eq!(collected(body, 6, SPILL).await.as_deref(), Ok(&b"abcdef"[..]));
    }
}
