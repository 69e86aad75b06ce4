//! The operations of a connection that have not ended.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, BoxFuture, abortable},
    stream::FuturesUnordered,
};

/// Whether the client wants no more of an operation. Clones are of the same operation.
#[derive(Debug, Clone, Default)]
pub struct Completion(Arc<AtomicBool>);

/// Running operations by the client's ids.
#[derive(Default)]
pub struct RunningOperations {
    by_id: HashMap<String, Running>,
    /// Yields an operation's number and id when it has ended.
    ends: FuturesUnordered<BoxFuture<'static, (u64, String)>>,
    count: u64,
}

struct Running {
    number: u64,
    completion: Completion,
    handle: AbortHandle,
}

impl Completion {
    /// What was not sent of the operation is dropped from now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the client wants no more of it.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
    pub fn start(&mut self, id: String, completion: Completion, operation: BoxFuture<'static, ()>) {
        self.count += 1;
        let number = self.count;
        let (operation, handle) = abortable(operation);
        self.by_id.insert(id.clone(), Running { number, completion, handle });
        self.ends.push(operation.map(move |_| (number, id)).boxed());
    }

    /// Ends an operation whose client wants no more of it. Whether there is one.
    pub fn complete(&mut self, id: &str) -> bool {
        let Some(running) = self.by_id.remove(id) else { return false };
        running.completion.set();
        running.handle.abort();
        true
    }

    /// Waits until an operation has ended; `None` where none runs. Cancel safe.
    pub async fn next_end(&mut self) -> Option<()> {
        let (number, id) = self.ends.next().await?;
        self.ended(number, &id);
        Some(())
    }

    /// Drops operations that have ended, and with them what they held.
    pub fn drop_ended(&mut self) {
        while let Some(Some(())) = self.next_end().now_or_never() {}
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

    #[tokio::test]
    async fn an_operation_that_ended_does_not_end_another_of_its_id() {
        let mut running = RunningOperations::default();
        let completion = Completion::default();
        running.start("1".to_owned(), completion.clone(), std::future::pending().boxed());
        assert!(running.complete("1") && !running.complete("1"));
        assert!(completion.is_set());
        let completion = Completion::default();
        running.start("1".to_owned(), completion.clone(), std::future::pending().boxed());
        running.next_end().await.expect("the first has ended");
        assert!(running.contains("1") && !completion.is_set());
    }
}
