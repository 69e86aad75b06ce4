//! From a rule and a request to what is granted.
//!
//! Logic is three-valued: what cannot be decided, because a value is missing or of another type, fails, and so does its
//! opposite. A `not` is therefore never evaluated as such: it is carried down to the comparisons.

use std::{borrow::Cow, cmp::Ordering};

use query::{Comparison, Filter, Operation, Quantifier, Value, resources::MatchMode};

use crate::{
    date,
    facts::{Facts, Said},
    number,
    operand::{Known, Operand},
    path::{Root, Step},
    rule::{Column, Kind, List, Match, Rule, Subject, Test, Type},
};

/// What a rule says of a request before its rows are known.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<'r> {
    /// Allowed for rows that pass: those that are asked for, or those that a create stores.
    Where(Filter),
    /// Refused, and what the rule tells the caller, if it does.
    Deny(Option<&'r str>),
}

/// Whether a rule or its opposite is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sense {
    Straight,
    Opposite,
}

impl<'r> Verdict<'r> {
    const ALLOW: Verdict<'r> = Verdict::Where(Filter::TRUE);
    const DENY: Verdict<'r> = Verdict::Deny(None);

    fn of(allowed: bool) -> Self {
        if allowed { Self::ALLOW } else { Self::DENY }
    }
}

impl Sense {
    fn turned(self) -> Self {
        match self {
            Sense::Straight => Sense::Opposite,
            Sense::Opposite => Sense::Straight,
        }
    }

    /// The verdict on something that was decided to be `truth`, or could not be decided.
    fn verdict<'r>(self, truth: Option<bool>) -> Verdict<'r> {
        match (self, truth) {
            (Sense::Straight, Some(truth)) => Verdict::of(truth),
            (Sense::Opposite, Some(truth)) => Verdict::of(!truth),
            (Sense::Straight | Sense::Opposite, None) => Verdict::DENY,
        }
    }
}

/// What `rule` says of the request.
pub fn verdict<'r>(rule: &'r Rule, facts: &Facts<'_>) -> Verdict<'r> {
    ask(rule, Sense::Straight, facts)
}

fn ask<'r>(rule: &'r Rule, sense: Sense, facts: &Facts<'_>) -> Verdict<'r> {
    let verdict = match &rule.kind {
        Kind::Allow => sense.verdict(Some(true)),
        Kind::Deny => sense.verdict(Some(false)),
        Kind::Authenticated => sense.verdict(Some(facts.claims.is_some())),
        Kind::Match(matching) => matched(matching, sense, facts),
        Kind::Not(inner) => ask(inner, sense.turned(), facts),
        Kind::And(clauses) => match sense {
            Sense::Straight => all(clauses, sense, facts),
            Sense::Opposite => any(clauses, sense, facts),
        },
        Kind::Or(clauses) => match sense {
            Sense::Straight => any(clauses, sense, facts),
            Sense::Opposite => all(clauses, sense, facts),
        },
    };
    match (verdict, sense, rule.error.as_deref()) {
        (Verdict::Deny(_), Sense::Straight, Some(error)) => Verdict::Deny(Some(error)),
        // Its text says why the rule fails, and here it did not.
        (Verdict::Deny(_), Sense::Opposite, _) => Verdict::DENY,
        (verdict, ..) => verdict,
    }
}

fn all<'r>(clauses: &'r [Rule], sense: Sense, facts: &Facts<'_>) -> Verdict<'r> {
    let mut filter = Filter::TRUE;
    for clause in clauses {
        match ask(clause, sense, facts) {
            Verdict::Where(more) => filter = filter.and(more),
            Verdict::Deny(error) => return Verdict::Deny(error),
        }
    }
    Verdict::Where(filter)
}

