//! Updates whose rows are read back by their keys, where the database does not return them.

use query::{Column, Table, Typed};

use super::{
    Alias, Dialect, Returned, Sql,
    select::{self, tuple},
    write::{results, set, sum},
};
use crate::{
    resolve::{ChangeKind, ColumnChange, Cond, Mutation},
    store::{Output, Rows, Statement},
};

/// Rows that one statement writes, or reads back.
const ROWS_PER_STATEMENT: usize = 1000;

/// An update in three steps: its rows are locked and their keys read, they are written, and they are read back.
pub struct UpdateByKey<'m, 's> {
    dialect: &'m Dialect,
    mutation: &'m Mutation<'s>,
    changes: &'m [ColumnChange<'s>],
    key: Vec<&'s Column>,
    /// Selects the keys before the update, and then those of their columns that are added to, as they are after it.
    pub lock: Statement,
}

/// What an [`UpdateByKey`] runs once its rows are locked.
pub struct KeyedStatements {
    /// They write the rows.
    pub writes: Vec<Statement>,
    /// They read them back, with the columns that `returned` says.
    pub reads: Vec<Statement>,
    /// Positions of what is computed in their results.
    pub returned: Returned,
}

/// The update of the rows that pass, by their keys. `None` where the table has no key that tells each row from all others.
pub fn update_by_key<'m, 's>(
    dialect: &'m Dialect,
    mutation: &'m Mutation<'s>,
    cond: &Cond<'s>,
    changes: &'m [ColumnChange<'s>],
    one: bool,
) -> Option<UpdateByKey<'m, 's>> {
    let key = key(mutation.table)?;
    let mut sql = Sql::writing(dialect, mutation.table);
    sql.push("SELECT ");
    let mut outputs: Vec<Output> = Vec::new();
    sql.list(", ", &key, |sql, column| {
        sql.column(Alias::Target, column);
        outputs.push(Output::of(column));
    });
    for (column, value, _) in added(&key, changes) {
        sql.push(", ");
        sum(&mut sql, column, value);
        outputs.push(Output::of(column));
    }
    sql.push(" FROM ");
    sql.table(mutation.table);
    sql.filter(Alias::Target, cond);
    select::order_by(&mut sql, Alias::Target, mutation.table, cond, &[]);
    sql.push(if one { " LIMIT 1 FOR UPDATE" } else { " FOR UPDATE" });
    let lock = sql.finish(outputs);
    Some(UpdateByKey { dialect, mutation, changes, key, lock })
}

/// The columns of the primary key, or of a unique key that is never null.
fn key(table: &Table) -> Option<Vec<&Column>> {
    let columns = |names: &Vec<String>| -> Option<Vec<&Column>> {
        let columns: Option<Vec<&Column>> = names.iter().map(|name| table.column(name).ok()).collect();
        columns
            .filter(|columns| !columns.is_empty() && columns.iter().all(|column| column.readable && !column.nullable))
    };
    columns(&table.primary_key).or_else(|| table.unique_keys.iter().find_map(columns))
}

/// The changes that add to columns of the key.
fn added<'c, 's>(
    key: &'c [&'s Column],
    changes: &'c [ColumnChange<'s>],
) -> impl Iterator<Item = &'c ColumnChange<'s>> + use<'c, 's> {
    key.iter().filter_map(move |column| change(changes, column).filter(|(_, _, how)| matches!(how, ChangeKind::Inc)))
}

fn change<'c, 's>(changes: &'c [ColumnChange<'s>], column: &Column) -> Option<&'c ColumnChange<'s>> {
    changes.iter().find(|(changed, _, _)| changed.name == column.name)
}

