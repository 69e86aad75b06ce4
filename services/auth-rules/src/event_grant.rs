//! Authorization of custom events: from the policies of their types and their payloads to a grant.

use proto::auth::{AuthorizeEventsRequest, EventAccess, EventGrant};
use query::event;

use crate::{
    call_grant::{DENIED, PARAMS},
    error::Error,
    explain::{self, Refusal},
    grant::{Caller, GRANT_LIFETIME_MS},
    path::Root,
    policy_set::ProjectPolicies,
    rule::{self, Policy},
};

impl Caller<'_> {
    /// The grant to queue events, if the policy of each type allows it.
    pub fn events(&mut self, request: &AuthorizeEventsRequest) -> Result<EventGrant, Error> {
        for (index, event) in request.events.iter().enumerate() {
            self.event(event, index)?;
        }
        let mut types: Vec<String> = request.events.iter().map(|event| event.r#type.clone()).collect();
        types.sort_unstable();
        types.dedup();
        let expires_ms = self.now_ms + GRANT_LIFETIME_MS;
        Ok(EventGrant { project: self.id.to_owned(), types, expires_ms })
    }

    fn event(&mut self, EventAccess { r#type, payload }: &EventAccess, index: usize) -> Result<(), Error> {
        let malformed = |text: String| Error::Malformed(query::Error::Malformed(text));
        event::check_name(r#type).map_err(malformed)?;
        if event::is_internal(r#type) {
            // A text that clients of earlier servers know.
            return Err(malformed(format!("cannot create internal event ({}) with project token", r#type)));
        }
        let project = self.project;
        let Some(policy) = project.event(r#type).and_then(|event| event.policy.as_deref()) else {
            let message = format!("No security rule provided for event type ({})", r#type);
            let explanation = match self.development {
                Some(_) => format!("; no document of kind event has a rule for {}, nor does default", r#type),
                None => String::new(),
            };
            return Err(Error::Denied { message, explanation, access: index });
        };
        let looks_at_payload = rule::depends_on(&policy.rule, Root::Params);
        let params = looks_at_payload.then(|| proto::json::parse(payload, PARAMS)).transpose()?;
        match self.decide_call(policy, params.as_ref()) {
            Ok(()) => Ok(()),
            Err(refusal) => Err(self.event_refused(refusal, policy, params.as_ref(), index)),
        }
    }

    fn event_refused(
        &mut self,
        refusal: Refusal,
        policy: &Policy,
        params: Option<&query::Value>,
        access: usize,
    ) -> Error {
        let explanation = match self.development {
            Some(development) => {
                let verified = self.verified().ok();
                let context = self.call_context(verified.as_ref().map(|verified| &verified.claims), params);
                format!("; {}", explain::placed(&refusal, policy, &context, &development.token_options))
            }
            None => String::new(),
        };
        match refusal {
            Refusal::Token(reason) => Error::Unauthenticated { reason, explanation, access },
            Refusal::Rule(own) => {
                Error::Denied { message: own.unwrap_or_else(|| DENIED.to_owned()), explanation, access }
            }
            Refusal::Condition(_) => Error::Denied { message: DENIED.to_owned(), explanation, access },
        }
    }
}

/// Errors: a payload is not what the schema of its type says.
pub fn check_payloads(project: &ProjectPolicies, events: &[EventAccess]) -> Result<(), Error> {
    for (access, EventAccess { r#type, payload }) in events.iter().enumerate() {
        let schema = project.event(r#type).and_then(|event| event.schema.as_deref());
        if let Some(Err(why)) = schema.map(|schema| schema.check_text(payload)) {
            let message = format!("invalid payload of event {type}: {why}");
            return Err(Error::Payload { message, access });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use arc_swap::ArcSwap;
    use mesh::resources::Snapshot;
    use proto::grant;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::{
        Service,
        cases::{parsed, token},
        policy_set::PolicySet,
    };

    fn service(events: &[(&str, Json)]) -> Service {
        let mut documents = vec![
            json!({"kind": "project", "meta": {"id": "shop"}, "spec": {"tokens": [{"kid": "main", "secret": "a secret that has thirty-two bytes"}]}}),
        ];
        for (id, spec) in events {
            documents.push(json!({"kind": "event", "meta": {"project": "shop", "id": id}, "spec": spec}));
        }
        let snapshot: Snapshot = parsed(&documents).unwrap();
        let policies = PolicySet::new(&snapshot, None, &PolicySet::default());
        Service::of(Arc::new(ArcSwap::from_pointee(policies)), grant::pair(b"key").0)
    }

    fn queue(service: &Service, token: &str, events: &[(&str, Json)]) -> Result<Vec<String>, String> {
        let event = |(name, payload): &(&str, Json)| EventAccess {
            r#type: (*name).to_owned(),
            payload: payload.to_string().into(),
        };
        let request = AuthorizeEventsRequest {
            project: "shop".to_owned(),
            token: token.to_owned(),
            events: events.iter().map(event).collect(),
        };
        let granted = service.authorize_events(&request, SystemTime::now(), None).map_err(|error| error.to_string())?;
        service.check_payloads(&request).map_err(|error| error.to_string())?;
        Ok(grant::pair(b"key").1.event_grant(granted.grant.unwrap()).unwrap().types)
    }

    #[test]
    fn a_rule_looks_at_claims_and_payload_and_a_schema_at_the_payload() {
        let rule =
            json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.params.mail", "f2": "args.auth.mail"});
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let service = service(&[("signup", json!({"rule": rule, "schema": schema}))]);
        let ann = token(&json!({"mail": "a@b"}));
        let of = |payload| queue(&service, &ann, &[("signup", payload)]);
        assert_eq!(of(json!({"mail": "a@b", "n": 1})), Ok(vec!["signup".to_owned()]));
        assert_eq!(of(json!({"mail": "c@d"})).unwrap_err(), DENIED);
        assert_eq!(of(json!(["a@b"])).unwrap_err(), DENIED);
        let wrong = of(json!({"mail": "a@b", "n": "x"})).unwrap_err();
        assert_eq!(wrong, "invalid payload of event signup: /n: value is not of type \"integer\"");
        let stranger = queue(&service, "", &[("signup", json!({"mail": ""}))]).unwrap_err();
        assert_eq!(stranger, "a token is needed, and none was sent");
    }

    #[test]
    fn one_that_is_denied_denies_all_and_none_is_allowed_without_a_rule() {
        let allow = json!({"rule": {"rule": "allow"}});
        let events = service(&[("a", allow.clone()), ("b", json!({"rule": {"rule": "deny"}})), ("c", json!({}))]);
        assert_eq!(queue(&events, "", &[("a", json!(1)), ("a", json!(null))]), Ok(vec!["a".to_owned()]));
        assert_eq!(queue(&events, "", &[("a", json!(1)), ("b", json!(1))]).unwrap_err(), DENIED);
        for name in ["c", "unknown", "default"] {
            let told = queue(&events, "", &[("a", json!(1)), (name, json!(1))]).unwrap_err();
            assert_eq!(told, format!("No security rule provided for event type ({name})"));
        }
        let all = service(&[("default", allow)]);
        assert_eq!(queue(&all, "", &[("unknown", json!(1))]), Ok(vec!["unknown".to_owned()]));
        for name in ["DB_INSERT", "SCHEDULE", "create-crud", "dlq_a"] {
            let told = queue(&all, "", &[(name, json!(1))]).unwrap_err();
            assert!(told.contains(&format!("cannot create internal event ({name}) with project token")), "{told}");
        }
        assert!(queue(&all, "", &[("", json!(1))]).unwrap_err().contains("invalid event type"));
    }
}
