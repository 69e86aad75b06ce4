//! Structure of each crate: type names are unique, modules form no circle, functions are short.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The crates that ship.
const CRATES: [&str; 11] = [
    "proto",
    "shared/query",
    "shared/mesh",
    "services/crud",
    "services/auth-rules",
    "services/realtime",
    "services/storage",
    "services/functions",
    "services/perigee",
    "gateway",
    "clients/rust",
];

/// Lines that a function may have.
const FUNCTION_LINES: usize = 60;

/// A file of a crate without its tests.
struct Source {
    /// Relative to the crate's `src`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The top room that the file belongs to: the first part of its path.
    fn room(&self) -> String {
        let first = self.path.iter().next().unwrap_or_default().to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    }
}

fn sources(name: &str) -> anyhow::Result<Vec<Source>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found).with_context(|| name.to_owned())?;
    anyhow::ensure!(!found.is_empty(), "{name} has no sources");
    Ok(found)
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                collect(root, &path, found)?;
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "generated.rs" && !is_for_tests(&path)? {
            let text = fs::read_to_string(&path)?;
            found.push(Source { path: path.strip_prefix(root)?.to_owned(), text: shipped(&text).to_owned() });
        }
    }
    Ok(())
}

/// Whether the file's module stands under `#[cfg(test)]` in the file above it.
fn is_for_tests(path: &Path) -> anyhow::Result<bool> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().context("a file stands in a folder")?;
    let above = [folder.with_extension("rs"), folder.join("lib.rs"), folder.join("main.rs")];
    let declared = format!("#[cfg(test)]\nmod {name};");
    Ok(above.iter().filter_map(|above| fs::read_to_string(above).ok()).any(|text| text.contains(&declared)))
}

/// The text up to the tests of the file.
fn shipped(text: &str) -> &str {
    let ends = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
    let end = ends.iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    &text[..end]
}

/// The name that a line defines as a type.
fn defined(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ').map_or(rest, |(_, rest)| rest),
        None => line,
    };
    let kinds = ["struct ", "enum ", "trait ", "union "];
    let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

#[test]
fn a_type_name_is_defined_once_in_a_crate() -> anyhow::Result<()> {
    let mut again = Vec::new();
    for name in CRATES {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for source in sources(name)? {
            for defined in source.text.lines().filter_map(defined) {
                places.entry(defined.to_owned()).or_default().push(source.path.display().to_string());
            }
        }
        again.extend(places.into_iter().filter(|(_, places)| places.len() > 1).map(|found| (name, found)));
    }
    assert!(again.is_empty(), "{again:#?}");
    Ok(())
}

/// The rooms of the crate that a text names: `crate::room`, also in a group.
fn named(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(members(group)),
            None => rooms.extend(word(rest)),
        }
    }
    rooms
}

/// The first words of a group's members, up to its closing brace.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut begins, mut found) = (0, true, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            letter if letter.is_whitespace() => {}
            _ if depth == 0 && begins => {
                found.extend(word(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    Some(text[..end].to_owned()).filter(|word| !word.is_empty())
}

/// A room that leads back to itself, with the rooms on the way.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    uses.keys().find_map(|room| way(uses, room, room, &mut Vec::new(), &mut BTreeSet::new()))
}

fn way(
    uses: &BTreeMap<String, BTreeSet<String>>,
    from: &str,
    to: &str,
    taken: &mut Vec<String>,
    seen: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    taken.push(from.to_owned());
    for next in uses.get(from).into_iter().flatten().filter(|next| *next != from) {
        if next == to {
            return Some(taken.clone());
        }
        if seen.insert(next.clone())
            && let Some(found) = way(uses, next, to, taken, seen)
        {
            return Some(found);
        }
    }
    taken.pop();
    None
}

#[test]
fn rooms_of_a_crate_form_no_circle() -> anyhow::Result<()> {
    let mut circles = Vec::new();
    for name in CRATES {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in sources(name)?.iter().filter(|source| !["lib", "main"].contains(&source.room().as_str())) {
            uses.entry(source.room()).or_default().extend(named(&source.text));
        }
        circles.extend(circle(&uses).map(|circle| format!("{name}: {}", circle.join(" → "))));
    }
    assert!(circles.is_empty(), "{circles:#?}");
    Ok(())
}

#[test]
fn functions_are_short() -> anyhow::Result<()> {
    let mut long = Vec::new();
    for name in CRATES {
        for source in sources(name)? {
            let lines: Vec<&str> = source.text.lines().collect();
            for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
                let indent = &line[..line.len() - line.trim_start().len()];
                let end = format!("{indent}}}");
                let length =
                    lines[at..].iter().position(|line| *line == end || line.ends_with(';') && at_depth(line, indent));
                let length = length.map_or(1, |length| length + 1);
                if length > FUNCTION_LINES {
                    long.push(format!("{name}/src/{}: {} ({length} lines)", source.path.display(), line.trim()));
                }
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
    Ok(())
}

fn is_function(line: &str) -> bool {
    let mut line = line.trim_start();
    if let Some(rest) = line.strip_prefix("pub") {
        line = rest.split_once(' ').map_or(rest, |(_, rest)| rest);
    }
    for word in ["const ", "async ", "unsafe "] {
        line = line.strip_prefix(word).unwrap_or(line);
    }
    line.starts_with("fn ")
}

/// Whether the line is no deeper than `indent`: the end of a declaration without a body.
fn at_depth(line: &str, indent: &str) -> bool {
    line.len() - line.trim_start().len() <= indent.len()
}

#[test]
fn the_checks_see_what_they_are_for() {
    assert_eq!(defined("pub(crate) struct Pool<T> {"), Some("Pool"));
    assert_eq!(defined("    enum State {"), Some("State"));
    assert_eq!(defined("impl Pool {"), None);
    let text = "use crate::{\n    alpha::{Beta, Gamma},\n    delta,\n};\nfn x() { crate::epsilon::f(); }";
    assert_eq!(named(text), ["alpha", "delta", "epsilon"].map(str::to_owned).into());
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        uses
    };
    assert!(circle(&uses(&[("a", "b"), ("b", "c"), ("c", "a")])).is_some());
    assert!(circle(&uses(&[("a", "b"), ("a", "c"), ("b", "c")])).is_none());
    assert!(is_function("    pub(crate) async fn run(&self) {"));
    assert!(!is_function("let fn_name = 1;"));
}
