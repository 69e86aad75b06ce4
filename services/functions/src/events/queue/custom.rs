//! Custom events, which are durable when their request is answered, and the names of such requests.

use super::{NewEvent, Queue, QueueError, store::Statement, store::StoreTransaction};

/// How long the name of a request is known, in milliseconds.
const NAME_AGE_MS: i64 = 86_400_000;

/// The name of a request among those of a project with the same types.
#[derive(Debug, Clone)]
pub struct RequestName {
    /// The project's id.
    pub project: String,
    /// The types of its events.
    pub types: Vec<String>,
    /// Its name.
    pub name: String,
    /// Hash of what is asked.
    pub request: Vec<u8>,
    /// The ids of events that are waited for.
    pub awaited: Vec<String>,
}

/// What has become of an event.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EventOutcome {
    /// The name of its status.
    pub status: String,
    /// The status of its last answer, where there was one.
    pub code: Option<i64>,
    /// The response in that, JSON.
    pub response: Option<Vec<u8>>,
}

/// What became of a request to queue custom events.
#[derive(Debug, PartialEq, Eq)]
pub enum Queued {
    /// So many events are new.
    New(u64),
    /// The same request was made before, and waited for these events.
    Known(Vec<String>),
    /// Another request of its name was made before.
    Conflict,
}

impl Queue {
    /// Makes custom events durable, unless their request was made before.
    pub async fn add(
        &self,
        events: &[NewEvent],
        name: Option<&RequestName>,
        now_ms: i64,
    ) -> Result<Queued, QueueError> {
        let mut transaction = self.store.begin().await?;
        if let Some(name) = name
            && let Some(known) = known(&mut transaction, name, now_ms).await?
        {
            return Ok(known);
        }
        let added = self.insert(&mut transaction, events, now_ms).await?;
        transaction.commit().await?;
        self.arrived(events.iter().map(|event| event.trigger.clone()));
        Ok(Queued::New(added))
    }

    /// What has become of events by their ids; one that is not there any more is left out.
    pub async fn outcomes(&self, ids: &[String]) -> Result<Vec<EventOutcome>, QueueError> {
        let mut select = Statement::new("SELECT status, code, response FROM events WHERE id IN (");
        for (index, id) in ids.iter().enumerate() {
            select = if index == 0 { select } else { select.push(", ") }.bind(id.as_str());
        }
        // The first answer comes first.
        Ok(self.store.rows(select.push(") ORDER BY finished_ms, seq")).await?)
    }

    /// Waits until attempts of this process have ended. Cancel-safe.
    pub async fn ends(&self) {
        self.ended.notified().await;
    }

    /// Forgets names of requests that are old.
    pub async fn forget_requests(&self, now_ms: i64) -> Result<(), QueueError> {
        let old = Statement::new("DELETE FROM queue_requests WHERE created_ms < ").bind(now_ms - NAME_AGE_MS);
        self.store.execute(old).await?;
        Ok(())
    }
}

/// Writes the name of a request for each of its types; what it was before, where it is known.
async fn known(
    transaction: &mut StoreTransaction,
    RequestName { project, types, name, request, awaited }: &RequestName,
    now_ms: i64,
) -> Result<Option<Queued>, QueueError> {
    // In the order of their names: of two requests at once one waits for the other.
    for r#type in types {
        let insert = "INSERT INTO queue_requests (project, type, name, request, awaited, created_ms) VALUES (";
        let insert = Statement::new(insert)
            .bind(project.as_str())
            .push(", ")
            .bind(r#type.as_str())
            .push(", ")
            .bind(name.as_str())
            .push(", ")
            .bind(&request[..])
            .push(", ")
            .bind(awaited.join(","))
            .push(", ")
            .bind(now_ms)
            .push(") ON CONFLICT (project, type, name) DO UPDATE SET request = excluded.request, ")
            .push("awaited = excluded.awaited, created_ms = excluded.created_ms WHERE queue_requests.created_ms < ")
            .bind(now_ms - NAME_AGE_MS);
        if transaction.execute(insert).await? == 1 {
            continue;
        }
        let select =
            Statement::new("SELECT request, awaited FROM queue_requests WHERE project = ").bind(project.as_str());
        let select = select.push(" AND type = ").bind(r#type.as_str()).push(" AND name = ").bind(name.as_str());
        let found: Vec<(Vec<u8>, String)> = transaction.rows(select).await?;
        let same = found.into_iter().find(|(found, _)| found == request);
        let ids = |text: String| text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
        return Ok(Some(same.map_or(Queued::Conflict, |(_, awaited)| Queued::Known(ids(awaited)))));
    }
    Ok(None)
}
