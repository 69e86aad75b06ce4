//! When triggers on schedules are due next. Each schedule of a trigger is by itself: nodes may have different ones in force.

use super::{NewEvent, Queue, QueueError, TriggerKey, store::Statement};

/// A schedule of a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScheduleKey {
    /// The trigger.
    pub trigger: TriggerKey,
    /// Its schedule as a text.
    pub schedule: String,
}

/// When a schedule is due next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextDue {
    /// In milliseconds since 1970; `None`: never again.
    pub due_ms: Option<i64>,
    /// A number that nodes raise which have the schedule in force.
    pub beat: i64,
}

impl Queue {
    /// When all schedules are due next.
    pub async fn schedules(&self) -> Result<Vec<(ScheduleKey, NextDue)>, QueueError> {
        let select = Statement::new("SELECT project, trigger_id, schedule, due_ms, beat FROM schedules");
        let rows: Vec<(String, String, String, Option<i64>, i64)> = self.store.rows(select).await?;
        let next = |(project, id, schedule, due_ms, beat): (String, String, String, Option<i64>, i64)| {
            let trigger = TriggerKey { project: project.into(), id: id.into() };
            (ScheduleKey { trigger, schedule }, NextDue { due_ms, beat })
        };
        Ok(rows.into_iter().map(next).collect())
    }

    /// Writes when a schedule is due next, where that is not known.
    pub async fn schedule(&self, key: &ScheduleKey, due_ms: Option<i64>) -> Result<(), QueueError> {
        let insert = Statement::new("INSERT INTO schedules (project, trigger_id, schedule, due_ms) VALUES (")
            .bind(&*key.trigger.project)
            .push(", ")
            .bind(&*key.trigger.id)
            .push(", ")
            .bind(key.schedule.as_str())
            .push(", ")
            .bind(due_ms)
            .push(") ON CONFLICT (project, trigger_id, schedule) DO NOTHING");
        self.store.execute(insert).await?;
        Ok(())
    }

    /// Tells other nodes that this one has a schedule in force.
    pub async fn keep_schedule(&self, key: &ScheduleKey) -> Result<(), QueueError> {
        self.store.execute(of_schedule(Statement::new("UPDATE schedules SET beat = beat + 1"), key)).await?;
        Ok(())
    }

    /// Forgets a schedule that no node has in force, unless one has had it since it was seen.
    pub async fn forget_schedule(&self, key: &ScheduleKey, seen: NextDue) -> Result<(), QueueError> {
        let forget = of_schedule(Statement::new("DELETE FROM schedules"), key).push(" AND beat = ").bind(seen.beat);
        self.store.execute(forget).await?;
        Ok(())
    }

    /// Makes the event of a time that is due durable, and with it when the schedule is due next, unless another node did; how
    /// many events are new.
    pub async fn fire(
        &self,
        event: NewEvent,
        key: &ScheduleKey,
        (due_ms, next_ms): (i64, Option<i64>),
        now_ms: i64,
    ) -> Result<u64, QueueError> {
        let mut transaction = self.store.begin().await?;
        let fire = of_schedule(Statement::new("UPDATE schedules SET due_ms = ").bind(next_ms), key);
        if transaction.execute(fire.push(" AND due_ms = ").bind(due_ms)).await? == 0 {
            return Ok(0);
        }
        let trigger = event.trigger.clone();
        let added = self.insert(&mut transaction, &[event], now_ms).await?;
        transaction.commit().await?;
        self.arrived(std::iter::once(trigger));
        Ok(added)
    }
}

fn of_schedule<'v>(statement: Statement<'v>, key: &'v ScheduleKey) -> Statement<'v> {
    let statement = statement.push(" WHERE project = ").bind(&*key.trigger.project);
    let statement = statement.push(" AND trigger_id = ").bind(&*key.trigger.id);
    statement.push(" AND schedule = ").bind(key.schedule.as_str())
}
