//! What the engines do differently.

use query::{Column, Type, resources::Engine};

/// The SQL of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres {
        /// The schema its tables are in.
        schema: String,
    },
}

impl Dialect {
    /// Whose it is.
    pub fn engine(&self) -> Engine {
        match self {
            Dialect::Sqlite => Engine::Sqlite,
            Dialect::Postgres { .. } => Engine::Postgres,
        }
    }

    /// What tables are qualified with.
    pub fn schema(&self) -> Option<&str> {
        match self {
            Dialect::Sqlite => None,
            Dialect::Postgres { schema } => Some(schema),
        }
    }

    /// What stands before the number of a placeholder.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Dialect::Sqlite => "?",
            Dialect::Postgres { .. } => "$",
        }
    }

    /// Placeholders that one statement may have.
    pub fn most_args(&self) -> usize {
        match self {
            Dialect::Sqlite => 32_766,
            Dialect::Postgres { .. } => 65_535,
        }
    }

    /// What stands around one placeholder for a list of values of `type`; `None` where each needs its own.
    pub fn list(&self, r#type: Type) -> Option<(&'static str, &'static str)> {
        match (self, r#type) {
            // JSON has no bytes.
            (Dialect::Sqlite, Type::Bytes) => None,
            // Among them are arrays, which cannot be the items of one.
            (Dialect::Postgres { .. }, Type::Other) => None,
            (Dialect::Sqlite, _) => Some((" IN (SELECT value FROM json_each(", "))")),
            (Dialect::Postgres { .. }, _) => Some((" = ANY(", ")")),
        }
    }

    /// What stands after a result column of `type`.
    pub fn result_cast(&self, r#type: Type) -> &'static str {
        match (self, r#type) {
            (Dialect::Postgres { .. }, Type::Other) => "::text",
            _ => "",
        }
    }

    /// Where nulls go in an order, so that all engines agree: they are greater than everything. PostgreSQL's own
    /// order, whose indexes have it.
    pub fn nulls(&self, column: &Column, descending: bool) -> &'static str {
        match self {
            Dialect::Sqlite if column.nullable && descending => " NULLS FIRST",
            Dialect::Sqlite if column.nullable => " NULLS LAST",
            Dialect::Sqlite | Dialect::Postgres { .. } => "",
        }
    }

    /// What tells rows of a table without a key apart.
    pub fn row_id(&self) -> &'static str {
        match self {
            Dialect::Sqlite => "rowid",
            Dialect::Postgres { .. } => "ctid",
        }
    }

    /// Whether an insert may say `DEFAULT` for a value.
    pub fn has_default_values(&self) -> bool {
        match self {
            Dialect::Sqlite => false,
            Dialect::Postgres { .. } => true,
        }
    }

    /// What makes a select keep others from changing its rows. SQLite has one writer.
    pub fn for_update(&self) -> &'static str {
        match self {
            Dialect::Sqlite => "",
            Dialect::Postgres { .. } => " FOR UPDATE",
        }
    }
}
