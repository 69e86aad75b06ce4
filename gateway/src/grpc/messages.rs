//! Calls whose messages go on: one after the other, as their client takes them.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use mesh::{Code, Fault, listener::Connection};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status;
use crate::{
    Service,
    http::{Reservation, SendBudget, SocketProgress},
    live::Hold,
};

/// The messages of one call.
pub type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// What the messages of a call are made of.
pub trait MessageSource: Send + 'static {
    /// A message.
    type Message: Message + 'static;

    /// The next message; `None` at the end. An error ends it.
    fn next_message(&mut self) -> impl Future<Output = Result<Option<Self::Message>, Fault>> + Send;
}

/// A call, whose messages are taken one after the other.
struct OpenCall<S> {
    source: S,
    draining: CancellationToken,
    budget: SendBudget,
    progress: SocketProgress,
    /// The last message, until the next one is asked for.
    sending: Option<(usize, Reservation)>,
    _hold: Hold,
}

/// The messages of a call on `connection`, which counts as a socket of its caller by `hold`.
pub fn messages<S: MessageSource>(
    service: &Service,
    connection: Arc<Connection>,
    (source, hold): (S, Hold),
) -> Messages<S::Message> {
    let call = OpenCall {
        source,
        draining: service.tasks().draining().clone(),
        budget: service.send_budget().clone(),
        progress: SocketProgress::new(connection),
        sending: None,
        _hold: hold,
    };
    let next = |call: Option<OpenCall<S>>| async {
        let mut call = call?;
        match call.next().await {
            Ok(Some(message)) => Some((Ok(message), Some(call))),
            Ok(None) => None,
            Err(fault) => Some((Err(status(fault)), None)),
        }
    };
    stream::unfold(Some(call), next).boxed()
}

impl<S: MessageSource> OpenCall<S> {
    /// The next message, which counts as an answer that its client has not taken until another one is asked for.
    async fn next(&mut self) -> Result<Option<S::Message>, Fault> {
        if let Some((bytes, _)) = self.sending.take() {
            self.progress.add(bytes);
        }
        let message = tokio::select! {
            biased;
            () = self.draining.cancelled() => {
                return Err(Fault::new(Code::Unavailable, "the node stops; call again"));
            }
            message = self.source.next_message() => message?,
        };
        let Some(message) = message else { return Ok(None) };
        let bytes = message.encoded_len();
        self.sending = Some((bytes, self.budget.queue(bytes, &self.progress)?));
        Ok(Some(message))
    }
}
