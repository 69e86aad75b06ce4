//! Authorization of calls: from the policy of a function and its parameters to a grant, with the identity that the
//! function gets.

use std::collections::HashMap;

use mesh::Fault;
use proto::{
    auth::{AuthorizeCallRequest, CallGrant, RefusedItem, WorkerGrant},
    functions::ITEMS_MAX,
};
use query::{Guard, Object, Operation, Value};
use serde_json::value::RawValue;

use crate::{
    context::RequestContext,
    error::Error,
    eval::{self, Verdict},
    explain::{self, Refusal},
    grant::{Caller, GRANT_LIFETIME_MS},
    key,
    path::Root,
    rule::{self, Kind, Policy},
    token::service_audience,
};

/// The text of a denial by a rule, which clients of earlier servers know.
pub(crate) const DENIED: &str = "You are not authorized to make this request";
/// The text of a denial without a rule, likewise: it does not tell whether the service exists.
const NO_RULE: &str = "Auth: No rule has been provided";
/// How long a token is good that is made for a service, in seconds.
const IDENTITY_SECONDS: i64 = 60;
/// Guard of parameters, which were counted when they were sent: whatever limits let them pass, rules see them.
pub(crate) const PARAMS: Guard = Guard::new(usize::MAX, usize::MAX);

impl Caller<'_> {
    /// The grant for a call, if the policy of its function allows it.
    pub fn call(&mut self, request: &AuthorizeCallRequest) -> Result<CallGrant, Error> {
        let of = (request.service.as_str(), request.function.as_str());
        if request.of_operator {
            return self.operator_grant(of);
        }
        self.judge_call(request, &request.params)?;
        self.call_grant(of)
    }

    /// The grant for a call with a list, and the items of it that the policy of its function refuses. Errors: it refuses all.
    pub fn call_with_list(&mut self, request: &AuthorizeCallRequest) -> Result<(CallGrant, Vec<RefusedItem>), Error> {
        let malformed = |error: serde_json::Error| query::Error::Malformed(format!("invalid params: {error}"));
        let items: Vec<&RawValue> = serde_json::from_slice(&request.params).map_err(malformed)?;
        if items.len() > ITEMS_MAX {
            let text = format!("invalid params: expected at most {ITEMS_MAX} items, found {}", items.len());
            return Err(query::Error::Malformed(text).into());
        }
        let (mut judged, mut refused) = (HashMap::new(), Vec::new());
        for (index, item) in (0..).zip(&items) {
            let item = item.get();
            if !judged.contains_key(item) {
                let refusal = match self.judge_call(request, item.as_bytes()) {
                    Ok(()) => None,
                    Err(error @ (Error::Denied { .. } | Error::Unauthenticated { .. })) => Some(Fault::from(error)),
                    Err(error) => return Err(error),
                };
                judged.insert(item, refusal);
            }
            if let Some(Some(Fault { code, message, .. })) = judged.get(item) {
                refused.push(RefusedItem { index, code: code.as_str().to_owned(), message: message.clone() });
            }
        }
        if refused.len() == items.len() {
            // As of one item, or of the list that has none.
            let first = items.first().map_or(&request.params[..], |item| item.get().as_bytes());
            self.judge_call(request, first)?;
        }
        let grant = self.call_grant((&request.service, &request.function))?;
        Ok((CallGrant { is_list: true, ..grant }, refused))
    }

    /// Errors: the policy of the function refuses a call with `params`.
    fn judge_call(&mut self, request: &AuthorizeCallRequest, params: &[u8]) -> Result<(), Error> {
        let project = self.project;
        let policy =
            project.service(&request.service).and_then(|policies| policies.of(&request.function).policy.as_deref());
        let Some(policy) = policy else {
            return Err(self.call_refused(Refusal::Rule(Some(NO_RULE.to_owned())), None, request, None));
        };
        let looks_at_params = rule::depends_on(&policy.rule, Root::Params);
        let params = looks_at_params.then(|| proto::json::parse(params, PARAMS)).transpose()?;
        self.decide_call(policy, params.as_ref())
            .map_err(|refusal| self.call_refused(refusal, Some(policy), request, params.as_ref()))
    }

    /// The grant for a call that the resources of the operator make: of parameters that no rule was asked of.
    pub(crate) fn operator_grant(&mut self, of: (&str, &str)) -> Result<CallGrant, Error> {
        Ok(CallGrant { of_operator: true, ..self.grant_of(of, false)? })
    }

    fn call_grant(&mut self, (service, function): (&str, &str)) -> Result<CallGrant, Error> {
        let forwards = self.project.service(service).is_some_and(|policies| policies.of(function).forwards);
        self.grant_of((service, function), forwards)
    }

    /// The grant for a call of a function that is allowed, which `forwards` the caller's own token.
    fn grant_of(&mut self, (service, function): (&str, &str), forwards: bool) -> Result<CallGrant, Error> {
        let claims = self.verified().map(|verified| verified.claims.clone()).unwrap_or_default();
        let bearer = match forwards {
            true if self.verified().is_ok() => self.token.to_owned(),
            true => String::new(),
            false => self.identity(service, &claims)?,
        };
        let mut json = Vec::new();
        claims.write_json(&mut json);
        Ok(CallGrant {
            project: self.id.to_owned(),
            service: service.to_owned(),
            function: function.to_owned(),
            claims: String::from_utf8_lossy(&json).into_owned(),
            bearer,
            expires_ms: self.now_ms + GRANT_LIFETIME_MS,
            is_list: false,
            of_operator: false,
        })
    }

    /// The grant to be a worker of `service`, if its policy allows it. Without a policy, only development does.
    pub fn worker(&mut self, service: &str) -> Result<WorkerGrant, Error> {
        let project = self.project;
        let policies = project.service(service);
        let policy = policies.and_then(|policies| policies.register.as_deref());
        let is_open = self.development.is_some() && policies.is_none_or(|policies| policies.is_worker);
        let decided = match policy {
            Some(policy) => self.decide_call(policy, None),
            None if is_open => Ok(()),
            None => Err(Refusal::Rule(None)),
        };
        decided.map_err(|refusal| refused(refusal, String::new()))?;
        let expires_ms = self.now_ms + GRANT_LIFETIME_MS;
        Ok(WorkerGrant { project: self.id.to_owned(), service: service.to_owned(), expires_ms })
    }

    pub(crate) fn decide_call(&mut self, policy: &Policy, params: Option<&Value>) -> Result<(), Refusal> {
        if matches!(policy.rule.kind, Kind::Allow) {
            return Ok(());
        }
        let verified = self.verified();
        let refusal = match &verified {
            Ok(_) => None,
            // No token helps.
            Err(_) if !eval::is_passable(&policy.rule, Operation::Read) => Some(Refusal::Rule(None)),
            Err(reason) if policy.anonymous => Some(Refusal::Token(*reason)),
            Err(reason) => return Err(Refusal::Token(*reason)),
        };
        let claims = verified.as_ref().ok().map(|verified| &verified.claims);
        match eval::verdict(&policy.rule, &self.call_context(claims, params)) {
            Verdict::Where(_) => Ok(()),
            Verdict::Deny(error) => Err(refusal.unwrap_or_else(|| Refusal::Rule(error.map(str::to_owned)))),
        }
    }

    pub(crate) fn call_context<'c>(
        &'c self,
        claims: Option<&'c Object>,
        params: Option<&'c Value>,
    ) -> RequestContext<'c> {
        let stranger = RequestContext::of(self.id, self.project.mode, Operation::Read, self.now);
        RequestContext { token: self.token, claims, params, questions: self.questions, ..stranger }
    }

    /// A token with the caller's claims that only `service` takes; empty where the project has no key.
    fn identity(&self, service: &str, claims: &Object) -> Result<String, Error> {
        let Some(key) = key::primary_of(self.project.keys.specs()) else { return Ok(String::new()) };
        let now = self.now_ms / 1000;
        let own = [
            ("aud", Value::Text(service_audience(service))),
            ("iat", Value::Int(now)),
            ("exp", Value::Int(now + IDENTITY_SECONDS)),
        ];
        let is_kept = |name: &str| name != "nbf" && own.iter().all(|(own, _)| *own != name);
        let mut members: Vec<_> = claims.0.iter().filter(|(name, _)| is_kept(name)).cloned().collect();
        members.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let mut json = Vec::new();
        Object(members).write_json(&mut json);
        // Numbers stay as they were signed.
        let claims = RawValue::from_string(String::from_utf8_lossy(&json).into_owned());
        key::encode(key, &claims.map_err(|error| Error::Sign(error.into()))?)
    }

    fn call_refused(
        &mut self,
        refusal: Refusal,
        policy: Option<&Policy>,
        request: &AuthorizeCallRequest,
        params: Option<&Value>,
    ) -> Error {
        let explanation = match self.development {
            Some(development) => {
                let verified = self.verified().ok();
                let context = self.call_context(verified.as_ref().map(|verified| &verified.claims), params);
                let of = (request.service.as_str(), request.function.as_str());
                format!("; {}", explain::call_refusal(&refusal, policy, of, &context, &development.token_options))
            }
            None => String::new(),
        };
        refused(refusal, explanation)
    }
}

