//! A live query of a JSON socket: its reply with the rows that there are, then a message for each change.

use std::{
    mem::{self, size_of},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
};

use mesh::{Code, Fault};
use query::{Error, Node, Operation, Options, Read, Shape, Value};
use tokio::sync::watch;

use super::message::{self, Head, LiveQueryRequest, Query};
use crate::{
    Service,
    edge::Caller,
    http::{Ticket, guarded},
    live::{FeedMessage, FeedOptions, FeedRow, Hold, InitialRows, RowFeed, Subscriber},
    plan::{RequestPlanner, TableRef},
    socket::{self, AnswerSlot, Closing, Outgoing},
};

/// Bytes of collected rows that are counted at once.
const COUNT_STEP: usize = 64 * 1024;

/// A live query that has begun.
struct Begun {
    feed: RowFeed,
    /// The rows that there are: a JSON array.
    docs: Vec<u8>,
    /// Bytes that the live query holds besides those.
    held: usize,
}

/// Live queries of one socket that run, and the last of them that has ended by itself. Clones are of the same socket.
#[derive(Clone, Default)]
pub struct SocketQueries {
    running: Arc<()>,
    ended: Arc<Mutex<Option<(String, Closing)>>>,
}

impl SocketQueries {
    /// Whether others run than the one that has this clone, besides the session's own.
    fn has_others(&self) -> bool {
        Arc::strong_count(&self.running) > 2
    }

    /// The client knows that the live query `id` has ended.
    pub fn acknowledge(&self, id: &str) {
        self.ended().take_if(|(ended, _)| ended == id);
    }

    /// How the connection ends where no live query runs any more: clients to which the end of one says nothing connect again,
    /// and are told why by the reply then.
    pub fn closing(&self) -> Option<Closing> {
        self.ended().take().map(|(_, closing)| closing)
    }

    fn ended(&self) -> MutexGuard<'_, Option<(String, Closing)>> {
        self.ended.lock().expect("no code panics while it holds this lock")
    }
}

/// A live query that runs.
pub struct LiveSubscription {
    /// All of its socket.
    pub queries: SocketQueries,
    /// The gateway.
    pub service: Service,
    /// The project's id.
    pub project: String,
    /// The id of the request that opened the socket.
    pub request_id: Arc<str>,
    /// Queues to the client.
    pub outgoing: Outgoing,
    /// What it holds in memory.
    pub hold: Hold,
    /// Of the message that began it.
    pub head: Head,
    /// How its client names it.
    pub query: Query,
    /// What it asks for.
    pub subscription: Box<LiveQueryRequest>,
}

impl LiveQueryRequest {
    /// Approximate bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.find.memory_bytes() + self.db_type.len() + self.token.len()
    }
}

impl LiveSubscription {
    /// Answers its client until it is dropped, refused or ended. Why the connection ends, where it does.
    pub async fn run(mut self) -> Option<Closing> {
        let draining = self.service.tasks().draining().clone();
        draining.run_until_cancelled(Box::pin(self.serve())).await.flatten()
    }

    async fn serve(&mut self) -> Option<Closing> {
        // A client that takes nothing has no more read for it.
        drop(self.outgoing.slot(0).await?);
        let token = self.subscription.token.clone();
        let caller = socket::caller(&self.service, &self.project, &self.request_id, token);
        let begun = guarded(&caller.call, pin!(self.begin(&caller))).await.unwrap_or_else(Err);
        let slot = self.outgoing.slot(0).await?;
        let Begun { mut feed, docs, held } = match begun {
            Ok(begun) => begun,
            Err(fault) => {
                self.refuse(slot, &fault).await;
                return None;
            }
        };
        let reply = self.head.begun(&self.query, &docs);
        drop(docs);
        let sent = match self.hold.resize(held) {
            // From here on they count as an answer that its client has not taken.
            Ok(()) => slot.send(reply).await.map(drop),
            Err(fault) => Err((slot, fault)),
        };
        if let Err((slot, fault)) = sent {
            self.refuse(slot, &fault).await;
            return None;
        }
        let fault = self.follow(&mut feed).await?;
        self.end(&mut feed, &fault).await
    }

    /// Tells that it has ended, while others of the socket go on. How the connection ends, where it does.
    async fn end(&mut self, feed: &mut RowFeed, fault: &Fault) -> Option<Closing> {
        let closing = Closing::ended(fault);
        // What passes may be gone on with over another connection, and the others will not be served either.
        if matches!(fault.code, Code::Unavailable | Code::Deadline) || !self.queries.has_others() {
            return Some(closing);
        }
        if may_not_read(fault.code) {
            // Clients that do not know what follows keep none of the rows.
            for row in feed.take_away() {
                match self.tell(&row).await {
                    Ok(told) => told?,
                    Err(_) => return Some(closing),
                }
            }
        }
        let text = self.head.ended(&self.query, fault);
        let slot = self.outgoing.slot(0).await?;
        *self.queries.ended() = Some((self.query.id.clone(), closing));
        // Until that is written, its client may mean this one by its id.
        slot.refuse(text).done().await;
        None
    }

