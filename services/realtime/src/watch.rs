//! One watch: the messages of a caller, one after the other, made when they are taken.

mod sending;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use mesh::{Call, Code, Fault, clock, follow::Retries};
use proto::{
    Links,
    crud::{ReadRequest, Snapshot},
    realtime::{WatchRequest, WatchResponse},
};
use query::Read;
use tokio::time::Instant;
use tonic::Status;

use self::sending::{HeldRows, Sending};
use crate::{
    Error,
    feed::{Cursor, Entry, Happened, Taken},
    image::Image,
    plan::Plan,
    position::{self, Position},
    reread::Reread,
    rights::{Decision, Rights},
    rules::{self, Revisions, RulesState},
    schemas::Refresh,
    shared::Shared,
};

/// Time that a read or an authorisation may take.
const CALL_TIME: Duration = Duration::from_secs(20);
/// Time until a token is looked at again that has expired by the clock here, and is valid for auth-rules still.
const EXPIRED_INTERVAL: Duration = Duration::from_secs(1);
/// Back-off after a call that nobody could answer; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A grant is asked for anew when it is void, or will be before a read with it begins.
const GRANT_MARGIN_MS: i64 = 1000;

/// A watch. Dropped, it ends.
pub struct Watch {
    shared: Arc<Shared>,
    request_id: Arc<str>,
    plan: Plan,
    rights: Rights,
    revisions: Revisions,
    /// When the token is looked at again.
    expires: Option<Instant>,
    /// What is to be done before the next message.
    next: Next,
    following: Following,
    sending: Sending,
    /// Messages so far after which a watch begins anew.
    anew: u64,
    /// Columns of images that were found to be those of the plan.
    columns: Option<Arc<[String]>>,
    retries: Retries,
}

/// What a watch does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Tell what happens.
    Tell,
    /// Ask for the rights again, then the rest.
    Authorize(Then),
    /// Look at the schema again.
    Plan,
    /// Read the rows that there are.
    Begin(Beginning),
}

/// What follows an authorisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Tell,
    Begin(Beginning),
}

/// Why rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// The watch begins, with the rows that there are.
    First,
    /// The watch begins, without them.
    Skip,
    /// For this reason, which is told.
    Resync(&'static str),
}

/// What a watch follows.
enum Following {
    /// Nothing yet.
    Nothing,
    /// The log of its table.
    Log(Box<Follow>),
    /// The answers of the database.
    Reread(Box<Reread>),
}

/// A log that is followed.
struct Follow {
    cursor: Cursor,
    /// What the rows that were read saw, also for positions.
    snapshot: Snapshot,
    seen: Bytes,
    /// What the log told before the read, which did not see it.
    unseen: VecDeque<Arc<Entry>>,
    /// The transaction at the beginning that was told in part before, and how many of its steps.
    resumed: (u64, u64),
    /// Whether something was taken.
    has_begun: bool,
}

impl Watch {
    /// Begins a watch, once that is authorised.
    pub async fn begin(shared: Arc<Shared>, call: &Call, mut request: WatchRequest) -> Result<Self, Error> {
        let after = std::mem::take(&mut request.after);
        // Seen before the first authorisation: what comes later is authorised again.
        let revisions = shared.rules.subscribe();
        let described = shared.schemas.of(call, &request.project, &request.read.database, Refresh::No).await?;
        let plan = Plan::of(request, described.schema)?;
        let rights = shared.rights(call, &plan).await?;
        let begins = if plan.request.skip_initial { Beginning::Skip } else { Beginning::First };
        let mut watch = Self {
            request_id: call.request_id.clone(),
            expires: expires(&rights),
            revisions,
            rights,
            plan,
            shared,
            next: Next::Begin(begins),
            following: Following::Nothing,
            sending: Sending::Nothing,
            anew: 0,
            columns: None,
            retries: Retries::new(RETRY_FIRST, RETRY_MAX),
        };
        if after.is_empty() {
            watch.read_anew(call, begins).await?;
        } else {
            watch.resume(call, &after).await?;
        }
        Ok(watch)
    }

    /// The next message. An error ends the watch.
    pub async fn message(&mut self) -> Result<WatchResponse, Error> {
        // A watch that always has a message gives others a turn.
        tokio::task::consume_budget().await;
        loop {
            self.look_at_rights()?;
            if self.next != Next::Tell {
                let call = self.call();
                match Box::pin(self.prepare(&call)).await {
                    Ok(()) => self.retries.succeeded(),
                    Err(error) => self.wait_after(error).await?,
                }
            } else if let Some(message) = self.next_message()? {
                return Ok(message);
            } else if self.sending.is_something() {
                tokio::task::yield_now().await;
            } else if self.next == Next::Tell {
                Box::pin(self.follow()).await?;
            }
        }
    }

