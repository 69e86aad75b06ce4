//! The protocol of one connection: what a client's messages begin and end.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use mesh::{Call, Code, Fault};
use tokio::sync::watch;

use super::{
    message::{ClientMessage, InvalidMessage, ServerMessage},
    operation::{self, Operations},
    protocol::Subprotocol,
};
use crate::{
    Service,
    edge::Caller,
    error,
    graphql::request::Request,
    http::claims,
    live::{CallerId, Hold},
    socket::{self, Closing, Completed, Completion, Outgoing, Received, SocketSession as _, SocketState},
};

/// State of one connection.
pub struct GraphqlSession {
    state: SocketState,
    /// What the client speaks.
    protocol: Subprotocol,
    /// The token of its operations, which a message may renew.
    token: watch::Sender<Arc<str>>,
    /// Why the token of a client of the old subprotocol is not valid: its operations fail by that.
    invalid_token: Option<Fault>,
    phase: Phase,
    /// The id of `connection_init`.
    init_id: Option<String>,
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

impl socket::SocketSession for GraphqlSession {
    fn state(&self) -> &SocketState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut SocketState {
        &mut self.state
    }

    /// Whether the client has sent `connection_init`.
    fn has_begun(&self) -> bool {
        !matches!(self.phase, Phase::New)
    }

    fn time_out(&mut self) -> Result<(), Closing> {
        Err(Closing::INIT_TIMEOUT)
    }

    /// Whether a message can be acted on. Clients of the old subprotocol begin operations before they are acknowledged.
    fn takes_messages(&self) -> bool {
        self.protocol == Subprotocol::Current || !matches!(self.phase, Phase::Checking(_))
    }

    /// Tells a client of the old subprotocol that the server lives.
    fn keep_alive(&self, outgoing: &Outgoing) {
        if self.protocol == Subprotocol::Legacy && self.is_acknowledged() {
            // Where replies wait, the client is slow, and that has a limit of its own.
            let _ = self.reply(ServerMessage::KeepAlive { id: self.init_id.as_deref() }, outgoing);
        }
    }

    /// Waits until an operation has ended or the token is checked.
    async fn next(&mut self, outgoing: &Outgoing) -> Result<(), Closing> {
        let checked = async {
            match &mut self.phase {
                Phase::Checking(check) => check.await,
                Phase::New | Phase::Acknowledged => std::future::pending().await,
            }
        };
        let checked = tokio::select! {
            Some(ended) = self.state.running.next_end() => return ended,
            checked = checked => checked,
        };
        match (checked, self.protocol) {
            (Ok(()), _) => self.acknowledge(self.token_caller(), outgoing),
            (Err(fault), _) if fault.code != Code::Unauthenticated => Err(Closing::failed(&fault)),
            (Err(fault), Subprotocol::Current) => Err(Closing::forbidden(&fault)),
            (Err(fault), Subprotocol::Legacy) => {
                self.invalid_token = Some(fault);
                self.acknowledge(CallerId::of(&self.state.project, "", self.state.peer), outgoing)
            }
        }
    }

    fn received(&mut self, message: Received, outgoing: &Outgoing) -> Result<(), Closing> {
        let Received::Text(text) = message else {
            return Err(Closing::invalid("invalid message: expected text, found binary"));
        };
        self.state.completed(text.len())?;
        let message = ClientMessage::parse(self.protocol, text.as_bytes(), self.state.service.guard());
        drop(text);
        match message {
            Ok(message) => self.act(message, outgoing),
            Err(invalid) => self.refuse(&invalid, outgoing),
        }
    }
}

impl GraphqlSession {
    /// The session of a connection whose handshake had `token`.
    pub fn new(state: SocketState, protocol: Subprotocol, token: Arc<str>) -> Self {
        let token = watch::Sender::new(token);
        Self { state, protocol, token, invalid_token: None, phase: Phase::New, init_id: None }
    }

    fn reply(&self, message: ServerMessage<'_>, outgoing: &Outgoing) -> Result<(), Closing> {
        outgoing.reply(message.into_text(self.protocol))
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
                let state = &self.state;
                let (service, project, request_id) =
                    (state.service.clone(), state.project.clone(), state.request_id.clone());
                let check = async move { check_token(&service, &project, &request_id, token).await };
                self.phase = Phase::Checking(check.boxed());
                Ok(())
            }
            ClientMessage::Ping { token } => {
                if let (Some(token), Phase::Acknowledged) = (token, &self.phase) {
                    self.renew(token);
                }
                self.reply(ServerMessage::Pong, outgoing)
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
        self.reply(ServerMessage::Acknowledgement { id: self.init_id.as_deref() }, outgoing)
    }

