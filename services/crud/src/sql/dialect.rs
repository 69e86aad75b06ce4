//! SQL dialects of the engines.

mod linked;

use std::collections::HashSet;

use query::{Column, Digits, EqualityClass, Table, TableKind, Type, Typed, number::DOUBLE_DIGITS, resources::Engine};

use crate::{
    decimal,
    neighbour::Neighbour,
    store::{MYSQL_ARGS, POSTGRES_ARGS, Rows, SQLITE_ARGS, SQLITE_FORMS, Statement},
};

/// Columns by which a B-tree index that holds every row finds them: PostgreSQL needs to be told when to use one.
const INDEXED: &str = "SELECT c.relname::text, a.attname::text FROM pg_index AS i \
     JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace \
     JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_am AS m ON m.oid = x.relam \
     JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] \
     WHERE n.nspname = $1 AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL";

/// SQL around a value of UUID for each spelling in which SQLite may hold it.
const UUID_SPELLINGS: [(&str, &str); 5] = [
    ("", ""),
    ("upper(", ")"),
    ("replace(", ", '-', '')"),
    ("upper(replace(", ", '-', ''))"),
    ("unhex(replace(", ", '-', ''))"),
];

/// SQL dialect of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres {
        /// The schema its tables are in.
        schema: String,
        /// Other schemas of the same database, to whose tables relations may lead.
        neighbours: Vec<Neighbour>,
        /// Tables and columns that lead an index.
        indexed: HashSet<(String, String)>,
    },
    /// MariaDB.
    Mysql,
}

/// The values of a column that compare with an argument; empty where all do, or where the others have no form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kind {
    /// SQL of the least, with the argument between the parts.
    pub least: &'static [&'static str],
    /// SQL of what lies behind the last, with the argument between the parts.
    pub end: &'static [&'static str],
    /// SQL that says whether a column compares with all of a list: after the first part the column, after the next the
    /// list.
    pub all: &'static [&'static str],
}

/// Overflow check of a sum that a column gets. SQLite, left alone, makes a double of an integer that overflows,
/// and of a decimal what doubles make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// No limits but the engine's own.
    Unchecked,
    /// It must stay an integer.
    Integer,
    /// It is rounded to `scale` digits after the point, and has `integer_digits` before it at most.
    Decimal {
        /// Digits before the point.
        integer_digits: usize,
        /// Digits after it.
        scale: usize,
    },
}

/// Affinity of a column of SQLite, which decides what a comparison with it converts. Source: SQLite, "Datatypes", 4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// What it is compared with becomes a number.
    Numeric,
    /// What it is compared with becomes a text, if it has no affinity.
    Text,
    /// Nothing is converted: a number equals no text.
    Blob,
}

impl Dialect {
    /// The dialect of PostgreSQL, before its indexes are known.
    pub fn postgres(schema: &str, neighbours: Vec<Neighbour>) -> Self {
        Dialect::Postgres { schema: schema.to_owned(), neighbours, indexed: HashSet::new() }
    }

    /// The engine that speaks it.
    pub fn engine(&self) -> Engine {
        match self {
            Dialect::Sqlite => Engine::Sqlite,
            Dialect::Postgres { .. } => Engine::Postgres,
            Dialect::Mysql => Engine::Mysql,
        }
    }

    /// The neighbours of the database.
    pub fn neighbours(&self) -> &[Neighbour] {
        match self {
            Dialect::Sqlite | Dialect::Mysql => &[],
            Dialect::Postgres { neighbours, .. } => neighbours,
        }
    }

    /// Schema of the database's own tables.
    pub fn schema(&self) -> Option<&str> {
        match self {
            Dialect::Sqlite | Dialect::Mysql => None,
            Dialect::Postgres { schema, .. } => Some(schema),
        }
    }

    /// Schema that qualifies the name of `table`.
    pub fn schema_of(&self, table: &Table) -> Option<&str> {
        match &table.database {
            None => self.schema(),
            Some(database) => {
                let neighbour = self.neighbours().iter().find(|neighbour| neighbour.database == *database);
                Some(&neighbour.expect("an introspection finds tables of neighbours only").schema)
            }
        }
    }

