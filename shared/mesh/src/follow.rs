//! Following of streams that do not end: again where they break off, and each node of a service where each has a state of
//! its own.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use proto::{
    Links,
    auth::RevisionsRequest,
    link::{Messages, Service},
    services::auth::AUTH_RULES,
};
use tokio::time::Instant;
use tonic::Status;

use crate::{Call, Code, Fault, Mesh};

pub use feeds::{Feed, SharedFeeds};

mod feeds;

/// How long what fails is tried again.
pub const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Back-off before the first retry of a stream that broke off; doubles up to [`STREAM_RETRY_MAX`].
const STREAM_RETRY_FIRST: Duration = Duration::from_millis(20);
const STREAM_RETRY_MAX: Duration = Duration::from_secs(1);
/// The pause before a node whose stream broke off is asked again, if it is up.
const NODE_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Retries of what fails for a while: less and less often, and not for ever.
#[derive(Debug)]
pub struct Retries {
    first: Duration,
    max: Duration,
    /// Since when it fails, and the last back-off.
    failing: Option<(Instant, Duration)>,
}

impl Retries {
    /// Retries with a back-off from `first`, doubled up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failing: None }
    }

    /// It works.
    pub fn succeeded(&mut self) {
        self.failing = None;
    }

    /// It failed: how long to wait before it is tried again; `None` where it has failed for too long.
    pub fn failed(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let (since, wait) = match self.failing {
            Some((since, wait)) => (since, (wait * 2).min(self.max)),
            None => (now, self.first),
        };
        self.failing = Some((since, wait));
        (now.duration_since(since) < RETRY_TIMEOUT).then_some(wait)
    }
}

/// The fault of changes that nobody tells of.
pub fn unfollowed() -> Fault {
    Fault::new(Code::Unavailable, "changes cannot be followed now")
}

/// Gives `told` the messages of the streams that `open` opens, another one where a stream breaks off or `told` fails.
/// Returns why that ends for good; `what` is followed, as the log names it.
pub async fn stream<M: 'static>(
    what: &impl Debug,
    mut open: impl FnMut() -> BoxFuture<'static, Result<Messages<M>, Status>>,
    mut told: impl FnMut(M) -> Result<(), Status>,
) -> Fault {
    let mut retries = Retries::new(STREAM_RETRY_FIRST, STREAM_RETRY_MAX);
    loop {
        let ended = match open().await {
            Ok(messages) => tell(messages, &mut told, &mut retries).await,
            Err(status) => Err(status),
        };
        let ended = ended.map_or_else(Fault::from, |()| Fault::new(Code::Unavailable, "the stream has ended"));
        if !matches!(ended.code, Code::Unavailable | Code::Deadline | Code::Internal) {
            return ended;
        }
        let Some(wait) = retries.failed() else {
            tracing::warn!(?what, fault = %ended, "changes cannot be followed: who follows them ends");
            return unfollowed();
        };
        tracing::debug!(?what, fault = %ended, "changes are not followed now");
        tokio::time::sleep(wait).await;
    }
}

/// Gives `told` the messages until they end.
async fn tell<M>(
    mut messages: Messages<M>,
    told: &mut impl FnMut(M) -> Result<(), Status>,
    retries: &mut Retries,
) -> Result<(), Status> {
    while let Some(message) = messages.next().await {
        let message = message?;
        retries.succeeded();
        told(message)?;
    }
    Ok(())
}

/// Calls `told` whenever other rules may be in force: every node of auth-rules is followed, since each has its rules in force
/// at a moment of its own, and any of them may decide next. Ends as [`every_node`].
pub async fn rules(mesh: &Mesh, told: impl Fn()) {
    let open = |node: Mesh| {
        async move { node.auth_rules().revisions(&Call::begin(None, None, None), RevisionsRequest {}).await }.boxed()
    };
    every_node(mesh, &AUTH_RULES, open, told).await;
}

/// Calls `told` for each message of the streams that `open` opens at every node of `service`, as the nodes come and go.
/// Ends once none could be followed for [`RETRY_TIMEOUT`].
pub async fn every_node<M: 'static>(
    mesh: &Mesh,
    service: &'static Service,
    open: impl Fn(Mesh) -> BoxFuture<'static, Result<Messages<M>, Status>>,
    told: impl Fn(),
) {
    let mut nodes = mesh.nodes(service);
    let (live, mut last_live) = (AtomicUsize::new(0), Instant::now());
    let (mut followed, mut ends) = (BTreeSet::<Option<SocketAddr>>::new(), FuturesUnordered::new());
    loop {
        for (address, node) in nodes.up() {
            if followed.insert(address) {
                ends.push(follow_node(open(node), &told, &live).map(move |was_live| (address, was_live)));
            }
        }
        tokio::select! {
            Some((address, was_live)) = ends.next() => {
                followed.remove(&address);
                if was_live {
                    last_live = Instant::now();
                }
            }
            () = nodes.changed() => {}
            () = tokio::time::sleep_until(last_live + RETRY_TIMEOUT) => {
                if live.load(Ordering::Relaxed) == 0 {
                    return;
                }
                last_live = Instant::now();
            }
        }
    }
}

/// Follows one node until its stream ends; whether it told anything. `live` counts those that do.
async fn follow_node<M>(
    opening: BoxFuture<'static, Result<Messages<M>, Status>>,
    told: &impl Fn(),
    live: &AtomicUsize,
) -> bool {
    let mut is_live = false;
    if let Ok(mut messages) = opening.await {
        while let Some(Ok(_)) = messages.next().await {
            if !std::mem::replace(&mut is_live, true) {
                live.fetch_add(1, Ordering::Relaxed);
            }
            told();
        }
    }
    if is_live {
        live.fetch_sub(1, Ordering::Relaxed);
    }
    tokio::time::sleep(NODE_RETRY_INTERVAL).await;
    is_live
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_less_and_less_often_and_for_a_while() {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(5));
        let mut retries = Retries::new(first, max);
        let waits: Vec<_> = (0..4).map(|_| retries.failed().map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(5)]);
        tokio::time::advance(RETRY_TIMEOUT).await;
        assert_eq!(retries.failed(), None);
        retries.succeeded();
        assert_eq!(retries.failed(), Some(first));
    }
}
