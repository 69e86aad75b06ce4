//! Interface between the compiler and the drivers: statements in, rows out.

use std::sync::Arc;

use query::Type;

use crate::{
    Error, Introspected,
    bind::{Bind, Stored},
    budget::{Budget, Room},
    cell::{Cell, Key, KeyForm},
    error::StatementError,
    neighbour::Neighbour,
    operand::ArgSource,
};

pub mod diagnosis;
pub mod log;
pub mod mysql;
pub mod postgres;
pub mod sqlite;

/// Arguments that one statement of SQLite may have.
pub const SQLITE_ARGS: usize = 32_766;
/// Arguments that one statement of PostgreSQL may have.
pub const POSTGRES_ARGS: usize = 65_535;
/// Arguments that one statement of MariaDB may have.
pub const MYSQL_ARGS: usize = 65_535;

/// Statements of one text from which on they are merged, by engines that can.
pub const MERGED_FROM: usize = 4;

/// Functions of SQLite's connections that give a stored value of a type the form in which it is read, and compared: the
/// form that this server writes.
pub const SQLITE_FORMS: [(Type, &str); 6] = [
    (Type::Bool, "perigee_bool"),
    (Type::Bytes, "perigee_bytes"),
    (Type::Date, "perigee_date"),
    (Type::Time, "perigee_time"),
    (Type::Timestamp, "perigee_timestamp"),
    (Type::Uuid, "perigee_uuid"),
];
/// Function of SQLite's connections that gives a base64 text its bytes, and another value itself.
pub const SQLITE_BLOB: &str = "perigee_blob";

/// Function of SQLite's connections that gives the day before that of a moment or day, as a text that is not greater than
/// any text of that day in another zone.
pub const SQLITE_DAY_BEFORE: &str = "perigee_day_before";
/// As [`SQLITE_DAY_BEFORE`], for what is greater than all of them.
pub const SQLITE_DAY_AFTER: &str = "perigee_day_after";

/// Where Debian, Red Hat, SUSE, Alpine and the BSDs keep the certificates of those they trust.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// A name as an identifier of SQL, in quotes.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A compiled statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// SQL text; equal operations of different callers have equal text, so drivers cache by it.
    pub text: Arc<str>,
    /// Values for its placeholders, in order.
    pub args: Vec<Bind>,
    /// Types of its result columns, in order; empty for a statement without rows.
    pub columns: Arc<[Output]>,
    /// The source of each argument, for a read or an insert that may be prepared; empty for others.
    pub sources: Vec<ArgSource>,
    /// The same statement on values as they are stored; `None` where they are compared as such anyway.
    pub plain: Option<PlainStatement>,
}

/// A statement that compares values as they are stored, with the arguments of another that compares the forms in which
/// they are read. It uses indexes, and is right where all values of its columns are stored in that form.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainStatement {
    /// SQL text.
    pub text: Arc<str>,
    /// The columns.
    pub columns: Arc<[FormedColumn]>,
}

/// A column of a table whose values may be stored in other forms than the one in which they are read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FormedColumn {
    /// Name of the table.
    pub table: String,
    /// Name of the column.
    pub column: String,
    /// SQL function that gives a stored value its form.
    pub function: &'static str,
}

/// Type of a result column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// The column's type.
    pub r#type: Type,
    /// Digits after the point of a decimal, where its declaration says so: an engine that does not keep them pads.
    pub scale: Option<u8>,
}

/// An open database.
///
/// The futures of a server are some kilobytes, those of a file a few words: the former are boxed, so that the futures
/// above are small on both.
#[derive(Debug, Clone)]
pub enum Store {
    /// A file.
    Sqlite(sqlite::Sqlite),
    /// A server.
    Postgres(postgres::Postgres),
    /// A server.
    Mysql(mysql::Mysql),
}

/// A transaction; dropped without [`Tx::commit`] it is rolled back.
#[derive(Debug)]
pub enum Tx {
    /// On the file's writer.
    Sqlite(sqlite::SqliteTx),
    /// On a connection of its own.
    Postgres(postgres::PostgresTx),
    /// On a connection of its own.
    Mysql(mysql::MysqlTx),
}

/// Result of one statement: its rows, or for a statement without result columns only how many it affected.
#[derive(Debug)]
pub enum Rows {
    /// Copied out of SQLite.
    Sqlite(sqlite::SqliteRows),
    /// Rows as the server sent them.
    Postgres(postgres::PostgresRows),
    /// Rows as the driver read them.
    Mysql(mysql::MysqlRows),
}

/// What committed transactions changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// Rows of these tables.
    Tables(Vec<String>),
    /// Perhaps any: what captures changes may be gone, and is made anew where it is missing.
    Any,
}

impl Store {
    /// Waits until this process has committed something since it waited last. Other waits for commits take some of them.
    pub async fn committed(&self) {
        match self {
            Store::Postgres(store) => store.committed_image().await,
            _ => std::future::pending().await,
        }
    }

