//! Database of the queue: SQLite or PostgreSQL, which are asked by the same statements but for a few words.

use std::{borrow::Cow, future::Future, io, time::Duration};

use sqlx::{
    Arguments, AssertSqlSafe, Database, Encode, FromRow, PgPool, Postgres, Sqlite, SqlitePool, Transaction, Type,
    postgres::PgRow, sqlite::SqliteRow,
};

/// Time of a statement, after which its connection is given up: the server may have gone without a word.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A pool of connections.
#[derive(Debug, Clone)]
pub enum Store {
    /// A file.
    Sqlite(SqlitePool),
    /// A server that nodes share.
    Postgres(PgPool),
}

/// A transaction; dropped, it is rolled back.
pub enum StoreTransaction {
    /// On a file: it has the right to write from its beginning.
    Sqlite(Transaction<'static, Sqlite>),
    /// On a server.
    Postgres(Transaction<'static, Postgres>),
}

/// A statement with parameters. Its text is made of literals only.
#[derive(Debug, Default)]
pub struct Statement<'v> {
    text: String,
    parameters: Vec<Parameter<'v>>,
}

/// A parameter of a statement.
#[derive(Debug)]
pub enum Parameter<'v> {
    /// A number.
    Integer(Option<i64>),
    /// A text.
    Text(Option<Cow<'v, str>>),
    /// Bytes.
    Bytes(Option<&'v [u8]>),
}

/// A row of both databases.
pub trait StoredRow: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> StoredRow for T {}

impl<'v> Statement<'v> {
    /// A statement that begins with `text`.
    pub fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), parameters: Vec::new() }
    }

    /// Appends a literal.
    pub fn push(mut self, text: &'static str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends a parameter.
    pub fn bind(mut self, value: impl Into<Parameter<'v>>) -> Self {
        self.parameters.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.parameters.len().to_string());
        self
    }

    /// Appends rows of parameters in brackets, with commas between.
    pub fn rows<const N: usize>(mut self, rows: impl IntoIterator<Item = [Parameter<'v>; N]>) -> Self {
        for (index, row) in rows.into_iter().enumerate() {
            self = self.push(if index == 0 { "(" } else { "), (" });
            for (column, value) in row.into_iter().enumerate() {
                self = if column == 0 { self } else { self.push(", ") }.bind(value);
            }
        }
        self.push(")")
    }
}

impl From<i64> for Parameter<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Parameter<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl<'v> From<&'v str> for Parameter<'v> {
    fn from(value: &'v str) -> Self {
        Self::Text(Some(Cow::Borrowed(value)))
    }
}

impl From<String> for Parameter<'_> {
    fn from(value: String) -> Self {
        Self::Text(Some(Cow::Owned(value)))
    }
}

impl<'v> From<&'v [u8]> for Parameter<'v> {
    fn from(value: &'v [u8]) -> Self {
        Self::Bytes(Some(value))
    }
}

impl<'v> From<Option<&'v [u8]>> for Parameter<'v> {
    fn from(value: Option<&'v [u8]>) -> Self {
        Self::Bytes(value)
    }
}

impl Store {
    /// Begins a transaction that writes.
    pub async fn begin(&self) -> Result<StoreTransaction, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => within(pool.begin_with("BEGIN IMMEDIATE")).await.map(StoreTransaction::Sqlite),
            Self::Postgres(pool) => within(pool.begin()).await.map(StoreTransaction::Postgres),
        }
    }

    /// Runs a statement by itself; how many rows it concerned.
    pub async fn execute(&self, statement: Statement<'_>) -> Result<u64, sqlx::Error> {
        let Statement { text, parameters } = statement;
        match self {
            Self::Sqlite(pool) => {
                let query = sqlx::query_with::<Sqlite, _>(AssertSqlSafe(text), arguments::<Sqlite>(parameters)?);
                Ok(within(query.execute(pool)).await?.rows_affected())
            }
            Self::Postgres(pool) => {
                let query = sqlx::query_with::<Postgres, _>(AssertSqlSafe(text), arguments::<Postgres>(parameters)?);
                Ok(within(query.execute(pool)).await?.rows_affected())
            }
        }
    }

    /// The rows of a statement by itself.
    pub async fn rows<T: StoredRow>(&self, statement: Statement<'_>) -> Result<Vec<T>, sqlx::Error> {
        let Statement { text, parameters } = statement;
        match self {
            Self::Sqlite(pool) => {
                let arguments = arguments::<Sqlite>(parameters)?;
                within(sqlx::query_as_with::<Sqlite, T, _>(AssertSqlSafe(text), arguments).fetch_all(pool)).await
            }
            Self::Postgres(pool) => {
                let arguments = arguments::<Postgres>(parameters)?;
                within(sqlx::query_as_with::<Postgres, T, _>(AssertSqlSafe(text), arguments).fetch_all(pool)).await
            }
        }
    }

    /// What ends a selection of rows that are about to be changed: rows that others change are left out.
    pub fn skip_locked(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "",
            Self::Postgres(_) => " FOR UPDATE SKIP LOCKED",
        }
    }
}