    /// Begins the feed, and collects the rows that there are, which count as memory of the live query.
    async fn begin(&mut self, caller: &Caller) -> Result<Begun, Fault> {
        let mut feed = self.feed(caller).await?;
        let (held, mut counted) = (self.hold.bytes(), 0);
        let mut docs = b"[".to_vec();
        loop {
            match feed.next().await? {
                FeedMessage::Row(row) => {
                    if docs.len() > 1 {
                        docs.push(b',');
                    }
                    message::write_row(&mut docs, &self.query, &self.subscription.db_type, &row);
                }
                FeedMessage::Void => docs.truncate(1),
                FeedMessage::Ready => break,
            }
            if docs.len() > counted {
                counted = docs.len().next_multiple_of(COUNT_STEP);
                self.hold.resize(held + counted)?;
            }
        }
        docs.push(b']');
        Ok(Begun { feed, docs, held })
    }

    async fn feed(&mut self, caller: &Caller) -> Result<RowFeed, Fault> {
        // It is needed no more once it is planned.
        let find = mem::replace(&mut self.subscription.find, Value::Null);
        let kept_bytes = self.subscription.memory_bytes();
        let LiveQueryRequest { db_type, skip_initial, token, .. } = &*self.subscription;
        let table = self.query.group.as_str();
        let initial = if *skip_initial { InitialRows::Skipped } else { InitialRows::Collected };
        let ticket = Ticket::new(self.service.admission());
        ticket.enter().await?;
        let mut planner = RequestPlanner::begin(&self.service, caller, (&*self.project).into()).await?;
        let table_ref = TableRef { project: &self.project, database: db_type, table };
        let planned = planner
            .plan(table_ref, Operation::Read, |parser, table, budget| {
                let filter = parser.filter(table, &find, budget)?;
                let node = parser.node(table, &Options::default(), budget)?;
                Ok::<_, Error>((Node { shape: Shape::Many, filter, ..node }, table.identity().map_or(0, <[_]>::len)))
            })
            .await?;
        drop((ticket, find));
        let (node, key_columns) = planned.plan;
        let read = Read { database: planned.database, table: table.into(), node };
        self.hold.resize(kept_bytes + read.memory_bytes())?;
        let rows = RowFeed::watched(read);
        // Nobody renews the token: the sender is dropped.
        let (_, token) = watch::channel(token.clone());
        let subscriber = Subscriber { caller: self.hold.caller(), request_id: self.request_id.clone(), token };
        let watch = Box::pin(self.service.live().watch(&planned.project, rows, subscriber)).await?;
        let options = FeedOptions { key_columns, initial };
        Ok(RowFeed::new(watch, options, self.hold.beside()?))
    }

    /// Tells each change. The fault that ends it; `None` where the socket is closed.
    async fn follow(&self, feed: &mut RowFeed) -> Option<Fault> {
        loop {
            let row = match feed.next().await {
                Ok(FeedMessage::Row(row)) => row,
                Ok(FeedMessage::Ready | FeedMessage::Void) => continue,
                Err(fault) => return Some(fault),
            };
            match self.tell(&row).await {
                Ok(told) => told?,
                Err(fault) => return Some(fault),
            }
        }
    }

    /// Tells a change; `None` where the socket is closed.
    async fn tell(&self, row: &FeedRow) -> Result<Option<()>, Fault> {
        let text = message::feed(&self.query, &self.subscription.db_type, row);
        let Some(slot) = self.outgoing.slot_for(text.len()).await? else { return Ok(None) };
        slot.send(text).await.map(|_| Some(())).map_err(|(_, fault)| fault)
    }

    /// Tells that there is no live query, and waits until that is written: until then it has its id.
    async fn refuse(&self, slot: AnswerSlot, fault: &Fault) {
        let error = super::error_text(fault, !self.subscription.token.is_empty());
        let text = self.head.refused(&self.query, error);
        let written = match slot.send(text.clone()).await {
            Ok(written) => written,
            Err((slot, _)) => slot.refuse(text),
        };
        written.done().await;
    }
}

/// Whether a live query that ends by this code ends since its caller may not read the rows any more.
fn may_not_read(code: Code) -> bool {
    matches!(
        code,
        Code::Denied
            | Code::TokenExpired
            | Code::Unauthenticated
            | Code::UnknownProject
            | Code::UnknownDatabase
            | Code::UnknownTable
    )
}
