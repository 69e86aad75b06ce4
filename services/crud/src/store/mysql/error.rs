//! Errors of MariaDB and its driver, mapped to those of crud: whose fault an error is. Values of rows never get into a text
//! or into the log. Source: MariaDB documentation, "MariaDB Error Code Reference".

use std::collections::HashMap;

use mesh::Code;
use mysql_async::{DriverError, ServerError};

use crate::{
    Error,
    invalid_value::{InvalidKind, InvalidValue},
    store::Statement,
};

/// Columns of every unique key, by its table's and its own name.
pub type UniqueKeys = HashMap<(String, String), Vec<String>>;

/// Error of the server, the driver or a connection, before it is mapped to one of crud.
#[derive(Debug)]
pub enum MysqlError {
    /// The server or the driver failed.
    Driver(mysql_async::Error),
    /// Its rows are too large and not taken. More of them may come over the connection.
    TooLarge(Error),
    /// It was not sent.
    Refused(Error),
    /// No connection could be made.
    Connect(String),
}

impl From<mysql_async::Error> for MysqlError {
    fn from(error: mysql_async::Error) -> Self {
        MysqlError::Driver(error)
    }
}

impl AsRef<MysqlError> for MysqlError {
    fn as_ref(&self) -> &MysqlError {
        self
    }
}

impl MysqlError {
    /// The error of a connection that was not made.
    pub fn connecting(error: mysql_async::Error) -> Self {
        match &error {
            // The server is there, and has no room.
            mysql_async::Error::Server(server) if is_exhausted(server.code) => MysqlError::Driver(error),
            mysql_async::Error::Server(server) => MysqlError::Connect(spoken(server)),
            error => MysqlError::Connect(chain(error)),
        }
    }

    /// The connection died under the statement: what is idempotent may be sent again over another.
    pub fn is_lost(&self) -> bool {
        let MysqlError::Driver(error) = self else { return false };
        match error {
            mysql_async::Error::Server(server) => ends_connection(server.code),
            mysql_async::Error::Io(_) => true,
            mysql_async::Error::Driver(error) => {
                matches!(error, DriverError::ConnectionClosed | DriverError::PacketOutOfOrder)
            }
            mysql_async::Error::Other(_) | mysql_async::Error::Url(_) => false,
        }
    }

    /// Nothing more can be sent over the connection.
    pub fn is_fatal(&self) -> bool {
        match self {
            MysqlError::Driver(mysql_async::Error::Server(server)) => ends_connection(server.code),
            MysqlError::Driver(_) | MysqlError::Connect(_) => true,
            MysqlError::TooLarge(_) | MysqlError::Refused(_) => false,
        }
    }

    /// Whether answers may still come over the connection.
    pub fn leaves_answers(&self) -> bool {
        matches!(self, MysqlError::TooLarge(_))
    }

    /// The server's statements are older than its tables.
    pub fn is_stale(&self) -> bool {
        matches!(self, MysqlError::Driver(mysql_async::Error::Server(server)) if is_stale(server.code))
    }

    /// The error as callers of `database` see it.
    pub fn into_error(self, database: &str, statement: Option<&Statement>, keys: &UniqueKeys) -> Error {
        let unavailable = |cause: &str| Error::Unavailable(format!("{database}: {cause}"));
        match &self {
            MysqlError::Driver(mysql_async::Error::Server(server)) if ends_connection(server.code) => {
                unavailable(&spoken(server))
            }
            MysqlError::Driver(mysql_async::Error::Server(server)) => refused(server, statement, keys),
            MysqlError::Driver(mysql_async::Error::Driver(DriverError::PacketTooLarge)) => {
                Error::TooLarge("the request has more bytes than the database takes in one statement".to_owned())
            }
            MysqlError::Driver(error) if self.is_lost() => unavailable(&chain(error)),
            MysqlError::Driver(error) => Error::Database(chain(error)),
            MysqlError::TooLarge(error) | MysqlError::Refused(error) => error.clone(),
            MysqlError::Connect(cause) => unavailable(cause),
        }
    }
}

/// Shutdown, a connection that was killed or timed out, a packet that was not read or written.
fn ends_connection(code: u16) -> bool {
    matches!(code, 1053 | 1077 | 1080 | 1153 | 1158..=1161 | 1184 | 1927 | 2006 | 2013 | 4031)
}

/// Too many connections, users, threads, files; no memory; the disk or a table is full.
fn is_exhausted(code: u16) -> bool {
    matches!(code, 1021 | 1023 | 1037 | 1038 | 1040 | 1041 | 1114 | 1135 | 1203 | 1226 | 1461)
}

fn is_stale(code: u16) -> bool {
    matches!(code, 1243 | 1615)
}

