//! Changes of rules: every node of auth-rules is followed, since each has its rules in force at a moment of its own, and
//! any of them may decide the next read.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use mesh::{Call, Fault, Mesh};
use proto::{Links, auth::RevisionsRequest, services::auth::AUTH_RULES};
use tokio::{sync::watch, time::Instant};

use super::{FeedState, cannot_be_followed};
use crate::live::retry::RETRY_TIMEOUT;

/// The pause before a node whose stream broke off is asked again, if it is up.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Tells `feed` of other rules on any node. Returns the fault once none could be followed for long.
pub async fn follow(mesh: &Mesh, feed: &watch::Sender<FeedState>) -> Fault {
    let mut nodes = mesh.nodes(&AUTH_RULES);
    let (live, mut last_live) = (AtomicUsize::new(0), Instant::now());
    let (mut followed, mut ends) = (BTreeSet::new(), FuturesUnordered::new());
    loop {
        for (address, node) in nodes.up() {
            if followed.insert(address) {
                let live = &live;
                ends.push(async move { (address, follow_node(&node, feed, live).await) });
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
                    tracing::warn!("changes of rules cannot be followed: live queries end");
                    return cannot_be_followed();
                }
                last_live = Instant::now();
            }
        }
    }
}

/// Follows one node until its stream ends; whether it told anything. `live` counts those that do.
async fn follow_node(mesh: &Mesh, feed: &watch::Sender<FeedState>, live: &AtomicUsize) -> bool {
    let mut is_live = false;
    let call = Call::begin(None, None, None);
    if let Ok(mut revisions) = Box::pin(mesh.auth_rules().revisions(&call, RevisionsRequest {})).await {
        while let Some(Ok(_)) = revisions.next().await {
            if !std::mem::replace(&mut is_live, true) {
                live.fetch_add(1, Ordering::Relaxed);
            }
            feed.send_replace(FeedState::Live);
        }
    }
    if is_live {
        live.fetch_sub(1, Ordering::Relaxed);
    }
    tokio::time::sleep(RETRY_INTERVAL).await;
    is_live
}
