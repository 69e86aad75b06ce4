//! Hooks: functions that are asked before rows are written, and may refuse or change what is written.
//!
//! A hook that does not answer as it must refuses. What it changes is judged by the rules again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use mesh::{Code, Fault};
use proto::{Links, auth::AuthorizeCallRequest, functions::CallRequest};
use query::{
    Budget, Change, Comparison, Document, Filter, Guard, Limits, Mutation, MutationKind, Object, Parser, Quantifier,
    Spelling, Typed, Value, hook::Hook,
};

use super::{Caller, Edge, FunctionAnswer};
use crate::catalogue::Project;

/// Rows of a request that hooks are asked about.
const ROWS_MAX: usize = 1000;
/// Questions of one mutation at once.
const ASKED_AT_ONCE: usize = 16;
/// Bytes of an answer.
const ANSWER_BYTES: u64 = 1 << 20;
/// Guard of answers.
const ANSWER: Guard = Guard::new(64, 1_000_000);

/// What a hook says.
enum HookVerdict {
    Accept,
    /// What is written instead.
    Change(Object),
}

impl Edge {
    /// Asks the hooks of the tables that mutations are of; whether one of them changed what is written. Errors: a hook
    /// refuses, or does not answer as it must; the detail `mutation` is the index.
    pub(super) async fn ask_hooks(
        &self,
        caller: &Caller,
        project: &Project,
        mutations: &mut [(Arc<str>, Mutation)],
    ) -> Result<bool, Fault> {
        let (mut has_changed, mut rows) = (false, 0);
        for (index, (database, mutation)) in mutations.iter_mut().enumerate() {
            let Some(hook) = project.hook(database, &mutation.table, mutation.kind.operation()) else { continue };
            rows += match &mutation.kind {
                MutationKind::Insert { docs } => docs.len(),
                MutationKind::Update { .. } | MutationKind::Delete { .. } => 1,
            };
            if rows > ROWS_MAX {
                let text = format!("{rows} rows are over the limit of {ROWS_MAX} rows that functions are asked about");
                return Err(Fault::new(Code::TooLarge, text).with("mutation", index.to_string()));
            }
            let asked = HookQuestion { edge: self, caller, project, database, hook };
            let answered = asked.ask(mutation).boxed().await;
            has_changed |= answered.map_err(|fault| {
                self.log_refusal(caller, &fault);
                fault.with("mutation", index.to_string())
            })?;
        }
        Ok(has_changed)
    }
}

/// A question to the hook of a table.
struct HookQuestion<'q> {
    edge: &'q Edge,
    caller: &'q Caller,
    project: &'q Project,
    database: &'q Arc<str>,
    hook: &'q Hook,
}

