//! Compiles mutations to `INSERT`, `UPDATE` and `DELETE`.

use std::borrow::Cow;

use query::{Column, Table, Type, Typed, resources::Engine};

use super::{Alias, Dialect, Sql, dialect::Sum, select};
use crate::{
    operand::RequestValue,
    resolve::{ChangeKind, ColumnChange, Cond, Mutation, NewRow},
    store::{Output, Statement},
};

/// Positions of the computed columns in a `RETURNING`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Returned {
    /// The column that says whether the row passes the grant's check.
    pub check: Option<usize>,
    /// The column that says whether the row exists for the caller to read.
    pub visible: Option<usize>,
}

/// The `INSERT` statements of `rows`, in their order: as few as the dialect and its limit of placeholders allow.
pub fn insert(dialect: &Dialect, mutation: &Mutation<'_>, rows: &[NewRow<'_>]) -> (Vec<Statement>, Returned) {
    let mut statements = Vec::new();
    let mut returned = Returned::default();
    let mut rest = rows;
    while !rest.is_empty() {
        let (columns, count) = batch(dialect, mutation, rest);
        let (batch, later) = rest.split_at(count);
        let (statement, of_batch) = insert_batch(dialect, mutation, &columns, batch);
        statements.push(statement);
        // It depends on the mutation alone.
        returned = of_batch;
        rest = later;
    }
    (statements, returned)
}

/// The `UPDATE` of the rows that pass.
pub fn update(
    dialect: &Dialect,
    mutation: &Mutation<'_>,
    cond: &Cond<'_>,
    changes: &[ColumnChange<'_>],
    one: bool,
) -> (Statement, Returned) {
    let mut sql = Sql::writing(dialect, mutation.table);
    set(&mut sql, mutation.table, changes);
    targets(&mut sql, mutation, cond, one);
    let (outputs, returned) = match dialect.returns_updated_rows() {
        true => returning(&mut sql, mutation),
        false => (Vec::new(), Returned::default()),
    };
    (sql.finish(outputs), returned)
}

/// Appends `UPDATE table SET` the changes.
pub(super) fn set(sql: &mut Sql<'_>, table: &Table, changes: &[ColumnChange<'_>]) {
    sql.push("UPDATE ");
    sql.table(table);
    sql.push(" SET ");
    sql.list(", ", changes, |sql, (column, value, how)| {
        sql.name(column);
        sql.push(" = ");
        match how {
            ChangeKind::Set => sql.arg(Typed::clone(value)),
            ChangeKind::Inc => sum(sql, column, value),
        }
    });
}

/// Fails in SQLite with "integer overflow", as no other expression does.
const OVERFLOW: &str = "abs(-9223372036854775808)";

/// Appends the sum of the column and `value`, with its overflow check.
pub(super) fn sum(sql: &mut Sql<'_>, column: &Column, value: &Typed) {
    let unchecked = |sql: &mut Sql<'_>| {
        sql.column(Alias::Target, column);
        sql.push(" + ");
        sql.bind(Typed::clone(value));
        match sql.dialect.engine() {
            Engine::Mysql => sql.exact_last(column),
            Engine::Sqlite | Engine::Postgres => sql.last_arg(),
        }
    };
    let rounded = |sql: &mut Sql<'_>, scale| {
        sql.push("round(");
        unchecked(sql);
        sql.push(", ");
        sql.number(scale);
        sql.push(")");
    };
    match sql.dialect.sum(column) {
        Sum::Unchecked => return unchecked(sql),
        Sum::Integer => {
            sql.push("CASE WHEN typeof(");
            unchecked(sql);
            sql.push(") = typeof(0.5) THEN ");
            sql.push(OVERFLOW);
        }
        Sum::Decimal { integer_digits, scale } => {
            sql.push("CASE WHEN abs(");
            rounded(sql, scale);
            sql.push(") >= 1e");
            sql.number(integer_digits);
            sql.push(" THEN ");
            sql.push(OVERFLOW);
            sql.push(" WHEN typeof(");
            unchecked(sql);
            sql.push(") = typeof(0.5) THEN ");
            rounded(sql, scale);
        }
    }
    sql.push(" ELSE ");
    unchecked(sql);
    sql.push(" END");
}

