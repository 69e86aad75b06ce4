//! Calls to peers, with retries.
//!
//! A message is encoded once. An idempotent call is sent once more where no peer took it.

use std::{
    marker::PhantomData,
    sync::{Arc, OnceLock},
    task::Poll,
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use prost::Message;
use proto::{
    carried::{Carried, CarriedDecoder, Codec, MESSAGE_BYTES, check_bytes, check_size},
    link::{Messages, Method, Retry, Sent},
};
use tonic::{
    IntoStreamingRequest, Response, Status,
    body::Body,
    client::Grpc,
    codec::{EncodeBuf, Encoder},
};
use tower::Service;

use super::{deadline_exceeded, pool::Pool, stream as timed};
use crate::Call;

pub async fn unary<Q: Carried, A: Carried>(
    pool: &Pool,
    method: &'static Method,
    call: &Call,
    message: Q,
) -> Result<A, Status> {
    // Encoded once, whether it is sent once or twice.
    let message = Bytes::from(message.into_wire().encode_to_vec());
    check_bytes(message.len())?;
    with_deadline(pool, call, async {
        let answered = send_once(pool, method, call, message.clone()).await;
        match answered {
            Err(status) if is_retryable(&status, method) && pool.may_retry() => {
                tracing::debug!(service = pool.service(), method = method.name, "call sent once more");
                send_once(pool, method, call, message).await
            }
            answered => answered,
        }
    })
    .await
}

pub async fn server_streaming<Q: Carried, A: Carried>(
    pool: &Pool,
    method: &'static Method,
    call: &Call,
    message: Q,
) -> Result<Messages<A>, Status> {
    check_size(&message)?;
    let messages = with_deadline(pool, call, async {
        let mut client = client(pool).await?;
        client.server_streaming(call.next(message), path(method), Codec::<Q, A>::default()).await
    });
    let messages = messages.await?.into_inner();
    Ok(timed::far(Box::pin(messages), pool.service(), call))
}

pub async fn client_streaming<Q: Carried, A: Carried>(
    pool: &Pool,
    method: &'static Method,
    call: &Call,
    messages: Sent<Q>,
) -> Result<A, Status> {
    let (messages, oversized) = within_limit(messages);
    let answered = with_deadline(pool, call, async {
        let mut client = client(pool).await?;
        let request = call.next(messages).into_streaming_request();
        client.client_streaming(request, path(method), Codec::<Q, A>::default()).await.map(Response::into_inner)
    });
    let answered = answered.await;
    oversized.get().map_or(answered, |refusal| Err(refusal.clone()))
}

pub async fn streaming<Q: Carried, A: Carried>(
    pool: &Pool,
    method: &'static Method,
    call: &Call,
    messages: Sent<Q>,
) -> Result<Messages<A>, Status> {
    let (messages, oversized) = within_limit(messages);
    let messages = with_deadline(pool, call, async {
        let mut client = client(pool).await?;
        let request = call.next(messages).into_streaming_request();
        client.streaming(request, path(method), Codec::<Q, A>::default()).await
    });
    let messages = messages.await?.into_inner();
    let refused = stream::poll_fn(move |_| Poll::Ready(oversized.get().cloned().map(Err)));
    let messages = messages.chain(refused.take(1));
    Ok(timed::far(messages.boxed(), pool.service(), call))
}

/// `messages` up to one that is over the limit, and where that refusal is told.
fn within_limit<Q: Carried>(messages: Sent<Q>) -> (Sent<Q>, Arc<OnceLock<Status>>) {
    let oversized = Arc::new(OnceLock::new());
    let told = oversized.clone();
    let fits = move |message: &Q| {
        let checked = check_size(message).map_err(|refusal| told.get_or_init(|| refusal).clone());
        std::future::ready(checked.is_ok())
    };
    (messages.take_while(fits).boxed(), oversized)
}

async fn send_once<A: Carried>(pool: &Pool, method: &'static Method, call: &Call, message: Bytes) -> Result<A, Status> {
    let mut client = client(pool).await?;
    let codec = EncodedCodec::<A>(PhantomData);
    client.unary(call.next(message), path(method), codec).await.map(Response::into_inner)
}

/// Whether a call that no peer took may be sent again. Source: idempotency level of the contract.
fn is_retryable(status: &Status, method: &Method) -> bool {
    method.retry == Retry::Once && status.code() == tonic::Code::Unavailable
}

/// `work` until the call's deadline, unless somebody else sees to that.
async fn with_deadline<T>(
    pool: &Pool,
    call: &Call,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match call.timer_deadline() {
        Some(limit) => {
            tokio::time::timeout_at(limit.into(), work).await.unwrap_or_else(|_| Err(deadline_exceeded(pool.service())))
        }
        None => work.await,
    }
}

async fn client(pool: &Pool) -> Result<Grpc<Channel>, Status> {
    let mut client = Grpc::new(Channel(pool.clone()))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    client.ready().await?;
    Ok(client)
}

fn path(method: &'static Method) -> PathAndQuery {
    PathAndQuery::from_static(method.path)
}

/// The peers of a service as a transport of tonic.
struct Channel(Pool);

impl Service<HttpRequest<Body>> for Channel {
    type Response = HttpResponse<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<HttpResponse<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let pool = self.0.clone();
        Box::pin(async move { pool.send(request).await })
    }
}

/// Codec that sends encoded messages and decodes `A`.
struct EncodedCodec<A>(PhantomData<A>);

/// Encoder of messages that are encoded already.
struct EncodedBytes;

impl<A: Carried> tonic::codec::Codec for EncodedCodec<A> {
    type Encode = Bytes;
    type Decode = A;
    type Encoder = EncodedBytes;
    type Decoder = CarriedDecoder<A>;

    fn encoder(&mut self) -> EncodedBytes {
        EncodedBytes
    }

    fn decoder(&mut self) -> CarriedDecoder<A> {
        CarriedDecoder::default()
    }
}

impl Encoder for EncodedBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(buffer, item);
        Ok(())
    }
}
