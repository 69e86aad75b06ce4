//! Feeds: what the log tells of one table, kept for a while in a ring that all watches of the table read.
//!
//! A watch has a cursor into the ring. One that is so slow that what it reads next has left the ring is told so, and costs
//! nobody else anything. One whose rows memory decides on joins a group, which knows the entries that concern it.

mod groups;
mod ring;

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use futures::FutureExt;
use mesh::{
    Call, Code, Fault, Mesh, Tasks,
    follow::{self, Feed, SharedFeeds},
};
use proto::{
    Links,
    crud::{LogRequest, Snapshot},
};
use tokio::sync::watch;

use self::{
    groups::{Group, Known, Mark, Member},
    ring::{FeedState, Ring},
};
use crate::{Error, row_rights::RowRights, table_id::TableId};

pub use self::{
    groups::Decided,
    ring::{Entry, Happened, TransactionPart},
};

/// Feeds by table, as long as a watch reads them.
#[derive(Clone)]
pub struct Feeds {
    mesh: Mesh,
    shared: SharedFeeds<TableId, Ring>,
}

/// What a watch reads next of a feed.
pub struct Cursor {
    ring: watch::Receiver<Ring>,
    /// Number of the next entry.
    next: u64,
    /// Where others read the same, while this is a feed of its own.
    others: Option<(Feeds, TableId)>,
    /// The group whose entries it takes.
    member: Option<Member>,
    /// The rights of the group that it joins where others read the same.
    rights: Option<Arc<RowRights>>,
}

/// What a cursor came to.
pub enum Taken {
    /// The next entry that may concern the watch, and what its group decided of it.
    Entry(Arc<Entry>, Option<Arc<Decided>>),
    /// The next entry is not kept any more.
    Overflow,
}

impl Feed for Ring {
    fn failed(&mut self, fault: Fault) {
        self.state = FeedState::Failed(fault);
        self.groups.wake();
    }
}

impl Feeds {
    /// Feeds over `mesh`.
    pub fn new(mesh: Mesh, tasks: Tasks) -> Self {
        Self { mesh, shared: SharedFeeds::new(tasks) }
    }

    /// A cursor at what happens to `table` from now on.
    pub fn now(&self, table: &TableId) -> Cursor {
        let (ring, _) = self.shared.read(table, Ring::new(Bytes::new()), |ring| self.follow(table, ring));
        let next = ring.borrow().end();
        Cursor::new(ring, next, None)
    }

    /// A cursor at what happened to `table` after a position of its log. Where the feed that others read does not keep it, it
    /// has a feed of its own until it has come so far.
    pub fn after(&self, table: &TableId, log: &Bytes) -> Cursor {
        let (ring, is_new) = self.shared.read(table, Ring::new(log.clone()), |ring| self.follow(table, ring));
        let found = if is_new { Some(0) } else { ring.borrow().after(log) };
        match found {
            Some(next) => Cursor::new(ring, next, None),
            None => {
                let ring = self.shared.read_alone(Ring::new(log.clone()), |ring| self.follow(table, ring));
                Cursor::new(ring, 0, Some((self.clone(), table.clone())))
            }
        }
    }

    /// Keeps in `ring` what the log tells of a table. Returns why that ends for good.
    fn follow(&self, table: &TableId, ring: Arc<watch::Sender<Ring>>) -> impl Future<Output = Fault> + Send + use<> {
        let (mesh, table) = (self.mesh.clone(), table.clone());
        async move {
            let open = || {
                let request = LogRequest {
                    project: table.project.as_ref().to_owned(),
                    database: table.database.as_ref().to_owned(),
                    tables: vec![table.table.as_ref().to_owned()],
                    after: ring.borrow().position().clone(),
                    complete: false,
                };
                let mesh = mesh.clone();
                async move { Box::pin(mesh.crud().log(&Call::begin(None, None, None), request)).await }.boxed()
            };
            let told = |message| {
                let mut kept = Ok(());
                ring.send_modify(|ring| kept = ring.push(message));
                kept.map_err(tonic::Status::from)
            };
            follow::stream(&table, open, told).await
        }
    }
}

impl Cursor {
    fn new(ring: watch::Receiver<Ring>, next: u64, others: Option<(Feeds, TableId)>) -> Self {
        Self { ring, next, others, member: None, rights: None }
    }

    /// Takes entries from now on only where they concern a watch with these rights; those of its group are returned.
    pub fn join(&mut self, rights: &Arc<RowRights>) -> Arc<RowRights> {
        if self.others.is_some() {
            // Nobody shares this feed.
            self.rights = Some(rights.clone());
            return rights.clone();
        }
        // Under the lock of the ring nothing comes between.
        let ring = self.ring.borrow();
        let member = ring.groups.join(rights, ring.end());
        drop(ring);
        let joined = member.group.rights.clone();
        self.member = Some(member);
        joined
    }