/// The error of what the server says.
fn refused(error: &ServerError, statement: Option<&Statement>, keys: &UniqueKeys) -> Error {
    let busy = |text: &str| Error::refused(Code::Unavailable, text, spoken(error));
    let denied = |text: &str| Error::refused(Code::Denied, text, spoken(error));
    match error.code {
        1062 | 1169 | 1586 => Error::Conflict { columns: conflict(error, statement, keys) },
        1048 | 1263 | 1364 => match quoted(&error.message) {
            Some(column) => Error::NotNull(column),
            None => Error::Constraint("a column must not be null".to_owned()),
        },
        1216 | 1217 | 1451 | 1452 | 1557 | 1761 | 1762 => Error::Constraint(foreign_key(error)),
        3819 | 4025 => match quoted(&error.message) {
            Some(name) => Error::Constraint(format!("check {name} does not hold")),
            None => Error::Constraint("a check does not hold".to_owned()),
        },
        1369 => Error::Constraint("the row would not be in the view it is written through".to_owned()),
        1406 => invalid(InvalidKind::TooLong, error),
        1264 | 1690 => invalid(InvalidKind::OutOfRange, error),
        1292 if ["Incorrect date", "Incorrect time"].iter().any(|text| error.message.starts_with(text)) => {
            invalid(InvalidKind::OutOfRange, error)
        }
        1265 | 1292 | 1366 | 1411 | 1525 | 3140 => invalid(malformed(error), error),
        1300 | 3988 => invalid(InvalidKind::Characters, error),
        1365 => invalid(InvalidKind::Computation, error),
        1267 | 1270 | 1271 | 4078 => invalid(InvalidKind::Incomparable, error),
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1698 => {
            denied("not allowed: the database refuses the operation to its user")
        }
        1036 | 1290 | 1792 | 1836 => denied("not allowed: the database takes no writes, it is read-only"),
        1317 | 1969 | 3024 => {
            let text = "the database ended the statement, which took longer than it allows";
            Error::refused(Code::Deadline, text, spoken(error))
        }
        1205 | 3572 => busy("the database is busy: a lock was not free in time; try again"),
        1020 | 1213 => busy("the database is busy: another transaction was in the way; try again"),
        1049 | 1051 | 1054 | 1146 | 1176 | 1356 | 1449 => Error::SchemaMoved(spoken(error)),
        code if is_stale(code) => Error::StaleStatement(spoken(error)),
        1116 | 1117 | 1118 | 1390 | 1436 | 1119 => Error::TooComplex,
        1423 => Error::Constraint("the table under the view has a column without a default".to_owned()),
        1288 | 1348 | 1394 | 1395 | 1471 => {
            Error::refused(Code::BadRequest, "the database does not support the operation on this view", spoken(error))
        }
        1235 | 1442 => {
            Error::refused(Code::BadRequest, "the database does not support the operation on this table", spoken(error))
        }
        code if is_exhausted(code) => busy("the database is out of resources; try again"),
        // `SIGNAL` of a trigger or function, with a state that the server does not raise itself.
        1643 | 1644 => Error::raised(Code::Constraint, &error.message),
        _ if error.state.starts_with("45") => Error::raised(Code::Constraint, &error.message),
        _ => Error::Database(spoken(error)),
    }
}

/// What does not have the form of its column's type: characters that its character set lacks, or all else.
fn malformed(error: &ServerError) -> InvalidKind {
    match error.message.starts_with("Incorrect string value") {
        true => InvalidKind::Characters,
        false => InvalidKind::Malformed,
    }
}

fn invalid(kind: InvalidKind, error: &ServerError) -> Error {
    let (column, cause) = (column(&error.message).map(String::into_boxed_str), spoken(error));
    Error::InvalidValue(InvalidValue { kind, value: None, column, said: Box::default(), cause })
}

/// Code and message for the log; messages that quote values stay out.
fn spoken(error: &ServerError) -> String {
    match error.code {
        1062 | 1169 | 1264 | 1265 | 1292 | 1300 | 1366 | 1406 | 1411 | 1525 | 1586 | 1643 | 1644 | 1690 | 3140
        | 3988 => {
            format!("error {} ({})", error.code, error.state)
        }
        _ => format!("{} (error {}, {})", error.message, error.code, error.state),
    }
}