impl StoreTransaction {
    /// Runs a statement; how many rows it concerned.
    pub async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, sqlx::Error> {
        let Statement { text, parameters } = statement;
        match self {
            Self::Sqlite(transaction) => {
                let query = sqlx::query_with::<Sqlite, _>(AssertSqlSafe(text), arguments::<Sqlite>(parameters)?);
                Ok(within(query.execute(&mut **transaction)).await?.rows_affected())
            }
            Self::Postgres(transaction) => {
                let query = sqlx::query_with::<Postgres, _>(AssertSqlSafe(text), arguments::<Postgres>(parameters)?);
                Ok(within(query.execute(&mut **transaction)).await?.rows_affected())
            }
        }
    }

    /// The rows of a statement.
    pub async fn rows<T: StoredRow>(&mut self, statement: Statement<'_>) -> Result<Vec<T>, sqlx::Error> {
        let Statement { text, parameters } = statement;
        match self {
            Self::Sqlite(transaction) => {
                let query = sqlx::query_as_with::<Sqlite, T, _>(AssertSqlSafe(text), arguments::<Sqlite>(parameters)?);
                within(query.fetch_all(&mut **transaction)).await
            }
            Self::Postgres(transaction) => {
                let arguments = arguments::<Postgres>(parameters)?;
                let query = sqlx::query_as_with::<Postgres, T, _>(AssertSqlSafe(text), arguments);
                within(query.fetch_all(&mut **transaction)).await
            }
        }
    }

    /// Waits until no other transaction decides which event of an order key comes next: each has to see what the other did.
    pub async fn lock_order(&mut self) -> Result<(), sqlx::Error> {
        match self {
            // One transaction writes at a time.
            Self::Sqlite(_) => {}
            Self::Postgres(_) => {
                let lock = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema()::text, 1))";
                self.execute(Statement::new(lock)).await?;
            }
        }
        Ok(())
    }

    /// Tells other nodes of new events, once they are durable.
    pub async fn notify(&mut self, payload: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(_) => {}
            Self::Postgres(_) => {
                let notify = Statement::new("SELECT pg_notify(current_schema()::text, ").bind(payload).push(")");
                self.execute(notify).await?;
            }
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(transaction) => within(transaction.commit()).await,
            Self::Postgres(transaction) => within(transaction.commit()).await,
        }
    }
}

/// What `work` comes to, within the time of a statement.
pub fn within<T>(
    work: impl Future<Output = Result<T, sqlx::Error>> + Send,
) -> impl Future<Output = Result<T, sqlx::Error>> + Send {
    let work = Box::pin(work);
    async move {
        match tokio::time::timeout(STATEMENT_TIMEOUT, work).await {
            Ok(done) => done,
            Err(_) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())),
        }
    }
}

fn arguments<D: Database>(parameters: Vec<Parameter<'_>>) -> Result<D::Arguments, sqlx::Error>
where
    Option<i64>: for<'t> Encode<'t, D> + Type<D>,
    Option<String>: for<'t> Encode<'t, D> + Type<D>,
    for<'b> Option<&'b [u8]>: Encode<'b, D> + Type<D>,
{
    let mut arguments = D::Arguments::default();
    for parameter in parameters {
        match parameter {
            Parameter::Integer(value) => arguments.add(value),
            Parameter::Text(value) => arguments.add(value.map(Cow::into_owned)),
            Parameter::Bytes(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
