//! Streams both ways: each is a connection of the JSON socket whose messages are written in another form.

use std::{mem, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt, stream};
use mesh::{Code, Fault, listener::Connection};
use tokio::sync::mpsc;
use tokio_util::sync::{PollSendError, PollSender};
use tonic::{Request, Response, Status, Streaming};
use tungstenite::{Message, Utf8Bytes};

use super::token;
use crate::{
    Service,
    edge::Caller,
    grpc::{self, accept::required},
    http::{Reservation, SendBudget, SocketProgress, body, cors::RequestedProject, current, or_unknown},
    legacy::{message::NAME_BYTES_MAX, session::JsonSession},
    socket,
};

/// How long a client may take to send its first message.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The messages to a client.
pub type ToldMessages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The messages of a stream, and those of the JSON socket that they stand for.
pub trait StreamFraming: 'static {
    /// A message of the client.
    type Request: prost::Message + 'static;
    /// A message to it.
    type Response: prost::Message + 'static;

    /// The project and the token of a message; empty where it has none.
    fn names(request: &Self::Request) -> (&str, &str);

    /// The message of the JSON socket; `None` where there is none, and it is ignored.
    fn received(request: Self::Request) -> Option<Vec<u8>>;

    /// What is told for a message of the JSON socket; `None`: nothing.
    fn told(text: &[u8]) -> Option<Self::Response>;

    /// The message that nothing is begun, by the text of an error.
    fn refused(request: &Self::Request, error: &str) -> Self::Response;

    /// Whether nothing comes after a message.
    fn is_last(told: &Self::Response) -> bool;
}

/// A name of a message as its answer repeats it: one that is too long is no name.
pub fn repeated(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX { name.to_owned() } else { String::new() }
}

/// A message to a client, and what is counted for it until the client asks for another one.
struct ToldMessage<T> {
    message: Result<T, Status>,
    counted: Option<(usize, Reservation)>,
}

/// What the stream itself says to its session.
#[derive(Clone, Copy)]
enum Own {
    /// The transport knows whether its client lives: what asks for that is answered.
    Pong,
    /// Nothing more comes.
    End,
}

/// Serves a stream. What is wrong with its first message is told by a message, and ends it.
pub async fn serve<F: StreamFraming>(
    service: &Service,
    request: Request<Streaming<F::Request>>,
) -> Result<Response<ToldMessages<F::Response>>, Status> {
    let mut caller = Caller::of(current(), request.metadata().as_ref()).map_err(grpc::status)?;
    let of_header = caller.token.clone();
    let requested = request.extensions().get::<RequestedProject>().cloned();
    let connection = or_unknown(request.extensions().get::<Arc<Connection>>().cloned());
    let mut messages = request.into_inner();
    let first = tokio::time::timeout(BEGIN_TIMEOUT, messages.message()).await;
    let first = first.map_err(|_| grpc::status(Fault::new(Code::Deadline, "the stream did not begin")))?;
    // A client that begins nothing is told nothing.
    let Some(first) = first? else { return Ok(Response::new(stream::empty().boxed())) };
    let (project, own_token) = F::names(&first);
    if let Some(requested) = requested {
        requested.set(project);
    }
    let project: Arc<str> = project.into();
    let begun = async {
        if !own_token.is_empty() {
            caller.token = token(own_token)?;
        }
        socket::accept_stream(service, &caller, required("project", &project)?.to_owned(), connection.clone()).await
    };
    let accepted = match Box::pin(begun).await {
        Ok(accepted) => accepted,
        Err(fault) => {
            let text = crate::legacy::error_text(&fault, !caller.token.is_empty());
            return Ok(Response::new(stream::iter([Ok(F::refused(&first, text))]).boxed()));
        }
    };
    let (sender, told) = mpsc::channel(1);
    let (own_sender, own) = mpsc::channel(4);
    let progress = SocketProgress::new(connection);
    let stream = OwnStream { project, most_bytes: accepted.most_bytes, told: sender.clone() };
    let received = stream::iter([Ok(first)]).chain(messages);
    let received = received.filter_map(move |message| received_by::<F>(stream.clone(), message));
    let sink = sink::<F>(sender, own_sender, (service.send_budget().clone(), progress.clone()));
    accepted.serve((sink, until_end(received, own)), |state| JsonSession::new(state, of_header));
    Ok(Response::new(taken(told, progress).boxed()))
}

/// The messages that are told, each of which counts until another one is asked for.
fn taken<T: Send + 'static>(
    told: mpsc::Receiver<ToldMessage<T>>,
    progress: SocketProgress,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    stream::unfold((told, progress, None), |(mut told, progress, sending)| async {
        if let Some((bytes, reservation)) = sending {
            progress.add(bytes);
            drop::<Reservation>(reservation);
        }
        let ToldMessage { message, counted } = told.recv().await?;
        Some((message, (told, progress, counted)))
    })
}

/// What a message of a stream has to fit.
struct OwnStream<T> {
    project: Arc<str>,
    most_bytes: usize,
    told: mpsc::Sender<ToldMessage<T>>,
}

impl<T> Clone for OwnStream<T> {
    fn clone(&self) -> Self {
        Self { project: self.project.clone(), most_bytes: self.most_bytes, told: self.told.clone() }
    }
}