    /// Whether other nodes may have the same database open, and follow the same log of its changes.
    pub fn shares_log(&self) -> bool {
        matches!(self, Store::Postgres(_) | Store::Mysql(_))
    }

    /// Independent reads in one read-only snapshot and one round trip; a single one needs no transaction. Dropping the
    /// future stops them.
    pub async fn snapshot(&self, statements: &[Statement], budget: &Budget<'_>) -> Result<Vec<Rows>, StatementError> {
        check_args(statements, self.most_args())?;
        match self {
            Store::Sqlite(store) => {
                Ok(store.snapshot(statements, budget).await?.into_iter().map(Rows::Sqlite).collect())
            }
            Store::Postgres(store) => {
                Ok(Box::pin(store.snapshot(statements, budget)).await?.into_iter().map(Rows::Postgres).collect())
            }
            Store::Mysql(store) => {
                Ok(Box::pin(store.snapshot(statements, budget)).await?.into_iter().map(Rows::Mysql).collect())
            }
        }
    }

    /// As [`Store::snapshot`], for many statements, of which those that differ in their values only are one where the engine can
    /// do that; also how many it was sent.
    pub async fn merged_snapshot(
        &self,
        statements: &[Statement],
        budget: &Budget<'_>,
    ) -> Result<(Vec<Rows>, usize), StatementError> {
        match self {
            Store::Postgres(store) => {
                check_args(statements, self.most_args())?;
                let (rows, sent) = Box::pin(store.merged_snapshot(statements, budget)).await?;
                Ok((rows.into_iter().map(Rows::Postgres).collect(), sent))
            }
            // A subselect of theirs sees nothing of what stands beside it.
            Store::Sqlite(_) | Store::Mysql(_) => Ok((self.snapshot(statements, budget).await?, statements.len())),
        }
    }

    /// Errors: the log of a table does not tell each row that is removed.
    pub async fn check_complete(&self, tables: &[String]) -> Result<(), Error> {
        if let Store::Sqlite(store) = self {
            store.check_complete(tables).await?;
        }
        Ok(())
    }

    /// The statement whose row [`Store::log_end`] takes, where a log is kept.
    pub fn log_end_statement(&self) -> Statement {
        match self {
            Store::Sqlite(_) => sqlite::log::end_statement(),
            Store::Postgres(_) => postgres::changes::end_statement(),
            Store::Mysql(_) => mysql::binlog::end_statement(),
        }
    }

    /// What the reads of the statement's snapshot see of the transactions of a log, and the mark of their position.
    pub fn log_end(&self, rows: &Rows) -> Option<(proto::crud::Snapshot, u32)> {
        match self {
            Store::Sqlite(_) => sqlite::log::end(rows),
            Store::Postgres(_) => postgres::changes::end(rows),
            Store::Mysql(store) => store.binlog_end(rows),
        }
    }

    /// Labels of the enumerated type called `native`, in their order; `None` where there is no such type.
    pub fn labels(&self, native: &str) -> Option<Vec<String>> {
        match self {
            Store::Sqlite(_) => None,
            Store::Postgres(store) => store.labels(native),
            Store::Mysql(_) => mysql::labels(native),
        }
    }

    fn most_args(&self) -> usize {
        match self {
            Store::Sqlite(_) => SQLITE_ARGS,
            Store::Postgres(_) => POSTGRES_ARGS,
            Store::Mysql(_) => MYSQL_ARGS,
        }
    }

    /// One write that is its own transaction. Its rows are known to be few and small.
    pub async fn write(&self, statement: &Statement) -> Result<Rows, Error> {
        check_args(std::slice::from_ref(statement), self.most_args())?;
        match self {
            Store::Sqlite(store) => store.write(statement, None).await.map(Rows::Sqlite),
            Store::Postgres(store) => Box::pin(store.write(statement)).await.map(Rows::Postgres),
            Store::Mysql(store) => Box::pin(store.write(statement)).await.map(Rows::Mysql),
        }
    }

    /// One write that is its own transaction, undone where its rows take more than `room`: that is `TooLarge`. `None`
    /// where the engine cannot do that: it takes a transaction then.
    pub async fn write_within(&self, statement: &Statement, room: Room) -> Result<Option<Rows>, Error> {
        check_args(std::slice::from_ref(statement), self.most_args())?;
        match self {
            Store::Sqlite(store) => store.write(statement, Some(room)).await.map(Rows::Sqlite).map(Some),
            Store::Postgres(_) | Store::Mysql(_) => Ok(None),
        }
    }

    /// Begins a transaction that may write.
    pub async fn begin(&self) -> Result<Tx, Error> {
        match self {
            Store::Sqlite(store) => store.begin().await.map(Tx::Sqlite),
            Store::Postgres(store) => Box::pin(store.begin()).await.map(Tx::Postgres),
            Store::Mysql(store) => Box::pin(store.begin()).await.map(Tx::Mysql),
        }
    }

