//! GraphQL over server-sent events: the response to a request is a stream of its answers, "distinct connections mode".
//!
//! What stops a request before its document is read is told by the status of the response, as by POST. Everything else
//! is told in the stream: clients see no more of another status than the status, and repeat the request.
//!
//! Source: github.com/enisdenjo/graphql-sse, PROTOCOL.md.

mod stream;

use std::{pin::pin, sync::Arc};

use axum::{body, response::Response};
use futures::{Stream, StreamExt, stream as streams};
use http::StatusCode;
use mesh::{Call, Code, Fault, listener::Connection};
use tokio::sync::{oneshot, watch};

use self::stream::{Event, EventQueue, EventStream};
use super::{
    Media, Responder, Transport,
    names::Names,
    plan::{Kind, Plan},
    request::Request,
    response::{self, LocatedFault},
};
use crate::{
    Service,
    catalogue::Project,
    edge::Caller,
    http::guarded,
    live::{CallerId, Hold, LiveQuery, Subscriber},
};

/// What became of a request.
enum Execution {
    /// The answer.
    Done(Response),
    /// A subscription to begin.
    Live(Arc<Names>, Arc<Plan>),
}

impl Responder<'_> {
    /// The stream of the answers to `request`, which came on `connection`.
    pub(super) async fn events(
        &self,
        project: Arc<Project>,
        transport: Transport,
        request: Request,
        connection: Option<&Arc<Connection>>,
    ) -> Response {
        let mut hold = match self.hold(&project, &request, connection).await {
            Ok(hold) => hold,
            Err(fault) => return self.fault(fault),
        };
        let work = async {
            match self.plan(project, transport, request).await {
                Ok((names, plan)) if plan.kind == Kind::Subscription => Execution::Live(names, plan),
                Ok((names, plan)) => Execution::Done(self.execute(&names, plan).await),
                Err(refused) => Execution::Done(*refused),
            }
        };
        let execution = guarded(&self.caller.call, pin!(work)).await;
        let queue = EventQueue::new(self.service.send_budget().clone(), connection);
        let stream = |events, hold| EventStream::new(self.service, &self.caller.call, &queue, events, hold);
        match execution.unwrap_or_else(|fault| Execution::Done(self.fault(fault))) {
            // No other status is one of the method alone.
            Execution::Done(refused) if refused.status() == StatusCode::METHOD_NOT_ALLOWED => refused,
            Execution::Done(answer) => {
                let event = self.answered(answer, &queue).await;
                stream(streams::once(std::future::ready(event)).boxed(), hold).response()
            }
            Execution::Live(names, plan) => {
                if let Err(fault) = hold.resize(plan.memory_bytes()) {
                    let event = Event::errors(&fault, &self.caller.call);
                    return stream(streams::once(std::future::ready(event)).boxed(), hold).response();
                }
                let subscription = Subscription {
                    service: self.service.clone(),
                    caller: self.caller.clone(),
                    names,
                    plan,
                    queue: queue.clone(),
                    id: hold.caller(),
                    live: None,
                };
                stream(subscription.events().boxed(), hold).response()
            }
        }
    }

    /// Counts the request for its caller. Errors: the token is not valid, or the caller has too many.
    async fn hold(
        &self,
        project: &Project,
        request: &Request,
        connection: Option<&Arc<Connection>>,
    ) -> Result<Hold, Fault> {
        if !self.caller.token.is_empty() {
            // Else a forged token would count for whom it names.
            self.service.edge().reach(self.caller, project).await?;
        }
        let peer = connection.map(|connection| connection.peer.ip());
        let caller = CallerId::of(&project.id, &self.caller.token, peer);
        self.service.quotas().socket(caller)?.hold(request.memory_bytes())
    }

    /// The answer to an operation that is carried out once. What it did is done, so there is no other status for what
    /// finds no room.
    async fn answered(&self, answer: Response, queue: &EventQueue) -> Event {
        let answer = Event::next(&bytes(answer).await);
        queue.counted(answer).unwrap_or_else(|fault| Event::errors(&fault, &self.caller.call))
    }
}

/// A subscription that is answered whenever its answer differs.
struct Subscription {
    service: Service,
    caller: Caller,
    names: Arc<Names>,
    plan: Arc<Plan>,
    queue: EventQueue,
    id: CallerId,
    /// The live query, once it has begun.
    live: Option<LiveQuery>,
}

impl Subscription {
    /// Its answers; the last one is the error that ended it.
    ///
    /// Each is made by a task: a client that takes nothing in the middle of a read must not keep its turn.
    fn events(self) -> impl Stream<Item = Event> + Send {
        streams::unfold(Some(self), |subscription| async {
            let mut subscription = subscription?;
            let (tasks, call) = (subscription.service.tasks().clone(), subscription.caller.call.clone());
            let (mut made, event) = oneshot::channel();
            tasks.spawn("event stream", async move {
                let next = tokio::select! {
                    () = made.closed() => return,
                    next = subscription.next() => next,
                };
                // Nobody waits for it where the client has left.
                let _ = made.send((next, subscription));
            });
            Some(match event.await {
                Ok((Ok(event), subscription)) => (event, Some(subscription)),
                Ok((Err(fault), subscription)) => (subscription.failed(fault).await, None),
                // The task is logged.
                Err(_) => (Event::errors(&Fault::new(Code::Internal, "the answer could not be made"), &call), None),
            })
        })
    }

    /// The next answer. Nothing is read before somebody asks for it: a slow client gets the newest state.
    async fn next(&mut self) -> Result<Event, Fault> {
        let live = match &mut self.live {
            Some(live) => live,
            none => {
                // Nobody renews the token: the sender is dropped.
                let (_, token) = watch::channel(self.caller.token.clone());
                let subscriber = Subscriber { caller: self.id, request_id: self.caller.call.request_id.clone(), token };
                none.insert(self.service.live().begin(&self.names.project, self.plan.clone(), subscriber).await?)
            }
        };
        loop {
            live.changed().await;
            let Some(answers) = live.read().await? else { continue };
            let event = Event::next(&response::read(&self.plan, &answers).json);
            drop(answers);
            match self.queue.counted(event) {
                Ok(event) => {
                    live.delivered();
                    return Ok(event);
                }
                Err(fault) => live.postponed(fault)?,
            }
        }
    }

    async fn failed(&self, fault: Fault) -> Event {
        let responder = Responder { service: &self.service, caller: &self.caller, media: Media::Events };
        Event::next(&bytes(responder.fail(&self.plan, fault, "read")).await)
    }
}

impl Event {
    /// The errors of a request that is not carried out.
    fn errors(fault: &Fault, call: &Call) -> Self {
        Self::next(&response::errors(&[LocatedFault { fault, at: None, path: &[] }], call))
    }
}

/// The body of an answer, which is in memory already.
async fn bytes(response: Response) -> Vec<u8> {
    // An answer has a limit of its own, and none is read from anywhere.
    body::to_bytes(response.into_body(), usize::MAX).await.map(Vec::from).unwrap_or_default()
}
