//! Connector: from a URL to connections.

use std::{sync::Arc, time::Duration};

use mesh::tasks::Tasks;
use tokio::sync::OnceCell;
use tokio_postgres::{
    Client, Config,
    config::{Host, SslMode},
};
use tokio_util::sync::CancellationToken;

use super::{
    batch::Batched,
    connection::{Cancellation, Connection, Drive},
    driver::{Driver, Driving},
    error::{PostgresError, chain},
    pooler::{self, SessionTransactions},
    tls::{Tls, TlsConnector},
};
use crate::store::identifier;

/// How long connecting may take, name look-up and log-in included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How many times the statements of a connection that was given up are cancelled, [`CANCEL_INTERVAL`] apart.
const CANCEL_ATTEMPTS: usize = 100;
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// Makes connections to one database of one server, as one role.
pub struct Connector {
    pub(super) config: Config,
    /// Set on every connection, so that casts to text do not depend on how the server or the role is set up. Names mean
    /// what they mean to everybody else, but for the schema that is served: operators of types may be anywhere.
    pub(super) session: String,
    /// The same, in each transaction.
    transactions: Arc<SessionTransactions>,
    /// Whether a pooler shares the server's connections between sessions.
    shared: OnceCell<bool>,
    pub(super) tls: TlsConnector,
    pub(super) tasks: Tasks,
}

impl Connector {
    /// A connector for `url`, with the parameters of libpq:
    /// `postgres://user:password@host:port/name?sslmode=verify-full`.
    ///
    /// `sslmode` is `disable`, `prefer` (the default), `require` (encrypted, whoever the server is, as in libpq),
    /// `verify-ca` or `verify-full` (both check certificate and name, against the PEM file in `sslrootcert`, or else
    /// the system's certificates).
    ///
    /// Errors: what is wrong with it, without its password.
    pub fn parse(url: &str, schema: &str, tasks: &Tasks) -> Result<Self, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("the url does not start with postgres://".to_owned());
        }
        let (url, is_shared) = pooler::split(url)?;
        let (url, tls) = Tls::split(&url)?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| chain(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("the url names no host".to_owned());
        }
        // A socket of this machine has no TLS, whatever is asked for: as in libpq.
        let is_socket = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let mode = if is_socket && config.get_hostaddrs().is_empty() { Some(SslMode::Disable) } else { tls.mode };
        if let Some(mode) = mode {
            config.ssl_mode(mode);
        }
        config.connect_timeout(CONNECT_TIMEOUT).keepalives(true).keepalives_idle(Duration::from_secs(30));
        if config.get_application_name().is_none() {
            config.application_name("perigee");
        }
        Ok(Self {
            config,
            session: settings(schema, Lifetime::Session),
            transactions: Arc::new(SessionTransactions::new(&settings(schema, Lifetime::Transaction))),
            shared: OnceCell::new_with(is_shared),
            tls: tls.connector()?,
            tasks: tasks.clone(),
        })
    }

    /// Whether a pooler is known to share the server's connections between sessions.
    pub fn is_shared(&self) -> bool {
        self.shared.get() == Some(&true)
    }

    /// Makes a new connection for this kind of callers.
    pub async fn connect(&self, callers: Callers) -> Result<Connection, PostgresError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(self.dial(callers))).await {
            Ok(connection) => connection,
            Err(_) => Err(PostgresError::Connect(format!("no connection within {CONNECT_TIMEOUT:?}"))),
        }
    }

    /// Cancels what still runs on a connection that was given up, in a task of its own that keeps `held` until then.
    ///
    /// A cancellation ends one statement; others may be queued behind it, so it is repeated until the connection
    /// closes.
    pub fn cancel(&self, ending: Cancellation, held: impl Send + 'static) {
        // Outside of the runtime, where nothing more is served, the end of the connection has to be enough.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (tls, stop) = (self.tls.clone(), self.tasks.stop().clone());
        self.tasks.spawn("postgres cancel", async move {
            let cancelling = async {
                for _ in 0..CANCEL_ATTEMPTS {
                    // One that fails finds the server gone, or is followed by the next.
                    let cancelled = ending.cancel.cancel_query(tls.clone());
                    let _ = tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(cancelled)).await;
                    tokio::time::sleep(CANCEL_INTERVAL).await;
                }
                // Others may have its place.
                drop(held);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = ending.drive.ended() => {}
                () = cancelling => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn dial(&self, callers: Callers) -> Result<Connection, PostgresError> {
        let (client, driving) = self.open().await?;
        let drive = match callers {
            Callers::One => Drive::Caller(Arc::new(Driver::new(driving))),
            Callers::Many => Drive::Task(self.drive(Batched::new(driving))),
        };
        let is_shared = self.shared.get_or_try_init(|| async {
            let Ok((other, driving)) = self.open().await else { return Err(None) };
            let other_driver = Driver::new(driving);
            let asked = Box::pin(pooler::is_shared(&client, &other));
            let is_shared = drive.during(other_driver.during(asked)).await.map_err(Some)?;
            if is_shared {
                tracing::info!(
                    "sessions of the database share connections: each statement is a transaction of its own"
                );
            }
            Ok::<_, Option<PostgresError>>(is_shared)
        });
        let is_shared = match is_shared.await {
            Ok(is_shared) => *is_shared,
            // A server that has no second connection for us has no pooler before it, as far as that shows; it is asked
            // again with the next connection.
            Err(None) => false,
            Err(Some(error)) => return Err(error),
        };
        if is_shared {
            return Ok(Connection::new(client, drive, Some(self.transactions.clone())));
        }
        drive.during(client.batch_execute(&self.session)).await.map_err(unreachable)?;
        Ok(Connection::new(client, drive, None))
    }

    /// A connection without settings, and its work.
    async fn open(&self) -> Result<(Client, Driving), PostgresError> {
        let (client, driving) = Box::pin(self.config.connect(self.tls.clone())).await.map_err(unreachable)?;
        Ok((client, Box::pin(driving)))
    }

    /// Drives a connection in a task of its own; what fires when it is closed.
    fn drive(&self, driving: Batched<Driving>) -> CancellationToken {
        let stop = self.tasks.stop().clone();
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        self.tasks.spawn("postgres connection", async move {
            let _end = end;
            if let Some(Err(error)) = stop.run_until_cancelled(driving).await {
                tracing::debug!(error = chain(&error), "connection to the database ended");
            }
        });
        ended
    }
}

/// How many callers use a connection at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// One, who sends and receives.
    One,
    /// Many: what they send in one turn of the runtime is written together.
    Many,
}

/// The server, the database and the role that `url` names, the same for the same ones; `None` where it is not valid.
pub fn target(url: &str) -> Option<String> {
    let (url, _) = pooler::split(url).ok()?;
    let (url, _) = Tls::split(&url).ok()?;
    let config: Config = url.parse().ok()?;
    let ports = match config.get_ports() {
        [] => &[5432],
        ports => ports,
    };
    let server = (config.get_hosts(), config.get_hostaddrs(), ports, config.get_target_session_attrs());
    let (user, database) = (config.get_user(), config.get_dbname().or(config.get_user()));
    Some(format!("{:?}", (server, database, user, config.get_options())))
}

/// How long settings hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Session,
    Transaction,
}

