//! Streams of one upload: a later one takes over, so that a client that has lost its connection need not wait until its
//! old stream is found to be dead.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use foldhash::HashMap;
use tokio_util::sync::CancellationToken;

/// The streams of this node that uploads come in. Clones are the same.
#[derive(Clone, Default)]
pub struct Takeovers {
    state: Arc<TakeoverState>,
}

#[derive(Default)]
struct TakeoverState {
    next: AtomicU64,
    /// By name of the upload: the stream that has it.
    streams: Mutex<HashMap<String, (u64, CancellationToken)>>,
}

/// A stream that an upload comes in, until it is dropped.
pub struct Turn {
    takeovers: Takeovers,
    name: String,
    id: u64,
    /// Fires when another stream takes over.
    pub taken_over: CancellationToken,
}

impl Takeovers {
    /// The turn of a new stream of the upload `name`: the one before is told to end.
    pub fn begin(&self, name: &str) -> Turn {
        let (id, taken_over) = (self.state.next.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let before = self.streams().insert(name.to_owned(), (id, taken_over.clone()));
        if let Some((_, before)) = before {
            before.cancel();
        }
        Turn { takeovers: self.clone(), name: name.to_owned(), id, taken_over }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<String, (u64, CancellationToken)>> {
        // No code panics while it holds this lock.
        self.state.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut streams = self.takeovers.streams();
        if streams.get(&self.name).is_some_and(|(id, _)| *id == self.id) {
            streams.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stream_has_the_upload() {
        let takeovers = Takeovers::default();
        let (first, other) = (takeovers.begin("a"), takeovers.begin("b"));
        let second = takeovers.begin("a");
        assert!(first.taken_over.is_cancelled() && !second.taken_over.is_cancelled());
        assert!(!other.taken_over.is_cancelled());
        drop(first);
        let third = takeovers.begin("a");
        assert!(second.taken_over.is_cancelled());
        drop((second, third, other));
        assert!(takeovers.streams().is_empty());
    }
}
