//! Evaluation of conditions on rows in memory, with the results that databases give.

use std::cmp::Ordering;

use crate::{Comparison, Filter, Object, Quantifier, Table, Typed, Value, comparable};

/// A row in memory, such as the row image of a change.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Its table.
    pub table: &'a Table,
    /// Its columns; one that is not named is not known.
    pub columns: &'a Object,
    /// The rows that relations lead to; a relation that is not named is not known.
    pub related: &'a [Related<'a>],
}

/// All rows that a relation leads to.
#[derive(Debug, Clone, Copy)]
pub struct Related<'a> {
    /// The relation's name in the schema.
    pub relation: &'a str,
    /// Its rows.
    pub rows: &'a [Row<'a>],
}

impl Filter {
    /// Whether `row` passes, in SQL's three-valued logic: `None` is unknown, and the row does not pass.
    ///
    /// Also unknown is what the row does not tell: a column or relation it does not name, a value that is not of its
    /// column. Texts compare by their code points, whatever the collation of a database.
    pub fn matches(&self, row: &Row) -> Option<bool> {
        match self {
            Filter::And(filters) => every(filters.iter().map(|filter| filter.matches(row))),
            Filter::Or(filters) => not(every(filters.iter().map(|filter| not(filter.matches(row))))),
            Filter::Not(filter) => not(filter.matches(row)),
            Filter::Compare { column, comparison, value } => {
                row.compare(column, value).map(|found| comparison.allows(found))
            }
            Filter::In { column, values } => {
                not(every(values.iter().map(|value| row.compare(column, value).map(Ordering::is_ne))))
            }
            Filter::IsNull { column } => row.columns.get(column).map(|value| matches!(value, Value::Null)),
            Filter::Related { relation, quantifier, filter, .. } => row.related(relation, *quantifier, filter),
        }
    }
}

impl Row<'_> {
    fn compare(&self, column: &str, value: &Typed) -> Option<Ordering> {
        let column = self.table.column(column).ok()?;
        comparable(column, self.columns.get(&column.name)?).ok()?.compare(value)
    }

    /// A related row passes where `filter` is true, as in a subquery: never unknown, once the rows are known and tell
    /// all.
    fn related(&self, relation: &str, quantifier: Quantifier, filter: &Filter) -> Option<bool> {
        let related = self.related.iter().find(|related| related.relation == relation)?;
        let mut passed = related.rows.iter().map(|row| filter.matches(row) == Some(true));
        Some(match quantifier {
            Quantifier::Some => passed.any(|passed| passed),
            Quantifier::None => !passed.any(|passed| passed),
            Quantifier::Every => passed.all(|passed| passed),
        })
    }
}

impl Comparison {
    /// Whether a column that compares with a value as `found` passes.
    pub fn allows(self, found: Ordering) -> bool {
        match self {
            Comparison::Eq => found.is_eq(),
            Comparison::Ne => found.is_ne(),
            Comparison::Gt => found.is_gt(),
            Comparison::Gte => found.is_ge(),
            Comparison::Lt => found.is_lt(),
            Comparison::Lte => found.is_le(),
        }
    }
}

/// False where one is false, else unknown where one is unknown.
fn every(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = Some(true);
    for part in parts {
        match part {
            Some(false) => return Some(false),
            Some(true) => {}
            None => known = None,
        }
    }
    known
}

fn not(known: Option<bool>) -> Option<bool> {
    known.map(|known| !known)
}

#[cfg(test)]
mod tests;