    /// Prefix of the number of a placeholder; `None` where placeholders are `?`, each with an argument of its own.
    pub fn placeholder(&self) -> Option<&'static str> {
        match self {
            Dialect::Sqlite => Some("?"),
            Dialect::Postgres { .. } => Some("$"),
            Dialect::Mysql => None,
        }
    }

    /// Quote of names. The driver of MySQL takes a backslash between double quotes for an escape, which the server does not.
    pub fn quote(&self) -> &'static str {
        match self {
            Dialect::Sqlite | Dialect::Postgres { .. } => "\"",
            Dialect::Mysql => "`",
        }
    }

    /// Placeholders that one statement may have.
    pub fn most_args(&self) -> usize {
        match self {
            Dialect::Sqlite => SQLITE_ARGS,
            Dialect::Postgres { .. } => POSTGRES_ARGS,
            Dialect::Mysql => MYSQL_ARGS,
        }
    }

    /// SQL around one placeholder for a list of values of `type`; `None` where each needs its own.
    pub fn list(&self, r#type: Type) -> Option<(&'static str, &'static str)> {
        match (self, r#type) {
            // JSON has no bytes.
            (Dialect::Sqlite, Type::Bytes) => None,
            // Arrays cannot be the items of one, and not every other type has arrays.
            (Dialect::Postgres { .. }, Type::Other | Type::List(_)) => None,
            (Dialect::Mysql, _) => None,
            (Dialect::Sqlite, _) => Some((" IN (SELECT value FROM json_each(", "))")),
            (Dialect::Postgres { .. }, _) => Some((" = ANY(", ")")),
        }
    }

    /// Function that gives a stored value of `type` the form in which it is read; `None` where the database compares
    /// values as they are read.
    pub fn form(&self, r#type: Type) -> Option<&'static str> {
        match self {
            Dialect::Sqlite => SQLITE_FORMS.iter().find(|(of, _)| *of == r#type).map(|(_, name)| *name),
            Dialect::Postgres { .. } | Dialect::Mysql => None,
        }
    }

    /// Whether different values of `type` are never read as equal.
    pub fn is_exact(&self, r#type: Type) -> bool {
        // A boolean of MySQL is a small number: all but 0 are read as true.
        let is_number = matches!((self, r#type), (Dialect::Mysql, Type::Bool));
        self.form(r#type).is_none() && self.spellings(r#type).is_empty() && !is_number
    }

    /// The values that compare with one of `type`, where a column may hold others that compare as they are stored: texts
    /// among numbers, and bytes among texts, which are shown as base64 and have no order with them.
    pub fn kind(&self, r#type: Type) -> Kind {
        const NUMBERS: Kind = Kind { least: &[], end: &["''"], all: &["", " < ''"] };
        const TEXTS: Kind = Kind { least: &[], end: &["x''"], all: &["", " < x''"] };
        const ANY: Kind = Kind {
            least: &["iif(typeof(", ") = 'text', '', -9e999)"],
            end: &["iif(typeof(", ") = 'text', x'', '')"],
            all: &[
                "(",
                " >= '') = (SELECT CASE count(DISTINCT type = 'text') WHEN 1 THEN max(type = 'text') END FROM json_each(",
                "))",
            ],
        };
        match (self, r#type) {
            (Dialect::Sqlite, Type::Int16 | Type::Int32 | Type::Int64 | Type::Float | Type::Decimal) => NUMBERS,
            (Dialect::Sqlite, Type::Text) => TEXTS,
            (Dialect::Sqlite, Type::Any) => ANY,
            (Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql, _) => Kind::default(),
        }
    }

    /// Whether an index holds values that are read as near each other in few ranges.
    pub fn has_ranges(&self, r#type: Type) -> bool {
        match (self, r#type) {
            (Dialect::Sqlite, Type::Timestamp | Type::Date) => true,
            (Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql, _) => false,
        }
    }

    /// SQL around a value of `type` for each spelling in which it may be stored, where they are few enough to look each
    /// up in an index; empty where the value itself is the only one, or where they are many.
    pub fn spellings(&self, r#type: Type) -> &'static [(&'static str, &'static str)] {
        match (self, r#type) {
            (Dialect::Sqlite, Type::Uuid) => &UUID_SPELLINGS,
            (Dialect::Sqlite, Type::Bytes) => &[("", ""), ("CAST(", " AS TEXT)")],
            (Dialect::Sqlite, Type::Any) => &[("", ""), ("perigee_blob(", ")")],
            (Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql, _) => &[],
        }
    }

    /// SQL around a subselect of `other`, one of whose values `column` of `table` has to have.
    ///
    /// PostgreSQL joins an `IN` (reading the tables of the subselect as a whole), but looks the items of an array up in
    /// an index: per tree of 20 artists, their 30 albums and 367 tracks 0.21 against 0.38 ms of its time. Without an
    /// index it would compare every row with every item.
    pub fn subselect(&self, table: &Table, column: &Column, other: &Column) -> (&'static str, &'static str) {
        match self {
            Dialect::Postgres { indexed, .. }
                if column.native == other.native
                    && table.database.is_none()
                    && indexed.contains(&(table.name.clone(), column.name.clone())) =>
            {
                (" = ANY(ARRAY(", "))")
            }
            Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql => self.any_of(),
        }
    }

    /// SQL around a subselect that may have a limit, one of whose rows some columns have to have. MariaDB has no such
    /// subselect with a limit, but a table that is derived from one.
    pub fn any_of(&self) -> (&'static str, &'static str) {
        match self {
            Dialect::Sqlite | Dialect::Postgres { .. } => (" IN (", ")"),
            Dialect::Mysql => (" IN (SELECT * FROM (", ") AS \"q\")"),
        }
    }

    /// Whether the database takes values of two columns for equal exactly where they are equal as [`Rows::key`] has them.
    pub fn joins_exactly(&self, column: &Column, other: &Column) -> bool {
        let equality = &column.equality;
        let is_plain = match self {
            Dialect::Sqlite => equality.collation.is_none(),
            Dialect::Postgres { .. } | Dialect::Mysql => true,
        };
        is_plain && equality.class != EqualityClass::Database && *equality == other.equality
    }

    /// Name of the collation that columns without another have.
    pub fn default_collation(&self) -> &'static str {
        match self {
            Dialect::Sqlite => "BINARY",
            Dialect::Postgres { .. } => "\"default\"",
            Dialect::Mysql => "utf8mb4_bin",
        }
    }

    /// Cast of a column that refers to `referenced`, by which its foreign key compares it. PostgreSQL's `=` compares a
    /// text with a padded one as texts.
    pub fn key_cast(&self, column: &Column, referenced: &Column) -> &'static str {
        let is_padded = referenced.native.starts_with("character(") || referenced.native == "bpchar";
        match self {
            Dialect::Postgres { .. } if is_padded && column.native == "text" => "::bpchar",
            Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql => "",
        }
    }

    /// Affinity that a value has lost which `column` had, where a comparison with `other` depends on it.
    pub fn lost_affinity(&self, column: &Column, other: &Column) -> Option<Affinity> {
        use EqualityClass::{Bytes, Database, Number, Text};
        match (self, column.equality.class, other.equality.class) {
            (Dialect::Sqlite, Number, Text | Bytes | Database) => Some(Affinity::Numeric),
            (Dialect::Sqlite, Text, Database) => Some(Affinity::Text),
            (Dialect::Sqlite, Bytes, Text) => Some(Affinity::Blob),
            (Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql, ..) => None,
        }
    }

    /// SQL around the key called `"k0"` by which keys differ that the database takes for equal, and may read otherwise.
    pub fn key_identity(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Dialect::Sqlite => &[("typeof(", ")"), ("", " COLLATE BINARY")],
            Dialect::Postgres { .. } => &[("pg_catalog.concat(", ") COLLATE \"C\"")],
            Dialect::Mysql => &[("CAST(", " AS BINARY)")],
        }
    }

    /// The query whose rows [`Dialect::learn_indexes`] takes.
    pub fn index_query(&self) -> Option<Statement> {
        match self {
            Dialect::Sqlite | Dialect::Mysql => None,
            Dialect::Postgres { schema, .. } => Some(Statement {
                text: INDEXED.into(),
                args: vec![Typed::Text(schema.clone()).into()],
                columns: vec![Type::Text.into(), Type::Text.into()].into(),
                sources: Vec::new(),
                plain: None,
            }),
        }
    }

    /// Learns the indexes of a database from the rows of [`Dialect::index_query`].
    pub fn learn_indexes(&mut self, rows: &Rows) {
        let text = |row, column| rows.cell(row, column).text().unwrap_or_default();
        match self {
            Dialect::Sqlite | Dialect::Mysql => {}
            Dialect::Postgres { indexed, .. } => {
                *indexed = (0..rows.len()).map(|row| (text(row, 0), text(row, 1))).collect();
            }
        }
    }

    /// Cast after a result of `column`, of a type that the driver does not know or would have to ask for.
    pub fn result_cast(&self, column: &Column) -> &'static str {
        match (self, column.r#type) {
            (Dialect::Postgres { .. }, Type::Other) => "::text",
            (Dialect::Postgres { .. }, Type::Text) if column.native.ends_with("citext") => "::text",
            (Dialect::Postgres { .. }, Type::List(Type::Other)) => "::text[]",
            _ => "",
        }
    }

    /// Position of nulls in an order, so that all engines agree: they are greater than everything. PostgreSQL's own
    /// order, whose indexes have it.
    pub fn nulls(&self, may_be_null: bool, descending: bool) -> &'static str {
        match self {
            Dialect::Sqlite if may_be_null && descending => " NULLS FIRST",
            Dialect::Sqlite if may_be_null => " NULLS LAST",
            Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql => "",
        }
    }

    /// Whether an order has no words for the position of nulls, and takes a key of its own for them.
    pub fn sorts_nulls_by_key(&self) -> bool {
        match self {
            Dialect::Sqlite | Dialect::Postgres { .. } => false,
            Dialect::Mysql => true,
        }
    }

    /// SQL around the number of rows in a `LIMIT`. A plain parameter there makes SQLite compile the statement again
    /// at each call, to plan for its value: a third of the time of a read by key.
    pub fn limit(&self) -> (&'static str, &'static str) {
        match self {
            Dialect::Sqlite => (" LIMIT CAST(", " AS INTEGER)"),
            Dialect::Postgres { .. } | Dialect::Mysql => (" LIMIT ", ""),
        }
    }

    /// Whether a row may be written by others between its selection and its lock. The server checks the conditions on the
    /// row that is written once more then, and not those of a subselect.
    pub fn writes_concurrently(&self) -> bool {
        match self {
            Dialect::Sqlite => false,
            Dialect::Postgres { .. } | Dialect::Mysql => true,
        }
    }

    /// SQL after a column for whether it is null. MariaDB's `IS NULL` is true of days `0000-00-00` that must not be null.
    pub fn is_null(&self, column: &Column) -> &'static str {
        match self {
            Dialect::Mysql if !column.nullable && matches!(column.r#type, Type::Date | Type::Timestamp) => " <=> NULL",
            Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql => " IS NULL",
        }
    }

    /// Comparison of two values, in which null equals null.
    pub fn is_same(&self) -> &'static str {
        match self {
            Dialect::Sqlite => " IS ",
            Dialect::Postgres { .. } => " IS NOT DISTINCT FROM ",
            Dialect::Mysql => " <=> ",
        }
    }

    /// Cast after a value of `type` that is compared with another of its column: not all types have an equality.
    pub fn equality_cast(&self, r#type: Type) -> &'static str {
        match (self, r#type) {
            (Dialect::Postgres { .. }, Type::Json | Type::Other) => "::text",
            (Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql, _) => "",
        }
    }

    /// Whether the engine says how many rows of `table` a statement wrote. SQLite counts none that triggers of a view
    /// take.
    pub fn counts_writes(&self, table: &Table) -> bool {
        !matches!((self, table.kind), (Dialect::Sqlite, TableKind::View))
    }

    /// Whether a delete returns its rows with what they were related to. In SQLite, which has one writer, what is read
    /// before it is what it deletes; its `RETURNING` is evaluated after the cascade.
    pub fn returns_rows_as_deleted(&self) -> bool {
        match self {
            Dialect::Sqlite => false,
            Dialect::Postgres { .. } | Dialect::Mysql => true,
        }
    }

    /// Whether an update returns the rows that it wrote. MariaDB's does not: they are read by their keys.
    pub fn returns_updated_rows(&self) -> bool {
        match self {
            Dialect::Sqlite | Dialect::Postgres { .. } => true,
            Dialect::Mysql => false,
        }
    }

    /// Whether an update and a delete take a limit of rows.
    pub fn limits_writes(&self) -> bool {
        match self {
            Dialect::Sqlite | Dialect::Postgres { .. } => false,
            Dialect::Mysql => true,
        }
    }

    /// SQL of the values of a row of which nothing is given.
    pub fn no_values(&self) -> &'static str {
        match self {
            Dialect::Sqlite | Dialect::Postgres { .. } => " DEFAULT VALUES",
            Dialect::Mysql => " () VALUES ()",
        }
    }

    /// Whether an insert may say `DEFAULT` for a value.
    pub fn has_default_values(&self) -> bool {
        match self {
            Dialect::Sqlite => false,
            Dialect::Postgres { .. } | Dialect::Mysql => true,
        }
    }

    /// Checks that a column stores `value` without loss.
    ///
    /// Errors: `OUT_OF_RANGE`.
    pub fn check_stored(&self, column: &Column, value: &Typed) -> Result<(), query::Error> {
        match (self, value) {
            (Dialect::Sqlite, Typed::Decimal(text)) => decimal::check_sqlite_digits(column, text),
            // SQLite makes NULL of it.
            (Dialect::Sqlite, Typed::Float(number)) if number.is_nan() => {
                let expected = "number, which NaN is not in SQLite".to_owned();
                Err(query::Error::OutOfRange { name: column.name.clone(), expected })
            }
            (Dialect::Mysql, Typed::Float(number)) if !number.is_finite() => {
                let expected = "number, which NaN and infinities are not in MariaDB".to_owned();
                Err(query::Error::OutOfRange { name: column.name.clone(), expected })
            }
            // The server rounds it.
            (Dialect::Mysql, Typed::Decimal(text))
                if column.equality.class == EqualityClass::Integer && text.contains('.') =>
            {
                let expected = "integer".to_owned();
                Err(query::Error::WrongType { name: column.name.clone(), expected, found: "decimal".to_owned() })
            }
            // The server takes them for years of this century and the last.
            (Dialect::Mysql, Typed::Int(1..=99)) if column.native.starts_with("year") => {
                let expected = "year of four digits".to_owned();
                Err(query::Error::OutOfRange { name: column.name.clone(), expected })
            }
            (Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql, _) => Ok(()),
        }
    }

    /// Overflow check of a sum that `column` gets.
    pub fn sum(&self, column: &Column) -> Sum {
        match (self, column.r#type, column.digits()) {
            (Dialect::Sqlite, Type::Int16 | Type::Int32 | Type::Int64, _) => Sum::Integer,
            (Dialect::Sqlite, _, Some(Digits { precision, scale })) => {
                Sum::Decimal { integer_digits: precision.min(DOUBLE_DIGITS).saturating_sub(scale), scale }
            }
            (Dialect::Sqlite | Dialect::Postgres { .. } | Dialect::Mysql, ..) => Sum::Unchecked,
        }
    }
}

#[cfg(test)]
mod tests;
