//! Queues to the client of a socket. What waits in them counts as answers that are not taken, and a client that takes
//! nothing for long loses its connection.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Sink, SinkExt};
use mesh::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tungstenite::{
    Message, Utf8Bytes,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use super::{closing::Closing, running::Completion};
use crate::http::{Reservation, SendBudget, SocketProgress};

/// Answers that are made or wait for a slow client; while there are as many, operations wait before they read.
const ANSWERS_MAX: usize = 4;
/// Replies that wait for a slow client; with more, no message of it is taken.
const REPLIES_MAX: usize = 64;
/// Bytes of a frame: no more of a message is copied at a time, so that one that is large leaves no large buffer behind.
const FRAME_BYTES: usize = 16 * 1024;
/// Bytes that a connection buffers for its client: a frame, or pongs, of which only the last counts once it is full.
/// Source: RFC 6455, section 5.5.3.
pub const WRITE_BUFFER: usize = FRAME_BYTES + 4 * 1024;

/// Ends of the queues to the client. Clones are of the same queues.
#[derive(Clone)]
pub struct Outgoing {
    answers: mpsc::Sender<QueuedAnswer>,
    /// Replies to messages, which are written before answers.
    pub replies: mpsc::Sender<Message>,
    /// Room for answers: bytes up to `limits.socket_bytes`.
    room: Arc<Semaphore>,
    room_bytes: usize,
    budget: SendBudget,
    /// How much the client has taken.
    pub progress: SocketProgress,
    /// Of the operation whose messages they take.
    completion: Completion,
}

/// An answer that waits for its client.
struct QueuedAnswer {
    text: Bytes,
    completion: Completion,
    _written: oneshot::Sender<()>,
    _counted: Option<Reservation>,
    _room: Option<OwnedSemaphorePermit>,
}

/// A message that is queued, until it is written or dropped.
#[must_use]
pub struct Written(oneshot::Receiver<()>);

impl Written {
    /// Waits for it.
    pub async fn done(self) {
        // Nothing is ever sent: its end is the sender's.
        let _ = self.0.await;
    }
}

/// Other ends of the queues.
pub struct Queued {
    answers: mpsc::Receiver<QueuedAnswer>,
    pub replies: mpsc::Receiver<Message>,
    progress: SocketProgress,
}

/// Room for one answer.
pub struct AnswerSlot {
    place: mpsc::OwnedPermit<QueuedAnswer>,
    outgoing: Outgoing,
    /// Room for its bytes, as far as it is kept already.
    room: OwnedSemaphorePermit,
}

/// Why an answer of a live query is not queued.
#[derive(Debug)]
pub enum Overflow {
    /// The client has yet to take others; this one has so many bytes.
    Socket(usize),
    /// All clients together have yet to take too much.
    Node(Fault),
}

/// Queues to a client, which may hold `room_bytes` of answers.
pub fn queues(budget: SendBudget, progress: SocketProgress, room_bytes: usize) -> (Outgoing, Queued) {
    let (answers, queued_answers) = mpsc::channel(ANSWERS_MAX);
    let (replies, queued_replies) = mpsc::channel(REPLIES_MAX);
    let room_bytes = room_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let room = Arc::new(Semaphore::new(room_bytes));
    let queued = Queued { answers: queued_answers, replies: queued_replies, progress: progress.clone() };
    let completion = Completion::default();
    (Outgoing { answers, replies, room, room_bytes, budget, progress, completion }, queued)
}

#[cfg(test)]
impl Queued {
    /// Takes the messages of operations that wait.
    pub fn messages(&mut self) -> Vec<serde_json::Value> {
        let answers = std::iter::from_fn(|| self.answers.try_recv().ok());
        answers.map(|answer| serde_json::from_slice(&answer.text).expect("a message is JSON")).collect()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.answers.len()
    }
}

impl Outgoing {
    /// The same queues, for the messages of an operation until it is completed.
    pub fn of_operation(&self, completion: Completion) -> Self {
        Self { completion, ..self.clone() }
    }

    /// Queues a reply. An error ends the connection.
    pub fn reply(&self, text: Vec<u8>) -> Result<(), Closing> {
        let text = Utf8Bytes::try_from(text).expect("messages are JSON, which is UTF-8");
        self.replies.try_send(Message::Text(text)).map_err(|_| Closing::invalid("too many messages at once"))
    }

    /// Waits for room for an answer, and keeps it for so many bytes; `None` where the socket is closed.
    ///
    /// Room is waited for last: nobody who has it waits for what others of the socket have.
    pub async fn slot(&self, bytes: usize) -> Option<AnswerSlot> {
        let place = self.answers.clone().reserve_owned().await.ok()?;
        let room = self.acquire(bytes).await;
        Some(AnswerSlot { place, outgoing: self.clone(), room })
    }

    /// As [`Outgoing::slot`], for a message of so many bytes that is there already: while it waits it counts as an answer that
    /// the client has not taken, since as many operations as a caller may have can wait with one each. Errors:
    /// `UNAVAILABLE` where all clients together have yet to take too much.
    pub async fn slot_for(&self, bytes: usize) -> Result<Option<AnswerSlot>, Fault> {
        let counted = self.waiting(bytes)?;
        let slot = self.slot(0).await;
        drop(counted);
        Ok(slot)
    }

    fn waiting(&self, bytes: usize) -> Result<Reservation, Fault> {
        self.budget.queue(bytes, &self.progress)
    }

    async fn acquire(&self, bytes: usize) -> OwnedSemaphorePermit {
        self.room.clone().acquire_many_owned(self.permits(bytes)).await.expect("nobody closes the semaphore")
    }

    /// One answer over the whole room is queued alone.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.room_bytes)).unwrap_or(u32::MAX)
    }
}

