//! What is wrong with rules and keys, found before they are in force.

use std::collections::{HashMap, HashSet};

use mesh::resources::{Document, Fault, Snapshot};
use query::resources::{DatabaseMeta, MatchMode, Project, ProjectMeta};

use crate::{table::Table, token::SECRET_BYTES};

/// Faults of `table` documents and of the keys of projects.
pub fn check(snapshot: &Snapshot) -> Vec<Fault> {
    let mut faults = Vec::new();
    for document in snapshot.of("project") {
        // One that cannot be read at all is told by whoever owns the rest of it.
        if let Ok((_, project)) = document.read::<ProjectMeta, Project>() {
            keys(document, &project, &mut faults);
        }
    }
    let projects: HashSet<&str> = snapshot.of("project").filter_map(|project| name(project, "id")).collect();
    let mut databases: HashMap<&str, Vec<&str>> = HashMap::new();
    for database in
        snapshot.of("database").filter(|database| database.read::<DatabaseMeta, serde_json::Value>().is_ok())
    {
        if let (Some(project), Some(id)) = (name(database, "project"), name(database, "id")) {
            databases.entry(project).or_default().push(id);
        }
    }
    let mut seen = HashSet::new();
    for document in snapshot.of("table") {
        let table = match Table::read(document, MatchMode::default()) {
            Ok(table) => table,
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        let meta = &table.meta;
        let known = databases.get(meta.project.as_str()).map_or(&[][..], Vec::as_slice);
        if !projects.contains(meta.project.as_str()) {
            faults.push(document.fault("meta.project", unknown("project", &meta.project, projects.iter().copied())));
        } else if !known.contains(&meta.database.as_str()) {
            faults.push(document.fault("meta.database", unknown("database", &meta.database, known.iter().copied())));
        }
        if !seen.insert((meta.project.clone(), meta.database.clone(), meta.id.clone())) {
            let message = format!("table {} of database {} has another document", meta.id, meta.database);
            faults.push(document.fault("meta.id", message));
        }
        faults.extend(table.faults.into_iter().map(|fault| document.fault(&fault.path, fault.message)));
    }
    faults
}

fn keys(document: &Document, project: &Project, faults: &mut Vec<Fault>) {
    let mut kids = HashSet::new();
    let mut primary = false;
    for (index, key) in project.tokens.iter().enumerate() {
        let mut fault = |name: &str, message: String| {
            faults.push(document.fault(&format!("spec.tokens.{index}.{name}"), message));
        };
        if key.secret.len() < SECRET_BYTES {
            let message = format!("the secret has {} bytes, expected at least {SECRET_BYTES}", key.secret.len());
            fault("secret", message);
        }
        if let Some(kid) = key.kid.as_ref().filter(|kid| !kids.insert((*kid).clone())) {
            fault("kid", format!("kid {kid} is another key's too"));
        }
        if key.primary && primary {
            fault("primary", "another key is primary too".to_owned());
        }
        primary |= key.primary;
    }
}

fn name<'a>(document: &'a Document, key: &str) -> Option<&'a str> {
    document.meta.get(key).and_then(serde_json::Value::as_str)
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let hint = query::nearest(name, known).map(|nearest| format!(", did you mean {nearest}?"));
    format!("there is no {what} {name}{}", hint.unwrap_or_default())
}
