//! Rules of the workspace itself: which way dependencies point, and under which licences they come.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, ensure};
use serde_json::Value;

/// Crates of the workspace that a crate may list. Nothing here lists a sibling service: those call each other.
const DIRECTION: [(&str, &[&str]); 9] = [
    ("proto", &[]),
    ("query", &["proto"]),
    ("mesh", &["proto"]),
    ("crud", &["proto", "query", "mesh"]),
    ("auth-rules", &["proto", "query", "mesh"]),
    ("gateway", &["proto", "query", "mesh"]),
    ("perigee", &["proto", "query", "mesh", "crud", "auth-rules", "gateway"]),
    ("tests", &["proto", "query", "mesh", "crud", "auth-rules", "gateway", "perigee"]),
    ("bench", &["proto"]),
];

/// Crates that must stay out of a crate, whatever they would be handy for.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    ("proto", &["serde", "serde_json"]),
    ("query", &["tokio", "tonic", "futures"]),
    ("mesh", &["rusqlite", "tokio-postgres", "sqlx", "axum"]),
    ("crud", &["axum", "http", "hyper"]),
    ("auth-rules", &["rusqlite", "tokio-postgres", "sqlx", "axum"]),
    ("gateway", &["rusqlite", "tokio-postgres", "sqlx"]),
];

const LICENCES: [&str; 14] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "0BSD",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn metadata(arguments: &[&str]) -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Dependencies of each crate of the workspace, tests' own aside.
fn listed() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let metadata = metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let listed = packages.iter().map(|package| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let names = dependencies.filter(|dependency| dependency["kind"].is_null());
        (text(package, "name"), names.map(|dependency| text(dependency, "name")).collect())
    });
    Ok(listed.collect())
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

#[test]
fn dependencies_point_one_way() -> anyhow::Result<()> {
    let listed = listed()?;
    for (name, dependencies) in &listed {
        let (_, allowed) = DIRECTION.iter().find(|(known, _)| known == name).with_context(|| name.clone())?;
        for dependency in dependencies.iter().filter(|dependency| listed.contains_key(*dependency)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not list {dependency}");
        }
    }
    for (name, forbidden) in FORBIDDEN {
        let dependencies = listed.get(name).context(name)?;
        for other in forbidden {
            assert!(!dependencies.iter().any(|dependency| dependency == other), "{name} must not list {other}");
        }
    }
    Ok(())
}

#[test]
fn dependencies_come_under_known_licences() -> anyhow::Result<()> {
    let metadata = metadata(&[])?;
    for package in metadata["packages"].as_array().context("packages")? {
        let licence = text(package, "license").replace('/', " OR ");
        // One alternative suffices; all parts of it must be known.
        let alternatives = licence.split(" OR ").map(|alternative| alternative.trim_matches(['(', ')', ' ']));
        let known = alternatives.into_iter().any(|alternative| {
            alternative.split(" AND ").all(|part| LICENCES.contains(&part.trim_matches(['(', ')', ' '])))
        });
        assert!(known, "{} comes under {licence}", text(package, "name"));
    }
    Ok(())
}