impl AnswerSlot {
    /// Queues a message that was asked for once, as soon as there is room for its bytes. Errors: `UNAVAILABLE`, with the
    /// slot for the error.
    pub async fn send(self, text: Vec<u8>) -> Result<Written, (Self, Fault)> {
        let counted = match self.outgoing.budget.queue(text.len(), &self.outgoing.progress) {
            Ok(counted) => counted,
            Err(fault) => return Err((self, fault)),
        };
        let Self { place, outgoing, room } = self;
        // All at once: who waits for the rest must not keep a part from others.
        drop(room);
        let room = outgoing.acquire(text.len()).await;
        Ok(queue(place, &outgoing, text, Some((counted, room))))
    }

    /// Queues the error that takes the place of a message without room, whatever else waits: it is small.
    pub fn refuse(self, text: Vec<u8>) -> Written {
        queue(self.place, &self.outgoing, text, None)
    }

    /// Queues an answer of a live query, which can be asked for again.
    ///
    /// How many bytes it has.
    pub fn offer(self, text: Vec<u8>) -> Result<usize, Overflow> {
        let Self { place, outgoing, mut room } = self;
        let (size, wanted, kept) = (text.len(), outgoing.permits(text.len()) as usize, room.num_permits());
        if wanted < kept {
            drop(room.split(kept - wanted));
        } else {
            let more = u32::try_from(wanted - kept).unwrap_or(u32::MAX);
            let more = outgoing.room.clone().try_acquire_many_owned(more).map_err(|_| Overflow::Socket(size))?;
            room.merge(more);
        }
        let counted = outgoing.budget.queue(size, &outgoing.progress).map_err(Overflow::Node)?;
        // Nobody waits until it is written.
        let _ = queue(place, &outgoing, text, Some((counted, room)));
        Ok(size)
    }
}

fn queue(
    place: mpsc::OwnedPermit<QueuedAnswer>,
    outgoing: &Outgoing,
    text: Vec<u8>,
    held: Option<(Reservation, OwnedSemaphorePermit)>,
) -> Written {
    let (_written, written) = oneshot::channel();
    let (_counted, _room) = held.unzip();
    place.send(QueuedAnswer { text: text.into(), completion: outgoing.completion.clone(), _written, _counted, _room });
    Written(written)
}

