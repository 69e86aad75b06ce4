//! Limits of one request, and the counters that hold it to them.

use crate::{Error, Field, FieldKind, Value};

/// Limits of one request, the same for every protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels of a selection: the rows of a table are one, the rows of each relation inside them one more.
    pub depth: usize,
    /// Levels of a condition: a comparison is one, each `and`, `or`, `not` and relation around it one more.
    pub filter_depth: usize,
    /// Selected fields, with the comparisons, connectives and relations of conditions.
    pub nodes: usize,
    /// SQL statements: each read, each mutation and each relation selected.
    pub statements: usize,
    /// Items of one list: rows of an insert, candidates of an `in`.
    pub list_items: usize,
    /// Values in inserted rows, in changes and in lists.
    pub values: usize,
}

impl Limits {
    /// The highest `depth` that can be configured.
    pub const MAX_DEPTH: usize = 30;
    /// The highest `filter_depth` that can be configured.
    pub const MAX_FILTER_DEPTH: usize = 16;
    /// Selections and conditions inside one another: a relation that is selected takes one, a level of a condition two.
    ///
    /// protobuf decodes a hundred messages inside one another, and a condition may arrive as a `Struct`, whose levels
    /// take three: a relation of a selection takes three messages, a level of its condition up to six.
    pub const NESTING: usize = 32;
    /// Lists and objects inside one another in a value to write; a protobuf message carries about as many.
    pub const VALUE_DEPTH: usize = 28;
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 16, filter_depth: 16, nodes: 2000, statements: 1000, list_items: 100_000, values: 200_000 }
    }
}

/// The counter of one request: every planner of its parts counts here.
///
/// It counts what is asked for, not how a protocol writes it, so that a request is refused by all protocols or by none.
/// Errors of its methods are `TOO_COMPLEX`, of a list that is too long `TOO_LARGE`.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    limits: Limits,
    nodes: usize,
    statements: usize,
    values: usize,
    /// Depth of the selection that is being parsed, in relations.
    selection_depth: usize,
    /// Depth of the condition that is being parsed, in connectives and relations.
    condition_depth: usize,
}

impl Budget {
    /// A counter that has counted nothing.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A counter that has counted this many values to write or to look for, and nothing else.
    pub fn with_values(limits: Limits, values: usize) -> Self {
        Self { values, ..Self::new(limits) }
    }

    /// The values to write or to look for that it has counted.
    pub fn values(&self) -> usize {
        self.values
    }

    /// The limits that it holds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts a read or a mutation.
    pub fn operation(&mut self) -> Result<(), Error> {
        count("statements", &mut self.statements, self.limits.statements)
    }

    /// Counts a selected field.
    pub fn field(&mut self) -> Result<(), Error> {
        count("nodes", &mut self.nodes, self.limits.nodes)
    }

    /// Begins the rows of a relation that is selected: a level and a statement.
    pub fn enter_relation(&mut self) -> Result<(), Error> {
        self.operation()?;
        self.selection_depth += 1;
        at_most("depth", self.selection_depth + 1, self.limits.depth)
    }

    /// Counts a selection whose cost is known already.
    pub fn selection(&mut self, cost: SelectionCost) -> Result<(), Error> {
        add("nodes", &mut self.nodes, cost.fields, self.limits.nodes)?;
        add("statements", &mut self.statements, cost.relations, self.limits.statements)?;
        let depth = self.selection_depth + 1 + cost.depth;
        at_most("depth", depth.min(self.limits.depth + 1), self.limits.depth)
    }

    /// Fields, conditions and values that were counted.
    #[cfg(test)]
    pub(crate) fn counted(&self) -> usize {
        self.nodes + self.values
    }

    /// Ends the rows of a relation.
    pub fn leave_relation(&mut self) {
        self.selection_depth -= 1;
    }

    /// Counts a comparison, a connective or a relation of a condition.
    pub fn condition(&mut self) -> Result<(), Error> {
        count("nodes", &mut self.nodes, self.limits.nodes)?;
        let depth = self.condition_depth + 1;
        at_most("filter depth", depth, self.limits.filter_depth)?;
        at_most("nesting", self.selection_depth + 2 * depth, Limits::NESTING)
    }

