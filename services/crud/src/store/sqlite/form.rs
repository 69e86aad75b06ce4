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
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
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
