//! Functions that answer with a stream: whoever listens may, as long as the stream goes on, and takes what comes.

mod places;
mod rights;

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use mesh::{Code, Fault, Tasks};
use proto::{functions::CallResponse, link::Messages};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::places::StreamPlaces;
use self::{places::StreamPlace, rights::Rights};
use crate::{
    Service,
    catalogue::Project,
    edge::{BegunStream, Caller, FunctionAnswer, FunctionCall},
    live::Subscriber,
};

/// How long an answer may wait for a caller who takes none: the place of the stream is one that others wait for.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The answers of a function. Dropped, the function is told.
pub struct FunctionAnswers {
    open: Arc<OpenStream>,
    reader: watch::Sender<ReaderState>,
    _watched: DropGuard,
}

/// A stream that goes on while it is read, and until its watch ends it.
struct OpenStream {
    /// `None` when it has ended: so its place is free, also where nobody reads.
    messages: Mutex<Option<Messages<CallResponse>>>,
    /// Why the watch ended it.
    fault: OnceLock<Fault>,
    /// Fires when it did.
    ended: CancellationToken,
    place: Mutex<Option<StreamPlace>>,
}

/// What the reader of a stream does.
#[derive(Debug, Clone, Copy)]
enum ReaderState {
    /// It waits for an answer.
    Waits,
    /// It has taken what came, and was not back since then.
    AwaySince(Instant),
}

/// Calls a function that answers many times, or once, if its rule allows it, for a caller who takes the answers.
pub async fn begin(
    service: &Service,
    (caller, subscriber): (&Caller, Subscriber),
    project: &Project,
    call: FunctionCall,
) -> Result<FunctionAnswers, Fault> {
    let place = service.stream_places().enter(subscriber.caller, project, &call)?;
    let BegunStream { messages, permission } = service.edge().stream_function(caller, project, call).await?;
    let rights = permission.map(|permission| Rights::new(service.edge(), project, permission, subscriber.token));
    Ok(FunctionAnswers::new(messages, Some(place), rights, service.tasks()))
}

impl FunctionAnswers {
    fn new(
        messages: Messages<CallResponse>,
        place: Option<StreamPlace>,
        rights: Option<Rights>,
        tasks: &Tasks,
    ) -> Self {
        let open = Arc::new(OpenStream {
            messages: Mutex::new(Some(messages)),
            fault: OnceLock::new(),
            ended: CancellationToken::new(),
            place: Mutex::new(place),
        });
        let (reader, state) = watch::channel(ReaderState::AwaySince(Instant::now()));
        let (watched, stop) = (CancellationToken::new(), tasks.stop().clone());
        let (left, watched_stream) = (watched.clone(), open.clone());
        tasks.spawn("watch a stream of a function", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = left.cancelled() => {}
                fault = lost(rights) => watched_stream.end(fault),
                fault = stalled(state) => watched_stream.end(fault),
            }
        });
        Self { open, reader, _watched: watched.drop_guard() }
    }

    /// The JSON of the next answer; `None` at the end. An error is the last one. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let _waits = Waits::begin(&self.reader);
        let message = tokio::select! {
            biased;
            () = self.open.ended.cancelled() => None,
            message = self.open.message() => message,
        };
        if let Some(fault) = self.open.fault.get() {
            return Err(fault.clone());
        }
        match message {
            None => Ok(None),
            Some(message) => FunctionAnswer::of(message?)?.result().map(Some),
        }
    }
}

impl OpenStream {
    fn messages(&self) -> MutexGuard<'_, Option<Messages<CallResponse>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message. Cancel safe.
    async fn message(&self) -> Option<Result<CallResponse, tonic::Status>> {
        poll_fn(|context| match self.messages().as_mut() {
            Some(messages) => messages.poll_next_unpin(context),
            None => Poll::Ready(None),
        })
        .await
    }

    fn end(&self, fault: Fault) {
        // Nobody else sets it.
        let _first = self.fault.set(fault);
        drop(self.messages().take());
        drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.ended.cancel();
    }
}

/// A reader who waits, until it is dropped.
struct Waits<'r>(&'r watch::Sender<ReaderState>);

impl<'r> Waits<'r> {
    fn begin(reader: &'r watch::Sender<ReaderState>) -> Self {
        reader.send_replace(ReaderState::Waits);
        Self(reader)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_replace(ReaderState::AwaySince(Instant::now()));
    }
}

/// Why the caller may listen no more; waits until then.
async fn lost(rights: Option<Rights>) -> Fault {
    match rights {
        Some(mut rights) => rights.lost().await,
        None => std::future::pending().await,
    }
}

/// Waits until the reader has taken nothing for too long.
async fn stalled(mut reader: watch::Receiver<ReaderState>) -> Fault {
    loop {
        let state = *reader.borrow_and_update();
        let until = match state {
            ReaderState::Waits => None,
            ReaderState::AwaySince(since) => Some(since + STALL_TIMEOUT),
        };
        tokio::select! {
            changed = reader.changed() => {
                if changed.is_err() {
                    // The stream is gone.
                    std::future::pending::<()>().await;
                }
            }
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                let text = format!("the answers of the function were not taken within {STALL_TIMEOUT:?}");
                return Fault::new(Code::Deadline, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn answer(body: &'static str) -> Result<CallResponse, tonic::Status> {
        Ok(CallResponse { status: 200, body: Bytes::from_static(body.as_bytes()) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_its_end_and_where_nobody_takes_its_answers() {
        let tasks = Tasks::default();
        let mut answers = FunctionAnswers::new(stream::iter([answer("1")]).boxed(), None, None, &tasks);
        assert_eq!(answers.next().await, Ok(Some(Bytes::from_static(b"1"))));
        assert_eq!(answers.next().await, Ok(None));

        let (dropped, held) = (CancellationToken::new(), CancellationToken::new());
        let guard = dropped.clone().drop_guard();
        let endless = stream::unfold(guard, |guard| async { Some((answer("1"), guard)) });
        let mut answers = FunctionAnswers::new(endless.boxed(), None, None, &tasks);
        // Slow is not too slow.
        for _ in 0..5 {
            tokio::time::sleep(STALL_TIMEOUT / 2).await;
            assert!(answers.next().await.is_ok_and(|answer| answer.is_some()));
        }
        tokio::time::sleep(STALL_TIMEOUT / 2).await;
        assert!(!dropped.is_cancelled());
        tokio::time::sleep(STALL_TIMEOUT).await;
        assert!(dropped.is_cancelled(), "the function is told, though nobody reads");
        assert_eq!(answers.next().await.unwrap_err().code, Code::Deadline);

        // Who waits for an answer holds nobody up.
        let guard = held.clone().drop_guard();
        let silent = stream::unfold(guard, |guard| async {
            tokio::time::sleep(10 * STALL_TIMEOUT).await;
            Some((answer("2"), guard))
        });
        let mut answers = FunctionAnswers::new(silent.boxed(), None, None, &tasks);
        assert_eq!(answers.next().await, Ok(Some(Bytes::from_static(b"2"))));
        drop(answers);
        tokio::task::yield_now().await;
        assert!(held.is_cancelled());
    }
}
