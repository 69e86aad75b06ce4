//! The operands and operators of a `match` rule.

use query::{Comparison, Value};
use regex::RegexBuilder;
use serde_json::{Map, Value as Json};

use super::{Context, Parser, kind_of, mirrored};
use crate::{
    date, number,
    operand::{Known, Operand},
    path::{Path, Root},
    rule::{Column, List, Match, Subject, Test, Type},
};

/// Bytes that a compiled regular expression may take.
const PATTERN_BYTES: usize = 1 << 20;

/// An operator of a `match` rule.
#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Compare(Comparison),
    In,
    NotIn,
    IsNull,
    StartsWith,
    Matches,
}

impl Parser {
    pub(super) fn matching(&mut self, members: &Map<String, Json>, path: &str, context: Context) -> Option<Match> {
        let r#type = self.r#type(members, path)?;
        let operator = self.operator(members, path, r#type)?;
        if operator == Operator::IsNull {
            let subject = self.operand(members.get("f1"), &format!("{path}.f1"), None)?;
            if members.get("f2").is_some_and(|f2| !super::is_empty(f2)) {
                self.fault(&format!("{path}.f2"), "isNull compares with nothing");
                return None;
            }
            let subject = self.subject(subject, path, context)?;
            return Some(Match { subject, r#type, test: Test::IsNull });
        }
        let left = self.operand(members.get("f1"), &format!("{path}.f1"), Some(r#type));
        match operator {
            Operator::Compare(comparison) => {
                let right = self.operand(members.get("f2"), &format!("{path}.f2"), Some(r#type));
                self.comparison(left?, comparison, right?, r#type, path, context)
            }
            Operator::In | Operator::NotIn => {
                let list = self.list(members.get("f2"), &format!("{path}.f2"), r#type);
                let subject = self.subject(left?, path, context)?;
                let list = list?;
                let test = if operator == Operator::In { Test::In(list) } else { Test::NotIn(list) };
                Some(Match { subject, r#type, test })
            }
            Operator::StartsWith | Operator::Matches => {
                let test = self.text_test(operator, members.get("f2"), &format!("{path}.f2"));
                let left = left?;
                if find_path(&left).is_some() {
                    self.fault(&format!("{path}.eval"), "this operator is not supported yet on args.find");
                    return None;
                }
                Some(Match { subject: Subject::Value(left), r#type, test: test? })
            }
            Operator::IsNull => None,
        }
    }

    fn r#type(&mut self, members: &Map<String, Json>, path: &str) -> Option<Type> {
        match members.get("type").and_then(Json::as_str) {
            Some("string") => Some(Type::String),
            Some("number") => Some(Type::Number),
            Some("bool" | "boolean") => Some(Type::Bool),
            Some("date") => Some(Type::Date),
            _ => {
                self.fault(&format!("{path}.type"), "expected string, number, bool or date");
                None
            }
        }
    }

    fn operator(&mut self, members: &Map<String, Json>, path: &str, r#type: Type) -> Option<Operator> {
        let known: &[(&str, Operator)] = &[
            ("==", Operator::Compare(Comparison::Eq)),
            ("!=", Operator::Compare(Comparison::Ne)),
            ("isNull", Operator::IsNull),
            ("<", Operator::Compare(Comparison::Lt)),
            ("<=", Operator::Compare(Comparison::Lte)),
            (">", Operator::Compare(Comparison::Gt)),
            (">=", Operator::Compare(Comparison::Gte)),
            ("in", Operator::In),
            ("notIn", Operator::NotIn),
            ("startsWith", Operator::StartsWith),
            ("matches", Operator::Matches),
        ];
        let fits = |name: &str| match r#type {
            Type::String => !matches!(name, "<" | "<=" | ">" | ">="),
            Type::Number => !matches!(name, "startsWith" | "matches"),
            Type::Bool => matches!(name, "==" | "!=" | "isNull"),
            Type::Date => !matches!(name, "startsWith" | "matches" | "in" | "notIn"),
        };
        let eval = members.get("eval").and_then(Json::as_str).unwrap_or_default();
        if let Some((_, operator)) = known.iter().find(|(name, _)| *name == eval && fits(name)) {
            return Some(*operator);
        }
        let fitting: Vec<_> = known.iter().map(|(name, _)| *name).filter(|name| fits(name)).collect();
        let message =
            format!("{eval:?} is no operator of type {}, expected one of {}", r#type.name(), fitting.join(" "));
        self.fault(&format!("{path}.eval"), message);
        None
    }

    /// An operand; with a type, one that can be of it.
    fn operand(&mut self, json: Option<&Json>, at: &str, r#type: Option<Type>) -> Option<Operand> {
        let operand = match json {
            Some(Json::String(text)) => match Operand::parse(text) {
                Ok(operand) => operand,
                Err(message) => {
                    self.fault(at, message);
                    return None;
                }
            },
            Some(Json::Bool(bool)) => Operand::Literal(Value::Bool(*bool)),
            Some(Json::Number(json)) => {
                let value = json.as_i64().map_or_else(|| Value::Number(json.to_string()), Value::Int);
                Operand::Literal(number::plain(&value))
            }
            None | Some(Json::Null) => {
                self.fault(at, "expected a value or a path such as args.auth.id");
                return None;
            }
            Some(other @ (Json::Array(_) | Json::Object(_))) => {
                self.fault(at, format!("expected a single value, got {}", kind_of(other)));
                return None;
            }
        };
        self.hints(&operand, at);
        match r#type {
            Some(r#type) => self.fitting(operand, r#type, at),
            None => Some(operand),
        }
    }

    fn fitting(&mut self, operand: Operand, r#type: Type, at: &str) -> Option<Operand> {
        let fits = match (r#type, operand.known()) {
            (_, Known::Nothing)
            | (Type::String, Known::Text)
            | (Type::Number, Known::Number)
            | (Type::Bool, Known::Bool) => true,
            (Type::Date, Known::Text) => match &operand {
                Operand::Literal(Value::Text(text)) => date::parse(text).is_some(),
                Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => true,
            },
            (Type::String | Type::Number | Type::Bool | Type::Date, _) => false,
        };
        if fits {
            return Some(operand);
        }
        let wanted = match r#type {
            Type::String => "a text",
            Type::Number => "a number, not in quotes",
            Type::Bool => "true or false, not in quotes",
            Type::Date => "a date such as 2019-11-25 or RFC 3339",
        };
        self.fault(at, format!("expected {wanted}, or a path such as args.auth.id"));
        None
    }

    /// A text that looks like a path or helper of which the beginning was forgotten.
    fn hints(&mut self, operand: &Operand, at: &str) {
        const FORGOTTEN: [(&str, &str); 7] = [
            ("auth.", "args."),
            ("find.", "args."),
            ("doc.", "args."),
            ("update.", "args."),
            ("length(", "utils."),
            ("exists(", "utils."),
            ("now(", "utils."),
        ];
        let Operand::Literal(Value::Text(text)) = operand else { return };
        if let Some((_, missing)) = FORGOTTEN.iter().find(|(start, _)| text.starts_with(start)) {
            self.warn(at, format!("{text:?} is compared as a text; {missing}{text} would be its value"));
        }
    }

    fn list(&mut self, json: Option<&Json>, at: &str, r#type: Type) -> Option<List> {
        match json {
            Some(Json::Array(items)) if items.is_empty() => {
                self.fault(at, "the list is empty");
                None
            }
            Some(Json::Array(items)) => {
                let mut operands = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    operands.push(self.operand(Some(item), &format!("{at}.{index}"), Some(r#type)));
                }
                operands.into_iter().collect::<Option<Vec<_>>>().map(List::Items)
            }
            Some(Json::String(text)) if text.starts_with("args.") => match self.operand(json, at, None)? {
                operand if find_path(&operand).is_some() => {
                    self.fault(at, "expected a list: args.find has single values");
                    None
                }
                operand => Some(List::Of(operand)),
            },
            _ => {
                self.fault(at, "expected a list, or a path to one such as args.auth.groups");
                None
            }
        }
    }

    fn text_test(&mut self, operator: Operator, json: Option<&Json>, at: &str) -> Option<Test> {
        let right = self.operand(json, at, Some(Type::String))?;
        if operator == Operator::StartsWith {
            return Some(Test::StartsWith(right));
        }
        let Operand::Literal(Value::Text(pattern)) = right else {
            self.fault(at, "expected a regular expression that stands in the rule");
            return None;
        };
        match RegexBuilder::new(&pattern).size_limit(PATTERN_BYTES).build() {
            Ok(regex) => Some(Test::Matches(regex)),
            Err(error) => {
                self.fault(at, format!("not a regular expression: {}", error.to_string().replace('\n', " ")));
                None
            }
        }
    }

    /// A comparison, turned so that a column of `args.find` is its subject.
    fn comparison(
        &mut self,
        left: Operand,
        comparison: Comparison,
        right: Operand,
        r#type: Type,
        path: &str,
        context: Context,
    ) -> Option<Match> {
        let (left, comparison, right) = match (find_path(&left), find_path(&right)) {
            (Some(one), Some(other)) if one == other => {
                let test = Test::Compare(comparison, right);
                return Some(Match { subject: Subject::Value(left), r#type, test });
            }
            (Some(one), Some(other)) => {
                self.fault(path, format!("{one} cannot be compared with {other}: one side must be known beforehand"));
                return None;
            }
            (None, Some(_)) => (right, mirrored(comparison), left),
            (Some(_), None) | (None, None) => (left, comparison, right),
        };
        let subject = self.subject(left, path, context)?;
        Some(Match { subject, r#type, test: Test::Compare(comparison, right) })
    }

    fn subject(&mut self, operand: Operand, path: &str, context: Context) -> Option<Subject> {
        let Some(find) = find_path(&operand) else { return Some(Subject::Value(operand)) };
        let names = find.names().unwrap_or_default();
        let Some((name, relations)) = names.split_last() else {
            self.fault(path, format!("{find} names no column: expected args.find.<column>"));
            return None;
        };
        Some(Subject::Column(Column {
            relations: relations.iter().map(|&name| name.to_owned()).collect(),
            name: (*name).to_owned(),
            mode: context.mode,
        }))
    }
}

/// The operand as a path into the client's condition, if it is one.
fn find_path(operand: &Operand) -> Option<&Path> {
    match operand {
        Operand::Path(path) if path.root == Root::Find => Some(path),
        Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => None,
    }
}
