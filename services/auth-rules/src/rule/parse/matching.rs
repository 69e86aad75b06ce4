//! The operands and operators of a `match` rule.

use query::{Comparison, Value, resources::MatchMode};
use regex::RegexBuilder;
use serde_json::{Map, Value as Json};

use super::{Parser, kind_of, mirrored};
use crate::{
    column_path::ColumnPath,
    operand::{ListOperand, Operand, StaticType},
    path::{Path, Root},
    rule::{Match, Subject, Test, Type},
};

/// Most bytes of a compiled regular expression.
const MAX_PATTERN_BYTES: usize = 1 << 20;

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
    pub(super) fn matching(
        &mut self,
        members: &Map<String, Json>,
        path: &str,
        mode: Option<MatchMode>,
    ) -> Option<Match> {
        let r#type = self.r#type(members, path)?;
        let operator = self.operator(members, path, r#type)?;
        if operator == Operator::IsNull {
            let subject = self.operand(members.get("f1"), &format!("{path}.f1"), None)?;
            if members.get("f2").is_some_and(|f2| !super::is_empty(f2)) {
                self.error(&format!("{path}.f2"), "isNull takes no f2");
                return None;
            }
            let subject = self.subject(subject, path, mode)?;
            return Some(Match { subject, r#type, test: Test::IsNull });
        }
        let left = self.operand(members.get("f1"), &format!("{path}.f1"), Some(r#type));
        match operator {
            Operator::Compare(comparison) => {
                let right = self.operand(members.get("f2"), &format!("{path}.f2"), Some(r#type));
                self.comparison(left?, comparison, right?, r#type, path, mode)
            }
            Operator::In | Operator::NotIn => {
                let list = self.list(members.get("f2"), &format!("{path}.f2"), r#type);
                let subject = self.subject(left?, path, mode)?;
                let list = list?;
                let test = if operator == Operator::In { Test::In(list) } else { Test::NotIn(list) };
                Some(Match { subject, r#type, test })
            }
            Operator::StartsWith | Operator::Matches => {
                let test = self.text_test(operator, members.get("f2"), &format!("{path}.f2"));
                let left = left?;
                if find_path(&left).is_some() {
                    self.error(&format!("{path}.eval"), "this operator is not supported on args.find by this version");
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
                self.error(&format!("{path}.type"), "expected string, number, bool or date");
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
        let applies = |name: &str| match r#type {
            Type::String => !matches!(name, "<" | "<=" | ">" | ">="),
            Type::Number => !matches!(name, "startsWith" | "matches"),
            Type::Bool => matches!(name, "==" | "!=" | "isNull"),
            Type::Date => !matches!(name, "startsWith" | "matches" | "in" | "notIn"),
        };
        let eval = members.get("eval").and_then(Json::as_str).unwrap_or_default();
        if let Some((_, operator)) = known.iter().find(|(name, _)| *name == eval && applies(name)) {
            return Some(*operator);
        }
        let applicable: Vec<_> = known.iter().map(|(name, _)| *name).filter(|name| applies(name)).collect();
        let message =
            format!("invalid operator {eval:?} for type {}, expected one of {}", r#type.name(), applicable.join(" "));
        self.error(&format!("{path}.eval"), message);
        None
    }

    /// An operand; where a type is given, one that can have it.
    fn operand(&mut self, json: Option<&Json>, at: &str, r#type: Option<Type>) -> Option<Operand> {
        let operand = match json {
            Some(Json::String(text)) => match Operand::parse_in(self.scope, text) {
                Ok(operand) => operand,
                Err(message) => {
                    self.error(at, message);
                    return None;
                }
            },
            Some(Json::Bool(bool)) => Operand::Literal(Value::Bool(*bool)),
            Some(Json::Number(json)) => {
                let value = json.as_i64().map_or_else(|| Value::Number(json.to_string()), Value::Int);
                Operand::Literal(value.canonical_number())
            }
            None | Some(Json::Null) => {
                self.error(at, "expected a value or a path such as args.auth.id");
                return None;
            }
            Some(other @ (Json::Array(_) | Json::Object(_))) => {
                self.error(at, format!("expected a single value, found {}", kind_of(other)));
                return None;
            }
        };
        self.warn_of_missing_prefix(&operand, at);
        match r#type {
            Some(r#type) => self.typed(operand, r#type, at),
            None => Some(operand),
        }
    }

    /// The operand, unless its static type rules out `type`.
    fn typed(&mut self, operand: Operand, r#type: Type, at: &str) -> Option<Operand> {
        let is_typed = match (r#type, operand.static_type()) {
            (_, StaticType::Dynamic)
            | (Type::String, StaticType::Text)
            | (Type::Number, StaticType::Number)
            | (Type::Bool, StaticType::Bool) => true,
            (Type::Date, StaticType::Text) => match &operand {
                Operand::Literal(Value::Text(text)) => query::datetime::order(text).is_some(),
                Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => true,
            },
            (Type::String | Type::Number | Type::Bool | Type::Date, _) => false,
        };
        if is_typed {
            return Some(operand);
        }
        let expected = match r#type {
            Type::String => "string",
            Type::Number => "number, not in quotes",
            Type::Bool => "boolean, not in quotes",
            Type::Date => "a date such as 2019-11-25, or RFC 3339",
        };
        self.error(at, format!("expected {expected}, or a path such as args.auth.id"));
        None
    }

    /// Warns of a literal that looks like a path or a helper without its prefix.
    fn warn_of_missing_prefix(&mut self, operand: &Operand, at: &str) {
        const PREFIXES: [(&str, &str); 7] = [
            ("auth.", "args."),
            ("find.", "args."),
            ("doc.", "args."),
            ("update.", "args."),
            ("length(", "utils."),
            ("exists(", "utils."),
            ("now(", "utils."),
        ];
        let Operand::Literal(Value::Text(text)) = operand else { return };
        if let Some((_, missing)) = PREFIXES.iter().find(|(start, _)| text.starts_with(start)) {
            self.warn(at, format!("{text:?} is compared as a string; write {missing}{text} for its value"));
        }
    }

    fn list(&mut self, json: Option<&Json>, at: &str, r#type: Type) -> Option<ListOperand> {
        match json {
            Some(Json::Array(items)) if items.is_empty() => {
                self.error(at, "expected at least one value");
                None
            }
            Some(Json::Array(items)) => {
                let mut operands = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    operands.push(self.operand(Some(item), &format!("{at}.{index}"), Some(r#type)));
                }
                operands.into_iter().collect::<Option<Vec<_>>>().map(ListOperand::Items)
            }
            Some(Json::String(text)) if text.starts_with("args.") => match self.operand(json, at, None)? {
                operand if find_path(&operand).is_some() => {
                    self.error(at, "expected a list, found a value of args.find");
                    None
                }
                operand => Some(ListOperand::Reference(operand)),
            },
            _ => {
                self.error(at, "expected a list, or a path to one such as args.auth.groups");
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
            self.error(at, "expected a regular expression in quotes");
            return None;
        };
        match RegexBuilder::new(&pattern).size_limit(MAX_PATTERN_BYTES).build() {
            Ok(regex) => Some(Test::Matches(regex)),
            Err(error) => {
                self.error(at, format!("invalid regular expression: {}", error.to_string().replace('\n', " ")));
                None
            }
        }
    }

    /// A comparison, its sides exchanged where the column of `args.find` is on the right.
    fn comparison(
        &mut self,
        left: Operand,
        comparison: Comparison,
        right: Operand,
        r#type: Type,
        path: &str,
        mode: Option<MatchMode>,
    ) -> Option<Match> {
        let (left, comparison, right) = match (find_path(&left), find_path(&right)) {
            (Some(one), Some(other)) if one == other => {
                let test = Test::Compare(comparison, right);
                return Some(Match { subject: Subject::Value(left), r#type, test });
            }
            (Some(one), Some(other)) => {
                self.error(path, format!("{one} cannot be compared with {other}: one side must not be of args.find"));
                return None;
            }
            (None, Some(_)) => (right, mirrored(comparison), left),
            (Some(_), None) | (None, None) => (left, comparison, right),
        };
        let subject = self.subject(left, path, mode)?;
        Some(Match { subject, r#type, test: Test::Compare(comparison, right) })
    }

    fn subject(&mut self, operand: Operand, path: &str, mode: Option<MatchMode>) -> Option<Subject> {
        let Some(find) = find_path(&operand) else { return Some(Subject::Value(operand)) };
        let names = find.names().unwrap_or_default();
        let Some((name, relations)) = names.split_last() else {
            self.error(path, format!("expected args.find.<column>, found {find}"));
            return None;
        };
        let relations = relations.iter().map(|&name| name.to_owned()).collect();
        Some(Subject::Column { column: ColumnPath { relations, name: (*name).to_owned() }, mode })
    }
}

/// The operand as a path into the client's condition, if it is one.
fn find_path(operand: &Operand) -> Option<&Path> {
    match operand {
        Operand::Path(path) if path.root == Root::Find => Some(path),
        Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => None,
    }
}
