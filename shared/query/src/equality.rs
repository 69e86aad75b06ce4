//! Equality of a column's values in its database.

use std::sync::Arc;

/// How a database compares the values of a column for equality: two values that are read differently may be equal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Equality {
    /// What decides it.
    pub class: EqualityClass,
    /// Collation of texts, as SQL names it; `None` for the default of the database.
    pub collation: Option<Arc<str>>,
}

/// Class of columns whose values a database compares in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EqualityClass {
    /// Only the database knows.
    #[default]
    Database,
    /// Integers of any width.
    Integer,
    /// Decimals; in SQLite numbers of any kind.
    Number,
    /// Single precision.
    Single,
    /// Double precision.
    Double,
    /// Booleans.
    Bool,
    /// Texts.
    Text,
    /// Texts that are padded with spaces to this length.
    Padded(u32),
    /// Identifiers of PostgreSQL's catalog.
    Name,
    /// Bytes; in SQLite values of any kind, which are not converted.
    Bytes,
    /// Dates.
    Date,
    /// Times without a zone.
    Time,
    /// Timestamps without a zone.
    Timestamp,
    /// Timestamps with a zone.
    ZonedTimestamp,
    /// UUIDs.
    Uuid,
}