    /// Counts a connective or a relation of a condition, and what `parse` finds inside it as one level deeper.
    pub(crate) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.condition()?;
        self.condition_depth += 1;
        let parsed = parse(self)?;
        self.condition_depth -= 1;
        Ok(parsed)
    }

    /// Counts a list of `items`, which messages call `list`.
    pub(crate) fn list(&mut self, list: impl FnOnce() -> String, items: usize) -> Result<(), Error> {
        let limit = self.limits.list_items;
        match items > limit {
            true => Err(Error::TooLong { list: list(), seen: items, limit }),
            false => Ok(()),
        }
    }

    /// Counts a value to write or to look for, with all that is inside it.
    pub(crate) fn value(&mut self, value: &Value) -> Result<(), Error> {
        self.value_inside(value, 0)
    }

    /// Counts a value around others, such as an inserted row.
    pub(crate) fn row(&mut self) -> Result<(), Error> {
        count("values", &mut self.values, self.limits.values)
    }

    fn value_inside(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        count("values", &mut self.values, self.limits.values)?;
        match value {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => Ok(()),
            Value::List(items) => {
                at_most("depth of a value", depth + 1, Limits::VALUE_DEPTH)?;
                items.iter().try_for_each(|item| self.value_inside(item, depth + 1))
            }
            Value::Object(object) => {
                at_most("depth of a value", depth + 1, Limits::VALUE_DEPTH)?;
                object.0.iter().try_for_each(|(_, member)| self.value_inside(member, depth + 1))
            }
        }
    }
}

/// What a selection without conditions counts for the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SelectionCost {
    /// Fields, at any depth.
    pub fields: usize,
    /// Relations among them.
    pub relations: usize,
    /// Relations inside one another.
    pub depth: usize,
}

impl SelectionCost {
    /// The cost of selecting `fields`.
    pub fn of(fields: &[Field]) -> Self {
        let mut cost = Self { fields: fields.len(), ..Self::default() };
        for field in fields {
            if let FieldKind::Relation { node, .. } = &field.kind {
                let inside = Self::of(&node.fields);
                cost.fields += inside.fields;
                cost.relations += 1 + inside.relations;
                cost.depth = cost.depth.max(1 + inside.depth);
            }
        }
        cost
    }
}

/// Guard of stack and memory while a text or a message is read, before it is known what it asks for.
///
/// Whatever the [`Limits`] of a request allow passes the guard made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    depth: usize,
    tokens: usize,
    seen: usize,
}

impl Guard {
    /// Nesting that recursion can bear on any stack.
    const MAX_DEPTH: usize = 512;
    /// Nesting of texts and messages: more than [`Limits::NESTING`] and [`Limits::VALUE_DEPTH`] need in any protocol.
    const TEXT_DEPTH: usize = 100;

    /// A guard of at most `depth` levels of nesting and `tokens` values, names or tokens.
    pub const fn new(depth: usize, tokens: usize) -> Self {
        let depth = if depth < Self::MAX_DEPTH { depth } else { Self::MAX_DEPTH };
        Self { depth, tokens, seen: 0 }
    }

    /// A guard that lets pass what `limits` allow, however a protocol writes it: a member of an inserted row is a name
    /// and a value, a part of a selection or a condition at most ten names and values.
    pub const fn of(limits: &Limits) -> Self {
        let asked = limits.nodes.saturating_add(limits.statements).saturating_mul(10);
        Self::new(Self::TEXT_DEPTH, limits.values.saturating_mul(2).saturating_add(asked).saturating_add(1000))
    }

    /// Counts a value, a name or a token.
    pub fn token(&mut self) -> Result<(), Error> {
        count("nodes", &mut self.seen, self.tokens)
    }

    /// Refuses a part at `depth` levels of lists, objects or brackets, where that is too deep.
    pub fn depth(&self, depth: usize) -> Result<(), Error> {
        at_most("depth", depth, self.depth)
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

fn count(what: &'static str, seen: &mut usize, limit: usize) -> Result<(), Error> {
    add(what, seen, 1, limit)
}

/// Counts several at once; the error is that of the first over the limit.
fn add(what: &'static str, seen: &mut usize, more: usize, limit: usize) -> Result<(), Error> {
    *seen += more;
    at_most(what, (*seen).min(limit.saturating_add(1)), limit)
}

fn at_most(what: &'static str, seen: usize, limit: usize) -> Result<(), Error> {
    match seen > limit {
        true => Err(Error::TooComplex { what, seen, limit }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_tells_the_limits_that_it_holds() {
        let limits = Limits { nodes: 3, ..Limits::default() };
        let mut budget = Budget::new(limits);
        budget.field().unwrap();
        assert_eq!(*budget.limits(), limits);
    }

    #[test]
    fn a_budget_goes_on_from_the_values_that_were_counted() {
        let limits = Limits { values: 3, ..Limits::default() };
        let mut budget = Budget::with_values(limits, 2);
        assert_eq!((*budget.limits(), budget.values()), (limits, 2));
        budget.row().unwrap();
        assert_eq!(budget.values(), 3);
        assert_eq!(budget.row(), Err(Error::TooComplex { what: "values", seen: 4, limit: 3 }));
    }
}
