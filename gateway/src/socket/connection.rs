//! One connection: its client's messages come in, the queues go out, until one of both ends it.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use futures::{Sink, Stream, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh::listener;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tungstenite::{
    Message,
    protocol::{Role, WebSocketConfig},
};

use super::{
    Received, SocketSession,
    closing::Closing,
    outgoing::{self, Outgoing},
    receive::BoundedReads,
};
use crate::http::SocketProgress;

/// How long a client may take to begin.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may send nothing, not even a pong, and take nothing either.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// How long what was begun may take where the node drains: the rest of the node waits for it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to agree to the end of its connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Replies that a message may have, besides the end of the connection.
const REPLIES_TO_ONE: usize = 3;
/// Bytes that are read of a connection at once: there are many that are idle.
const READ_BUFFER: usize = 4 * 1024;

/// How a connection ends.
#[derive(Debug, PartialEq)]
enum End {
    /// It is broken.
    Broken,
    /// The client closes it, and is told so.
    ByClient,
    /// It is to be closed.
    ByServer(Closing),
}

/// Serves the client of `session` once the answer to its handshake is sent, until it leaves, breaks the protocol, or the
/// node stops. A message may have `most` bytes and take `time`.
pub async fn serve(session: impl SocketSession, upgraded: OnUpgrade, most: usize, time: Duration) {
    // An error means that the client is gone.
    let Ok(upgraded) = upgraded.await else { return };
    let reads = BoundedReads::new(TokioIo::new(upgraded), session.state().incomplete.clone(), time);
    let socket = WebSocketStream::from_raw_socket(reads, Role::Server, Some(transport(most))).await;
    let peer = (session.state().peer.unwrap_or(IpAddr::from([0; 4])), 0).into();
    let carrier = Carrier::Socket(Arc::new(listener::Connection::new(peer)));
    Box::pin(run(session, socket.split(), carrier)).await;
}

/// Limits of a connection whose messages have `most` bytes.
pub fn transport(most: usize) -> WebSocketConfig {
    // Every ping has the socket write a pong: what the client does not take of them is bounded.
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(outgoing::WRITE_BUFFER)
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
}

/// What carries the messages of a connection.
pub enum Carrier {
    /// A socket of its own.
    Socket(Arc<listener::Connection>),
    /// A stream, one of several on a connection: what its client is told may follow the end of what the client says.
    Stream(Arc<listener::Connection>),
}

/// Serves the client of `session`, whose messages come and go by what is given, likewise.
pub async fn run(
    mut session: impl SocketSession,
    (sink, mut messages): (impl Sink<Message> + Unpin, impl Stream<Item = tungstenite::Result<Message>> + Unpin),
    carrier: Carrier,
) {
    let (connection, is_told_after) = match carrier {
        Carrier::Socket(connection) => (connection, false),
        Carrier::Stream(connection) => (connection, true),
    };
    let state = session.state();
    let (budget, config) = (state.service.send_budget().clone(), state.service.config());
    let progress = SocketProgress::new(connection);
    let (outgoing, queued) = outgoing::queues(budget, progress, config.socket_bytes);
    let mut writer = pin!(outgoing::write(sink, queued, config.write_timeout));
    let end = tokio::select! {
        // The client is gone, or takes nothing.
        () = writer.as_mut() => End::Broken,
        end = follow(&mut session, &mut messages, &outgoing) => end,
    };
    // Nothing is begun after the end.
    drop(session);
    let is_written = match end {
        End::Broken => return,
        // What the client is told is written when it is read from.
        End::ByClient => !is_told_after,
        End::ByServer(closing) => {
            if outgoing.replies.try_send(closing.into()).is_err() {
                return;
            }
            false
        }
    };
    drop(outgoing);
    let ended = async {
        if !is_written {
            writer.await;
        }
        // A connection that is dropped while the client still sends loses what was written.
        while let Some(Ok(_)) = messages.next().await {}
    };
    // Whether the client agrees in time does not matter.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
}