/// The `DELETE` of the rows that pass.
pub fn delete(dialect: &Dialect, mutation: &Mutation<'_>, cond: &Cond<'_>, one: bool) -> (Statement, Returned) {
    let mut sql = Sql::writing(dialect, mutation.table);
    sql.push("DELETE FROM ");
    sql.table(mutation.table);
    targets(&mut sql, mutation, cond, one);
    let (outputs, returned) = returning(&mut sql, mutation);
    (sql.finish(outputs), returned)
}

/// The columns of the next statement's rows, and how many of `rows` go into it.
fn batch<'s>(dialect: &Dialect, mutation: &Mutation<'_>, rows: &[NewRow<'s>]) -> (Vec<&'s Column>, usize) {
    let first: Vec<&Column> = rows[0].iter().map(|(column, _)| *column).collect();
    if first.is_empty() || rows.len() == 1 {
        return (first, 1);
    }
    let mut columns = first;
    if dialect.has_default_values() {
        for (column, _) in rows.iter().take_while(|row| !row.is_empty()).flatten() {
            if columns.iter().all(|known| known.name != column.name) {
                columns.push(column);
            }
        }
    }
    let joins_batch = |row: &&NewRow<'_>| {
        let is_known = |column: &Column| columns.iter().any(|known| known.name == column.name);
        let has_all = dialect.has_default_values() || row.len() == columns.len();
        !row.is_empty() && has_all && row.iter().all(|(column, _)| is_known(column))
    };
    // What RETURNING binds for the check and the read filter comes on top.
    let own = {
        let mut sql = Sql::writing(dialect, mutation.table);
        returning(&mut sql, mutation);
        sql.args.len()
    };
    let most = (dialect.most_args().saturating_sub(own) / columns.len()).max(1);
    let count = rows.iter().take(most).take_while(joins_batch).count();
    (columns, count)
}

fn insert_batch(
    dialect: &Dialect,
    mutation: &Mutation<'_>,
    columns: &[&Column],
    rows: &[NewRow<'_>],
) -> (Statement, Returned) {
    let sql = Sql::writing(dialect, mutation.table);
    // Where the values of more rows come from is not asked for.
    let mut sql = if rows.len() == 1 { sql.recorded() } else { sql };
    sql.push("INSERT INTO ");
    sql.table(mutation.table);
    if columns.is_empty() {
        sql.push(dialect.no_values());
    } else {
        sql.push(" (");
        sql.list(", ", columns, |sql, column| sql.name(column));
        sql.push(") VALUES ");
        sql.list(", ", rows, |sql, row| {
            sql.push("(");
            sql.list(", ", columns, |sql, column| match row.iter().find(|(given, _)| given.name == column.name) {
                Some((_, value)) => {
                    sql.arg(Typed::clone(value));
                    // Another was typed anew, and is not the value of the request.
                    if let Cow::Borrowed(value) = value {
                        sql.came_from(RequestValue::Stored(value).address(), column);
                    }
                }
                None => sql.push("DEFAULT"),
            });
            sql.push(")");
        });
    }
    let (outputs, returned) = returning(&mut sql, mutation);
    (sql.finish(outputs), returned)
}

/// Appends ` WHERE`, with a subselect of the key where at most one row is written.
fn targets(sql: &mut Sql<'_>, mutation: &Mutation<'_>, cond: &Cond<'_>, one: bool) {
    let table = mutation.table;
    if !one || select::is_one(sql.dialect, table, cond) {
        return sql.filter(Alias::Target, cond);
    }
    if sql.dialect.limits_writes() {
        sql.filter(Alias::Target, cond);
        select::order_by(sql, Alias::Target, table, cond, &[]);
        return sql.push(" LIMIT 1");
    }
    if !has_identity(table) {
        return equal_to_one(sql, table, cond);
    }
    let identity = |sql: &mut Sql<'_>, alias| match table.row_id.as_slice() {
        [] => sql.list(", ", &table.primary_key, |sql, name| sql.hidden(alias, name)),
        hidden => sql.list(", ", hidden, |sql, name| sql.hidden(alias, name)),
    };
    let is_tuple = if table.row_id.is_empty() { table.primary_key.len() > 1 } else { table.row_id.len() > 1 };
    sql.push(if is_tuple { " WHERE (" } else { " WHERE " });
    identity(sql, Alias::Target);
    sql.push(if is_tuple { ") IN (SELECT " } else { " IN (SELECT " });
    let alias = sql.alias_of(table);
    identity(sql, alias);
    one_row(sql, alias, table, cond);
    sql.push(")");
    if sql.dialect.writes_concurrently() && !cond.is_true() {
        sql.push(" AND ");
        sql.cond(Alias::Target, cond);
    }
}

