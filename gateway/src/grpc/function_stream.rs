//! `rpc Stream`: the answers of a function as a stream of messages.

use std::sync::Arc;

use mesh::{Fault, listener::Connection};
use proto::api::v1::CallResponse;
use tokio::sync::watch;

use super::messages::{MessageSource, Messages, messages};
use crate::{
    Service,
    catalogue::Project,
    edge::{Caller, FunctionCall},
    function_answers::{self, FunctionAnswers},
    http::or_unknown,
    live::Subscriber,
};

/// Begins the stream of `call`, which counts as a socket of its caller.
pub async fn begin(
    service: &Service,
    (caller, project): (&Caller, &Project),
    call: FunctionCall,
    connection: Option<Arc<Connection>>,
) -> Result<Messages<CallResponse>, Fault> {
    let connection = or_unknown(connection);
    let hold = service.hold(caller, project, Some(connection.peer.ip()), call.params.len()).await?;
    let (_, token) = watch::channel(caller.token.clone());
    let subscriber = Subscriber { caller: hold.caller(), request_id: caller.call.request_id.clone(), token };
    let answers = function_answers::begin(service, (caller, subscriber), project, call).await?;
    Ok(messages(service, connection, (answers, hold)))
}

impl MessageSource for FunctionAnswers {
    type Message = CallResponse;

    async fn next_message(&mut self) -> Result<Option<CallResponse>, Fault> {
        Ok(self.next().await?.map(|result| CallResponse { result }))
    }
}
