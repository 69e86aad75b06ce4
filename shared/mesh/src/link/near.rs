//! Calls within this process: the server trait is called with what the caller holds.
//!
//! Each call is given up at its deadline unless somebody else sees to that, is a step of its own in the trace, is
//! counted, is refused where a message is over the limit, and answers `INTERNAL` where the service panics.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http_body_util::StreamBody;
use hyper::body::Frame;
use proto::{
    carried::{Carried, check_size},
    link::{Answer, Messages, Sent},
};
use tonic::{
    Request, Response, Status, Streaming,
    codec::{DecodeBuf, Decoder},
};
use tracing::Instrument;

use super::{deadline_exceeded, stream};
use crate::{
    Call,
    meter::{MethodMeter, RunningCall},
    server::panicked,
};

/// A gRPC message of no bytes: flag and length.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

pub async fn unary<'a, Q: Carried, A: Carried>(
    meter: &MethodMeter,
    call: &Call,
    message: Q,
    answer: impl FnOnce(Request<Q>) -> Answer<'a, A>,
) -> Result<A, Status> {
    check_size(&message)?;
    let (answered, running) = answered(meter, call, answer(Request::new(message))).await;
    let answered = answered.and_then(|answer| check_size(&answer).map(|()| answer));
    running.answered(code(&answered));
    answered
}

pub async fn client_streaming<'a, Q: Carried, A: Carried>(
    meter: &MethodMeter,
    call: &Call,
    messages: Sent<Q>,
    answer: impl FnOnce(Request<Streaming<Q>>) -> Answer<'a, A>,
) -> Result<A, Status> {
    let (answered, running) = answered(meter, call, answer(Request::new(received(messages)))).await;
    let answered = answered.and_then(|answer| check_size(&answer).map(|()| answer));
    running.answered(code(&answered));
    answered
}

pub async fn server_streaming<'a, Q: Carried, A: Carried>(
    meter: &MethodMeter,
    call: &Call,
    message: Q,
    answer: impl FnOnce(Request<Q>) -> Answer<'a, Messages<A>>,
) -> Result<Messages<A>, Status> {
    check_size(&message)?;
    let answered = answered(meter, call, answer(Request::new(message))).await;
    streamed(meter, call, answered)
}

pub async fn streaming<'a, Q: Carried, A: Carried>(
    meter: &MethodMeter,
    call: &Call,
    messages: Sent<Q>,
    answer: impl FnOnce(Request<Streaming<Q>>) -> Answer<'a, Messages<A>>,
) -> Result<Messages<A>, Status> {
    let answered = answered(meter, call, answer(Request::new(received(messages)))).await;
    streamed(meter, call, answered)
}

/// The answer of the service, and the running call to be counted.
async fn answered<A>(meter: &MethodMeter, call: &Call, answer: Answer<'_, A>) -> (Result<A, Status>, RunningCall) {
    let running = meter.begin();
    let limit = call.timer_deadline();
    let span = tracing::debug_span!("rpc", service = meter.service, method = meter.name, request_id = %call.request_id);
    let work = AssertUnwindSafe(answer).catch_unwind();
    let answered = match limit {
        // Without a trace, the step is the call itself.
        None if span.is_disabled() && call.is_current() => work.await,
        None if span.is_disabled() => call.clone().child().scope(work).await,
        None => call.clone().child().scope(work.instrument(span)).await,
        Some(limit) => tokio::time::timeout_at(limit.into(), call.clone().child().scope(work.instrument(span)))
            .await
            .unwrap_or_else(|_| Ok(Err(deadline_exceeded(meter.service)))),
    };
    let answered = answered.unwrap_or_else(|panic| Err(panicked(meter, call, panic.as_ref())));
    (answered.map(Response::into_inner), running)
}

fn streamed<A: Carried>(
    meter: &MethodMeter,
    call: &Call,
    (answered, running): (Result<Messages<A>, Status>, RunningCall),
) -> Result<Messages<A>, Status> {
    match answered {
        Ok(messages) => Ok(stream::near(messages, meter, call, running)),
        Err(status) => {
            running.answered(status.code());
            Err(status)
        }
    }
}

fn code<A>(answered: &Result<A, Status>) -> tonic::Code {
    answered.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok)
}

/// Messages as the server trait takes them. tonic makes a [`Streaming`] of a body alone: each message is an empty one
/// there, and the decoder hands out what was put beside it.
fn received<Q: Carried>(messages: Sent<Q>) -> Streaming<Q> {
    let beside = Arc::new(Mutex::new(VecDeque::new()));
    let queue = beside.clone();
    let frames = messages.map(move |message| {
        check_size(&message)?;
        queue.lock().expect("no code panics while it holds this lock").push_back(message);
        Ok::<_, Status>(Frame::data(Bytes::from_static(&EMPTY_MESSAGE)))
    });
    Streaming::new_request(QueueDecoder(beside), StreamBody::new(frames), None, None)
}

/// Decoder that takes messages from a queue instead of decoding them.
struct QueueDecoder<Q>(Arc<Mutex<VecDeque<Q>>>);

impl<Q: Send + 'static> Decoder for QueueDecoder<Q> {
    type Item = Q;
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<Q>, Status> {
        Ok(self.0.lock().expect("no code panics while it holds this lock").pop_front())
    }
}