fn any<'r>(clauses: &'r [Rule], sense: Sense, facts: &Facts<'_>) -> Verdict<'r> {
    let mut filters = Vec::new();
    let mut last = None;
    for clause in clauses {
        match ask(clause, sense, facts) {
            Verdict::Where(filter) if filter.is_true() => return Verdict::ALLOW,
            Verdict::Where(filter) => filters.push(filter),
            Verdict::Deny(error) => last = error,
        }
    }
    match filters.len() {
        0 => Verdict::Deny(last),
        1 => Verdict::Where(filters.remove(0)),
        _ => Verdict::Where(Filter::Or(filters)),
    }
}

fn matched<'r>(matching: &Match, sense: Sense, facts: &Facts<'_>) -> Verdict<'r> {
    let r#type = matching.r#type;
    match &matching.subject {
        Subject::Value(operand) => {
            let truth = facts.value(operand).and_then(|value| holds(r#type, &value, &matching.test, facts));
            match (sense.verdict(truth), facts.operation) {
                (Verdict::Where(_), Operation::Create) if sense == Sense::Straight => {
                    Verdict::Where(stored(operand, matching, facts))
                }
                (verdict, _) => verdict,
            }
        }
        Subject::Column(column) => {
            if facts.operation == Operation::Create || !is_asked(column, matching, sense, facts) {
                return Verdict::DENY;
            }
            let Some(filter) = predicate(column, matching, facts) else { return Verdict::DENY };
            match sense {
                Sense::Straight => Verdict::Where(related(column, Quantifier::Some, filter)),
                Sense::Opposite if filter.is_true() => Verdict::DENY,
                Sense::Opposite => Verdict::Where(opposite(column, filter)),
            }
        }
    }
}

/// Whether the client's own condition says enough of the column.
fn is_asked(column: &Column, matching: &Match, sense: Sense, facts: &Facts<'_>) -> bool {
    let must = match column.mode {
        MatchMode::Filter => return true,
        MatchMode::Auto if facts.operation == Operation::Read => return true,
        MatchMode::Auto => Must::Name,
        MatchMode::Check => Must::Pass,
    };
    let keys: Vec<&str> = column.relations.iter().chain([&column.name]).map(String::as_str).collect();
    match (facts.said(&keys), must) {
        (Said::Nothing | Said::Otherwise, _) => false,
        (Said::Equal(_), Must::Name) => true,
        (Said::Equal(value), Must::Pass) => {
            let truth = holds(matching.r#type, &value, &matching.test, facts);
            sense.verdict(truth) == Verdict::ALLOW
        }
    }
}

/// What a client's condition must do with a column.
enum Must {
    /// Give it a plain value.
    Name,
    /// Give it a plain value that passes.
    Pass,
}

/// The comparison as a condition on rows; `None` where its other side has no value of the type.
fn predicate(column: &Column, matching: &Match, facts: &Facts<'_>) -> Option<Filter> {
    let r#type = matching.r#type;
    let name = || column.name.clone();
    Some(match &matching.test {
        Test::Compare(comparison, operand) => {
            let value = bound(r#type, &*facts.value(operand)?)?;
            Filter::Compare { column: name(), comparison: *comparison, value }
        }
        Test::In(list) => {
            let values = bound_list(r#type, list, facts)?;
            if values.is_empty() {
                return None;
            }
            Filter::In { column: name(), values }
        }
        Test::NotIn(list) => {
            let values = bound_list(r#type, list, facts)?;
            if values.is_empty() {
                return Some(Filter::TRUE);
            }
            Filter::Not(Box::new(Filter::In { column: name(), values }))
        }
        Test::IsNull => Filter::IsNull { column: name() },
        // Not parsed for columns.
        Test::StartsWith(_) | Test::Matches(_) => return None,
    })
}

/// The condition on the row that the column's relations lead to.
fn related(column: &Column, outermost: Quantifier, filter: Filter) -> Filter {
    let mut filter = filter;
    for (depth, relation) in column.relations.iter().enumerate().rev() {
        let quantifier = if depth == 0 { outermost } else { Quantifier::Some };
        filter = Filter::Related { relation: relation.clone(), quantifier, filter: Box::new(filter) };
    }
    filter
}

/// The opposite of a condition on a column. A row whose column is null passes neither; over a relation SQL would let it
/// pass, as it would one that has no related row, so there it is said.
fn opposite(column: &Column, filter: Filter) -> Filter {
    if column.relations.is_empty() {
        return Filter::Not(Box::new(filter));
    }
    let passing = match filter {
        null @ Filter::IsNull { .. } => null,
        other => Filter::Or(vec![other, Filter::IsNull { column: column.name.clone() }]),
    };
    let there = related(column, Quantifier::Some, Filter::TRUE);
    Filter::And(vec![there, related(column, Quantifier::None, passing)])
}

/// What a document that passed must still be when it is stored: the database may have changed it on the way.
///
/// Only equality that does not depend on another part of the document is carried over.
fn stored(subject: &Operand, matching: &Match, facts: &Facts<'_>) -> Filter {
    let known = |operand: &Operand| !operand.depends_on(Root::Doc);
    let r#type = matching.r#type;
    let filter = match &matching.test {
        _ if r#type == Type::Date => None,
        Test::Compare(Comparison::Eq, other) => {
            let (column, other) = match (doc_column(subject), doc_column(other)) {
                (Some(column), None) if known(other) => (column, other),
                (None, Some(column)) if known(subject) => (column, subject),
                (Some(_) | None, Some(_) | None) => return Filter::TRUE,
            };
            facts.value(other).and_then(|value| bound(r#type, &value)).map(|value| Filter::Compare {
                column: column.to_owned(),
                comparison: Comparison::Eq,
                value,
            })
        }
        Test::In(list) => doc_column(subject).filter(|_| list_known(list)).and_then(|column| {
            let values = bound_list(r#type, list, facts)?;
            Some(Filter::In { column: column.to_owned(), values })
        }),
        Test::Compare(..) | Test::NotIn(_) | Test::IsNull | Test::StartsWith(_) | Test::Matches(_) => None,
    };
    filter.unwrap_or(Filter::TRUE)
}

fn list_known(list: &List) -> bool {
    match list {
        List::Items(items) => items.iter().all(|item| !item.depends_on(Root::Doc)),
        List::Of(operand) => !operand.depends_on(Root::Doc),
    }
}

/// The column that the operand names in a document, where it is all of the column.
fn doc_column(operand: &Operand) -> Option<&str> {
    match operand {
        Operand::Path(path) if path.root == Root::Doc => match path.steps.as_slice() {
            [Step::Name(name)] => Some(name),
            _ => None,
        },
        Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => None,
    }
}

/// Whether `value` passes; `None` where it, or what it is compared with, is missing or of another type.
fn holds(r#type: Type, value: &Value, test: &Test, facts: &Facts<'_>) -> Option<bool> {
    match test {
        Test::Compare(comparison, operand) => {
            let other = facts.value(operand)?;
            Some(compares(*comparison, ordering(r#type, value, &other)?))
        }
        Test::In(list) => contains(r#type, value, list, facts),
        Test::NotIn(list) => contains(r#type, value, list, facts).map(|contains| !contains),
        Test::IsNull => Some(*value == Value::Null),
        Test::StartsWith(operand) => match (value, facts.value(operand)?.as_ref()) {
            (Value::Text(text), Value::Text(start)) => Some(text.starts_with(start.as_str())),
            // Only texts begin with something.
            _ => None,
        },
        Test::Matches(regex) => match value {
            Value::Text(text) => Some(regex.is_match(text)),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => None,
        },
    }
}

fn contains(r#type: Type, value: &Value, list: &List, facts: &Facts<'_>) -> Option<bool> {
    let mut found = false;
    for item in bound_list(r#type, list, facts)? {
        found |= ordering(r#type, value, &item)? == Ordering::Equal;
    }
    // An empty list says nothing of the value's type.
    bound(r#type, value).map(|_| found)
}

fn compares(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Eq => order.is_eq(),
        Comparison::Ne => order.is_ne(),
        Comparison::Gt => order.is_gt(),
        Comparison::Gte => order.is_ge(),
        Comparison::Lt => order.is_lt(),
        Comparison::Lte => order.is_le(),
    }
}

fn ordering(r#type: Type, left: &Value, right: &Value) -> Option<Ordering> {
    match (r#type, left, right) {
        (Type::String, Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Type::Number, left, right) => number::compare(left, right),
        (Type::Bool, Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Type::Date, Value::Text(left), Value::Text(right)) => Some(date::parse(left)?.cmp(&date::parse(right)?)),
        (Type::String | Type::Bool | Type::Date, ..) => None,
    }
}

/// The value as it is bound in a condition, if it is of the type.
fn bound(r#type: Type, value: &Value) -> Option<Value> {
    match (r#type, value) {
        (Type::String, Value::Text(_)) | (Type::Bool, Value::Bool(_)) => Some(value.clone()),
        (Type::Number, Value::Int(_) | Value::Number(_)) => {
            number::compare(value, value)?;
            Some(number::plain(value))
        }
        (Type::Date, Value::Text(text)) => date::parse(text).map(|_| value.clone()),
        (Type::String | Type::Number | Type::Bool | Type::Date, _) => None,
    }
}

fn bound_list(r#type: Type, list: &List, facts: &Facts<'_>) -> Option<Vec<Value>> {
    let value = |operand| facts.value(operand);
    match list {
        List::Items(items) => items.iter().map(|item| bound(r#type, &*value(item)?)).collect(),
        List::Of(operand) => match value(operand)? {
            Cow::Borrowed(Value::List(items)) => items.iter().map(|item| bound(r#type, item)).collect(),
            Cow::Owned(Value::List(items)) => items.iter().map(|item| bound(r#type, item)).collect(),
            Cow::Borrowed(_) | Cow::Owned(_) => None,
        },
    }
}

/// Whether some caller with some request could pass the rule.
pub fn is_possible(rule: &Rule, operation: Operation) -> bool {
    possible(rule, Sense::Straight, operation)
}

fn possible(rule: &Rule, sense: Sense, operation: Operation) -> bool {
    let every = |clauses: &[Rule]| clauses.iter().all(|clause| possible(clause, sense, operation));
    let some = |clauses: &[Rule]| clauses.iter().any(|clause| possible(clause, sense, operation));
    match (&rule.kind, sense) {
        (Kind::Allow | Kind::Authenticated, Sense::Straight) | (Kind::Deny, Sense::Opposite) => true,
        // Only callers without a token pass the opposite of authenticated; the rule may let them.
        (Kind::Authenticated, Sense::Opposite) => true,
        (Kind::Allow, Sense::Opposite) | (Kind::Deny, Sense::Straight) => false,
        (Kind::Match(matching), sense) => match_possible(matching, sense, operation),
        (Kind::Not(inner), sense) => possible(inner, sense.turned(), operation),
        (Kind::And(clauses), Sense::Straight) | (Kind::Or(clauses), Sense::Opposite) => every(clauses),
        (Kind::Or(clauses), Sense::Straight) | (Kind::And(clauses), Sense::Opposite) => some(clauses),
    }
}

fn match_possible(matching: &Match, sense: Sense, operation: Operation) -> bool {
    match (&matching.subject, &matching.test) {
        (Subject::Column(_), _) => operation != Operation::Create,
        (Subject::Value(Operand::Literal(left)), Test::Compare(comparison, Operand::Literal(right))) => {
            let truth = ordering(matching.r#type, left, right).map(|order| compares(*comparison, order));
            sense.verdict(truth) == Verdict::ALLOW
        }
        (Subject::Value(subject), _) => {
            // Nothing that a rule finds in a request is known before it.
            subject.known() != Known::Other
        }
    }
}
