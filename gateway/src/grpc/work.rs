//! `rpc Work`: a worker dials in, registers and takes calls.

use std::{future, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use mesh::{Fault, listener::Connection};
use proto::{
    api::v1::{self as api, WorkerMessage, gateway_message, worker_message},
    functions::WorkResult,
};
use tokio::sync::oneshot;
use tonic::{Request, Status, Streaming};

use super::status;
use crate::{
    Service,
    edge::Caller,
    error,
    http::{cors::RequestedProject, current},
    worker::{FromWorker, Registration, ToWorker, WorkerCall},
};

/// How long a worker may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// The messages to one worker.
pub type WorkMessages = Pin<Box<dyn Stream<Item = Result<api::GatewayMessage, Status>> + Send>>;

/// Registers the worker that sends `request`: the messages to it.
pub async fn begin(service: &Service, request: Request<Streaming<WorkerMessage>>) -> Result<WorkMessages, Fault> {
    let caller = Caller::of(current(), request.metadata().as_ref())?;
    let requested = request.extensions().get::<RequestedProject>().cloned();
    let peer = request.extensions().get::<Arc<Connection>>().map(|connection| connection.peer.ip());
    let mut messages = request.into_inner();
    let first = tokio::time::timeout(REGISTER_TIMEOUT, messages.next()).await;
    let Ok(Some(Ok(WorkerMessage { message: Some(worker_message::Message::Register(register)) }))) = first else {
        return Err(error::bad_request("invalid message: expected one that registers first"));
    };
    let api::Register { project, service: name, functions, capacity } = register;
    if let Some(requested) = requested {
        requested.set(&project);
    }
    let project = service.edge().project(&caller, project.as_str().into()).await?;
    let registration = Registration {
        project: project.id.to_string(),
        service: name,
        functions,
        capacity,
        token: caller.token.clone(),
        request_id: caller.call.request_id.clone(),
    };
    let registration = registration.checked()?;
    let hold = service.hold(&caller, &project, peer, registration.memory_bytes()).await?;
    let (session, to_worker) = Box::pin(registration.register(service)).await?;

    let (ended, end) = oneshot::channel();
    let stop = service.tasks().stop().clone();
    service.tasks().spawn("worker", async move {
        let from_worker = messages.map(|message| message.ok().and_then(received));
        let from_worker = from_worker.take_while(|message| future::ready(message.is_some())).filter_map(future::ready);
        let result = stop.run_until_cancelled(Box::pin(session.run(from_worker))).await;
        drop(hold);
        // A worker that is gone needs not be told why.
        let _ = ended.send(result.unwrap_or(Ok(())));
    });
    let told = stream::unfold(to_worker, |mut queue| async { Some((Ok(told(queue.next().await?)), queue)) });
    let registered = api::GatewayMessage { message: Some(gateway_message::Message::Registered(api::Registered {})) };
    let refused = stream::once(end).filter_map(|end| {
        let fault = end.ok().and_then(Result::err);
        future::ready(fault.map(|fault| Err(status(fault))))
    });
    Ok(stream::iter([Ok(registered)]).chain(told).chain(refused).boxed())
}

/// A message of a worker; `None` where it is none that may come.
fn received(message: WorkerMessage) -> Option<FromWorker> {
    Some(match message.message? {
        worker_message::Message::Result(api::Result { id, result, error }) => {
            FromWorker::Answer(WorkResult { id, result, error })
        }
        worker_message::Message::Drain(_) => FromWorker::Drain,
        // It has registered already.
        worker_message::Message::Register(_) => return None,
    })
}

/// A message as workers are told it.
fn told(message: ToWorker) -> api::GatewayMessage {
    let message = match message {
        ToWorker::Call(WorkerCall { id, function, params, claims, left }) => {
            // At most five minutes, which fit.
            let timeout = prost_types::Duration::try_from(left).ok();
            let auth = claims.into();
            gateway_message::Message::Call(api::Invocation { id, function, params, auth, timeout })
        }
        ToWorker::Cancel(id) => gateway_message::Message::Cancel(api::Cancel { id }),
        ToWorker::Drain => gateway_message::Message::Drain(api::Drain {}),
    };
    api::GatewayMessage { message: Some(message) }
}
