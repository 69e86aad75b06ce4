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
        caller.operator_grant((&asked.service, &asked.function))
    }
}

#[cfg(test)]
mod tests {
    use proto::auth::{Access, AuthorizeCallRequest, AuthorizeRequest, TableAccess};
    use query::{Document, Operation, Typed};
    use serde_json::json;

    use super::*;
    use crate::cases::{now, parsed, service, shop, snapshot, token};

    fn asking(more: &Json) -> Json {
        let mut rule = json!({"rule": "func", "service": "mail", "func": "may"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    }

    /// Whether the access is granted, with what was asked until then.
    fn granted(service: &Service, access: &TableAccess, questions: &Questions) -> bool {
        let accesses = vec![Access::Table(access.clone())];
        let token = token(&json!({"id": "ann"}));
        let request = AuthorizeRequest { project: "shop".into(), token: token.into(), accesses };
        let policies = service.policies.load();
        service.grants(policies.project("shop").unwrap(), request, now(), Some(questions)).is_ok()
    }

    #[test]
    fn a_rule_of_a_table_asks_with_the_parts_of_the_request_that_have_values() {
        let service = service(&snapshot(&shop(json!({"rules": {"create": asking(&json!({}))}}))));
        let doc = Document(vec![("title".to_owned(), Typed::Text("hello".to_owned()))]);
        let access =
            TableAccess { docs: vec![doc].into(), op: "one", ..TableAccess::new("music", "t", Operation::Create) };
        for (answer, is_granted) in [(Some(true), true), (Some(false), false), (None, false)] {
            let questions = Questions::default();
            assert!(!granted(&service, &access, &questions), "nobody has answered");
            let mut asked = questions.take();
            assert_eq!(asked.len(), 1);
            let question = asked.remove(0);
            assert_eq!((question.asked.service.as_str(), question.asked.function.as_str()), ("mail", "may"));
            let params: Json = serde_json::from_slice(&question.params).unwrap();
            assert_eq!(params, json!({"op": "one", "doc": {"title": "hello"}}));
            questions.answered(question, answer);
            assert_eq!(granted(&service, &access, &questions), is_granted, "{answer:?}");
            assert!(questions.take().is_empty(), "it is asked once");
        }
    }

    #[test]
    fn a_rule_of_a_function_asks_with_its_parameters() {
        let [project, ..] = shop(json!({}));
        let functions = json!({"send": {"rule": asking(&json!({"anonymous": true}))}});
        let spec = json!({"http": {"url": "http://mail"}, "functions": functions});
        let mail = json!({"kind": "service", "meta": {"project": "shop", "id": "mail"}, "spec": spec});
        let service = service(&snapshot(&[project, mail]));
        for params in [json!({}), json!({"to": "bob"})] {
            let questions = Questions::default();
            let request = AuthorizeCallRequest {
                project: "shop".to_owned(),
                service: "mail".to_owned(),
                function: "send".to_owned(),
                params: params.to_string().into(),
                ..AuthorizeCallRequest::default()
            };
            let called = || service.authorize_call(&request, now(), Some(&questions)).is_ok();
            assert!(!called());
            let question = questions.take().remove(0);
            let asked: Json = serde_json::from_slice(&question.params).unwrap();
            assert_eq!(asked, json!({"params": params}));
            questions.answered(question, Some(true));
            assert!(called());
        }
    }

    #[test]
    fn a_project_is_known_to_ask_where_one_of_its_rules_does() {
        let asks = |read: Json, function: Json, register: Json| {
            let [project, database, table] = shop(json!({"rules": {"read": {"rule": "allow"}, "update": read}}));
            let service =
                |id: &str, spec: Json| json!({"kind": "service", "meta": {"project": "shop", "id": id}, "spec": spec});
            let other =
                json!({"kind": "table", "meta": {"project": "shop", "database": "music", "id": "z"}, "spec": {}});
            let mail =
                service("mail", json!({"worker": {"register": register}, "functions": {"send": {"rule": function}}}));
            let plain = service("zzz", json!({"http": {"url": "http://zzz"}}));
            let documents = parsed(&[project, database, table, other, mail, plain]).unwrap();
            crate::cases::service(&documents).policies.load().project("shop").unwrap().asks
        };
        let plain = || json!({"rule": "authenticated"});
        let inside = || json!({"rule": "and", "clauses": [plain(), {"rule": "not", "clause": asking(&json!({}))}]});
        assert!(!asks(plain(), plain(), plain()));
        assert!(asks(inside(), plain(), plain()));
        assert!(asks(plain(), inside(), plain()));
        assert!(asks(plain(), plain(), inside()));
    }

    #[test]
    fn only_an_object_acknowledges() {
        assert!(acknowledges(br#"{"more": [1], "ack": true}"#));
        for answer in ["[true]", "true", "", "{}", "null", r#"{"ack": 1}"#, r#"{"ack": "true"}"#, r#"[{"ack": true}]"#]
        {
            assert!(!acknowledges(answer.as_bytes()), "{answer}");
        }
    }
}