/// Writes what is queued, replies first, until nobody can queue any more, the connection is closed or cut, or the client
/// takes nothing for `timeout`.
pub async fn write<S: Sink<Message> + Unpin>(mut sink: S, mut queued: Queued, timeout: Duration) {
    let progress = queued.progress.clone();
    tokio::select! {
        () = progress.connection().until_cut() => {}
        () = write_all(Pin::new(&mut sink), &mut queued, timeout) => {}
    }
}

async fn write_all<S: Sink<Message> + Unpin>(mut sink: Pin<&mut S>, queued: &mut Queued, timeout: Duration) {
    loop {
        let answer = tokio::select! {
            biased;
            Some(reply) = queued.replies.recv() => {
                let is_last = matches!(reply, Message::Close(_));
                if !send(sink.as_mut(), reply, timeout).await || is_last {
                    return;
                }
                continue;
            }
            Some(answer) = queued.answers.recv() => answer,
            else => return,
        };
        if !answer.completion.sends() {
            continue;
        }
        for (opcode, piece, is_last) in frames(&answer.text) {
            let size = piece.len();
            let frame = Message::Frame(Frame::message(piece, OpCode::Data(opcode), is_last));
            if !send(sink.as_mut(), frame, timeout).await {
                return;
            }
            queued.progress.add(size);
        }
    }
}

/// Whether the client takes a message in time. What is buffered before it, such as pongs, leaves it no room until it is
/// taken.
async fn send<S: Sink<Message> + Unpin>(mut sink: Pin<&mut S>, message: Message, timeout: Duration) -> bool {
    let sent = async {
        sink.flush().await?;
        sink.send(message).await
    };
    tokio::time::timeout(timeout, sent).await.is_ok_and(|sent| sent.is_ok())
}

