mod any_input;
mod arguments;
mod calls;
mod documents;
mod introspection;
mod kept;
mod kept_inserts;
mod limits;
mod reads;
mod writes;

use query::{
    Budget, Change, Comparison, Error, Field, FieldKind, Filter, Guard, Mutation, MutationKind, Node, Quantifier, Read,
    Shape, Sort, Typed, Value,
};

use super::*;
use crate::graphql::{fixture, refusal::Cause};

/// The plan of a document, which is the same again when parts of it are kept.
fn planned(project: &Arc<crate::catalogue::Project>, text: &str, sent: &str) -> Result<Plan> {
    let Ok(Value::Object(sent)) = proto::json::parse(sent.as_bytes(), Guard::default()) else {
        panic!("variables are JSON")
    };
    let document = Document::parse(text, Guard::default())?;
    let operation = document.operation(None)?;
    let names = Names::new(project.clone());
    let variables = Variables::new(&document, &operation.node, sent)?;
    let plan = || {
        let counters = Counters { budget: Budget::default(), guard: Guard::default() };
        Plan::of(PlanContext { document: &document, names: &names, variables: &variables }, &operation.node, counters)
    };
    let first = plan();
    assert_eq!(plan(), first, "{text}");
    first.map(Arc::unwrap_or_clone)
}

fn plan(text: &str) -> Plan {
    planned(&fixture::shop(), text, "{}").unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
}

fn refusal(text: &str) -> Refusal {
    *planned(&fixture::shop(), text, "{}").expect_err(text)
}

fn error(text: &str) -> String {
    message(refusal(text))
}

fn message(refusal: Refusal) -> String {
    match refusal.cause {
        Cause::Model(error) => error.to_string(),
        Cause::Fault(fault) => fault.message,
    }
}

/// The only read of a document.
fn read(text: &str) -> Read {
    only(plan(text).reads)
}

fn read_with(text: &str, sent: &str) -> Read {
    only(planned(&fixture::shop(), text, sent).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}")).reads)
}

fn only<T>(mut all: Vec<T>) -> T {
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The only mutation of a document.
fn mutation(text: &str) -> MutationKind {
    let (database, mutation) = only(plan(text).writes);
    assert_eq!(&*database, "music");
    mutation.kind
}

fn keys(fields: &[Field]) -> Vec<&str> {
    fields.iter().map(|field| field.key.as_str()).collect()
}

fn column(key: &str, name: &str) -> Field {
    Field { key: key.to_owned(), kind: FieldKind::Column(name.to_owned()) }
}

fn constant(key: &str, text: &str) -> Field {
    Field { key: key.to_owned(), kind: FieldKind::Constant(text.to_owned()) }
}

fn relation(field: &Field) -> (&str, &Node) {
    match &field.kind {
        FieldKind::Relation { name, node } => (name, node),
        other => panic!("a relation, not {other:?}"),
    }
}

fn compare(column: &str, comparison: Comparison, value: Typed) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value }
}

fn equal(column: &str, value: Typed) -> Filter {
    compare(column, Comparison::Eq, value)
}

fn text(text: &str) -> Typed {
    Typed::Text(text.to_owned())
}
