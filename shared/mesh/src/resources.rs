//! The resource folder: documents of `kind`, `meta` and `spec`, watched and swapped as a whole.

mod bytes;
mod folder;
mod reference;
mod watch;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    deserialize,
    yaml::{self, Place, Places, below},
};

pub use watch::watch;

/// The kinds that some service owns.
const KINDS: [&str; 3] = ["project", "database", "table"];
const KEYS: [&str; 3] = ["kind", "meta", "spec"];

/// All documents of a folder, valid as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// In the order of their files' paths, then of their place in the file.
    pub documents: Vec<Document>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// `project`, `database`, `table`.
    pub kind: String,
    /// Names it.
    pub meta: Value,
    /// What it says; references are resolved.
    pub spec: Value,
    /// Folder of the file it stands in: relative paths in it start here.
    pub folder: PathBuf,
    file: Arc<str>,
    places: Places,
}

/// What is wrong with a folder, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The file, relative to the folder.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// Dotted path in the document: `spec.rules.read.eval`; empty where the document as a whole is meant.
    pub path: String,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// What a service says is wrong with documents of its kinds.
pub type Checker = fn(&Snapshot) -> Vec<Fault>;

/// The snapshot in force, as it changes.
pub type Current = tokio::sync::watch::Receiver<Arc<Snapshot>>;

impl Snapshot {
    /// The documents of a text instead of a folder: faults call it `inline`, relative paths start at the working
    /// directory, and no checker is asked.
    pub fn parse(yaml: &str) -> Result<Self, Vec<Fault>> {
        let mut sources = reference::Sources::default();
        let (documents, faults) = documents(yaml, "inline", Path::new("."), &mut sources);
        if faults.is_empty() { Ok(Self { documents }) } else { Err(faults) }
    }

    /// Documents of one kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Document> {
        self.documents.iter().filter(move |document| document.kind == kind)
    }
}

impl Document {
    /// Its `meta` and `spec`, typed. A fault names the path and the nearest known key.
    pub fn read<M: DeserializeOwned, S: DeserializeOwned>(&self) -> Result<(M, S), Fault> {
        let meta = deserialize::read(&self.meta).map_err(|misfit| self.misfit("meta", &misfit))?;
        let spec = deserialize::read(&self.spec).map_err(|misfit| self.misfit("spec", &misfit))?;
        Ok((meta, spec))
    }

    /// A fault at `path` (dotted, such as `spec.rules.read.clauses.0.eval`), or at the nearest place above it that
    /// stands in the document.
    pub fn fault(&self, path: &str, message: impl Into<String>) -> Fault {
        fault(&self.file, self.places.nearest(path), path, message)
    }

    fn misfit(&self, part: &str, misfit: &deserialize::Misfit) -> Fault {
        let path = if misfit.path.is_empty() { part.to_owned() } else { below(part, &misfit.path) };
        self.fault(&path, &misfit.message)
    }
}

/// Reads a folder: parses every `*.yaml` and `*.yml` under it, resolves references, asks every checker.
pub fn load(folder: &Path, checkers: &[Checker]) -> Result<Snapshot, Vec<Fault>> {
    folder::read(folder, checkers).0
}

/// The documents of one file, and what is wrong with them.
fn documents(text: &str, file: &str, folder: &Path, sources: &mut reference::Sources) -> (Vec<Document>, Vec<Fault>) {
    let parsed = match yaml::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => return (Vec::new(), vec![fault(file, error.place, &error.path, error.message)]),
    };
    let file: Arc<str> = file.into();
    let (mut documents, mut faults) = (Vec::new(), Vec::new());
    for yaml::ParsedDocument { value, places } in parsed {
        // What stands between two `---`, or after the last, may be nothing but comments.
        if value.is_null() {
            continue;
        }
        match document(value, places, &file, folder) {
            Ok(mut document) => {
                let mut spec = std::mem::take(&mut document.spec);
                sources.resolve(&mut spec, "spec", folder, &mut |path, message| {
                    faults.push(document.fault(path, message));
                });
                document.spec = spec;
                documents.push(document);
            }
            Err(fault) => faults.push(fault),
        }
    }
    (documents, faults)
}

