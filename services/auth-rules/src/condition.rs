//! Conditions on rows that stand beside a rule: `rowFilter` and `withCheck`.
//!
//! They are written as clients write conditions, with paths for values: `{"org": {"$in": "args.auth.groups"}}`. A value
//! that a request does not have, or that is no scalar, denies.

use query::{Comparison, Filter, Quantifier, Value};
use serde_json::{Map, Value as Json};

use crate::{facts::Facts, number, operand::Operand, rule::Parser};

/// Conditions nest no deeper.
const DEPTH: usize = 16;

/// A condition whose values are not known yet.
#[derive(Debug)]
pub enum Condition {
    /// All hold.
    And(Vec<Condition>),
    /// One holds.
    Or(Vec<Condition>),
    /// A column passes. A row whose column is null, or that has no related row, passes only [`Test::Null`].
    Column(Column, Test),
}

/// What a column must be.
#[derive(Debug)]
pub enum Test {
    /// Null.
    Null,
    /// Anything else.
    NotNull,
    /// So compared with a value.
    Compare(Comparison, Operand),
    /// One of these.
    In(Values),
    /// None of these.
    NotIn(Values),
}

/// A column, and the relations that lead to it.
#[derive(Debug, Clone)]
pub struct Column {
    relations: Vec<String>,
    name: String,
}

/// Values of an `$in`.
#[derive(Debug)]
pub enum Values {
    /// As they stand.
    Items(Vec<Operand>),
    /// A list somewhere in the request.
    Of(Operand),
}

impl Condition {
    /// Parses the condition that stands at `path`.
    pub fn parse(json: &Json, path: &str, parser: &mut Parser) -> Option<Condition> {
        object(json, path, 0, parser)
    }

    /// The condition with the values of a request; `None` where it lacks one.
    pub fn filter(&self, facts: &Facts<'_>) -> Option<Filter> {
        let all = |conditions: &[Condition]| conditions.iter().map(|one| one.filter(facts)).collect::<Option<Vec<_>>>();
        Some(match self {
            Condition::And(conditions) => Filter::And(all(conditions)?),
            Condition::Or(conditions) => Filter::Or(all(conditions)?),
            Condition::Column(column, test) => column.under(test.filter(&column.name, facts)?),
        })
    }
}

impl Test {
    fn filter(&self, column: &str, facts: &Facts<'_>) -> Option<Filter> {
        let column = column.to_owned();
        Some(match self {
            Test::Null => Filter::IsNull { column },
            Test::NotNull => Filter::Not(Box::new(Filter::IsNull { column })),
            Test::Compare(comparison, operand) => {
                let value = scalar(facts.value(operand)?.as_ref())?;
                Filter::Compare { column, comparison: *comparison, value }
            }
            Test::In(values) => Filter::In { column, values: values.scalars(facts)? },
            Test::NotIn(values) => Filter::Not(Box::new(Filter::In { column, values: values.scalars(facts)? })),
        })
    }
}

impl Column {
    fn parse(name: &str) -> Option<Column> {
        let mut names: Vec<String> = name.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return None;
        }
        let name = names.pop()?;
        Some(Column { relations: names, name })
    }

    fn under(&self, filter: Filter) -> Filter {
        self.relations.iter().rev().fold(filter, |filter, relation| Filter::Related {
            relation: relation.clone(),
            quantifier: Quantifier::Some,
            filter: Box::new(filter),
        })
    }
}

impl Values {
    fn scalars(&self, facts: &Facts<'_>) -> Option<Vec<Value>> {
        match self {
            Values::Items(items) => items.iter().map(|item| scalar(facts.value(item)?.as_ref())).collect(),
            Values::Of(operand) => match facts.value(operand)?.as_ref() {
                Value::List(items) => items.iter().map(scalar).collect(),
                Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) | Value::Object(_) => {
                    None
                }
            },
        }
    }
}

fn scalar(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) | Value::Text(_) => Some(value.clone()),
        Value::Int(_) | Value::Number(_) => Some(number::plain(value)),
        Value::Null | Value::List(_) | Value::Object(_) => None,
    }
}

