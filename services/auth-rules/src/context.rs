//! Request context: the caller's claims and the request, as a rule may read them.
//!
//! Both are data: nothing in them is parsed or evaluated.

use std::{borrow::Cow, time::SystemTime};

use query::{
    Change, Document, Filter, Guard, Object, Operation, Typed, Value, datetime, file::FilePath, resources::MatchMode,
};
use time::OffsetDateTime;

use crate::{
    constraint::Constraint,
    date,
    operand::{Helper, Operand},
    path::{Path, Root, Step},
    questions::{AskedFunction, Question, Questions},
};

/// A request with its caller's claims, in the form that rules read.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// The project's id.
    pub project: &'a str,
    /// The project's match mode, of comparisons with columns that have none of their own.
    pub mode: MatchMode,
    /// The kind of operation on the table.
    pub operation: Operation,
    /// The client's own word for the operation: `one`, `all`, `count`.
    pub op: &'a str,
    /// The caller's token; empty where it sent none.
    pub token: &'a str,
    /// Claims of the token; `None` without a valid one.
    pub claims: Option<&'a Object>,
    /// The client's condition; `None` where it gave none.
    pub find: Option<&'a Filter>,
    /// The document of a create.
    pub doc: Option<&'a Document>,
    /// Changes of an update.
    pub changes: &'a [Change],
    /// The client's limit, where it gave one.
    pub limit: Option<u64>,
    /// The client's skip, where it gave one.
    pub skip: Option<u64>,
    /// The time of the request.
    pub now: SystemTime,
    /// The file of a request for one.
    pub file: Option<FileContext<'a>>,
    /// The parameters of a call of a function, where its rule looks at them.
    pub params: Option<&'a Value>,
    /// Questions of rules to functions; `None` where none can be asked.
    pub questions: Option<&'a Questions>,
}

/// A file as a rule may read it.
#[derive(Debug, Clone, Copy)]
pub struct FileContext<'a> {
    /// Its path; `None` where it is not known yet.
    pub path: Option<&'a FilePath>,
    /// Segments of the path that the prefix of the rule names.
    pub params: &'a [(String, String)],
    /// Bytes that are written.
    pub size: FileSize,
    /// Media type of what is written; empty where nothing is.
    pub content_type: &'a str,
    /// The user's metadata of what is written.
    pub meta: Option<&'a Object>,
}

/// Bytes of a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSize {
    /// Nothing is written.
    None,
    /// Not known yet.
    Unknown,
    /// So many.
    Known(u64),
}

impl FileContext<'_> {
    fn params(&self) -> Object {
        Object(self.params.iter().map(|(name, value)| (name.clone(), Value::Text(value.clone()))).collect())
    }
}

impl<'a> RequestContext<'a> {
    /// A request of a stranger who says nothing more.
    pub fn of(project: &'a str, mode: MatchMode, operation: Operation, now: SystemTime) -> Self {
        Self {
            project,
            mode,
            operation,
            op: "",
            token: "",
            claims: None,
            find: None,
            doc: None,
            changes: &[],
            limit: None,
            skip: None,
            now,
            file: None,
            params: None,
            questions: None,
        }
    }