    /// Waits until the log has started: what a snapshot does not see that is read then is told after it. Errors: it cannot
    /// be followed.
    pub async fn live(&mut self) -> Result<(), Error> {
        let ring = self.ring.wait_for(|ring| !matches!(ring.state, FeedState::Connecting)).await;
        match ring.as_deref().map(|ring| &ring.state) {
            Ok(FeedState::Failed(fault)) => Err(fault.clone().into()),
            Ok(FeedState::Live | FeedState::Connecting) => Ok(()),
            Err(_) => Err(stopped().into()),
        }
    }

    /// Why changes may have been missed right after where it is, where they may.
    pub fn gap(&self) -> Option<&'static str> {
        match &self.ring.borrow().entry(self.next)?.happened {
            Happened::Resync(reason) => Some(reason),
            Happened::Changes(_) => None,
        }
    }

    /// Waits until there is something to take. Cancel safe. Errors: nothing will come any more.
    pub async fn changed(&mut self) -> Result<(), Error> {
        loop {
            let group = self.group();
            let mut news = pin!(group.as_ref().map(|group| group.news()));
            if let Some(news) = news.as_mut().as_pin_mut() {
                // What comes from here on is not missed.
                news.enable();
            }
            {
                let ring = self.ring.borrow_and_update();
                let is_there = match &group {
                    Some(group) => !matches!(group.next(self.next), Known::Nothing),
                    None => self.next < ring.end(),
                };
                match &ring.state {
                    _ if is_there => return Ok(()),
                    FeedState::Failed(fault) => return Err(fault.clone().into()),
                    FeedState::Live | FeedState::Connecting => {}
                }
            }
            match news.as_mut().as_pin_mut() {
                Some(news) => news.await,
                None if self.ring.changed().await.is_err() => return Err(stopped().into()),
                None => {}
            }
        }
    }

    /// Its group, where that knows what concerns the watch.
    fn group(&self) -> Option<Arc<Group>> {
        self.member.as_ref().filter(|member| self.next >= member.from).map(|member| member.group.clone())
    }

    /// Takes the next entry that may concern the watch, where it is there.
    pub fn take(&mut self) -> Option<Taken> {
        let taken = self.take_next();
        if let Some(Taken::Entry(entry, _)) = &taken {
            self.join_others(entry);
        }
        taken
    }

    /// Goes on with the feed that others read, where that tells what follows `entry`: a feed of its own costs the memory of a
    /// ring.
    fn join_others(&mut self, entry: &Entry) {
        let Some((feeds, table)) = &self.others else { return };
        let is_within = matches!(&entry.happened, Happened::Changes(part) if part.before == entry.after);
        if is_within || self.next < self.ring.borrow().end() {
            return;
        }
        let Some(ring) = feeds.shared.read_shared(table) else { return };
        let found = ring.borrow().after(&entry.after);
        if let Some(next) = found {
            let rights = self.rights.take();
            *self = Self::new(ring, next, None);
            rights.iter().for_each(|rights| drop(self.join(rights)));
        }
    }

    fn take_next(&mut self) -> Option<Taken> {
        let ring = self.ring.borrow_and_update();
        if let Some(member) = &mut self.member
            && self.next >= member.from
        {
            match member.group.next(self.next) {
                Known::Next(Mark { number, decided }) => {
                    let entry = ring.entry(number);
                    self.next = if entry.is_some() { number + 1 } else { ring.end() };
                    return Some(entry.map_or(Taken::Overflow, |entry| Taken::Entry(entry, decided)));
                }
                Known::Nothing => {
                    self.next = ring.end();
                    return None;
                }
                Known::From(number) => member.from = number,
            }
        }
        if let Some(entry) = ring.entry(self.next) {
            self.next += 1;
            return Some(Taken::Entry(entry, None));
        }
        let is_behind = self.next < ring.end();
        self.next = ring.end();
        is_behind.then_some(Taken::Overflow)
    }

    /// Whether something was told that a snapshot does not see.
    pub fn has_unseen(&self, snapshot: &Snapshot) -> bool {
        self.ring.borrow().has_unseen(snapshot)
    }

    /// Goes to what happens from now on; returns what is kept of before.
    pub fn kept(&mut self) -> Vec<Arc<Entry>> {
        let ring = self.ring.borrow_and_update();
        self.next = ring.end();
        ring.entries().cloned().collect()
    }
}

fn stopped() -> Fault {
    Fault::new(Code::Unavailable, "the node stops")
}
