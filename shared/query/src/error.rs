//! Errors of operations, the same for every protocol.

use crate::Table;

/// An operation that does not fit the model or the schema. Every message names the invalid part.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The body, an argument or a document is malformed.
    #[error("{0}")]
    Malformed(String),
    /// Nested deeper, or with more parts, than the limit allows.
    #[error("{what} of {seen} is over the limit of {limit}")]
    TooComplex {
        /// `depth`, `nodes`, `statements` or another of the limits.
        what: &'static str,
        /// What was seen before it was given up.
        seen: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A list has more items than the limit allows.
    #[error("{list} of {seen} items is over the limit of {limit}")]
    TooLong {
        /// Which list, for people.
        list: String,
        /// Its items.
        seen: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The schema has no such table.
    #[error("table {table} is not in the database{}", hint(.nearest))]
    UnknownTable {
        /// As the caller wrote it.
        table: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// The table has no such column.
    #[error("column {column} is not in table {table}{}", hint(.nearest))]
    UnknownColumn {
        /// The table's name.
        table: String,
        /// As the caller wrote it.
        column: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// The table has no such relation.
    #[error("relation {relation} is not in table {table}{}", hint(.nearest))]
    UnknownRelation {
        /// The table's name.
        table: String,
        /// As the caller wrote it.
        relation: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// The operator is not known.
    #[error("operator {operator} is not known{}", hint(.nearest))]
    UnknownOperator {
        /// As the caller wrote it.
        operator: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// The argument or option is not known.
    #[error("argument {argument} is not known{}", hint(.nearest))]
    UnknownArgument {
        /// As the caller wrote it.
        argument: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// A value does not fit its column or argument.
    #[error("invalid {name}: expected {expected}, found {found}")]
    WrongType {
        /// The column or argument.
        name: String,
        /// What it holds, for people.
        expected: String,
        /// What was given, for people; never the value itself where it may be a secret.
        found: String,
    },
    /// A number or a text is outside what the column can hold.
    #[error("{name} is out of range: expected {expected}")]
    OutOfRange {
        /// The column or argument.
        name: String,
        /// What it holds, for people.
        expected: String,
    },
    /// A required value is missing.
    #[error("{0} is required")]
    Required(String),
    /// An update or delete of every row, where no rule allows it.
    #[error("{0} of all rows needs a condition, or a rule with allowAll")]
    WhereRequired(&'static str),
    /// Something about the rows that a relation leads to is wrong, which only those may learn who may use their table.
    #[error("{error}")]
    Related {
        /// The table that the relation leads to.
        table: RelatedTable,
        /// What is wrong; no other of this kind.
        error: Box<Error>,
    },
}

/// A table that a relation leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelatedTable {
    /// The id of its database where that is a neighbour; `None`: that of the schema.
    pub database: Option<String>,
    /// Its name.
    pub table: String,
}

impl Error {
    /// The stable code.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Malformed(_) => "BAD_REQUEST",
            Error::TooComplex { .. } => "TOO_COMPLEX",
            Error::TooLong { .. } => "TOO_LARGE",
            Error::UnknownTable { .. } => "UNKNOWN_TABLE",
            Error::UnknownColumn { .. } => "UNKNOWN_COLUMN",
            Error::UnknownRelation { .. } => "UNKNOWN_RELATION",
            Error::UnknownOperator { .. } => "UNKNOWN_OPERATOR",
            Error::UnknownArgument { .. } => "UNKNOWN_ARGUMENT",
            Error::WrongType { .. } => "WRONG_TYPE",
            Error::OutOfRange { .. } => "OUT_OF_RANGE",
            Error::Required(_) => "REQUIRED",
            Error::WhereRequired(_) => "WHERE_REQUIRED",
            Error::Related { error, .. } => error.reason(),
        }
    }

    /// Marks the error as one of rows of `table`, to which a relation leads. The innermost such table is kept; an exceeded
    /// limit concerns the request alone and stays as it is.
    pub fn in_related(self, table: &Table) -> Self {
        match self {
            error @ (Error::Related { .. } | Error::TooComplex { .. } | Error::TooLong { .. }) => error,
            error => {
                let table = RelatedTable { database: table.database.clone(), table: table.name.clone() };
                Error::Related { table, error: Box::new(error) }
            }
        }
    }

    /// Names the database of the schema, `id`, where the error is marked with one of its own tables: for those who plan
    /// against several schemas.
    pub fn in_schema_of(mut self, id: &str) -> Self {
        if let Error::Related { table, .. } = &mut self {
            table.database.get_or_insert_with(|| id.to_owned());
        }
        self
    }

    /// Whether it names something that the schema does not have; a newer one may.
    pub fn is_unknown_name(&self) -> bool {
        self.unknown_in().is_some()
    }

    /// The table that is unknown, or that has no such column or relation; `None` for errors about anything else.
    pub fn unknown_in(&self) -> Option<&str> {
        match self {
            Error::UnknownTable { table, .. }
            | Error::UnknownColumn { table, .. }
            | Error::UnknownRelation { table, .. } => Some(table),
            Error::Related { error, .. } => error.unknown_in(),
            Error::Malformed(_)
            | Error::TooComplex { .. }
            | Error::TooLong { .. }
            | Error::UnknownOperator { .. }
            | Error::UnknownArgument { .. }
            | Error::WrongType { .. }
            | Error::OutOfRange { .. }
            | Error::Required(_)
            | Error::WhereRequired(_) => None,
        }
    }

    /// Splits off the table of an [`Error::Related`].
    pub fn split_related(self) -> (Self, Option<RelatedTable>) {
        match self {
            Error::Related { table, error } => (*error, Some(table)),
            error => (error, None),
        }
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// The known name that `name` was most likely meant to be, if any is near enough.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let name = truncated(name);
    let mut best: Option<(f64, &str)> = None;
    for candidate in known {
        let likeness = strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
        if likeness > 0.75 && best.is_none_or(|(most, _)| likeness > most) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate.to_owned())
}

/// The beginning of `text`, short enough for a message.
pub(crate) fn truncated(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
