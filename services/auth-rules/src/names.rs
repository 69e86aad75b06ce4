//! Names of documents: what they refer to, and that each is of one document.

use std::collections::HashSet;

use mesh::resources::{Document, ResourceFault, Snapshot};

/// Ids of the projects, also of documents whose rest is invalid: one error must not look like several.
pub fn projects(snapshot: &Snapshot) -> HashSet<&str> {
    snapshot.of_kind("project").filter_map(|project| project.name("id")).collect()
}

/// Faults of the names of documents of a kind, each of which is of a project, and what `more` finds of a document and its project.
pub fn faults<'a>(
    snapshot: &'a Snapshot,
    kind: &'a str,
    mut more: impl FnMut(&'a Document, &'a str) -> Option<ResourceFault>,
) -> Vec<ResourceFault> {
    let (projects, mut seen, mut faults) = (projects(snapshot), HashSet::new(), Vec::new());
    for document in snapshot.of_kind(kind) {
        let (Some(project), Some(id)) = (document.name("project"), document.name("id")) else { continue };
        if !projects.contains(project) {
            faults.push(document.fault("meta.project", unknown("project", project, projects.iter().copied())));
        }
        if !seen.insert((project, id)) {
            faults.push(document.fault("meta.id", format!("duplicate document of {kind} {id}")));
        }
        faults.extend(more(document, project));
    }
    faults
}

/// What is said of a name that is not known, with the nearest that is.
pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let hint = query::nearest(name, known).map(|nearest| format!(", did you mean {nearest}?"));
    format!("unknown {what} {name}{}", hint.unwrap_or_default())
}