/// The error of a refusal.
fn refused(refusal: Refusal, explanation: String) -> Error {
    match refusal {
        Refusal::Token(reason) => Error::Unauthenticated { reason, explanation, access: 0 },
        Refusal::Rule(own) => {
            Error::Denied { message: own.unwrap_or_else(|| DENIED.to_owned()), explanation, access: 0 }
        }
        Refusal::Condition(_) => Error::Denied { message: DENIED.to_owned(), explanation, access: 0 },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use arc_swap::ArcSwap;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use mesh::resources::Snapshot;
    use proto::grant;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::{
        Service,
        cases::{now, parsed, token},
        policy_set::PolicySet,
        questions::Questions,
    };

    const SECRET: &str = "a secret that has thirty-two bytes";

    fn service(functions: Json, default: Json) -> Service {
        let project =
            json!({"kind": "project", "meta": {"id": "shop"}, "spec": {"tokens": [{"kid": "main", "secret": SECRET}]}});
        let service = json!({
            "kind": "service", "meta": {"project": "shop", "id": "mail"},
            "spec": {"http": {"url": "http://mail"}, "functions": functions, "default": default},
        });
        let snapshot: Snapshot = parsed(&[project, service]).unwrap();
        let policies = PolicySet::new(&snapshot, None, &PolicySet::default());
        Service::of(Arc::new(ArcSwap::from_pointee(policies)), grant::pair(b"key").0)
    }

    fn call(service: &Service, token: &str, of: (&str, &str), params: Json) -> Result<CallGrant, String> {
        call_at(service, token, of, params, SystemTime::now())
    }

    fn call_at(
        service: &Service,
        token: &str,
        (name, function): (&str, &str),
        params: Json,
        now: SystemTime,
    ) -> Result<CallGrant, String> {
        let request = AuthorizeCallRequest {
            project: "shop".to_owned(),
            token: token.to_owned(),
            service: name.to_owned(),
            function: function.to_owned(),
            params: params.to_string().into(),
            of_operator: false,
            is_list: false,
        };
        let response = service.authorize_call(&request, now, None).map_err(|error| error.to_string())?;
        Ok(grant::pair(b"key").1.call_grant(response.grant.unwrap()).unwrap())
    }

    fn claims_of(token: &str) -> Json {
        let claims = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
    }

    #[test]
    fn a_rule_looks_at_claims_and_parameters() {
        let rule =
            json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.params.to.0", "f2": "args.auth.id"});
        let service = service(json!({"send": {"rule": rule}}), json!(null));
        let ann = token(&json!({"id": "ann"}));
        let send = ("mail", "send");
        assert!(call(&service, &ann, send, json!({"to": ["ann"]})).is_ok());
        assert_eq!(call(&service, &ann, send, json!({"to": ["bob"]})).unwrap_err(), DENIED);
        assert_eq!(call(&service, &ann, send, json!({})).unwrap_err(), DENIED);
        assert_eq!(call(&service, "", send, json!({"to": [""]})).unwrap_err(), "a token is needed, and none was sent");
    }

    #[test]
    fn a_rule_is_asked_of_each_item_of_a_list() {
        let own =
            json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.params.to", "f2": "args.auth.id"});
        let asks = json!({"rule": "func", "service": "mail", "func": "may"});
        let service = service(json!({"send": {"rule": own}, "asks": {"rule": asks}}), json!(null));
        let ann = token(&json!({"id": "ann"}));
        let asked = |function: &str, params: Json, is_list| AuthorizeCallRequest {
            project: "shop".to_owned(),
            token: ann.clone(),
            service: "mail".to_owned(),
            function: function.to_owned(),
            params: params.to_string().into(),
            is_list,
            ..AuthorizeCallRequest::default()
        };
        let judged = |function: &str, params: Json| service.authorize_call(&asked(function, params, true), now(), None);
        let answer = judged("send", json!([{"to": "ann"}, {"to": "bob"}, {"to": "ann"}, {"to": "bob"}])).unwrap();
        let refused: Vec<(u32, &str, &str)> =
            answer.refused.iter().map(|item| (item.index, item.code.as_str(), item.message.as_str())).collect();
        assert_eq!(refused, [(1, "DENIED", DENIED), (3, "DENIED", DENIED)]);
        let granted = grant::pair(b"key").1.call_grant(answer.grant.unwrap()).unwrap();
        assert!(granted.is_list && !granted.of_operator);
        for params in [json!([{"to": "bob"}]), json!([]), json!([[{"to": "ann"}]])] {
            assert_eq!(judged("send", params.clone()).unwrap_err().to_string(), DENIED, "{params}");
        }
        for (params, told) in
            [(json!({}), "invalid params: "), (json!(vec![1; ITEMS_MAX + 1]), "expected at most 1000")]
        {
            assert!(judged("send", params).unwrap_err().to_string().contains(told));
        }
        let whole = service.authorize_call(&asked("send", json!({"to": "ann"}), false), now(), None).unwrap();
        assert!(!grant::pair(b"key").1.call_grant(whole.grant.unwrap()).unwrap().is_list);

        // Each different item is a question, as far as a request may have them.
        let questions = Questions::default();
        let many: Vec<Json> = (0..40).map(|number| json!(number % 20)).collect();
        let ask = || service.authorize_call(&asked("asks", json!(many), true), now(), Some(&questions));
        assert!(ask().is_err());
        let pending = questions.take();
        assert_eq!(pending.len(), 16);
        pending.into_iter().for_each(|question| questions.answered(question, Some(true)));
        assert_eq!(ask().unwrap().refused.len(), 8);
    }

    #[test]
    fn what_is_not_listed_and_what_is_not_there_look_the_same() {
        let service = service(json!({"send": {}}), json!(null));
        let ann = token(&json!({"id": "ann"}));
        for (name, token) in [("send", ""), ("other", ""), ("send", &*ann)] {
            assert_eq!(call(&service, token, ("mail", name), json!({})).unwrap_err(), NO_RULE);
        }
        assert_eq!(call(&service, &ann, ("nobody", "send"), json!({})).unwrap_err(), NO_RULE);
    }

    #[test]
    fn a_refusal_in_development_names_the_rule_or_that_there_is_none() {
        let [project, ..] = crate::cases::shop(json!({}));
        let functions = json!({"send": {"rule": {"rule": "deny"}}});
        let spec = json!({"http": {"url": "http://mail"}, "functions": functions});
        let mail = json!({"kind": "service", "meta": {"project": "shop", "id": "mail"}, "spec": spec});
        let service = crate::cases::developing(&parsed(&[project, mail]).unwrap());
        let refused = |function: &str| {
            let ann = token(&json!({"id": "ann"}));
            mesh::Fault::from(call_error(&service, &ann, ("mail", function))).message
        };
        let denied = refused("send");
        assert!(denied.starts_with(&format!("{DENIED}; inline:")), "{denied}");
        assert!(denied.ends_with(": spec.functions.send.rule: spec.functions.send.rule is deny"), "{denied}");
        let none = refused("other");
        assert!(none.contains("no document of kind service has a rule for function other of service mail"), "{none}");
    }

    fn call_error(service: &Service, token: &str, (name, function): (&str, &str)) -> Error {
        let request = AuthorizeCallRequest {
            project: "shop".to_owned(),
            token: token.to_owned(),
            service: name.to_owned(),
            function: function.to_owned(),
            params: "{}".into(),
            of_operator: false,
            is_list: false,
        };
        service.authorize_call(&request, SystemTime::now(), None).unwrap_err()
    }

    #[test]
    fn a_listed_function_has_its_own_rule_and_others_the_default() {
        let service = service(json!({"send": {"rule": {"rule": "deny"}}}), json!({"rule": {"rule": "allow"}}));
        assert_eq!(call(&service, "", ("mail", "send"), json!({})).unwrap_err(), DENIED);
        assert_eq!(call(&service, "", ("mail", "other"), json!({})).unwrap().function, "other");
    }

    #[test]
    fn the_identity_is_of_the_caller_and_for_the_service_only() {
        let service = service(json!({"send": {"rule": {"rule": "allow"}}}), json!(null));
        let ann = token(&json!({"id": "ann", "aud": "shop", "nbf": 1}));
        let granted = call(&service, &ann, ("mail", "send"), json!({})).unwrap();
        assert_eq!(serde_json::from_str::<Json>(&granted.claims).unwrap()["id"], "ann");
        let claims = claims_of(&granted.bearer);
        assert_eq!(
            (&claims["id"], &claims["aud"], &claims["nbf"]),
            (&json!("ann"), &json!("service:mail"), &json!(null))
        );
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), IDENTITY_SECONDS);
        // Whoever was called cannot call with it.
        let again = call(&service, &granted.bearer, ("mail", "send"), json!({})).unwrap();
        assert_eq!(again.claims, "{}");
        let stranger = call(&service, "", ("mail", "send"), json!({})).unwrap();
        assert_eq!((stranger.claims.as_str(), &claims_of(&stranger.bearer)["aud"]), ("{}", &json!("service:mail")));
    }

    #[test]
    fn what_the_operator_has_called_is_called_as_whoever_caused_it() {
        let service = service(json!({"send": {"rule": {"rule": "deny"}, "forward": true}}), json!(null));
        let of = |token: &str| {
            let (project, params) = ("shop".to_owned(), Default::default());
            let (name, function, token) = ("mail".to_owned(), "send".to_owned(), token.to_owned());
            let request = AuthorizeCallRequest {
                project,
                token,
                service: name,
                function,
                params,
                of_operator: true,
                is_list: false,
            };
            let granted = service.authorize_call(&request, SystemTime::now(), None).unwrap();
            grant::pair(b"key").1.call_grant(granted.grant.unwrap()).unwrap()
        };
        let node = of("");
        assert_eq!((node.claims.as_str(), &claims_of(&node.bearer)["aud"]), ("{}", &json!("service:mail")));
        let ann = token(&json!({"id": "ann"}));
        let caused = of(&ann);
        assert_eq!(serde_json::from_str::<Json>(&caused.claims).unwrap()["id"], "ann");
        assert!(caused.bearer != ann, "nobody's own token goes on");
    }

    #[test]
    fn a_grant_and_the_identity_are_good_for_a_minute_from_now() {
        let service = service(json!({"send": {"rule": {"rule": "allow"}}}), json!(null));
        let now_ms = 1_900_000_000_123;
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms);
        let granted = call_at(&service, "", ("mail", "send"), json!({}), now).unwrap();
        assert_eq!(granted.expires_ms, now_ms as i64 + GRANT_LIFETIME_MS);
        let claims = claims_of(&granted.bearer);
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(1_900_000_000), &json!(1_900_000_060)));
    }

    #[test]
    fn a_rule_for_strangers_too_sees_parameters_and_the_token() {
        let matching = |f1: &str, f2: &str| json!({"rule": "match", "type": "string", "eval": "==", "f1": f1, "f2": f2, "anonymous": true});
        let ann = token(&json!({"id": "ann"}));
        let service = service(
            json!({
                "open": {"rule": matching("args.params.word", "please")},
                "own": {"rule": matching("args.token", &ann)},
                "known": {"rule": {"rule": "match", "type": "string", "eval": "==", "f1": "args.params.word", "f2": "please"}},
            }),
            json!(null),
        );
        let (polite, rude) = (json!({"word": "please"}), json!({"word": "now"}));
        assert_eq!(call(&service, "", ("mail", "open"), polite.clone()).unwrap().claims, "{}");
        assert_eq!(call(&service, "a.b.c", ("mail", "open"), polite).unwrap().claims, "{}");
        let refused = call(&service, "", ("mail", "open"), rude.clone()).unwrap_err();
        assert_eq!(refused, "a token is needed, and none was sent", "a token may help");
        assert_eq!(call(&service, &ann, ("mail", "open"), rude).unwrap_err(), DENIED);
        let missing = "a token is needed, and none was sent";
        assert_eq!(call(&service, "", ("mail", "known"), json!({"word": "please"})).unwrap_err(), missing);
        assert!(call(&service, &ann, ("mail", "own"), json!({})).is_ok());
        assert_eq!(call(&service, &token(&json!({"id": "bob"})), ("mail", "own"), json!({})).unwrap_err(), DENIED);
    }

    #[test]
    fn the_identity_keeps_every_digit_of_a_claim() {
        let service = service(json!({"send": {"rule": {"rule": "allow"}}}), json!(null));
        let claims: Box<RawValue> = serde_json::from_str(r#"{"id": 12345678901234567890123, "huge": 1e400}"#).unwrap();
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let own = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        let granted = call(&service, &own, ("mail", "send"), json!({})).unwrap();
        let made = granted.bearer.split('.').nth(1).unwrap();
        let made = String::from_utf8(URL_SAFE_NO_PAD.decode(made).unwrap()).unwrap();
        for claims in [&granted.claims, &made] {
            assert!(claims.contains(r#""id":12345678901234567890123,"huge":1e400"#), "{claims}");
        }
    }

    #[test]
    fn workers_need_what_register_says() {
        let staff = token(&json!({"role": "staff"}));
        let rule = json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "staff"});
        let document =
            |id: &str, worker: Json| json!({"kind": "service", "meta": {"project": "shop", "id": id}, "spec": worker});
        let project =
            json!({"kind": "project", "meta": {"id": "shop"}, "spec": {"tokens": [{"kid": "main", "secret": SECRET}]}});
        let documents = [
            project,
            document("mail", json!({"worker": {"register": rule}})),
            document("open", json!({"worker": {}})),
            document("remote", json!({"http": {"url": "http://remote"}})),
        ];
        let snapshot: Snapshot = parsed(&documents).unwrap();
        let policies = Arc::new(ArcSwap::from_pointee(PolicySet::new(&snapshot, None, &PolicySet::default())));
        let served = Service::of(policies.clone(), grant::pair(b"key").0);
        let development = crate::Development { keys: "/nowhere".into(), token_options: String::new() };
        let developing = Service::of(policies, grant::pair(b"key").0).developing(development);
        let registers = |service: &Service, token: &str, name: &str| {
            let (project, token, name) = ("shop".to_owned(), token.to_owned(), name.to_owned());
            let request = proto::auth::AuthorizeWorkerRequest { project, token, service: name };
            service.authorize_worker(&request, SystemTime::now(), None).is_ok()
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_900_000_000_123);
        let (project, token, name) = ("shop".to_owned(), staff.clone(), "mail".to_owned());
        let request = proto::auth::AuthorizeWorkerRequest { project, token, service: name };
        let granted = served.authorize_worker(&request, now, None).unwrap().grant.unwrap();
        let granted = grant::pair(b"key").1.worker_grant(granted).unwrap();
        assert_eq!((granted.service.as_str(), granted.expires_ms), ("mail", 1_900_000_000_123 + GRANT_LIFETIME_MS));
        for service in [&served, &developing] {
            assert!(registers(service, &staff, "mail"));
            assert!(!registers(service, "", "mail"));
            assert!(!registers(service, &staff, "remote"));
        }
        for name in ["open", "nowhere"] {
            assert!(!registers(&served, &staff, name) && registers(&developing, "", name), "{name}");
        }
    }

    #[test]
    fn the_callers_own_token_goes_only_where_it_is_forwarded_and_valid() {
        let service = service(json!({"send": {"rule": {"rule": "allow"}, "forward": true}}), json!(null));
        let ann = token(&json!({"id": "ann"}));
        assert_eq!(call(&service, &ann, ("mail", "send"), json!({})).unwrap().bearer, ann);
        assert_eq!(call(&service, "a.b.c", ("mail", "send"), json!({})).unwrap().bearer, "");
    }
}
