//! Cursors of lists: places, encrypted and authenticated. A client can neither make one up, nor learn from one the name of an
//! entry that was left out of its page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use query::file::FileTerms;

/// Bytes of the authentication tag.
const TAG: usize = 16;

/// Keys of cursors.
#[derive(Clone)]
pub struct CursorKeys {
    tag: [u8; 32],
    stream: [u8; 32],
}

/// Seals and opens cursors of one folder, by a synthetic initialisation vector: the tag of a place begins its key stream.
pub struct Cursors<'a> {
    keys: &'a CursorKeys,
    /// What tells the folder from all others.
    folder: blake3::Hash,
}

impl CursorKeys {
    /// Keys derived from `secret`.
    pub fn new(secret: &[u8]) -> Self {
        Self {
            tag: blake3::derive_key("perigee file cursor v1 tag", secret),
            stream: blake3::derive_key("perigee file cursor v1 stream", secret),
        }
    }

    /// Cursors of the folder that `terms` are for.
    pub fn of(&self, terms: &FileTerms) -> Cursors<'_> {
        let mut hasher = blake3::Hasher::new();
        for part in [terms.project.as_str(), &terms.bucket, terms.path.as_ref().map_or("", |path| path.as_str())] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        Cursors { keys: self, folder: hasher.finalize() }
    }
}

impl Cursors<'_> {
    /// The cursor of a page that ends at `place`; none at the end.
    pub fn seal(&self, place: &str) -> String {
        if place.is_empty() {
            return String::new();
        }
        let tag = self.tag(place.as_bytes());
        let mut bytes = [&tag[..], place.as_bytes()].concat();
        self.crypt(tag, &mut bytes[TAG..]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place that `cursor` tells; `None` where it is none of this folder.
    pub fn open(&self, cursor: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (tag, place) = bytes.split_first_chunk_mut::<TAG>()?;
        self.crypt(*tag, place);
        // Hashes are compared in constant time.
        let is_ours = blake3::hash(&self.tag(place)) == blake3::hash(&*tag);
        if is_ours { String::from_utf8(place.to_vec()).ok() } else { None }
    }

    fn tag(&self, place: &[u8]) -> [u8; TAG] {
        let mut hasher = blake3::Hasher::new_keyed(&self.keys.tag);
        let hash = hasher.update(self.folder.as_bytes()).update(place).finalize();
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    /// Encrypts, or decrypts, by the key stream of a tag.
    fn crypt(&self, tag: [u8; TAG], bytes: &mut [u8]) {
        let mut stream = vec![0; bytes.len()];
        blake3::Hasher::new_keyed(&self.keys.stream).update(&tag).finalize_xof().fill(&mut stream);
        for (byte, mask) in bytes.iter_mut().zip(stream) {
            *byte ^= mask;
        }
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
