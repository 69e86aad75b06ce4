//! A folder of files as documents.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Kind, Loader, ResourceFault, Snapshot, fault, read_file::read_file, reference::Sources};
use crate::{tasks::panic_text, yaml::Position};

const START: Position = Position { line: 1, column: 1 };
/// Levels of nested folders that are read.
const MAX_DEPTH: usize = 16;
/// Name of the data folder of a node, which may lie inside its resource folder.
const DATA_FOLDER: &str = "perigee-data";

/// Fingerprint of a folder: every file that was read, with its metadata.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Stamp {
    files: Vec<(PathBuf, Option<FileStamp>)>,
}

#[derive(Debug, Clone, PartialEq)]
struct FileStamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Of the documents under `folder` as they are now, and of `others`.
    pub(super) fn of(folder: &Path, others: &[PathBuf]) -> Self {
        // A folder that cannot be walked is told by `read`; here it is a state like another.
        let documents = files(folder).unwrap_or_default();
        let files = documents.into_iter().map(|(_, path)| path).chain(others.iter().cloned());
        Self { files: files.map(|path| (path.clone(), FileStamp::of(&path))).collect() }
    }

    /// Whether some file changed less than `time` ago: it may be half written, and one more change would not be seen by
    /// clocks that tick slower.
    pub(super) fn is_younger_than(&self, time: Duration) -> bool {
        self.stamps().any(|stamp| stamp.is_younger_than(time))
    }

    /// Whether some file that is empty became so less than `time` ago.
    pub(super) fn has_emptied_within(&self, time: Duration) -> bool {
        self.stamps().any(|stamp| stamp.len == 0 && stamp.is_younger_than(time))
    }

    fn stamps(&self) -> impl Iterator<Item = &FileStamp> {
        self.files.iter().filter_map(|(_, stamp)| stamp.as_ref())
    }
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let of = fs::metadata(path).ok()?;
        let changed = (of.ctime(), of.ctime_nsec());
        Some(Self { modified: of.modified().ok(), len: of.len(), inode: of.ino(), changed })
    }

    /// Whether the file changed less than `time` ago; a clock that is ahead says nothing.
    fn is_younger_than(&self, time: Duration) -> bool {
        let age = self.modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        age.is_some_and(|age| age < time)
    }
}

/// The snapshot that stands in `folder`, and the files outside its documents that it was made of. A panic of a
/// parser or of a check is a fault like another: what is in force must not depend on it.
pub(super) fn read(folder: &Path, kinds: &[Kind]) -> (Result<Snapshot, Vec<ResourceFault>>, Vec<PathBuf>) {
    let read = AssertUnwindSafe(|| checked(folder, kinds));
    std::panic::catch_unwind(read).unwrap_or_else(|panic| {
        let message = format!("checking it panicked: {}", panic_text(panic.as_ref()));
        (Err(vec![fault(&folder.display().to_string(), START, "", message)]), Vec::new())
    })
}

fn checked(folder: &Path, kinds: &[Kind]) -> (Result<Snapshot, Vec<ResourceFault>>, Vec<PathBuf>) {
    let sources = Sources::of(folder);
    let files = match files(folder) {
        Ok(files) => files,
        Err((path, error)) => {
            let unreadable = unreadable(&path.display().to_string(), &error.to_string());
            return (Err(vec![unreadable]), sources.files);
        }
    };
    let mut loader = Loader::new(kinds, sources);
    for (name, path) in files {
        let text = match read_file(&path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                let seen = error.utf8_error().valid_up_to();
                loader.faults.push(unreadable(&name, &format!("byte {} is not valid UTF-8", seen + 1)));
                continue;
            }
            Err(error) => {
                loader.faults.push(unreadable(&name, &error.to_string()));
                continue;
            }
        };
        loader.take(&text, &name, path.parent().unwrap_or(folder));
    }
    let others = std::mem::take(&mut loader.sources.files);
    (loader.finish(), others)
}

