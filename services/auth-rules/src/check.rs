//! Validation of rules and keys, before they are in force.

use std::collections::{HashMap, HashSet};

use mesh::resources::{Document, Kind, ResourceFault, Snapshot};
use query::resources::{Project, ProjectResource};

use crate::{
    json_schema,
    names::{self, unknown},
    policy_set,
    table::TableResource,
    token::SECRET_BYTES,
};

/// The resource kind `table`.
///
/// Its check covers the keys of projects too: they verify tokens here.
pub const TABLE: Kind = Kind { name: "table", parse: TableResource::parse, check, schema: json_schema::table };

/// Errors in the names that `table` resources refer to, and in the keys of projects.
fn check(snapshot: &Snapshot) -> Vec<ResourceFault> {
    let mut faults = Vec::new();
    for (ProjectResource { spec, .. }, document) in snapshot.of() {
        check_keys(document, spec, &mut faults);
        check_access_keys(document, spec, &mut faults);
    }
    // Names count also where the rest of a document is invalid: one error must not look like several.
    let projects = names::projects(snapshot);
    let mut databases: HashMap<&str, Vec<&str>> = HashMap::new();
    for database in snapshot.of_kind("database") {
        if let (Some(project), Some(id)) = (database.name("project"), database.name("id")) {
            databases.entry(project).or_default().push(id);
        }
    }
    let mut seen = HashSet::new();
    for document in snapshot.of_kind(TABLE.name) {
        let names = (document.name("project"), document.name("database"), document.name("id"));
        let (Some(project), Some(database), Some(id)) = names else { continue };
        let known = databases.get(project).map_or(&[][..], Vec::as_slice);
        if !projects.contains(project) {
            faults.push(document.fault("meta.project", unknown("project", project, projects.iter().copied())));
        } else if !known.contains(&database) {
            faults.push(document.fault("meta.database", unknown("database", database, known.iter().copied())));
        }
        if !seen.insert((project, database, id)) {
            let message = format!("duplicate document of table {id} of database {database}");
            faults.push(document.fault("meta.id", message));
        }
    }
    faults
}

fn check_keys(document: &Document, project: &Project, faults: &mut Vec<ResourceFault>) {
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

fn check_access_keys(document: &Document, project: &Project, faults: &mut Vec<ResourceFault>) {
    let mut ids = HashSet::new();
    for (index, key) in project.s3.keys.iter().enumerate() {
        let mut fault = |name: &str, message: String| {
            faults.push(document.fault(&format!("spec.s3.keys.{index}.{name}"), message));
        };
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(3..=128).contains(&key.id.len()) || !key.id.bytes().all(is_sign) {
            fault("id", format!("invalid id {:?}: expected 3 to 128 letters, digits, _ and -", key.id));
        } else if !ids.insert(&key.id) {
            fault("id", format!("duplicate id {}", key.id));
        }
        if key.secret.len() < SECRET_BYTES {
            let message = format!("expected a secret of at least {SECRET_BYTES} bytes, found {}", key.secret.len());
            fault("secret", message);
        }
        if let Err(error) = policy_set::claims(key) {
            fault("claims", error.to_string());
        }
    }
}
