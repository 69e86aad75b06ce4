//! When triggers on schedules are due next.

use super::{NewEvent, Queue, QueueError, TriggerKey, store::Statement};

/// When a trigger is due next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextDue {
    /// Its schedule, as that was when this was decided.
    pub schedule: String,
    /// In milliseconds since 1970; `None`: never again.
    pub due_ms: Option<i64>,
}

impl Queue {
    /// When the triggers on schedules are due next.
    pub async fn schedules(&self) -> Result<Vec<(TriggerKey, NextDue)>, QueueError> {
        let select = Statement::new("SELECT project, trigger_id, schedule, due_ms FROM schedules");
        let rows: Vec<(String, String, String, Option<i64>)> = self.store.rows(select).await?;
        let next = |(project, id, schedule, due_ms): (String, String, String, Option<i64>)| {
            (TriggerKey { project: project.into(), id: id.into() }, NextDue { schedule, due_ms })
        };
        Ok(rows.into_iter().map(next).collect())
    }

    /// Writes when a trigger is due next, where that is not known for its schedule.
    pub async fn schedule(&self, trigger: &TriggerKey, next: &NextDue) -> Result<(), QueueError> {
        let insert = Statement::new("INSERT INTO schedules (project, trigger_id, schedule, due_ms) VALUES (")
            .bind(&*trigger.project)
            .push(", ")
            .bind(&*trigger.id)
            .push(", ")
            .bind(next.schedule.as_str())
            .push(", ")
            .bind(next.due_ms)
            .push(") ON CONFLICT (project, trigger_id) DO UPDATE SET schedule = excluded.schedule, ")
            .push("due_ms = excluded.due_ms WHERE schedules.schedule <> excluded.schedule");
        self.store.execute(insert).await?;
        Ok(())
    }

    /// Makes the event of a time that is due durable, and with it when the trigger is due next, unless another node did; how
    /// many events are new.
    pub async fn fire(
        &self,
        event: NewEvent,
        (due, next): (&NextDue, Option<i64>),
        now_ms: i64,
    ) -> Result<u64, QueueError> {
        let mut transaction = self.store.begin().await?;
        let fire = Statement::new("UPDATE schedules SET due_ms = ")
            .bind(next)
            .push(" WHERE project = ")
            .bind(&*event.trigger.project)
            .push(" AND trigger_id = ")
            .bind(&*event.trigger.id)
            .push(" AND schedule = ")
            .bind(due.schedule.as_str())
            .push(" AND due_ms = ")
            .bind(due.due_ms);
        if transaction.execute(fire).await? == 0 {
            return Ok(0);
        }
        let trigger = event.trigger.clone();
        let added = self.insert(&mut transaction, &[event], now_ms).await?;
        transaction.commit().await?;
        self.arrived(std::iter::once(trigger));
        Ok(added)
    }
}