/// An error of the driver and what caused it, in one line, for the log.
fn chain(error: &mysql_async::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The column that a message names: `Out of range value for column 'a' at row 1`, or ``column `shop`.`t`.`a` at row 1``.
fn column(message: &str) -> Option<String> {
    let (_, rest) = message.rsplit_once(" column ")?;
    let name = rest.rsplit_once(" at row ").map_or(rest, |(name, _)| name);
    let name = name.trim_end_matches(['\'', '`', '"']);
    let start = name.rfind(['\'', '`', '"']).map_or(0, |at| at + 1);
    Some(name[start..].to_owned()).filter(|name| !name.is_empty())
}

/// The first name in quotes.
fn quoted(message: &str) -> Option<String> {
    let start = message.find(['\'', '`', '"'])?;
    let quote = message[start..].chars().next()?;
    let (name, _) = message[start + quote.len_utf8()..].split_once(quote)?;
    Some(name.to_owned())
}

/// `a foreign key … (CONSTRAINT "name" FOREIGN KEY …)`.
fn foreign_key(error: &ServerError) -> String {
    match error.message.split_once("CONSTRAINT ").and_then(|(_, rest)| quoted(rest)) {
        Some(name) => format!("foreign key {name} does not hold"),
        None => "a foreign key does not hold".to_owned(),
    }
}

/// Columns of the unique key that is violated: of the table that the statement writes, or of the only key of its name.
fn conflict(error: &ServerError, statement: Option<&Statement>, keys: &UniqueKeys) -> Vec<String> {
    let Some((_, name)) = error.message.rsplit_once(" for key ") else { return Vec::new() };
    let name = name.trim_matches(['\'', '`', '"']);
    let of = |table: &str, key: &str| keys.get(&(table.to_owned(), key.to_owned())).cloned();
    if let Some(columns) = statement.and_then(|statement| target(&statement.text)).and_then(|table| of(&table, name)) {
        return columns;
    }
    if let Some(columns) = name.split_once('.').and_then(|(table, key)| of(table, key)) {
        return columns;
    }
    let mut known = keys.iter().filter(|((_, key), _)| key == name).map(|(_, columns)| columns);
    match (known.next(), known.next()) {
        (Some(columns), None) => columns.clone(),
        _ => vec![name.to_owned()],
    }
}

/// The table that a statement of ours writes.
fn target(text: &str) -> Option<String> {
    let rest = text.strip_prefix("INSERT INTO `").or_else(|| text.strip_prefix("UPDATE `"))?;
    let mut name = String::new();
    let mut parts = rest.split('`');
    name.push_str(parts.next()?);
    // A quote inside the name is doubled.
    while let Some("") = parts.next() {
        name.push('`');
        name.push_str(parts.next()?);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, message: &str) -> ServerError {
        ServerError { code, message: message.to_owned(), state: "23000".to_owned() }
    }

    fn told(code: u16, message: &str) -> Error {
        refused(&error(code, message), None, &UniqueKeys::new())
    }

    #[test]
    fn names_are_found_in_messages() {
        assert_eq!(column("Out of range value for column 'a' at row 1").as_deref(), Some("a"));
        assert_eq!(column("Incorrect integer value: 'x' for column `shop`.`k`.`y` at row 1").as_deref(), Some("y"));
        assert_eq!(column("Division by 0"), None);
        assert_eq!(told(1048, "Column 'title' cannot be null"), Error::NotNull("title".to_owned()));
        assert_eq!(told(1364, "Field 'title' doesn't have a default value"), Error::NotNull("title".to_owned()));
        let text = "Cannot add or update a child row: a foreign key constraint fails (`x`.`album`, CONSTRAINT `album_fk` \
                    FOREIGN KEY (`a`) REFERENCES `artist` (`a`))";
        assert_eq!(told(1452, text), Error::Constraint("foreign key album_fk does not hold".to_owned()));
        assert_eq!(
            told(4025, "CONSTRAINT `positive` failed for `x`.`t`"),
            Error::Constraint("check positive does not hold".to_owned())
        );
    }

    #[test]
    fn a_conflict_names_the_columns_of_its_key() {
        let key = |table: &str, name: &str| (table.to_owned(), name.to_owned());
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let keys = UniqueKeys::from([
            (key("a`b", "PRIMARY"), columns(&["id"])),
            (key("other", "PRIMARY"), columns(&["code"])),
            (key("other", "title"), columns(&["title", "year"])),
        ]);
        let statement = |text: &str| Statement { text: text.into(), ..super::super::ping_statement() };
        let insert = statement("INSERT INTO `a``b` (`id`) VALUES (?)");
        let duplicate = |name: &str| error(1062, &format!("Duplicate entry 'secret' for key '{name}'"));
        assert_eq!(conflict(&duplicate("PRIMARY"), Some(&insert), &keys), ["id"]);
        assert_eq!(conflict(&duplicate("other.PRIMARY"), None, &keys), ["code"]);
        assert_eq!(conflict(&duplicate("title"), None, &keys), ["title", "year"]);
        assert_eq!(conflict(&duplicate("PRIMARY"), None, &keys), ["PRIMARY"]);
    }

    #[test]
    fn no_value_gets_into_the_log() {
        for (code, message) in [
            (1062, "Duplicate entry 'secret' for key 'PRIMARY'"),
            (1366, "Incorrect integer value: 'secret' for column 'a' at row 1"),
            (1292, "Truncated incorrect DOUBLE value: 'secret'"),
        ] {
            assert!(!spoken(&error(code, message)).contains("secret"), "{code}");
        }
    }
}