/// Follows the messages of a client until the end.
async fn follow(
    session: &mut impl SocketSession,
    messages: &mut (impl Stream<Item = tungstenite::Result<Message>> + Unpin),
    outgoing: &Outgoing,
) -> End {
    let draining = session.state().service.tasks().draining().clone();
    let (begin, mut last_message) = (Instant::now(), Instant::now());
    let mut ping = tokio::time::interval_at(begin + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut taken, mut drain_end) = (0, begin);
    loop {
        let is_draining = session.state().is_draining();
        if session.state().is_drained() || (is_draining && Instant::now() >= drain_end) {
            return End::ByServer(Closing::RESTART);
        }
        // Each branch takes one thing that is already there and leaves the others as they are.
        let done = tokio::select! {
            () = draining.cancelled(), if !is_draining => {
                session.state_mut().drain();
                drain_end = Instant::now() + DRAIN_TIMEOUT;
                Ok(())
            }
            () = tokio::time::sleep_until(drain_end), if is_draining => Ok(()),
            done = session.next(outgoing) => done,
            message = messages.next(), if outgoing.replies.capacity() >= REPLIES_TO_ONE && session.takes_messages() => {
                last_message = Instant::now();
                match receive(session, message, outgoing) {
                    Ok(()) => Ok(()),
                    Err(end) => return end,
                }
            }
            // A client that takes no replies is not read from until it does.
            Ok(_) = outgoing.replies.reserve_many(REPLIES_TO_ONE), if outgoing.replies.capacity() < REPLIES_TO_ONE => {
                Ok(())
            }
            _ = ping.tick() => {
                // While a long answer is sent, no ping is.
                if std::mem::replace(&mut taken, outgoing.progress.taken()) != outgoing.progress.taken() {
                    last_message = Instant::now();
                }
                if last_message.elapsed() >= SILENCE_MAX {
                    return End::Broken;
                }
                // Where replies wait, the client is slow, and that has a limit of its own.
                let _ = outgoing.replies.try_send(Message::Ping(Default::default()));
                session.keep_alive(outgoing);
                Ok(())
            }
            () = tokio::time::sleep_until(begin + INIT_TIMEOUT), if !session.has_begun() => session.time_out(),
        };
        if let Err(closing) = done {
            return End::ByServer(closing);
        }
    }
}

