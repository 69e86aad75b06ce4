//! Satisfiability of a policy: whether a caller could pass it with some request.
//!
//! What the caller brings is known (claims, token, project); all else of a request is not: a comparison with it may
//! turn out either way. Schemas that are shown to a caller leave out what they could never do.

use query::Operation;

use super::{Polarity, comparison, row_filter};
use crate::{
    context::RequestContext,
    operand::{Helper, Operand},
    rule::{Condition, Kind, Match, Policy, Rule, Subject},
};

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
    let of_match = |matching: &Match, polarity| is_match_satisfiable(matching, polarity, &request);
    passable(&policy.rule, Polarity::Positive, Some(request.claims.is_some()), &of_match)
        && conditions.into_iter().flatten().all(|condition| has_values(condition, &request))
}

/// Whether some caller with some request could pass the rule.
pub fn is_passable(rule: &Rule, operation: Operation) -> bool {
    passable(rule, Polarity::Positive, None, &|matching, _| {
        operation != Operation::Create || !matches!(matching.subject, Subject::Column { .. })
    })
}

/// Whether the rule passes for some request; `authenticated` is `None` where the caller may be anybody.
fn passable(
    rule: &Rule,
    polarity: Polarity,
    authenticated: Option<bool>,
    of_match: &impl Fn(&Match, Polarity) -> bool,
) -> bool {
    let of = |clause: &Rule| passable(clause, polarity, authenticated, of_match);
    match (&rule.kind, polarity) {
        (Kind::Allow, polarity) => polarity.passes(Some(true)),
        (Kind::Deny, polarity) => polarity.passes(Some(false)),
        (Kind::Authenticated, polarity) => authenticated.is_none_or(|is| polarity.passes(Some(is))),
        // A function may say either.
        (Kind::Func(_), _) => true,
        (Kind::Match(matching), polarity) => of_match(matching, polarity),
        (Kind::Not(inner), polarity) => passable(inner, polarity.negated(), authenticated, of_match),
        (Kind::And(clauses), Polarity::Positive) | (Kind::Or(clauses), Polarity::Negative) => clauses.iter().all(of),
        (Kind::Or(clauses), Polarity::Positive) | (Kind::And(clauses), Polarity::Negative) => clauses.iter().any(of),
    }
}

fn is_match_satisfiable(matching: &Match, polarity: Polarity, request: &RequestContext<'_>) -> bool {
    let operands = matching.test.operands();
    // Where a value is missing, the comparison is undecided, and its negation too.
    if operands.iter().any(|operand| is_known(operand, request) && request.value(operand).is_none()) {
        return false;
    }
    let test_known = operands.iter().all(|operand| is_known(operand, request));
    match &matching.subject {
        Subject::Column { .. } if request.operation == Operation::Create => false,
        Subject::Column { column, .. } if test_known => match row_filter::column_filter(column, matching, request) {
            Some(filter) => polarity == Polarity::Positive || !filter.is_true(),
            None => false,
        },
        Subject::Column { .. } => true,
        Subject::Value(operand) if is_known(operand, request) => match request.value(operand) {
            None => false,
            Some(_) if !test_known => true,
            Some(value) => polarity.passes(comparison::truth(matching.r#type, &value, &matching.test, request)),
        },
        Subject::Value(_) => true,
    }
}

/// Whether the operand's value depends on the caller alone, whatever they ask for and whenever.
fn is_known(operand: &Operand, request: &RequestContext<'_>) -> bool {
    !operand.depends_on_any(&|root| request.is_unknown(root)) && !is_timed(operand)
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
            !predicate.operands().iter().all(|operand| is_known(operand, request))
                || condition.filter(request).is_some()
        }
    }
}