/// The statements that make the settings, with `schema` before the schemas that names are looked up in.
fn settings(schema: &str, lifetime: Lifetime) -> String {
    let (set, is_local) = match lifetime {
        Lifetime::Session => ("SET", false),
        Lifetime::Transaction => ("SET LOCAL", true),
    };
    format!(
        "{set} TIME ZONE 'UTC'; {set} DateStyle TO 'ISO, MDY'; {set} IntervalStyle TO postgres; \
         {set} bytea_output TO hex; {set} extra_float_digits TO 1; {set} search_path TO DEFAULT; \
         SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', {}, \
             NULLIF(pg_catalog.current_setting('search_path'), '')), {is_local})",
        literal(&identifier(schema))
    )
}

/// The error of a connection that was not made.
fn unreachable(error: tokio_postgres::Error) -> PostgresError {
    match error.code() {
        // The server is there, and has no room.
        Some(code) if code.code().starts_with("53") => error.into(),
        Some(_) | None => PostgresError::Connect(chain(&error)),
    }
}

/// A text as a literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(url: &str) -> String {
        match Connector::parse(url, "public", &Tasks::default()) {
            Ok(_) => panic!("{url} is refused"),
            Err(fault) => fault,
        }
    }

    #[test]
    fn faults_of_a_url_are_named_without_its_password() {
        for url in ["postgres://ann:hunter2@db:port/shop", "postgres://ann:hunter2@db/shop?what=1", "postgres:///shop"]
        {
            let fault = fault(url);
            assert!(!fault.contains("hunter2") && !fault.is_empty(), "{fault}");
        }
        assert!(fault("postgres://db/shop?sslmode=always").contains("sslmode always is not known"));
        assert!(fault("host=db sslmode=require").contains("postgres://"));
        assert!(fault("postgres://db/shop?sslmode=verify-full&sslrootcert=/nowhere.pem").contains("/nowhere.pem"));
    }
}
