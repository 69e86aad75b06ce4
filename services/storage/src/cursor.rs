//! Cursors of lists: places, encrypted and authenticated. A client can neither make one up, nor learn from one the name of an
//! entry that was left out of its page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mesh::seal::{self, Sealer};
use query::file::FileTerms;

/// Keys of cursors.
#[derive(Clone)]
pub struct CursorKeys(Sealer);

/// Seals and opens cursors of one folder.
pub struct Cursors<'a> {
    sealer: &'a Sealer,
    /// What tells the folder from all others.
    folder: blake3::Hash,
}

impl CursorKeys {
    /// Keys derived from `secret`.
    pub fn new(secret: &[u8]) -> Self {
        Self(Sealer::new("perigee file cursor v1", secret))
    }

    /// Cursors of the folder that `terms` are for.
    pub fn of(&self, terms: &FileTerms) -> Cursors<'_> {
        let path = terms.path.as_ref().map_or("", |path| path.as_str());
        let folder = seal::hash_of(&[terms.project.as_bytes(), terms.bucket.as_bytes(), path.as_bytes()]);
        Cursors { sealer: &self.0, folder }
    }
}

impl Cursors<'_> {
    /// The cursor of a page that ends at `place`; none at the end.
    pub fn seal(&self, place: &str) -> String {
        if place.is_empty() {
            return String::new();
        }
        URL_SAFE_NO_PAD.encode(self.sealer.seal(self.folder.as_bytes(), place.as_bytes()))
    }

    /// The place that `cursor` tells; `None` where it is none of this folder.
    pub fn open(&self, cursor: &str) -> Option<String> {
        let place = self.sealer.open(self.folder.as_bytes(), URL_SAFE_NO_PAD.decode(cursor).ok()?)?;
        String::from_utf8(place).ok()
    }
}

#[cfg(test)]
mod tests {
    use proto::storage::ListRequest;
    use query::file::{FileOperation, FilePath};

    use super::*;
    use crate::list::PageRequest;

    fn terms(path: &str) -> FileTerms {
        FileTerms {
            project: "shop".to_owned(),
            bucket: "files".to_owned(),
            operation: FileOperation::List,
            path: FilePath::parse(path).ok(),
            size: None,
            is_provisional: false,
            expires_ms: 0,
        }
    }

    #[test]
    fn a_cursor_is_of_one_folder_and_nobody_else_makes_one() {
        let (keys, (one, other)) = (CursorKeys::new(b"secret"), (terms("/a"), terms("/b")));
        let cursor = keys.of(&one).seal("hidden/name");
        assert_eq!(keys.of(&one).open(&cursor).as_deref(), Some("hidden/name"));
        assert_eq!(keys.of(&other).open(&cursor), None);
        assert_eq!(CursorKeys::new(b"another").of(&one).open(&cursor), None);
        let told = URL_SAFE_NO_PAD.decode(&cursor).expect("it is base64");
        assert!(!told.windows(6).any(|bytes| bytes == b"hidden"));
        for forged in ["", "x", "%", "Li4v", &URL_SAFE_NO_PAD.encode("../../../etc/"), &cursor[1..]] {
            assert_eq!(keys.of(&one).open(forged), None, "{forged}");
        }
        assert_eq!(keys.of(&one).seal(""), "");
    }

    #[test]
    fn no_cursor_leads_out_of_its_folder() {
        let keys = CursorKeys::new(b"secret");
        for (folder, place, is_one) in [
            ("/", "a", true),
            ("/", "a/b/", true),
            ("/a", ".perigee/x", true),
            ("/", ".perigee/", false),
            ("/", "../", false),
            ("/a", "../b", false),
            ("/a", "b/../../c", false),
            ("/a", "/b", false),
        ] {
            let terms = terms(folder);
            let cursors = keys.of(&terms);
            let request = ListRequest { limit: 1, cursor: cursors.seal(place), ..ListRequest::default() };
            let path = terms.path.as_ref().expect("it has one");
            assert_eq!(PageRequest::new(request, path, &cursors).is_ok(), is_one, "{folder} {place}");
        }
    }
}