    /// Introspects the schema. What cannot be served is left out of it.
    ///
    /// Tables of `neighbours` are there too, as far as foreign keys or links connect them.
    pub async fn introspect(&self, neighbours: &[Neighbour]) -> Result<Introspected, Error> {
        match self {
            Store::Sqlite(store) => store.introspect().await,
            Store::Postgres(store) => Box::pin(store.introspect(neighbours)).await,
            Store::Mysql(store) => Box::pin(store.introspect()).await,
        }
    }

    /// A text that changes whenever the schema does, much cheaper than [`Store::introspect`]; `None` where there is no
    /// such thing.
    pub async fn schema_mark(&self, neighbours: &[Neighbour]) -> Result<Option<String>, Error> {
        match self {
            Store::Sqlite(store) => store.schema_mark().await,
            Store::Postgres(store) => Box::pin(store.schema_mark(neighbours)).await,
            Store::Mysql(store) => Box::pin(store.schema_mark()).await.map(Some),
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        match self {
            Store::Sqlite(store) => store.ping().await,
            Store::Postgres(store) => Box::pin(store.ping()).await,
            Store::Mysql(store) => Box::pin(store.ping()).await,
        }
    }
}

/// Checks that no statement has more than `most` arguments, which a driver would report as a failure of its own.
fn check_args(statements: &[Statement], most: usize) -> Result<(), Error> {
    match statements.iter().all(|statement| statement.args.len() <= most) {
        true => Ok(()),
        false => Err(Error::TooComplex),
    }
}

impl Tx {
    /// Statements of the transaction in their order, pipelined where the driver can. The first that fails ends the
    /// transaction.
    pub async fn run(&mut self, statements: &[Statement], budget: &Budget<'_>) -> Result<Vec<Rows>, Error> {
        let most = match self {
            Tx::Sqlite(_) => SQLITE_ARGS,
            Tx::Postgres(_) => POSTGRES_ARGS,
            Tx::Mysql(_) => MYSQL_ARGS,
        };
        check_args(statements, most)?;
        match self {
            Tx::Sqlite(tx) => Ok(tx.run(statements, budget).await?.into_iter().map(Rows::Sqlite).collect()),
            Tx::Postgres(tx) => {
                Ok(Box::pin(tx.run(statements, budget)).await?.into_iter().map(Rows::Postgres).collect())
            }
            Tx::Mysql(tx) => Ok(Box::pin(tx.run(statements, budget)).await?.into_iter().map(Rows::Mysql).collect()),
        }
    }

    /// Commits. Deferred constraints may fail here.
    pub async fn commit(self) -> Result<(), Error> {
        match self {
            Tx::Sqlite(tx) => tx.commit().await,
            Tx::Postgres(tx) => Box::pin(tx.commit()).await,
            Tx::Mysql(tx) => Box::pin(tx.commit()).await,
        }
    }
}

impl Rows {
    /// Number of rows; for a statement without result columns, of affected rows.
    pub fn len(&self) -> usize {
        match self {
            Rows::Sqlite(rows) => rows.len(),
            Rows::Postgres(rows) => rows.len(),
            Rows::Mysql(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        match self {
            Rows::Sqlite(rows) => rows.is_empty(),
            Rows::Postgres(rows) => rows.is_empty(),
            Rows::Mysql(rows) => rows.is_empty(),
        }
    }

    /// Memory that they take, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Rows::Sqlite(rows) => rows.size(),
            Rows::Postgres(rows) => rows.size(),
            Rows::Mysql(rows) => rows.size(),
        }
    }

    /// A value of a row.
    ///
    /// Panics where there is no such row or column: both come from the statement's own plan.
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        match self {
            Rows::Sqlite(rows) => rows.cell(row, column),
            Rows::Postgres(rows) => rows.cell(row, column),
            Rows::Mysql(rows) => rows.cell(row, column),
        }
    }

    /// A value of a row as a key; `None` for NULL, which equals nothing.
    pub fn key(&self, row: usize, column: usize, form: KeyForm) -> Option<Key> {
        match (self, form) {
            (Rows::Sqlite(rows), _) => rows.key(row, column, form),
            (Rows::Postgres(rows), KeyForm::Equal) => rows.cell(row, column).key(),
            (Rows::Mysql(rows), _) => rows.key(row, column, form),
            (Rows::Postgres(rows), KeyForm::Identical) => rows.raw(row, column).map(|raw| Key::Bytes(raw.into())),
        }
    }

    /// A value of a row as SQLite stores it; `None` for NULL, and for the values of other engines.
    pub fn stored(&self, row: usize, column: usize) -> Option<Stored> {
        match self {
            Rows::Sqlite(rows) => rows.stored(row, column),
            Rows::Postgres(_) | Rows::Mysql(_) => None,
        }
    }
}

impl From<Type> for Output {
    fn from(r#type: Type) -> Self {
        Output { r#type, scale: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