    fn call(&self) -> Call {
        Call::begin(Some(&self.request_id), None, Some(CALL_TIME))
    }

    /// Notes whether the rights have to be asked for again.
    fn look_at_rights(&mut self) -> Result<(), Error> {
        let is_other = self.revisions.has_changed().unwrap_or(true);
        if is_other && *self.revisions.borrow_and_update() == RulesState::Lost {
            return Err(Fault::new(Code::Unavailable, "changes of rules cannot be followed now").into());
        }
        let is_expired = self.expires.is_some_and(|expires| Instant::now() >= expires);
        let is_void = match self.next {
            Next::Begin(_) => is_void(&self.rights),
            Next::Tell => self.sending.is_something() && is_void(&self.rights),
            Next::Authorize(_) | Next::Plan => false,
        };
        if is_other || is_expired || is_void {
            self.next = match self.next {
                Next::Tell => Next::Authorize(Then::Tell),
                Next::Begin(beginning) => Next::Authorize(Then::Begin(beginning)),
                // They lead to an authorisation.
                next @ (Next::Authorize(_) | Next::Plan) => next,
            };
        }
        Ok(())
    }

    /// Does what comes before the next message.
    async fn prepare(&mut self, call: &Call) -> Result<(), Error> {
        match self.next {
            Next::Tell => Ok(()),
            Next::Authorize(then) => self.authorize(call, then).await,
            Next::Plan => self.plan_anew(call).await,
            Next::Begin(beginning) => self.read_anew(call, beginning).await,
        }
    }

    /// Waits before what failed is tried again. Errors: it is not, or was for long enough.
    async fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        let wait = if error.may_pass() { self.retries.failed() } else { None };
        let Some(wait) = wait else { return Err(error) };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Asks for the rights again. Where they are others, the watch begins anew.
    async fn authorize(&mut self, call: &Call, then: Then) -> Result<(), Error> {
        let is_expired = self.rights.granted.token_expires.is_some_and(|expires| Instant::now() >= expires);
        let rights = match self.shared.rights(call, &self.plan).await {
            Err(error) if is_expired && error.is_unauthenticated() => return Err(Error::TokenExpired),
            other => other?,
        };
        if is_void(&rights) {
            // Another one would be asked for at once.
            return Err(
                Fault::new(Code::Unavailable, "grants are void as they come: the clocks of nodes differ").into()
            );
        }
        let is_same = rights.fingerprint == self.rights.fingerprint;
        (self.expires, self.rights) = (expires(&rights), rights);
        self.next = match then {
            Then::Tell if is_same => Next::Tell,
            Then::Tell => Next::Begin(Beginning::Resync("rules")),
            Then::Begin(beginning) => Next::Begin(beginning),
        };
        Ok(())
    }

    /// Looks at the schema again, which has other columns than the images of rows. Where it is another, the watch is planned
    /// anew; else the images are older than it, and what they lack is lost.
    async fn plan_anew(&mut self, call: &Call) -> Result<(), Error> {
        let WatchRequest { project, read, .. } = &self.plan.request;
        let described = self.shared.schemas.of(call, project, &read.database, Refresh::Yes).await?;
        let is_same = described.schema.table(&read.table)? == self.plan.table()?;
        let reason = if is_same { "log_lost" } else { "position" };
        self.plan = Plan::of(self.plan.request.clone(), described.schema)?;
        self.columns = None;
        self.next = Next::Authorize(Then::Begin(Beginning::Resync(reason)));
        Ok(())
    }

    /// Goes on after a position that a client kept, or begins anew where that is not possible.
    async fn resume(&mut self, call: &Call, after: &str) -> Result<(), Error> {
        let position = self.shared.sealer.parse(self.rights.fingerprint, after);
        let snapshot = position.as_ref().and_then(|position| position::decoded(&position.seen));
        let (Some(position), Some(snapshot), Decision::Memory(_)) = (position, snapshot, &self.rights.decision) else {
            return self.read_anew(call, Beginning::Resync("position")).await;
        };
        let mut cursor = self.shared.feeds.after(&self.plan.table_id(), &position.log);
        cursor.live().await?;
        if let Some(reason) = cursor.gap() {
            return self.read_anew(call, Beginning::Resync(reason)).await;
        }
        let fingerprint = self.rights.fingerprint;
        self.renew(call).await?;
        if self.rights.fingerprint != fingerprint {
            return self.read_anew(call, Beginning::Resync("position")).await;
        }
        // The caller may read what is told: nothing else is asked.
        self.read(call, ReadKind::Check).await?;
        let resumed = (position.transaction, position.step);
        self.join(&mut cursor);
        let (seen, unseen) = (position.seen.clone(), VecDeque::new());
        let follow = Follow { cursor, snapshot, seen, unseen, resumed, has_begun: false };
        self.following = Following::Log(Box::new(follow));
        self.sending = Sending::ready(self.shared.sealer.follow(self.rights.fingerprint, &position));
        self.next = Next::Tell;
        Ok(())
    }

