//! Operations of a socket: a query or a mutation is answered once, a subscription whenever its answer differs.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use axum::{body, response::Response};
use mesh::{Call, Fault};
use tokio::sync::watch;

use super::{message::ServerMessage, protocol::Subprotocol};
use crate::{
    Service,
    edge::Caller,
    graphql::{
        Media, Responder, Transport,
        changes::ChangeAnswers,
        function_stream::FunctionStream,
        names::Names,
        plan::{Kind, Plan},
        request::Request,
        response::{self, LocatedFault},
    },
    http::{Ticket, guarded},
    live::{Hold, LiveQuery, Subscriber, WatchedRows},
    socket::{self, AnswerSlot, Outgoing, Overflow, Written},
};

/// What an operation of a socket needs.
pub struct Operations {
    /// The gateway.
    pub service: Service,
    /// The project's id.
    pub project: String,
    /// The id of the request that opened the socket.
    pub request_id: Arc<str>,
    /// What the client speaks.
    pub protocol: Subprotocol,
    /// The token, whenever it is renewed.
    pub token: watch::Receiver<Arc<str>>,
    /// Queues to the client. An operation waits for room in them before it reads, so that a slow client gets the newest
    /// state.
    pub outgoing: Outgoing,
    /// What it holds in memory.
    pub hold: Hold,
}

/// What came of a request.
enum RequestOutcome {
    /// The answer.
    Answered(Vec<u8>),
    /// A subscription to begin.
    Subscribed(Arc<Names>, Arc<Plan>),
}

/// JSON of the list of errors for one fault.
pub fn errors(fault: &Fault, call: &Call) -> Vec<u8> {
    response::error_list(&errors_answer(fault, call)).map(<[u8]>::to_vec).unwrap_or_default()
}

impl Operations {
    /// Carries out the operation that its client calls `id`. Dropped, it ends.
    pub async fn run(mut self, id: &str, request: Request) {
        let Some(slot) = self.outgoing.slot(0).await else { return };
        let caller = self.caller();
        match Box::pin(self.planned(&caller, request)).await {
            RequestOutcome::Subscribed(names, plan) => {
                if let Err(fault) = self.hold.resize(plan.memory_bytes()) {
                    let errors = errors(&fault, &caller.call);
                    let text = self.text(ServerMessage::Error { id, errors: &errors });
                    return self.deliver(id, slot, text, &caller.call).await.written.done().await;
                }
                drop(slot);
                let draining = self.service.tasks().draining().clone();
                draining.run_until_cancelled(Box::pin(self.follow(id, &names, plan))).await;
            }
            RequestOutcome::Answered(answer) => Box::pin(self.answer(id, slot, answer, &caller.call)).await,
        }
    }

    /// Sends the answer to a query or a mutation.
    async fn answer(&self, id: &str, slot: AnswerSlot, answer: Vec<u8>, call: &Call) {
        let (text, is_error) = match response::error_list(&answer) {
            Some(errors) => (self.text(ServerMessage::Error { id, errors }), true),
            None => (self.text(ServerMessage::Next { id, result: &answer }), false),
        };
        // It may wait for a slow client: once in memory is enough.
        drop(answer);
        let delivery = self.deliver(id, slot, text, call).await;
        match is_error || delivery.is_refused {
            true => delivery.written.done().await,
            false => self.end(id, ServerMessage::Complete { id }, call).await,
        }
    }

    fn caller(&mut self) -> Caller {
        socket::caller(&self.service, &self.project, &self.request_id, self.token.borrow_and_update().clone())
    }

    /// Sends the last message, and waits until it is written: until then the id is taken.
    async fn end(&self, id: &str, message: ServerMessage<'_>, call: &Call) {
        let text = self.text(message);
        if let Some(slot) = self.outgoing.slot(0).await {
            self.deliver(id, slot, text, call).await.written.done().await;
        }
    }

