//! What a rule may look at: the caller's claims and the request, both as data that is never evaluated.

use std::borrow::Cow;

use query::{Change, Filter, Object, Operation, Quantifier, Value};
use time::OffsetDateTime;

use crate::{
    date,
    operand::{Helper, Operand},
    path::{Path, Root, Step},
};

/// A request as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The project's id.
    pub project: &'a str,
    /// What is done.
    pub operation: Operation,
    /// What the client calls it.
    pub op: &'a str,
    /// The caller's token.
    pub token: &'a str,
    /// Claims of the token; `None` without a valid one.
    pub claims: Option<&'a Object>,
    /// The client's condition; `None` where it gave none.
    pub find: Option<&'a Filter>,
    /// The document of a create.
    pub doc: Option<&'a Object>,
    /// Changes of an update.
    pub changes: &'a [Change],
    /// The client's limit, where it gave one.
    pub limit: Option<u64>,
    /// The client's skip, where it gave one.
    pub skip: Option<u64>,
    /// When it is asked.
    pub now: OffsetDateTime,
}

/// What a client's condition says of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Said<'a> {
    /// Nothing that holds for every row.
    Nothing,
    /// That it is this value.
    Equal(Cow<'a, Value>),
    /// Something else.
    Otherwise,
}

impl<'a> Facts<'a> {
    /// The operand's value; `None` where the request has none.
    pub fn value<'b>(&self, operand: &'b Operand) -> Option<Cow<'b, Value>>
    where
        'a: 'b,
    {
        match operand {
            Operand::Literal(value) => Some(Cow::Borrowed(value)),
            Operand::Path(path) => self.at(path),
            Operand::Helper(helper) => self.helped(helper).map(Cow::Owned),
        }
    }

    fn helped(&self, helper: &Helper) -> Option<Value> {
        match helper {
            Helper::Exists(path) => Some(Value::Bool(self.exists(path))),
            Helper::Length(of) => length(self.value(of)?.as_ref()),
            Helper::Now => date::text(self.now).map(Value::Text),
            Helper::AddDuration(of, by) => date::text(self.instant(of)?.checked_add(*by)?).map(Value::Text),
            Helper::RoundUpDate(of, unit) => date::text(unit.beginning(self.instant(of)?)?).map(Value::Text),
        }
    }

    fn instant(&self, operand: &Operand) -> Option<OffsetDateTime> {
        match self.value(operand)?.as_ref() {
            Value::Text(text) => date::parse(text),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => None,
        }
    }

    fn exists(&self, path: &Path) -> bool {
        match (path.root, self.keys(path)) {
            (_, None) => false,
            (Root::Find, Some(keys)) if keys.is_empty() => self.find.is_some(),
            (Root::Find, Some(keys)) => self.said(&keys) != Said::Nothing,
            (_, Some(keys)) => self.with_keys(path.root, &keys).is_some(),
        }
    }

    fn at(&self, path: &Path) -> Option<Cow<'a, Value>> {
        self.with_keys(path.root, &self.keys(path)?)
    }

    fn keys<'b>(&self, path: &'b Path) -> Option<Vec<Cow<'b, str>>>
    where
        'a: 'b,
    {
        path.steps
            .iter()
            .map(|step| match step {
                Step::Name(name) => Some(Cow::Borrowed(name.as_str())),
                Step::Value(path) => match self.at(path)?.as_ref() {
                    Value::Text(key) => Some(Cow::Owned(key.clone())),
                    Value::Int(index) if *index >= 0 => Some(Cow::Owned(index.to_string())),
                    Value::Null
                    | Value::Bool(_)
                    | Value::Int(_)
                    | Value::Number(_)
                    | Value::List(_)
                    | Value::Object(_) => None,
                },
            })
            .collect()
    }

    fn with_keys(&self, root: Root, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
        match root {
            Root::Auth => inside_object(self.claims?, keys),
            Root::Doc => inside_object(self.doc?, keys),
            Root::Find => match self.said(keys) {
                Said::Equal(value) => Some(value),
                Said::Nothing | Said::Otherwise => None,
            },
            Root::Update => self.changed(Order::Operator, keys),
            Root::Changes => self.changed(Order::Column, keys),
            Root::Opts => inside_made(self.opts(), keys),
            Root::Op => text(self.op, keys),
            Root::Project => text(self.project, keys),
            Root::Token if self.token.is_empty() => None,
            Root::Token => text(self.token, keys),
        }
    }

    /// What the client's condition says of the column that `keys` lead to, over relations.
    pub fn said<K: AsRef<str>>(&self, keys: &[K]) -> Said<'a> {
        match self.find {
            Some(find) if !keys.is_empty() => said(find, keys),
            Some(_) | None => Said::Nothing,
        }
    }

    fn changed(&self, order: Order, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
        let parts = |change: &'a Change| match change {
            Change::Set { column, value } => (("$set", "set"), column.as_str(), value),
            Change::Inc { column, by } => (("$inc", "inc"), column.as_str(), by),
        };
        let named = |change: &'a Change| {
            let ((dollar, plain), column, value) = parts(change);
            match order {
                Order::Operator => (dollar, column, value),
                Order::Column => (column, plain, value),
            }
        };
        let all = self.changes.iter().map(named);
        match keys {
            [] if self.changes.is_empty() => None,
            [] => {
                let mut groups = Object::default();
                for (outer, inner, value) in all {
                    let member = (inner.to_owned(), value.clone());
                    match groups.0.iter_mut().find(|(name, _)| name == outer) {
                        Some((_, Value::Object(group))) => group.0.push(member),
                        Some(_) | None => groups.0.push((outer.to_owned(), Value::Object(Object(vec![member])))),
                    }
                }
                Some(Cow::Owned(Value::Object(groups)))
            }
            [first] => {
                let members: Vec<_> = all
                    .filter(|(outer, ..)| outer == first)
                    .map(|(_, inner, value)| (inner.to_owned(), value.clone()))
                    .collect();
                (!members.is_empty()).then_some(Cow::Owned(Value::Object(Object(members))))
            }
            [first, second, rest @ ..] => {
                let (.., value) = all.into_iter().find(|(outer, inner, _)| outer == first && inner == second)?;
                inside(value, rest).map(Cow::Borrowed)
            }
        }
    }

    fn opts(&self) -> Object {
        let number = |number: u64| i64::try_from(number).map_or_else(|_| Value::Number(number.to_string()), Value::Int);
        let limit = self.limit.map(|limit| ("limit".to_owned(), number(limit)));
        let skip = self.skip.map(|skip| ("skip".to_owned(), number(skip)));
        Object(limit.into_iter().chain(skip).collect())
    }
}