    /// Reads the rows that there are, and follows what happens from then on.
    async fn read_anew(&mut self, call: &Call, beginning: Beginning) -> Result<(), Error> {
        let kind = if beginning == Beginning::Skip { ReadKind::Check } else { ReadKind::Rows };
        let (rows, position) = match &self.rights.decision {
            Decision::Memory(_) => self.read_and_follow(call, kind).await?,
            Decision::Database(_) => {
                let reread = Box::new(Reread::begin(&self.shared, &self.plan, &self.rights).await?);
                self.renew(call).await?;
                let Rows { rows, snapshot, .. } = self.read(call, ReadKind::Rows).await?;
                let kept = self.shared.memory.hold(rows.bytes())?;
                let reread = reread.reading(&self.rights, (&rows.rows, kept), &snapshot)?;
                self.following = Following::Reread(Box::new(reread));
                (rows, Bytes::new())
            }
        };
        let rows = (kind == ReadKind::Rows).then_some(rows);
        let ready = self.position_after(position);
        let reason = match beginning {
            Beginning::First | Beginning::Skip => None,
            Beginning::Resync(reason) => {
                self.shared.mesh.metrics().live_resync(reason);
                Some(reason)
            }
        };
        self.sending = Sending::rows(reason, rows, ready);
        self.next = Next::Tell;
        Ok(())
    }

    /// Reads rows, and follows the log from before the read.
    async fn read_and_follow(&mut self, call: &Call, kind: ReadKind) -> Result<(HeldRows, Bytes), Error> {
        let mut cursor = self.shared.feeds.now(&self.plan.table_id());
        cursor.live().await?;
        self.renew(call).await?;
        if let Decision::Database(_) = &self.rights.decision {
            return Err(Fault::new(Code::Unavailable, "the rules changed meanwhile; try again").into());
        }
        // What the log told before may be told by a server that has not made it visible yet.
        let kept = cursor.kept();
        let Rows { rows, snapshot, position } = self.read(call, kind).await?;
        // The rest is let go: what is older than the read may leave the ring while the rows are taken.
        let unseen = kept.into_iter().filter(|entry| entry.is_unseen(&snapshot)).collect();
        self.join(&mut cursor);
        let seen = position::encoded(&snapshot);
        let follow = Follow { cursor, snapshot, seen, unseen, resumed: (0, 0), has_begun: false };
        self.following = Following::Log(Box::new(follow));
        Ok((rows, position))
    }

    /// Takes only what concerns the watch. Watches that are told the same have one copy of their rights.
    fn join(&mut self, cursor: &mut Cursor) {
        if let Decision::Memory(rights) = &mut self.rights.decision {
            *rights = cursor.join(rights);
            self.rights.told = rights.told.clone();
        }
    }

    /// Asks for the rights again where the wait for a log took so long that the grants are void.
    async fn renew(&mut self, call: &Call) -> Result<(), Error> {
        if is_void(&self.rights) {
            let rights = self.shared.rights(call, &self.plan).await?;
            (self.expires, self.rights) = (expires(&rights), rights);
        }
        Ok(())
    }

    async fn read(&self, call: &Call, kind: ReadKind) -> Result<Rows, Error> {
        let mut read: Read = self.plan.snapshot(&self.rights.told);
        if kind == ReadKind::Check {
            read.node.limit = Some(1);
        }
        let _turn = self.shared.reads.acquire().await;
        let request = ReadRequest {
            project: self.plan.request.project.clone(),
            database: self.plan.request.read.database.clone(),
            reads: vec![read],
            grants: self.rights.granted.grants.clone(),
            answer_bytes: self.shared.answer_bytes,
            snapshot: true,
        };
        let response = self.shared.mesh.crud().read(call, request).await.map_err(|status| self.unread(status))?;
        let [answer] = response.answers.as_slice() else { return Err(Error::Unreadable("no answer".to_owned())) };
        let hold = self.shared.memory.hold(answer.json.len())?;
        let rows = Image::rows(&answer.json)?;
        let seen = response.seen.unwrap_or_default();
        let snapshot = seen.snapshot.ok_or_else(|| Error::Unreadable("no snapshot".to_owned()))?;
        Ok(Rows { rows: HeldRows { rows, hold }, snapshot, position: seen.position })
    }

