//! What operators do with the queue: they look at it, deliver dead letters again, and remove what is finished.

use std::path::Path;

use serde::Serialize;
use sqlx::{QueryBuilder, Sqlite};

use super::{FILE, FOLDER, Queue, QueueError};

/// Events of a page.
const PAGE: i64 = 1000;

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
    /// The queue below `data`, for a command beside the node that delivers what is in it.
    pub async fn beside(data: &Path) -> Result<Self, QueueError> {
        match Self::exists(data) {
            true => Self::connect(&data.join(FOLDER).join(FILE)).await,
            false => Err(QueueError::Absent(data.to_owned())),
        }
    }

    /// A page of events in the order in which they were made, after the one at a place; empty where there are no more.
    /// Errors: one that is asked for by id does not exist.
    pub async fn list(&self, filter: &EventFilter, after: i64) -> Result<Vec<EventSummary>, QueueError> {
        self.check_ids(&filter.ids).await?;
        let mut query =
            QueryBuilder::new("SELECT seq, id, project, trigger_id, type, status, attempts, code, last FROM events");
        filter.condition(&mut query);
        query.push(" AND seq > ").push_bind(after).push(" ORDER BY seq LIMIT ").push_bind(PAGE);
        Ok(query.build_query_as().fetch_all(&self.pool).await?)
    }

    /// Has finished events delivered again, as if they had just been made; how many. Those without a message stay.
    pub async fn replay(&self, filter: &EventFilter, now_ms: i64) -> Result<u64, QueueError> {
        self.check_ids(&filter.ids).await?;
        let mut query =
            QueryBuilder::new("UPDATE events SET status = 'pending', attempts = 0, finished_ms = NULL, due_ms = ");
        query.push_bind(now_ms).push(", since_ms = ").push_bind(now_ms);
        filter.condition(&mut query);
        query.push(" AND finished_ms IS NOT NULL AND length(body) > 0");
        Ok(query.build().execute(&self.pool).await?.rows_affected())
    }

    /// Removes events, except those that are being delivered; how many.
    pub async fn purge(&self, filter: &EventFilter) -> Result<u64, QueueError> {
        self.check_ids(&filter.ids).await?;
        let mut query = QueryBuilder::new("DELETE FROM events");
        filter.condition(&mut query);
        query.push(" AND status <> 'running'");
        Ok(query.build().execute(&self.pool).await?.rows_affected())
    }

    async fn check_ids(&self, ids: &[String]) -> Result<(), QueueError> {
        for id in ids {
            let found: Option<i64> =
                sqlx::query_scalar("SELECT seq FROM events WHERE id = ?1").bind(id).fetch_optional(&self.pool).await?;
            if found.is_none() {
                return Err(QueueError::UnknownEvent(id.clone()));
            }
        }
        Ok(())
    }
}

impl EventFilter {
    /// Appends the condition to a statement that has none.
    fn condition(&self, query: &mut QueryBuilder<Sqlite>) {
        query.push(" WHERE TRUE");
        if !self.ids.is_empty() {
            query.push(" AND id IN (");
            let mut ids = query.separated(", ");
            self.ids.iter().for_each(|id| {
                ids.push_bind(id.clone());
            });
            query.push(")");
        }
        for (column, value) in [(" AND project = ", &self.project), (" AND trigger_id = ", &self.trigger)] {
            if let Some(value) = value {
                query.push(column).push_bind(value.clone());
            }
        }
        if let Some(status) = self.status {
            query.push(" AND status = ").push_bind(status.name());
        }
    }
}
