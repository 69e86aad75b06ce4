//! What the engines do differently.

use std::collections::HashSet;

use query::{Column, Table, Type, resources::Engine};

use crate::{
    bind::Bind,
    decimal::{self, DOUBLE_DIGITS, Digits},
    store::{POSTGRES_ARGS, Rows, SQLITE_ARGS, Statement},
};

/// Columns by which a B-tree index that holds every row finds them: PostgreSQL needs to be told when to use one.
const INDEXED: &str = "SELECT c.relname::text, a.attname::text FROM pg_index AS i \
     JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace \
     JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_am AS m ON m.oid = x.relam \
     JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] \
     WHERE n.nspname = $1 AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL";

/// The SQL of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres {
        /// The schema its tables are in.
        schema: String,
        /// Tables and columns that lead an index.
        indexed: HashSet<(String, String)>,
    },
}

/// What keeps a sum within what its column can hold. SQLite, left alone, makes a double of an integer that overflows,
/// and of a decimal what doubles make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// The engine itself, or nothing does.
    Unchecked,
    /// It must stay an integer.
    Integer,
    /// It is rounded to `scale` digits after the point, and has `whole` before it at most.
    Decimal {
        /// Digits before the point.
        whole: usize,
        /// Digits after it.
        scale: usize,
    },
}

impl Dialect {
    /// PostgreSQL's, of which nothing is known yet.
    pub fn postgres(schema: &str) -> Self {
        Dialect::Postgres { schema: schema.to_owned(), indexed: HashSet::new() }
    }

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
            Dialect::Postgres { schema, .. } => Some(schema),
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
            Dialect::Sqlite => SQLITE_ARGS,
            Dialect::Postgres { .. } => POSTGRES_ARGS,
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

    /// What stands around a subselect of the values that `column` of `table` has to have one of; `other` is what it
    /// selects.
    ///
    /// PostgreSQL joins an `IN` (reading the tables of the subselect as a whole), but looks the items of an array up in
    /// an index: per tree of 20 artists, their 30 albums and 367 tracks 0.21 against 0.38 ms of its time. Without an
    /// index it would compare every row with every item.
    pub fn subselect(&self, table: &Table, column: &Column, other: &Column) -> (&'static str, &'static str) {
        match self {
            Dialect::Postgres { indexed, .. }
                if column.native == other.native && indexed.contains(&(table.name.clone(), column.name.clone())) =>
            {
                (" = ANY(ARRAY(", "))")
            }
            Dialect::Sqlite | Dialect::Postgres { .. } => (" IN (", ")"),
        }
    }

    /// What [`Dialect::learn_indexes`] wants to know.
    pub fn index_query(&self) -> Option<Statement> {
        match self {
            Dialect::Sqlite => None,
            Dialect::Postgres { schema, .. } => Some(Statement {
                text: INDEXED.into(),
                args: vec![Bind::Text(schema.clone())],
                columns: vec![Type::Text.into(), Type::Text.into()],
            }),
        }
    }

    /// The dialect of a database that answered [`Dialect::index_query`] with `rows`.
    pub fn learn_indexes(&mut self, rows: &Rows) {
        let text = |row, column| rows.cell(row, column).text().unwrap_or_default();
        match self {
            Dialect::Sqlite => {}
            Dialect::Postgres { indexed, .. } => {
                *indexed = (0..rows.len()).map(|row| (text(row, 0), text(row, 1))).collect();
            }
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

    /// What stands around the number of rows at most. A plain parameter there makes SQLite compile the statement again
    /// at each call, to plan for its value: a third of the time of a read by key.
    pub fn limit(&self) -> (&'static str, &'static str) {
        match self {
            Dialect::Sqlite => (" LIMIT CAST(", " AS INTEGER)"),
            Dialect::Postgres { .. } => (" LIMIT ", ""),
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

    /// That a column keeps `value` as it is.
    ///
    /// Errors: `OUT_OF_RANGE`.
    pub fn check_stored(&self, column: &Column, value: &Bind) -> Result<(), query::Error> {
        match (self, value) {
            (Dialect::Sqlite, Bind::Decimal(text)) => decimal::check_sqlite_digits(column, text),
            (Dialect::Sqlite | Dialect::Postgres { .. }, _) => Ok(()),
        }
    }

    /// How a sum that `column` gets is kept within what the column can hold.
    pub fn sum(&self, column: &Column) -> Sum {
        match (self, column.r#type, decimal::digits(column)) {
            (Dialect::Sqlite, Type::Int16 | Type::Int32 | Type::Int64, _) => Sum::Integer,
            (Dialect::Sqlite, _, Some(Digits { precision, scale })) => {
                Sum::Decimal { whole: precision.min(DOUBLE_DIGITS).saturating_sub(scale), scale }
            }
            (Dialect::Sqlite | Dialect::Postgres { .. }, ..) => Sum::Unchecked,
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