impl HookQuestion<'_> {
    /// Asks about a mutation, within the time of the hook; whether that was changed.
    async fn ask(&self, mutation: &mut Mutation) -> Result<bool, Fault> {
        let time = self.hook.timeout();
        match tokio::time::timeout(time, self.asked(mutation, time)).await {
            Ok(answered) => answered,
            Err(_) => Err(self.late(time)),
        }
    }

    fn late(&self, time: Duration) -> Fault {
        self.log(&format!("no answer within {time:?}"));
        Fault::new(Code::Deadline, format!("the function that is asked before did not answer within {time:?}"))
    }

    /// Tells operators what went wrong, of which callers hear that it did.
    fn log(&self, why: &str) {
        let (project, Hook { service, function, .. }) = (&*self.project.id, self.hook);
        tracing::warn!(project, service, function, why, "a function that is asked before did not answer as it must");
    }

    /// A call that failed, without the names in it.
    fn failed(&self, fault: Fault) -> Fault {
        self.log(&fault.message);
        let text = "the function that is asked before cannot be called, or did not answer as it must";
        Fault { message: text.to_owned(), ..fault }
    }

    async fn asked(&self, mutation: &mut Mutation, time: Duration) -> Result<bool, Fault> {
        let table = mutation.table.clone();
        match &mut mutation.kind {
            MutationKind::Insert { docs } => {
                let mut questions: Vec<BoxFuture<'_, Result<HookVerdict, Fault>>> = Vec::with_capacity(docs.len());
                for doc in docs.iter() {
                    let params = self.params("create", &table, vec![("doc", document(doc))]);
                    questions.push(self.call(params, time).boxed());
                }
                let answers: Vec<HookVerdict> = stream::iter(questions).buffered(ASKED_AT_ONCE).try_collect().await?;
                let mut next = docs.to_vec();
                for (row, verdict) in next.iter_mut().zip(answers) {
                    if let HookVerdict::Change(doc) = verdict {
                        *row = self.document(&table, doc)?;
                    }
                }
                let is_other = **docs != *next;
                *docs = next.into();
                Ok(is_other)
            }
            MutationKind::Update { filter, changes, .. } => {
                let members = vec![("find", condition(filter)), ("update", update(changes))];
                match self.call(self.params("update", &table, members), time).await? {
                    HookVerdict::Accept => Ok(false),
                    HookVerdict::Change(doc) => {
                        let next = self.changes(&table, doc, changes)?;
                        let is_other = *changes != next;
                        *changes = next;
                        Ok(is_other)
                    }
                }
            }
            MutationKind::Delete { filter, .. } => {
                let members = vec![("find", condition(filter))];
                match self.call(self.params("delete", &table, members), time).await? {
                    HookVerdict::Accept => Ok(false),
                    HookVerdict::Change(_) => Err(self.malformed("a deletion has no doc")),
                }
            }
        }
    }

    /// What the function is told, JSON.
    fn params(&self, operation: &str, table: &str, more: Vec<(&str, Value)>) -> Bytes {
        let text = |text: &str| Value::Text(text.to_owned());
        let first = [("operation", text(operation)), ("db", text(self.database)), ("col", text(table))];
        let members = first.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value));
        let mut json = Vec::new();
        Object(members.collect()).write_json(&mut json);
        json.into()
    }

    /// Calls the function with the claims of the caller; its own rule is not asked.
    async fn call(&self, params: Bytes, time: Duration) -> Result<HookVerdict, Fault> {
        let Self { edge, caller, project, hook, .. } = self;
        let asked = AuthorizeCallRequest {
            project: project.id.to_string(),
            token: caller.token.to_string(),
            service: hook.service.clone(),
            function: hook.function.clone(),
            params: Bytes::new(),
            of_operator: true,
            is_list: false,
        };
        let grant = edge.mesh.auth_rules().authorize_call(&caller.call, asked).await;
        let grant = grant.map_err(|status| self.failed(status.into()))?.grant;
        let _running = edge.calls.enter()?;
        let timeout_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let request = CallRequest { grant, params, timeout_ms, answer_bytes: ANSWER_BYTES };
        let answer = edge.mesh.functions().call(&caller.call, request).await;
        let answer = answer.map_err(|status| self.failed(status.into()))?;
        let status = u16::try_from(answer.status).unwrap_or_default();
        self.verdict(&FunctionAnswer { status, body: answer.body }.result()?)
    }

    fn verdict(&self, answer: &[u8]) -> Result<HookVerdict, Fault> {
        let expected = "expected {accept: true}, {reject: text} or {doc}";
        let Ok(Value::Object(answer)) = proto::json::parse(answer, ANSWER) else {
            return Err(self.malformed(expected));
        };
        match (answer.get("accept"), answer.get("reject"), answer.get("doc")) {
            (Some(Value::Bool(true)), None, None) => Ok(HookVerdict::Accept),
            (None, Some(Value::Text(text)), None) => Err(Fault::new(Code::Function, shortened(text))),
            (None, None, Some(Value::Object(doc))) => Ok(HookVerdict::Change(doc.clone())),
            _ => Err(self.malformed(expected)),
        }
    }

    /// The fault of an answer that is none.
    fn malformed(&self, why: &str) -> Fault {
        self.log(why);
        Fault::new(Code::BadGateway, "the function that is asked before answered wrongly")
    }

    fn document(&self, table: &str, doc: Object) -> Result<Document, Fault> {
        let schema = self.project.schema(self.database)?;
        let parser = Parser { schema, spelling: Spelling::Dollar };
        let table = schema.table(table)?;
        let docs = parser.docs(table, &Value::Object(doc), &mut Budget::new(Limits::default()));
        let mut docs = docs.map_err(|error| self.malformed(&error.to_string()))?;
        docs.pop().ok_or_else(|| self.malformed("there is no doc"))
    }

    /// The changes of an update with these values set, and its other changes as they are.
    fn changes(&self, table: &str, doc: Object, changes: &[Change]) -> Result<Vec<Change>, Fault> {
        let schema = self.project.schema(self.database)?;
        let parser = Parser { schema, spelling: Spelling::Dollar };
        let set = Value::Object(Object(vec![("$set".to_owned(), Value::Object(doc))]));
        let set = parser.changes(schema.table(table)?, &set, &mut Budget::new(Limits::default()));
        let mut next = set.map_err(|error| self.malformed(&error.to_string()))?;
        for change in changes.iter().filter(|change| !matches!(change, Change::Set { .. })) {
            if next.iter().any(|set| set.column() == change.column()) {
                return Err(self.malformed(&format!("column {} is changed twice", change.column())));
            }
            next.push(change.clone());
        }
        match next.is_empty() {
            true => Err(self.malformed("nothing is left to change")),
            false => Ok(next),
        }
    }
}

