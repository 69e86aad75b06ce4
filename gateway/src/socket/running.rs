//! The operations of a connection that have not ended.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, BoxFuture, abortable},
    stream::FuturesUnordered,
};

use super::closing::Closing;

/// Whether the client wants no more of an operation, and whether it was sent something of it. Clones are of the same
/// operation.
#[derive(Debug, Clone, Default)]
pub struct Completion(Arc<AtomicU8>);

/// The client wants no more.
const COMPLETED: u8 = 1;
/// A message was sent.
const SENT: u8 = 2;

/// Running operations by the client's ids.
#[derive(Default)]
pub struct RunningOperations {
    by_id: HashMap<String, Running>,
    /// Yields an operation's number and id when it has ended, and whether it ends the connection.
    ends: FuturesUnordered<BoxFuture<'static, (u64, String, Option<Closing>)>>,
    count: u64,
}

struct Running {
    number: u64,
    completion: Completion,
    handle: AbortHandle,
    unanswered: Option<Vec<u8>>,
}

/// An operation to start.
pub struct Operation {
    /// The client's id of it.
    pub id: String,
    /// Of its messages.
    pub completion: Completion,
    /// The reply where it is completed before anything of it was sent, if there is one.
    pub unanswered: Option<Vec<u8>>,
    /// What it does; why it ends the connection, where it does.
    pub work: BoxFuture<'static, Option<Closing>>,
}

/// What completing an operation came to.
#[derive(Debug, PartialEq)]
pub enum Completed {
    /// None has that id.
    Unknown,
    /// It ended; nothing of it was sent, and there is a reply for that.
    Unanswered(Vec<u8>),
    /// It ended.
    Ended,
}

impl Completion {
    /// What was not sent of the operation is dropped from now on. Whether something was sent.
    fn complete(&self) -> bool {
        self.0.fetch_or(COMPLETED, Ordering::Relaxed) & SENT != 0
    }

    /// Whether a message of it is to be sent, which then counts as sent.
    pub fn sends(&self) -> bool {
        self.0.fetch_or(SENT, Ordering::Relaxed) & COMPLETED == 0
    }
}

impl RunningOperations {
    /// Whether an operation with this id has not ended.
    pub fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Starts an operation, which runs while the ends are waited for.
    pub fn start(&mut self, operation: Operation) {
        let Operation { id, completion, unanswered, work } = operation;
        self.count += 1;
        let number = self.count;
        let (work, handle) = abortable(work);
        self.by_id.insert(id.clone(), Running { number, completion, handle, unanswered });
        self.ends.push(work.map(move |ended| (number, id, ended.ok().flatten())).boxed());
    }

    /// Ends an operation whose client wants no more of it.
    pub fn complete(&mut self, id: &str) -> Completed {
        let Some(running) = self.by_id.remove(id) else { return Completed::Unknown };
        running.handle.abort();
        match (running.completion.complete(), running.unanswered) {
            (false, Some(reply)) => Completed::Unanswered(reply),
            _ => Completed::Ended,
        }
    }

    /// Waits until an operation has ended; `None` where none runs. An error ends the connection. Cancel safe.
    pub async fn next_end(&mut self) -> Option<Result<(), Closing>> {
        let (number, id, closing) = self.ends.next().await?;
        self.ended(number, &id);
        Some(closing.map_or(Ok(()), Err))
    }

    /// Drops operations that have ended, and with them what they held. An error ends the connection.
    pub fn drop_ended(&mut self) -> Result<(), Closing> {
        while let Some(Some(ended)) = self.next_end().now_or_never() {
            ended?;
        }
        Ok(())
    }

    /// An operation has ended; its id may be another's by now.
    fn ended(&mut self, number: u64, id: &str) {
        if self.by_id.get(id).is_some_and(|running| running.number == number) {
            self.by_id.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(running: &mut RunningOperations, unanswered: Option<&str>) -> Completion {
        let completion = Completion::default();
        running.start(Operation {
            id: "1".to_owned(),
            completion: completion.clone(),
            unanswered: unanswered.map(|reply| reply.as_bytes().to_vec()),
            work: std::future::pending().boxed(),
        });
        completion
    }

    #[tokio::test]
    async fn an_operation_that_ended_does_not_end_another_of_its_id() {
        let mut running = RunningOperations::default();
        let completion = start(&mut running, None);
        assert_eq!((running.complete("1"), running.complete("1")), (Completed::Ended, Completed::Unknown));
        assert!(!completion.sends(), "nothing is sent of it any more");
        let completion = start(&mut running, None);
        running.next_end().await.expect("the first has ended").expect("the connection stays");
        assert!(running.contains("1") && completion.sends());
    }

    #[test]
    fn an_operation_that_is_completed_before_anything_was_sent_has_a_reply() {
        let mut running = RunningOperations::default();
        start(&mut running, Some("reply"));
        assert_eq!(running.complete("1"), Completed::Unanswered(b"reply".to_vec()));
        assert!(start(&mut running, Some("reply")).sends());
        assert_eq!(running.complete("1"), Completed::Ended);
    }

    #[tokio::test]
    async fn an_operation_may_end_its_connection() {
        let mut running = RunningOperations::default();
        let (completion, unanswered) = (Completion::default(), None);
        let work = std::future::ready(Some(Closing::RESTART)).boxed();
        running.start(Operation { id: "1".to_owned(), completion, unanswered, work });
        assert_eq!(running.drop_ended(), Err(Closing::RESTART));
        assert!(running.is_empty());
    }
}
