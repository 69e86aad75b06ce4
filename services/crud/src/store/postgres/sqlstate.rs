//! SQLSTATEs of the server, mapped to errors of crud: whose fault an error is.
//!
//! An error of a statement of ours is told from one inside a trigger or function of the database by its context: only
//! the latter have one. Values of rows never get into a text or into the log. Source: PostgreSQL manual, appendix A.

use mesh::Code;
use tokio_postgres::error::{DbError, ErrorPosition, Severity};

use super::error::Keys;
use crate::{
    Error,
    bind::Bind,
    invalid_value::{InvalidKind, InvalidValue},
};

/// Routine of the server that runs a `RAISE` of PL/pgSQL. Servers translate messages, but not this name.
const RAISE: &str = "exec_stmt_raise";

/// Classes of the SQLSTATEs that PostgreSQL raises itself, without 38: errors of functions in other languages, which are
/// the application's.
const OWN_CLASSES: [&str; 41] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24", "25",
    "26", "27", "28", "2B", "2D", "2F", "34", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58",
    "72", "F0", "HV",
];

/// The connection ends with the error: the server or the session is shut down, or the connection failed. A class of 08
/// that ends nothing is about a server behind this one.
pub fn ends_connection(error: &DbError) -> bool {
    let code = error.code().code();
    code == "08P01" || is_fatal(error) && (code.starts_with("57P") || code.starts_with("08"))
}

