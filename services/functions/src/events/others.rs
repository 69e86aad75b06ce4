//! Other nodes of the mesh that have queues of their own: each would send every event, which is told.

use std::time::Duration;

use bytes::Bytes;
use mesh::bus::{
    Nats,
    lease::{Election, NOTICE_INTERVAL, NOTICE_TIME},
};
use tokio::time::Instant;

use crate::health::PartHealth;

/// This, as `/ready` names it.
const PART: &str = "events of other nodes";
/// How long others are there before it is told: what a process told that is gone has run out by then.
const TELL_TIME: Duration = NOTICE_TIME.saturating_add(NOTICE_INTERVAL);

/// Tells others that this node has a queue, and finds out who else has one, for ever.
pub async fn watch(nats: Nats, health: PartHealth) {
    let election = nats.election_of_events();
    tokio::join!(notice(&election), listen(&election, nats.node(), &health));
}

async fn notice(election: &Election) {
    loop {
        if let Err(error) = Box::pin(election.notice(Bytes::new())).await {
            tracing::debug!(error, "other nodes cannot be told that this one has a queue of events");
        }
        tokio::time::sleep(NOTICE_INTERVAL).await;
    }
}

async fn listen(election: &Election, own: &str, health: &PartHealth) {
    loop {
        match Box::pin(election.notices()).await {
            Ok(mut notices) => {
                let mut others = Others::default();
                // A notice of this node itself comes often enough for what is to be told later.
                while let Ok(()) = notices.changed().await {
                    let count = notices.values().filter(|(node, _)| *node != own).count();
                    let why = others.see(count, Instant::now());
                    if health.set(PART, why.clone())
                        && let Some(why) = why
                    {
                        tracing::error!("{why}");
                    }
                }
            }
            Err(error) => tracing::debug!(error, "it cannot be found out which nodes have queues of events"),
        }
        tokio::time::sleep(NOTICE_INTERVAL).await;
    }
}

/// Since when there are others.
#[derive(Debug, Default)]
struct Others(Option<Instant>);

impl Others {
    /// What is to be told where there are so many now.
    fn see(&mut self, count: usize, now: Instant) -> Option<String> {
        if count == 0 {
            self.0 = None;
            return None;
        }
        let since = *self.0.get_or_insert(now);
        (now.duration_since(since) >= TELL_TIME).then(|| {
            let remedy = "each sends every event: run functions on one node, or share a queue (queue.kind: postgres)";
            format!("nodes of this mesh with a queue of their own besides this one: {count}; {remedy}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_once_they_cannot_be_a_process_that_is_gone() {
        let (mut others, start) = (Others::default(), Instant::now());
        assert_eq!(others.see(1, start), None);
        assert_eq!(others.see(1, start + NOTICE_TIME), None);
        assert_eq!(others.see(0, start + NOTICE_TIME), None);
        assert_eq!(others.see(2, start + TELL_TIME), None, "they have come anew");
        let told = others.see(2, start + 2 * TELL_TIME).unwrap();
        assert!(told.contains("besides this one: 2; each sends every event"), "{told}");
        assert_eq!(others.see(0, start + 2 * TELL_TIME), None);
    }
}
