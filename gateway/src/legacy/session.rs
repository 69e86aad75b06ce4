//! The session of a JSON socket: its client begins and ends live queries and registers as a worker by messages.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use mesh::{Call, Code, Fault};
use proto::functions::WorkResult;
use tokio::sync::mpsc;

use super::{
    message::{Head, JsonMessage, JsonRequest, LiveQueryRequest, Query, UNREADABLE},
    subscription::{LiveSubscription, SocketQueries},
    worker::{RegisterRequest, SocketWorker},
};
use crate::{
    edge::Caller,
    live::CallerId,
    socket::{self, Closing, Completed, Completion, Operation, Outgoing, Received, SocketState},
    worker::{FromWorker, Registration},
};

/// What the ids of operations begin with that are workers: clients choose those of live queries, which are shown as texts.
const WORKER: &str = "\u{1}worker ";

/// State of one connection.
pub struct JsonSession {
    state: SocketState,
    /// The token of the handshake, for messages without one.
    token: Arc<str>,
    queries: SocketQueries,
    /// Queues of the answers of its workers, by their services.
    workers: HashMap<String, mpsc::Sender<FromWorker>>,
    /// What is begun first, while its token is checked: no message is acted on before it is known for whom they count.
    checking: Option<Checking>,
}

struct Checking {
    check: BoxFuture<'static, Result<(), Fault>>,
    begin: Begin,
}

/// What a message begins.
enum Begin {
    Query(BeginQuery),
    Worker(Head, RegisterRequest),
}

/// A live query to begin.
struct BeginQuery {
    head: Head,
    query: Query,
    subscription: Box<LiveQueryRequest>,
}

impl Begin {
    fn token(&mut self) -> &mut Arc<str> {
        match self {
            Begin::Query(begin) => &mut begin.subscription.token,
            Begin::Worker(_, request) => &mut request.token,
        }
    }

    /// The reply that it is not begun.
    fn refused(&self, error: &str) -> Vec<u8> {
        match self {
            Begin::Query(begin) => begin.head.refused(&begin.query, error),
            Begin::Worker(head, _) => head.not_registered(error),
        }
    }
}

impl socket::SocketSession for JsonSession {
    fn state(&self) -> &SocketState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut SocketState {
        &mut self.state
    }

    fn has_begun(&self) -> bool {
        self.checking.is_some() || self.state.is_counted()
    }

    /// A client need not say anything: some connect before they have something to ask. It leaves room to those who have yet
    /// to say who they are.
    fn time_out(&mut self) -> Result<(), Closing> {
        let caller = CallerId::of(&self.state.project, "", self.state.peer);
        self.state.count_for(caller).map_err(|fault| Closing::full(&fault))
    }

    fn takes_messages(&self) -> bool {
        self.checking.is_none()
    }

    /// Clients know no message for that; protocol pings are sent as to all.
    fn keep_alive(&self, _: &Outgoing) {}

    async fn next(&mut self, outgoing: &Outgoing) -> Result<(), Closing> {
        if self.state.running.is_empty()
            && self.checking.is_none()
            && let Some(closing) = self.queries.closing()
        {
            return Err(closing);
        }
        let checked = async {
            match &mut self.checking {
                Some(checking) => (&mut checking.check).await,
                None => std::future::pending().await,
            }
        };
        let checked = tokio::select! {
            Some(ended) = self.state.running.next_end() => return ended,
            checked = checked => checked,
        };
        let Some(Checking { mut begin, .. }) = self.checking.take() else { return Ok(()) };
        let token = match checked {
            Ok(()) => begin.token().clone(),
            // Rules that need none allow it all the same, and it does not count for whom a forged token names.
            Err(fault) if fault.code == Code::Unauthenticated => Arc::default(),
            Err(fault) => return Err(Closing::failed(&fault)),
        };
        self.identify(&token, begin, outgoing)
    }

    fn received(&mut self, message: Received, outgoing: &Outgoing) -> Result<(), Closing> {
        let text = match &message {
            Received::Text(text) => text.as_bytes(),
            Received::Binary(bytes) => bytes,
        };
        self.state.completed(text.len())?;
        let parsed = JsonMessage::parse(text, self.state.service.guard());
        drop(message);
        match parsed {
            Ok(JsonMessage { head, request }) => self.act(head, request, outgoing),
            Err(what) => {
                outgoing.reply(UNREADABLE.as_bytes().to_vec())?;
                Err(Closing::unreadable(&format!("invalid request: {what}")))
            }
        }
    }
}

impl JsonSession {
    /// The session of a connection whose handshake had `token`.
    pub fn new(state: SocketState, token: Arc<str>) -> Self {
        Self { state, token, queries: SocketQueries::default(), workers: HashMap::new(), checking: None }
    }

    fn act(&mut self, head: Head, request: JsonRequest, outgoing: &Outgoing) -> Result<(), Closing> {
        match request {
            JsonRequest::Subscribe(query, Ok(subscription)) => {
                self.check(Begin::Query(BeginQuery { head, query, subscription }), outgoing)
            }
            JsonRequest::Subscribe(query, Err(wrong)) => outgoing.reply(head.refused(&query, &wrong)),
            JsonRequest::Unsubscribe(query) => {
                self.end(&query.id, outgoing)?;
                outgoing.reply(head.acknowledged(&query))
            }
            JsonRequest::Register(Ok(request)) => self.check(Begin::Worker(head, request), outgoing),
            JsonRequest::Register(Err(wrong)) => outgoing.reply(head.not_registered(&wrong)),
            JsonRequest::WorkerAnswer(answer) => answer.map_or(Ok(()), |answer| self.answered(answer)),
            JsonRequest::PubSub => outgoing.reply(head.no_topics()),
            JsonRequest::Unknown => outgoing.reply(head.unknown()),
        }
    }