/// Every document file under `folder`, as name relative to it and path, in the order of names.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>, (PathBuf, io::Error)> {
    let mut found = Vec::new();
    walk(folder, folder, &mut Vec::new(), &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(
    root: &Path,
    folder: &Path,
    above: &mut Vec<(u64, u64)>,
    found: &mut Vec<(String, PathBuf)>,
) -> Result<(), (PathBuf, io::Error)> {
    let at = |error| (folder.to_owned(), error);
    let about = fs::metadata(folder).map_err(at)?;
    let own = (about.dev(), about.ino());
    // A link may lead back to a folder that it stands in.
    if above.contains(&own) {
        return Ok(());
    }
    above.push(own);
    for entry in fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        // Links are followed: mounted configuration consists of them. One that leads nowhere is passed over.
        let Ok(about) = fs::metadata(&path) else { continue };
        if is_hidden {
            continue;
        }
        if about.is_dir() {
            if name != DATA_FOLDER && above.len() <= MAX_DEPTH {
                walk(root, &path, above, found)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            found.push((name, path));
        }
    }
    above.pop();
    Ok(())
}

fn unreadable(file: &str, why: &str) -> ResourceFault {
    fault(file, START, "", format!("cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::{
        super::{Document, Parsed, load, tests::PROJECT},
        *,
    };

    fn project(id: &str) -> String {
        format!("kind: project\nmeta: {{ id: {id} }}\n")
    }

    #[test]
    fn an_edit_of_a_file_that_a_document_names_is_one_of_the_document() {
        let folder = tempfile::tempdir().unwrap();
        let parse = |document: &Document| {
            let named = document.file("named.bin").map(|content| Arc::new(content) as Parsed);
            named.map_err(|why| vec![document.fault("spec", why)])
        };
        let kinds = [Kind { parse, ..PROJECT }];
        fs::write(folder.path().join("a.yaml"), project("a")).unwrap();
        let missing = read(folder.path(), &kinds);
        assert!(missing.0.is_err() && missing.1.contains(&folder.path().join("named.bin")), "{missing:?}");
        let told = |content: &[u8]| {
            fs::write(folder.path().join("named.bin"), content).unwrap();
            let (snapshot, others) = read(folder.path(), &kinds);
            assert!(others.contains(&folder.path().join("named.bin")));
            snapshot.unwrap()
        };
        let first = told(b"\xff1");
        assert_eq!(first, told(b"\xff1"));
        assert_ne!(first, told(b"\xff2"));
    }

    #[test]
    fn a_link_back_to_its_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a.yaml"), project("a")).unwrap();
        for link in ["one", "two", "sub/up"] {
            std::os::unix::fs::symlink(folder.path(), folder.path().join(link)).unwrap();
        }
        let names: Vec<String> = files(folder.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["sub/a.yaml"]);
    }

    #[test]
    fn every_yaml_file_counts_except_hidden_ones_and_the_nodes_own() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [".git", "sub/deep", "perigee-data"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["b.yaml", "a.yml", "sub/deep/c.yaml"] {
            fs::write(at(name), project(&name[..1])).unwrap();
        }
        for name in [".git/x.yaml", ".x.yaml", "perigee-data/x.yaml", "x.json"] {
            fs::write(at(name), "not: [for us").unwrap();
        }
        let snapshot = load(folder.path(), &[PROJECT]).unwrap();
        let files: Vec<&str> = snapshot.documents.iter().map(|document| &*document.file).collect();
        assert_eq!(files, ["a.yml", "b.yaml", "sub/deep/c.yaml"]);
        assert_eq!(snapshot.documents[2].folder, at("sub/deep"));
    }

    #[test]
    fn faults_of_all_files_and_checks_are_told_together() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "kind: [").unwrap();
        fs::write(folder.path().join("b.yaml"), [0x61, 0xff]).unwrap();
        fs::write(folder.path().join("c.yaml"), project("c")).unwrap();
        let kind = Kind { check: |snapshot| vec![snapshot.documents[0].fault("meta.id", "is taken")], ..PROJECT };
        let faults: Vec<String> =
            load(folder.path(), &[kind]).unwrap_err().iter().map(ResourceFault::to_string).collect();
        assert_eq!(faults.len(), 3);
        assert!(faults[0].starts_with("a.yaml:2:1: kind: not valid YAML"), "{faults:?}");
        assert_eq!(faults[1], "b.yaml:1:1: cannot be read: byte 2 is not valid UTF-8");
        assert_eq!(faults[2], "c.yaml:2:9: meta.id: is taken");
    }

    #[test]
    fn a_kind_that_panics_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), project("a")).unwrap();
        let check = Kind { check: |_| panic!("on purpose"), ..PROJECT };
        let parse = Kind { parse: |_| panic!("on purpose"), ..PROJECT };
        for kind in [check, parse] {
            let faults = load(folder.path(), &[kind]).unwrap_err();
            assert_eq!(faults[0].message, "checking it panicked: on purpose");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_a_fault() {
        let faults = load(Path::new("/nowhere/shop"), &[]).unwrap_err();
        assert!(faults[0].to_string().starts_with("/nowhere/shop:1:1: cannot be read: "), "{faults:?}");
    }

    #[test]
    fn references_look_into_the_folders_variables() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".env"), "PERIGEE_TEST_NAME=Ann's\n").unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        let text = "kind: project\nmeta: { id: a }\nspec: { name: '${env:PERIGEE_TEST_NAME} ${file:n}' }";
        fs::write(folder.path().join("sub/a.yaml"), text).unwrap();
        let faults = load(folder.path(), &[PROJECT]).unwrap_err();
        assert!(
            faults[0].to_string().starts_with("sub/a.yaml:3:9: spec.name: the file n cannot be read"),
            "{faults:?}"
        );
        fs::write(folder.path().join("sub/n"), "shop\n").unwrap();
        assert_eq!(load(folder.path(), &[PROJECT]).unwrap().documents[0].spec["name"], "Ann's shop");
    }

    #[test]
    fn a_stamp_tells_every_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let secret = folder.path().join("secret");
        let stamp = || Stamp::of(folder.path(), std::slice::from_ref(&secret));
        let none = stamp();
        fs::write(&file, "a").unwrap();
        let one = stamp();
        assert_ne!(one, none);
        fs::write(folder.path().join("b.yaml"), "").unwrap();
        let two = stamp();
        assert_ne!(two, one);
        fs::write(&secret, "x").unwrap();
        assert_ne!(stamp(), two);
        assert_eq!(stamp(), stamp());
    }
}