impl UpdateByKey<'_, '_> {
    /// The statements of the rows that were locked.
    pub fn of(&self, locked: &Rows) -> KeyedStatements {
        let keys: Vec<(Vec<Typed>, Vec<Typed>)> = (0..locked.len()).map(|row| self.keys(locked, row)).collect();
        let mut statements = KeyedStatements { writes: Vec::new(), reads: Vec::new(), returned: Returned::default() };
        for chunk in keys.chunks(ROWS_PER_STATEMENT) {
            let mut sql = Sql::writing(self.dialect, self.mutation.table);
            set(&mut sql, self.mutation.table, self.changes);
            sql.push(" WHERE ");
            self.any_key(&mut sql, chunk.iter().map(|(before, _)| before));
            statements.writes.push(sql.finish(Vec::new()));

            let mut sql = Sql::writing(self.dialect, self.mutation.table);
            sql.push("SELECT ");
            let (outputs, returned) = results(&mut sql, Alias::Target, self.mutation);
            sql.push(" FROM ");
            sql.table(self.mutation.table);
            sql.push(" WHERE ");
            self.any_key(&mut sql, chunk.iter().map(|(_, after)| after));
            select::order_by(&mut sql, Alias::Target, self.mutation.table, &Cond::TRUE, &[]);
            statements.reads.push(sql.finish(outputs));
            statements.returned = returned;
        }
        statements
    }

    /// The key of a locked row, and what the update makes of it.
    fn keys(&self, locked: &Rows, row: usize) -> (Vec<Typed>, Vec<Typed>) {
        let value = |at: usize, column: &Column| locked.cell(row, at).typed(column.r#type).unwrap_or(Typed::Null);
        let before: Vec<Typed> = self.key.iter().enumerate().map(|(at, column)| value(at, column)).collect();
        let mut sums = self.key.len()..;
        let after = self.key.iter().zip(&before).map(|(column, before)| match change(self.changes, column) {
            None => before.clone(),
            Some((_, given, ChangeKind::Set)) => Typed::clone(given),
            Some((_, _, ChangeKind::Inc)) => sums.next().map_or(Typed::Null, |at| value(at, column)),
        });
        let after = after.collect();
        (before, after)
    }

    /// Appends the condition that the row's key is one of `keys`. It is compared by its collation, in which it is unique: the
    /// server may have stored it without the spaces at its end.
    fn any_key<'k>(&self, sql: &mut Sql<'_>, keys: impl Iterator<Item = &'k Vec<Typed>>) {
        let mut keys: Vec<&Vec<Typed>> = keys.collect();
        // Few statements are prepared, of which each has its number of keys.
        if let Some(last) = keys.last().copied() {
            keys.resize(keys.len().next_power_of_two(), last);
        }
        tuple(sql, &self.key, |sql, column| sql.column(Alias::Target, column));
        sql.push(" IN (");
        sql.list(", ", keys, |sql, key| {
            sql.push("(");
            sql.list(", ", self.key.iter().zip(key), |sql, (column, value)| {
                sql.bind(value.clone());
                sql.exact_last(column);
            });
            sql.push(")");
        });
        sql.push(")");
    }
}

#[cfg(test)]
mod tests {
    use query::Type;

    use super::*;

    #[test]
    fn a_key_tells_each_row_from_all_others() {
        let column = |name: &str, nullable, readable| {
            let column = Column::new(name, Type::Int32, "int");
            Column { nullable, readable, ..column }
        };
        let columns = || {
            let [a, b] = ["a", "b"].map(|name| column(name, false, true));
            vec![a, b, column("null", true, true), column("hidden", false, false), column("both", true, false)]
        };
        let table = |primary: &[&str], unique: &[&[&str]]| {
            let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let unique_keys = unique.iter().map(|key| names(key)).collect();
            Table { primary_key: names(primary), unique_keys, ..Table::new("t", columns()) }
        };
        let check = |primary: &[&str], unique: &[&[&str]], expected: Option<&[&str]>| {
            let table = table(primary, unique);
            let found = key(&table).map(|key| key.iter().map(|column| column.name.as_str()).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), expected, "{primary:?} {unique:?}");
        };
        check(&["a"], &[&["b"]], Some(&["a"]));
        check(&["b", "a"], &[], Some(&["b", "a"]));
        check(&[], &[&["null"], &["a", "b"]], Some(&["a", "b"]));
        check(&["hidden"], &[&["b"]], Some(&["b"]));
        for unique in [&["a", "null"][..], &["hidden"], &["both"]] {
            check(&[], &[unique], None);
        }
        check(&[], &[], None);
    }
}