/// Whether something tells each row of `table` from all others.
pub fn has_identity(table: &Table) -> bool {
    !table.primary_key.is_empty() || !table.row_id.is_empty()
}

/// Appends ` WHERE` the row equals the first that passes, in every column that can be read.
fn equal_to_one(sql: &mut Sql<'_>, table: &Table, cond: &Cond<'_>) {
    let columns: Vec<&Column> = table.columns.iter().filter(|column| column.readable).collect();
    sql.push(" WHERE EXISTS (SELECT 1 FROM (SELECT ");
    let (alias, first) = (sql.alias_of(table), sql.alias());
    sql.list(", ", &columns, |sql, column| sql.column(alias, column));
    sql.push(if columns.is_empty() { "1" } else { "" });
    one_row(sql, alias, table, cond);
    sql.push(") AS ");
    sql.named(first);
    sql.push(if columns.is_empty() { "" } else { " WHERE " });
    sql.list(" AND ", &columns, |sql, column| {
        let cast = sql.dialect.equality_cast(column.r#type);
        sql.column(first, column);
        sql.push(cast);
        sql.push(sql.dialect.is_same());
        sql.column(Alias::Target, column);
        sql.push(cast);
    });
    sql.push(")");
}

/// Appends ` FROM table WHERE cond ORDER BY … LIMIT 1`.
fn one_row(sql: &mut Sql<'_>, alias: Alias, table: &Table, cond: &Cond<'_>) {
    sql.push(" FROM ");
    sql.table(table);
    sql.push(" AS ");
    sql.named(alias);
    sql.filter(alias, cond);
    select::order_by(sql, alias, table, cond, &[]);
    sql.push(" LIMIT 1");
}

/// The `SELECT` of the rows that [`delete`] is about to delete, with the result columns of a mutation.
pub fn select_before_delete(
    dialect: &Dialect,
    mutation: &Mutation<'_>,
    cond: &Cond<'_>,
    one: bool,
) -> (Statement, Returned) {
    let mut sql = Sql::new(dialect);
    let alias = sql.alias_of(mutation.table);
    sql.push("SELECT ");
    let (outputs, returned) = results(&mut sql, alias, mutation);
    sql.push(" FROM ");
    sql.table(mutation.table);
    sql.push(" AS ");
    sql.named(alias);
    sql.filter(alias, cond);
    select::order_by(&mut sql, alias, mutation.table, cond, &[]);
    sql.push(if one { " LIMIT 1" } else { "" });
    (sql.finish(outputs), returned)
}

/// Appends ` RETURNING` with what the mutation needs to know of the rows it wrote; nothing where that is only how many.
fn returning(sql: &mut Sql<'_>, mutation: &Mutation<'_>) -> (Vec<Output>, Returned) {
    let is_counted = sql.dialect.counts_writes(mutation.table);
    if mutation.returning.is_none() && mutation.check.is_true() && is_counted {
        return (Vec::new(), Returned::default());
    }
    sql.push(" RETURNING ");
    results(sql, Alias::Target, mutation)
}

/// The columns that the answer needs, then whether the row passes the check, then whether the caller may read it.
pub(super) fn results(sql: &mut Sql<'_>, alias: Alias, mutation: &Mutation<'_>) -> (Vec<Output>, Returned) {
    let mut outputs = Vec::new();
    let mut returned = Returned::default();
    for column in mutation.returning.as_ref().map(select::columns).unwrap_or_default() {
        sql.push(if outputs.is_empty() { "" } else { ", " });
        outputs.push(sql.result(alias, column));
    }
    let everything = Cond::TRUE;
    let visible = mutation.returning.as_ref().map_or(&everything, |node| &node.cond);
    for (cond, place) in [(&mutation.check, &mut returned.check), (visible, &mut returned.visible)] {
        if cond.is_true() {
            continue;
        }
        sql.push(if outputs.is_empty() { "(" } else { ", (" });
        sql.cond(alias, cond);
        sql.push(") IS TRUE");
        *place = Some(outputs.len());
        outputs.push(Type::Bool.into());
    }
    if outputs.is_empty() {
        // A row of which nothing is asked is still a row.
        sql.push("1");
        outputs.push(Type::Int32.into());
    }
    (outputs, returned)
}