/// Hands a message of the client on.
fn receive(
    session: &mut impl SocketSession,
    message: Option<tungstenite::Result<Message>>,
    outgoing: &Outgoing,
) -> Result<(), End> {
    let received = match message {
        None => return Err(End::Broken),
        Some(Ok(Message::Close(_))) => return Err(End::ByClient),
        Some(Ok(Message::Ping(payload) | Message::Pong(payload))) => {
            session.state().incomplete.control(payload.len());
            return Ok(());
        }
        // The connection hands on no parts of messages.
        Some(Ok(Message::Frame(_))) => return Ok(()),
        Some(Ok(Message::Text(text))) => Received::Text(text),
        Some(Ok(Message::Binary(bytes))) => Received::Binary(bytes),
        Some(Err(error)) => return Err(Closing::of(&error).map_or(End::Broken, End::ByServer)),
    };
    session.received(received, outgoing).map_err(End::ByServer)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{Config, graphql::socket_client::Client};

    async fn end(client: &mut Client) -> End {
        follow(&mut client.session, &mut stream::pending(), &client.outgoing).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_begin_is_closed() {
        let mut client = Client::new(Config::default()).await;
        assert_eq!(end(&mut client).await, End::ByServer(Closing::INIT_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_no_ping_is_gone() {
        let mut client = Client::new(Config::default()).await;
        client.begin().await;
        let begin = Instant::now();
        assert_eq!(end(&mut client).await, End::Broken);
        assert_eq!(begin.elapsed(), SILENCE_MAX);
        assert_eq!(client.queued.replies.try_recv(), Ok(Message::Ping(Default::default())));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_is_answered_where_the_node_drains() {
        let mut client = Client::new(Config::default()).await;
        client.begin().await;
        let gate = client.gate();
        let subscribe = |id: &str, query: &str| {
            format!(r#"{{"type": "subscribe", "id": "{id}", "payload": {{"query": "{query}"}}}}"#)
        };
        client.send(&subscribe("live", "subscription { album { title } }")).expect("it is legal");
        client.send(&subscribe("once", "{ album { title } }")).expect("it is legal");
        // Both are being read.
        while client.stage.world.reads.lock().unwrap().len() < 2 {
            tokio::select! {
                () = tokio::task::yield_now() => {}
                done = client.session.next(&client.outgoing) => panic!("{done:?}"),
            }
        }
        client.stage.service.tasks().begin_drain();
        let closing = async {
            let mut silent = stream::pending();
            let mut following = Box::pin(follow(&mut client.session, &mut silent, &client.outgoing));
            for _ in 0..100 {
                assert!(following.as_mut().now_or_never().is_none(), "the query is not answered yet");
                tokio::task::yield_now().await;
            }
            gate.notify_waiters();
            following.await
        };
        let (sink, sent) = futures::channel::mpsc::unbounded();
        let mut writing = Box::pin(outgoing::write(sink, client.queued, Duration::from_secs(60)));
        let end = tokio::select! {
            end = closing => end,
            () = writing.as_mut() => panic!("the client is there"),
        };
        assert_eq!(end, End::ByServer(Closing::RESTART));
        drop(writing);
        let sent: Vec<Message> = sent.collect().await;
        let texts: Vec<String> = sent.into_iter().map(|message| message.to_string()).collect();
        let [next, complete] = &texts[..] else { panic!("{texts:?}") };
        assert!(next.contains(r#""type":"next","id":"once""#), "{next}");
        assert!(complete.contains(r#""type":"complete","id":"once""#), "{complete}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_does_not_hold_up_the_drain() {
        let mut client = Client::new(Config::default()).await;
        client.begin().await;
        let _gate = client.gate();
        let query = r#"{"type": "subscribe", "id": "1", "payload": {"query": "{ album { title } }"}}"#;
        client.send(query).expect("it is legal");
        client.stage.service.tasks().begin_drain();
        let begin = Instant::now();
        assert_eq!(end(&mut client).await, End::ByServer(Closing::RESTART));
        assert_eq!(begin.elapsed(), DRAIN_TIMEOUT);
    }

    /// A frame of a client, whose payload is short.
    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("it is short");
        let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    }

    #[tokio::test]
    async fn pongs_that_a_client_does_not_take_are_bounded_and_answers_find_room_beside_them() {
        const PIPE: usize = 1024;
        const ANSWER: usize = 100_000;
        let (mut peer, server) = tokio::io::duplex(PIPE);
        let mut socket = WebSocketStream::from_raw_socket(server, Role::Server, Some(transport(ANSWER))).await;
        for _ in 0..2000 {
            peer.write_all(&frame(9, &[b'p'; 125])).await.expect("it fits");
            assert!(matches!(socket.next().await, Some(Ok(Message::Ping(_)))));
        }
        let client = Client::new(Config::default()).await;
        let result = vec![b'1'; ANSWER];
        let text = [br#"{"type":"next","id":"1","payload":"#, &*result, b"}"].concat();
        client.outgoing.slot(1).await.expect("it is open").offer(text.clone()).expect("there is room");
        drop((client.session, client.outgoing));
        let mut taken = Vec::new();
        let writing = outgoing::write(socket, client.queued, Duration::from_secs(60));
        let (_, read) = tokio::join!(writing, peer.read_to_end(&mut taken));
        read.expect("the socket is closed at the end");
        let pongs = taken.len() - text.len();
        assert!(pongs <= PIPE + outgoing::WRITE_BUFFER + 200, "{pongs}");
        assert!(taken.ends_with(&text[text.len() - 1000..]), "the answer comes after them");
    }
}