    /// The error of a read. A watch cannot be told to ask for fewer rows by a limit.
    fn unread(&self, status: Status) -> Error {
        let fault = Fault::from(status);
        if fault.code != Code::TooLarge {
            return fault.into();
        }
        let table = &self.plan.request.read.table;
        let text =
            format!("{table} has too many rows to be told: narrow where, or begin without the rows that there are");
        Fault::new(Code::TooLarge, text).into()
    }

    /// Waits for what happens next.
    async fn follow(&mut self) -> Result<(), Error> {
        let expires = self.expires;
        let expired = async {
            match expires {
                Some(expires) => tokio::time::sleep_until(expires).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match &mut self.following {
                Following::Nothing => std::future::pending().await,
                Following::Log(follow) if !follow.unseen.is_empty() => Ok(()),
                Following::Log(follow) => follow.cursor.changed().await,
                Following::Reread(reread) => reread.changed().await,
            }
        };
        tokio::select! {
            changed = changed => {
                changed?;
                self.take().await
            }
            // These are looked at before the next message.
            () = expired => Ok(()),
            () = rules::changed(&self.revisions) => Ok(()),
        }
    }

    /// Takes what has happened.
    async fn take(&mut self) -> Result<(), Error> {
        if let Following::Reread(_) = &self.following {
            return self.read_again().await;
        }
        let Following::Log(follow) = &mut self.following else { return Ok(()) };
        let unseen = follow.unseen.pop_front().map(|entry| Taken::Entry(entry, None));
        let (entry, decided) = match unseen.or_else(|| follow.cursor.take()) {
            Some(Taken::Entry(entry, decided)) => (entry, decided),
            Some(Taken::Overflow) => {
                self.next = Next::Begin(Beginning::Resync("overflow"));
                return Ok(());
            }
            None => return Ok(()),
        };
        match &entry.happened {
            Happened::Resync(reason) => self.next = Next::Begin(Beginning::Resync(reason)),
            Happened::Changes(part) if follow.snapshot.sees(part.id) => {}
            Happened::Changes(part) => {
                // What follows has positions of its own.
                if part.told == 0 && std::mem::replace(&mut follow.has_begun, true) {
                    follow.resumed = (0, 0);
                }
                self.sending = Sending::part(entry, decided);
            }
        }
        Ok(())
    }

    /// Reads the rows again and tells in what they differ.
    async fn read_again(&mut self) -> Result<(), Error> {
        if is_void(&self.rights) {
            self.next = Next::Authorize(Then::Tell);
            return Ok(());
        }
        let Following::Reread(reread) = &mut self.following else { return Ok(()) };
        let seen = reread.take(&self.rights);
        let call = self.call();
        let read = match self.read(&call, ReadKind::Rows).await {
            Ok(read) => read,
            Err(error) => {
                if let Following::Reread(reread) = &mut self.following {
                    reread.failed(seen);
                }
                return self.wait_after(error).await;
            }
        };
        self.retries.succeeded();
        if let Following::Reread(reread) = &mut self.following {
            let HeldRows { rows, hold } = read.rows;
            self.sending = Sending::events(reread.differences(&self.rights, (&rows, hold), &read.snapshot, seen)?);
        }
        Ok(())
    }

    /// The position of READY after rows that were read.
    fn position_after(&mut self, log: Bytes) -> String {
        let fingerprint = self.rights.fingerprint;
        match log.is_empty() {
            true => self.anew_position(),
            false => self.shared.sealer.follow(fingerprint, &Position::after(log)),
        }
    }

    /// The position of a message after which a watch begins anew.
    fn anew_position(&mut self) -> String {
        self.anew += 1;
        self.shared.sealer.anew(self.rights.fingerprint, self.anew)
    }
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadKind {
    /// All rows.
    Rows,
    /// As little as shows that they may be read.
    Check,
}

/// Rows that were read, and what that saw.
struct Rows {
    rows: HeldRows,
    snapshot: Snapshot,
    position: Bytes,
}

/// Whether a grant is void, or nearly so.
fn is_void(rights: &Rights) -> bool {
    let now_ms = clock::unix_ms(SystemTime::now());
    rights.granted.terms.iter().any(|terms| terms.expires_ms < now_ms + GRANT_MARGIN_MS)
}

/// When a token is looked at again.
fn expires(rights: &Rights) -> Option<Instant> {
    let now = Instant::now();
    let expires = rights.granted.token_expires?;
    Some(if expires > now { expires } else { now + EXPIRED_INTERVAL })
}
