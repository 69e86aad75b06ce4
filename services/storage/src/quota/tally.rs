//! Bytes and files of a bucket, and of each of its folders that have a quota.

use std::sync::Arc;

use foldhash::HashMap;
use query::{file::FilePath, resources::FileQuota};

/// Bytes and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

/// The quota of each folder that a prefix matches.
#[derive(Debug, Clone, PartialEq)]
pub struct FolderQuota {
    /// The prefix, whatever its captures are called.
    pub pattern: Arc<str>,
    /// Its names; `None`: any.
    segments: Vec<Option<String>>,
    /// The quota of each.
    pub quota: FileQuota,
}

/// A folder with a quota: the pattern that matches it, and its path.
pub type FolderKey = (Arc<str>, String);

/// Bytes and files of a bucket, and of each of its folders that have a quota.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Of the bucket.
    pub all: Usage,
    /// Of folders; those without any are left out.
    pub folders: HashMap<FolderKey, Usage>,
}

impl Usage {
    /// Both together.
    pub fn plus(self, other: Usage) -> Usage {
        let bytes = self.bytes.saturating_add(other.bytes);
        Usage { bytes, files: self.files.saturating_add(other.files) }
    }

    /// What is left without the other; nothing where that is more: other programs may have changed what was counted.
    pub fn minus(self, other: Usage) -> Usage {
        let bytes = self.bytes.saturating_sub(other.bytes);
        Usage { bytes, files: self.files.saturating_sub(other.files) }
    }
}

impl FolderQuota {
    /// The quota of the folders that the prefix of a rule matches.
    pub fn new(prefix: &str, quota: FileQuota) -> Self {
        // As the rules have it, which take no other one.
        let path = FilePath::parse(prefix).unwrap_or_default();
        let segments = path.segments().map(|segment| (!segment.starts_with(':')).then(|| segment.to_owned()));
        let segments: Vec<Option<String>> = segments.collect();
        let names: Vec<&str> = segments.iter().map(|segment| segment.as_deref().unwrap_or(":")).collect();
        Self { pattern: names.join("/").into(), segments, quota }
    }

    /// The folder that the path is in, if the prefix matches it.
    pub fn folder<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (mut end, mut rest) = (0, path);
        for segment in &self.segments {
            let found = rest.split('/').next().filter(|found| !found.is_empty())?;
            if segment.as_ref().is_some_and(|wanted| wanted != found) {
                return None;
            }
            end = path.len() - rest.len() + found.len();
            rest = rest[found.len()..].strip_prefix('/').unwrap_or_default();
        }
        Some(&path[..end])
    }
}

impl Tally {
    /// Adds a file of so many bytes.
    pub fn add_file(&mut self, folders: &[FolderQuota], path: &str, bytes: u64) {
        let usage = Usage { bytes, files: 1 };
        self.all = self.all.plus(usage);
        for folder in folders {
            let Some(found) = folder.folder(path) else { continue };
            let own = self.folders.entry((folder.pattern.clone(), found.to_owned())).or_default();
            *own = own.plus(usage);
        }
    }

    /// Adds all of another one.
    pub fn add(&mut self, other: &Tally) {
        self.all = self.all.plus(other.all);
        for (key, usage) in &other.folders {
            let own = self.folders.entry(key.clone()).or_default();
            *own = own.plus(*usage);
        }
    }

    /// Takes all of another one away.
    pub fn subtract(&mut self, other: &Tally) {
        self.all = self.all.minus(other.all);
        for (key, usage) in &other.folders {
            let Some(own) = self.folders.get_mut(key) else { continue };
            *own = own.minus(*usage);
            if *own == Usage::default() {
                self.folders.remove(key);
            }
        }
    }

    /// What this one has more than another one, in each folder.
    pub fn beyond(&self, other: &Tally) -> Tally {
        let mut more = self.clone();
        more.subtract(other);
        more
    }

    /// What a folder has.
    pub fn of(&self, folder: &FolderKey) -> Usage {
        self.folders.get(folder).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_what_the_prefix_matches() {
        let folder = |prefix: &str, path: &'static str| FolderQuota::new(prefix, FileQuota::default()).folder(path);
        assert_eq!(folder("/users/:user", "users/7/a"), Some("users/7"));
        assert_eq!(folder("/users/:user", "users/7/a/b"), Some("users/7"));
        assert_eq!(folder("/users/:user", "users/7"), Some("users/7"));
        assert_eq!(folder("/users/:user", "users"), None);
        assert_eq!(folder("/users/:user", "others/7/a"), None);
        assert_eq!(folder("/:a/x", "b/x/c"), Some("b/x"));
        assert_eq!(folder("/", "b/x"), Some(""));
        let pattern = |prefix: &str| FolderQuota::new(prefix, FileQuota::default()).pattern;
        assert_eq!(pattern("/users/:user"), pattern("/users/:id"), "what captures are called is of no matter");
        assert_ne!(pattern("/users/:user"), pattern("/users/x"));
    }

    #[test]
    fn tallies_add_up_and_leave_nothing() {
        let folders = [FolderQuota::new("/u/:id", FileQuota::default()), FolderQuota::new("/", FileQuota::default())];
        let (mut tally, mut one) = (Tally::default(), Tally::default());
        tally.add_file(&folders, "u/1/a", 5);
        tally.add_file(&folders, "u/2/a", 7);
        one.add_file(&folders, "u/1/a", 5);
        let key = (folders[0].pattern.clone(), "u/1".to_owned());
        assert_eq!((tally.all, tally.of(&key)), (Usage { bytes: 12, files: 2 }, Usage { bytes: 5, files: 1 }));
        assert_eq!(one.beyond(&tally), Tally::default());
        tally.subtract(&one);
        assert_eq!((tally.all, tally.of(&key)), (Usage { bytes: 7, files: 1 }, Usage::default()));
        assert_eq!(tally.folders.len(), 2, "a folder without files is not known");
    }
}
