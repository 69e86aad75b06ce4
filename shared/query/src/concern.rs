//! Concerns of a read: which rows of which tables its answer depends on, as far as memory can tell.

use std::borrow::Cow;

use crate::{
    Error, Field, FieldKind, Filter, Matching, Node, Quantifier, Read, Relation, RuleFilter, Schema, Table, Type, Typed,
};

/// Values of a list by which a relation narrows what a read depends on; a longer one narrows nothing.
const PINNED_MAX: usize = 128;

/// Rows of one table on which the answer to a read depends.
#[derive(Debug, Clone, PartialEq)]
pub struct Concern<'a> {
    /// The id of the table's database where that is a neighbour; `None`: that of the read.
    pub database: Option<&'a str>,
    /// The table.
    pub table: &'a Table,
    /// A condition that memory decides on. A change of a row that passes it neither before nor after leaves the answer as
    /// it is.
    pub filter: Filter,
}

/// What a read depends on, an item for each of its accesses and in their order; `grants` are the conditions of the rules
/// for those.
///
/// A row of the table of a node counts where it passes the node's condition and that of its grant, and, below a relation,
/// has the values that the rows above are asked for by. One of a condition on a relation counts where it passes the inner
/// condition: it is the rows that pass which decide, except where all have to.
///
/// Errors: as of [`crate::read_accesses`].
pub fn read_concerns<'a>(
    schema: &'a Schema,
    read: &'a Read,
    grants: &[&RuleFilter],
) -> Result<Vec<Concern<'a>>, Error> {
    let mut walk = ConcernWalk { schema, grants, concerns: Vec::new() };
    walk.node(schema.table(&read.table)?, &read.node, Filter::TRUE)?;
    Ok(walk.concerns)
}

struct ConcernWalk<'a, 'g> {
    schema: &'a Schema,
    /// Of the accesses.
    grants: &'g [&'g RuleFilter],
    concerns: Vec<Concern<'a>>,
}

impl<'a> ConcernWalk<'a, '_> {
    /// A node whose rows have to pass `joined`, the values of the rows above.
    fn node(&mut self, table: &'a Table, node: &'a Node, joined: Filter) -> Result<(), Error> {
        let rows = self.concern(table, Some(&node.filter), joined);
        self.filter(table, &node.filter, &rows)?;
        for Field { kind, .. } in node.fields.iter() {
            if let FieldKind::Relation { name, node } = kind {
                let relation = table.relation(name)?;
                let far = self.schema.target(relation)?;
                self.node(far, node, joined_values(table, far, relation, &rows))?;
            }
        }
        Ok(())
    }

    /// The conditions on relations within `filter`, on rows that have to pass `rows` too.
    fn filter(&mut self, table: &'a Table, filter: &'a Filter, rows: &Filter) -> Result<(), Error> {
        match filter {
            Filter::And(filters) | Filter::Or(filters) => {
                filters.iter().try_for_each(|filter| self.filter(table, filter, rows))
            }
            Filter::Not(filter) => self.filter(table, filter, rows),
            Filter::Related { relation, quantifier, filter, .. } => {
                let relation = table.relation(relation)?;
                let far = self.schema.target(relation)?;
                let inner = match quantifier {
                    Quantifier::Some | Quantifier::None => Some(&**filter),
                    // A row that does not pass decides.
                    Quantifier::Every => None,
                };
                let joined = joined_values(table, far, relation, rows);
                let rows = self.concern(far, inner, joined);
                self.filter(far, filter, &rows)
            }
            Filter::Compare { .. } | Filter::In { .. } | Filter::IsNull { .. } => Ok(()),
        }
    }

    /// Notes the next access; the condition on its rows.
    fn concern(&mut self, table: &'a Table, asked: Option<&Filter>, joined: Filter) -> Filter {
        let granted = self.grants.get(self.concerns.len()).map(|granted| granted.decidable(table));
        // A condition that does not fit the table narrows nothing.
        let granted = granted.and_then(|granted| granted.typed(table).ok()).unwrap_or(Filter::TRUE);
        let asked = asked.map_or(Filter::TRUE, |asked| asked.decidable(table).into_owned());
        let filter = asked.and(granted).and(joined);
        let filter = if filter.is_open() { Filter::TRUE } else { filter };
        self.concerns.push(Concern { database: table.database.as_deref(), table, filter: filter.clone() });
        filter
    }
}

impl<V: Clone> Filter<V> {
    /// The part of the condition that memory decides on: a row that does not pass it does not pass the condition.
    pub fn decidable(&self, table: &Table) -> Cow<'_, Self> {
        if self.undecidable(table).is_none() {
            return Cow::Borrowed(self);
        }
        let parts = |filters: &[Self]| filters.iter().map(|filter| filter.decidable(table).into_owned()).collect();
        Cow::Owned(match self {
            Filter::And(filters) => {
                let mut parts: Vec<Self> = parts(filters);
                parts.retain(|part| !part.is_open());
                Filter::And(parts)
            }
            Filter::Or(filters) => {
                let parts: Vec<Self> = parts(filters);
                if parts.iter().any(Filter::is_open) { Filter::TRUE } else { Filter::Or(parts) }
            }
            _ => Filter::TRUE,
        })
    }

    /// Whether nothing is left of a condition: it has no part that a row could fail.
    fn is_open(&self) -> bool {
        matches!(self, Filter::And(filters) if filters.iter().all(Filter::is_open))
    }
}

/// The condition that the rows that `relation` leads to have the values by which rows of `near` are asked for.
fn joined_values(near: &Table, far: &Table, relation: &Relation, rows: &Filter) -> Filter {
    let value = |(near_name, far_name): &(String, String)| {
        let (one, other) = (near.column(near_name).ok()?, far.column(far_name).ok()?);
        let is_decided = one.abilities.matching != Matching::None
            && other.abilities.matching != Matching::None
            && (one.r#type == other.r#type || is_integer(one.r#type) && is_integer(other.r#type));
        let values = is_decided.then(|| pinned(rows, near_name))??;
        Some(Filter::In { column: far_name.clone(), values })
    };
    Filter::And(relation.on.iter().filter_map(value).collect())
}

fn is_integer(r#type: Type) -> bool {
    matches!(r#type, Type::Int16 | Type::Int32 | Type::Int64)
}

/// The values of which a row that passes has one in `column`, where the condition says so.
fn pinned(filter: &Filter, name: &str) -> Option<Vec<Typed>> {
    use crate::Comparison::Eq;
    match filter {
        Filter::And(filters) => filters.iter().find_map(|filter| pinned(filter, name)),
        Filter::Compare { column, comparison: Eq, value } if column == name => Some(vec![value.clone()]),
        Filter::In { column, values } if column == name && values.len() <= PINNED_MAX => Some(values.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
