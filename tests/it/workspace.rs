//! Rules of the workspace itself: which way dependencies point, and under which licences they come.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::Value;

/// Crates of the workspace that a crate may list. Nothing here lists a sibling service: those call each other.
const DIRECTION: [(&str, &[&str]); 13] = [
    ("query", &[]),
    ("proto", &["query"]),
    ("mesh", &["proto", "query"]),
    ("crud", &["proto", "query", "mesh"]),
    ("auth-rules", &["proto", "query", "mesh"]),
    ("realtime", &["proto", "query", "mesh"]),
    ("storage", &["proto", "query", "mesh"]),
    ("functions", &["proto", "query", "mesh"]),
    ("gateway", &["proto", "query", "mesh"]),
    ("perigee", &["proto", "query", "mesh", "crud", "auth-rules", "realtime", "storage", "functions", "gateway"]),
    (
        "tests",
        &["proto", "query", "mesh", "crud", "auth-rules", "realtime", "storage", "functions", "gateway", "perigee"],
    ),
    ("bench", &["proto", "query"]),
    // What users build with brings nothing of the server along.
    ("perigee-client", &[]),
];

/// Crates that must stay out of a crate, whatever they would be handy for.
const FORBIDDEN: [(&str, &[&str]); 9] = [
    ("proto", &["serde", "serde_json"]),
    ("query", &["tokio", "tonic", "prost", "futures"]),
    ("mesh", &["rusqlite", "tokio-postgres", "mysql_async", "sqlx", "axum"]),
    ("crud", &["axum", "http", "hyper"]),
    ("auth-rules", &["rusqlite", "tokio-postgres", "mysql_async", "sqlx", "axum"]),
    ("realtime", &["rusqlite", "tokio-postgres", "mysql_async", "sqlx", "axum"]),
    ("storage", &["rusqlite", "tokio-postgres", "mysql_async", "sqlx", "axum"]),
    // Its queue of events is a database of its own, by sqlx.
    ("functions", &["rusqlite", "tokio-postgres", "mysql_async", "axum"]),
    ("gateway", &["rusqlite", "tokio-postgres", "mysql_async", "sqlx", "object_store"]),
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

/// Packages that the operation model may stand on.
const QUERY_PACKAGES: usize = 24;

#[test]
fn the_operation_model_stands_on_little() -> anyhow::Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "query", "-e", "normal", "--prefix", "none", "--no-dedupe", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let packages: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert!(packages.len() <= QUERY_PACKAGES, "{packages:#?}");
    for never in ["tonic ", "prost ", "proto "] {
        assert!(!packages.iter().any(|package| package.starts_with(never)), "{never}");
    }
    Ok(())
}

#[test]
fn dependencies_come_under_known_licences() -> anyhow::Result<()> {
    let (metadata, known) = (metadata(&[])?, licences()?);
    for package in metadata["packages"].as_array().context("packages")? {
        let licence = text(package, "license").replace('/', " OR ");
        assert!(is_known(&licence, &known), "{} comes under {licence}", text(package, "name"));
    }
    Ok(())
}

/// The licences that `deny.toml` allows.
fn licences() -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml"))?;
    let (_, list) = text.split_once("allow = [").context("a list of licences")?;
    let (list, _) = list.split_once(']').context("the end of the list")?;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Whether one alternative of `licence` has only parts that are `known`.
fn is_known(licence: &str, known: &[String]) -> bool {
    split_outside(licence, " OR ").into_iter().any(|all| {
        split_outside(all, " AND ").into_iter().all(|part| {
            let part = part.trim();
            match part.strip_prefix('(').and_then(|part| part.strip_suffix(')')) {
                Some(inside) => is_known(inside, known),
                None => known.iter().any(|known| known == part),
            }
        })
    })
}

/// The parts of `text` between those `word`s that stand outside of all parentheses.
fn split_outside<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut begin, mut depth) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ if depth == 0 && at >= begin && text[at..].starts_with(word) => {
                parts.push(&text[begin..at]);
                begin = at + word.len();
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

#[test]
fn a_licence_is_known_if_one_alternative_is_known_in_all_parts() {
    let known = ["MIT".to_owned(), "ISC".to_owned()];
    for licence in ["MIT", "GPL-3.0 OR MIT", "(GPL-3.0 OR MIT) AND ISC", "MIT AND ISC"] {
        assert!(is_known(licence, &known), "{licence}");
    }
    for licence in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "GPL-3.0 AND ISC OR GPL-3.0"] {
        assert!(!is_known(licence, &known), "{licence}");
    }
}
