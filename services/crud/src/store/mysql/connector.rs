//! Connector: from a URL to connections.

use std::time::Duration;

use mesh::tasks::Tasks;
use mysql_async::{Conn, Opts, OptsBuilder, prelude::Queryable};

use super::{
    error::MysqlError,
    tls::{Fallback, MysqlTls},
};

/// How long connecting may take, name look-up and log-in included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the server is asked to end a connection that was given up, [`KILL_INTERVAL`] apart.
const KILL_ATTEMPTS: usize = 100;
const KILL_INTERVAL: Duration = Duration::from_millis(50);
/// Prepared statements kept on one connection; each costs memory of the server.
const CACHE_CAPACITY: usize = 256;

/// Set on every connection, so that nothing depends on how the server is set up: names in double quotes, texts and times
/// as they are sent, messages in the language in which they are read here, and no value that is cut to fit its column.
/// Each statement sees what is committed when it begins. Long texts are sorted by 64 KiB, of which sorts need 15 times as
/// much room for each of their keys.
const SESSION: &str = "\
SET NAMES utf8mb4 COLLATE utf8mb4_bin; \
SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,STRICT_TRANS_TABLES,\
ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_IN_DATE,NO_ZERO_DATE,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', \
time_zone = '+00:00', lc_messages = 'en_US', autocommit = 1, sql_safe_updates = 0, sql_select_limit = DEFAULT, \
sql_auto_is_null = 0, completion_type = NO_CHAIN, max_sort_length = 65536, \
sort_buffer_size = greatest(@@sort_buffer_size, 16777216); \
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// Makes connections to one database of one server, as one user.
pub struct MysqlConnector {
    opts: Opts,
    /// Without TLS, where the URL leaves that to the server.
    plain: Option<Opts>,
    pub(super) tasks: Tasks,
}

