//! The document as a whole, written piece by piece: no more than a table of it is in memory at a time.

use std::ops::Range;

use serde_json::{Value, json};

use super::{calls, names::ComponentNames, queue, responses, tables::Describer, values::SharedSchemas};
use crate::graphql::{NoAnswer, Output, names::Names, reach::Reach};

const DESCRIPTION: &str = "Rows of tables by conditions, orders and selections. Numbers keep all their digits. A column of \
    SQLite may hold values of other types than its own, which are read as they are.";

/// Writes the document about what `reach` has of `names`.
pub fn write(names: &Names, reach: &Reach, out: &mut Output) -> Result<(), NoAnswer> {
    let components = ComponentNames::new(names);
    let mut describer = Describer { names, reach, components, shared: SharedSchemas::default() };
    out.write(b"{")?;
    let mut members = MemberWriter::default();
    for (name, value) in head(names) {
        members.write(out, name, &value)?;
    }
    members.name(out, "paths")?;
    paths(&describer, out)?;
    members.name(out, "components")?;
    out.write(b"{\"schemas\":")?;
    schemas(&mut describer, out)?;
    let mut others = MemberWriter { is_begun: true };
    let bearer = json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" });
    others.write(out, "responses", &responses::components())?;
    others.write(out, "headers", &responses::headers())?;
    others.write(out, "securitySchemes", &json!({ "bearer": bearer }))?;
    out.write(b"}}")
}

fn head(names: &Names) -> [(&'static str, Value); 4] {
    let project = &names.project;
    let title = project.spec.name.as_deref().unwrap_or(&project.id);
    [
        ("openapi", "3.1.0".into()),
        ("info", json!({ "title": title, "version": env!("CARGO_PKG_VERSION"), "description": DESCRIPTION })),
        ("servers", json!([{ "url": format!("/v1/api/{}", project.id) }])),
        // Many rules ask for no token.
        ("security", json!([{}, { "bearer": [] }])),
    ]
}

fn paths(describer: &Describer<'_>, out: &mut Output) -> Result<(), NoAnswer> {
    let mut members = MemberWriter::default();
    out.write(b"{")?;
    if !describer.names.project.services.is_empty() {
        for (path, item) in calls::paths() {
            members.write(out, path, &item)?;
        }
    }
    if describer.names.project.has_events {
        let (path, item) = queue::path();
        members.write(out, path, &item)?;
    }
    for tables in databases(describer.names) {
        if let Some((path, item)) = describer.batch_path(tables.clone()) {
            members.write(out, &path, &item)?;
        }
        for (path, item) in tables.flat_map(|table| describer.paths(table)) {
            members.write(out, &path, &item)?;
        }
    }
    out.write(b"}")
}

fn schemas(describer: &mut Describer<'_>, out: &mut Output) -> Result<(), NoAnswer> {
    let mut members = MemberWriter::default();
    out.write(b"{")?;
    members.write(out, "Error", &responses::error())?;
    for table in 0..describer.names.tables_count() {
        for (name, schema) in describer.table(table).into_iter().chain(describer.bodies(table)) {
            members.write(out, &name, &schema)?;
        }
    }
    let numbers = describer.names.project.spec.numbers;
    for index in 0.. {
        let Some((name, schema)) = describer.shared.component(index, numbers) else { break };
        members.write(out, &name, &schema)?;
    }
    out.write(b"}")
}

/// The tables of each database, which are next to each other.
fn databases(names: &Names) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    for table in 0..names.tables_count() {
        match all.last_mut() {
            Some(last) if names.table(last.start).database == names.table(table).database => last.end = table + 1,
            Some(_) | None => all.push(table..table + 1),
        }
    }
    all
}

/// Writes the members of an object, with commas between them.
#[derive(Default)]
struct MemberWriter {
    is_begun: bool,
}

impl MemberWriter {
    fn write(&mut self, out: &mut Output, name: &str, value: &Value) -> Result<(), NoAnswer> {
        self.name(out, name)?;
        out.json(value)
    }

    fn name(&mut self, out: &mut Output, name: &str) -> Result<(), NoAnswer> {
        if std::mem::replace(&mut self.is_begun, true) {
            out.write(b",")?;
        }
        out.json(name)?;
        out.write(b":")
    }
}
