//! Satisfiability of a policy: whether a caller could pass it with some request.
//!
//! What the caller brings is known (claims, token, project); all else of a request is not: a comparison with it may
//! turn out either way. Schemas that are shown to a caller leave out what they could never do.

use query::Operation;

use super::{Polarity, comparison, row_filter};
use crate::{
    context::RequestContext,
    operand::{Helper, ListOperand, Operand},
    path::Root,
    rule::{ColumnPredicate, Condition, Kind, Match, Policy, Rule, Subject, Test},
};

/// Parts of a request that are not known before it is made.
const UNKNOWN: [Root; 6] = [Root::Op, Root::Find, Root::Doc, Root::Update, Root::Changes, Root::Opts];

/// Whether the caller of `request`, of which only the caller and the operation count, could pass the policy.
pub fn is_satisfiable(policy: &Policy, request: &RequestContext<'_>) -> bool {
    // As an outermost rule, `allow` looks at no token.
    let request = match policy.rule.kind {
        Kind::Allow => RequestContext { claims: None, ..*request },
        _ if request.claims.is_none() && !policy.anonymous => return false,
        _ => *request,
    };
    let (filter, check) = (policy.row_filter.as_ref(), policy.with_check.as_ref());
    let conditions = match request.operation {
        Operation::Create => [None, check],
        Operation::Read | Operation::Delete => [filter, None],
        Operation::Update => [filter, check],
    };
    satisfiable(&policy.rule, Polarity::Positive, &request)
        && conditions.into_iter().flatten().all(|condition| has_values(condition, &request))
}

fn satisfiable(rule: &Rule, polarity: Polarity, request: &RequestContext<'_>) -> bool {
    let every = |clauses: &[Rule]| clauses.iter().all(|clause| satisfiable(clause, polarity, request));
    let some = |clauses: &[Rule]| clauses.iter().any(|clause| satisfiable(clause, polarity, request));
    match (&rule.kind, polarity) {
        (Kind::Allow, polarity) => polarity.passes(Some(true)),
        (Kind::Deny, polarity) => polarity.passes(Some(false)),
        (Kind::Authenticated, polarity) => polarity.passes(Some(request.claims.is_some())),
        (Kind::Match(matching), polarity) => is_match_satisfiable(matching, polarity, request),
        (Kind::Not(inner), polarity) => satisfiable(inner, polarity.negated(), request),
        (Kind::And(clauses), Polarity::Positive) | (Kind::Or(clauses), Polarity::Negative) => every(clauses),
        (Kind::Or(clauses), Polarity::Positive) | (Kind::And(clauses), Polarity::Negative) => some(clauses),
    }
}

fn is_match_satisfiable(matching: &Match, polarity: Polarity, request: &RequestContext<'_>) -> bool {
    let test_known = is_test_known(&matching.test);
    if is_lacking(&matching.test, request) {
        return false;
    }
    match &matching.subject {
        Subject::Column { .. } if request.operation == Operation::Create => false,
        Subject::Column { column, .. } if test_known => match row_filter::column_filter(column, matching, request) {
            Some(filter) => polarity == Polarity::Positive || !filter.is_true(),
            None => false,
        },
        Subject::Column { .. } => true,
        Subject::Value(operand) if is_known(operand) => match request.value(operand) {
            None => false,
            Some(_) if !test_known => true,
            Some(value) => polarity.passes(comparison::truth(matching.r#type, &value, &matching.test, request)),
        },
        Subject::Value(_) => true,
    }
}

/// Whether a value that the comparison needs is known to be missing: then it is undecided, and its negation too.
fn is_lacking(test: &Test, request: &RequestContext<'_>) -> bool {
    let lacks = |operand: &Operand| is_known(operand) && request.value(operand).is_none();
    match test {
        Test::Compare(_, operand) | Test::StartsWith(operand) => lacks(operand),
        Test::In(list) | Test::NotIn(list) => match list {
            ListOperand::Items(items) => items.iter().any(lacks),
            ListOperand::Reference(operand) => lacks(operand),
        },
        Test::IsNull | Test::Matches(_) => false,
    }
}

fn is_test_known(test: &Test) -> bool {
    match test {
        Test::Compare(_, operand) | Test::StartsWith(operand) => is_known(operand),
        Test::In(list) | Test::NotIn(list) => is_list_known(list),
        Test::IsNull | Test::Matches(_) => true,
    }
}

fn is_list_known(list: &ListOperand) -> bool {
    match list {
        ListOperand::Items(items) => items.iter().all(is_known),
        ListOperand::Reference(operand) => is_known(operand),
    }
}

/// Whether the operand's value depends on the caller alone, whatever they ask for and whenever.
fn is_known(operand: &Operand) -> bool {
    !UNKNOWN.iter().any(|root| operand.depends_on(*root)) && !is_timed(operand)
}

fn is_timed(operand: &Operand) -> bool {
    match operand {
        Operand::Literal(_) | Operand::Path(_) | Operand::Helper(Helper::Exists(_)) => false,
        Operand::Helper(Helper::Now) => true,
        Operand::Helper(Helper::Length(of) | Helper::AddDuration(of, _) | Helper::RoundUpDate(of, _)) => is_timed(of),
    }
}

/// Whether the caller has all values that the condition takes of them.
fn has_values(condition: &Condition, request: &RequestContext<'_>) -> bool {
    match condition {
        Condition::And(conditions) | Condition::Or(conditions) => {
            conditions.iter().all(|condition| has_values(condition, request))
        }
        Condition::Column(_, predicate) => {
            let is_known = match predicate {
                ColumnPredicate::Null | ColumnPredicate::NotNull => true,
                ColumnPredicate::Compare(_, operand) => is_known(operand),
                ColumnPredicate::In(list) | ColumnPredicate::NotIn(list) => is_list_known(list),
            };
            !is_known || condition.filter(request).is_some()
        }
    }
}