/// The frames of a message.
fn frames(text: &Bytes) -> impl Iterator<Item = (Data, Bytes, bool)> + '_ {
    let starts = (0..text.len().max(1)).step_by(FRAME_BYTES);
    starts.map(|start| {
        let end = (start + FRAME_BYTES).min(text.len());
        let opcode = if start == 0 { Data::Text } else { Data::Continue };
        (opcode, text.slice(start..end), end == text.len())
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use mesh::{listener::Connection, telemetry::Metrics};

    use super::*;

    const ANSWER: usize = 100_000;

    fn open(unsent_bytes: usize, room_bytes: usize) -> (Outgoing, Queued) {
        let budget = SendBudget::new(unsent_bytes, &Metrics::default());
        let connection = Arc::new(Connection::new(([127, 0, 0, 1], 1).into()));
        queues(budget, SocketProgress::new(connection), room_bytes)
    }

    fn next(result: &[u8]) -> Vec<u8> {
        [br#"{"id":"1","payload":"#, result, b"}"].concat()
    }

    async fn slot(outgoing: &Outgoing) -> AnswerSlot {
        outgoing.slot(0).await.expect("the socket is open")
    }

    #[tokio::test]
    async fn a_live_answer_that_finds_no_room_is_dropped_and_one_finds_room_when_others_are_taken() {
        let (outgoing, mut queued) = open(usize::MAX, 3 * ANSWER / 2);
        let answer = vec![b'1'; ANSWER];
        slot(&outgoing).await.offer(next(&answer)).expect("there is room");
        let refused = slot(&outgoing).await.offer(next(&answer)).expect_err("there is none");
        let Overflow::Socket(bytes) = refused else { panic!("{refused:?}") };
        assert!(outgoing.slot(bytes).now_or_never().is_none());
        drop(queued.answers.recv().await);
        let kept = outgoing.slot(bytes).now_or_never().flatten().expect("there is room");
        let refused = slot(&outgoing).await.offer(next(&answer));
        assert!(matches!(refused, Err(Overflow::Socket(_))), "it is kept for the other: {refused:?}");
        kept.offer(next(&answer)).expect("there is room");
    }

    #[tokio::test]
    async fn an_answer_over_the_whole_room_is_queued_alone() {
        let (outgoing, mut queued) = open(usize::MAX, ANSWER / 2);
        let answer = vec![b'1'; ANSWER];
        slot(&outgoing).await.offer(next(&answer)).expect("nothing else is queued");
        assert!(slot(&outgoing).await.offer(next(b"1")).is_err());
        drop(queued.answers.recv().await);
        slot(&outgoing).await.offer(next(b"1")).expect("there is room");
    }

    #[tokio::test]
    async fn answers_of_all_sockets_are_within_the_budget_of_the_node() {
        let budget = SendBudget::new(3 * ANSWER / 2, &Metrics::default());
        let open = || {
            let connection = Arc::new(Connection::new(([127, 0, 0, 1], 1).into()));
            queues(budget.clone(), SocketProgress::new(connection), usize::MAX)
        };
        let ((one, mut queued), (other, _queued)) = (open(), open());
        let answer = vec![b'1'; ANSWER];
        slot(&one).await.offer(next(&answer)).expect("there is room");
        let refused = slot(&other).await.offer(next(&answer)).expect_err("there is none");
        assert!(matches!(refused, Overflow::Node(_)), "{refused:?}");
        let text = || next(&answer);
        let (slot, fault) = slot(&other).await.send(text()).await.map(|_| "sent").expect_err("there is none");
        assert_eq!(fault.code, mesh::Code::Unavailable);
        drop(queued.answers.recv().await);
        assert!(slot.send(text()).await.is_ok());
    }

    #[tokio::test]
    async fn messages_that_wait_for_room_are_within_the_budget_of_the_node() {
        let (outgoing, _queued) = open(3 * ANSWER / 2, usize::MAX);
        let waiting = outgoing.waiting(ANSWER).expect("there is room");
        assert!(outgoing.waiting(ANSWER).is_err());
        assert!(outgoing.waiting(1).is_ok(), "a small one finds room");
        drop(waiting);
        assert!(outgoing.waiting(ANSWER).is_ok());
    }

    #[tokio::test]
    async fn no_more_answers_are_made_than_there_are_slots() {
        let (outgoing, _queued) = open(usize::MAX, usize::MAX);
        let mut slots = Vec::new();
        for _ in 0..ANSWERS_MAX {
            slots.push(slot(&outgoing).await);
        }
        assert!(outgoing.slot(1).now_or_never().is_none());
        slots.pop();
        assert!(outgoing.slot(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_is_no_longer_written_to() {
        let (outgoing, queued) = open(usize::MAX, usize::MAX);
        let (sink, _messages) = futures::channel::mpsc::channel::<Message>(0);
        slot(&outgoing).await.offer(next(&vec![b'1'; ANSWER])).expect("there is room");
        let mut writing = Box::pin(write(sink, queued, Duration::from_secs(60)));
        assert!(writing.as_mut().now_or_never().is_none(), "nobody takes it");
        outgoing.progress.connection().cut();
        writing.await;
    }

    #[test]
    fn a_large_message_is_sent_in_frames_that_are_small() {
        for (size, count) in [(0, 1), (1, 1), (FRAME_BYTES, 1), (FRAME_BYTES + 1, 2), (5 * FRAME_BYTES, 5)] {
            let text = Bytes::from(vec![b'1'; size]);
            let frames: Vec<_> = frames(&text).collect();
            assert_eq!(frames.len(), count);
            assert_eq!(frames.iter().flat_map(|(_, piece, _)| piece.to_vec()).collect::<Vec<_>>(), text);
            let is_last: Vec<_> = frames.iter().map(|(_, _, is_last)| *is_last).collect();
            assert_eq!(is_last.iter().position(|is_last| *is_last), Some(count - 1));
            assert!(frames.iter().skip(1).all(|(opcode, ..)| *opcode == Data::Continue));
            assert_eq!(frames[0].0, Data::Text);
        }
    }
}