fn document(value: Value, places: Places, file: &Arc<str>, folder: &Path) -> Result<Document, Fault> {
    let wrong = |path: &str, message: String| Err(fault(file, places.nearest(path), path, message));
    let Value::Object(mut entries) = value else {
        return wrong("", "expected a mapping of kind, meta and spec".to_owned());
    };
    if let Some(key) = entries.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return wrong(key, deserialize::unknown("key", key, &KEYS));
    }
    let kind = match entries.remove("kind") {
        Some(Value::String(kind)) if KINDS.contains(&kind.as_str()) => kind,
        Some(Value::String(kind)) => return wrong("kind", deserialize::unknown("kind", &kind, &KINDS)),
        Some(_) => return wrong("kind", "expected a text".to_owned()),
        None => return wrong("", "the key kind is missing".to_owned()),
    };
    let meta = match entries.remove("meta") {
        Some(meta @ Value::Object(_)) => meta,
        Some(_) => return wrong("meta", "expected a mapping".to_owned()),
        None => return wrong("", "the key meta is missing".to_owned()),
    };
    let spec = match entries.remove("spec") {
        Some(spec @ Value::Object(_)) => spec,
        Some(Value::Null) | None => Value::Object(Map::new()),
        Some(_) => return wrong("spec", "expected a mapping".to_owned()),
    };
    Ok(Document { kind, meta, spec, folder: folder.to_owned(), file: file.clone(), places })
}

fn fault(file: &str, place: Place, path: &str, message: impl Into<String>) -> Fault {
    let (file, path) = (file.to_owned(), path.to_owned());
    Fault { file, line: place.line, column: place.column, path, message: message.into() }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Meta {
        id: String,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    struct Spec {
        match_mode: Option<String>,
        limits: Vec<u64>,
    }

    fn faults(yaml: &str) -> Vec<String> {
        Snapshot::parse(yaml).unwrap_err().iter().map(Fault::to_string).collect()
    }

    fn read(yaml: &str) -> Result<(Meta, Spec), String> {
        Snapshot::parse(yaml).unwrap().documents[0].read().map_err(|fault| fault.to_string())
    }

    #[test]
    fn documents_are_told_by_kind_in_their_order() {
        let yaml = "kind: project\nmeta: { id: a }\n---\nkind: table\nmeta: { id: t }\nspec: { x: 1 }\n---\n# end\n";
        let snapshot = Snapshot::parse(yaml).unwrap();
        assert_eq!(snapshot.documents.len(), 2);
        let table = snapshot.of("table").next().unwrap();
        assert_eq!((&table.meta, &table.spec), (&json!({"id": "t"}), &json!({"x": 1})));
        assert_eq!(snapshot.of("project").next().unwrap().spec, json!({}));
    }

    #[test]
    fn a_document_is_typed() {
        let (meta, spec) = read("kind: project\nmeta: { id: a }\nspec: { matchMode: auto, limits: [1] }").unwrap();
        assert_eq!((meta.id.as_str(), spec.match_mode.as_deref(), &spec.limits[..]), ("a", Some("auto"), &[1][..]));
    }

    #[test]
    fn a_fault_has_the_place_of_the_key_that_is_wrong() {
        let wanted = "inline:4:3: spec.matchmode: key matchmode is not known; did you mean matchMode? \
                      known: matchMode, limits";
        let yaml = "kind: project\nmeta: { id: a }\nspec:\n  matchmode: auto\n";
        assert_eq!(read(yaml).unwrap_err(), wanted);
        let wanted = "inline:6:5: spec.limits.1: expected non-negative integer, found string";
        let yaml = "kind: project\nmeta: { id: a }\nspec:\n  limits:\n  - 1\n  - x\n";
        assert_eq!(read(yaml).unwrap_err(), wanted);
        let wanted = "inline:2:1: meta: the key id is missing";
        assert_eq!(read("kind: project\nmeta: {}\n").unwrap_err(), wanted);
    }

    #[test]
    fn a_fault_below_what_stands_there_has_the_nearest_place() {
        let snapshot =
            Snapshot::parse("kind: table\nmeta: { id: a }\nspec:\n  rules:\n    read: { rule: x }\n").unwrap();
        let fault = snapshot.documents[0].fault("spec.rules.read.eval", "is missing");
        assert_eq!(fault.to_string(), "inline:5:5: spec.rules.read.eval: is missing");
    }

    #[test]
    fn every_document_that_is_wrong_is_told() {
        let yaml = "kind: tabel\nmeta: {}\n---\nkind: table\nmetta: {}\n---\n- 1\n---\nmeta: {}\n---\nkind: table\n";
        let wanted = [
            "inline:1:1: kind: kind tabel is not known; did you mean table? known: project, database, table",
            "inline:5:1: metta: key metta is not known; did you mean meta? known: kind, meta, spec",
            "inline:7:1: expected a mapping of kind, meta and spec",
            "inline:9:1: the key kind is missing",
            "inline:11:1: the key meta is missing",
        ];
        assert_eq!(faults(yaml), wanted);
    }

    #[test]
    fn what_is_no_yaml_has_its_place() {
        assert_eq!(faults("kind: table\nkind: table\n"), ["inline:2:1: kind: duplicate key kind"]);
        assert!(faults("kind: [\n")[0].contains("not valid YAML"));
    }
}
