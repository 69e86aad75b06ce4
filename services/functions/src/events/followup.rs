//! Events that follow from others: those that answers ask for, and dead letters that triggers want.
//!
//! Each event has a budget of events that may follow from it, which those that do share: what follows from one, over however
//! many steps, is never more than that.

use query::event::DEAD_LETTER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    custom::CustomEvent,
    queue::{NewEvent, TriggerKey},
    registry::Triggers,
    reply::Followup,
};

/// Events that may follow from one that nothing was before.
pub const BUDGET: i64 = 1000;

/// What an event tells of itself.
#[derive(Deserialize)]
struct Told<'j> {
    id: String,
    r#type: String,
    time: String,
    #[serde(borrow)]
    data: &'j RawValue,
}

/// The payload of a dead letter, as earlier servers had it.
#[derive(Serialize)]
struct DeadLetter<'l> {
    event_id: String,
    event_type: String,
    event_payload: &'l RawValue,
    event_timestamp: String,
    event_name: &'l str,
}

/// The events that an answer asks for, for each of their triggers. Errors: they are more than the budget of the event.
pub fn of_answer(
    trigger: &TriggerKey,
    asked: Vec<Followup>,
    triggers: &Triggers,
    (budget, now_ms): (i64, i64),
) -> Result<Vec<NewEvent>, String> {
    let mut made = Vec::new();
    for Followup { r#type, payload, delay_ms, at } in asked {
        let at_ms = at.map(|at| at.unix_ms(now_ms)).transpose().map_err(|why| format!("timestamp: {why}"))?.flatten();
        let delay_ms = i64::try_from(delay_ms).unwrap_or(i64::MAX);
        let due_ms = at_ms.unwrap_or(now_ms).max(now_ms).saturating_add(delay_ms);
        let event = CustomEvent { r#type, payload, due_ms: (due_ms > now_ms).then_some(due_ms) };
        if event.due_ms.is_some() {
            event.check_delay(&trigger.project, triggers, false).map_err(|refusal| refusal.to_string())?;
        }
        made.extend(event.messages(&trigger.project, triggers, now_ms));
    }
    shared(made, budget)
}

/// The event of a dead letter, for each trigger that wants those of this one; none past the budget.
pub fn of_dead_letter(
    trigger: &TriggerKey,
    message: &[u8],
    triggers: &Triggers,
    (budget, now_ms): (i64, i64),
) -> Vec<NewEvent> {
    let name = format!("{DEAD_LETTER}{}", trigger.id);
    if !triggers.has_event(&trigger.project, &name) {
        return Vec::new();
    }
    let Ok(Told { id, r#type, time, data }) = serde_json::from_slice(message) else { return Vec::new() };
    let payload = DeadLetter {
        event_id: id,
        event_type: r#type,
        event_payload: data,
        event_timestamp: time,
        event_name: &trigger.id,
    };
    let Ok(payload) = serde_json::to_vec(&payload) else { return Vec::new() };
    let event = CustomEvent { r#type: name, payload: payload.into(), due_ms: None };
    shared(event.messages(&trigger.project, triggers, now_ms), budget).unwrap_or_default()
}

/// The events with their shares of a budget.
fn shared(events: Vec<NewEvent>, budget: i64) -> Result<Vec<NewEvent>, String> {
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    if count > budget {
        return Err(format!("more than {BUDGET} events follow from one another"));
    }
    let share = (budget - count) / count.max(1);
    Ok(events.into_iter().map(|event| NewEvent { budget: share, ..event }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> NewEvent {
        let trigger = TriggerKey { project: "p".into(), id: "a".into() };
        NewEvent {
            id: "e".to_owned(),
            trigger,
            r#type: "order".into(),
            due_ms: None,
            body: Ok(Vec::new()),
            order_key: None,
            budget: BUDGET,
            is_awaited: false,
        }
    }

    /// All that follows where each event is answered with so many.
    fn total(each: usize, budget: i64) -> usize {
        match shared(vec![event(); each], budget) {
            Ok(events) => events.iter().map(|event| 1 + total(each, event.budget)).sum(),
            Err(_) => 0,
        }
    }

    #[test]
    fn whatever_answers_ask_for_no_more_follows_than_the_budget() {
        assert_eq!(total(1, BUDGET), 1000, "a loop ends");
        for each in [2, 3, 7, 100, 1000] {
            let total = total(each, BUDGET);
            assert!((each..=1000).contains(&total), "{each}: {total}");
        }
        assert_eq!((total(1001, BUDGET), total(1, 0)), (0, 0));
        assert!(shared(vec![event(); 1001], BUDGET).is_err());
        assert_eq!(shared(Vec::new(), 0), Ok(Vec::new()));
    }
}