impl<T> OwnStream<T> {
    /// Tells a message that is small.
    async fn tell(&self, message: Result<T, Status>) {
        // A client that is gone needs not be told.
        let _ = self.told.send(ToldMessage { message, counted: None }).await;
    }
}

/// A message of a client as the JSON socket knows it; `None` where it is ignored, or refused.
async fn received_by<F: StreamFraming>(
    stream: OwnStream<F::Response>,
    message: Result<F::Request, Status>,
) -> Option<tungstenite::Result<Message>> {
    let end = || Some(Ok(Message::Close(None)));
    let message = match message {
        Ok(message) => message,
        Err(status) => {
            stream.tell(Err(grpc::wire_fault(&status).map_or(status, grpc::status))).await;
            return end();
        }
    };
    let size = prost::Message::encoded_len(&message);
    if size > stream.most_bytes {
        stream.tell(Err(grpc::status(body::too_large(stream.most_bytes, Some(size as u64))))).await;
        return end();
    }
    let (project, _) = F::names(&message);
    if !project.is_empty() && *project != *stream.project {
        let refused = F::refused(&message, &format!("the stream is of project {}", stream.project));
        stream.tell(Ok(refused)).await;
        return None;
    }
    let text = F::received(message)?;
    Some(Ok(Message::Text(Utf8Bytes::try_from(text).expect("it is JSON, which is UTF-8"))))
}

/// The messages of a client, and a close where it sends no more: the end of its half is the end of all that it began.
fn until_end(
    received: impl Stream<Item = tungstenite::Result<Message>> + Send + 'static,
    own: mpsc::Receiver<Own>,
) -> impl Stream<Item = tungstenite::Result<Message>> + Send + Unpin + 'static {
    let received = received.chain(stream::iter([Ok(Message::Close(None))]));
    let own = stream::unfold(own, |mut own| async { Some((own.recv().await?, own)) });
    let own = own.map(|own| match own {
        Own::Pong => Ok(Message::Pong(Bytes::new())),
        Own::End => Ok(Message::Close(None)),
    });
    stream::select(received.boxed(), own.boxed())
}

/// Takes the messages of a JSON socket and tells what they stand for.
fn sink<F: StreamFraming>(
    told: mpsc::Sender<ToldMessage<F::Response>>,
    own: mpsc::Sender<Own>,
    (budget, progress): (SendBudget, SocketProgress),
) -> impl Sink<Message, Error = PollSendError<ToldMessage<F::Response>>> + Send + Unpin + 'static {
    let mut parts = Vec::new();
    let counted = move |message: F::Response| {
        let bytes = prost::Message::encoded_len(&message);
        match budget.queue(bytes, &progress) {
            Ok(reservation) => ToldMessage { message: Ok(message), counted: Some((bytes, reservation)) },
            Err(fault) => ToldMessage { message: Err(grpc::status(fault)), counted: None },
        }
    };
    PollSender::new(told).with_flat_map(move |message| {
        let text = match message {
            Message::Text(text) => Some(text.as_bytes().to_vec()),
            Message::Frame(frame) => {
                parts.extend_from_slice(frame.payload());
                frame.header().is_final.then(|| mem::take(&mut parts))
            }
            Message::Ping(_) => {
                // One that waits is as good.
                let _ = own.try_send(Own::Pong);
                None
            }
            Message::Close(frame) => {
                let status = frame.map(|frame| closed(frame.code.into(), frame.reason.as_str()));
                return stream::iter(status.map(|status| Ok(ToldMessage { message: Err(status), counted: None })));
            }
            Message::Binary(_) | Message::Pong(_) => None,
        };
        let message = text.and_then(|text| F::told(&text));
        if message.as_ref().is_some_and(F::is_last) {
            // With as many before it, the client sends no more than it is told.
            let _ = own.try_send(Own::End);
        }
        stream::iter(message.map(|message| Ok(counted(message))))
    })
}

/// The status with which a stream ends whose connection is closed by a code of RFC 6455, section 7.4.
fn closed(code: u16, reason: &str) -> Status {
    let code = match code {
        1012 | 1013 => Code::Unavailable,
        1011 => Code::Internal,
        1009 => Code::TooLarge,
        1008 => Code::Denied,
        _ => Code::BadRequest,
    };
    grpc::status(Fault::new(code, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stream_says_whether_to_come_back() {
        for (code, expected) in [
            (1012, tonic::Code::Unavailable),
            (1013, tonic::Code::Unavailable),
            (1008, tonic::Code::PermissionDenied),
            (1009, tonic::Code::ResourceExhausted),
            (1007, tonic::Code::InvalidArgument),
        ] {
            assert_eq!(closed(code, "why").code(), expected);
        }
    }

    #[tokio::test]
    async fn a_client_that_sends_no_more_is_closed() {
        let (own, owns) = mpsc::channel(1);
        let mut messages = until_end(stream::iter([Ok(Message::Text("{}".into()))]), owns);
        own.try_send(Own::Pong).expect("there is room");
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(messages.next().await.expect("a message").expect("a sound one"));
        }
        assert!(got.contains(&Message::Close(None)) && got.contains(&Message::Pong(Bytes::new())), "{got:?}");
    }

    #[test]
    fn a_name_that_is_too_long_is_not_repeated() {
        assert_eq!(repeated("q1"), "q1");
        assert_eq!(repeated(&"x".repeat(NAME_BYTES_MAX + 1)), "");
    }
}
