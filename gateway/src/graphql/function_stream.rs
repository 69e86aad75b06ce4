//! Subscriptions to functions: each answer is an answer of the subscription, and its end is the end of it.

use mesh::{Call, Fault};

use super::{
    plan::Plan,
    response::{self, Called},
};
use crate::{
    Service,
    catalogue::Project,
    edge::Caller,
    function_answers::{self, FunctionAnswers},
    live::Subscriber,
};

/// Answers of a subscription to a function.
pub struct FunctionStream {
    answers: FunctionAnswers,
    call: Call,
}

impl FunctionStream {
    /// Calls the function of `plan`, the only one that it has.
    pub async fn begin(
        service: &Service,
        (caller, subscriber): (&Caller, Subscriber),
        project: &Project,
        plan: &Plan,
    ) -> Result<Self, Fault> {
        let Some(planned) = plan.calls.first() else {
            return Err(Fault::internal("the answer could not be made", "no function is called"));
        };
        let begun = function_answers::begin(service, (caller, subscriber), project, planned.call.clone());
        let answers = Box::pin(begun).await?;
        Ok(Self { answers, call: caller.call.clone() })
    }

    /// The next answer; `None` at the end. An error ends it. Cancel safe.
    pub async fn next(&mut self, plan: &Plan) -> Result<Option<Vec<u8>>, Fault> {
        let Some(answer) = self.answers.next().await? else { return Ok(None) };
        let called = Called { answers: &[Ok(answer)], call: Some(&self.call) };
        Ok(Some(response::read_and_called(plan, &[], &called).json))
    }
}
