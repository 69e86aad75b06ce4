//! Reads of live queries: each alone, or those of one shape in a batch.

use std::sync::Arc;

use bytes::Bytes;
use mesh::{Code, Fault};
use query::Read;

use super::{
    LiveShared,
    answers::{Answer, Versions},
    batches::{BatchMember, Batches, Due},
    turns::{CallerTurns, Turn, next_of_any},
};
use crate::{
    catalogue::Project,
    edge::{Authorized, Caller, ReadFault, ReadResult, Snapshots},
};

/// Batches of reads of live queries.
pub type ReadBatches = Batches<BatchRead, Result<Found, ReadFault>>;
/// Place of a live query among those of its shape.
pub type ReadMember = BatchMember<BatchRead, Result<Found, ReadFault>>;
/// Notice that a live query is about to read.
pub type ReadDue = Due<BatchRead, Result<Found, ReadFault>>;

/// What reads found, and what they saw of the databases.
type Found = (Vec<ReadResult>, Snapshots);

/// Reads of one live query.
#[derive(Clone)]
pub struct LiveRead {
    /// All live queries.
    pub shared: Arc<LiveShared>,
    /// For whom.
    pub caller: Caller,
    /// The project.
    pub project: Arc<Project>,
    /// The reads, with their grants.
    pub asked: BatchRead,
    /// The events that they see.
    pub versions: Versions,
}

/// Reads of a live query with their grants.
#[derive(Clone)]
pub struct BatchRead {
    /// The reads.
    pub reads: Arc<dyn AsRef<[Read]> + Send + Sync>,
    /// Their grants.
    pub authorized: Authorized,
    /// Whether it is to be said what they saw.
    pub snapshot: bool,
    /// Turns of the caller.
    pub turns: CallerTurns,
}

impl LiveRead {
    /// The answer: in a batch of `member`'s shape, where there is one, else alone. What is `held` is for that: a turn, and the
    /// notice that it is due.
    pub async fn answer(
        &self,
        held: Option<(Turn, Option<ReadDue>)>,
        member: Option<&ReadMember>,
    ) -> Result<Answer, ReadFault> {
        let (turn, due) = held.unzip();
        let Some(member) = member else { return self.alone(turn).await };
        drop(turn);
        self.in_batch(member, due.flatten().unwrap_or_else(|| member.due())).await
    }

    async fn alone(&self, turn: Option<Turn>) -> Result<Answer, ReadFault> {
        let _turn = match turn {
            Some(turn) => turn,
            None => self.asked.turns.next().await,
        };
        let BatchRead { reads, authorized, snapshot, turns: _ } = self.asked.clone();
        let found = self.shared.read(&self.reader(), &self.project, (*reads).as_ref(), (authorized, snapshot)).await?;
        Ok(self.found(found))
    }

    /// The caller, from now on as long as a request may take.
    fn reader(&self) -> Caller {
        self.shared.caller(&self.project, &self.caller.call.request_id, self.caller.token.clone())
    }

    /// The answer, read with those of others that are due: the batch has a turn of one of them.
    async fn in_batch(&self, member: &ReadMember, due: ReadDue) -> Result<Answer, ReadFault> {
        let this = self.clone();
        let read = move |asked: Vec<BatchRead>| async move {
            let callers: Vec<CallerTurns> = asked.iter().map(|one| one.turns.clone()).collect();
            let _turn = next_of_any(callers).await;
            this.shared.read_batch(&this.reader(), &this.project, asked).await
        };
        match member.answer(due, self.asked.clone(), read).await {
            Some(found) => found.map(|found| self.found(found)),
            None => self.alone(None).await,
        }
    }

    fn found(&self, (results, snapshots): Found) -> Answer {
        Answer { hash: super::hash(&results), results, snapshots, versions: self.versions.clone() }
    }
}

impl LiveShared {
    /// Reads, with the snapshots of the databases where `snapshot` says so.
    async fn read(
        &self,
        caller: &Caller,
        project: &Project,
        reads: &[Read],
        (authorized, snapshot): (Authorized, bool),
    ) -> Result<Found, ReadFault> {
        let granted = (authorized.clone(), snapshot);
        match self.edge.read_snapshots(caller, project, reads.to_vec(), granted).await {
            // A node that keeps no log for the first table of a read, such as a view, cannot say what it saw.
            Err(ReadFault::Failed(fault)) if snapshot && fault.code == Code::BadRequest => {
                self.edge.read_snapshots(caller, project, reads.to_vec(), (authorized, false)).await
            }
            read => read,
        }
    }

    /// Reads of several live queries as one request, in one snapshot of each database. `None` where it failed for what may be
    /// wrong with one of them only, or where they do not have as many grants each: the database service tells those of one from
    /// those of the next by their number, which a schema that changed between their authorisations would make wrong.
    async fn read_batch(
        &self,
        caller: &Caller,
        project: &Project,
        asked: Vec<BatchRead>,
    ) -> Option<Vec<Result<Found, ReadFault>>> {
        let are_alike = |pair: &[BatchRead]| pair[0].authorized.is_shared_as(&pair[1].authorized);
        if !asked.windows(2).all(are_alike) {
            return None;
        }
        let counts: Vec<usize> = asked.iter().map(|one| (*one.reads).as_ref().len()).collect();
        let reads: Vec<Read> = asked.iter().flat_map(|one| (*one.reads).as_ref()).cloned().collect();
        let (is_one, snapshot) = (counts.len() == 1, asked.iter().any(|one| one.snapshot));
        let authorized = Authorized::joined(asked.into_iter().map(|one| one.authorized));
        let (results, snapshots) = match self.read(caller, project, &reads, (authorized, snapshot)).await {
            Ok(found) => found,
            // It is its own.
            Err(fault) if is_one => return Some(vec![Err(fault)]),
            Err(ReadFault::Refused(fault) | ReadFault::Failed(fault)) => {
                let is_of_all = fault.code == Code::Unavailable;
                // Which of the reads of the batch it was is nobody's.
                let fault = Fault::new(fault.code, fault.message);
                return is_of_all.then(|| vec![Err(ReadFault::Failed(fault)); counts.len()]);
            }
        };
        if !is_one {
            self.reads.batched.inc_by(counts.len() as u64);
        }
        // Each for itself: a part of the message in which they came would keep all of it.
        let alone = |found: ReadResult| match is_one {
            true => found,
            false => ReadResult { json: Bytes::copy_from_slice(&found.json), ..found },
        };
        let mut results = results.into_iter().map(alone);
        let own = |count: usize| Ok((results.by_ref().take(count).collect(), snapshots.clone()));
        Some(counts.into_iter().map(own).collect())
    }
}
