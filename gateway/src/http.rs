//! HTTP toolbox below the protocols: bodies, answers, CORS, load shedding, deadlines.
//!
//! It uses none of the protocols; what mounts them is the module `front`.

mod admission;
pub mod answer;
pub mod body;
mod caller;
pub mod claims;
pub mod cors;
mod headers;
mod send_budget;

pub(crate) use admission::{Admission, Ticket};
pub(crate) use caller::{TOKEN_BYTES_MAX, bearer};
pub(crate) use headers::{ContentType, GRPC_TIMEOUT, HeaderSummary, REQUEST_ID, TRACEPARENT};
pub(crate) use send_budget::{Reservation, SendBudget, SocketProgress};

use std::{panic::AssertUnwindSafe, pin::Pin, sync::Arc, task::Poll};

use futures::FutureExt;
use mesh::{Call, Code, Fault, listener::Connection, tasks::panic_text};

/// The call that is being answered; a new one where the routes are served without a front.
pub(crate) fn current() -> Call {
    Call::current().unwrap_or_else(|| Call::begin(None, None, None))
}

/// The connection of a request; where routes are served without a listener, one from nowhere.
pub(crate) fn or_unknown(connection: Option<Arc<Connection>>) -> Arc<Connection> {
    connection.unwrap_or_else(|| Arc::new(Connection::new(([0, 0, 0, 0], 0).into())))
}

/// Bytes of plain segments.
static IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        is_plain[byte] = (byte as u8).is_ascii_alphanumeric() || byte == b'_' as usize || byte == b'-' as usize;
        byte += 1;
    }
    is_plain
};

/// What the paths of the projects' APIs begin with; the project's id follows.
pub(crate) const API_PREFIX: &str = "/v1/api/";

/// The first segment of a path that needs no decoding, and what follows its slash: letters, digits, `_` and `-`.
///
/// Segments are short: a search made for long texts takes longer than looking at each byte.
pub(crate) fn plain_segment(path: &str) -> Option<(&str, &str)> {
    let end = path.bytes().position(|byte| !IS_PLAIN[usize::from(byte)]).unwrap_or(path.len());
    match path.as_bytes().get(end) {
        _ if end == 0 => None,
        None => Some((path, "")),
        Some(b'/') => Some((&path[..end], &path[end + 1..])),
        Some(_) => None,
    }
}

/// Runs `work` under the deadline of `call` and turns a panic into an internal fault.
///
/// A timer is set only for work that has to wait.
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

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_an_internal_fault_without_its_text() {
        let call = Call::begin(None, None, Some(Duration::from_secs(60)));
        let fault =
            guarded(&call, pin!(async { panic!("a secret") })).await.map(|()| "no answer").expect_err("it panics");
        assert_eq!(fault.code, Code::Internal);
        assert!(!fault.message.contains("secret"), "{fault}");
        assert_eq!(guarded(&call, pin!(async { 7 })).await, Ok(7));
    }
}
