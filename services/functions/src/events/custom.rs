//! Custom events: what callers queue becomes an event for each trigger of its type, durable before they are answered.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use mesh::{Call, telemetry::EventMeters};
use proto::functions::{EVENTS_MAX, IDEMPOTENCY_KEY_BYTES, QueueRequest, QueueResponse, QueuedEvent};
use query::{
    event::DELAY_MAX_MS,
    trigger::{Ordered, Trigger},
};
use serde_json::Value as Json;
use tokio::sync::{Semaphore, watch};

use super::{
    cloud_event::{self, MESSAGE_BYTES},
    followup::BUDGET,
    queue::{
        NewEvent, Queue, TriggerKey,
        crowd::NAMES_MAX,
        custom::{EventOutcome, Queued, RequestName},
    },
    refusal::QueueRefusal,
    registry::{Registry, Triggers},
};
use crate::answer;

/// How long a request waits for the queue of a node that begins.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the messages that one request makes: an event is one for each trigger of its type.
const REQUEST_BYTES: usize = 64 << 20;
/// Such messages.
const REQUEST_MESSAGES: usize = 20_000;
/// How far ahead a time without a delay counts as now, in milliseconds: clients send that of their own clock.
const SKEW_MS: i64 = 30_000;

/// Requests that wait for answers at once.
const WAITING_MAX: usize = 256;
/// How often a request that waits looks: what other nodes deliver is not told here.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a request waits at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The way of custom events to the queue. Clones are the same.
#[derive(Clone)]
pub struct CustomEvents {
    queue: watch::Receiver<Option<Queue>>,
    registry: Registry,
    meters: EventMeters,
    waiting: Arc<Semaphore>,
}

/// A custom event.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomEvent {
    /// Its type.
    pub r#type: String,
    /// JSON.
    pub payload: Bytes,
    /// When it is due, in milliseconds since 1970; `None`: now.
    pub due_ms: Option<i64>,
}

