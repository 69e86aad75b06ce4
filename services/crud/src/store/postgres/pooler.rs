//! Poolers that hand each transaction to any of their connections to the server, such as pgbouncer in transaction mode.
//!
//! Behind them nothing of a session holds beyond its transaction: each statement goes without a name, in a transaction
//! that makes the settings of its session.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio_postgres::Client;

use super::error::PostgresError;

/// How long a session may take to say what it was set to. Longer, it waits for a connection that another has.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Setting of a session that is looked for in another. Any role may make settings of such names.
const PROBE: &str = "SELECT pg_catalog.current_setting('perigee.session', true)";

/// Transactions that make the settings of a session.
#[derive(Debug)]
pub struct SessionTransactions {
    /// Begins a read-only snapshot.
    pub snapshot: String,
    /// Begins a transaction that may write.
    pub write: String,
}

/// Kind of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionKind {
    /// A read-only snapshot.
    Snapshot,
    /// It may write.
    Write,
}

impl TransactionKind {
    /// The statement that begins it.
    pub fn begin(self) -> &'static str {
        match self {
            TransactionKind::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            TransactionKind::Write => "BEGIN",
        }
    }
}

impl SessionTransactions {
    /// Transactions with `settings`.
    pub fn new(settings: &str) -> Self {
        let begin = |kind: TransactionKind| format!("{}; {settings}", kind.begin());
        Self { snapshot: begin(TransactionKind::Snapshot), write: begin(TransactionKind::Write) }
    }

    /// The statement that begins a transaction.
    pub fn begin(&self, kind: TransactionKind) -> &str {
        match kind {
            TransactionKind::Snapshot => &self.snapshot,
            TransactionKind::Write => &self.write,
        }
    }
}

/// Whether two new sessions of one database share connections of the server: whether what one was set to is seen by the
/// other, or not seen by itself while the other is in a transaction.
pub async fn is_shared(one: &Client, other: &Client) -> Result<bool, PostgresError> {
    let token = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    one.batch_execute(&format!("SET perigee.session TO '{token}'")).await?;
    other.batch_execute("BEGIN").await?;
    let is_seen = setting(other).await? == token;
    let own = match is_seen {
        true => Ok(Ok(token.clone())),
        false => tokio::time::timeout(PROBE_TIMEOUT, setting(one)).await,
    };
    other.batch_execute("COMMIT").await?;
    match own {
        Ok(own) => Ok(is_seen || own? != token),
        Err(_) => Ok(true),
    }
}

async fn setting(client: &Client) -> Result<String, PostgresError> {
    let rows = client.query_typed(PROBE, &[]).await?;
    Ok(rows.first().and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_default())
}

/// Takes `pgbouncer` out of the URL: whether sessions share connections, where it says so.
///
/// Errors: what is wrong with it.
pub fn split(url: &str) -> Result<(String, Option<bool>), String> {
    let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let mut is_shared = None;
    let mut kept = Vec::new();
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("pgbouncer", "true")) => is_shared = Some(true),
            Some(("pgbouncer", "false")) => is_shared = Some(false),
            Some(("pgbouncer", other)) => {
                return Err(format!("invalid pgbouncer: expected true or false, found {other}"));
            }
            _ => kept.push(parameter),
        }
    }
    Ok((if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) }, is_shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_whether_sessions_share_connections() {
        let url = |text: &str| text.to_owned();
        assert_eq!(split("postgres://db/shop"), Ok((url("postgres://db/shop"), None)));
        assert_eq!(split("postgres://db/shop?pgbouncer=true"), Ok((url("postgres://db/shop"), Some(true))));
        let with_others = split("postgres://db/shop?sslmode=require&pgbouncer=false&a=b");
        assert_eq!(with_others, Ok((url("postgres://db/shop?sslmode=require&a=b"), Some(false))));
        assert!(split("postgres://db/shop?pgbouncer=1").unwrap_err().contains("expected true or false, found 1"));
    }

    #[test]
    fn transactions_make_the_settings_of_a_session() {
        let transactions = SessionTransactions::new("SET LOCAL a TO b");
        assert_eq!(transactions.begin(TransactionKind::Write), "BEGIN; SET LOCAL a TO b");
        assert!(transactions.begin(TransactionKind::Snapshot).starts_with(TransactionKind::Snapshot.begin()));
    }
}
