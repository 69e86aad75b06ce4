//! Constraints: what a client's condition guarantees about a column in every row that it selects.

use query::{Comparison, Filter, Quantifier, Typed};

/// The constraint that a condition puts on one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint<'a> {
    /// None that holds for every row.
    None,
    /// Equality with a value.
    Equal(&'a Typed),
    /// Any other.
    Other,
}

impl<'a> Constraint<'a> {
    /// The constraint of `filter` on the column that `keys` lead to, over relations.
    pub fn of<K: AsRef<str>>(filter: &'a Filter, keys: &[K]) -> Constraint<'a> {
        let [first, rest @ ..] = keys else { return Constraint::None };
        let is_column = |name: &str| rest.is_empty() && name == first.as_ref();
        match filter {
            Filter::And(all) => all.iter().map(|one| Self::of(one, keys)).fold(Constraint::None, Self::and),
            Filter::Compare { column, comparison: Comparison::Eq, value } if is_column(column) => {
                Constraint::Equal(value)
            }
            Filter::IsNull { column } if is_column(column) => Constraint::Equal(&Typed::Null),
            Filter::Compare { column, .. } | Filter::In { column, .. } if is_column(column) => Constraint::Other,
            Filter::Not(inner) if Self::of(inner, keys) != Constraint::None => Constraint::Other,
            Filter::Related { relation, long_name, quantifier, filter } => {
                let is_meant =
                    [Some(relation), long_name.as_ref()].into_iter().flatten().any(|name| name == first.as_ref());
                match quantifier {
                    _ if is_meant && rest.is_empty() => Constraint::Other,
                    Quantifier::Some if is_meant => Self::of(filter, rest),
                    Quantifier::Some | Quantifier::None | Quantifier::Every => Constraint::None,
                }
            }
            Filter::Compare { .. } | Filter::In { .. } | Filter::IsNull { .. } | Filter::Not(_) | Filter::Or(_) => {
                Constraint::None
            }
        }
    }

    /// The constraint of two conditions that both hold; equality with two different values is not relied on.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Constraint::None, constraint) | (constraint, Constraint::None) => constraint,
            (Constraint::Equal(one), Constraint::Equal(other)) if one != other => Constraint::Other,
            (Constraint::Equal(value), _) | (_, Constraint::Equal(value)) => Constraint::Equal(value),
            (Constraint::Other, Constraint::Other) => Constraint::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(column: &str, comparison: Comparison, value: i64) -> Filter {
        Filter::Compare { column: column.to_owned(), comparison, value: Typed::Int(value) }
    }

    #[test]
    fn a_constraint_holds_for_every_row() {
        let equal = |_| Constraint::Equal(&Typed::Int(1));
        let or = Filter::Or(vec![compare("a", Comparison::Eq, 1)]);
        let related = |quantifier| Filter::Related {
            relation: "invoice".to_owned(),
            long_name: Some("invoice_by_customer_id".to_owned()),
            quantifier,
            filter: Box::new(compare("a", Comparison::Eq, 1)),
        };
        for (filter, keys, expected) in [
            (compare("a", Comparison::Eq, 1), &["a"][..], equal(1)),
            (compare("a", Comparison::Gt, 1), &["a"], Constraint::Other),
            (compare("b", Comparison::Eq, 1), &["a"], Constraint::None),
            (Filter::IsNull { column: "a".to_owned() }, &["a"], Constraint::Equal(&Typed::Null)),
            (Filter::In { column: "a".to_owned(), values: vec![] }, &["a"], Constraint::Other),
            (Filter::Not(Box::new(compare("a", Comparison::Eq, 1))), &["a"], Constraint::Other),
            (or.clone(), &["a"], Constraint::None),
            (Filter::And(vec![or, compare("a", Comparison::Eq, 1)]), &["a"], equal(1)),
            (Filter::And(vec![compare("a", Comparison::Lt, 9), compare("a", Comparison::Eq, 1)]), &["a"], equal(1)),
            (
                Filter::And(vec![compare("a", Comparison::Eq, 2), compare("a", Comparison::Eq, 1)]),
                &["a"],
                Constraint::Other,
            ),
            (related(Quantifier::Some), &["invoice", "a"], equal(1)),
            (related(Quantifier::Some), &["invoice"], Constraint::Other),
            (related(Quantifier::Some), &["invoice_by_customer_id", "a"], equal(1)),
            (related(Quantifier::None), &["invoice_by_customer_id"], Constraint::Other),
            (related(Quantifier::None), &["invoice", "a"], Constraint::None),
            (related(Quantifier::Some), &["a"], Constraint::None),
            (related(Quantifier::Some), &["customer", "a"], Constraint::None),
            (compare("a", Comparison::Eq, 1), &["a", "b"], Constraint::None),
            (Filter::IsNull { column: "b".to_owned() }, &["a"], Constraint::None),
            (Filter::In { column: "b".to_owned(), values: vec![] }, &["a"], Constraint::None),
            (Filter::Not(Box::new(compare("b", Comparison::Eq, 1))), &["a"], Constraint::None),
            (compare("a", Comparison::Eq, 1), &[], Constraint::None),
        ] {
            assert_eq!(Constraint::of(&filter, keys), expected, "{filter:?}");
        }
    }
}
