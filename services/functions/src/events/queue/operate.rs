//! What operators do with the queue: they look at it, deliver dead letters again, and remove what is finished.

use serde::Serialize;

use super::{Queue, QueueError, order, store::Statement};

/// Events of a page.
const PAGE: i64 = 1000;
/// Events that are changed in one transaction.
pub(super) const BATCH: i64 = 5000;

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// These; none: all.
    pub ids: Vec<String>,
    /// Of this project; `None`: of any.
    pub project: Option<String>,
    /// Of this trigger; `None`: of any.
    pub trigger: Option<String>,
    /// Of this status; `None`: of any.
    pub status: Option<EventStatus>,
}

/// Status of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventStatus {
    /// It waits for its next attempt.
    Pending,
    /// It is being delivered.
    Running,
    /// It was delivered.
    Processed,
    /// It is a dead letter.
    Failed,
}

impl EventStatus {
    /// Each of them.
    pub const ALL: [EventStatus; 4] = [Self::Pending, Self::Running, Self::Processed, Self::Failed];

    /// `pending`, `running`, `processed`, `failed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Processed => "processed",
            Self::Failed => "failed",
        }
    }
}

/// An event, for operators.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct EventSummary {
    /// Its place in the queue.
    #[serde(skip)]
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// The project's id.
    pub project: String,
    /// The trigger's id.
    #[serde(rename = "trigger")]
    pub trigger_id: String,
    /// `DB_INSERT` and so on.
    pub r#type: String,
    /// The name of its [`EventStatus`].
    pub status: String,
    /// Attempts that were begun.
    pub attempts: i64,
    /// Status of the last answer, where there was one.
    pub code: Option<i64>,
    /// The beginning of the last answer, or what went wrong.
    pub last: String,
}

impl Queue {
    /// A page of events in the order in which they were made, after the one at a place; empty where there are no more.
    /// Errors: one that is asked for by id does not exist.
    pub async fn list(&self, filter: &EventFilter, after: i64) -> Result<Vec<EventSummary>, QueueError> {
        self.check_ids(&filter.ids).await?;
        let list =
            Statement::new("SELECT seq, id, project, trigger_id, type, status, attempts, code, last FROM events");
        let list = filter.condition(list).push(" AND seq > ").bind(after).push(" ORDER BY seq LIMIT ").bind(PAGE);
        Ok(self.store.rows(list).await?)
    }

    /// Has finished events delivered again, as if they had just been made; how many. Those without a message stay.
    pub async fn replay(&self, filter: &EventFilter, now_ms: i64) -> Result<u64, QueueError> {
        let replay = || {
            let replay = "UPDATE events SET status = 'pending', attempts = 0, finished_ms = NULL, \
                blocked = CASE WHEN order_key IS NULL THEN 0 ELSE 1 END, due_ms = ";
            Statement::new(replay).bind(now_ms).push(", since_ms = ").bind(now_ms)
        };
        Box::pin(self.change(filter, replay, " AND finished_ms IS NOT NULL AND bytes > 0")).await
    }

    /// Removes events, except those that are being delivered; how many.
    pub async fn purge(&self, filter: &EventFilter) -> Result<u64, QueueError> {
        Box::pin(self.change(filter, || Statement::new("DELETE FROM events"), " AND status <> 'running'")).await
    }

    /// Changes the events there are in the order in which they were made; how many. Deliveries go on between batches.
    async fn change<'v>(
        &self,
        filter: &'v EventFilter,
        change: impl Fn() -> Statement<'v>,
        condition: &'static str,
    ) -> Result<u64, QueueError> {
        self.check_ids(&filter.ids).await?;
        let end: Vec<(Option<i64>,)> = self.store.rows(Statement::new("SELECT max(seq) FROM events")).await?;
        let end = end.first().and_then(|(end,)| *end).unwrap_or_default();
        let (mut after, mut changed) = (0, 0);
        loop {
            let batch = filter.condition(Statement::new("SELECT max(seq) FROM (SELECT seq FROM events"));
            let batch = batch.push(condition).push(" AND seq > ").bind(after).push(" AND seq <= ").bind(end);
            let batch = batch.push(" ORDER BY seq LIMIT ").bind(BATCH).push(") AS batch");
            let last: Vec<(Option<i64>,)> = self.store.rows(batch).await?;
            let Some(last) = last.first().and_then(|(last,)| *last) else { break };
            let mut transaction = self.store.begin().await?;
            transaction.lock_order().await?;
            let batch = filter.condition(change()).push(condition);
            changed +=
                transaction.execute(batch.push(" AND seq > ").bind(after).push(" AND seq <= ").bind(last)).await?;
            order::unblock_all(&mut transaction).await?;
            transaction.commit().await?;
            after = last;
        }
        Ok(changed)
    }

    async fn check_ids(&self, ids: &[String]) -> Result<(), QueueError> {
        for id in ids {
            let find = Statement::new("SELECT seq FROM events WHERE id = ").bind(id.as_str());
            let found: Vec<(i64,)> = self.store.rows(find).await?;
            if found.is_empty() {
                return Err(QueueError::UnknownEvent(id.clone()));
            }
        }
        Ok(())
    }
}

impl EventFilter {
    /// Appends the condition to a statement that has none.
    fn condition<'v>(&'v self, statement: Statement<'v>) -> Statement<'v> {
        let mut statement = statement.push(" WHERE 1 = 1");
        if !self.ids.is_empty() {
            statement = statement.push(" AND id IN (");
            for (index, id) in self.ids.iter().enumerate() {
                statement = if index == 0 { statement } else { statement.push(", ") }.bind(id.as_str());
            }
            statement = statement.push(")");
        }
        for (column, value) in [(" AND project = ", &self.project), (" AND trigger_id = ", &self.trigger)] {
            if let Some(value) = value {
                statement = statement.push(column).bind(value.as_str());
            }
        }
        match self.status {
            Some(status) => statement.push(" AND status = ").bind(status.name()),
            None => statement,
        }
    }
}
