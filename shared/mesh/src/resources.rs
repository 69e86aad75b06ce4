//! The resource folder: documents of `kind`, `meta` and `spec`, watched and swapped as a whole.

mod folder;
mod named_files;
mod read_file;
mod reference;
mod schema;
mod watch;

use std::{
    any::Any,
    collections::{BTreeMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use query::resources::Resource;
use schemars::SchemaGenerator;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    deserialize,
    yaml::{self, Position, Positions, below},
};

use self::named_files::NamedFiles;
pub use schema::{PartSchemas, json_schema, schema_typed};
pub use watch::watch;

const KEYS: [&str; 3] = ["kind", "meta", "spec"];

/// All documents of a folder, valid as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// In the order of their files' paths, then of their place in the file.
    pub documents: Vec<Document>,
}

/// One resource.
#[derive(Debug, Clone)]
pub struct Document {
    /// The name of its [`Kind`].
    pub kind: &'static str,
    /// Identity of the document.
    pub meta: Value,
    /// Content of the document; references are resolved.
    pub spec: Value,
    /// Folder of the file it stands in: relative paths in it start here.
    pub folder: PathBuf,
    file: Arc<str>,
    positions: Positions,
    files: NamedFiles,
    /// `None` where it has faults, and until its kind has parsed it.
    parsed: Option<Parsed>,
}

impl PartialEq for Document {
    /// The typed value is left out: it follows from the rest.
    fn eq(&self, other: &Self) -> bool {
        let Self { kind, meta, spec, folder, file, positions, files, parsed: _ } = self;
        let same_source = (file, folder, positions) == (&other.file, &other.folder, &other.positions);
        same_source && *files == other.files && (kind, meta, spec) == (&other.kind, &other.meta, &other.spec)
    }
}

/// A resource kind, registered by the crate that owns it.
///
/// Which kinds a folder may hold is decided where it is loaded: this crate names none.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Value of `kind` in its documents.
    pub name: &'static str,
    /// Parses one document: its typed value, or all its faults. [`parse_typed`] serves where the types say everything.
    pub parse: fn(&Document) -> Result<Parsed, Vec<ResourceFault>>,
    /// Faults between documents, of this kind and of others. It is asked even where some documents have faults of their
    /// own: [`Snapshot::of`] leaves those out, [`Snapshot::of_kind`] does not.
    pub check: fn(&Snapshot) -> Vec<ResourceFault>,
    /// JSON Schemas of its `meta` and `spec`, for editors. [`schema_typed`] serves where the types say everything.
    pub schema: fn(&mut SchemaGenerator) -> PartSchemas,
}

/// A typed value, as [`Snapshot::of`] finds it again.
pub type Parsed = Arc<dyn Any + Send + Sync>;

/// The `parse` of a kind whose documents are a [`Resource`] of `M` and `S`.
pub fn parse_typed<M, S>(document: &Document) -> Result<Parsed, Vec<ResourceFault>>
where
    M: DeserializeOwned + Send + Sync + 'static,
    S: DeserializeOwned + Send + Sync + 'static,
{
    match document.read::<M, S>() {
        Ok(resource) => Ok(Arc::new(resource)),
        Err(fault) => Err(vec![fault]),
    }
}

/// A fault in a resource folder, with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceFault {
    /// The file, relative to the folder.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// Dotted path in the document: `spec.rules.read.eval`; empty where the document as a whole is meant.
    pub path: String,
    /// The fault, and the expected value.
    pub message: String,
}

impl fmt::Display for ResourceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The snapshot in force, as it changes.
pub type Current = tokio::sync::watch::Receiver<Arc<Snapshot>>;

impl Snapshot {
    /// The documents of a text instead of a folder: faults call it `inline`, relative paths start at the working
    /// directory.
    pub fn parse(yaml: &str, kinds: &[Kind]) -> Result<Self, Vec<ResourceFault>> {
        let mut loader = Loader::new(kinds, reference::Sources::default());
        loader.take(yaml, "inline", Path::new("."));
        loader.finish()
    }

