//! Evaluation of a rule against a request: a verdict, and the row filter that comes with it.
//!
//! Logic is three-valued (Kleene): a comparison whose value is missing or of another type is undecided, and neither it
//! nor its negation passes. A `not` is therefore pushed down to the comparisons (negation normal form).

use query::{Operation, Quantifier, RuleFilter};

use crate::{
    context::RequestContext,
    rule::{Kind, Match, Rule, Subject},
};

mod comparison;
mod row_filter;
mod satisfiable;

pub use satisfiable::{is_passable, is_satisfiable};

/// The outcome of a rule before its rows are known.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<'r> {
    /// Allowed for rows that pass: those that are read or changed, or those that a create stores.
    Where(RuleFilter),
    /// Refused, with the rule's own error text where it has one.
    Deny(Option<&'r str>),
}

/// Polarity of an expression: whether it stands under an even or an odd number of `not`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polarity {
    Positive,
    Negative,
}

impl<'r> Verdict<'r> {
    const ALLOW: Verdict<'r> = Verdict::Where(RuleFilter::TRUE);
    const DENY: Verdict<'r> = Verdict::Deny(None);
}

impl Polarity {
    fn negated(self) -> Self {
        match self {
            Polarity::Positive => Polarity::Negative,
            Polarity::Negative => Polarity::Positive,
        }
    }

    /// Whether an expression of this truth value passes; an undecided one never does.
    fn passes(self, truth: Option<bool>) -> bool {
        match self {
            Polarity::Positive => truth == Some(true),
            Polarity::Negative => truth == Some(false),
        }
    }

    fn verdict<'r>(self, truth: Option<bool>) -> Verdict<'r> {
        if self.passes(truth) { Verdict::ALLOW } else { Verdict::DENY }
    }
}

/// The verdict of `rule` on the request.
pub fn verdict<'r>(rule: &'r Rule, request: &RequestContext<'_>) -> Verdict<'r> {
    evaluate(rule, Polarity::Positive, request)
}

fn evaluate<'r>(rule: &'r Rule, polarity: Polarity, request: &RequestContext<'_>) -> Verdict<'r> {
    let verdict = match &rule.kind {
        Kind::Allow => polarity.verdict(Some(true)),
        Kind::Deny => polarity.verdict(Some(false)),
        Kind::Authenticated => polarity.verdict(Some(request.claims.is_some())),
        Kind::Match(matching) => evaluate_match(matching, polarity, request),
        Kind::Func(asked) => polarity.verdict(request.ask(asked)),
        Kind::Not(inner) => evaluate(inner, polarity.negated(), request),
        Kind::And(clauses) => match polarity {
            Polarity::Positive => conjunction(clauses, polarity, request),
            Polarity::Negative => disjunction(clauses, polarity, request),
        },
        Kind::Or(clauses) => match polarity {
            Polarity::Positive => disjunction(clauses, polarity, request),
            Polarity::Negative => conjunction(clauses, polarity, request),
        },
    };
    match (verdict, polarity, rule.error.as_deref()) {
        (Verdict::Deny(_), Polarity::Positive, Some(error)) => Verdict::Deny(Some(error)),
        // An error text explains why its rule fails; here the rule passed and its negation fails.
        (Verdict::Deny(_), Polarity::Negative, _) => Verdict::DENY,
        (verdict, ..) => verdict,
    }
}

fn conjunction<'r>(clauses: &'r [Rule], polarity: Polarity, request: &RequestContext<'_>) -> Verdict<'r> {
    let mut filter = RuleFilter::TRUE;
    for clause in clauses {
        match evaluate(clause, polarity, request) {
            Verdict::Where(more) => filter = filter.and(more),
            Verdict::Deny(error) => return Verdict::Deny(error),
        }
    }
    Verdict::Where(filter)
}

fn disjunction<'r>(clauses: &'r [Rule], polarity: Polarity, request: &RequestContext<'_>) -> Verdict<'r> {
    let mut filters = Vec::new();
    let mut last_error = None;
    for clause in clauses {
        match evaluate(clause, polarity, request) {
            Verdict::Where(filter) if filter.is_true() => return Verdict::ALLOW,
            Verdict::Where(filter) => filters.push(filter),
            Verdict::Deny(error) => last_error = error,
        }
    }
    match filters.len() {
        0 => Verdict::Deny(last_error),
        1 => Verdict::Where(filters.remove(0)),
        _ => Verdict::Where(RuleFilter::Or(filters)),
    }
}

fn evaluate_match<'r>(matching: &Match, polarity: Polarity, request: &RequestContext<'_>) -> Verdict<'r> {
    match &matching.subject {
        Subject::Value(operand) => {
            let value = request.value(operand);
            let truth = value.and_then(|value| comparison::truth(matching.r#type, &value, &matching.test, request));
            match (polarity.verdict(truth), polarity, request.operation) {
                (Verdict::Where(_), Polarity::Positive, Operation::Create) => {
                    Verdict::Where(row_filter::stored_check(operand, matching, request))
                }
                (verdict, ..) => verdict,
            }
        }
        Subject::Column { column, mode } => {
            let is_create = request.operation == Operation::Create;
            let mode = mode.unwrap_or(request.mode);
            if is_create || !row_filter::is_constrained(column, mode, matching, polarity, request) {
                return Verdict::DENY;
            }
            let Some(filter) = row_filter::column_filter(column, matching, request) else { return Verdict::DENY };
            match polarity {
                Polarity::Positive => Verdict::Where(column.related(Quantifier::Some, filter)),
                Polarity::Negative if filter.is_true() => Verdict::DENY,
                Polarity::Negative => Verdict::Where(row_filter::negation(column, filter)),
            }
        }
    }
}
