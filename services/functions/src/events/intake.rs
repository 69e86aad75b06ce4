//! Intake: makes events of the changes of a table, as the log of changes tells them, and makes these durable.
//!
//! The position in the log is written in the transaction that writes the events: a process that is killed goes on where the
//! last transaction ended, and loses nothing. What it had read besides was told to nobody.

use std::{convert::Infallible, time::Duration};

use futures::{FutureExt, Stream, StreamExt};
use mesh::{Call, Code, Fault, Mesh, telemetry::EventMeters};
use proto::{
    Links,
    crud::{Event, LogRequest, LogResponse, ResyncReason, Transaction},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    plan::{self, ChangePlace, TablePlan},
    queue::{FollowedTable, NewEvent, Queue, QueueError, TakenPosition},
    registry::Registry,
};
use crate::health::PartHealth;

/// Messages of the log that are made durable together, at most.
const BATCH_MESSAGES: usize = 256;
/// Bytes of messages of events after which a batch ends.
const BATCH_BYTES: usize = 8 << 20;
/// How old a plan may be: the schema may have lost a column.
const PLAN_AGE: Duration = Duration::from_secs(30);
/// How old a plan is at least that is made anew for a row that has other columns: the row may be older than the schema.
const UNFIT_AGE: Duration = Duration::from_secs(1);
/// Back-off after a failure; doubles up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The intake of a table.
pub struct Intake {
    /// Reaches crud.
    pub mesh: Mesh,
    /// Where events go.
    pub queue: Queue,
    /// The triggers in force.
    pub registry: Registry,
    /// The table.
    pub table: FollowedTable,
    /// Where it is told that the table cannot be followed.
    pub health: PartHealth,
    /// What is counted.
    pub meters: EventMeters,
    /// Whether another node follows the table.
    pub is_lost: bool,
}

/// What is made durable together.
struct Batch {
    events: Vec<NewEvent>,
    bytes: usize,
    position: TakenPosition,
}