/// By what changes are grouped.
#[derive(Clone, Copy)]
enum Order {
    Operator,
    Column,
}

fn said<'a, K: AsRef<str>>(filter: &'a Filter, keys: &[K]) -> Said<'a> {
    let [first, rest @ ..] = keys else { return Said::Nothing };
    let names = |name: &str| rest.is_empty() && name == first.as_ref();
    match filter {
        Filter::And(all) => all.iter().map(|one| said(one, keys)).fold(Said::Nothing, both),
        Filter::Compare { column, comparison: query::Comparison::Eq, value } if names(column) => {
            Said::Equal(Cow::Borrowed(value))
        }
        Filter::IsNull { column } if names(column) => Said::Equal(Cow::Owned(Value::Null)),
        Filter::Compare { column, .. } | Filter::In { column, .. } if names(column) => Said::Otherwise,
        Filter::Not(inner) if matches!(said(inner, keys), Said::Equal(_) | Said::Otherwise) => Said::Otherwise,
        Filter::Related { relation, .. } if names(relation) => Said::Otherwise,
        Filter::Related { relation, quantifier: Quantifier::Some, filter } if relation == first.as_ref() => {
            said(filter, rest)
        }
        Filter::Compare { .. }
        | Filter::In { .. }
        | Filter::IsNull { .. }
        | Filter::Not(_)
        | Filter::Or(_)
        | Filter::Related { .. } => Said::Nothing,
    }
}

/// What two conditions that both hold say together. Two different values say nothing that can be relied on.
fn both<'a>(one: Said<'a>, other: Said<'a>) -> Said<'a> {
    match (one, other) {
        (Said::Nothing, said) | (said, Said::Nothing) => said,
        (Said::Equal(one), Said::Equal(other)) if one != other => Said::Otherwise,
        (Said::Equal(value), _) | (_, Said::Equal(value)) => Said::Equal(value),
        (Said::Otherwise, Said::Otherwise) => Said::Otherwise,
    }
}

fn text<'a>(text: &str, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
    keys.is_empty().then(|| Cow::Owned(Value::Text(text.to_owned())))
}

fn inside_made<'a>(object: Object, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
    inside_object(&object, keys).map(|value| Cow::Owned(value.into_owned()))
}

fn inside_object<'a>(object: &'a Object, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
    match keys {
        [] => Some(Cow::Owned(Value::Object(object.clone()))),
        [first, rest @ ..] => inside(object.get(first)?, rest).map(Cow::Borrowed),
    }
}

