//! Custom events, which are durable when their request is answered, and the names of such requests.

use super::{NewEvent, Queue, QueueError, store::Statement, store::StoreTransaction};

/// How long the name of a request is known, in milliseconds.
const NAME_AGE_MS: i64 = 86_400_000;
/// Names that are removed in one transaction.
const FORGET_BATCH: i64 = 1000;

/// The name of a request among those of a project with the same types.
#[derive(Debug, Clone)]
pub struct RequestName {
    /// The project's id.
    pub project: String,
    /// The types of its events for which something is queued.
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
            && let Some(known) = write_name(&mut transaction, name, now_ms).await?
        {
            return Ok(known);
        }
        let added = self.insert(&mut transaction, events, now_ms).await?;
        transaction.commit().await?;
        self.added(events, now_ms);
        if let Some(RequestName { project, types, .. }) = name {
            self.crowd().add_names(project, types.len());
        }
        Ok(Queued::New(added))
    }

    /// What a request was before, where it was made; writes nothing.
    pub async fn known(&self, name: &RequestName, now_ms: i64) -> Result<Option<Queued>, QueueError> {
        let RequestName { project, types, name, request, .. } = name;
        for r#type in types {
            let select = of_name(project, r#type, name).push(" AND created_ms >= ").bind(now_ms - NAME_AGE_MS);
            if let Some(found) = self.store.rows(select).await?.into_iter().next() {
                return Ok(Some(before(found, request)));
            }
        }
        Ok(None)
    }

    /// Whether there are so many names of requests of a project that callers give no more.
    pub fn has_many_names(&self, project: &str) -> bool {
        self.crowd().has_many_names(project)
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

    /// Forgets names of requests that are old, a batch; whether there may be more.
    pub async fn forget_requests(&self, now_ms: i64) -> Result<bool, QueueError> {
        let old = Statement::new(
            "DELETE FROM queue_requests WHERE (project, type, name) IN (SELECT project, type, name FROM queue_requests \
             WHERE created_ms < ",
        );
        let old = old.bind(now_ms - NAME_AGE_MS).push(" LIMIT ").bind(FORGET_BATCH).push(self.store.skip_locked());
        Ok(self.store.execute(old.push(")")).await? == FORGET_BATCH.cast_unsigned())
    }

    /// Counts the names of requests.
    pub async fn count_requests(&self) -> Result<(), QueueError> {
        let select = "SELECT project, count(*) FROM queue_requests GROUP BY project";
        let counts: Vec<(String, i64)> = self.store.rows(Statement::new(select)).await?;
        self.crowd().count_names(counts.into_iter());
        Ok(())
    }
}

/// The request of a name and a type, and what it waited for.
fn of_name<'v>(project: &'v str, r#type: &'v str, name: &'v str) -> Statement<'v> {
    let select = Statement::new("SELECT request, awaited FROM queue_requests WHERE project = ").bind(project);
    select.push(" AND type = ").bind(r#type).push(" AND name = ").bind(name)
}

/// What a request was that was made before under a name.
fn before((found, awaited): (Vec<u8>, String), request: &[u8]) -> Queued {
    match found == request {
        true => Queued::Known(awaited.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect()),
        false => Queued::Conflict,
    }
}

/// Writes the name of a request for each of its types; what it was before, where it is known.
async fn write_name(
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
        let found: Vec<(Vec<u8>, String)> = transaction.rows(of_name(project, r#type, name)).await?;
        return Ok(Some(found.into_iter().next().map_or(Queued::Conflict, |found| before(found, request))));
    }
    Ok(None)
}