    /// Tells a client of the old subprotocol what is wrong with a message; one of the other loses its connection.
    fn refuse(&self, invalid: &InvalidMessage, outgoing: &Outgoing) -> Result<(), Closing> {
        if self.protocol == Subprotocol::Current {
            return Err(Closing::invalid(&invalid.what));
        }
        let errors = self.errors(&error::bad_request(invalid.what.as_str()));
        match invalid.is_init {
            true => {
                self.reply(ServerMessage::ConnectionError { errors: &errors }, outgoing)?;
                Err(Closing::invalid(&invalid.what))
            }
            false => self.reply(ServerMessage::Invalid { id: invalid.id.as_deref(), errors: &errors }, outgoing),
        }
    }

    /// JSON of the list of errors for one fault.
    fn errors(&self, fault: &Fault) -> Vec<u8> {
        operation::errors(fault, &Call::begin(Some(&self.state.request_id), None, None))
    }

    /// Who has the token.
    fn token_caller(&self) -> CallerId {
        CallerId::of(&self.state.project, &self.token.borrow(), self.state.peer)
    }

    fn acknowledge(&mut self, caller: CallerId, outgoing: &Outgoing) -> Result<(), Closing> {
        if let Err(fault) = self.state.identify(caller) {
            return self.refuse_connection(&fault, outgoing);
        }
        self.phase = Phase::Acknowledged;
        self.reply(ServerMessage::Acknowledgement { id: self.init_id.as_deref() }, outgoing)?;
        self.keep_alive(outgoing);
        Ok(())
    }

    fn refuse_connection(&self, fault: &Fault, outgoing: &Outgoing) -> Result<(), Closing> {
        if self.protocol == Subprotocol::Legacy {
            self.reply(ServerMessage::ConnectionError { errors: &self.errors(fault) }, outgoing)?;
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
        self.state.running.drop_ended()?;
        match self.protocol {
            Subprotocol::Current if !self.is_acknowledged() => return Err(Closing::UNAUTHORIZED),
            Subprotocol::Current if self.state.running.contains(&id) => return Err(Closing::known_subscriber(&id)),
            Subprotocol::Current => {}
            Subprotocol::Legacy if !self.is_acknowledged() => {
                let fault = Fault::new(Code::Unauthenticated, "expected connection_init, found start");
                return self.reply(ServerMessage::Error { id: &id, errors: &self.errors(&fault) }, outgoing);
            }
            // The one before ends, and what it held is free.
            Subprotocol::Legacy => {
                self.state.running.complete(&id);
                self.state.running.drop_ended()?;
            }
        }
        if self.state.is_draining() {
            // The client is told to connect again as soon as the others have ended.
            return Ok(());
        }
        let token = token.filter(|token| !token.is_empty());
        if let (None, Some(fault)) = (&token, &self.invalid_token) {
            return self.reply(ServerMessage::Error { id: &id, errors: &self.errors(fault) }, outgoing);
        }
        // It may wait for others before it begins.
        let hold = match self.state.quota.hold(request.memory_bytes()) {
            Ok(hold) => hold,
            Err(fault) => {
                return self.reply(ServerMessage::Error { id: &id, errors: &self.errors(&fault) }, outgoing);
            }
        };
        let completion = Completion::default();
        let operations = self.operations(token, hold, outgoing.of_operation(completion.clone()));
        let name = id.clone();
        let work = async move {
            operations.run(&name, request).await;
            None
        };
        let operation = socket::Operation { id, completion, unanswered: None, work: work.boxed() };
        self.state.running.start(operation);
        Ok(())
    }

    /// What an operation with this token is answered with.
    fn operations(&self, token: Option<Arc<str>>, hold: Hold, outgoing: Outgoing) -> Operations {
        Operations {
            service: self.state.service.clone(),
            project: self.state.project.clone(),
            request_id: self.state.request_id.clone(),
            protocol: self.protocol,
            token: match token {
                // Nobody renews it: the sender is dropped.
                Some(token) => watch::channel(token).1,
                None => self.token.subscribe(),
            },
            outgoing,
            hold,
        }
    }

    /// Ends an operation whose client wants no more of it.
    fn complete(&mut self, id: &str, outgoing: &Outgoing) -> Result<(), Closing> {
        self.state.running.drop_ended()?;
        let is_running = self.state.running.complete(id) != Completed::Unknown;
        match self.protocol {
            Subprotocol::Current => Ok(()),
            Subprotocol::Legacy if is_running => self.reply(ServerMessage::Complete { id }, outgoing),
            Subprotocol::Legacy => {
                let errors = self.errors(&error::bad_request("got stop wanted start"));
                self.reply(ServerMessage::Invalid { id: Some(id), errors: &errors }, outgoing)
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