/// The server ends the session with the error.
pub fn is_fatal(error: &DbError) -> bool {
    matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

/// A server behind this one, of foreign tables, cannot be reached.
pub fn is_behind(error: &DbError) -> bool {
    let code = error.code().code();
    !ends_connection(error) && (code.starts_with("08") || code == "HV00N")
}

/// What the server prepared is older than its tables, or the statement is: a table, column, type or function is gone or
/// has another type than the statement was made for.
pub fn is_stale(error: &DbError) -> bool {
    !is_raised(error) && !is_inside(error) && (is_stale_plan(error) || names_nothing(error))
}

/// The error of what the server says; `value` is the one that it does not take, where it says which.
pub fn refused(error: &DbError, value: Option<Bind>, database: &str, keys: &Keys) -> Error {
    if is_raised(error) {
        return raised(error);
    }
    if is_inside(error) {
        return inside(error, database, keys);
    }
    if is_stale_plan(error) {
        return Error::StaleStatement(spoken(error));
    }
    if names_nothing(error) {
        return Error::SchemaMoved(spoken(error));
    }
    match error.code().code() {
        "42883" => invalid(InvalidKind::Incomparable, error, value),
        "0A000" if is_without_returning(error) => {
            let text = "returning is not possible here, because a rule of the database writes elsewhere";
            Error::refused(Code::BadRequest, text, spoken(error))
        }
        "0A000" => {
            Error::refused(Code::BadRequest, "the database does not support the operation on this table", spoken(error))
        }
        "54001" => Error::TooComplex,
        "54000" => Error::OutOfRange("a value is too large for its column or an index of it".to_owned()),
        "55000" if is_unpopulated(error) => Error::Unpopulated(quoted(error.message()).to_owned()),
        _ => common(error, value, database, keys),
    }
}

/// Position of the placeholder, counted from 0, whose value the server could not read.
///
/// Source: `bind_param_error_callback` in PostgreSQL's `postgres.c`, which says `unnamed portal parameter $1`, in the
/// language of the server.
pub fn placeholder(error: &DbError) -> Option<usize> {
    error.where_()?.lines().find_map(|line| {
        let (before, number) = line.split_once('$')?;
        let digits = number.len() - number.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
        let is_statement = before.contains(['"', '(']);
        number[..digits].parse::<usize>().ok().filter(|_| !is_statement)?.checked_sub(1)
    })
}

/// Code and message for the log; details and hints may carry values and stay out.
pub fn spoken(error: &DbError) -> String {
    let code = error.code().code();
    match code.get(..2) {
        // Messages of this class quote values.
        Some("22") => format!("{code} in {}", error.routine().unwrap_or("the server")),
        _ => format!("{} ({code})", error.message()),
    }
}

/// Whether a `RAISE` says it.
fn is_raised(error: &DbError) -> bool {
    error.routine() == Some(RAISE)
}

/// Whether it happened inside a trigger or a function, and not in a statement of ours.
fn is_inside(error: &DbError) -> bool {
    let is_internal = matches!(error.position(), Some(ErrorPosition::Internal { .. }));
    is_internal || error.where_().is_some_and(|context| !context.is_empty()) && placeholder(error).is_none()
}

fn is_stale_plan(error: &DbError) -> bool {
    match error.code().code() {
        "26000" => true,
        // "cached plan must not change result type" has no code of its own.
        "0A000" => error.routine() == Some("RevalidateCachedQuery") || error.message().contains("cached plan"),
        _ => false,
    }
}

/// Whether it says that something has no such name, or not that type.
fn names_nothing(error: &DbError) -> bool {
    matches!(error.code().code(), "42703" | "42P01" | "42704" | "42804" | "3F000")
}

/// The application's own error: its text, and the code that its SQLSTATE stands for.
fn raised(error: &DbError) -> Error {
    let code = match error.code().code() {
        "42501" => Code::Denied,
        "23505" => Code::Conflict,
        "40001" | "40P01" | "55P03" => Code::Unavailable,
        _ => Code::Constraint,
    };
    Error::raised(code, error.message())
}

/// The error of a trigger or function, which no `RAISE` says.
fn inside(error: &DbError, database: &str, keys: &Keys) -> Error {
    let code = error.code().code();
    match code {
        "P0002" | "P0003" => Error::raised(Code::Constraint, error.message()),
        _ if code.starts_with("22") => Error::refused(
            Code::Constraint,
            "a trigger or function of the database failed on these values",
            spoken_inside(error),
        ),
        _ => match common(error, None, database, keys) {
            Error::Database(_) => Error::Database(spoken_inside(error)),
            common => common,
        },
    }
}

/// What means the same inside and outside of triggers and functions.
fn common(error: &DbError, value: Option<Bind>, database: &str, keys: &Keys) -> Error {
    let code = error.code().code();
    let busy = |text: &str| Error::refused(Code::Unavailable, text, spoken(error));
    match code {
        "23505" => Error::Conflict { columns: conflict(error, keys) },
        "23502" => match error.column() {
            Some(column) => Error::NotNull(column.to_owned()),
            None => Error::Constraint("a column must not be null".to_owned()),
        },
        "23503" => Error::Constraint(constraint("foreign key", error)),
        "23514" => Error::Constraint(constraint("check", error)),
        "23P01" => Error::Constraint(constraint("exclusion constraint", error)),
        "44000" => Error::Constraint("the row would not be in the view it is written through".to_owned()),
        "22001" => invalid(InvalidKind::TooLong, error, value),
        "22003" | "22008" => invalid(InvalidKind::OutOfRange, error, value),
        "22012" => invalid(InvalidKind::Computation, error, value),
        "22021" | "22P05" => invalid(InvalidKind::Characters, error, value),
        "42501" if error.routine() == Some("ExecWithCheckOptions") => {
            let text = "not allowed: the row-level security of the database refuses the row".to_owned();
            Error::Refused { code: Code::Denied, text, cause: None }
        }
        "42501" => {
            Error::refused(Code::Denied, "not allowed: the database refuses the operation to its user", spoken(error))
        }
        "25006" => {
            Error::refused(Code::Denied, "not allowed: the database takes no writes, it is read-only", spoken(error))
        }
        "57014" | "25P03" | "25P04" => {
            let text = "the database ended the statement, which took longer than it allows";
            Error::refused(Code::Deadline, text, spoken(error))
        }
        "40001" | "40P01" => busy("the database is busy: another transaction was in the way; try again"),
        "55P03" | "55006" => busy("the database is busy: a lock was not free in time; try again"),
        "53100" => busy("the disk of the database is full"),
        _ if ends_connection(error) => Error::Unavailable(format!("{database}: {}", spoken(error))),
        _ if is_behind(error) => busy("a server behind the database cannot be reached"),
        _ if code.starts_with("53") || code.starts_with("57P") => busy("the database is out of resources; try again"),
        _ if code.starts_with("22") => invalid(InvalidKind::Malformed, error, value),
        _ if code.starts_with("23") => Error::Constraint(constraint("constraint", error)),
        _ if is_of_application(code) => Error::raised(Code::Constraint, error.message()),
        _ => Error::Database(spoken(error)),
    }
}

/// Whether PostgreSQL raises nothing of the kind itself. `P0` is PL/pgSQL's: unhandled errors of `RAISE` are P0001.
fn is_of_application(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    code == "P0001" || !OWN_CLASSES.contains(&class) && class != "P0" && class != "XX"
}

fn invalid(kind: InvalidKind, error: &DbError, value: Option<Bind>) -> Error {
    let (said, cause) = (error.message().into(), spoken(error));
    Error::InvalidValue(InvalidValue { kind, value, column: None, said, cause })
}

/// What the server says, and where in the database's own code.
fn spoken_inside(error: &DbError) -> String {
    // Other lines of the context quote statements, which may have values in them.
    let is_place = |line: &&str| line.starts_with("PL/") && !line.contains('"');
    match error.where_().and_then(|context| context.lines().find(is_place)) {
        Some(place) => format!("{}, in {place}", spoken(error)),
        None => format!("{}, in a trigger or function of the database", spoken(error)),
    }
}

/// Whether it says `materialized view "a" has not been populated`.
fn is_unpopulated(error: &DbError) -> bool {
    error.routine() == Some("ExecOpenScanRelation") || error.message().contains("has not been populated")
}

/// Whether it says `cannot perform INSERT RETURNING on relation "a"`, in whatever language: a rule gives no rows.
fn is_without_returning(error: &DbError) -> bool {
    error.routine() == Some("RewriteQuery") && error.message().contains("RETURNING")
}

/// The name in a message, whatever its language quotes it with.
fn quoted(message: &str) -> &str {
    const QUOTES: [char; 6] = ['"', '«', '»', '“', '”', '„'];
    let inside = message.split_once(QUOTES).map_or(message, |(_, rest)| rest);
    inside.rsplit_once(QUOTES).map_or(inside, |(name, _)| name)
}

/// Columns of the unique key that is violated: as introspection knows them, else as the server's detail names them.
fn conflict(error: &DbError, keys: &Keys) -> Vec<String> {
    let named = error.table().zip(error.constraint()).map(|(table, name)| (table.to_owned(), name.to_owned()));
    if let Some(columns) = named.and_then(|key| keys.get(&key)) {
        return columns.clone();
    }
    match error.detail().and_then(detail_columns) {
        Some(columns) => columns,
        None => error.constraint().map(|name| vec![name.to_owned()]).unwrap_or_default(),
    }
}

/// The columns in `Key (a, b)=(1, 2) already exists.`, in whatever language.
fn detail_columns(detail: &str) -> Option<Vec<String>> {
    let (_, rest) = detail.split_once('(')?;
    let (columns, _) = rest.split_once(")=(")?;
    Some(columns.split(", ").map(|column| column.trim_matches('"').to_owned()).collect())
}

fn constraint(kind: &str, error: &DbError) -> String {
    match (error.constraint(), error.table()) {
        (Some(name), Some(table)) => format!("{kind} {name} of table {table} does not hold"),
        (Some(name), None) => format!("{kind} {name} does not hold"),
        (None, _) => format!("a {kind} does not hold"),
    }
}

#[cfg(test)]
mod tests;
