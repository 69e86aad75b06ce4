//! `perigee check`: what is wrong with a resource folder.

use std::path::Path;

use mesh::resources::{self, Checker, Snapshot};

use crate::{failure::Failure, output};

/// What the services say of the documents they use.
pub const CHECKERS: &[Checker] = &[gateway::check, crud::check, auth_rules::check];

/// Says that `folder` is valid, or everything that is not.
pub fn run(folder: &Path) -> Result<(), Failure> {
    let snapshot = load(folder)?;
    output::print(&format!("{}: {}, no faults\n", folder.display(), summary(&snapshot)));
    Ok(())
}

/// The documents of a valid folder.
pub fn load(folder: &Path) -> Result<Snapshot, Failure> {
    resources::load(folder, CHECKERS).map_err(|faults| Failure::faults(folder, &faults))
}

fn summary(snapshot: &Snapshot) -> String {
    let count = |kind, one: &str| match snapshot.of(kind).count() {
        1 => format!("1 {one}"),
        many => format!("{many} {one}s"),
    };
    [count("project", "project"), count("database", "database"), count("table", "table")].join(", ")
}