    /// Plans a request; whatever is not a subscription is answered, as one that comes by POST is.
    async fn planned(&self, caller: &Caller, request: Request) -> RequestOutcome {
        let responder = Responder { service: &self.service, caller, media: Media::Graphql };
        let work = async {
            let ticket = Ticket::new(self.service.admission());
            if let Err(fault) = ticket.enter().await {
                return RequestOutcome::Answered(errors_answer(&fault, &caller.call));
            }
            let project = match self.service.edge().project(caller, (&*self.project).into()).await {
                Ok(project) => project,
                Err(fault) => return RequestOutcome::Answered(errors_answer(&fault, &caller.call)),
            };
            match responder.plan(project, Transport::Socket, request).await {
                Ok((names, plan)) if plan.kind == Kind::Subscription => RequestOutcome::Subscribed(names, plan),
                Ok((names, plan)) => RequestOutcome::Answered(bytes(responder.execute(&names, plan).await).await),
                Err(refused) => RequestOutcome::Answered(bytes(*refused).await),
            }
        };
        let work: Pin<&mut _> = pin!(work);
        match guarded(&caller.call, work).await {
            Ok(planned) => planned,
            Err(fault) => RequestOutcome::Answered(errors_answer(&fault, &caller.call)),
        }
    }

    /// Sends what a subscription tells.
    async fn follow(self, id: &str, names: &Names, plan: Arc<Plan>) {
        if !plan.calls.is_empty() {
            return Box::pin(self.listen(id, names, plan)).await;
        }
        match plan.watched() {
            Some(rows) => Box::pin(self.watch(id, names, plan, rows)).await,
            None => Box::pin(self.live(id, names, plan)).await,
        }
    }

    /// Sends the answer of a subscription, and again whenever it differs.
    async fn live(mut self, id: &str, names: &Names, plan: Arc<Plan>) {
        let (caller, subscriber) = (self.caller(), self.subscriber());
        let mut live = match self.service.live().begin(&names.project, plan.clone(), subscriber).await {
            Ok(live) => live,
            Err(fault) => return self.fail(id, &caller, &plan, fault).await,
        };
        // As many bytes as the last answer had: so many are likely to be needed.
        let mut expected = 0;
        loop {
            live.changed().await;
            let Some(slot) = self.outgoing.slot(expected).await else { return };
            let failed = match Box::pin(live.read()).await {
                Ok(Some(answers)) => {
                    let result = response::read(&plan, &answers).json;
                    drop(answers);
                    offer(&mut live, slot, self.text(ServerMessage::Next { id, result: &result }), &mut expected)
                }
                Ok(None) => Ok(()),
                Err(failure) => Err(failure.into()),
            };
            if let Err(fault) = failed {
                return self.fail(id, &caller, &plan, fault).await;
            }
        }
    }

    /// Sends the changes of rows, one by one.
    async fn watch(mut self, id: &str, names: &Names, plan: Arc<Plan>, rows: WatchedRows) {
        let (caller, subscriber) = (self.caller(), self.subscriber());
        let begun = async {
            let hold = self.hold.beside()?;
            ChangeAnswers::begin(self.service.live(), &names.project, (&plan, rows), subscriber, hold).await
        };
        let mut answers = match begun.await {
            Ok(answers) => answers,
            Err(fault) => return self.fail(id, &caller, &plan, fault).await,
        };
        loop {
            let result = match answers.next(&plan, id).await {
                Ok(result) => result,
                Err(fault) => return self.fail(id, &caller, &plan, fault).await,
            };
            match self.send(id, result, &caller.call).await {
                Ok(true) => {}
                // The client goes on after the last position that it has.
                Ok(false) => return,
                Err(fault) => return self.fail(id, &caller, &plan, fault).await,
            }
        }
    }

