//! One attempt to deliver an event: to a webhook, or by a call of a function.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::Mesh;
use query::trigger::{Target, Trigger};
use tokio::sync::Semaphore;

use super::{
    function_call,
    reply::{Followup, Reply},
    template, webhook,
};
use crate::client::Client;

/// Bytes of an answer that are kept.
const KEPT_BYTES: usize = 1024;
/// How long a template may be waited for, beyond the bounds of what it does, and how long its turn is.
const RENDER_TIMEOUT: Duration = Duration::from_secs(2);
/// Templates of all triggers at once.
const RENDERS_MAX: usize = 4;

/// By what messages are sent. Clones are the same.
#[derive(Clone)]
pub struct Carrier {
    /// To webhooks.
    pub client: Client,
    /// To functions.
    pub mesh: Mesh,
    /// Room for templates.
    pub renders: Arc<Semaphore>,
}

/// Room for templates, of which a few are worked at once: others have the processors too.
pub fn renders() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(RENDERS_MAX))
}

/// A message to deliver.
#[derive(Debug, Clone)]
pub struct Message {
    /// The project's id.
    pub project: Arc<str>,
    /// The event's id.
    pub id: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The body.
    pub body: Bytes,
    /// Whether the body is the event, rather than what a template made of it.
    pub is_event: bool,
}

/// What an attempt came to.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// What it means.
    pub verdict: Verdict,
    /// The status, where there was an answer.
    pub code: Option<u16>,
    /// The beginning of the answer, or what went wrong.
    pub text: String,
    /// What whoever waits for the event gets, JSON.
    pub response: Option<Bytes>,
    /// Events that follow.
    pub events: Vec<Followup>,
}

/// Meaning of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The event is delivered.
    Delivered,
    /// It is not.
    Failed {
        /// The wait that the endpoint asked for.
        retry_after: Option<Duration>,
    },
    /// It is not, and the endpoint wants it never.
    Gone,
    /// It is not, and never can be: there is no message of it.
    Unusable,
    /// It was not sent: it was too late to begin.
    Late,
}

/// Sends a message and reads the answer, within the time that the trigger gives. Dropped, the request is given up.
pub async fn attempt(carrier: &Carrier, trigger: &Arc<Trigger>, message: Message) -> Answer {
    let message = match rendered(&carrier.renders, trigger, message).await {
        Ok(message) => message,
        Err(answer) => return answer,
    };
    let time = trigger.timeout();
    let sent = async {
        match &trigger.to {
            Target::Webhook(to) => webhook::send(&carrier.client, to, message).await,
            Target::Function(to) => Box::pin(function_call::send(&carrier.mesh, to, message, time)).await,
        }
    };
    match tokio::time::timeout(time, sent).await {
        Ok(answer) => answer,
        Err(_) => Answer::failed(None, format!("no answer within {time:?}")),
    }
}

/// The message as the template of the trigger has it.
async fn rendered(renders: &Arc<Semaphore>, trigger: &Arc<Trigger>, message: Message) -> Result<Message, Answer> {
    if trigger.template.is_none() {
        return Ok(message);
    }
    let turn = tokio::time::timeout(RENDER_TIMEOUT, renders.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else { return Err(Answer::late()) };
    let (trigger, event) = (trigger.clone(), message.body.clone());
    let rendering = tokio::task::spawn_blocking(move || {
        // Until it ends, also where nobody waits for it any more.
        let _turn = turn;
        let text = trigger.template.as_deref().unwrap_or_default();
        template::render(text, &event)
    });
    match tokio::time::timeout(RENDER_TIMEOUT, rendering).await {
        Ok(Ok(Ok(Some(body)))) => Ok(Message { body: body.into(), is_event: false, ..message }),
        Ok(Ok(Ok(None))) => Ok(message),
        Ok(Ok(Err(why))) => Err(unusable(&why)),
        Ok(Err(error)) => Err(Answer::failed(None, format!("template: {error}"))),
        // It would take as long again.
        Err(_) => Err(unusable(&format!("it took over {RENDER_TIMEOUT:?}"))),
    }
}

/// There is no message of an event.
fn unusable(why: &str) -> Answer {
    Answer { verdict: Verdict::Unusable, ..Answer::failed(None, format!("template: {why}")) }
}

impl Answer {
    /// An answer with a body.
    pub fn new(verdict: Verdict, code: Option<u16>, body: &[u8], reply: Reply) -> Self {
        let kept = String::from_utf8_lossy(&body[..body.len().min(KEPT_BYTES)]);
        let mut text: String = kept.chars().filter(|char| *char != '\0').collect();
        if let Some(left_out) = &reply.left_out {
            text.insert_str(0, &format!("events of the answer are left out: {left_out}: "));
        }
        Self { verdict, code, text, response: reply.response, events: reply.events }
    }

    /// There was no attempt, since it was too late for one.
    pub fn late() -> Self {
        Self { verdict: Verdict::Late, ..Self::failed(None, "the node could not begin in time".to_owned()) }
    }

    /// The attempt failed.
    pub fn failed(code: Option<u16>, text: String) -> Self {
        Self { verdict: Verdict::Failed { retry_after: None }, code, text, response: None, events: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn templates_wait_for_their_turn_and_what_waits_too_long_is_not_sent() {
        let spec = json!({"on": {"event": "a"}, "to": {"url": "http://localhost/"}, "template": "[{{ event.n }}]"});
        let trigger: Arc<Trigger> = Arc::new(serde_json::from_value(spec).unwrap());
        let message = Message {
            project: "shop".into(),
            id: "e".to_owned(),
            attempt: 1,
            body: Bytes::from_static(b"{\"n\":7}"),
            is_event: true,
        };
        let renders = renders();
        let held = renders.clone().acquire_many_owned(RENDERS_MAX as u32).await.unwrap();
        assert_eq!(rendered(&renders, &trigger, message.clone()).await.unwrap_err(), Answer::late());
        drop(held);
        let sent = rendered(&renders, &trigger, message).await.unwrap();
        assert_eq!((&sent.body[..], sent.is_event), (&b"[7]"[..], false));
        assert_eq!(renders.available_permits(), RENDERS_MAX);
    }
}
