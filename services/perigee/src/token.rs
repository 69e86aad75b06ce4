//! `perigee token`: a token signed with a project's primary key.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use mesh::resources::Snapshot;
use query::resources::{Project, ProjectResource};
use serde_json::{Map, Value};

use crate::{check, failure::Failure, output};

/// The folder under `data` with the keys of projects that have none, in development.
pub const DEV_KEYS: &str = "keys";
/// The resource folder where none is given.
pub const DEFAULT_DIR: &str = ".";
/// The data folder where none is given.
pub const DEFAULT_DATA: &str = "./perigee-data";

/// Arguments of `perigee token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee token shop '{\"id\": 5}' --dir examples/chinook")]
pub struct TokenArgs {
    /// The project's id
    pub project: String,
    /// What the token says, a JSON object
    #[arg(value_parser = claims)]
    pub claims: Map<String, Value>,
    /// How long it is valid: 30s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    pub expires: Duration,
    /// The resource folder
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub dir: PathBuf,
    /// Where `perigee dev` keeps its keys
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
}

/// Options with which the command finds the resources in `dir` and the keys under `data`, each after a space.
pub fn options(dir: &Path, data: &Path) -> String {
    let option = |name: &str, path: &Path, default: &str| match path == Path::new(default) {
        true => String::new(),
        false => format!(" {name} {}", output::shell_word(&path.display().to_string())),
    };
    option("--dir", dir, DEFAULT_DIR) + &option("--data", data, DEFAULT_DATA)
}

/// Prints the token.
pub fn run(args: &TokenArgs) -> Result<(), Failure> {
    let snapshot = check::load(&args.dir)?;
    let project =
        project(&snapshot, &args.project).with_context(|| format!("{} cannot be used", args.dir.display()))?;
    let keys = args.data.join(DEV_KEYS);
    let token = auth_rules::sign(project, &args.project, &args.claims, args.expires, Some(&keys))
        .with_context(|| format!("no token for project {}", args.project))?;
    output::print(&format!("{token}\n"));
    Ok(())
}

/// The settings of the project called `id`.
pub fn project<'a>(snapshot: &'a Snapshot, id: &str) -> anyhow::Result<&'a Project> {
    let mut known = Vec::new();
    for (ProjectResource { meta, spec }, _) in snapshot.of() {
        if meta.id == id {
            return Ok(spec);
        }
        known.push(meta.id.as_str());
    }
    Err(match known.is_empty() {
        true => anyhow!("it has no project; `perigee init` writes one"),
        false => anyhow!("it has no project {id}, only {}", known.join(", ")),
    })
}

fn claims(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(claims)) => Ok(claims),
        Ok(_) => Err("expected a JSON object, such as '{\"id\": 5}'".to_owned()),
        Err(error) => Err(format!("expected a JSON object, such as '{{\"id\": 5}}': {error}")),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = mesh::config::duration(text).map_err(|error| error.to_string())?;
    if lifetime < Duration::from_secs(1) {
        return Err("must be at least 1s".to_owned());
    }
    Ok(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_number_and_a_unit() {
        assert_eq!(lifetime("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(lifetime("7d"), Ok(Duration::from_secs(7 * 24 * 60 * 60)));
        for text in ["", "h", "1", "-1h", "0s", "1hour", "1é"] {
            lifetime(text).unwrap_err();
        }
    }
}
