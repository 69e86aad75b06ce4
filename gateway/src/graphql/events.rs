//! GraphQL over server-sent events: the response to a request is a stream of its answers, "distinct connections mode".
//!
//! What stops a request before its document is read is told by the status of the response, as by POST. Everything else
//! is told in the stream: clients see no more of another status than the status, and repeat the request.
//!
//! Source: github.com/enisdenjo/graphql-sse, PROTOCOL.md.

use std::{pin::pin, sync::Arc};

use axum::{body, response::Response};
use futures::{Stream, StreamExt, stream as streams};
use http::StatusCode;
use mesh::{Call, Code, Fault, listener::Connection};
use tokio::sync::{oneshot, watch};

use super::{
    Media, Responder, Transport,
    changes::ChangeAnswers,
    function_stream::FunctionStream,
    names::Names,
    plan::{Kind, Plan},
    request::Request,
    response::{self, LocatedFault},
};
use crate::{
    Service,
    catalogue::Project,
    edge::Caller,
    events::{Ends, Event, EventQueue, EventStream},
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
        let peer = connection.map(|connection| connection.peer.ip());
        let mut hold = match self.service.hold(self.caller, &project, peer, request.memory_bytes()).await {
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
        let stream = |events, hold| EventStream::new(self.service, &queue, events, ends(&self.caller.call), hold);
        match execution.unwrap_or_else(|fault| Execution::Done(self.fault(fault))) {
            // No other status is one of the method alone.
            Execution::Done(refused) if refused.status() == StatusCode::METHOD_NOT_ALLOWED => refused,
            Execution::Done(answer) => {
                let event = self.answered(answer, &queue).await;
                stream(streams::once(std::future::ready(event)).boxed(), hold).response()
            }
            Execution::Live(names, plan) => {
                if let Err(fault) = hold.resize(plan.memory_bytes()) {
                    let event = errors(&fault, &self.caller.call);
                    return stream(streams::once(std::future::ready(event)).boxed(), hold).response();
                }
                let beside = match hold.beside() {
                    Ok(beside) => beside,
                    Err(fault) => return self.fault(fault),
                };
                let subscription = Subscription {
                    service: self.service.clone(),
                    caller: self.caller.clone(),
                    names,
                    plan,
                    queue: queue.clone(),
                    id: hold.caller(),
                    beside: Some(beside),
                    followed: None,
                };
                stream(subscription.events().boxed(), hold).response()
            }
        }
    }

    /// The answer to an operation that is carried out once. What it did is done, so there is no other status for what
    /// finds no room.
    async fn answered(&self, answer: Response, queue: &EventQueue) -> Event {
        let answer = next(&bytes(answer).await);
        queue.counted(answer).unwrap_or_else(|fault| errors(&fault, &self.caller.call))
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
    /// Counts what it comes to hold, until it has begun.
    beside: Option<Hold>,
    /// What is followed, once it has begun.
    followed: Option<Followed>,
}

/// What a subscription follows.
enum Followed {
    /// The answer as a whole.
    Answer(LiveQuery),
    /// Each change of a row.
    Changes(ChangeAnswers),
    /// The answers of a function.
    Function(FunctionStream),
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
                Ok((Ok(Some(event)), subscription)) => (event, Some(subscription)),
                Ok((Ok(None), _)) => return None,
                Ok((Err(fault), subscription)) => (subscription.failed(fault).await, None),
                // The task is logged.
                Err(_) => (errors(&Fault::new(Code::Internal, "the answer could not be made"), &call), None),
            })
        })
    }

    /// The next answer; `None` at the end. Nothing is read before somebody asks for it: a slow client gets the newest state.
    async fn next(&mut self) -> Result<Option<Event>, Fault> {
        if self.followed.is_none() {
            self.followed = Some(self.begin().await?);
        }
        match &mut self.followed {
            Some(Followed::Answer(live)) => loop {
                live.changed().await;
                let Some(answers) = Box::pin(live.read()).await? else { continue };
                let event = next(&response::read(&self.plan, &answers).json);
                drop(answers);
                match self.queue.counted(event) {
                    Ok(event) => {
                        live.delivered();
                        return Ok(Some(event));
                    }
                    Err(fault) => live.postponed(fault)?,
                }
            },
            // The stream of one operation has no id of it.
            Some(Followed::Changes(answers)) => {
                self.queue.counted(next(&answers.next(&self.plan, "").await?)).map(Some)
            }
            Some(Followed::Function(answers)) => {
                let Some(answer) = answers.next(&self.plan).await? else { return Ok(None) };
                self.queue.counted(next(&answer)).map(Some)
            }
            None => Err(Fault::internal("the answer could not be made", "nothing is followed")),
        }
    }

    async fn begin(&mut self) -> Result<Followed, Fault> {
        // Nobody renews the token: the sender is dropped.
        let (_, token) = watch::channel(self.caller.token.clone());
        let subscriber = Subscriber { caller: self.id, request_id: self.caller.call.request_id.clone(), token };
        let (live, project) = (self.service.live(), &self.names.project);
        if !self.plan.calls.is_empty() {
            let begun = FunctionStream::begin(&self.service, (&self.caller, subscriber), project, &self.plan);
            return Ok(Followed::Function(Box::pin(begun).await?));
        }
        match self.plan.watched().zip(self.beside.take()) {
            Some((rows, hold)) => {
                let watched = (&*self.plan, rows);
                Ok(Followed::Changes(ChangeAnswers::begin(live, project, watched, subscriber, hold).await?))
            }
            None => Ok(Followed::Answer(live.begin(project, self.plan.clone(), subscriber).await?)),
        }
    }

    async fn failed(self, fault: Fault) -> Event {
        let responder = Responder { service: &self.service, caller: &self.caller, media: Media::Events };
        next(&bytes(responder.fail(&self.plan, fault, "read")).await)
    }
}

/// The event of an answer.
fn next(answer: &[u8]) -> Event {
    Event::new("next", None, answer)
}

/// The errors of a request that is not carried out.
fn errors(fault: &Fault, call: &Call) -> Event {
    next(&response::errors(&[LocatedFault { fault, at: None, path: &[] }], call))
}

/// The ends of a stream of answers.
fn ends(call: &Call) -> Ends {
    let drained = errors(&Fault::new(Code::Unavailable, "the node stops; connect again"), call);
    Ends { drained: Some(drained), last: Some(Event::new("complete", None, b"")) }
}

/// The body of an answer, which is in memory already.
async fn bytes(response: Response) -> Vec<u8> {
    // An answer has a limit of its own, and none is read from anywhere.
    body::to_bytes(response.into_body(), usize::MAX).await.map(Vec::from).unwrap_or_default()
}