impl CustomEvents {
    /// The way to the queue, once there is one.
    pub fn new(queue: watch::Receiver<Option<Queue>>, registry: Registry, meters: EventMeters) -> Self {
        Self { queue, registry, meters, waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// Queues the events of a request, all or none. Where there is no trigger for any of them, nothing is kept.
    pub async fn queue(&self, project: &str, request: QueueRequest) -> Result<QueueResponse, QueueRefusal> {
        check(&request)?;
        let triggers = self.registry.now();
        let is_wanted = request.events.iter().any(|event| triggers.has_event(project, &event.r#type));
        let Some(queue) = self.opened(is_wanted).await? else { return Ok(QueueResponse::default()) };
        let is_awaited = request.wait;
        let place = is_awaited.then(|| self.waiting.try_acquire()).transpose();
        let _place = place.map_err(|_| QueueRefusal::ManyWait { limit: WAITING_MAX })?;
        let (now_ms, mut name) = (queue.now_ms(), name(project, &request, &triggers));
        let before = match &name {
            Some(name) => queue.known(name, now_ms).await.map_err(QueueRefusal::Queue)?,
            None => None,
        };
        match before {
            Some(Queued::Known(awaited)) => return known(&queue, &awaited).await,
            Some(Queued::Conflict) => return Err(QueueRefusal::OtherRequest(request.idempotency_key)),
            Some(Queued::New(_)) | None => {}
        }
        fits(project, &request.events, &triggers)?;
        let mut events = Vec::new();
        for event in request.events {
            let event = CustomEvent { due_ms: due_ms(&event, now_ms), r#type: event.r#type, payload: event.payload };
            if event.due_ms.is_some() {
                event.check_delay(project, &triggers, is_awaited)?;
            }
            let messages = event.messages(project, &triggers, now_ms).into_iter();
            events.extend(messages.map(|made| NewEvent { is_awaited, ..made }));
        }
        if events.is_empty() {
            return Ok(QueueResponse::default());
        }
        has_room(&queue, project, &events, name.is_some())?;
        let mut awaited: Vec<String> = Vec::new();
        if is_awaited {
            awaited.extend(events.iter().map(|event| event.id.clone()));
        }
        if let Some(name) = &mut name {
            name.awaited.clone_from(&awaited);
        }
        match queue.add(&events, name.as_ref(), now_ms).await {
            Ok(Queued::New(added)) => {
                self.meters.queued.inc_by(added);
                let response = if awaited.is_empty() { None } else { answered(&queue, &awaited).await? };
                Ok(QueueResponse { is_known: false, response })
            }
            Ok(Queued::Known(before)) => known(&queue, &before).await,
            Ok(Queued::Conflict) => Err(QueueRefusal::OtherRequest(request.idempotency_key)),
            Err(error) => Err(QueueRefusal::Queue(error)),
        }
    }

    /// The queue; `None` where nobody wants anything of it, and there is none yet.
    async fn opened(&self, is_wanted: bool) -> Result<Option<Queue>, QueueRefusal> {
        let mut queue = self.queue.clone();
        let opened = queue.borrow_and_update().clone();
        if opened.is_some() || !is_wanted {
            return Ok(opened);
        }
        let opened = tokio::time::timeout(OPEN_TIMEOUT, queue.wait_for(Option::is_some)).await;
        match opened {
            Ok(Ok(queue)) => Ok(queue.clone()),
            Ok(Err(_)) | Err(_) => Err(QueueRefusal::NoQueue),
        }
    }
}

/// The answer to a request that was made before, and waited for these events.
async fn known(queue: &Queue, awaited: &[String]) -> Result<QueueResponse, QueueRefusal> {
    let response = if awaited.is_empty() { None } else { answered(queue, awaited).await? };
    Ok(QueueResponse { is_known: true, response })
}

/// Whether the messages of a request are within bounds, before any of them is made.
fn fits(project: &str, events: &[QueuedEvent], triggers: &Triggers) -> Result<(), QueueRefusal> {
    let (mut count, mut bytes) = (0_usize, 0_usize);
    for QueuedEvent { r#type, payload, .. } in events {
        let of_type = triggers.count_of_event(project, r#type);
        count = count.saturating_add(of_type);
        bytes = bytes.saturating_add(payload.len().saturating_mul(of_type));
    }
    if count > REQUEST_MESSAGES {
        return Err(QueueRefusal::ManyMessages { count, limit: REQUEST_MESSAGES });
    }
    match bytes > REQUEST_BYTES {
        true => Err(QueueRefusal::LargeEvents { bytes, limit: REQUEST_BYTES }),
        false => Ok(()),
    }
}

/// Whether there is room for the events of a request.
fn has_room(queue: &Queue, project: &str, events: &[NewEvent], is_named: bool) -> Result<(), QueueRefusal> {
    if is_named && queue.has_many_names(project) {
        return Err(QueueRefusal::ManyNames { limit: NAMES_MAX });
    }
    for NewEvent { trigger, due_ms, .. } in events {
        if queue.is_crowded(trigger) {
            return Err(QueueRefusal::Crowded(trigger.id.to_string()));
        }
        if due_ms.is_some() && queue.has_many_delayed(trigger) {
            return Err(QueueRefusal::ManyDelayed(trigger.id.to_string()));
        }
    }
    Ok(())
}

/// The first response to events, once there is one or all are done. Errors: none was delivered, or it takes too long.
async fn answered(queue: &Queue, ids: &[String]) -> Result<Option<Bytes>, QueueRefusal> {
    let left =
        Call::current().and_then(|call| call.time_left()).map_or(ANSWER_TIMEOUT, |left| left.min(ANSWER_TIMEOUT));
    let answer = async {
        loop {
            // What ends meanwhile is told.
            let mut ended = pin!(queue.ends());
            ended.as_mut().now_or_never();
            if let Some(done) = done(&queue.outcomes(ids).await.map_err(QueueRefusal::Queue)?, ids.len()) {
                return done;
            }
            tokio::select! {
                () = ended => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    };
    tokio::time::timeout(left, answer).await.unwrap_or(Err(QueueRefusal::Late(left)))
}

/// What has come of events, of which there were so many; `None` where that is not known yet.
fn done(outcomes: &[EventOutcome], count: usize) -> Option<Result<Option<Bytes>, QueueRefusal>> {
    if let Some(response) = outcomes.iter().find_map(|outcome| outcome.response.clone()) {
        return Some(Ok(Some(response.into())));
    }
    let of = |status: &str| outcomes.iter().filter(|outcome| outcome.status == status).count();
    let (delivered, failed) = (of("processed"), of("failed"));
    if outcomes.len() > delivered + failed {
        return None;
    }
    // Of those that were removed nobody knows.
    match delivered > 0 || failed == 0 && count > 0 {
        true => Some(Ok(None)),
        false => Some(Err(QueueRefusal::Undelivered(outcomes.iter().find_map(|outcome| outcome.code)))),
    }
}

/// Whether a request is within bounds.
fn check(request: &QueueRequest) -> Result<(), QueueRefusal> {
    let count = request.events.len();
    if count > EVENTS_MAX {
        return Err(QueueRefusal::ManyEvents { count, limit: EVENTS_MAX });
    }
    let key = &request.idempotency_key;
    let is_plain = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if key.len() > IDEMPOTENCY_KEY_BYTES || !is_plain {
        return Err(QueueRefusal::Malformed(
            "invalid Idempotency-Key: expected up to 255 printable ASCII characters".to_owned(),
        ));
    }
    for QueuedEvent { r#type, payload, delay_ms, .. } in &request.events {
        if *delay_ms > DELAY_MAX_MS {
            return Err(QueueRefusal::Malformed(format!("invalid delay of event {type}: expected at most a year")));
        }
        if payload.len() > MESSAGE_BYTES {
            return Err(QueueRefusal::LargeEvents { bytes: payload.len(), limit: MESSAGE_BYTES });
        }
        if !payload.is_empty() && !answer::is_json(payload) {
            return Err(QueueRefusal::Malformed(format!("invalid payload of event {type}: expected JSON")));
        }
    }
    Ok(())
}

/// When an event is due; `None`: now.
fn due_ms(event: &QueuedEvent, now_ms: i64) -> Option<i64> {
    let is_due = |at_ms: &i64| event.delay_ms == 0 && *at_ms <= now_ms.saturating_add(SKEW_MS);
    let at_ms = event.at_ms.filter(|at_ms| !is_due(at_ms)).map_or(now_ms, |at_ms| at_ms.max(now_ms));
    let delay_ms = i64::try_from(event.delay_ms).unwrap_or(i64::MAX);
    let due_ms = at_ms.saturating_add(delay_ms);
    (due_ms > now_ms).then_some(due_ms)
}

/// The name of a request, where it has one, of the types that have triggers: nothing is kept of others. What it asks for is told
/// apart by what was sent, whatever a clock says.
fn name(project: &str, request: &QueueRequest, triggers: &Triggers) -> Option<RequestName> {
    if request.idempotency_key.is_empty() {
        return None;
    }
    let wanted = request.events.iter().filter(|event| triggers.has_event(project, &event.r#type));
    let mut types: Vec<String> = wanted.map(|event| event.r#type.clone()).collect();
    types.sort_unstable();
    types.dedup();
    let mut hasher = blake3::Hasher::new();
    for QueuedEvent { r#type, payload, delay_ms, at_ms } in &request.events {
        for part in [r#type.as_bytes(), payload] {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        hasher.update(&delay_ms.to_be_bytes()).update(&[u8::from(at_ms.is_some())]);
        hasher.update(&at_ms.unwrap_or_default().to_be_bytes());
    }
    hasher.update(&[u8::from(request.wait)]);
    let request_hash = hasher.finalize().as_bytes().to_vec();
    Some(RequestName {
        project: project.to_owned(),
        types,
        name: request.idempotency_key.clone(),
        request: request_hash,
        awaited: Vec::new(),
    })
}

impl CustomEvent {
    /// Whether an event may wait for its time. Errors: where a trigger is ordered, everything of its key would wait too; an answer
    /// is not waited for.
    pub fn check_delay(&self, project: &str, triggers: &Triggers, is_awaited: bool) -> Result<(), QueueRefusal> {
        let name = &self.r#type;
        if is_awaited {
            let text = format!("invalid isSynchronous of event {name}: one that is not due now is not waited for");
            return Err(QueueRefusal::Malformed(text));
        }
        match triggers.of_event(project, name).iter().any(|(_, spec)| spec.ordered != Ordered::No) {
            true => Err(QueueRefusal::Malformed(format!(
                "invalid delay or timestamp of event {name}: events of a type with an ordered trigger are due now"
            ))),
            false => Ok(()),
        }
    }

    /// The event for each trigger of its type.
    pub fn messages(&self, project: &str, triggers: &Triggers, now_ms: i64) -> Vec<NewEvent> {
        let of_type = triggers.of_event(project, &self.r#type);
        of_type.into_iter().map(|(key, spec)| self.message(key, &spec, now_ms)).collect()
    }

    fn message(&self, trigger: TriggerKey, spec: &Arc<Trigger>, now_ms: i64) -> NewEvent {
        let id = format!("evt_{:032x}", rand::random::<u128>());
        let body = cloud_event::custom_message(&id, &trigger.project, &self.r#type, now_ms, &self.payload);
        let order_key = self.order_key(&spec.ordered);
        let (r#type, due_ms) = (self.r#type.clone().into(), self.due_ms);
        NewEvent { id, trigger, r#type, due_ms, body, order_key, budget: BUDGET, is_awaited: false }
    }

    fn order_key(&self, ordered: &Ordered) -> Option<Vec<u8>> {
        let order = match ordered {
            Ordered::No => return None,
            // All are of one key.
            Ordered::ByRow => "all".to_owned(),
            Ordered::ByPath(path) => {
                let payload: Json = serde_json::from_slice(&self.payload).unwrap_or_default();
                let value = path.split('.').try_fold(&payload, |value, name| match value {
                    Json::Object(members) => members.get(name),
                    Json::Array(items) => items.get(name.parse::<usize>().ok()?),
                    Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
                });
                value.unwrap_or(&Json::Null).to_string()
            }
        };
        Some(blake3::hash(order.as_bytes()).as_bytes()[..16].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(payload: &str, delay_ms: u64, at_ms: Option<i64>) -> QueuedEvent {
        QueuedEvent { r#type: "order".to_owned(), payload: payload.to_owned().into(), delay_ms, at_ms }
    }

    #[test]
    fn an_event_is_due_after_its_delay_and_never_in_the_past() {
        assert_eq!(due_ms(&queued("", 0, None), 5), None);
        assert_eq!(due_ms(&queued("", 7, None), 5), Some(12));
        assert_eq!(due_ms(&queued("", 0, Some(4)), 5), None);
        assert_eq!(due_ms(&queued("", 0, Some(SKEW_MS + 5)), 5), None, "a clock may be ahead");
        assert_eq!(due_ms(&queued("", 0, Some(SKEW_MS + 6)), 5), Some(SKEW_MS + 6));
        assert_eq!(due_ms(&queued("", 1, Some(9)), 5), Some(10));
        assert_eq!(due_ms(&queued("", 1, Some(i64::MAX)), 5), Some(i64::MAX));
    }

    #[test]
    fn a_request_is_the_same_only_in_all_of_it() {
        let of = |events: Vec<QueuedEvent>| {
            let request = QueueRequest { events, idempotency_key: "k".to_owned(), ..QueueRequest::default() };
            name("p", &request, &Triggers::default()).unwrap().request
        };
        let first = of(vec![queued("1", 0, None)]);
        assert_eq!(first, of(vec![queued("1", 0, None)]));
        for other in [
            vec![queued("2", 0, None)],
            vec![queued("1", 1, None)],
            vec![queued("1", 0, Some(0))],
            vec![queued("1", 0, None), queued("1", 0, None)],
            vec![],
        ] {
            assert_ne!(first, of(other.clone()), "{other:?}");
        }
    }

    #[test]
    fn requests_are_bounded() {
        let of = |events: Vec<QueuedEvent>, key: &str| {
            check(&QueueRequest { events, idempotency_key: key.to_owned(), ..QueueRequest::default() })
                .map_err(|error| error.to_string())
        };
        assert_eq!(of(vec![queued("{}", DELAY_MAX_MS, None); EVENTS_MAX], &"k".repeat(255)), Ok(()));
        let large = format!("\"{}\"", "x".repeat(MESSAGE_BYTES));
        for (events, key, told) in [
            (vec![queued("1", 0, None); EVENTS_MAX + 1], "", "over the limit of 1000"),
            (vec![queued("1", DELAY_MAX_MS + 1, None)], "", "invalid delay"),
            (vec![queued("{", 0, None)], "", "expected JSON"),
            (vec![queued(&large, 0, None)], "", "over the limit of 8388608 bytes"),
            (vec![], "ä", "invalid Idempotency-Key"),
            (vec![], &"k".repeat(256), "invalid Idempotency-Key"),
        ] {
            let why = of(events, key).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
    }

    #[test]
    fn events_are_ordered_by_a_value_of_their_payload() {
        let event = |payload: &str| CustomEvent {
            r#type: "order".to_owned(),
            payload: payload.to_owned().into(),
            due_ms: None,
        };
        let by = Ordered::ByPath("customer.0.id".to_owned());
        let of = |payload: &str| event(payload).order_key(&by).unwrap();
        assert_eq!(of(r#"{"customer":[{"id":1}],"n":1}"#), of(r#"{"n":2,"customer":[{"id":1}]}"#));
        assert_ne!(of(r#"{"customer":[{"id":1}]}"#), of(r#"{"customer":[{"id":2}]}"#));
        assert_eq!(of("7"), of("{}"), "what is not there is null");
        assert_eq!(event("1").order_key(&Ordered::No), None);
        assert_eq!(event("1").order_key(&Ordered::ByRow), event("2").order_key(&Ordered::ByRow));
    }

    #[test]
    fn the_first_response_counts_and_else_whether_any_was_delivered() {
        let outcome = |status: &str, response: Option<&str>| EventOutcome {
            status: status.to_owned(),
            code: Some(500),
            response: response.map(|response| response.as_bytes().to_vec()),
        };
        let of = |outcomes: &[EventOutcome]| done(outcomes, 2).map(|done| done.map_err(|refusal| refusal.to_string()));
        let (waits, delivered, failed) =
            (outcome("pending", None), outcome("processed", None), outcome("failed", None));
        let answered = outcome("processed", Some("1"));
        assert_eq!(of(&[waits.clone(), answered.clone()]), Some(Ok(Some("1".into()))));
        assert_eq!(of(&[waits.clone(), failed.clone()]), None);
        assert_eq!(of(&[delivered.clone(), failed.clone()]), Some(Ok(None)));
        assert_eq!(of(&[delivered, waits]), None);
        assert_eq!(of(&[]), Some(Ok(None)));
        let why = of(&[failed.clone(), failed]).unwrap().unwrap_err();
        assert_eq!(why, "no trigger could deliver the event: the last answer had status 500");
    }
}
