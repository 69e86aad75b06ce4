//! Connection pool: one caller at a time, for transactions, snapshots, writes and statements not known to be short.

use std::{
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    connection::Connection,
    connector::{Callers, Connector},
    error::PostgresError,
};

/// A connection that was not needed for this long is closed when another comes back.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Pool of a limited number of connections. Who waits is served in order; the wait ends with the caller.
pub struct Pool {
    /// Makes its connections.
    pub connector: Arc<Connector>,
    permits: Arc<Semaphore>,
    idle: Arc<IdleConnections>,
    /// Done once there is a task that closes them when the node stops.
    closing: Once,
    stop: CancellationToken,
    /// Ends that task.
    _end: DropGuard,
}

/// The last one used is at the end: it is taken first, its caches are warm.
type IdleConnections = Mutex<Vec<Idle>>;

struct Idle {
    connection: Arc<Connection>,
    since: Instant,
}

/// A connection leased from the pool until this is dropped.
pub struct ConnectionLease {
    pool: Arc<Pool>,
    /// Present until the drop.
    held: Option<(Arc<Connection>, OwnedSemaphorePermit)>,
    /// Decides what the drop does.
    state: State,
}

/// Protocol state of a leased connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing: the next may have it.
    Clean,
    /// A transaction: it is rolled back.
    Open,
    /// A statement whose answer is not here: it is cancelled, and the connection given up.
    Busy,
    /// Nothing can be sent any more.
    Broken,
}

impl Pool {
    /// A pool of at most `max` connections; none is opened yet.
    pub fn new(connector: Arc<Connector>, max: usize) -> Self {
        let stop = connector.tasks.stop().child_token();
        let permits = Arc::new(Semaphore::new(max.max(1)));
        Self { connector, permits, idle: Arc::default(), closing: Once::new(), _end: stop.clone().drop_guard(), stop }
    }

    /// Leases a connection, an open one if there is any.
    pub async fn lease(self: &Arc<Self>) -> Result<ConnectionLease, PostgresError> {
        let permit = self.permit().await;
        let open = loop {
            match self.idle().pop() {
                Some(idle) if idle.connection.is_closed() => {}
                open => break open,
            }
        };
        match open {
            Some(idle) => Ok(self.lend(idle.connection, permit)),
            None => Ok(self.lend(self.connect().await?, permit)),
        }
    }

    /// Leases a new connection, for who found an open one dead. The others that are open are as old: they are closed.
    pub async fn lease_new(self: &Arc<Self>) -> Result<ConnectionLease, PostgresError> {
        let permit = self.permit().await;
        self.idle().clear();
        Ok(self.lend(self.connect().await?, permit))
    }

    async fn connect(&self) -> Result<Arc<Connection>, PostgresError> {
        self.closing.call_once(|| {
            let (idle, stop) = (Arc::downgrade(&self.idle), self.stop.clone());
            // Nobody drives them who would see the stop.
            self.connector.tasks.spawn("postgres pool", async move {
                stop.cancelled().await;
                if let Some(idle) = idle.upgrade() {
                    idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
            });
        });
        self.connector.connect(Callers::One).await.map(Arc::new)
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        self.permits.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    fn lend(self: &Arc<Self>, connection: Arc<Connection>, permit: OwnedSemaphorePermit) -> ConnectionLease {
        ConnectionLease { pool: self.clone(), held: Some((connection, permit)), state: State::Clean }
    }

    fn put_back(&self, connection: Arc<Connection>) {
        let mut idle = self.idle();
        if self.connector.tasks.stop().is_cancelled() {
            return;
        }
        let stale = idle.iter().take_while(|idle| idle.since.elapsed() > IDLE_TIMEOUT).count();
        idle.drain(..stale);
        idle.push(Idle { connection, since: Instant::now() });
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionLease {
    /// The connection. What is sent over it is sent in [`ConnectionLease::run`].
    pub fn connection(&self) -> Arc<Connection> {
        match &self.held {
            Some((connection, _)) => connection.clone(),
            None => unreachable!("a lease holds its connection until it is dropped"),
        }
    }

    /// Waits for `work` over the connection, which is in the middle of `after` then; or broken, if it failed for good.
    pub async fn run<T>(
        &mut self,
        after: State,
        work: impl Future<Output = Result<T, PostgresError>>,
    ) -> Result<T, PostgresError> {
        self.state = State::Busy;
        let connection = self.connection();
        let result = connection.during(work).await;
        self.state = match &result {
            Err(PostgresError::Refused(_)) => State::Busy,
            Err(failure) if failure.is_fatal() => State::Broken,
            Ok(_) | Err(_) => after,
        };
        result
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        let Some((connection, permit)) = self.held.take() else { return };
        match self.state {
            State::Clean if !connection.is_closed() => self.pool.put_back(connection),
            State::Open if !connection.is_closed() => {
                // Polled once, it is sent; the server answers in order, so the next caller comes after it.
                let _ = connection.command("ROLLBACK").now_or_never();
                connection.send();
                self.pool.put_back(connection);
            }
            State::Busy => self.pool.connector.cancel(connection.cancellation(), permit),
            State::Clean | State::Open | State::Broken => {}
        }
    }
}
