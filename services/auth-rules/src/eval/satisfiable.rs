//! Satisfiability of a rule: whether any request at all could pass it.
//!
//! Schemas that are shown to everybody leave out operations that nobody may do.

use query::Operation;

use super::{Polarity, comparison};
use crate::{
    operand::Operand,
    rule::{Kind, Match, Rule, Subject, Test},
};

/// Whether some caller with some request could pass the rule.
pub fn is_satisfiable(rule: &Rule, operation: Operation) -> bool {
    satisfiable(rule, Polarity::Positive, operation)
}

fn satisfiable(rule: &Rule, polarity: Polarity, operation: Operation) -> bool {
    let every = |clauses: &[Rule]| clauses.iter().all(|clause| satisfiable(clause, polarity, operation));
    let some = |clauses: &[Rule]| clauses.iter().any(|clause| satisfiable(clause, polarity, operation));
    match (&rule.kind, polarity) {
        (Kind::Allow | Kind::Authenticated, Polarity::Positive) | (Kind::Deny, Polarity::Negative) => true,
        // A caller without a token passes the negation, where the policy admits anonymous callers.
        (Kind::Authenticated, Polarity::Negative) => true,
        (Kind::Allow, Polarity::Negative) | (Kind::Deny, Polarity::Positive) => false,
        (Kind::Match(matching), polarity) => is_match_satisfiable(matching, polarity, operation),
        (Kind::Not(inner), polarity) => satisfiable(inner, polarity.negated(), operation),
        (Kind::And(clauses), Polarity::Positive) | (Kind::Or(clauses), Polarity::Negative) => every(clauses),
        (Kind::Or(clauses), Polarity::Positive) | (Kind::And(clauses), Polarity::Negative) => some(clauses),
    }
}

fn is_match_satisfiable(matching: &Match, polarity: Polarity, operation: Operation) -> bool {
    match (&matching.subject, &matching.test) {
        (Subject::Column { .. }, _) => operation != Operation::Create,
        (Subject::Value(Operand::Literal(left)), Test::Compare(comparison, Operand::Literal(right))) => {
            polarity.passes(comparison::compare(matching.r#type, left, *comparison, right))
        }
        // Values of a request are not known before it is made.
        (Subject::Value(_), _) => true,
    }
}
