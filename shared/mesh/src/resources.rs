//! The resource folder: documents of `kind`, `meta` and `spec`, watched and swapped as a whole.

use std::{fmt, path::Path, path::PathBuf, sync::Arc};

use serde::de::DeserializeOwned;

use crate::{Board, Tasks};

/// All documents of a folder, valid as a whole.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// In the order of their files' paths, then of their place in the file.
    pub documents: Vec<Document>,
}

/// One resource.
#[derive(Debug, Clone)]
pub struct Document {
    /// `project`, `database`, `table`.
    pub kind: String,
    /// Names it.
    pub meta: serde_json::Value,
    /// What it says; references are resolved.
    pub spec: serde_json::Value,
    /// Folder of the file it stands in: relative paths in it start here.
    pub folder: PathBuf,
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
    /// Dotted path in the document: `spec.rules.read.eval`.
    pub path: String,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.path, self.message)
    }
}

/// What a service says is wrong with documents of its kinds.
pub type Checker = fn(&Snapshot) -> Vec<Fault>;

/// The snapshot in force, as it changes.
pub type Current = tokio::sync::watch::Receiver<Arc<Snapshot>>;

impl Snapshot {
    /// Documents of one kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Document> {
        self.documents.iter().filter(move |document| document.kind == kind)
    }
}

impl Document {
    /// Its `meta` and `spec`, typed. A fault names the path and the nearest known key.
    pub fn read<M: DeserializeOwned, S: DeserializeOwned>(&self) -> Result<(M, S), Fault> {
        todo!()
    }

    /// A fault at `path` (dotted, such as `spec.rules.read.clauses.0.eval`), or at the nearest place above it that
    /// stands in the document.
    pub fn fault(&self, _path: &str, _message: impl Into<String>) -> Fault {
        todo!()
    }
}

/// Reads a folder: parses every `*.yaml` and `*.yml` under it, resolves references, asks every checker.
pub fn load(_folder: &Path, _checkers: &[Checker]) -> Result<Snapshot, Vec<Fault>> {
    todo!()
}

/// Loads a folder and goes on watching it. A change that is valid is in force within a second; one that is not changes
/// nothing and is told in the log and on the board, as part `resources`.
pub fn watch(_folder: &Path, _checkers: Vec<Checker>, _tasks: &Tasks, _board: &Board) -> Result<Current, Vec<Fault>> {
    todo!()
}
