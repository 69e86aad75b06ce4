//! The protocol of one connection: what a client's messages begin and end.

use std::{net::IpAddr, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use mesh::{Call, Code, Fault};
use tokio::sync::watch;
use tungstenite::Message;

use super::{
    closing::Closing,
    message::{ClientMessage, InvalidMessage, ServerMessage},
    operation::{self, Operations},
    outgoing::Outgoing,
    protocol::Subprotocol,
    receive::{self, Incomplete},
    running::{Completion, RunningOperations},
};
use crate::{
    Service,
    edge::Caller,
    error,
    graphql::request::Request,
    http::claims,
    live::{CallerId, Hold, SocketQuota},
};

/// State of one connection.
pub struct Session {
    /// The gateway.
    pub service: Service,
    /// What the client speaks.
    pub protocol: Subprotocol,
    /// The client's address, where it is known.
    pub peer: Option<IpAddr>,
    /// What is received of a message that is not complete.
    pub incomplete: Incomplete,
    project: String,
    request_id: Arc<str>,
    /// The token of its operations, which a message may renew.
    token: watch::Sender<Arc<str>>,
    /// Why the token of a client of the old subprotocol is not valid: its operations fail by that.
    invalid_token: Option<Fault>,
    phase: Phase,
    /// The id of `connection_init`.
    init_id: Option<String>,
    is_draining: bool,
    running: RunningOperations,
    /// Bounds what its operations hold.
    quota: SocketQuota,
    /// The memory of the largest message so far, which the buffer of the connection may keep.
    buffer: Option<(Hold, usize)>,
}

/// A connection that is open.
pub struct Opening {
    /// The project's id.
    pub project: String,
    /// What its client speaks.
    pub protocol: Subprotocol,
    /// The client's address, where it is known.
    pub peer: Option<IpAddr>,
    /// For whom it counts until it is acknowledged.
    pub quota: SocketQuota,
}

/// How far a client is.
enum Phase {
    /// It has said nothing.
    New,
    /// `connection_init` came, and its token is being checked.
    Checking(BoxFuture<'static, Result<(), Fault>>),
    /// `connection_ack` is sent.
    Acknowledged,
}

impl Session {
    /// A session of `caller`, who has opened a connection.
    pub fn new(service: Service, caller: &Caller, opening: Opening) -> Self {
        let Opening { project, protocol, peer, quota } = opening;
        let (request_id, token) = (caller.call.request_id.clone(), watch::Sender::new(caller.token.clone()));
        Self {
            service,
            protocol,
            peer,
            incomplete: Incomplete::default(),
            project,
            request_id,
            token,
            invalid_token: None,
            phase: Phase::New,
            init_id: None,
            is_draining: false,
            running: RunningOperations::default(),
            quota,
            buffer: None,
        }
    }

    /// Whether the client has sent `connection_init`.
    pub fn has_begun(&self) -> bool {
        !matches!(self.phase, Phase::New)
    }

    /// Whether a message can be acted on. Clients of the old subprotocol begin operations before they are acknowledged.
    pub fn takes_messages(&self) -> bool {
        self.protocol == Subprotocol::Current || !matches!(self.phase, Phase::Checking(_))
    }

    /// Begins nothing more: the node drains. Live queries end by themselves.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether the node drains.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Whether the node drains, and all that was begun has ended.
    pub fn is_drained(&self) -> bool {
        self.is_draining && self.running.is_empty()
    }

    /// Tells a client of the old subprotocol that the server lives.
    pub fn keep_alive(&self, outgoing: &Outgoing) {
        if self.protocol == Subprotocol::Legacy && self.is_acknowledged() {
            // Where replies wait, the client is slow, and that has a limit of its own.
            let _ = outgoing.reply(ServerMessage::KeepAlive { id: self.init_id.as_deref() });
        }
    }

    /// Waits until an operation has ended or the token is checked. An error ends the connection. Cancel safe.
    pub async fn next(&mut self, outgoing: &Outgoing) -> Result<(), Closing> {
        let checked = async {
            match &mut self.phase {
                Phase::Checking(check) => check.await,
                Phase::New | Phase::Acknowledged => std::future::pending().await,
            }
        };
        let checked = tokio::select! {
            Some(()) = self.running.next_end() => return Ok(()),
            checked = checked => checked,
        };
        match (checked, self.protocol) {
            (Ok(()), _) => self.acknowledge(self.token_caller(), outgoing),
            (Err(fault), _) if fault.code != Code::Unauthenticated => Err(Closing::failed(&fault)),
            (Err(fault), Subprotocol::Current) => Err(Closing::forbidden(&fault)),
            (Err(fault), Subprotocol::Legacy) => {
                self.invalid_token = Some(fault);
                self.acknowledge(CallerId::of(&self.project, "", self.peer), outgoing)
            }
        }
    }

    /// Acts on a message. An error ends the connection.
    pub fn received(&mut self, message: Message, outgoing: &Outgoing) -> Result<(), Closing> {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(Closing::invalid("invalid message: expected text, found binary")),
            Message::Ping(payload) | Message::Pong(payload) => {
                self.incomplete.control(payload.len());
                return Ok(());
            }
            // The connection sees to the end, and hands on no parts of messages.
            Message::Close(_) | Message::Frame(_) => return Ok(()),
        };
        self.incomplete.completed();
        self.keep_buffer(text.len())?;
        let message = ClientMessage::parse(self.protocol, text.as_bytes(), self.service.guard());
        drop(text);
        match message {
            Ok(message) => self.act(message, outgoing),
            Err(invalid) => self.refuse(&invalid, outgoing),
        }
    }

    /// Counts a buffer that a message of `size` bytes may leave behind. Before the acknowledgement nobody is known who
    /// it could be counted for.
    fn keep_buffer(&mut self, size: usize) -> Result<(), Closing> {
        if size <= receive::SMALL_BYTES {
            return Ok(());
        }
        if !self.is_acknowledged() {
            return Err(Closing::TOO_LARGE);
        }
        let kept = match &mut self.buffer {
            Some((_, before)) if *before >= size => Ok(()),
            Some((hold, before)) => hold.resize(size).map(|()| *before = size),
            None => self.quota.buffer(size).map(|hold| self.buffer = Some((hold, size))),
        };
        kept.map_err(|fault| Closing::full(&fault))
    }

    fn is_acknowledged(&self) -> bool {
        matches!(self.phase, Phase::Acknowledged)
    }

    fn act(&mut self, message: ClientMessage, outgoing: &Outgoing) -> Result<(), Closing> {
        match message {
            ClientMessage::Init { token, .. } if self.has_begun() => self.begin_again(token, outgoing),
            ClientMessage::Init { id, token } => {
                self.init_id = id;
                if let Some(token) = token {
                    self.token.send_replace(token);
                }
                let token = self.token.borrow().clone();
                // Without a token, everybody is let in, and rules say what for.
                if token.is_empty() {
                    return self.acknowledge(self.token_caller(), outgoing);
                }
                let (service, project, request_id) =
                    (self.service.clone(), self.project.clone(), self.request_id.clone());
                let check = async move { check_token(&service, &project, &request_id, token).await };
                self.phase = Phase::Checking(check.boxed());
                Ok(())
            }
            ClientMessage::Ping { token } => {
                if let (Some(token), Phase::Acknowledged) = (token, &self.phase) {
                    self.renew(token);
                }
                outgoing.reply(ServerMessage::Pong)
            }
            ClientMessage::Pong => Ok(()),
            ClientMessage::Subscribe { id, request, token } => self.subscribe(id, *request, token, outgoing),
            ClientMessage::Complete { id } => self.complete(&id, outgoing),
            ClientMessage::Terminate => Err(Closing::TERMINATED),
        }
    }

    /// Acts on a second `connection_init`, which renews the token of a client of the old subprotocol.
    fn begin_again(&mut self, token: Option<Arc<str>>, outgoing: &Outgoing) -> Result<(), Closing> {
        if self.protocol == Subprotocol::Current {
            return Err(Closing::INITIALISED_AGAIN);
        }
        if let Some(token) = token {
            self.invalid_token = None;
            self.renew(token);
        }
        outgoing.reply(ServerMessage::Acknowledgement { id: self.init_id.as_deref() })
    }

    /// Tells a client of the old subprotocol what is wrong with a message; one of the other loses its connection.
    fn refuse(&self, invalid: &InvalidMessage, outgoing: &Outgoing) -> Result<(), Closing> {
        if self.protocol == Subprotocol::Current {
            return Err(Closing::invalid(&invalid.what));
        }
        let errors = self.errors(&error::bad_request(invalid.what.as_str()));
        match invalid.is_init {
            true => {
                outgoing.reply(ServerMessage::ConnectionError { errors: &errors })?;
                Err(Closing::invalid(&invalid.what))
            }
            false => outgoing.reply(ServerMessage::Invalid { id: invalid.id.as_deref(), errors: &errors }),
        }
    }

    /// JSON of the list of errors for one fault.
    fn errors(&self, fault: &Fault) -> Vec<u8> {
        operation::errors(fault, &Call::begin(Some(&self.request_id), None, None))
    }

    /// Who has the token.
    fn token_caller(&self) -> CallerId {
        CallerId::of(&self.project, &self.token.borrow(), self.peer)
    }

    fn acknowledge(&mut self, caller: CallerId, outgoing: &Outgoing) -> Result<(), Closing> {
        if caller != self.quota.caller() {
            match self.service.quotas().socket(caller) {
                Ok(quota) => self.quota = quota,
                Err(fault) => return self.refuse_connection(&fault, outgoing),
            }
        }
        self.phase = Phase::Acknowledged;
        self.incomplete.acknowledged(self.service.large_messages().of(caller));
        outgoing.reply(ServerMessage::Acknowledgement { id: self.init_id.as_deref() })?;
        self.keep_alive(outgoing);
        Ok(())
    }

    fn refuse_connection(&self, fault: &Fault, outgoing: &Outgoing) -> Result<(), Closing> {
        if self.protocol == Subprotocol::Legacy {
            outgoing.reply(ServerMessage::ConnectionError { errors: &self.errors(fault) })?;
        }
        Err(Closing::full(fault))
    }

    fn subscribe(
        &mut self,
        id: String,
        request: Request,
        token: Option<Arc<str>>,
        outgoing: &Outgoing,
    ) -> Result<(), Closing> {
        // What ended of its own may not have been noticed yet.
        self.running.drop_ended();
        match self.protocol {
            Subprotocol::Current if !self.is_acknowledged() => return Err(Closing::UNAUTHORIZED),
            Subprotocol::Current if self.running.contains(&id) => return Err(Closing::known_subscriber(&id)),
            Subprotocol::Current => {}
            Subprotocol::Legacy if !self.is_acknowledged() => {
                let fault = Fault::new(Code::Unauthenticated, "expected connection_init, found start");
                return outgoing.reply(ServerMessage::Error { id: &id, errors: &self.errors(&fault) });
            }
            // The one before ends.
            Subprotocol::Legacy => drop(self.running.complete(&id)),
        }
        if self.is_draining {
            // The client is told to connect again as soon as the others have ended.
            return Ok(());
        }
        let token = token.filter(|token| !token.is_empty());
        if let (None, Some(fault)) = (&token, &self.invalid_token) {
            return outgoing.reply(ServerMessage::Error { id: &id, errors: &self.errors(fault) });
        }
        // It may wait for others before it begins.
        let hold = match self.quota.hold(request.memory_bytes()) {
            Ok(hold) => hold,
            Err(fault) => return outgoing.reply(ServerMessage::Error { id: &id, errors: &self.errors(&fault) }),
        };
        let completion = Completion::default();
        let operations = Operations {
            service: self.service.clone(),
            project: self.project.clone(),
            request_id: self.request_id.clone(),
            token: match token {
                // Nobody renews it: the sender is dropped.
                Some(token) => watch::channel(token).1,
                None => self.token.subscribe(),
            },
            outgoing: outgoing.of_operation(completion.clone()),
            hold,
        };
        self.running.start(id.clone(), completion, async move { operations.run(&id, request).await }.boxed());
        Ok(())
    }

    /// Ends an operation whose client wants no more of it.
    fn complete(&mut self, id: &str, outgoing: &Outgoing) -> Result<(), Closing> {
        self.running.drop_ended();
        let is_running = self.running.complete(id);
        match self.protocol {
            Subprotocol::Current => Ok(()),
            Subprotocol::Legacy if is_running => outgoing.reply(ServerMessage::Complete { id }),
            Subprotocol::Legacy => {
                let errors = self.errors(&error::bad_request("got stop wanted start"));
                outgoing.reply(ServerMessage::Invalid { id: Some(id), errors: &errors })
            }
        }
    }

    /// Puts another token in place. Live queries are asked again where its claims differ; else when the token before
    /// would expire, or something else changes.
    fn renew(&self, token: Arc<str>) {
        self.token.send_if_modified(|current| {
            let identity = claims::identity(&token);
            let is_same = **current == *token || (identity.is_some() && identity == claims::identity(current));
            *current = token;
            !is_same
        });
    }
}

/// Refuses a token that is not valid.
async fn check_token(service: &Service, project: &str, request_id: &str, token: Arc<str>) -> Result<(), Fault> {
    let call = Call::begin(Some(request_id), None, Some(service.config().time));
    let (caller, edge) = (Caller { call, token }, service.edge());
    let project = edge.project(&caller, project.into()).await?;
    edge.reach(&caller, &project).await.map(|_| ())
}

#[cfg(test)]
mod legacy_tests;
#[cfg(test)]
pub(crate) mod tests;
