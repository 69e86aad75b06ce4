//! SQL functions that give a stored value the form in which it is read.
//!
//! SQLite holds any value in any column: a moment as text in several spellings, as seconds or as a day number, a boolean
//! as text. Conditions and orders compare such values by their form, so that a row is judged by what is read of it.

use base64::{Engine, engine::general_purpose::STANDARD};
use query::{Type, Typed, datetime};
use rusqlite::{
    Connection, ToSql,
    functions::{Context, FunctionFlags},
    types::{ToSqlOutput, Value, ValueRef},
};

use super::{bind::bound, rows};
use crate::{
    cell::Cell,
    store::{SQLITE_BLOB, SQLITE_DAY_AFTER, SQLITE_DAY_BEFORE, SQLITE_FORMS},
};

/// The value of a function.
struct Form(Option<Typed>);

impl ToSql for Form {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_ref().map_or(ToSqlOutput::Owned(Value::Null), bound))
    }
}

/// Defines the functions on a connection.
pub fn define(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        .union(FunctionFlags::SQLITE_DETERMINISTIC)
        // What a file has in views and triggers gets none of them: others who open it have none either.
        .union(FunctionFlags::SQLITE_DIRECTONLY);
    for (r#type, name) in SQLITE_FORMS {
        let form = move |context: &Context<'_>| Ok(Form(form(r#type, context.get_raw(0))));
        connection.create_scalar_function(name, 1, flags, form)?;
    }
    for (name, days, otherwise) in [(SQLITE_DAY_BEFORE, -1, ""), (SQLITE_DAY_AFTER, 2, ":")] {
        let day = move |context: &Context<'_>| Ok(day(context.get_raw(0), days, otherwise));
        connection.create_scalar_function(name, 1, flags, day)?;
    }
    connection.create_scalar_function(SQLITE_BLOB, 1, flags, |context| Ok(blob(context.get_raw(0))))
}

/// The day that lies `days` after that of a moment or day; `otherwise` where its year has not four digits.
fn day(value: ValueRef<'_>, days: i32, otherwise: &str) -> Option<String> {
    let today = datetime::parse_date(value.as_str().ok()?.get(..10)?)?;
    let day = datetime::written(|out| datetime::date(out, today + days));
    Some(if day.len() == 10 { day } else { otherwise.to_owned() })
}

/// What is read of `stored` in a column of `type`; `None` for NULL and for what is not of the type, so that no comparison
/// with it is true.
fn form(r#type: Type, stored: ValueRef<'_>) -> Option<Typed> {
    let read = rows::read(r#type.into(), stored);
    let is_of_type = matches!(
        (r#type, &read),
        (Type::Bool, Cell::Bool(_))
            | (Type::Bytes, Cell::Bytes(_))
            | (Type::Date, Cell::Date(_))
            | (Type::Time, Cell::Time(_))
            | (Type::Timestamp, Cell::Timestamp(_))
            | (Type::Uuid, Cell::Uuid(_))
    );
    read.typed(r#type).filter(|_| is_of_type)
}

/// The bytes that are read as the base64 text `value`; else `value` as it is.
fn blob(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Text(text) => match STANDARD.decode(text) {
            Ok(bytes) => Value::Blob(bytes),
            Err(_) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        },
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        define(&connection).unwrap();
        connection
    }

    #[test]
    fn all_values_of_a_day_are_between_the_days_around_it_in_any_zone() {
        let connection = connection();
        let sql = format!("SELECT {SQLITE_DAY_BEFORE}(?1), {SQLITE_DAY_AFTER}(?1)");
        for (value, before, after) in [
            ("2020-07-17", "2020-07-16", "2020-07-19"),
            ("2020-07-17T22:56:16.5Z", "2020-07-16", "2020-07-19"),
            ("2020-03-01", "2020-02-29", "2020-03-03"),
            ("2019-12-31", "2019-12-30", "2020-01-02"),
            // Texts of other years have no four digits first: all others are greater than the first, and less than the second.
            ("0000-01-01", "", "0000-01-03"),
            ("9999-12-31", "9999-12-30", ":"),
            ("9999-12-30T12:00:00Z", "9999-12-29", ":"),
        ] {
            let found = connection.query_one(&sql, [value], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(found, (before.to_owned(), after.to_owned()), "{value}");
        }
        for value in ["soon", "2020-02-30", "2020-07", ""] {
            let found: (Option<String>, Option<String>) =
                connection.query_one(&sql, [value], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(found, (None, None), "{value}");
        }
    }

    #[test]
    fn functions_are_deterministic_and_not_for_the_schema_of_a_file() {
        let connection = connection();
        let sql = "SELECT count(*), min(flags & ?1) > 0, min(flags & ?2) > 0 FROM pragma_function_list \
                   WHERE name LIKE 'perigee%'";
        let flags = [FunctionFlags::SQLITE_DETERMINISTIC, FunctionFlags::SQLITE_DIRECTONLY].map(|flag| flag.bits());
        let found: (i64, bool, bool) =
            connection.query_one(sql, flags, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        assert_eq!(found, (9, true, true));
        for name in SQLITE_FORMS.iter().map(|(_, name)| *name).chain([SQLITE_BLOB, SQLITE_DAY_BEFORE]) {
            let script = format!("CREATE VIEW {name}_view AS SELECT {name}('2020-07-17')");
            connection.execute_batch(&script).unwrap();
            let error = connection.query_one(&format!("SELECT * FROM {name}_view"), [], |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("unsafe use"), "{name}: {error}");
        }
    }
}
