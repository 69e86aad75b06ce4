//! Workers: processes of users that are connected here and take calls of functions, whatever they speak.
//!
//! A worker is registered at every node that runs functions, so that each call finds it, whichever node the call reaches.

mod call_window;
mod message_queue;
mod node_links;

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use mesh::{Code, Fault};
use proto::functions::{
    CAPACITY, CAPACITY_MAX, Drain, FUNCTIONS_MAX, WorkRequest, WorkResult, work_request, work_response,
};

pub use self::message_queue::WorkerMessages;
use self::{
    call_window::CallWindow,
    message_queue::MessageQueue,
    node_links::{LinkEvent, NodeLinks},
};
use crate::{Service, socket};

/// Bytes of a name of a service or a function.
const NAME_BYTES_MAX: usize = 128;
/// How long the nodes that run functions may take to know a worker.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked again whether a worker may be one: its token expires, and rules are edited.
const RIGHTS_INTERVAL: Duration = Duration::from_secs(10);

/// What a worker registers.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The project's id.
    pub project: String,
    /// The service's id.
    pub service: String,
    /// The functions that it has; none: all.
    pub functions: Vec<String>,
    /// Calls at once.
    pub capacity: u32,
    /// Its token; empty where there is none.
    pub token: Arc<str>,
    /// The id of the request that opened its connection.
    pub request_id: Arc<str>,
}

/// A message of a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// The answer to a call.
    Answer(WorkResult),
    /// It wants no more calls.
    Drain,
}

/// A message to a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// A call.
    Call(WorkerCall),
    /// Nobody waits for the answer to the call with this id any more.
    Cancel(String),
    /// It gets no more calls.
    Drain,
}

/// A call as a worker gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerCall {
    /// Its id, which cannot be guessed.
    pub id: String,
    /// The function.
    pub function: String,
    /// JSON.
    pub params: Bytes,
    /// Claims of the caller, a JSON object.
    pub claims: String,
    /// Time until nobody waits any more.
    pub left: Duration,
}

/// A worker that is registered, until it is dropped.
pub struct WorkerSession {
    service: Service,
    registration: Arc<Registration>,
    links: NodeLinks,
    calls: CallWindow,
    /// A worker that takes no messages loses its session when this is full.
    to_worker: MessageQueue,
}

impl Registration {
    /// What a worker says of itself, checked: at most 1000 calls at once (0: 64), and as many functions, with names of at most
    /// 128 bytes.
    pub fn checked(self) -> Result<Self, Fault> {
        if self.service.is_empty() {
            return Err(Fault::from(query::Error::Required("service".to_owned())));
        }
        let fault = |text: String| Err(Fault::new(Code::BadRequest, text));
        if self.capacity > CAPACITY_MAX {
            return fault(format!("capacity must be at most {CAPACITY_MAX}, found {}", self.capacity));
        }
        if self.functions.len() > FUNCTIONS_MAX {
            return fault(format!("functions must be at most {FUNCTIONS_MAX}, found {}", self.functions.len()));
        }
        if let Some(long) = [&self.service].into_iter().chain(&self.functions).find(|name| name.len() > NAME_BYTES_MAX)
        {
            return fault(format!("names must be at most {NAME_BYTES_MAX} bytes, found {}", long.len()));
        }
        let capacity = if self.capacity == 0 { CAPACITY } else { self.capacity };
        Ok(Self { capacity, ..self })
    }

