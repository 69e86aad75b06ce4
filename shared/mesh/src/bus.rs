//! Event bus between services: delivery at most once, to current subscribers. With NATS also what nodes share that is not to
//! be lost: journals, and leases.

use bytes::Bytes;
use tokio::sync::broadcast;

pub use self::nats::Nats;

pub mod journal;
pub mod lease;
mod nats;
mod subject;

/// Capacity of a subscription; a slow subscriber is told how many events it missed.
const CAPACITY: usize = 1024;

/// Transport of events.
#[derive(Debug, Clone)]
pub enum Bus {
    /// In this process.
    Memory(Memory),
    /// Between processes.
    Nats(Nats),
}

/// A bus in this process.
#[derive(Debug, Clone)]
pub struct Memory {
    events: broadcast::Sender<Event>,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Dot-separated words of `[A-Za-z0-9_-]`.
    pub subject: String,
    /// Content of the event.
    pub payload: Bytes,
}

/// Item of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An event.
    Message(Message),
    /// This many events were lost, because the listener was too slow, or 0 where it is not known how many, because the bus
    /// could not be reached. It must read the current state itself.
    Lagged(u64),
}

/// The events under one subject, from the moment it was made.
#[derive(Debug)]
pub struct Subscription {
    subject: String,
    events: broadcast::Receiver<Event>,
}

impl Bus {
    /// A bus in this process.
    pub fn memory() -> Self {
        Self::Memory(Memory::default())
    }

    /// Publishes to the current subscribers. Never waits: a slow one gets [`Event::Lagged`].
    pub fn publish(&self, subject: impl Into<String>, payload: impl Into<Bytes>) {
        let message = Message { subject: subject.into(), payload: payload.into() };
        match self {
            Self::Memory(memory) => memory.send(Event::Message(message)),
            Self::Nats(nats) => nats.publish(message),
        }
    }

    /// The events of `subject` and of what is under it: `schema` hears `schema.shop.music`. The empty subject hears
    /// all.
    pub fn subscribe(&self, subject: impl Into<String>) -> Subscription {
        let (Self::Memory(memory) | Self::Nats(Nats { memory, .. })) = self;
        Subscription { subject: subject.into(), events: memory.events.subscribe() }
    }

    /// The servers that nodes share, where there are any.
    pub fn nats(&self) -> Option<&Nats> {
        match self {
            Self::Memory(_) => None,
            Self::Nats(nats) => Some(nats),
        }
    }
}

impl Memory {
    fn send(&self, event: Event) {
        // An error means that nobody listens.
        let _ = self.events.send(event);
    }
}

impl Default for Memory {
    fn default() -> Self {
        let (events, _) = broadcast::channel(CAPACITY);
        Self { events }
    }
}

impl Subscription {
    /// The next event; `None` when the bus is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.events.recv().await {
                Ok(Event::Message(message)) if !is_under(&message.subject, &self.subject) => {}
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => return Some(Event::Lagged(missed)),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn is_under(subject: &str, above: &str) -> bool {
    above.is_empty() || subject.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str) -> Option<Event> {
        Some(Event::Message(Message { subject: subject.to_owned(), payload: Bytes::new() }))
    }

    #[tokio::test]
    async fn a_subscription_hears_its_subject_and_what_is_under_it() {
        let bus = Bus::memory();
        let mut schema = bus.subscribe("schema.shop");
        for subject in ["schema", "schema.shopping", "schema.shop.music", "other", "schema.shop"] {
            bus.publish(subject, Bytes::new());
        }
        assert_eq!(schema.next().await, message("schema.shop.music"));
        assert_eq!(schema.next().await, message("schema.shop"));
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_much_it_missed() {
        let bus = Bus::memory();
        let mut slow = bus.subscribe("");
        for _ in 0..CAPACITY + 3 {
            bus.publish("a", Bytes::new());
        }
        assert_eq!(slow.next().await, Some(Event::Lagged(3)));
        assert_eq!(slow.next().await, message("a"));
    }

    #[tokio::test]
    async fn a_bus_that_is_gone_ends_its_subscriptions() {
        let bus = Bus::memory();
        let mut subscription = bus.subscribe("");
        drop(bus);
        assert_eq!(subscription.next().await, None);
    }
}