    /// Sends the answers of a function, until it has no more.
    async fn listen(mut self, id: &str, names: &Names, plan: Arc<Plan>) {
        let (caller, subscriber) = (self.caller(), self.subscriber());
        let begun = FunctionStream::begin(&self.service, (&caller, subscriber), &names.project, &plan);
        let mut answers = match Box::pin(begun).await {
            Ok(answers) => answers,
            Err(fault) => return self.fail(id, &caller, &plan, fault).await,
        };
        loop {
            let result = match answers.next(&plan).await {
                Ok(Some(result)) => result,
                Ok(None) => return self.end(id, ServerMessage::Complete { id }, &caller.call).await,
                Err(fault) => return self.fail(id, &caller, &plan, fault).await,
            };
            match self.send(id, result, &caller.call).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => return self.fail(id, &caller, &plan, fault).await,
            }
        }
    }

    /// Whoever gets what a subscription tells.
    fn subscriber(&self) -> Subscriber {
        let (request_id, token) = (self.request_id.clone(), self.token.clone());
        Subscriber { caller: self.hold.caller(), request_id, token }
    }

    /// Sends a result of the operation `id`. Whether more may follow: it has ended where the client is gone, or was told that
    /// it cannot be sent. Errors: `UNAVAILABLE` where all clients together have yet to take too much.
    async fn send(&self, id: &str, result: Vec<u8>, call: &Call) -> Result<bool, Fault> {
        let Some(slot) = self.outgoing.slot_for(result.len()).await? else { return Ok(false) };
        let text = self.text(ServerMessage::Next { id, result: &result });
        drop(result);
        let delivery = self.deliver(id, slot, text, call).await;
        if delivery.is_refused {
            delivery.written.done().await;
        }
        Ok(!delivery.is_refused)
    }

    async fn fail(&self, id: &str, caller: &Caller, plan: &Plan, fault: Fault) {
        let responder = Responder { service: &self.service, caller, media: Media::Graphql };
        let answer = bytes(responder.fail(plan, fault, "read")).await;
        let errors = response::error_list(&answer).unwrap_or(b"[]");
        self.end(id, ServerMessage::Error { id, errors }, &caller.call).await;
    }

    /// A message as it is sent.
    fn text(&self, message: ServerMessage<'_>) -> Vec<u8> {
        message.into_text(self.protocol)
    }

    /// Queues a message of the operation `id`, which counts as an answer that its client has not taken, an error too: it
    /// can be as large as the request.
    async fn deliver(&self, id: &str, slot: AnswerSlot, text: Vec<u8>, call: &Call) -> Delivery {
        match slot.send(text).await {
            Ok(written) => Delivery { written, is_refused: false },
            Err((slot, fault)) => {
                let text = self.text(ServerMessage::Error { id, errors: &errors(&fault, call) });
                Delivery { written: slot.refuse(text), is_refused: true }
            }
        }
    }
}

/// What became of a message.
struct Delivery {
    written: Written,
    /// There is no room for it: an error that says so is queued, and the operation has ended.
    is_refused: bool,
}

/// Queues an answer, or asks for it again when there is room. An error ends the live query.
fn offer(live: &mut LiveQuery, slot: AnswerSlot, text: Vec<u8>, expected: &mut usize) -> Result<(), Fault> {
    match slot.offer(text) {
        Ok(bytes) => {
            live.delivered();
            *expected = bytes;
            Ok(())
        }
        Err(Overflow::Socket(bytes)) => {
            live.dropped();
            *expected = bytes;
            Ok(())
        }
        Err(Overflow::Node(fault)) => live.postponed(fault),
    }
}

fn errors_answer(fault: &Fault, call: &Call) -> Vec<u8> {
    response::errors(&[LocatedFault { fault, at: None, path: &[] }], call)
}

/// The body of an answer, which is in memory already.
async fn bytes(response: Response) -> Vec<u8> {
    // An answer has a limit of its own, and none is read from anywhere.
    body::to_bytes(response.into_body(), usize::MAX).await.map(Vec::from).unwrap_or_default()
}
