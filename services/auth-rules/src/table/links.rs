//! Validation of the links of tables, as far as no database is needed for it.

use mesh::resources::{Document, ResourceFault};
use query::resources::TableLink;

use super::DEFAULT;

/// Key of the links in the `spec` of a table.
pub const KEY: &str = "links";

/// Faults of the links in the document of `table`.
pub fn faults(document: &Document, table: &str) -> Vec<ResourceFault> {
    let links = match document.entries::<TableLink>(KEY) {
        Ok(links) => links,
        Err(faults) => return faults,
    };
    let mut faults = Vec::new();
    if table == DEFAULT && !links.is_empty() {
        let message = format!(
            "not allowed in the document {DEFAULT}, which stands for many tables: must be in the document of one table"
        );
        faults.push(document.fault("spec.links", message));
    }
    for (name, link) in &links {
        if name.is_empty() {
            faults.push(document.fault("spec.links", "invalid name of a relation: must not be empty"));
        }
        if link.on.is_empty() {
            faults.push(document.fault(&format!("spec.links.{name}.on"), "expected at least one pair of columns"));
        }
    }
    faults
}
