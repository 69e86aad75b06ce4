//! Functions that answer with a stream: begun once the rule allows it, which is asked again while the stream goes on.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use mesh::{Call, Fault};
use proto::{Links, auth::AuthorizeCallRequest, functions::CallResponse, link::Messages};

use super::{Caller, Edge, FunctionAnswer, FunctionCall, batch_call::is_batch};
use crate::catalogue::Project;

/// How long the rule may take that is asked again.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream that has begun. Dropped, the function is told.
pub(crate) struct BegunStream {
    /// Its answers.
    pub messages: Messages<CallResponse>,
    /// What allowed it; `None` where all has come already.
    pub permission: Option<StreamPermission>,
}

/// What allowed a caller to listen.
pub(crate) struct StreamPermission {
    /// Milliseconds since the Unix epoch from which the token is void.
    pub token_expires_ms: Option<i64>,
    call: Call,
    asked: AuthorizeCallRequest,
}

impl Edge {
    /// Calls a function that answers many times, or once, if its rule allows it. It goes on after the deadline of the
    /// caller's request; the time of the call is that of each answer.
    pub(crate) async fn stream_function(
        &self,
        caller: &Caller,
        project: &Project,
        call: FunctionCall,
    ) -> Result<BegunStream, Fault> {
        let begun = Box::pin(self.begin_stream(caller, project, call)).await;
        if let Err(fault) = &begun {
            self.log_refusal(caller, fault);
        }
        begun
    }

    async fn begin_stream(&self, caller: &Caller, project: &Project, call: FunctionCall) -> Result<BegunStream, Fault> {
        if is_batch(project, &call) {
            let FunctionAnswer { status, body } = Box::pin(self.called_with_list(caller, project, call)).await?;
            let answer = CallResponse { status: status.into(), body };
            return Ok(BegunStream { messages: stream::iter([Ok(answer)]).boxed(), permission: None });
        }
        let asked = Self::asked_of(caller, project, &call);
        let (request, token_expires_ms) = self.authorized_call(caller, project, (call, asked.clone())).await?;
        let mut own = caller.call.clone();
        own.deadline = None;
        // Until it has begun it is a call like others: one that answers once is answered then.
        let _running = self.calls.enter()?;
        let messages = Box::pin(self.mesh.functions().stream(&own, request)).await?;
        Ok(BegunStream { messages, permission: Some(StreamPermission { token_expires_ms, call: own, asked }) })
    }

    /// Asks again whether the bearer of `token` may listen.
    pub(crate) async fn permit_again(&self, permission: &mut StreamPermission, token: &str) -> Result<(), Fault> {
        let mut call = permission.call.clone();
        call.deadline = Some(Instant::now() + QUESTION_TIMEOUT);
        let asked = AuthorizeCallRequest { token: token.to_owned(), ..permission.asked.clone() };
        permission.token_expires_ms = self.mesh.auth_rules().authorize_call(&call, asked).await?.token_expires_ms;
        Ok(())
    }
}