/// Bytes of the text with which a hook refuses.
const REJECT_BYTES: usize = 1024;

fn shortened(text: &str) -> String {
    match text.is_empty() {
        true => "the write was refused".to_owned(),
        false => text.get(..text.floor_char_boundary(REJECT_BYTES)).unwrap_or_default().to_owned(),
    }
}

/// A value as it is written in JSON: that of a column of JSON as it is.
fn value(typed: &Typed) -> Value {
    match typed {
        Typed::Json(text) => proto::json::parse(text.as_bytes(), ANSWER).unwrap_or_else(|_| Value::Text(text.clone())),
        other => other.to_value(),
    }
}

fn document(Document(members): &Document) -> Value {
    Value::Object(Object(members.iter().map(|(name, typed)| (name.clone(), value(typed))).collect()))
}

/// The changes of an update as REST writes them.
fn update(changes: &[Change]) -> Value {
    let (mut set, mut inc) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Set { column, value: typed } => set.push((column.clone(), value(typed))),
            Change::Inc { column, by } => inc.push((column.clone(), value(by))),
        }
    }
    let operators = [("$set", set), ("$inc", inc)].into_iter().filter(|(_, members)| !members.is_empty());
    Value::Object(Object(operators.map(|(name, members)| (name.to_owned(), Value::Object(Object(members)))).collect()))
}

/// A condition as REST writes it.
fn condition(filter: &Filter) -> Value {
    let object = |name: &str, value: Value| Value::Object(Object(vec![(name.to_owned(), value)]));
    let all = |filters: &[Filter]| Value::List(filters.iter().map(condition).collect());
    match filter {
        Filter::And(filters) if filters.is_empty() => Value::Object(Object::default()),
        Filter::And(filters) => object("$and", all(filters)),
        Filter::Or(filters) => object("$or", all(filters)),
        Filter::Not(inner) => object("$not", condition(inner)),
        Filter::Compare { column, comparison, value: typed } => {
            let operator = match comparison {
                Comparison::Eq => "$eq",
                Comparison::Ne => "$ne",
                Comparison::Gt => "$gt",
                Comparison::Gte => "$gte",
                Comparison::Lt => "$lt",
                Comparison::Lte => "$lte",
            };
            object(column, object(operator, value(typed)))
        }
        Filter::In { column, values } => object(column, object("$in", Value::List(values.iter().map(value).collect()))),
        Filter::IsNull { column } => object(column, object("$isNull", Value::Bool(true))),
        Filter::Related { relation, quantifier, filter, .. } => {
            let quantifier = match quantifier {
                Quantifier::Some => "$some",
                Quantifier::None => "$none",
                Quantifier::Every => "$every",
            };
            object(relation, object(quantifier, condition(filter)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> String {
        let mut json = Vec::new();
        value.write_json(&mut json);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn conditions_and_changes_are_told_as_rest_writes_them() {
        let compare =
            |column: &str, comparison, value| Filter::Compare { column: column.to_owned(), comparison, value };
        let filter = Filter::And(vec![
            compare("id", Comparison::Eq, Typed::Int(1)),
            Filter::Not(Box::new(Filter::IsNull { column: "a".to_owned() })),
            Filter::Or(vec![Filter::In { column: "s".to_owned(), values: vec![Typed::Text("x".to_owned())] }]),
            Filter::Related {
                relation: "lines".to_owned(),
                long_name: None,
                quantifier: Quantifier::None,
                filter: Box::new(compare("n", Comparison::Lte, Typed::Decimal("1.50".to_owned()))),
            },
        ]);
        let expected = r#"{"$and":[{"id":{"$eq":1}},{"$not":{"a":{"$isNull":true}}},{"$or":[{"s":{"$in":["x"]}}]},{"lines":{"$none":{"n":{"$lte":1.50}}}}]}"#;
        assert_eq!(written(&condition(&filter)), expected);
        assert_eq!(written(&condition(&Filter::TRUE)), "{}");
        let changes = [
            Change::Set { column: "a".to_owned(), value: Typed::Json(r#"{"k":[1]}"#.to_owned()) },
            Change::Inc { column: "n".to_owned(), by: Typed::Int(-1) },
        ];
        assert_eq!(written(&update(&changes)), r#"{"$set":{"a":{"k":[1]}},"$inc":{"n":-1}}"#);
        assert_eq!(written(&update(&changes[1..])), r#"{"$inc":{"n":-1}}"#);
    }
}