fn object(json: &Json, path: &str, depth: usize, parser: &mut Parser) -> Option<Condition> {
    if depth > DEPTH {
        parser.fault(path, format!("the condition nests deeper than {DEPTH}"));
        return None;
    }
    let members = match json {
        Json::Object(members) if !members.is_empty() => members,
        _ => {
            parser.fault(path, "expected a condition such as {owner: args.auth.id}");
            return None;
        }
    };
    let mut conditions = Vec::with_capacity(members.len());
    for (name, value) in members {
        let at = format!("{path}.{name}");
        conditions.push(match name.as_str() {
            "$and" => list(value, &at, depth, parser).map(Condition::And),
            "$or" => list(value, &at, depth, parser).map(Condition::Or),
            _ => column(name, value, &at, parser),
        });
    }
    let mut conditions = conditions.into_iter().collect::<Option<Vec<_>>>()?;
    Some(if conditions.len() == 1 { conditions.remove(0) } else { Condition::And(conditions) })
}

fn list(json: &Json, path: &str, depth: usize, parser: &mut Parser) -> Option<Vec<Condition>> {
    let Some(items) = json.as_array().filter(|items| !items.is_empty()) else {
        parser.fault(path, "expected a list of conditions");
        return None;
    };
    let mut conditions = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        conditions.push(object(item, &format!("{path}.{index}"), depth + 1, parser));
    }
    conditions.into_iter().collect()
}

fn column(name: &str, json: &Json, path: &str, parser: &mut Parser) -> Option<Condition> {
    let Some(column) = Column::parse(name).filter(|column| !column.name.starts_with('$')) else {
        let hint = query::nearest(name, ["$and", "$or"]).map(|known| format!(", did you mean {known}?"));
        parser.fault(path, format!("expected the name of a column{}", hint.unwrap_or_default()));
        return None;
    };
    let tests = match json {
        Json::Null => vec![Test::Null],
        Json::Object(operators) => tests(operators, path, parser)?,
        value => vec![Test::Compare(Comparison::Eq, operand(value, path, parser)?)],
    };
    let mut conditions: Vec<_> = tests.into_iter().map(|test| Condition::Column(column.clone(), test)).collect();
    Some(if conditions.len() == 1 { conditions.remove(0) } else { Condition::And(conditions) })
}

fn tests(operators: &Map<String, Json>, path: &str, parser: &mut Parser) -> Option<Vec<Test>> {
    const KNOWN: [&str; 9] = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$isNull"];
    if operators.is_empty() {
        parser.fault(path, format!("expected a value, or one of {}", KNOWN.join(", ")));
        return None;
    }
    let mut tests = Vec::with_capacity(operators.len());
    for (operator, json) in operators {
        let at = format!("{path}.{operator}");
        let mut compared = |comparison| operand(json, &at, parser).map(|operand| Test::Compare(comparison, operand));
        tests.push(match operator.as_str() {
            "$eq" => compared(Comparison::Eq),
            "$ne" => compared(Comparison::Ne),
            "$gt" => compared(Comparison::Gt),
            "$gte" => compared(Comparison::Gte),
            "$lt" => compared(Comparison::Lt),
            "$lte" => compared(Comparison::Lte),
            "$in" => values(json, &at, parser).map(Test::In),
            "$nin" => values(json, &at, parser).map(Test::NotIn),
            "$isNull" => match json.as_bool() {
                Some(true) => Some(Test::Null),
                Some(false) => Some(Test::NotNull),
                None => {
                    parser.fault(&at, "expected true or false");
                    None
                }
            },
            unknown => {
                let hint = query::nearest(unknown, KNOWN).map(|known| format!(", did you mean {known}?"));
                parser.fault(&at, format!("operator {unknown} is not known{}", hint.unwrap_or_default()));
                None
            }
        });
    }
    tests.into_iter().collect()
}

fn values(json: &Json, path: &str, parser: &mut Parser) -> Option<Values> {
    match json {
        Json::Array(items) => {
            let mut operands = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                operands.push(operand(item, &format!("{path}.{index}"), parser));
            }
            operands.into_iter().collect::<Option<Vec<_>>>().map(Values::Items)
        }
        Json::String(text) if text.starts_with("args.") => operand(json, path, parser).map(Values::Of),
        _ => {
            parser.fault(path, "expected a list, or a path to one such as args.auth.groups");
            None
        }
    }
}

fn operand(json: &Json, path: &str, parser: &mut Parser) -> Option<Operand> {
    let value = match json {
        Json::String(text) => match Operand::parse(text) {
            Ok(operand) => return Some(operand),
            Err(message) => {
                parser.fault(path, message);
                return None;
            }
        },
        Json::Bool(bool) => Value::Bool(*bool),
        Json::Number(json) => json.as_i64().map_or_else(|| Value::Number(json.to_string()), Value::Int),
        Json::Null | Json::Array(_) | Json::Object(_) => {
            parser.fault(path, "expected a single value, or a path such as args.auth.id");
            return None;
        }
    };
    Some(Operand::Literal(value))
}
