//! Validation of rules and keys, before they are in force.

use std::collections::{HashMap, HashSet};

use mesh::resources::{Document, Fault, Snapshot};
use query::resources::{DatabaseMeta, MatchMode, Project, ProjectMeta};

use crate::{table::TableResource, token::SECRET_BYTES};

/// Errors of `table` resources and of the keys of projects.
pub fn check(snapshot: &Snapshot) -> Vec<Fault> {
    let mut faults = Vec::new();
    for document in snapshot.of("project") {
        // The owner of the rest of the document reports one that does not parse.
        if let Ok((_, project)) = document.read::<ProjectMeta, Project>() {
            check_keys(document, &project, &mut faults);
        }
    }
    let projects: HashSet<&str> = snapshot.of("project").filter_map(|project| meta_text(project, "id")).collect();
    let mut databases: HashMap<&str, Vec<&str>> = HashMap::new();
    for database in
        snapshot.of("database").filter(|database| database.read::<DatabaseMeta, serde_json::Value>().is_ok())
    {
        if let (Some(project), Some(id)) = (meta_text(database, "project"), meta_text(database, "id")) {
            databases.entry(project).or_default().push(id);
        }
    }
    let mut seen = HashSet::new();
    for document in snapshot.of("table") {
        let table = match TableResource::read(document, MatchMode::default()) {
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
            let message = format!("duplicate document of table {} of database {}", meta.id, meta.database);
            faults.push(document.fault("meta.id", message));
        }
        faults.extend(table.errors.into_iter().map(|error| document.fault(&error.path, error.message)));
    }
    faults
}

fn check_keys(document: &Document, project: &Project, faults: &mut Vec<Fault>) {
    let mut kids = HashSet::new();
    let mut primary = false;
    for (index, key) in project.tokens.iter().enumerate() {
        let mut fault = |name: &str, message: String| {
            faults.push(document.fault(&format!("spec.tokens.{index}.{name}"), message));
        };
        if key.secret.len() < SECRET_BYTES {
            let message = format!("expected a secret of at least {SECRET_BYTES} bytes, found {}", key.secret.len());
            fault("secret", message);
        }
        if let Some(kid) = key.kid.as_ref().filter(|kid| !kids.insert((*kid).clone())) {
            fault("kid", format!("duplicate kid {kid}"));
        }
        if key.primary && primary {
            fault("primary", "only one key may be primary".to_owned());
        }
        primary |= key.primary;
    }
}

fn meta_text<'a>(document: &'a Document, key: &str) -> Option<&'a str> {
    document.meta.get(key).and_then(serde_json::Value::as_str)
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let hint = query::nearest(name, known).map(|nearest| format!(", did you mean {nearest}?"));
    format!("unknown {what} {name}{}", hint.unwrap_or_default())
}
