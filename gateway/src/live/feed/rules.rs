//! Changes of rules: every node of auth-rules is followed, since each has its rules in force at a moment of its own, and
//! any of them may decide the next read.

use futures::FutureExt;
use mesh::{Call, Fault, Mesh, follow};
use proto::{Links, auth::RevisionsRequest, services::auth::AUTH_RULES};
use tokio::sync::watch;

use super::{FeedState, cannot_be_followed};

/// Tells `feed` of other rules on any node. Returns the fault once none could be followed for long.
pub async fn follow(mesh: &Mesh, feed: &watch::Sender<FeedState>) -> Fault {
    let open = |node: Mesh| {
        async move { node.auth_rules().revisions(&Call::begin(None, None, None), RevisionsRequest {}).await }.boxed()
    };
    follow::every_node(mesh, &AUTH_RULES, open, || {
        feed.send_replace(FeedState::Live);
    })
    .await;
    tracing::warn!("changes of rules cannot be followed: live queries end");
    cannot_be_followed()
}