    /// Approximate bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        let names: usize = self.functions.iter().map(|name| name.len() + size_of::<String>()).sum();
        size_of::<Self>() + self.project.len() + self.service.len() + names + self.token.len()
    }

    /// Registers the worker, if its rule allows that: its session, and the messages to it.
    ///
    /// Errors: the rule denies it, there are too many workers, or no node that runs functions can be reached.
    pub async fn register(self, service: &Service) -> Result<(WorkerSession, WorkerMessages), Fault> {
        let registration = Arc::new(self);
        let caller = registration.caller(service);
        let mut links = NodeLinks::new(service.clone(), registration.clone());
        let opened = tokio::time::timeout(REGISTER_TIMEOUT, links.first()).await;
        let opened =
            opened.unwrap_or_else(|_| Err(Fault::new(Code::Unavailable, "service functions cannot be reached")));
        opened.inspect_err(|fault| service.edge().log_refusal(&caller, fault))?;
        // Two for each call, and few others.
        let (to_worker, messages) = MessageQueue::new(registration.capacity as usize * 2 + 4);
        let calls = CallWindow::new(registration.capacity as usize);
        Ok((WorkerSession { service: service.clone(), registration, links, calls, to_worker }, messages))
    }

    /// Whoever registers it, with the time of one request.
    fn caller(&self, service: &Service) -> crate::edge::Caller {
        socket::caller(service, &self.project, &self.request_id, self.token.clone())
    }

    /// Waits until it may not be a worker any more: why.
    async fn revoked(&self, service: &Service) -> Fault {
        loop {
            tokio::time::sleep(RIGHTS_INTERVAL).await;
            let asked = service.edge().worker_grant(&self.caller(service), &self.project, &self.service).await;
            match asked {
                Err(fault) if fault.code.is_denial() => return fault,
                // Whether it still may cannot be told now.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

impl WorkerSession {
    /// Hands calls and answers on, until the worker leaves, or has answered its last call after one side wanted no more.
    /// Dropped, its calls fail at once. Errors: it may not be a worker any more, or takes no messages.
    pub async fn run(mut self, from_worker: impl Stream<Item = FromWorker>) -> Result<(), Fault> {
        let mut from_worker = pin!(from_worker);
        let draining = self.service.tasks().draining().clone();
        let (service, registration) = (self.service.clone(), self.registration.clone());
        let mut revoked = pin!(registration.revoked(&service));
        let mut is_draining = false;
        while !(is_draining && self.links.is_closed()) {
            tokio::select! {
                () = self.to_worker.closed() => return Ok(()),
                fault = &mut revoked => return Err(fault),
                message = from_worker.next() => match message {
                    Some(FromWorker::Answer(answer)) => self.answer(answer)?,
                    Some(FromWorker::Drain) if is_draining => {}
                    Some(FromWorker::Drain) => {
                        is_draining = true;
                        self.drain()?;
                    }
                    None => return Ok(()),
                },
                event = self.links.next() => self.act(event)?,
                () = draining.cancelled(), if !is_draining => {
                    is_draining = true;
                    self.drain()?;
                }
            }
        }
        Ok(())
    }

    /// Hands an answer to the node that waits for it. One that is of no call of this worker is ignored.
    fn answer(&mut self, answer: WorkResult) -> Result<(), Fault> {
        let Some((link, id)) = self.calls.answered(&answer.id) else { return Ok(()) };
        let message = work_request::Message::Result(WorkResult { id, ..answer });
        self.links.send(link, WorkRequest { message: Some(message) });
        self.hand_over()
    }

    fn act(&mut self, event: LinkEvent) -> Result<(), Fault> {
        match event {
            LinkEvent::Message(link, work_response::Message::Call(call)) => {
                self.calls.hold(link, call);
            }
            LinkEvent::Message(link, work_response::Message::Cancel(cancel)) => {
                if let Some(id) = self.calls.cancelled(link, &cancel.id) {
                    self.to_worker.cancel(id)?;
                }
            }
            // The node stops; there are others, or it comes back.
            LinkEvent::Message(_, work_response::Message::Drain(_) | work_response::Message::Registered(_)) => {}
            LinkEvent::Ended(link) => {
                for id in self.calls.link_ended(link) {
                    self.to_worker.cancel(id)?;
                }
            }
            LinkEvent::Failed(fault) if fault.code.is_denial() => return Err(fault),
            LinkEvent::Opened | LinkEvent::Failed(_) => {}
        }
        self.hand_over()
    }

    /// Hands the worker the calls for which it has room.
    fn hand_over(&mut self) -> Result<(), Fault> {
        while let Some(call) = self.calls.take() {
            self.to_worker.send(ToWorker::Call(call))?;
        }
        Ok(())
    }

    /// No node sends more calls, and the worker is told so.
    fn drain(&mut self) -> Result<(), Fault> {
        self.links.drain(&WorkRequest { message: Some(work_request::Message::Drain(Drain {})) });
        self.to_worker.send(ToWorker::Drain)
    }
}
