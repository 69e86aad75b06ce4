//! Execution of plans that call functions.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, future::join, stream};
use mesh::{Code, Fault, fault::answer_too_large};

use super::{
    Responder,
    names::Names,
    plan::{Kind, Plan, PlannedCall},
    response::{self, Called},
};
use crate::{catalogue::Project, edge::ReadFault};

/// Calls of one query at once.
const CALLS_AT_ONCE: usize = 16;

impl Responder<'_> {
    /// The answer of a plan that calls functions: a query reads meanwhile, a mutation calls one after the other.
    pub(super) async fn execute_calls(&self, names: &Arc<Names>, plan: Arc<Plan>) -> Response {
        let project = &names.project;
        let at_once = if plan.kind == Kind::Mutation { 1 } else { CALLS_AT_ONCE };
        let introspected = match plan.introspected.is_empty() {
            true => Vec::new(),
            false => match Box::pin(self.introspected(names, &plan)).await {
                Ok(introspected) => introspected,
                Err(fault) => return self.fail(&plan, fault, "field"),
            },
        };
        let reads = self.service.edge().read(self.caller, project, plan.reads.clone());
        let (read, called) = join(Box::pin(reads), Box::pin(self.called(project, &plan.calls, at_once))).await;
        match (read, called) {
            (Err(ReadFault::Failed(fault)), _) if !fault.code.is_denial() => self.fail_executed(&plan, &fault),
            (Err(failure), _) => self.fail(&plan, failure.into(), "read"),
            (Ok(_), Err(fault)) => self.fail_executed(&plan, &fault),
            (Ok(answers), Ok(called)) => {
                let called = Called { answers: &called, call: Some(&self.caller.call) };
                self.queried(response::read_and_called(&plan, &answers, &called), introspected)
            }
        }
    }

    /// Answers of calls, in their order. Errors: all of them together are too large.
    async fn called(
        &self,
        project: &Project,
        calls: &[PlannedCall],
        at_once: usize,
    ) -> Result<Vec<Result<Bytes, Fault>>, Fault> {
        let limit = self.service.edge().answer_bytes(project);
        let one = |planned: PlannedCall| async move {
            self.service.edge().call_function(self.caller, project, planned.call).await?.result()
        };
        let mut answers = stream::iter(calls.iter().cloned().map(one)).buffered(at_once);
        let (mut called, mut bytes) = (Vec::with_capacity(calls.len()), 0);
        while let Some(answer) = answers.next().await {
            bytes += answer.as_ref().map_or(0, |json| json.len() as u64);
            if bytes > limit {
                return Err(Fault::new(Code::TooLarge, answer_too_large(limit)));
            }
            called.push(answer);
        }
        Ok(called)
    }
}