    /// The operand's value; `None` where the request lacks it.
    pub fn value<'b>(&self, operand: &'b Operand) -> Option<Cow<'b, Value>>
    where
        'a: 'b,
    {
        match operand {
            Operand::Literal(value) => Some(Cow::Borrowed(value)),
            Operand::Path(path) => self.value_at(path),
            Operand::Helper(helper) => self.helper_value(helper).map(Cow::Owned),
        }
    }

    /// Whether the part is of a request that is not known, or not as a whole: it may turn out to be anything.
    pub fn is_unknown(&self, root: Root) -> bool {
        match (root, &self.file) {
            (Root::Op | Root::Find | Root::Doc | Root::Update | Root::Changes | Root::Opts, _) => true,
            (Root::Path | Root::Name | Root::Params, Some(file)) => file.path.is_none(),
            // What is written as a form tells its metadata last.
            (Root::Meta, Some(file)) => file.path.is_none(),
            (Root::Size, Some(file)) => file.size == FileSize::Unknown,
            (Root::Path | Root::Name | Root::Params | Root::Meta | Root::Size, None) => true,
            // What is not declared is told by the name.
            (Root::ContentType, Some(file)) => file.path.is_none() && file.content_type.is_empty(),
            (Root::Auth | Root::Token | Root::Project | Root::ContentType, _) => false,
        }
    }

    /// The answer of a function to this request; `None` where there is none. It is told all of the request but the token, as far
    /// as that has values; its caller's claims are its identity.
    pub fn ask(&self, asked: &AskedFunction) -> Option<bool> {
        const TOLD: [(&str, Root); 5] = [
            ("op", Root::Op),
            ("doc", Root::Doc),
            ("update", Root::Update),
            ("opts", Root::Opts),
            ("params", Root::Params),
        ];
        let questions = self.questions?;
        let is_empty = |value: &Value| match value {
            Value::Text(text) => text.is_empty(),
            Value::Object(object) => object.0.is_empty(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::List(_) => false,
        };
        let values = TOLD.into_iter().filter_map(|(name, root)| {
            let value = self.value_under(root, &[])?.into_owned();
            (root == Root::Params || !is_empty(&value)).then(|| (name.to_owned(), value))
        });
        let mut params = Vec::new();
        Object(values.collect()).write_json(&mut params);
        questions.answer(Question { asked: asked.clone(), params })
    }

    fn helper_value(&self, helper: &Helper) -> Option<Value> {
        match helper {
            Helper::Exists(path) => Some(Value::Bool(self.exists(path))),
            Helper::Length(of) => length(self.value(of)?.as_ref()),
            Helper::Now => date::text(self.now.into()).map(Value::Text),
            Helper::AddDuration(of, by) => date::text(self.instant(of)?.checked_add(*by)?).map(Value::Text),
            Helper::RoundUpDate(of, unit) => date::text(unit.truncate(self.instant(of)?)?).map(Value::Text),
        }
    }

    fn instant(&self, operand: &Operand) -> Option<OffsetDateTime> {
        match self.value(operand)?.as_ref() {
            Value::Text(text) => datetime::instant(text),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => None,
        }
    }

    fn exists(&self, path: &Path) -> bool {
        match (path.root, self.keys(path)) {
            (_, None) => false,
            (Root::Find, Some(keys)) if keys.is_empty() => self.find.is_some(),
            (Root::Find, Some(keys)) => self.constraint(&keys) != Constraint::None,
            (_, Some(keys)) => self.value_under(path.root, &keys).is_some(),
        }
    }

    fn value_at(&self, path: &Path) -> Option<Cow<'a, Value>> {
        // A claim, which most rules read, is found without a list of keys.
        if let (Root::Auth, [Step::Name(name)]) = (path.root, path.steps.as_slice()) {
            return self.claims?.get(name).map(Cow::Borrowed);
        }
        self.value_under(path.root, &self.keys(path)?)
    }

    fn keys<'b>(&self, path: &'b Path) -> Option<Vec<Cow<'b, str>>>
    where
        'a: 'b,
    {
        path.steps
            .iter()
            .map(|step| match step {
                Step::Name(name) => Some(Cow::Borrowed(name.as_str())),
                Step::Value(path) => match self.value_at(path)?.as_ref() {
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

    fn value_under(&self, root: Root, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
        match root {
            Root::Auth => inside_object(self.claims?, keys),
            Root::Doc => inside_document(self.doc?, keys),
            Root::Find => match self.constraint(keys) {
                Constraint::Equal(value) => value_of(value).map(Cow::Owned),
                Constraint::None | Constraint::Other => None,
            },
            Root::Update => self.changed(Grouping::ByOperator, keys),
            Root::Changes => self.changed(Grouping::ByColumn, keys),
            Root::Opts => inside_owned(self.opts(), keys),
            Root::Op => text(self.op, keys),
            Root::Project => text(self.project, keys),
            Root::Token if self.token.is_empty() => None,
            Root::Token => text(self.token, keys),
            Root::Path => text(&self.file?.path?.to_string(), keys),
            Root::Name => text(self.file?.path?.name(), keys),
            Root::ContentType => text(self.file.map(|file| file.content_type).filter(|of| !of.is_empty())?, keys),
            Root::Params => match (&self.file, self.params) {
                (Some(file), _) => inside_owned(file.params(), keys),
                (None, params) => inside(params?, keys).map(Cow::Borrowed),
            },
            Root::Meta => inside_object(self.file?.meta?, keys),
            Root::Size => match self.file?.size {
                FileSize::Known(size) => keys.is_empty().then(|| Cow::Owned(number(size))),
                FileSize::None | FileSize::Unknown => None,
            },
        }
    }

    /// The constraint of the client's condition on the column that `keys` lead to, over relations.
    pub fn constraint<K: AsRef<str>>(&self, keys: &[K]) -> Constraint<'a> {
        self.find.map_or(Constraint::None, |find| Constraint::of(find, keys))
    }

    fn changed(&self, grouping: Grouping, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
        let mut changes = self.changes.iter().map(|change| grouping.entry(change));
        match keys {
            [] => {
                let mut groups = Object::default();
                for (outer, inner, value) in changes {
                    let member = (inner.to_owned(), value_of(value)?);
                    match groups.0.iter_mut().find(|(name, _)| name == outer) {
                        Some((_, Value::Object(group))) => group.0.push(member),
                        Some(_) | None => groups.0.push((outer.to_owned(), Value::Object(Object(vec![member])))),
                    }
                }
                (!groups.0.is_empty()).then_some(Cow::Owned(Value::Object(groups)))
            }
            [first] => {
                let members: Vec<_> = changes
                    .filter(|(outer, ..)| outer == first)
                    .filter_map(|(_, inner, value)| Some((inner.to_owned(), value_of(value)?)))
                    .collect();
                (!members.is_empty()).then_some(Cow::Owned(Value::Object(Object(members))))
            }
            [first, second, rest @ ..] => {
                let (.., value) = changes.find(|(outer, inner, _)| outer == first && inner == second)?;
                inside_column(value, rest).map(Cow::Owned)
            }
        }
    }

    fn opts(&self) -> Object {
        let limit = self.limit.map(|limit| ("limit".to_owned(), number(limit)));
        let skip = self.skip.map(|skip| ("skip".to_owned(), number(skip)));
        Object(limit.into_iter().chain(skip).collect())
    }
}

/// The outer key of changes: `update.$set.name` or `changes.name.set`.
#[derive(Clone, Copy)]
enum Grouping {
    ByOperator,
    ByColumn,
}

impl Grouping {
    /// The outer and the inner key of a change, and its value.
    fn entry(self, change: &Change) -> (&str, &str, &Typed) {
        let (operator, name, column, value) = match change {
            Change::Set { column, value } => ("$set", "set", column.as_str(), value),
            Change::Inc { column, by } => ("$inc", "inc", column.as_str(), by),
        };
        match self {
            Grouping::ByOperator => (operator, column, value),
            Grouping::ByColumn => (column, name, value),
        }
    }
}

fn number(number: u64) -> Value {
    i64::try_from(number).map_or_else(|_| Value::Number(number.to_string()), Value::Int)
}

fn text<'a>(text: &str, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
    keys.is_empty().then(|| Cow::Owned(Value::Text(text.to_owned())))
}

fn inside_owned<'a>(object: Object, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
    inside_object(&object, keys).map(|value| Cow::Owned(value.into_owned()))
}

