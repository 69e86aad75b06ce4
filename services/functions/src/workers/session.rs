//! The session of one worker: its messages in, the queue to it out, until one of both ends.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use mesh::Tasks;
use proto::{
    functions::{
        self as wire, CallResponse, WorkRequest, WorkResponse, work_request::Message as Received,
        work_response::Message as Sent,
    },
    link::Messages,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::{Workers, instance::Instance, instance::Registration};
use crate::{Error, answer};

/// The status of a call that a worker says failed.
const FAILED: u32 = 500;

/// A worker that is known until this is dropped.
struct Registered {
    workers: Workers,
    instance: Arc<Instance>,
    /// Ends the task that reads its messages.
    _reading: DropGuard,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.workers.remove(&self.instance);
    }
}

/// Serves a worker: the messages to it. It is known until they are dropped, or its own messages end.
///
/// Errors: there are too many workers.
pub fn serve(
    workers: &Workers,
    registration: Registration,
    messages: Streaming<WorkRequest>,
    tasks: &Tasks,
) -> Result<Messages<WorkResponse>, Error> {
    let (instance, queue) = Instance::new(workers.number(), registration);
    let instance = Arc::new(instance);
    instance.send(Sent::Registered(wire::Registered {}))?;
    workers.add(&instance)?;
    let (ended, draining) = (tasks.stop().child_token(), tasks.draining().clone());
    let (reader, stop, all) = (instance.clone(), ended.clone(), workers.clone());
    tasks.spawn("functions: worker", async move {
        stop.run_until_cancelled(read(&all, &reader, messages, draining)).await;
        // Its calls fail at once, and the messages to it end.
        reader.break_off();
    });
    let registered = Registered { workers: workers.clone(), instance, _reading: ended.drop_guard() };
    let next = |(registered, mut queue): (Registered, mpsc::Receiver<WorkResponse>)| async {
        let message = next(&registered.instance, &mut queue).await?;
        Some((Ok::<_, Status>(message), (registered, queue)))
    };
    Ok(stream::unfold((registered, queue), next).boxed())
}

/// The next message to a worker; `None` where it is gone, or has ended its last call.
async fn next(instance: &Instance, queue: &mut mpsc::Receiver<WorkResponse>) -> Option<WorkResponse> {
    loop {
        tokio::select! {
            biased;
            message = queue.recv() => return message,
            () = instance.changed.notified() => {
                if instance.is_broken() || (instance.is_drained() && queue.is_empty()) {
                    return None;
                }
            }
        }
    }
}

/// Reads the messages of a worker until they end. Where it or the node stops, it gets no more calls.
async fn read(
    workers: &Workers,
    instance: &Instance,
    mut messages: Streaming<WorkRequest>,
    draining: CancellationToken,
) {
    let mut is_told = false;
    loop {
        let message = tokio::select! {
            () = draining.cancelled(), if !is_told => {
                is_told = true;
                drain(workers, instance);
                continue;
            }
            message = messages.next() => message,
        };
        let Some(Ok(WorkRequest { message: Some(message) })) = message else { return };
        match message {
            Received::Result(wire::WorkResult { id, result, error }) => {
                instance.answered(&id, answer_of(result, &error));
            }
            Received::Drain(_) => drain(workers, instance),
            // It has registered already.
            Received::Register(_) => return,
        }
    }
}

/// The worker gets no more calls, and is told so.
fn drain(workers: &Workers, instance: &Instance) {
    // One that is gone needs not be told. What is told is sent before the messages to it end.
    let _ = instance.send(Sent::Drain(wire::Drain {}));
    workers.drain(instance);
}

/// The answer that a worker gives: its result, or the text of its failure.
fn answer_of(result: Bytes, error: &str) -> Result<CallResponse, Error> {
    if !error.is_empty() {
        return Ok(CallResponse { status: FAILED, body: json!({ "error": error }).to_string().into() });
    }
    let body = if result.is_empty() { Bytes::from_static(b"null") } else { result };
    match answer::is_json(&body) {
        true => Ok(CallResponse { status: 200, body }),
        false => Err(Error::NotJson(200)),
    }
}
