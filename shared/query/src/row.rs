//! Evaluation of conditions on rows in memory, with the results that databases give.

use std::cmp::Ordering;

use crate::{
    Column, Comparison, Error, Filter, Matching, Object, Quantifier, RuleFilter, Table, Type, Typed, Value, comparable,
};

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

impl<V> Filter<V> {
    /// The first column or relation by which rows of `table` in memory cannot be told apart as in their database: its
    /// values compare in another way there, or it leads to rows of another table. `None` where [`Filter::matches`] has the
    /// result of the database for every row.
    pub fn undecidable(&self, table: &Table) -> Option<&str> {
        let matching = |name: &str| table.column(name).map_or(Matching::None, |column| column.abilities.matching);
        match self {
            Filter::And(filters) | Filter::Or(filters) => filters.iter().find_map(|filter| filter.undecidable(table)),
            Filter::Not(filter) => filter.undecidable(table),
            Filter::Compare { column, comparison: Comparison::Eq | Comparison::Ne, .. } | Filter::In { column, .. } => {
                (matching(column) == Matching::None).then_some(column)
            }
            Filter::Compare { column, .. } => (matching(column) != Matching::All).then_some(column),
            Filter::IsNull { column } => {
                // The null of JSON is read as that of SQL is.
                let is_json = |column: &Column| column.r#type == Type::Json;
                table.column(column).map_or(true, is_json).then_some(column)
            }
            Filter::Related { relation, .. } => Some(relation),
        }
    }
}

impl RuleFilter {
    /// The condition with its values in the form of the columns of `table`.
    ///
    /// Errors: `UNKNOWN_COLUMN`, `WRONG_TYPE`, `OUT_OF_RANGE`; `UNKNOWN_RELATION` for any relation.
    pub fn typed(&self, table: &Table) -> Result<Filter, Error> {
        let all = |filters: &[RuleFilter]| filters.iter().map(|filter| filter.typed(table)).collect::<Result<_, _>>();
        Ok(match self {
            Filter::And(filters) => Filter::And(all(filters)?),
            Filter::Or(filters) => Filter::Or(all(filters)?),
            Filter::Not(filter) => Filter::Not(Box::new(filter.typed(table)?)),
            Filter::Compare { column: name, comparison, value } => {
                let value = comparable(table.column(name)?, value)?;
                Filter::Compare { column: name.clone(), comparison: *comparison, value }
            }
            Filter::In { column: name, values } => {
                let column = table.column(name)?;
                let values = values.iter().map(|value| comparable(column, value)).collect::<Result<_, _>>()?;
                Filter::In { column: name.clone(), values }
            }
            Filter::IsNull { column } => Filter::IsNull { column: table.column(column)?.name.clone() },
            Filter::Related { relation, .. } => {
                let (table, relation) = (table.name.clone(), relation.clone());
                return Err(Error::UnknownRelation { table, relation, nearest: None });
            }
        })
    }
}

impl Row<'_> {
    fn compare(&self, column: &str, value: &Typed) -> Option<Ordering> {
        let column = self.table.column(column).ok()?;
        held(column, self.columns.get(&column.name)?)?.compare(value)
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

/// A value as a row of the column holds it; `None` where it is not of the column's type, or null.
pub(crate) fn held(column: &Column, value: &Value) -> Option<Typed> {
    match (column.r#type, value) {
        // A database may hold what no client could send: a NUL character, a number outside of the declared width.
        (Type::Text, Value::Text(text)) => Some(Typed::Text(text.clone())),
        (Type::Int16 | Type::Int32 | Type::Int64, Value::Int(number)) => Some(Typed::Int(*number)),
        (Type::Int16 | Type::Int32 | Type::Int64, Value::Number(text)) => text.parse().ok().map(Typed::Float),
        _ => comparable(column, value).ok(),
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
