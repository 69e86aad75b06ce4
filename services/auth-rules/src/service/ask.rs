//! Decisions by rules that ask functions.

use std::time::{Duration, SystemTime};

use futures::future::join_all;
use mesh::Call;
use proto::{Links, auth::CallGrant, functions::CallRequest};
use serde_json::{Map, Value as Json};

use super::Service;
use crate::{
    error::Error,
    grant::Caller,
    questions::{AskedFunction, Question, Questions},
};

/// How long a function that a rule asks may take, as in earlier servers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of its answer, of which one member counts.
const ANSWER_BYTES: u64 = 64 * 1024;

/// Whether the answer of a function is an object that says `ack: true`.
fn acknowledges(answer: &[u8]) -> bool {
    let object: Option<Map<String, Json>> = serde_json::from_slice(answer).ok();
    object.is_some_and(|object| object.get("ack") == Some(&Json::Bool(true)))
}

impl Service {
    /// What `decide` says of a request of the bearer of `token`, once the functions that it asks have answered. Dropped, they
    /// are given up.
    pub(super) async fn asking<T>(
        &self,
        (project, token): (&str, &str),
        decide: impl Fn(&Questions) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let questions = Questions::default();
        loop {
            let decided = decide(&questions);
            let asked = questions.take();
            if asked.is_empty() {
                return decided;
            }
            let answers = asked.iter().map(|question| self.ask((project, token), question));
            let answers = join_all(answers).await;
            for (question, answer) in asked.into_iter().zip(answers) {
                questions.answered(question, answer);
            }
        }
    }

    /// Whether a function acknowledges what it is asked; `None` where it does not answer as it should.
    async fn ask(&self, caller: (&str, &str), question: &Question) -> Option<bool> {
        let AskedFunction { service, function } = &question.asked;
        let undecided = |cause: &str| tracing::warn!(service, function, cause, "a rule was not answered");
        let Some(mesh) = &self.mesh else {
            undecided("there are no functions");
            return None;
        };
        let Ok(_place) = self.questions.try_acquire() else {
            undecided("too many rules ask at once");
            return None;
        };
        let grant = match self.question_grant(caller, &question.asked) {
            Ok(grant) => grant,
            Err(error) => {
                undecided(&error.to_string());
                return None;
            }
        };
        let call = Call::current().unwrap_or_else(|| Call::begin(None, None, Some(ANSWER_TIMEOUT)));
        let message = CallRequest {
            grant: Some(self.signer.call_grant(&grant)),
            params: question.params.clone().into(),
            timeout_ms: u64::try_from(ANSWER_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            answer_bytes: ANSWER_BYTES,
        };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, mesh.functions().call(&call, message)).await;
        match answered {
            Ok(Ok(answer)) if (200..300).contains(&answer.status) => Some(acknowledges(&answer.body)),
            Ok(Ok(answer)) => {
                undecided(&format!("status {}", answer.status));
                None
            }
            Ok(Err(status)) => {
                undecided(status.message());
                None
            }
            Err(_) => {
                undecided("it took too long");
                None
            }
        }
    }

    fn question_grant(&self, (id, token): (&str, &str), asked: &AskedFunction) -> Result<CallGrant, Error> {
        let policies = self.policies.load();
        let project = policies.project(id)?;
        let mut caller = Caller::new(project, id, token, SystemTime::now(), None);
        caller.call_grant((&asked.service, &asked.function), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_acknowledges() {
        assert!(acknowledges(br#"{"more": [1], "ack": true}"#));
        for answer in ["[true]", "true", "", "{}", "null", r#"{"ack": 1}"#, r#"{"ack": "true"}"#, r#"[{"ack": true}]"#]
        {
            assert!(!acknowledges(answer.as_bytes()), "{answer}");
        }
    }
}
