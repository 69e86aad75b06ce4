//! `rpc Stream`: the answers of a function as a stream of messages.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use mesh::{Code, Fault, listener::Connection};
use prost::Message;
use proto::api::v1::CallResponse;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status;
use crate::{
    Service,
    catalogue::Project,
    edge::{Caller, FunctionCall},
    function_answers::{self, FunctionAnswers},
    http::{Reservation, SendBudget, SocketProgress},
    live::{Hold, Subscriber},
};

/// The messages of one call.
pub type StreamMessages = Pin<Box<dyn Stream<Item = Result<CallResponse, Status>> + Send>>;

/// A call, whose messages are taken one after the other.
struct OpenCall {
    answers: FunctionAnswers,
    draining: CancellationToken,
    budget: SendBudget,
    progress: SocketProgress,
    /// The last message, until the next one is asked for.
    sending: Option<(usize, Reservation)>,
    _hold: Hold,
}

/// Begins the stream of `call`, which counts as a socket of its caller.
pub async fn begin(
    service: &Service,
    (caller, project): (&Caller, &Project),
    call: FunctionCall,
    connection: Option<Arc<Connection>>,
) -> Result<StreamMessages, Fault> {
    let connection = connection.unwrap_or_else(|| Arc::new(Connection::new(([0, 0, 0, 0], 0).into())));
    let hold = service.hold(caller, project, Some(connection.peer.ip()), call.params.len()).await?;
    let (_, token) = watch::channel(caller.token.clone());
    let subscriber = Subscriber { caller: hold.caller(), request_id: caller.call.request_id.clone(), token };
    let open = OpenCall {
        answers: function_answers::begin(service, (caller, subscriber), project, call).await?,
        draining: service.tasks().draining().clone(),
        budget: service.send_budget().clone(),
        progress: SocketProgress::new(connection),
        sending: None,
        _hold: hold,
    };
    let next = |open: Option<OpenCall>| async {
        let mut open = open?;
        match open.next().await {
            Ok(Some(message)) => Some((Ok(message), Some(open))),
            Ok(None) => None,
            Err(fault) => Some((Err(status(fault)), None)),
        }
    };
    Ok(stream::unfold(Some(open), next).boxed())
}

impl OpenCall {
    /// The next message, which counts as an answer that its client has not taken until another one is asked for.
    async fn next(&mut self) -> Result<Option<CallResponse>, Fault> {
        if let Some((bytes, _)) = self.sending.take() {
            self.progress.add(bytes);
        }
        let answer = tokio::select! {
            biased;
            () = self.draining.cancelled() => {
                return Err(Fault::new(Code::Unavailable, "the node stops; call again"));
            }
            answer = self.answers.next() => answer?,
        };
        let Some(result) = answer else { return Ok(None) };
        let message = CallResponse { result };
        let bytes = message.encoded_len();
        self.sending = Some((bytes, self.budget.queue(bytes, &self.progress)?));
        Ok(Some(message))
    }
}
