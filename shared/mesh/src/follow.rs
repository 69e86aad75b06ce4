//! Following of streams that do not end: again where they break off, and each node of a service where each has a state of
//! its own.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use proto::link::{Messages, Service};
use tokio::time::Instant;
use tonic::Status;

use crate::Mesh;

/// How long what fails is tried again.
pub const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
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