    /// The documents that were parsed into a `T`, each with that value.
    pub fn of<T: Any>(&self) -> impl Iterator<Item = (&T, &Document)> {
        self.documents.iter().filter_map(|document| Some((document.parsed.as_ref()?.downcast_ref()?, document)))
    }

    /// Documents of one kind, also those that could not be parsed.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Document> {
        self.documents.iter().filter(move |document| document.kind == kind)
    }
}

impl Document {
    /// Its `meta` and `spec`, typed, for the `parse` of a [`Kind`]. A fault names the path and the nearest known key.
    pub fn read<M: DeserializeOwned, S: DeserializeOwned>(&self) -> Result<Resource<M, S>, ResourceFault> {
        let meta = deserialize::read(&self.meta).map_err(|error| self.deserialize_fault("meta", &error))?;
        let spec = deserialize::read(&self.spec).map_err(|error| self.deserialize_fault("spec", &error))?;
        Ok(Resource { meta, spec })
    }

    /// The members of the mapping that `spec` has under `key`, typed; none where there is no such key. Each member that is
    /// invalid is a fault.
    pub fn entries<T: DeserializeOwned>(&self, key: &str) -> Result<BTreeMap<String, T>, Vec<ResourceFault>> {
        let members = match self.spec.get(key) {
            None | Some(Value::Null) => return Ok(BTreeMap::new()),
            Some(Value::Object(members)) => members,
            Some(other) => {
                let message = format!("expected mapping, found {}", deserialize::type_name(other));
                return Err(vec![self.fault(&format!("spec.{key}"), message)]);
            }
        };
        let (mut entries, mut faults) = (BTreeMap::new(), Vec::new());
        for (name, member) in members {
            match deserialize::read(member) {
                Ok(entry) => drop(entries.insert(name.clone(), entry)),
                Err(error) => faults.push(self.deserialize_fault(&format!("spec.{key}.{name}"), &error)),
            }
        }
        if faults.is_empty() { Ok(entries) } else { Err(faults) }
    }

    /// The content of a file that the document names, a regular one of at most 16 MiB: an edit of the file is one of the document.
    /// Its path is relative to the folder of the document. Errors: for people.
    pub fn file(&self, path: &str) -> Result<Bytes, String> {
        self.files.content(&self.folder, path)
    }

    /// The text that `meta` has under `key`, whether the document could be parsed or not.
    pub fn name(&self, key: &str) -> Option<&str> {
        self.meta.get(key).and_then(Value::as_str)
    }

    /// A fault at `path` (dotted, such as `spec.rules.read.clauses.0.eval`), or at the nearest place above it that
    /// stands in the document.
    pub fn fault(&self, path: &str, message: impl Into<String>) -> ResourceFault {
        fault(&self.file, self.positions.nearest(path), path, message)
    }

    fn deserialize_fault(&self, part: &str, error: &deserialize::DeserializeError) -> ResourceFault {
        let path = if error.path.is_empty() { part.to_owned() } else { below(part, &error.path) };
        self.fault(&path, &error.message)
    }
}

/// Reads a folder: parses every `*.yaml` and `*.yml` under it, resolves references, parses each document by its
/// kind, asks every kind to check them together.
pub fn load(folder: &Path, kinds: &[Kind]) -> Result<Snapshot, Vec<ResourceFault>> {
    folder::read(folder, kinds).0
}

/// Collects the documents of files, and what is wrong with them.
struct Loader<'a> {
    kinds: &'a [Kind],
    sources: reference::Sources,
    documents: Vec<Document>,
    faults: Vec<ResourceFault>,
    /// What was said of references, and the folder of their documents: one cause is one fault.
    told: HashSet<(PathBuf, String)>,
}

