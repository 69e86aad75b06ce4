//! `perigee token`: a token signed with a project's primary key.

use anyhow::{Context, anyhow};
use mesh::resources::Snapshot;
use query::resources::{Project, ProjectMeta};

use crate::{check, cli, failure::Failure, node::DEV_KEYS};

/// Prints the token.
pub fn run(args: &cli::Token) -> Result<(), Failure> {
    let project = project(&check::load(&args.dir)?, &args.project)
        .with_context(|| format!("{} cannot be used", args.dir.display()))?;
    let keys = args.data.join(DEV_KEYS);
    let token = auth_rules::sign(&project, &args.project, &args.claims, args.expires, Some(&keys))
        .with_context(|| format!("no token for project {}", args.project))?;
    cli::say(&format!("{token}\n"));
    Ok(())
}

/// The settings of the project called `id`.
fn project(snapshot: &Snapshot, id: &str) -> anyhow::Result<Project> {
    let mut known = Vec::new();
    for document in snapshot.of("project") {
        let (meta, spec) = document.read::<ProjectMeta, Project>().map_err(|fault| anyhow!("{fault}"))?;
        if meta.id == id {
            return Ok(spec);
        }
        known.push(meta.id);
    }
    Err(match known.is_empty() {
        true => anyhow!("it has no project; `perigee init` writes one"),
        false => anyhow!("it has no project {id}, only {}", known.join(", ")),
    })
}
