//! `perigee check`: what is wrong with a resource folder.

use std::path::Path;

use anyhow::anyhow;
use mesh::resources::{self, Kind, Snapshot};

use crate::{failure::Failure, output};

/// The resource kinds, each registered by the crate that owns it.
pub const KINDS: &[Kind] = &[
    gateway::PROJECT,
    crud::DATABASE,
    auth_rules::TABLE,
    auth_rules::BUCKET,
    auth_rules::SERVICE,
    auth_rules::EVENT,
    functions::TRIGGER,
];

/// Says that `folder` is valid, or everything that is not.
pub fn run(folder: &Path) -> Result<(), Failure> {
    let snapshot = load(folder)?;
    output::print(&format!("{}: {}, no faults\n", folder.display(), summary(&snapshot)));
    Ok(())
}

/// The documents of a valid folder.
pub fn load(folder: &Path) -> Result<Snapshot, Failure> {
    is_folder(folder)?;
    resources::load(folder, KINDS).map_err(|faults| Failure::faults(folder, &faults))
}

/// Fails where `folder` is no folder, with the way to one.
pub fn is_folder(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    match (folder.is_dir(), folder.exists()) {
        (true, _) => Ok(()),
        (false, true) => Err(anyhow!("{shown} is not a directory; expected a resource folder").into()),
        (false, false) => Err(anyhow!("{shown} does not exist; `perigee init {shown}` makes it").into()),
    }
}

fn summary(snapshot: &Snapshot) -> String {
    let count = |kind: &Kind| match snapshot.of_kind(kind.name).count() {
        0 => None,
        1 => Some(format!("1 {}", kind.name)),
        many => Some(format!("{many} {}s", kind.name)),
    };
    let counts: Vec<String> = KINDS.iter().filter_map(count).collect();
    if counts.is_empty() { "no documents".to_owned() } else { counts.join(", ") }
}