impl<'a> Loader<'a> {
    fn new(kinds: &'a [Kind], sources: reference::Sources) -> Self {
        Self { kinds, sources, documents: Vec::new(), faults: Vec::new(), told: HashSet::new() }
    }

    /// Takes the documents of one file, which lies in `folder`.
    fn take(&mut self, text: &str, file: &str, folder: &Path) {
        let parsed = match yaml::parse(text) {
            Ok(parsed) => parsed,
            Err(error) => return self.faults.push(fault(file, error.position, &error.path, error.message)),
        };
        let file: Arc<str> = file.into();
        // What stands between two `---`, or after the last, may be nothing but comments.
        for parsed in parsed.into_iter().filter(|parsed| !parsed.value.is_null()) {
            match self.document(parsed, &file, folder) {
                Ok((kind, document)) => self.add(kind, document),
                Err(fault) => self.faults.push(fault),
            }
        }
    }

    /// The document that a part of `file` is, not yet parsed by its kind.
    fn document(
        &self,
        parsed: yaml::ParsedDocument,
        file: &Arc<str>,
        folder: &Path,
    ) -> Result<(&'a Kind, Document), ResourceFault> {
        let yaml::ParsedDocument { value, positions } = parsed;
        let wrong = |path: &str, message: String| Err(fault(file, positions.nearest(path), path, message));
        let expected = |path: &str, expected: &str, found: &Value| {
            wrong(path, format!("expected {expected}, found {}", deserialize::type_name(found)))
        };
        let Value::Object(mut entries) = value else {
            return wrong("", "expected a mapping of kind, meta and spec".to_owned());
        };
        if let Some(key) = entries.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return wrong(key, deserialize::unknown("key", key, &KEYS));
        }
        let kind = match entries.remove("kind") {
            Some(Value::String(name)) => match self.kinds.iter().find(|kind| kind.name == name) {
                Some(kind) => kind,
                None => {
                    let known: Vec<&str> = self.kinds.iter().map(|kind| kind.name).collect();
                    return wrong("kind", deserialize::unknown("kind", &name, &known));
                }
            },
            Some(other) => return expected("kind", "string", &other),
            None => return wrong("", "the key kind is missing".to_owned()),
        };
        let meta = match entries.remove("meta") {
            Some(meta @ Value::Object(_)) => meta,
            Some(other) => return expected("meta", "mapping", &other),
            None => return wrong("", "the key meta is missing".to_owned()),
        };
        let spec = match entries.remove("spec") {
            Some(spec @ Value::Object(_)) => spec,
            Some(Value::Null) | None => Value::Object(Map::new()),
            Some(other) => return expected("spec", "mapping", &other),
        };
        let (folder, file) = (folder.to_owned(), file.clone());
        let files = NamedFiles::default();
        Ok((kind, Document { kind: kind.name, meta, spec, folder, file, positions, files, parsed: None }))
    }

    /// Resolves the references of `document` and parses it. It stays among the documents where that fails, so that
    /// others may name it without a fault.
    fn add(&mut self, kind: &Kind, mut document: Document) {
        let mut spec = std::mem::take(&mut document.spec);
        let mut unresolved = HashSet::new();
        self.sources.resolve(&mut spec, "spec", &document.folder, &mut |path, message| {
            unresolved.insert(path.to_owned());
            if self.told.insert((document.folder.clone(), message.clone())) {
                self.faults.push(document.fault(path, message));
            }
        });
        document.spec = spec;
        match (kind.parse)(&document) {
            Ok(parsed) if unresolved.is_empty() => document.parsed = Some(parsed),
            // What would be said of a value that nobody knows only follows from the reference.
            Ok(_) => {}
            Err(faults) => self.faults.extend(faults.into_iter().filter(|fault| !unresolved.contains(&fault.path))),
        }
        self.sources.files.extend(document.files.paths(&document.folder));
        self.documents.push(document);
    }

    /// All documents, once every kind has checked them together.
    fn finish(self) -> Result<Snapshot, Vec<ResourceFault>> {
        let (snapshot, mut faults) = (Snapshot { documents: self.documents }, self.faults);
        faults.extend(self.kinds.iter().flat_map(|kind| (kind.check)(&snapshot)));
        if faults.is_empty() { Ok(snapshot) } else { Err(faults) }
    }
}