    /// Begins what a message begins, once its token is checked if it is the first.
    fn check(&mut self, mut begin: Begin, outgoing: &Outgoing) -> Result<(), Closing> {
        if begin.token().is_empty() {
            *begin.token() = self.token.clone();
        }
        let token = begin.token().clone();
        if self.state.is_identified() {
            return self.begin(begin, outgoing);
        }
        if token.is_empty() {
            return self.identify(&token, begin, outgoing);
        }
        let state = &self.state;
        let (service, project) = (state.service.clone(), state.project.clone());
        let request_id = state.request_id.clone();
        let check = async move {
            let call = Call::begin(Some(&request_id), None, Some(service.config().time));
            let (caller, edge) = (Caller { call, token }, service.edge());
            let project = edge.project(&caller, (&*project).into()).await?;
            edge.reach(&caller, &project).await.map(|_| ())
        };
        self.checking = Some(Checking { check: check.boxed(), begin });
        Ok(())
    }

    /// Counts the connection for the bearer of `token`, who is the first to begin something.
    fn identify(&mut self, token: &str, begin: Begin, outgoing: &Outgoing) -> Result<(), Closing> {
        let caller = CallerId::of(&self.state.project, token, self.state.peer);
        if let Err(fault) = self.state.identify(caller) {
            outgoing.reply(begin.refused(&fault.message))?;
            return Err(Closing::full(&fault));
        }
        self.begin(begin, outgoing)
    }

    fn begin(&mut self, begin: Begin, outgoing: &Outgoing) -> Result<(), Closing> {
        match begin {
            Begin::Query(begin) => self.begin_query(begin, outgoing),
            Begin::Worker(head, request) => self.begin_worker(head, request, outgoing),
        }
    }

    /// Registers a worker. Another registration of the same service takes the place of the one before.
    fn begin_worker(&mut self, head: Head, request: RegisterRequest, outgoing: &Outgoing) -> Result<(), Closing> {
        let (state, memory) = (&self.state, request.memory_bytes());
        let RegisterRequest { service, project, token, takes_cancels } = request;
        if !project.is_empty() && project != state.project {
            return outgoing.reply(head.not_registered(&format!("the socket is of project {}", state.project)));
        }
        let id = format!("{WORKER}{service}");
        self.end(&id, outgoing)?;
        if self.state.is_draining() {
            return Ok(());
        }
        let state = &self.state;
        let hold = match state.quota.hold(memory) {
            Ok(hold) => hold,
            Err(fault) => return outgoing.reply(head.not_registered(&fault.message)),
        };
        let (project, request_id) = (state.project.clone(), state.request_id.clone());
        let (functions, capacity) = (Vec::new(), 0);
        let registration = Registration { project, service: service.clone(), functions, capacity, token, request_id };
        let (answers, queue) = SocketWorker::queue();
        self.workers.retain(|_, answers| !answers.is_closed());
        self.workers.insert(service, answers);
        let completion = Completion::default();
        let unanswered = Some(head.not_registered("another registration took its place"));
        let worker = SocketWorker {
            service: self.state.service.clone(),
            registration,
            takes_cancels,
            head,
            outgoing: outgoing.of_operation(completion.clone()),
            hold,
            answers: queue,
        };
        self.state.running.start(Operation { id, completion, unanswered, work: worker.run().boxed() });
        Ok(())
    }

    /// Hands an answer to the worker whose call it is; the others ignore it.
    fn answered(&mut self, answer: WorkResult) -> Result<(), Closing> {
        for worker in self.workers.values() {
            if let Err(mpsc::error::TrySendError::Full(_)) = worker.try_send(FromWorker::Answer(answer.clone())) {
                return Err(Closing::invalid("too many answers at once"));
            }
        }
        Ok(())
    }

    fn begin_query(
        &mut self,
        BeginQuery { head, query, subscription }: BeginQuery,
        outgoing: &Outgoing,
    ) -> Result<(), Closing> {
        // One with the same id takes the place of the one before.
        self.end(&query.id, outgoing)?;
        if self.state.is_draining() {
            // The client is told to connect again as soon as the others have ended.
            return Ok(());
        }
        let hold = match self.state.quota.hold(subscription.memory_bytes()) {
            Ok(hold) => hold,
            Err(fault) => return outgoing.reply(head.refused(&query, &fault.message)),
        };
        let (id, completion) = (query.id.clone(), Completion::default());
        let unanswered = Some(head.acknowledged(&query));
        let live = LiveSubscription {
            queries: self.queries.clone(),
            service: self.state.service.clone(),
            project: self.state.project.clone(),
            request_id: self.state.request_id.clone(),
            outgoing: outgoing.of_operation(completion.clone()),
            hold,
            head,
            query,
            subscription,
        };
        self.state.running.start(Operation { id, completion, unanswered, work: live.run().boxed() });
        Ok(())
    }

    /// Ends the live query `id`, if there is one. Where its reply is still to come, that is sent first: clients wait for it.
    fn end(&mut self, id: &str, outgoing: &Outgoing) -> Result<(), Closing> {
        self.state.running.drop_ended()?;
        let completed = self.state.running.complete(id);
        // What it held is free for the next one.
        self.state.running.drop_ended()?;
        self.queries.acknowledge(id);
        match completed {
            Completed::Unanswered(reply) => outgoing.reply(reply),
            Completed::Ended | Completed::Unknown => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
