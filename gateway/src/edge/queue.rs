//! Custom events: the rules of their types are asked, then the service that queues them.

use bytes::Bytes;
use mesh::Fault;
use proto::{
    Links,
    auth::{AuthorizeEventsRequest, EventAccess},
    functions::{QueueRequest, QueuedEvent},
};

use super::{Caller, Edge};
use crate::catalogue::Project;

/// Custom events to queue, all or none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueuedEvents {
    /// The events.
    pub events: Vec<CustomEvent>,
    /// The name of the request, by which it is known again; empty: none.
    pub idempotency_key: String,
    /// Whether the answer of a trigger is waited for.
    pub is_awaited: bool,
}

/// A custom event.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomEvent {
    /// Its type.
    pub r#type: String,
    /// JSON.
    pub payload: Bytes,
    /// Milliseconds that it waits.
    pub delay_ms: u64,
    /// From when, in milliseconds since 1970; `None`: from now.
    pub at_ms: Option<i64>,
}

impl Edge {
    /// Queues custom events, if the rules of their types allow it: durable then. The response of a trigger, JSON, where it is
    /// waited for and there is one.
    pub(crate) async fn queue_events(
        &self,
        caller: &Caller,
        project: &Project,
        events: QueuedEvents,
    ) -> Result<Option<Bytes>, Fault> {
        let queued = Box::pin(self.queued(caller, project, events)).await;
        if let Err(fault) = &queued {
            self.log_refusal(caller, fault);
        }
        queued
    }

    async fn queued(&self, caller: &Caller, project: &Project, events: QueuedEvents) -> Result<Option<Bytes>, Fault> {
        let QueuedEvents { events, idempotency_key, is_awaited } = events;
        let access = |event: &CustomEvent| EventAccess { r#type: event.r#type.clone(), payload: event.payload.clone() };
        let asked = AuthorizeEventsRequest {
            project: project.id.to_string(),
            token: caller.token.to_string(),
            events: events.iter().map(access).collect(),
        };
        let grant = self.mesh.auth_rules().authorize_events(&caller.call, asked).await?.grant;
        let event = |CustomEvent { r#type, payload, delay_ms, at_ms }| QueuedEvent { r#type, payload, delay_ms, at_ms };
        let events = events.into_iter().map(event).collect();
        let request = QueueRequest { grant, events, idempotency_key, wait: is_awaited };
        // It may wait for as long as a call of a function, and keeps none away.
        let _waiting = is_awaited.then(|| self.waits.enter()).transpose()?;
        Ok(self.mesh.functions().queue(&caller.call, request).await?.response)
    }
}
