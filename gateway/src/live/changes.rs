//! Watches: the changes of the rows of a table, one message each.
//!
//! The service for live changes authorises, filters and orders them. Here a watch goes on where its stream breaks off or its
//! token is renewed, after the position of the last message, so that nothing is lost or told twice.

use std::{slice, sync::Arc};

use futures::StreamExt;
use mesh::{Code, Fault, follow::Retries};
use proto::{
    link::Messages,
    realtime::{Event, WatchRequest, WatchResponse},
};
use query::{Field, Read};
use tokio::{sync::watch, time::Instant};

use super::{
    LiveQueries, LiveShared, RETRY_FIRST, RETRY_MAX, Subscriber, dependencies::Dependencies,
    followed_tables::FollowedTable,
};
use crate::catalogue::Project;

/// What is watched of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchedRows {
    /// The rows, and what is told of them.
    pub read: Read,
    /// What is told of a row as it was; none given means the fields of `read`.
    pub before: Vec<Field>,
    /// The rows that there are at the beginning are not told.
    pub skip_initial: bool,
    /// The position to go on after; empty: from now on.
    pub after: String,
}

/// A watch. Dropped, it ends.
pub struct Watch {
    shared: Arc<LiveShared>,
    /// The tables for which it counts.
    _followed: Vec<FollowedTable>,
    /// As it began, with the position of the last message and the token of the stream.
    request: WatchRequest,
    request_id: Arc<str>,
    token: watch::Receiver<Arc<str>>,
    /// `None` where it broke off.
    messages: Option<Messages<WatchResponse>>,
    /// Whether a message was told, and whether the stream is another one since.
    has_told: bool,
    is_resumed: bool,
    retries: Retries,
    /// When a stream that broke off is begun again.
    retry: Option<Instant>,
}

impl LiveQueries {
    /// Begins a watch for `subscriber`, once that is authorised.
    ///
    /// Errors: of authorisation; `BAD_REQUEST` for what cannot be watched, told to who may read it only; `TOO_MANY` where the
    /// caller follows as many tables as one may.
    pub(crate) async fn watch(
        &self,
        project: &Project,
        rows: WatchedRows,
        subscriber: Subscriber,
    ) -> Result<Watch, Fault> {
        let Subscriber { caller: subscribed, request_id, mut token } = subscriber;
        let shared = self.shared.clone();
        let caller = shared.caller(project, &request_id, token.borrow_and_update().clone());
        Box::pin(shared.edge.authorize_reads(&caller, project, slice::from_ref(&rows.read))).await?;
        let dependencies = Dependencies::of(project, slice::from_ref(&rows.read), &[], &[])?;
        let followed = dependencies.named_tables().map(|table| shared.feeds.watched(table, subscribed));
        let _followed = followed.collect::<Result<Vec<_>, _>>()?;
        let WatchedRows { read, before, skip_initial, after } = rows;
        let request =
            WatchRequest { project: project.id.clone(), token: caller.token, read, before, skip_initial, after };
        shared.open.inc();
        let mut watch = Watch {
            shared,
            _followed,
            request,
            request_id,
            token,
            messages: None,
            has_told: false,
            is_resumed: false,
            retries: Retries::new(RETRY_FIRST, RETRY_MAX),
            retry: None,
        };
        watch.connect().await?;
        Ok(watch)
    }
}

impl Watch {
    /// The next message. An error ends the watch. Cancel safe.
    pub async fn next(&mut self) -> Result<WatchResponse, Fault> {
        loop {
            if self.messages.is_none() {
                if let Some(retry) = self.retry {
                    tokio::time::sleep_until(retry).await;
                }
                if let Err(fault) = self.connect().await {
                    self.failed(fault)?;
                }
                continue;
            }
            let message = tokio::select! {
                // Nobody can renew the token any more where the sender is gone.
                Ok(()) = self.token.changed() => None,
                Some(message) = next_of(&mut self.messages) => Some(message),
            };
            match message {
                None => self.messages = None,
                Some(Ok(message)) => {
                    self.request.after.clone_from(&message.position);
                    self.retries.succeeded();
                    self.retry = None;
                    // That it goes on is no news.
                    let is_resumed = std::mem::take(&mut self.is_resumed);
                    if is_resumed && matches!(message.event, Some(Event::Ready(_))) {
                        continue;
                    }
                    self.has_told = true;
                    return Ok(message);
                }
                Some(Err(fault)) => self.failed(fault)?,
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Fault> {
        self.request.token = self.token.borrow_and_update().clone();
        let begun = self.shared.edge.watch(&self.request_id, self.request.clone());
        let late = |_| Fault::new(Code::Deadline, "the changes cannot be followed now");
        let messages = tokio::time::timeout(self.shared.config.time, begun).await.map_err(late)??;
        (self.messages, self.is_resumed) = (Some(messages), self.has_told);
        Ok(())
    }

    /// Plans another stream after a failure that may pass or of a token that was renewed; any other, and one that lasts too
    /// long, is given back.
    fn failed(&mut self, fault: Fault) -> Result<(), Fault> {
        self.messages = None;
        let is_of_token = matches!(fault.code, Code::TokenExpired | Code::Unauthenticated);
        if is_of_token && *self.token.borrow() != self.request.token {
            return Ok(());
        }
        let may_pass = matches!(fault.code, Code::Unavailable | Code::Deadline);
        let Some(wait) = may_pass.then(|| self.retries.failed()).flatten() else { return Err(fault) };
        self.retry = Some(Instant::now() + wait);
        Ok(())
    }
}

/// The next message of a stream, whose end is a failure that may pass; `None` where there is no stream.
async fn next_of(messages: &mut Option<Messages<WatchResponse>>) -> Option<Result<WatchResponse, Fault>> {
    let next = messages.as_mut()?.next().await;
    let broken = || Err(Fault::new(Code::Unavailable, "the changes cannot be followed now"));
    Some(next.map_or_else(broken, |message| message.map_err(Fault::from)))
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.open.dec();
    }
}
