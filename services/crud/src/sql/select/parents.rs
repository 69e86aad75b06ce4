//! Levels whose keys only the database can compare: each is joined with the list of its parents' keys, and answers of
//! every row the key as that parent has it.

use std::collections::HashSet;

use query::{Type, Typed, resources::Engine};

use super::super::dialect::Affinity;
use super::{Alias, KeyUse, Levels, ParentLink, Source, Sql};
use crate::{
    bind::{Bind, Stored},
    cell::{Cell, KeyForm},
    resolve::JoinPair,
    store::{Output, Rows},
};

impl Levels<'_, '_> {
    /// Whether the keys of `on` are equal exactly where [`Rows::key`] says so, and can be listed as values of their type
    /// where `is_root` is the parent whose rows are known.
    pub(super) fn is_exact(&self, on: &[JoinPair<'_>], at: &[usize], is_root: bool) -> bool {
        let is_exact = on.iter().all(|pair| self.dialect.joins_exactly(pair.own, pair.far));
        match self.source {
            Source::Rows { rows, kept, .. } if is_exact && is_root => on.iter().zip(at).all(|(pair, at)| {
                let is_listed = |row: &usize| match self.dialect.engine() {
                    Engine::Sqlite => is_plain(pair.own.r#type, rows, *row, *at),
                    Engine::Postgres | Engine::Mysql => true,
                };
                pair.own.r#type == pair.far.r#type && kept.iter().all(is_listed)
            }),
            Source::Rows { .. } | Source::Written { .. } | Source::Query { .. } => is_exact,
        }
    }

    /// Appends the parents' keys as a table called `parents`, which has `"k0"`, `"k1"`…; and a number of its rows, `"n"`.
    pub(super) fn parents(&self, sql: &mut Sql<'_>, above: &ParentLink<'_, '_>, parents: Alias) {
        let count = above.on.len();
        sql.push("(SELECT ");
        names(sql, count);
        sql.push(", row_number() OVER () AS \"n\" FROM (");
        match self.values(above) {
            Some(values) => list(sql, above, values),
            None => {
                sql.push("SELECT DISTINCT ");
                names(sql, count);
                for index in 0..count {
                    for (before, after) in self.dialect.key_identity() {
                        sql.push(", ");
                        sql.push(before);
                        sql.numbered("\"k", index);
                        sql.push(after);
                    }
                }
                sql.push(" FROM (");
                self.parent_keys(sql, above, KeyUse::Named);
                sql.push(") AS \"q\"");
            }
        }
        sql.push(") AS \"d\") AS ");
        sql.named(parents);
    }

    /// Appends the condition that the key of `alias` is that of a row of `parents`.
    pub(super) fn on_parents(&self, sql: &mut Sql<'_>, above: &ParentLink<'_, '_>, parents: Alias, alias: Alias) {
        let is_listed = self.values(above).is_some();
        sql.list(" AND ", above.on.iter().enumerate(), |sql, (index, pair)| {
            let affinity = if is_listed { self.dialect.lost_affinity(pair.own, pair.far) } else { None };
            if let Some(affinity) = affinity {
                sql.push("CASE WHEN typeof(");
                parent_key(sql, parents, index);
                sql.push(match affinity {
                    Affinity::Numeric | Affinity::Blob => ") IN ('integer', 'real') THEN ",
                    Affinity::Text => ") = 'text' THEN ",
                });
                with_affinity(sql, (parents, index), (alias, pair), affinity);
                sql.push(" ELSE ");
            }
            sql.far_key(alias, pair);
            sql.push(" = ");
            parent_key(sql, parents, index);
            sql.own_key(pair);
            sql.push(if affinity.is_some() { " END" } else { "" });
        });
    }

    /// Appends the condition that a parent has the row's key, which no `IN` can say.
    pub(super) fn exists_in_parents(&self, sql: &mut Sql<'_>, above: &ParentLink<'_, '_>, alias: Alias) {
        let parents = sql.alias();
        sql.push("EXISTS (SELECT 1 FROM ");
        self.parents(sql, above, parents);
        sql.push(" WHERE ");
        self.on_parents(sql, above, parents, alias);
        sql.push(")");
    }

    /// The rows of the parents, where they are known and not asked for.
    fn values(&self, above: &ParentLink<'_, '_>) -> Option<(&Rows, &[usize])> {
        match (self.source, &above.context.above) {
            (Source::Rows { rows, kept, .. }, None) => Some((rows, kept)),
            (Source::Rows { .. } | Source::Written { .. } | Source::Query { .. }, _) => None,
        }
    }
}

/// Appends the parents' keys as results.
pub(super) fn results(sql: &mut Sql<'_>, above: &ParentLink<'_, '_>, parents: Alias) -> Vec<Output> {
    let mut outputs = Vec::with_capacity(above.on.len());
    sql.list(", ", above.on.iter().enumerate(), |sql, (index, pair)| {
        parent_key(sql, parents, index);
        outputs.push(sql.result_of(pair.own));
    });
    outputs
}

/// Appends the comparison with a parent's key of a storage class that an affinity has to do with.
fn with_affinity(
    sql: &mut Sql<'_>,
    (parents, index): (Alias, usize),
    (alias, pair): (Alias, &JoinPair<'_>),
    affinity: Affinity,
) {
    let after = match affinity {
        Affinity::Numeric => " AS NUMERIC)",
        Affinity::Text => " AS TEXT)",
        Affinity::Blob => return sql.push("FALSE"),
    };
    sql.far_key(alias, pair);
    sql.push(" = CAST(");
    parent_key(sql, parents, index);
    sql.push(after);
}

/// Appends a column of the parents' keys.
pub(super) fn parent_key(sql: &mut Sql<'_>, parents: Alias, index: usize) {
    sql.named(parents);
    sql.push(".");
    sql.numbered("\"k", index);
}

fn names(sql: &mut Sql<'_>, count: usize) {
    sql.list(", ", 0..count, |sql, index| sql.numbered("\"k", index));
}

/// Appends the select of keys that are known, each once.
fn list(sql: &mut Sql<'_>, above: &ParentLink<'_, '_>, (rows, kept): (&Rows, &[usize])) {
    let at = above.context.positions(above.on.iter().map(|pair| pair.own));
    let mut seen = HashSet::new();
    let key = |row: &usize| -> Option<Vec<_>> {
        at.iter().map(|column| rows.key(*row, *column, KeyForm::Identical)).collect()
    };
    let once: Vec<usize> = kept.iter().copied().filter(|row| key(row).is_some_and(|key| seen.insert(key))).collect();
    match sql.dialect.engine() {
        Engine::Postgres => unnested(sql, above, &at, rows, &once),
        Engine::Sqlite => stored(sql, &at, rows, &once),
        Engine::Mysql => sql.exact_keys(&Vec::from_iter(above.on.iter().map(|pair| pair.own)), &at, (rows, &once)),
    }
}

/// Appends PostgreSQL's select of keys: texts, cast to the types of the parent's columns.
fn unnested(sql: &mut Sql<'_>, above: &ParentLink<'_, '_>, at: &[usize], rows: &Rows, once: &[usize]) {
    sql.push("SELECT ");
    sql.list(", ", above.on.iter().enumerate(), |sql, (index, pair)| {
        sql.push("\"v\".");
        sql.numbered("\"k", index);
        sql.push("::");
        sql.native_type(pair.own);
        sql.push(" AS ");
        sql.numbered("\"k", index);
    });
    sql.push(" FROM unnest(");
    sql.list(", ", above.on.iter().zip(at), |sql, (pair, at)| {
        let values: Vec<Typed> = once.iter().filter_map(|row| rows.cell(*row, *at).typed(pair.own.r#type)).collect();
        sql.arg(Bind::List(values));
        sql.push("::text[]");
    });
    sql.push(") AS \"v\"(");
    names(sql, at.len());
    sql.push(")");
}

/// Appends SQLite's select of keys, as they are stored.
fn stored(sql: &mut Sql<'_>, at: &[usize], rows: &Rows, once: &[usize]) {
    if once.is_empty() {
        sql.push("SELECT ");
        return sql.list(", ", 0..at.len(), |sql, index| {
            sql.push("NULL AS ");
            sql.numbered("\"k", index);
        });
    }
    sql.push("SELECT ");
    sql.list(", ", 0..at.len(), |sql, index| {
        sql.numbered("\"column", index + 1);
        sql.push(" AS ");
        sql.numbered("\"k", index);
    });
    sql.push(" FROM (VALUES ");
    sql.list(", ", once, |sql, row| {
        sql.push("(");
        sql.list(", ", at.iter().filter_map(|column| rows.stored(*row, *column)), Sql::arg);
        sql.push(")");
    });
    sql.push(")");
}

/// Whether a value of SQLite is the same after it was bound as one of `type`.
fn is_plain(r#type: Type, rows: &Rows, row: usize, column: usize) -> bool {
    match (r#type, rows.stored(row, column)) {
        (Type::Int64 | Type::Text, None) | (Type::Int64, Some(Stored::Int(_))) => true,
        (Type::Text, Some(Stored::Text(bytes))) => {
            matches!(rows.cell(row, column), Cell::Text(text) if text.as_bytes() == bytes) && !bytes.contains(&0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{budget::Room, store::sqlite::SqliteRows};

    /// The only value of `SELECT expression`, read as of `type`.
    fn value(r#type: Type, expression: &str) -> Rows {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare(&format!("SELECT {expression}")).unwrap();
        let room = Room { bytes: 1000, limit: 1000 };
        let columns = Arc::new([Output::from(r#type)]);
        Rows::Sqlite(SqliteRows::collect(columns, statement.query([]).unwrap(), room).unwrap())
    }

    #[test]
    fn keys_are_listed_where_binding_does_not_change_them() {
        for (r#type, expression, expected) in [
            (Type::Int64, "1", true),
            (Type::Int64, "NULL", true),
            (Type::Int64, "1.0", false),
            (Type::Int64, "'1'", false),
            (Type::Text, "'a'", true),
            (Type::Text, "''", true),
            (Type::Text, "NULL", true),
            (Type::Text, "1", false),
            (Type::Text, "x'61'", false),
            // SQLite reads a text to its end, and many of its functions to the first NUL character.
            (Type::Text, "CAST(x'610062' AS TEXT)", false),
            (Type::Text, "CAST(x'61ff' AS TEXT)", false),
            (Type::Float, "1.5", false),
            (Type::Float, "NULL", false),
        ] {
            assert_eq!(is_plain(r#type, &value(r#type, expression), 0, 0), expected, "{expression} as {:?}", r#type);
        }
    }
}