impl Intake {
    /// Takes changes until `stop` fires, or another node does. What fails is tried again.
    pub async fn run(mut self, stop: CancellationToken) {
        let part = format!("table {}/{}/{}", self.table.project, self.table.database, self.table.table);
        let mut wait = RETRY_FIRST;
        loop {
            let begun = Instant::now();
            let Some(Err(fault)) = stop.run_until_cancelled(Box::pin(self.follow(&part))).await else { break };
            if self.is_lost {
                break;
            }
            let why = format!("changes are not taken now: {fault}");
            // Streams break off as nodes come and go.
            if begun.elapsed() < RETRY_MAX && wait > RETRY_FIRST && self.health.set(&part, Some(why)) {
                tracing::warn!(part, %fault, "changes of a table are not taken now");
            }
            wait = if begun.elapsed() > RETRY_MAX { RETRY_FIRST } else { (wait * 2).min(RETRY_MAX) };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                break;
            }
        }
        self.health.set(&part, None);
    }

    /// Takes changes until that fails.
    async fn follow(&mut self, part: &str) -> Result<Infallible, Fault> {
        let mut position = self.queue.position(&self.table).await.map_err(queue_fault)?.unwrap_or_default();
        let mut plan = self.plan().await?;
        let mut planned = Instant::now();
        let request = LogRequest {
            project: (*self.table.project).to_owned(),
            database: (*self.table.database).to_owned(),
            tables: vec![(*self.table.table).to_owned()],
            after: position.log.clone(),
            complete: false,
        };
        let log = Box::pin(self.mesh.crud().log(&Call::begin(None, None, None), request)).await?;
        let mut log = log.fuse();
        loop {
            let messages = ready(&mut log).await;
            if messages.is_empty() {
                return Err(Fault::new(Code::Unavailable, "the log of changes has ended"));
            }
            if !plan.is_of(&self.registry.now()) || planned.elapsed() >= PLAN_AGE {
                (plan, planned) = (self.plan().await?, Instant::now());
            }
            self.health.set(part, None);
            let mut batch = Batch { events: Vec::new(), bytes: 0, position: position.clone() };
            for message in messages {
                let mut told = message.map_err(Fault::from).and_then(|message| {
                    let fits = self.told(&message, &plan, planned.elapsed() < UNFIT_AGE, &mut batch)?;
                    Ok((!fits).then_some(message))
                });
                if let Ok(Some(message)) = &told {
                    (plan, planned) = (self.plan().await?, Instant::now());
                    told = self.told(message, &plan, true, &mut batch).map(|_| None);
                }
                match told {
                    Ok(_) => {}
                    Err(fault) => {
                        // What was told before is taken all the same.
                        self.take(&mut position, batch).await?;
                        return Err(fault);
                    }
                }
                if batch.bytes >= BATCH_BYTES {
                    let next = Batch { events: Vec::new(), bytes: 0, position: batch.position.clone() };
                    self.take(&mut position, std::mem::replace(&mut batch, next)).await?;
                }
            }
            self.take(&mut position, batch).await?;
        }
    }

    async fn plan(&self) -> Result<TablePlan, Fault> {
        Box::pin(TablePlan::of(&self.mesh, &self.table, self.registry.now(), &self.health)).await
    }

    /// Adds what the log told to a batch; whether it did: not where the plan is old, and does not know columns of a row.
    fn told(
        &self,
        LogResponse { position, event }: &LogResponse,
        plan: &TablePlan,
        is_new: bool,
        batch: &mut Batch,
    ) -> Result<bool, Fault> {
        match event {
            Some(Event::Started(_)) => {}
            Some(Event::Transaction(transaction)) => {
                let index = plan::index_of(&batch.position, transaction.id);
                let (events, fits) = events(plan, transaction, index)?;
                if !fits && !is_new {
                    return Ok(false);
                }
                batch.bytes += events.iter().filter_map(|event| event.body.as_ref().ok()).map(Vec::len).sum::<usize>();
                batch.events.extend(events);
                batch.position.transaction = transaction.id;
                batch.position.changes = index + transaction.changes.len() as u64;
            }
            Some(Event::Resync(resync)) => self.missed(resync.reason()),
            None => return Ok(true),
        }
        batch.position.log = position.clone();
        Ok(true)
    }

    /// Changes may have been missed: nobody makes events of them.
    fn missed(&self, reason: ResyncReason) {
        let reason = match reason {
            ResyncReason::Overflow => "overflow",
            ResyncReason::LogLost | ResyncReason::Unspecified => "log_lost",
            ResyncReason::Truncate => "truncate",
            ResyncReason::Restored => "restored",
            ResyncReason::Position => "position",
        };
        let FollowedTable { project, database, table } = &self.table;
        tracing::error!(%project, %database, %table, reason, "events of changes may have been missed");
        self.meters.missed(reason);
    }

    /// Makes a batch durable.
    async fn take(&mut self, position: &mut TakenPosition, batch: Batch) -> Result<(), Fault> {
        if batch.position == *position {
            return Ok(());
        }
        let taken = self.queue.take(&self.table, &batch.position, &batch.events, self.queue.now_ms()).await;
        self.is_lost = matches!(taken, Err(QueueError::Lost));
        let added = taken.map_err(queue_fault)?;
        self.meters.queued.inc_by(added);
        *position = batch.position;
        Ok(())
    }
}

/// The next messages, as many as there are already and a batch takes; none at the end.
async fn ready<T>(log: &mut (impl Stream<Item = Result<LogResponse, T>> + Unpin)) -> Vec<Result<LogResponse, T>> {
    let (mut messages, mut bytes) = (Vec::new(), 0);
    let mut next = log.next().await;
    while let Some(message) = next {
        if let Ok(LogResponse { event: Some(Event::Transaction(transaction)), .. }) = &message {
            bytes += transaction.changes.iter().map(|change| change.before.len() + change.after.len()).sum::<usize>();
        }
        messages.push(message);
        let is_full = messages.len() >= BATCH_MESSAGES || bytes >= BATCH_BYTES;
        next = if is_full { None } else { log.next().now_or_never().flatten() };
    }
    messages
}

/// The events of a transaction, of which `index` changes came before, and whether the plan knows all columns.
fn events(plan: &TablePlan, transaction: &Transaction, index: u64) -> Result<(Vec<NewEvent>, bool), Fault> {
    let (mut events, mut fits) = (Vec::new(), true);
    for (index, change) in (index..).zip(&transaction.changes) {
        let place = ChangePlace { transaction: transaction.id, index, committed_us: transaction.committed_us };
        fits &= plan.events(change, place, &mut events)?;
    }
    Ok((events, fits))
}

/// The fault of a queue that cannot be used now.
fn queue_fault(error: QueueError) -> Fault {
    tracing::warn!(cause = ?error, "{error}");
    Fault::new(Code::Unavailable, error.to_string())
}