impl MysqlConnector {
    /// A connector for `url`: `mysql://user:password@host:port/name?ssl-mode=verify_identity`, or with
    /// `socket=/path` in the place of the host.
    ///
    /// `ssl-mode` is `disabled`, `preferred` (the default), `required` (encrypted, whoever the server is), `verify_ca` or
    /// `verify_identity` (both check certificate and name, against the PEM file in `ssl-ca`, or else the system's
    /// certificates).
    ///
    /// Errors: what is wrong with it, without its password.
    pub fn parse(url: &str, tasks: &Tasks) -> Result<Self, String> {
        let rest = url.strip_prefix("mysql://").or_else(|| url.strip_prefix("mariadb://"));
        let rest = rest.ok_or_else(|| "the url does not start with mysql://".to_owned())?;
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut tls, mut socket) = (MysqlTls::default(), None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("socket", path)) if path.starts_with('/') => socket = Some(path.to_owned()),
                Some((name, value)) if tls.take(name, value)? => {}
                Some((name, _)) => {
                    return Err(format!("parameter {name} is not known; expected ssl-mode, ssl-ca or socket"));
                }
                None => return Err(format!("parameter {parameter} has no value")),
            }
        }
        // The driver's errors may quote the URL, with its password.
        let opts = Opts::from_url(&format!("mysql://{address}")).map_err(|_| "the url is malformed".to_owned())?;
        if opts.db_name().is_none_or(str::is_empty) {
            return Err("the url names no database".to_owned());
        }
        if opts.ip_or_hostname().is_empty() && socket.is_none() {
            return Err("the url names no host".to_owned());
        }
        let is_socket = socket.is_some();
        let builder = OptsBuilder::from_opts(opts)
            .socket(socket)
            .prefer_socket(false)
            .client_found_rows(true)
            .stmt_cache_size(CACHE_CAPACITY)
            .tcp_keepalive(Some(Duration::from_secs(30)));
        // A socket of this machine has no TLS, whatever is asked for.
        let (ssl, fallback) = if is_socket { (None, Fallback::None) } else { tls.options()? };
        let plain = (fallback == Fallback::Plain).then(|| Opts::from(builder.clone()));
        Ok(Self { opts: builder.ssl_opts(ssl).into(), plain, tasks: tasks.clone() })
    }

    /// Makes a new connection.
    pub async fn connect(&self) -> Result<Conn, MysqlError> {
        let connected = async {
            let mut conn = self.dial().await?;
            conn.query_drop(SESSION).await?;
            Ok::<_, mysql_async::Error>(conn)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(connected)).await {
            Ok(connected) => connected.map_err(MysqlError::connecting),
            Err(_) => Err(MysqlError::Connect(format!("no connection within {CONNECT_TIMEOUT:?}"))),
        }
    }

    async fn dial(&self) -> Result<Conn, mysql_async::Error> {
        use mysql_async::{DriverError, Error};
        match (Conn::new(self.opts.clone()).await, &self.plain) {
            (Err(Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plain)) => Conn::new(plain.clone()).await,
            (dialled, _) => dialled,
        }
    }

    /// Ends a connection that was given up, with what still runs on it, in a task of its own that keeps `held` until then.
    ///
    /// The connection as a whole, not its statement: that one may have ended meanwhile, and nothing may be left of its
    /// transaction.
    pub fn kill(&self, conn: Conn, held: impl Send + 'static) {
        // Outside of the runtime, where nothing more is served, the end of the connection has to be enough.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (opts, plain) = (self.opts.clone(), self.plain.clone());
        let killer = Self { opts, plain, tasks: self.tasks.clone() };
        self.tasks.spawn("mysql kill", async move {
            for _ in 0..KILL_ATTEMPTS {
                if killer.kill_once(conn.id()).await {
                    break;
                }
                tokio::time::sleep(KILL_INTERVAL).await;
            }
            drop((conn, held));
        });
    }

    /// Whether the server answered that the connection is ended, or not there.
    async fn kill_once(&self, id: u32) -> bool {
        let kill = async {
            // A server without room for one more connection says so, and ends nothing.
            let Ok(mut other) = self.dial().await else { return false };
            let killed = other.query_drop(format!("KILL CONNECTION {id}")).await;
            // The server closes it as well.
            let _ = other.disconnect().await;
            matches!(killed, Ok(()) | Err(mysql_async::Error::Server(_)))
        };
        tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(kill)).await.unwrap_or(false)
    }

    /// Rolls the transaction of an idle connection back, and gives it to `done`; `None` where that fails.
    pub fn roll_back(&self, mut conn: Conn, done: impl FnOnce(Option<Conn>) + Send + 'static) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.tasks.spawn("mysql rollback", async move {
            let ended = tokio::time::timeout(CONNECT_TIMEOUT, conn.query_drop("ROLLBACK")).await;
            done(matches!(ended, Ok(Ok(()))).then_some(conn));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(url: &str) -> String {
        match MysqlConnector::parse(url, &Tasks::default()) {
            Ok(_) => panic!("{url} is refused"),
            Err(fault) => fault,
        }
    }

    #[test]
    fn faults_of_a_url_are_named_without_its_password() {
        for (url, expected) in [
            ("mysql://ann:hunter2@db:port/shop", "malformed"),
            ("mysql://ann:hunter2@db/shop?what=1", "parameter what is not known"),
            ("mysql://ann:hunter2@db/shop?ssl-mode=always", "ssl-mode always is not known"),
            ("mysql://ann:hunter2@db/shop?ssl-mode=verify_ca&ssl-ca=/nowhere.pem", "/nowhere.pem"),
            ("mysql://ann:hunter2@db", "names no database"),
            ("postgres://ann:hunter2@db/shop", "mysql://"),
        ] {
            let fault = fault(url);
            assert!(!fault.contains("hunter2") && fault.contains(expected), "{fault}");
        }
    }

    #[test]
    fn a_url_names_server_database_and_user() {
        let connector = MysqlConnector::parse("mariadb://ann:a%40b@db.example:3307/shop", &Tasks::default()).unwrap();
        let opts = &connector.opts;
        assert_eq!((opts.ip_or_hostname(), opts.tcp_port(), opts.db_name()), ("db.example", 3307, Some("shop")));
        assert_eq!((opts.user(), opts.pass()), (Some("ann"), Some("a@b")));
        assert!(opts.ssl_opts().is_some() && connector.plain.is_some());
        let socket = MysqlConnector::parse("mysql://ann@localhost/shop?socket=/run/s", &Tasks::default()).unwrap();
        assert!(socket.opts.socket() == Some("/run/s") && socket.opts.ssl_opts().is_none());
    }
}
