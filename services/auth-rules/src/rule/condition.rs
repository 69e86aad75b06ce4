//! Row conditions of a policy, as of row-level security: `rowFilter` (SQL's `USING`) and `withCheck`.
//!
//! They have the syntax of clients' conditions, with paths for values: `{"org": {"$in": "args.auth.groups"}}`. A value that
//! the request lacks, or that is not a scalar, denies.

use query::{Comparison, Quantifier, RuleFilter, Value};
use serde_json::{Map, Value as Json};

use super::Parser;
use crate::{
    column_path::ColumnPath,
    context::RequestContext,
    operand::{ListOperand, Operand},
};

/// Most levels of `$and` and `$or`.
const MAX_DEPTH: usize = 16;

/// A condition template, to be filled with the values of a request.
#[derive(Debug)]
pub enum Condition {
    /// All hold.
    And(Vec<Condition>),
    /// One holds.
    Or(Vec<Condition>),
    /// A predicate on a column. A row whose column is null passes only [`ColumnPredicate::Null`]; one that has no related
    /// row passes none.
    Column(ColumnPath, ColumnPredicate),
}

/// A predicate on a column.
#[derive(Debug)]
pub enum ColumnPredicate {
    /// `IS NULL`.
    Null,
    /// `IS NOT NULL`.
    NotNull,
    /// A comparison with a value.
    Compare(Comparison, Operand),
    /// `IN`.
    In(ListOperand),
    /// `NOT IN`.
    NotIn(ListOperand),
}

impl ColumnPredicate {
    /// The operands of the right side.
    pub fn operands(&self) -> &[Operand] {
        match self {
            ColumnPredicate::Null | ColumnPredicate::NotNull => &[],
            ColumnPredicate::Compare(_, operand) => std::slice::from_ref(operand),
            ColumnPredicate::In(list) | ColumnPredicate::NotIn(list) => list.operands(),
        }
    }
}

impl Condition {
    /// Parses the condition at `path` of its document.
    pub fn parse(json: &Json, path: &str, parser: &mut Parser) -> Option<Condition> {
        parse_object(json, path, 0, parser)
    }

    /// The filter with the values of a request; `None` where the request lacks one.
    pub fn filter(&self, request: &RequestContext<'_>) -> Option<RuleFilter> {
        let all =
            |conditions: &[Condition]| conditions.iter().map(|one| one.filter(request)).collect::<Option<Vec<_>>>();
        Some(match self {
            Condition::And(conditions) => RuleFilter::And(all(conditions)?),
            Condition::Or(conditions) => RuleFilter::Or(all(conditions)?),
            Condition::Column(column, predicate) => {
                column.related(Quantifier::Some, predicate.filter(&column.name, request)?)
            }
        })
    }
}

impl ColumnPredicate {
    fn filter(&self, column: &str, request: &RequestContext<'_>) -> Option<RuleFilter> {
        let column = column.to_owned();
        Some(match self {
            ColumnPredicate::Null => RuleFilter::IsNull { column },
            ColumnPredicate::NotNull => RuleFilter::Not(Box::new(RuleFilter::IsNull { column })),
            ColumnPredicate::Compare(comparison, operand) => {
                let value = scalar(request.value(operand)?.as_ref())?;
                RuleFilter::Compare { column, comparison: *comparison, value }
            }
            ColumnPredicate::In(values) => RuleFilter::In { column, values: values.scalars(request)? },
            ColumnPredicate::NotIn(values) => {
                RuleFilter::Not(Box::new(RuleFilter::In { column, values: values.scalars(request)? }))
            }
        })
    }
}

