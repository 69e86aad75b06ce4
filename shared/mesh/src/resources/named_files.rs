//! Files that a document names, each read once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use super::read_file::read_file;

/// The contents by path, or why a file cannot be read. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct NamedFiles(Arc<Mutex<Contents>>);

type Contents = BTreeMap<String, Result<Bytes, String>>;

impl NamedFiles {
    /// The content of the file at `path`, relative to `folder`.
    pub fn content(&self, folder: &Path, path: &str) -> Result<Bytes, String> {
        let mut contents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || read_file(&folder.join(path)).map(Bytes::from).map_err(|error| error.to_string());
        contents.entry(path.to_owned()).or_insert_with(read).clone()
    }

    /// Where the files are that were asked for.
    pub fn paths(&self, folder: &Path) -> Vec<PathBuf> {
        self.contents().keys().map(|path| folder.join(path)).collect()
    }

    fn contents(&self) -> Contents {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PartialEq for NamedFiles {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.contents() == other.contents()
    }
}
