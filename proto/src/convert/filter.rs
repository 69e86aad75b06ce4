//! Filters.

use query::{Comparison, Error, Filter, Quantifier};
use wire::{filter::Kind, value::Kind as ValueKind};

use super::{all, each, member, members, required};
use crate::wire::query::v1 as wire;

members!(Comparison, wire::Operator, "compare.operator", { Eq, Ne, Gt, Gte, Lt, Lte });
members!(Quantifier, wire::Quantifier, "related.quantifier", { Some, None, Every });

impl<V: Into<wire::Value>> From<Filter<V>> for wire::Filter {
    fn from(filter: Filter<V>) -> Self {
        let kind = match filter {
            Filter::And(filters) => Kind::And(wire::Filters { filters: each(filters) }),
            Filter::Or(filters) => Kind::Or(wire::Filters { filters: each(filters) }),
            Filter::Not(filter) => Kind::Not(Box::new((*filter).into())),
            Filter::Compare { column, comparison, value } => Kind::Compare(wire::Compare {
                column,
                operator: wire::Operator::from(comparison).into(),
                value: Some(value.into()),
            }),
            Filter::In { column, values } => Kind::In(wire::In { column, values: each(values) }),
            Filter::IsNull { column } => Kind::IsNull(wire::IsNull { column }),
            Filter::Related { relation, long_name, quantifier, filter } => Kind::Related(Box::new(wire::Related {
                relation,
                long_name: long_name.unwrap_or_default(),
                quantifier: wire::Quantifier::from(quantifier).into(),
                filter: Some(Box::new((*filter).into())),
            })),
        };
        Self { kind: Some(kind) }
    }
}

impl<V: TryFrom<wire::Value, Error = Error>> TryFrom<wire::Filter> for Filter<V> {
    type Error = Error;

    fn try_from(filter: wire::Filter) -> Result<Self, Error> {
        Ok(match required(filter.kind, "filter.kind")? {
            Kind::And(filters) => Filter::And(all(filters.filters)?),
            Kind::Or(filters) => Filter::Or(all(filters.filters)?),
            Kind::Not(filter) => Filter::Not(Box::new((*filter).try_into()?)),
            Kind::Compare(compare) => Filter::Compare {
                column: compare.column,
                comparison: member::<wire::Operator, _>(compare.operator, "compare.operator")?,
                value: comparable(required(compare.value, "compare.value")?, "compare.value")?,
            },
            Kind::In(within) => {
                let values = within.values.into_iter().map(|value| comparable(value, "in.values"));
                Filter::In { column: within.column, values: values.collect::<Result<_, _>>()? }
            }
            Kind::IsNull(is_null) => Filter::IsNull { column: is_null.column },
            Kind::Related(related) => {
                let filter = required(related.filter, "related.filter")?;
                Filter::Related {
                    relation: related.relation,
                    long_name: Some(related.long_name).filter(|name| !name.is_empty()),
                    quantifier: member::<wire::Quantifier, _>(related.quantifier, "related.quantifier")?,
                    filter: Box::new((*filter).try_into()?),
                }
            }
        })
    }
}

/// A condition that may be absent: then every row passes.
pub fn present<V: TryFrom<wire::Value, Error = Error>>(filter: Option<wire::Filter>) -> Result<Filter<V>, Error> {
    filter.map_or(Ok(Filter::TRUE), Filter::try_from)
}

/// Absent where every row passes.
pub fn absent<V: Into<wire::Value>>(filter: Filter<V>) -> Option<wire::Filter> {
    (!filter.is_true()).then(|| filter.into())
}

/// What a column can be compared with.
fn comparable<V: TryFrom<wire::Value, Error = Error>>(value: wire::Value, name: &str) -> Result<V, Error> {
    let found = match value.kind {
        Some(ValueKind::Null(_)) => "null",
        Some(ValueKind::Object(_)) => "object",
        Some(ValueKind::Json(_)) => "JSON",
        _ => return value.try_into(),
    };
    Err(Error::WrongType {
        name: name.to_owned(),
        expected: "string, number or boolean".to_owned(),
        found: found.to_owned(),
    })
}
