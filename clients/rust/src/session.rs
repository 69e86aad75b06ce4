//! One registration of a worker: a stream of `perigee.api.v1.Functions/Work`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream;
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use tracing::info;

use crate::{
    Call, Error, Worker,
    generated::{
        self as wire, GatewayMessage, WorkerMessage, functions_client::FunctionsClient, gateway_message, worker_message,
    },
};

/// How long the gateway may take to register a worker.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Parameters of 8 MiB, and claims.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Messages that wait to be sent; calls that are answered wait behind them.
const QUEUE: usize = 16;

/// Calls that run, by their ids.
type Running = Arc<Mutex<HashMap<String, AbortHandle>>>;

/// Registers a worker and takes calls, until the stream ends. `leaving` is told when no more calls come: with the error if it
/// ended by one, else while those that are there end.
pub async fn run(worker: Arc<Worker>, stopping: CancellationToken, leaving: oneshot::Sender<Result<(), Error>>) {
    let mut leaving = Some(leaving);
    let result = Box::pin(serve(&worker, &stopping, &mut leaving)).await;
    // Nobody waits where the worker is dropped.
    let _ = leaving.map(|leaving| leaving.send(result));
}

async fn serve(
    worker: &Arc<Worker>,
    stopping: &CancellationToken,
    leaving: &mut Option<oneshot::Sender<Result<(), Error>>>,
) -> Result<(), Error> {
    let registering = tokio::time::timeout(REGISTER_TIMEOUT, Box::pin(register(worker)));
    let Some(registered) = stopping.run_until_cancelled(registering).await else { return Ok(()) };
    let silent = |_| Error::Disconnected(Status::deadline_exceeded("the gateway does not answer"));
    let (sender, mut messages) = registered.map_err(silent)??;
    info!(service = worker.service, "worker is registered");
    let leave = |leaving: &mut Option<oneshot::Sender<_>>| leaving.take().map(|leaving| leaving.send(Ok(())));
    // Dropped, the calls end.
    let mut calls = JoinSet::new();
    let running = Running::default();
    let mut is_draining = false;
    loop {
        tokio::select! {
            message = messages.message() => match message.map_err(Error::Disconnected)? {
                Some(GatewayMessage { message: Some(gateway_message::Message::Call(call)) }) => {
                    begin(worker, &running, &mut calls, &sender, call);
                }
                Some(GatewayMessage { message: Some(gateway_message::Message::Cancel(cancel)) }) => {
                    if let Some(call) = lock(&running).remove(&cancel.id) {
                        call.abort();
                    }
                }
                Some(GatewayMessage { message: Some(gateway_message::Message::Drain(_)) }) => {
                    leave(leaving);
                }
                Some(_) => {}
                None => return Ok(()),
            },
            Some(_) = calls.join_next() => {}
            () = stopping.cancelled(), if !is_draining => {
                is_draining = true;
                leave(leaving);
                send(&sender, worker_message::Message::Drain(wire::Drain {})).await;
            }
        }
    }
}

/// Opens the stream and waits until the gateway knows the worker.
async fn register(worker: &Worker) -> Result<(mpsc::Sender<WorkerMessage>, Streaming<GatewayMessage>), Error> {
    let token = (worker.client.token)().await;
    let (sender, queue) = mpsc::channel(QUEUE);
    let register = wire::Register {
        project: worker.client.project.clone(),
        service: worker.service.clone(),
        functions: worker.functions.keys().cloned().collect(),
        capacity: worker.capacity,
    };
    send(&sender, worker_message::Message::Register(register)).await;
    let queue = stream::unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
    let mut request = Request::new(queue);
    if !token.is_empty() {
        let invalid = |_| Error::Refused(Status::unauthenticated("the token has characters that no token has"));
        let authorization = format!("Bearer {token}").parse().map_err(invalid)?;
        request.metadata_mut().insert("authorization", authorization);
    }
    // A connection for each session: the next one may lead to another node.
    let unreachable = |error| Error::Disconnected(Status::from_error(Box::new(error)));
    let channel = worker.client.endpoint.connect().await.map_err(unreachable)?;
    let mut client = FunctionsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    let mut messages = client.work(request).await.map_err(Error::refused)?.into_inner();
    match messages.message().await.map_err(Error::refused)? {
        Some(GatewayMessage { message: Some(gateway_message::Message::Registered(_)) }) => Ok((sender, messages)),
        _ => Err(Error::Disconnected(Status::unknown("the gateway does not register workers"))),
    }
}

/// Begins a call, which is answered when it ends by itself.
fn begin(
    worker: &Arc<Worker>,
    running: &Running,
    calls: &mut JoinSet<()>,
    sender: &mpsc::Sender<WorkerMessage>,
    invocation: wire::Invocation,
) {
    let wire::Invocation { id, function, params, auth, timeout } = invocation;
    let left = timeout.and_then(|timeout| Duration::try_from(timeout).ok()).unwrap_or_default();
    let call = Call { id: id.clone(), function, params, auth, deadline: Instant::now() + left };
    let (worker, ended, sender) = (worker.clone(), running.clone(), sender.clone());
    // It ends itself only after it is entered.
    let mut entered = lock(running);
    let task = calls.spawn(async move {
        let id = call.id.clone();
        let answer = worker.answer(call).await;
        lock(&ended).remove(&id);
        let (result, error) = match answer {
            Some(Ok(result)) => (result.into(), String::new()),
            Some(Err(error)) => (Bytes::new(), error),
            // The answer is nobody's: the gateway has told its caller why.
            None => return,
        };
        send(&sender, worker_message::Message::Result(wire::Result { id, result, error })).await;
    });
    entered.insert(id, task);
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, HashMap<String, AbortHandle>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a message. That of a stream that has ended is nobody's: its end is told where it is read.
async fn send(sender: &mpsc::Sender<WorkerMessage>, message: worker_message::Message) {
    let _ = sender.send(WorkerMessage { message: Some(message) }).await;
}
