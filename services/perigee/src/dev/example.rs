//! A first request: a curl command that shows rows of an open table, or where to open one.

use std::{collections::BTreeSet, path::Path, time::Duration};

use auth_rules::{AllowedRead, Overview};
use mesh::{Call, Mesh, resources::Snapshot};
use proto::{
    Links,
    auth::{Access, AuthorizeRequest, TableAccess},
};
use query::{Columns, Operation, Table};

use super::{Context, Project};
use crate::{output, token};

/// How long rules that were just read may take to be in force.
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is asked whether they are.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the token of an example is valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// Columns that an example selects.
const COLUMNS: usize = 3;

/// A table by its project, its database and its name.
pub type TableKey = (String, String, String);

/// The tables that a rule opens for some operation.
pub fn open_tables(snapshot: &Snapshot, projects: &[Project]) -> BTreeSet<TableKey> {
    let overview = Overview::of(snapshot);
    let all = tables(projects)
        .map(|(project, database, table)| (project.id.clone(), database.to_owned(), table.name.clone()));
    all.filter(|(project, database, table)| overview.is_open(project, database, table)).collect()
}

/// A command that reads one of the tables that `is_wanted`, with the table's name; `None` where none can be read.
///
/// It is tried against the rules in force before it is told.
pub async fn curl(
    context: &Context,
    snapshot: &Snapshot,
    projects: &[Project],
    is_wanted: impl Fn(&TableKey) -> bool,
) -> Option<(String, String)> {
    let mut found = Vec::new();
    {
        let overview = Overview::of(snapshot);
        for (project, database, table) in tables(projects) {
            let key = (project.id.clone(), database.to_owned(), table.name.clone());
            if is_wanted(&key)
                && let Some(read) = overview.allowed_read(&key.0, &key.1, &key.2)
                && let Some(document) = document(project, database, table, &read.columns)
            {
                found.push((key, read, document));
            }
        }
    }
    // One that needs no token is shown before one that does.
    found.sort_by_key(|(_, read, _)| read.claims.is_some());
    for (key, read, document) in found {
        let Ok(token) = signed(context, snapshot, &key.0, &read) else { continue };
        if is_allowed(&context.mesh, &key, token).await {
            return Some((key.2, command(context, &key.0, &read, &document)));
        }
    }
    None
}

/// Where to write which line, so that a first table is open; `None` without a table.
pub fn first_rule(dir: &Path, snapshot: &Snapshot, projects: &[Project]) -> Option<String> {
    const RULE: &str = "read: { rule: allow }";
    let documents = |project: &str, database: &str, table: &str| {
        snapshot.of_kind("table").find(|document| {
            let names = [document.name("project"), document.name("database"), document.name("id")];
            names == [Some(project), Some(database), Some(table)]
        })
    };
    let documented = tables(projects)
        .find_map(|(project, database, table)| Some((table, documents(&project.id, database, &table.name)?)));
    let (project, database, table) = tables(projects).next()?;
    let (table, found) = match documented {
        Some((table, document)) => (table, Some(document)),
        None => (table, documents(&project.id, database, "default")),
    };
    let name = &table.name;
    let Some(document) = found else {
        let file = dir.join("tables.yaml");
        let meta = serde_json::json!({ "project": project.id, "database": database, "id": name });
        return Some(format!(
            "to let everybody read {name}, write to {}:\n\n    ---\n    kind: table\n    meta: {meta}\n    spec:\n      \
             rules:\n        {RULE}\n",
            file.display()
        ));
    };
    let place = document.fault("spec.rules.read", "");
    let file = dir.strip_prefix(".").unwrap_or(dir).join(&place.file);
    let has_rule = document.spec.get("rules").is_some_and(|rules| rules.get("read").is_some());
    let verb = if has_rule { "change" } else { "add to the rules at" };
    Some(format!("to let everybody read {name}, {verb} line {} of {}:\n\n    {RULE}\n", place.line, file.display()))
}

/// All tables with their project and database.
fn tables(projects: &[Project]) -> impl Iterator<Item = (&Project, &str, &Table)> {
    projects.iter().flat_map(|project| {
        project.databases.iter().flat_map(move |database| {
            let tables = database.schema.iter().flat_map(|schema| schema.tables());
            tables.map(move |table| (project, database.id.as_str(), table))
        })
    })
}

/// A GraphQL document that reads a few columns of the table that may be seen; `None` where it cannot be written plainly.
fn document(project: &Project, database: &str, table: &Table, columns: &Columns) -> Option<String> {
    let others = project.databases.iter().filter(|other| other.id != database);
    let is_elsewhere = others
        .flat_map(|other| other.schema.iter().flat_map(|schema| schema.tables()))
        .any(|other| other.name == table.name);
    let names = table.columns.iter().map(|column| column.name.as_str());
    let is_shown = |name: &&str| is_name(name) && columns.allow(&columns.read, name);
    let seen: Vec<&str> = names.filter(is_shown).take(COLUMNS).collect();
    let is_plain = is_name(&table.name) && !seen.is_empty() && (!is_elsewhere || is_name(database));
    let directive = if is_elsewhere { format!(" @{database}") } else { String::new() };
    is_plain.then(|| format!("{{ {}(limit: 3){directive} {{ {} }} }}", table.name, seen.join(" ")))
}

/// The token that the read needs; empty where it needs none.
fn signed(context: &Context, snapshot: &Snapshot, id: &str, read: &AllowedRead) -> anyhow::Result<String> {
    let Some(claims) = &read.claims else { return Ok(String::new()) };
    let spec = token::project(snapshot, id)?;
    let keys = context.data.join(token::DEV_KEYS);
    Ok(auth_rules::sign(spec, id, claims, TOKEN_LIFETIME, Some(&keys))?)
}

/// Whether the rules in force, or those that soon are, allow to read the table.
async fn is_allowed(mesh: &Mesh, (project, database, table): &TableKey, token: String) -> bool {
    let access = Access::Table(TableAccess::new(database.as_str(), table.as_str(), Operation::Read));
    let request = AuthorizeRequest { project: project.as_str().into(), token: token.into(), accesses: vec![access] };
    let late = tokio::time::Instant::now() + IN_FORCE_TIMEOUT;
    loop {
        let call = Call::begin(None, None, None);
        if mesh.auth_rules().authorize(&call, request.clone()).await.is_ok() {
            return true;
        }
        if tokio::time::Instant::now() > late {
            return false;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn command(context: &Context, project: &str, read: &AllowedRead, document: &str) -> String {
    let bearer = read.claims.as_ref().map(|claims| {
        let claims = output::shell_word(&serde_json::Value::from(claims.clone()).to_string());
        let (program, options) = (program(), token::options(&context.dir, &context.data));
        format!(" -H \"authorization: Bearer $({program} token {project} {claims}{options})\"")
    });
    format!(
        "curl -s {}/v1/api/{project}/graphql{} -H 'content-type: application/json' -d '{{\"query\": \"{document}\"}}'",
        context.base,
        bearer.unwrap_or_default()
    )
}

/// This program as a shell finds it: by its path, where it was called by one.
fn program() -> String {
    let called = std::env::args().next().filter(|name| name.contains('/'));
    called.map_or_else(|| "perigee".to_owned(), |path| output::shell_word(&path))
}

/// Whether `text` is a GraphQL name of a table or column that a shell takes as it is.
fn is_name(text: &str) -> bool {
    !text.starts_with("__")
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
