//! Connection pool: one caller at a time.

use std::{
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use mysql_async::Conn;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{connector::MysqlConnector, error::MysqlError};

/// A connection that was not needed for this long is closed when another comes back.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Pool of a limited number of connections. Who waits is served in order; the wait ends with the caller.
pub struct MysqlPool {
    pub(super) connector: Arc<MysqlConnector>,
    permits: Arc<Semaphore>,
    idle: Arc<IdleConns>,
    /// Done once there is a task that closes them when the node stops.
    closing: Once,
    stop: CancellationToken,
    /// Ends that task.
    _end: DropGuard,
}

/// The last one used is at the end: it is taken first, its caches are warm.
type IdleConns = Mutex<Vec<IdleConn>>;

struct IdleConn {
    conn: Conn,
    since: Instant,
}

/// A connection leased from the pool until this is dropped.
pub struct ConnLease {
    pool: Arc<MysqlPool>,
    /// Present until the drop.
    held: Option<(Conn, OwnedSemaphorePermit)>,
    /// Decides what the drop does.
    state: ConnState,
}

/// Protocol state of a leased connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnState {
    /// Nothing: the next may have it.
    Clean,
    /// A transaction: it is rolled back.
    Open,
    /// A statement whose answer is not here: the server ends it with the connection.
    Busy,
    /// Nothing can be sent any more.
    Broken,
}

impl MysqlPool {
    /// A pool of at most `max` connections; none is opened yet.
    pub fn new(connector: Arc<MysqlConnector>, max: usize) -> Arc<Self> {
        let stop = connector.tasks.stop().child_token();
        let permits = Arc::new(Semaphore::new(max.max(1)));
        let (idle, closing, end) = (Arc::default(), Once::new(), stop.clone().drop_guard());
        Arc::new(Self { connector, permits, idle, closing, stop, _end: end })
    }

    /// Leases a connection, an open one if there is any.
    pub async fn lease(self: &Arc<Self>) -> Result<ConnLease, MysqlError> {
        let permit = self.permit().await;
        let open = self.idle().pop();
        match open {
            Some(idle) => Ok(self.lend(idle.conn, permit)),
            None => Ok(self.lend(self.connect().await?, permit)),
        }
    }

    /// Leases a new connection, for who found an open one dead. The others that are open are as old: they are closed.
    pub async fn lease_new(self: &Arc<Self>) -> Result<ConnLease, MysqlError> {
        let permit = self.permit().await;
        self.clear();
        Ok(self.lend(self.connect().await?, permit))
    }

    /// Closes the connections that nobody uses.
    pub fn clear(&self) {
        close(&self.idle);
    }

    async fn connect(&self) -> Result<Conn, MysqlError> {
        self.closing.call_once(|| {
            let (idle, stop) = (Arc::downgrade(&self.idle), self.stop.clone());
            // Nobody uses them who would see the stop.
            self.connector.tasks.spawn("mysql pool", async move {
                stop.cancelled().await;
                idle.upgrade().iter().for_each(|idle| close(idle));
            });
        });
        self.connector.connect().await
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        self.permits.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    fn lend(self: &Arc<Self>, conn: Conn, permit: OwnedSemaphorePermit) -> ConnLease {
        ConnLease { pool: self.clone(), held: Some((conn, permit)), state: ConnState::Clean }
    }

    fn put_back(&self, conn: Conn) {
        let mut idle = self.idle();
        if self.stop.is_cancelled() {
            return;
        }
        let stale = idle.iter().take_while(|idle| idle.since.elapsed() > IDLE_TIMEOUT).count();
        let stale: Vec<IdleConn> = idle.drain(..stale).collect();
        idle.push(IdleConn { conn, since: Instant::now() });
        drop(idle);
        drop(stale);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<IdleConn>> {
        locked(&self.idle)
    }
}

fn close(idle: &IdleConns) {
    // What they say to the server is not said under the lock.
    let closed = std::mem::take(&mut *locked(idle));
    drop(closed);
}

fn locked(idle: &IdleConns) -> MutexGuard<'_, Vec<IdleConn>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnLease {
    /// Waits for `work` over the connection, which is in the middle of `after` then; or broken, if it failed for good.
    pub async fn run<'c, T, E: AsRef<MysqlError>>(
        &'c mut self,
        after: ConnState,
        work: impl FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, E>>,
    ) -> Result<T, E> {
        let Self { held: Some((conn, _)), state, .. } = self else {
            unreachable!("a lease holds its connection until it is dropped")
        };
        *state = ConnState::Busy;
        let result = work(conn).await;
        *state = match &result {
            Err(failure) if failure.as_ref().leaves_answers() => ConnState::Busy,
            Err(failure) if failure.as_ref().is_fatal() => ConnState::Broken,
            // Whatever it was in the middle of, a commit as well.
            Err(_) => ConnState::Open,
            Ok(_) => after,
        };
        result
    }
}

impl Drop for ConnLease {
    fn drop(&mut self) {
        let Some((conn, permit)) = self.held.take() else { return };
        match self.state {
            ConnState::Clean => self.pool.put_back(conn),
            ConnState::Open => {
                let pool = self.pool.clone();
                self.pool.connector.roll_back(conn, move |conn| {
                    conn.into_iter().for_each(|conn| pool.put_back(conn));
                    drop(permit);
                });
            }
            ConnState::Busy => self.pool.connector.kill(conn, permit),
            ConnState::Broken => {}
        }
    }
}