fn inside_object<'a>(object: &'a Object, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
    match keys {
        [] => Some(Cow::Owned(Value::Object(object.clone()))),
        [first, rest @ ..] => inside(object.get(first)?, rest).map(Cow::Borrowed),
    }
}

fn inside_document<'a>(document: &Document, keys: &[Cow<'_, str>]) -> Option<Cow<'a, Value>> {
    let value = match keys {
        [] => {
            let member = |(column, value): &(String, Typed)| Some((column.clone(), value_of(value)?));
            Value::Object(Object(document.0.iter().map(member).collect::<Option<_>>()?))
        }
        [first, rest @ ..] => inside_column(document.get(first)?, rest)?,
    };
    Some(Cow::Owned(value))
}

fn inside_column(value: &Typed, keys: &[Cow<'_, str>]) -> Option<Value> {
    let value = value_of(value)?;
    if keys.is_empty() { Some(value) } else { inside(&value, keys).cloned() }
}

/// Guard of the JSON that a column gets, which was counted when it was sent: whatever limits let it pass, rules see it.
const COLUMN_JSON: Guard = Guard::new(usize::MAX, usize::MAX);

/// The value of a column as rules see it.
pub fn value_of(value: &Typed) -> Option<Value> {
    match value {
        Typed::Json(text) => proto::json::parse(text.as_bytes(), COLUMN_JSON).ok(),
        value => Some(value.to_value()),
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
        // Bytes rather than characters: existing rules were written for a server that counts so.
        Value::Text(text) => text.len(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) => return None,
    };
    i64::try_from(length).ok().map(Value::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>() -> RequestContext<'a> {
        let now = SystemTime::UNIX_EPOCH;
        RequestContext { op: "all", ..RequestContext::of("shop", MatchMode::Auto, Operation::Update, now) }
    }

    fn value(request: &RequestContext<'_>, text: &str) -> Option<Value> {
        let operand = Operand::parse(text).unwrap();
        request.value(&operand).map(Cow::into_owned)
    }

    #[test]
    fn changes_are_found_by_operator_and_by_column() {
        let changes = [
            Change::Set { column: "name".to_owned(), value: Typed::Text("x".to_owned()) },
            Change::Inc { column: "n".to_owned(), by: Typed::Int(2) },
        ];
        let request = RequestContext { changes: &changes, ..request() };
        assert_eq!(value(&request, "args.update.$set.name"), Some(Value::Text("x".to_owned())));
        assert_eq!(value(&request, "args.update.$inc.n"), Some(Value::Int(2)));
        assert_eq!(value(&request, "args.update.$set.n"), None);
        assert_eq!(value(&request, "args.changes.n.inc"), Some(Value::Int(2)));
        assert_eq!(value(&request, "utils.exists(args.changes.name)"), Some(Value::Bool(true)));
        assert_eq!(value(&request, "utils.exists(args.changes.role)"), Some(Value::Bool(false)));
        assert_eq!(value(&request, "utils.length(args.update)"), Some(Value::Int(2)));
        assert_eq!(value(&request, "utils.length(args.update.$set)"), Some(Value::Int(1)));
    }

    #[test]
    fn changes_of_one_kind_are_one_group() {
        let set = |column: &str| Change::Set { column: column.to_owned(), value: Typed::Bool(true) };
        let request = RequestContext { changes: &[set("a"), set("b")], ..request() };
        assert_eq!(value(&request, "utils.length(args.update)"), Some(Value::Int(1)));
        assert_eq!(value(&request, "utils.length(args.changes)"), Some(Value::Int(2)));
        assert_eq!(value(&request, "args.update.$set.b"), Some(Value::Bool(true)));
    }

    #[test]
    fn a_part_exists_where_the_request_has_it() {
        let find = Filter::And(vec![]);
        let request = RequestContext { find: Some(&find), token: "a.b.c", limit: Some(5), ..request() };
        for path in ["args.find", "args.token", "args.opts.limit", "args.opts"] {
            assert_eq!(value(&request, &format!("utils.exists({path})")), Some(Value::Bool(true)), "{path}");
        }
        for path in ["args.find.a", "args.opts.skip", "args.update", "args.token.a"] {
            assert_eq!(value(&request, &format!("utils.exists({path})")), Some(Value::Bool(false)), "{path}");
        }
        assert_eq!(value(&request, "args.token"), Some(Value::Text("a.b.c".to_owned())));
    }

    #[test]
    fn a_column_of_json_exists_however_long_it_is() {
        let long = Typed::Json(format!("[{}0]", "0,".repeat(500_000)));
        let doc = Document(vec![("tags".to_owned(), long)]);
        let request = RequestContext { doc: Some(&doc), ..request() };
        assert_eq!(value(&request, "utils.exists(args.doc.tags)"), Some(Value::Bool(true)));
        assert_eq!(value(&request, "utils.length(args.doc.tags)"), Some(Value::Int(500_001)));
    }

    #[test]
    fn an_absent_part_has_no_value() {
        let request = request();
        for path in [
            "args.auth",
            "args.auth.id",
            "args.token",
            "args.doc.a",
            "args.find.a",
            "args.opts.limit",
            "args.op.x",
            "args.find",
        ] {
            assert_eq!(value(&request, path), None, "{path}");
            assert_eq!(value(&request, &format!("utils.exists({path})")), Some(Value::Bool(false)), "{path}");
        }
        assert_eq!(value(&request, "args.op"), Some(Value::Text("all".to_owned())));
        assert_eq!(value(&request, "args.project"), Some(Value::Text("shop".to_owned())));
    }
}
