//! Conditions on rows.

use crate::{Typed, Value};

/// A condition on a row of one table, with SQL's three-valued logic: it may be neither true nor false where a value is
/// null, and then the row does not pass.
///
/// Its values are typed where it is planned against a schema; those of a [`RuleFilter`] are not.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter<V = Typed> {
    /// All hold; empty is true.
    And(Vec<Filter<V>>),
    /// One holds; empty is false.
    Or(Vec<Filter<V>>),
    /// Negation; unknown stays unknown.
    Not(Box<Filter<V>>),
    /// A column against a value that is not null and can be compared.
    Compare {
        /// The column's name.
        column: String,
        /// How they compare.
        comparison: Comparison,
        /// The other side.
        value: V,
    },
    /// The column equals one of the values, none of which is null; empty is false.
    In {
        /// The column's name.
        column: String,
        /// Candidates.
        values: Vec<V>,
    },
    /// The column is null.
    IsNull {
        /// The column's name.
        column: String,
    },
    /// A condition on the rows a relation leads to.
    Related {
        /// The relation's name in the schema.
        relation: String,
        /// Its long name, if it has one, by which rules may mean it too.
        long_name: Option<String>,
        /// How many of them must pass.
        quantifier: Quantifier,
        /// What they must pass.
        filter: Box<Filter<V>>,
    },
}

/// A condition that a rule puts on rows. Rules know no schema: its values are typed where they meet their columns.
pub type RuleFilter = Filter<Value>;

/// How a column compares with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal; unknown where the column is null.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

/// How many related rows must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantifier {
    /// At least one passes.
    Some,
    /// None passes.
    None,
    /// None fails; one for which the condition is unknown fails.
    Every,
}

impl<V> Filter<V> {
    /// The condition that every row passes.
    pub const TRUE: Self = Filter::And(Vec::new());
    /// The condition that no row passes.
    pub const FALSE: Self = Filter::Or(Vec::new());

    /// `self` and `other`.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Filter::And(none), other) | (other, Filter::And(none)) if none.is_empty() => other,
            (Filter::And(mut all), other) => {
                all.push(other);
                Filter::And(all)
            }
            (one, other) => Filter::And(vec![one, other]),
        }
    }

    /// `self` or `other`.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Filter::Or(none), other) | (other, Filter::Or(none)) if none.is_empty() => other,
            (one, other) if one.is_true() || other.is_true() => Self::TRUE,
            (Filter::Or(mut all), other) => {
                all.push(other);
                Filter::Or(all)
            }
            (one, other) => Filter::Or(vec![one, other]),
        }
    }

    /// Whether the condition is the empty conjunction, which asks for nothing.
    pub fn is_true(&self) -> bool {
        matches!(self, Filter::And(all) if all.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null(column: &str) -> Filter {
        Filter::IsNull { column: column.to_owned() }
    }

    #[test]
    fn a_conjunction_is_flat_and_leaves_out_what_asks_for_nothing() {
        let both = || Filter::And(vec![null("a"), null("b")]);
        for (one, other, expected) in [
            (Filter::TRUE, Filter::TRUE, Filter::TRUE),
            (Filter::TRUE, null("a"), null("a")),
            (null("a"), Filter::TRUE, null("a")),
            (Filter::TRUE, both(), both()),
            (both(), Filter::TRUE, both()),
            (null("a"), null("b"), both()),
            (both(), null("c"), Filter::And(vec![null("a"), null("b"), null("c")])),
            (null("c"), both(), Filter::And(vec![null("c"), both()])),
            (Filter::FALSE, null("a"), Filter::And(vec![Filter::FALSE, null("a")])),
        ] {
            assert_eq!(one.clone().and(other.clone()), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_disjunction_is_flat_and_nothing_where_one_asks_for_nothing() {
        let both = || Filter::Or(vec![null("a"), null("b")]);
        for (one, other, expected) in [
            (Filter::FALSE, null("a"), null("a")),
            (null("a"), Filter::FALSE, null("a")),
            (Filter::TRUE, null("a"), Filter::TRUE),
            (both(), Filter::TRUE, Filter::TRUE),
            (null("a"), null("b"), both()),
            (both(), null("c"), Filter::Or(vec![null("a"), null("b"), null("c")])),
        ] {
            assert_eq!(one.clone().or(other.clone()), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn only_the_empty_conjunction_asks_for_nothing() {
        assert!(Filter::<Typed>::TRUE.is_true());
        for filter in [Filter::FALSE, Filter::And(vec![Filter::TRUE]), Filter::Or(vec![Filter::TRUE]), null("a")] {
            assert!(!filter.is_true(), "{filter:?}");
        }
    }
}