impl ListOperand {
    /// Its values; `None` where one is missing or not a scalar.
    fn scalars(&self, request: &RequestContext<'_>) -> Option<Vec<Value>> {
        match self {
            ListOperand::Items(items) => items.iter().map(|item| scalar(request.value(item)?.as_ref())).collect(),
            ListOperand::Reference(operand) => match request.value(operand)?.as_ref() {
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
        Value::Int(_) | Value::Number(_) => Some(value.canonical_number()),
        Value::Null | Value::List(_) | Value::Object(_) => None,
    }
}

fn parse_object(json: &Json, path: &str, depth: usize, parser: &mut Parser) -> Option<Condition> {
    if depth > MAX_DEPTH {
        parser.error(path, format!("the condition nests deeper than {MAX_DEPTH} levels"));
        return None;
    }
    let members = match json {
        Json::Object(members) if !members.is_empty() => members,
        _ => {
            parser.error(path, "expected a condition such as {owner: args.auth.id}");
            return None;
        }
    };
    let mut conditions = Vec::with_capacity(members.len());
    for (name, value) in members {
        let at = format!("{path}.{name}");
        conditions.push(match name.as_str() {
            "$and" => parse_list(value, &at, depth, parser).map(Condition::And),
            "$or" => parse_list(value, &at, depth, parser).map(Condition::Or),
            _ => parse_column(name, value, &at, parser),
        });
    }
    let mut conditions = conditions.into_iter().collect::<Option<Vec<_>>>()?;
    Some(if conditions.len() == 1 { conditions.remove(0) } else { Condition::And(conditions) })
}

fn parse_list(json: &Json, path: &str, depth: usize, parser: &mut Parser) -> Option<Vec<Condition>> {
    let Some(items) = json.as_array().filter(|items| !items.is_empty()) else {
        parser.error(path, "expected a list of conditions");
        return None;
    };
    let mut conditions = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        conditions.push(parse_object(item, &format!("{path}.{index}"), depth + 1, parser));
    }
    conditions.into_iter().collect()
}

fn parse_column(name: &str, json: &Json, path: &str, parser: &mut Parser) -> Option<Condition> {
    let Some(column) = ColumnPath::parse(name).filter(|column| !column.name.starts_with('$')) else {
        let hint = query::nearest(name, ["$and", "$or"]).map(|known| format!(", did you mean {known}?"));
        parser.error(path, format!("expected a column name{}", hint.unwrap_or_default()));
        return None;
    };
    let predicates = match json {
        Json::Null => vec![ColumnPredicate::Null],
        Json::Object(operators) => parse_predicates(operators, path, parser)?,
        value => vec![ColumnPredicate::Compare(Comparison::Eq, parse_operand(value, path, parser)?)],
    };
    let mut conditions: Vec<_> =
        predicates.into_iter().map(|predicate| Condition::Column(column.clone(), predicate)).collect();
    Some(if conditions.len() == 1 { conditions.remove(0) } else { Condition::And(conditions) })
}

fn parse_predicates(operators: &Map<String, Json>, path: &str, parser: &mut Parser) -> Option<Vec<ColumnPredicate>> {
    const KNOWN: [&str; 9] = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$isNull"];
    if operators.is_empty() {
        parser.error(path, format!("expected a value, or one of {}", KNOWN.join(", ")));
        return None;
    }
    let mut predicates = Vec::with_capacity(operators.len());
    for (operator, json) in operators {
        let at = format!("{path}.{operator}");
        let mut compared =
            |comparison| parse_operand(json, &at, parser).map(|operand| ColumnPredicate::Compare(comparison, operand));
        predicates.push(match operator.as_str() {
            "$eq" => compared(Comparison::Eq),
            "$ne" => compared(Comparison::Ne),
            "$gt" => compared(Comparison::Gt),
            "$gte" => compared(Comparison::Gte),
            "$lt" => compared(Comparison::Lt),
            "$lte" => compared(Comparison::Lte),
            "$in" => parse_list_operand(json, &at, parser).map(ColumnPredicate::In),
            "$nin" => parse_list_operand(json, &at, parser).map(ColumnPredicate::NotIn),
            "$isNull" => match json.as_bool() {
                Some(true) => Some(ColumnPredicate::Null),
                Some(false) => Some(ColumnPredicate::NotNull),
                None => {
                    parser.error(&at, "expected boolean");
                    None
                }
            },
            unknown => {
                let hint = query::nearest(unknown, KNOWN).map(|known| format!(", did you mean {known}?"));
                parser.error(&at, format!("unknown operator {unknown}{}", hint.unwrap_or_default()));
                None
            }
        });
    }
    predicates.into_iter().collect()
}

fn parse_list_operand(json: &Json, path: &str, parser: &mut Parser) -> Option<ListOperand> {
    match json {
        Json::Array(items) => {
            let mut operands = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                operands.push(parse_operand(item, &format!("{path}.{index}"), parser));
            }
            operands.into_iter().collect::<Option<Vec<_>>>().map(ListOperand::Items)
        }
        Json::String(text) if text.starts_with("args.") => {
            parse_operand(json, path, parser).map(ListOperand::Reference)
        }
        _ => {
            parser.error(path, "expected a list, or a path to one such as args.auth.groups");
            None
        }
    }
}

fn parse_operand(json: &Json, path: &str, parser: &mut Parser) -> Option<Operand> {
    let value = match json {
        Json::String(text) => match Operand::parse(text) {
            Ok(operand) => return Some(operand),
            Err(message) => {
                parser.error(path, message);
                return None;
            }
        },
        Json::Bool(bool) => Value::Bool(*bool),
        Json::Number(json) => json.as_i64().map_or_else(|| Value::Number(json.to_string()), Value::Int),
        Json::Null | Json::Array(_) | Json::Object(_) => {
            parser.error(path, "expected a single value, or a path such as args.auth.id");
            return None;
        }
    };
    Some(Operand::Literal(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_nest_to_a_limit() {
        let errors = |levels| {
            let leaf = json!({"a": 1});
            let nested = (0..levels).fold(leaf, |inner, _| json!({"$and": [{"b": 1}, inner]}));
            let mut parser = Parser::default();
            let parsed = Condition::parse(&nested, "rowFilter", &mut parser).is_some();
            assert_eq!(parsed, parser.errors.is_empty());
            parser.errors
        };
        assert_eq!(errors(MAX_DEPTH), []);
        let errors = errors(MAX_DEPTH + 1);
        assert!(errors[0].message.contains("nests deeper"), "{errors:?}");
    }
}
