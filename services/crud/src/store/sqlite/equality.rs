//! What decides whether values of a column are equal: its affinity and its collation. Source: SQLite, "Datatypes", 3.1
//! and 4.2.

use query::{Equality, EqualityClass, Matching, Type};
use rusqlite::Connection;

use crate::store::identifier;

/// Kind of a table, as far as its values' affinity depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// It converts what it stores.
    Plain,
    /// It converts what it stores, and nothing in a column of `ANY`.
    Strict,
    /// A view or a virtual table: nobody knows what its values were converted to.
    Other,
}

/// The equality of a column that is declared as `native`.
pub fn of(reader: &Connection, table: &str, column: &str, native: &str, holder: Holder) -> rusqlite::Result<Equality> {
    let class = match holder {
        Holder::Strict if native.eq_ignore_ascii_case("ANY") => EqualityClass::Bytes,
        Holder::Plain | Holder::Strict => affinity(native),
        Holder::Other => return Ok(Equality::default()),
    };
    let (_, collation, ..) = reader.column_metadata(Some("main"), table, column)?;
    let collation = collation.map(|name| name.to_string_lossy()).filter(|name| !name.eq_ignore_ascii_case("BINARY"));
    let collation = collation.map(|name| identifier(&name.to_ascii_uppercase()).into());
    Ok(Equality { class, collation })
}

/// Which comparisons of values of a type as they are read have the result that SQLite gives. Decimals are doubles there,
/// and columns of bytes or of any type hold values that are read alike and differ.
pub fn matching(r#type: Type, equality: &Equality) -> Matching {
    let is_converted = matches!(equality.class, EqualityClass::Number | EqualityClass::Text);
    match r#type {
        _ if equality.collation.is_some() || !is_converted => Matching::None,
        Type::Bool
        | Type::Int16
        | Type::Int32
        | Type::Int64
        | Type::Float
        | Type::Text
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::Uuid => Matching::All,
        Type::Decimal | Type::Bytes | Type::Json | Type::Other | Type::Any | Type::Address | Type::List(_) => {
            Matching::None
        }
    }
}

fn affinity(native: &str) -> EqualityClass {
    let name = native.to_ascii_uppercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if has(&["INT"]) {
        EqualityClass::Number
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        EqualityClass::Text
    } else if name.is_empty() || has(&["BLOB"]) {
        EqualityClass::Bytes
    } else {
        EqualityClass::Number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_is_that_of_affinity_and_collation() {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(
            "CREATE TABLE t (a INTEGER, b VARCHAR(3) COLLATE nocase, c, d BLOB, e UUID, f ANY, g TEXT COLLATE RTRIM);
             CREATE TABLE s (f ANY) STRICT;",
        )
        .unwrap();
        let equality = |table: &str, column: &str, native: &str, holder| {
            let found = of(&file, table, column, native, holder).unwrap();
            (found.class, found.collation.map(|name| name.to_string()))
        };
        let named = |name: &str| Some(name.to_owned());
        for (column, native, expected) in [
            ("a", "INTEGER", (EqualityClass::Number, None)),
            ("b", "VARCHAR(3)", (EqualityClass::Text, named("\"NOCASE\""))),
            ("c", "", (EqualityClass::Bytes, None)),
            ("d", "BLOB", (EqualityClass::Bytes, None)),
            ("e", "UUID", (EqualityClass::Number, None)),
            ("f", "ANY", (EqualityClass::Number, None)),
            ("g", "TEXT", (EqualityClass::Text, named("\"RTRIM\""))),
        ] {
            assert_eq!(equality("t", column, native, Holder::Plain), expected, "{column}");
        }
        assert_eq!(equality("s", "f", "ANY", Holder::Strict), (EqualityClass::Bytes, None));
        assert_eq!(equality("v", "a", "INTEGER", Holder::Other), (EqualityClass::Database, None));
    }
    #[test]
    fn texts_match_in_memory_by_their_bytes_alone() {
        let equality = |class, collation: Option<&str>| Equality { class, collation: collation.map(Into::into) };
        let text = equality(EqualityClass::Text, None);
        assert_eq!(matching(Type::Text, &text), Matching::All);
        assert_eq!(matching(Type::Text, &equality(EqualityClass::Text, Some("\"NOCASE\""))), Matching::None);
        assert_eq!(matching(Type::Int64, &equality(EqualityClass::Number, None)), Matching::All);
        assert_eq!(matching(Type::Decimal, &equality(EqualityClass::Number, None)), Matching::None);
        assert_eq!(matching(Type::Text, &Equality::default()), Matching::None);
    }
}