/// The text of a setting with what its references lead to. Relative files are in `folder`.
pub(crate) fn resolved(text: &str, folder: &Path) -> Result<String, String> {
    reference::Sources::default().text(text, folder)
}

fn fault(file: &str, position: Position, path: &str, message: impl Into<String>) -> ResourceFault {
    let (file, path) = (file.to_owned(), path.to_owned());
    ResourceFault { file, line: position.line, column: position.column, path, message: message.into() }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub struct Meta {
        id: String,
    }

    #[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    pub struct Spec {
        name: Option<String>,
        match_mode: Option<String>,
        limits: Vec<u64>,
    }

    /// A kind whose documents have types.
    pub const PROJECT: Kind = Kind {
        name: "project",
        parse: parse_typed::<Meta, Spec>,
        check: |_| Vec::new(),
        schema: schema_typed::<Meta, Spec>,
    };
    /// A kind that takes every document.
    const TABLE: Kind = Kind {
        name: "table",
        parse: parse_typed::<Value, Value>,
        check: |_| Vec::new(),
        schema: schema_typed::<Value, Value>,
    };

    fn parse(yaml: &str) -> Result<Snapshot, Vec<String>> {
        Snapshot::parse(yaml, &[PROJECT, TABLE]).map_err(|faults| faults.iter().map(ResourceFault::to_string).collect())
    }

    fn faults(yaml: &str) -> Vec<String> {
        parse(yaml).unwrap_err()
    }

    #[test]
    fn documents_are_told_by_kind_in_their_order() {
        let yaml = "kind: project\nmeta: { id: a }\n---\nkind: table\nmeta: { id: t }\nspec: { x: 1 }\n---\n# end\n";
        let snapshot = parse(yaml).unwrap();
        assert_eq!(snapshot.documents.len(), 2);
        let table = snapshot.of_kind("table").next().unwrap();
        assert_eq!((&table.meta, &table.spec), (&json!({"id": "t"}), &json!({"x": 1})));
        assert_eq!(snapshot.of_kind("project").next().unwrap().spec, json!({}));
    }

    #[test]
    fn a_document_is_typed_by_its_kind() {
        let yaml = "kind: project\nmeta: { id: a }\nspec: { matchMode: auto, limits: [1] }\n---\n\
                    kind: table\nmeta: { id: b }\n";
        let snapshot = parse(yaml).unwrap();
        let found: Vec<_> = snapshot.of::<Resource<Meta, Spec>>().collect();
        let [(Resource { meta, spec }, document)] = found[..] else { panic!("{found:?}") };
        assert_eq!(document, &snapshot.documents[0]);
        assert_eq!((meta.id.as_str(), spec.match_mode.as_deref(), &spec.limits[..]), ("a", Some("auto"), &[1][..]));
    }

    #[test]
    fn a_fault_has_the_place_of_the_key_that_is_wrong() {
        let wanted = "inline:4:3: spec.matchmode: key matchmode is not known; did you mean matchMode? \
                      known: name, matchMode, limits";
        let yaml = "kind: project\nmeta: { id: a }\nspec:\n  matchmode: auto\n";
        assert_eq!(faults(yaml), [wanted]);
        let wanted = "inline:6:5: spec.limits.1: expected non-negative integer, found string";
        let yaml = "kind: project\nmeta: { id: a }\nspec:\n  limits:\n  - 1\n  - x\n";
        assert_eq!(faults(yaml), [wanted]);
        let wanted = "inline:2:1: meta: the key id is missing";
        assert_eq!(faults("kind: project\nmeta: {}\n"), [wanted]);
    }

    #[test]
    fn a_fault_below_what_stands_there_has_the_nearest_place() {
        let snapshot = parse("kind: table\nmeta: { id: a }\nspec:\n  rules:\n    read: { rule: x }\n").unwrap();
        let fault = snapshot.documents[0].fault("spec.rules.read.eval", "is missing");
        assert_eq!(fault.to_string(), "inline:5:5: spec.rules.read.eval: is missing");
    }

    #[test]
    fn a_variable_that_is_not_set_is_one_fault() {
        let refuse = |snapshot: &Snapshot| {
            snapshot.of::<Resource<Meta, Spec>>().map(|(_, document)| document.fault("spec.name", "is wrong")).collect()
        };
        let kind = Kind { check: refuse, ..PROJECT };
        let yaml = "kind: project\nmeta: { id: a }\nspec: { name: '${env:NOT_SET_ANYWHERE}', limits: '${env:NOT_SET_ANYWHERE}' }\n";
        let faults = Snapshot::parse(&format!("{yaml}---\n{yaml}"), &[kind]).unwrap_err();
        let faults: Vec<String> = faults.iter().map(ResourceFault::to_string).collect();
        assert_eq!(faults, ["inline:3:9: spec.name: the variable NOT_SET_ANYWHERE is not set"]);
        let other = yaml.replace(" }\n", ", nmae: a }\n");
        let faults = Snapshot::parse(&other, &[kind]).unwrap_err();
        assert_eq!(faults.len(), 2, "what does not follow from it is told too: {faults:?}");
    }

    #[test]
    fn every_document_that_is_wrong_is_told() {
        for (yaml, wanted) in [
            ("kind: [table]\n", "inline:1:1: kind: expected string, found list"),
            ("kind: table\nmeta: 1\n", "inline:2:1: meta: expected mapping, found integer"),
            ("kind: table\nmeta: {}\nspec: a\n", "inline:3:1: spec: expected mapping, found string"),
        ] {
            assert_eq!(faults(yaml), [wanted]);
        }
        let yaml = "kind: tabel\nmeta: {}\n---\nkind: table\nmetta: {}\n---\n- 1\n---\nmeta: {}\n---\nkind: table\n";
        let wanted = [
            "inline:1:1: kind: kind tabel is not known; did you mean table? known: project, table",
            "inline:5:1: metta: key metta is not known; did you mean meta? known: kind, meta, spec",
            "inline:7:1: expected a mapping of kind, meta and spec",
            "inline:9:1: the key kind is missing",
            "inline:11:1: the key meta is missing",
        ];
        assert_eq!(faults(yaml), wanted);
    }

    #[test]
    fn every_kind_checks_also_where_documents_do_not_parse() {
        let check = |snapshot: &Snapshot| {
            let typed: Vec<&str> = snapshot.of::<Resource<Meta, Spec>>().map(|(typed, _)| &*typed.meta.id).collect();
            let all: Vec<&str> = snapshot.of_kind("project").filter_map(|document| document.name("id")).collect();
            vec![snapshot.documents[0].fault("", format!("typed {}, all {}", typed.concat(), all.concat()))]
        };
        let yaml = "kind: project\nmeta: { id: a }\n---\nkind: project\nmeta: { id: b }\nspec: { limits: 1 }\n";
        let faults = Snapshot::parse(yaml, &[Kind { check, ..PROJECT }, Kind { check, ..TABLE }]).unwrap_err();
        let messages: Vec<&str> = faults.iter().map(|fault| &*fault.message).collect();
        assert_eq!(messages, ["expected list, found integer", "typed a, all ab", "typed a, all ab"]);
    }

    #[test]
    fn what_is_no_yaml_has_its_place() {
        assert_eq!(faults("kind: table\nkind: table\n"), ["inline:2:1: kind: duplicate key kind"]);
        assert!(faults("kind: [\n")[0].contains("not valid YAML"));
    }
}