fn inside<'a>(value: &'a Value, keys: &[Cow<'_, str>]) -> Option<&'a Value> {
    let mut value = value;
    for key in keys {
        value = match value {
            Value::Object(object) => object.get(key)?,
            Value::List(items) => items.get(key.parse::<usize>().ok()?)?,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => return None,
        };
    }
    Some(value)
}

fn length(value: &Value) -> Option<Value> {
    let length = match value {
        Value::List(items) => items.len(),
        Value::Object(object) => object.0.len(),
        // Bytes, as rules that were written for earlier servers expect.
        Value::Text(text) => text.len(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) => return None,
    };
    i64::try_from(length).ok().map(Value::Int)
}

#[cfg(test)]
mod tests {
    use query::Comparison;

    use super::*;

    fn compare(column: &str, comparison: Comparison, value: i64) -> Filter {
        Filter::Compare { column: column.to_owned(), comparison, value: Value::Int(value) }
    }

    fn facts<'a>() -> Facts<'a> {
        Facts {
            project: "shop",
            operation: Operation::Update,
            op: "all",
            token: "",
            claims: None,
            find: None,
            doc: None,
            changes: &[],
            limit: None,
            skip: None,
            now: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn value(facts: &Facts<'_>, text: &str) -> Option<Value> {
        let operand = Operand::parse(text).unwrap();
        facts.value(&operand).map(Cow::into_owned)
    }

    #[test]
    fn a_condition_says_what_holds_for_every_row() {
        let equal = |value| Said::Equal(Cow::Owned(Value::Int(value)));
        let or = Filter::Or(vec![compare("a", Comparison::Eq, 1)]);
        let related = |quantifier| Filter::Related {
            relation: "invoice".to_owned(),
            quantifier,
            filter: Box::new(compare("a", Comparison::Eq, 1)),
        };
        for (filter, keys, expected) in [
            (compare("a", Comparison::Eq, 1), &["a"][..], equal(1)),
            (compare("a", Comparison::Gt, 1), &["a"], Said::Otherwise),
            (compare("b", Comparison::Eq, 1), &["a"], Said::Nothing),
            (Filter::IsNull { column: "a".to_owned() }, &["a"], Said::Equal(Cow::Owned(Value::Null))),
            (Filter::In { column: "a".to_owned(), values: vec![] }, &["a"], Said::Otherwise),
            (Filter::Not(Box::new(compare("a", Comparison::Eq, 1))), &["a"], Said::Otherwise),
            (or.clone(), &["a"], Said::Nothing),
            (Filter::And(vec![or, compare("a", Comparison::Eq, 1)]), &["a"], equal(1)),
            (Filter::And(vec![compare("a", Comparison::Lt, 9), compare("a", Comparison::Eq, 1)]), &["a"], equal(1)),
            (
                Filter::And(vec![compare("a", Comparison::Eq, 2), compare("a", Comparison::Eq, 1)]),
                &["a"],
                Said::Otherwise,
            ),
            (related(Quantifier::Some), &["invoice", "a"], equal(1)),
            (related(Quantifier::Some), &["invoice"], Said::Otherwise),
            (related(Quantifier::None), &["invoice", "a"], Said::Nothing),
            (related(Quantifier::Some), &["a"], Said::Nothing),
        ] {
            assert_eq!(said(&filter, keys), expected, "{filter:?}");
        }
    }

    #[test]
    fn changes_are_found_by_operator_and_by_column() {
        let changes = [
            Change::Set { column: "name".to_owned(), value: Value::Text("x".to_owned()) },
            Change::Inc { column: "n".to_owned(), by: Value::Int(2) },
        ];
        let facts = Facts { changes: &changes, ..facts() };
        assert_eq!(value(&facts, "args.update.$set.name"), Some(Value::Text("x".to_owned())));
        assert_eq!(value(&facts, "args.update.$inc.n"), Some(Value::Int(2)));
        assert_eq!(value(&facts, "args.update.$set.n"), None);
        assert_eq!(value(&facts, "args.changes.n.inc"), Some(Value::Int(2)));
        assert_eq!(value(&facts, "utils.exists(args.changes.name)"), Some(Value::Bool(true)));
        assert_eq!(value(&facts, "utils.exists(args.changes.role)"), Some(Value::Bool(false)));
        assert_eq!(value(&facts, "utils.length(args.update)"), Some(Value::Int(2)));
        assert_eq!(value(&facts, "utils.length(args.update.$set)"), Some(Value::Int(1)));
    }

    #[test]
    fn what_is_absent_has_no_value() {
        let facts = facts();
        for path in
            ["args.auth", "args.auth.id", "args.token", "args.doc.a", "args.find.a", "args.opts.limit", "args.op.x"]
        {
            assert_eq!(value(&facts, path), None, "{path}");
            assert_eq!(value(&facts, &format!("utils.exists({path})")), Some(Value::Bool(false)), "{path}");
        }
        assert_eq!(value(&facts, "args.op"), Some(Value::Text("all".to_owned())));
        assert_eq!(value(&facts, "args.project"), Some(Value::Text("shop".to_owned())));
    }
}
