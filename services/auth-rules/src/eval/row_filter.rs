//! Row filters: what a comparison with a column, or with a document that is created, demands of rows.

use query::{Comparison, Operation, Quantifier, RuleFilter, resources::MatchMode};

use super::{Polarity, comparison};
use crate::{
    column_path::ColumnPath,
    constraint::Constraint,
    context::{self, RequestContext},
    operand::Operand,
    path::{Root, Step},
    rule::{Match, Test, Type},
};

/// Equality that a match mode requires the client's condition to have on a column.
enum Requirement {
    /// With any value.
    AnyValue,
    /// With a value that passes the comparison.
    PassingValue,
}

/// Whether the client's condition constrains the column as `mode` requires.
pub fn is_constrained(
    column: &ColumnPath,
    mode: MatchMode,
    matching: &Match,
    polarity: Polarity,
    request: &RequestContext<'_>,
) -> bool {
    let requirement = match mode {
        MatchMode::Filter => return true,
        MatchMode::Auto if request.operation == Operation::Read => return true,
        MatchMode::Auto => Requirement::AnyValue,
        MatchMode::Check => Requirement::PassingValue,
    };
    match (request.constraint(&column.names()), requirement) {
        (Constraint::None | Constraint::Other, _) => false,
        (Constraint::Equal(_), Requirement::AnyValue) => true,
        (Constraint::Equal(value), Requirement::PassingValue) => {
            let value = context::value_of(value);
            let truth = value.and_then(|value| comparison::truth(matching.r#type, &value, &matching.test, request));
            polarity.passes(truth)
        }
    }
}

/// The comparison as a filter on the column alone; `None` where its other side has no value of the type.
pub fn column_filter(column: &ColumnPath, matching: &Match, request: &RequestContext<'_>) -> Option<RuleFilter> {
    let r#type = matching.r#type;
    let name = || column.name.clone();
    Some(match &matching.test {
        Test::Compare(comparison, operand) => {
            let value = comparison::parameter(r#type, &*request.value(operand)?)?;
            RuleFilter::Compare { column: name(), comparison: *comparison, value }
        }
        Test::In(list) => {
            let values = comparison::parameters(r#type, list, request)?;
            if values.is_empty() {
                return None;
            }
            RuleFilter::In { column: name(), values }
        }
        Test::NotIn(list) => {
            let values = comparison::parameters(r#type, list, request)?;
            if values.is_empty() {
                return Some(RuleFilter::TRUE);
            }
            RuleFilter::Not(Box::new(RuleFilter::In { column: name(), values }))
        }
        Test::IsNull => RuleFilter::IsNull { column: name() },
        // Not parsed for columns.
        Test::StartsWith(_) | Test::Matches(_) => return None,
    })
}

/// The negation of a filter on a column.
///
/// A row whose column is null passes neither. Over a relation, SQL's `NOT EXISTS` would let such a row pass, and one that
/// has no related row; both are excluded.
pub fn negation(column: &ColumnPath, filter: RuleFilter) -> RuleFilter {
    if column.relations.is_empty() {
        return RuleFilter::Not(Box::new(filter));
    }
    let passing = match filter {
        null @ RuleFilter::IsNull { .. } => null,
        other => RuleFilter::Or(vec![other, RuleFilter::IsNull { column: column.name.clone() }]),
    };
    let exists = column.related(Quantifier::Some, RuleFilter::TRUE);
    RuleFilter::And(vec![exists, column.related(Quantifier::None, passing)])
}

/// The check on the stored row of a document that passed: the database may change it while storing (defaults, triggers).
///
/// Only equality that does not depend on another part of the document is carried over.
pub fn stored_check(subject: &Operand, matching: &Match, request: &RequestContext<'_>) -> RuleFilter {
    let r#type = matching.r#type;
    let filter = match &matching.test {
        _ if r#type == Type::Date => None,
        Test::Compare(Comparison::Eq, other) => {
            let (column, other) = match (document_column(subject), document_column(other)) {
                (Some(column), None) => (column, other),
                (None, Some(column)) => (column, subject),
                (Some(_), Some(_)) | (None, None) => return RuleFilter::TRUE,
            };
            if other.depends_on(Root::Doc) {
                return RuleFilter::TRUE;
            }
            request
                .value(other)
                .and_then(|value| comparison::parameter(r#type, &value))
                .map(|value| RuleFilter::Compare { column: column.to_owned(), comparison: Comparison::Eq, value })
        }
        Test::In(list) => document_column(subject)
            .filter(|_| !list.operands().iter().any(|operand| operand.depends_on(Root::Doc)))
            .and_then(|column| {
                let values = comparison::parameters(r#type, list, request)?;
                Some(RuleFilter::In { column: column.to_owned(), values })
            }),
        Test::Compare(..) | Test::NotIn(_) | Test::IsNull | Test::StartsWith(_) | Test::Matches(_) => None,
    };
    filter.unwrap_or(RuleFilter::TRUE)
}

/// The column of a document that the operand is, where it is all of the column.
fn document_column(operand: &Operand) -> Option<&str> {
    match operand {
        Operand::Path(path) if path.root == Root::Doc => match path.steps.as_slice() {
            [Step::Name(name)] => Some(name),
            _ => None,
        },
        Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => None,
    }
}
