//! What is in a folder, in short.

use crate::storage::Entry;

/// A digest of the entries of a folder in the order of lists: what was judged is compared with what is there.
#[derive(Debug, Default)]
pub struct EntriesDigest(blake3::Hasher);

impl EntriesDigest {
    /// Adds the next entries.
    pub fn add(&mut self, entries: &[Entry]) {
        for entry in entries {
            // No path has a line break.
            self.0.update(entry.path.as_bytes()).update(if entry.is_folder { b"/\n" } else { b"\n" });
        }
    }

    /// The digest of all.
    pub fn finish(&self) -> Vec<u8> {
        self.0.finalize().as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(pages: &[&[(&str, bool)]]) -> Vec<u8> {
        let mut digest = EntriesDigest::default();
        for page in pages {
            let entry = |(path, is_folder): &(&str, bool)| Entry {
                path: (*path).to_owned(),
                is_folder: *is_folder,
                ..Entry::default()
            };
            digest.add(&page.iter().map(entry).collect::<Vec<_>>());
        }
        digest.finish()
    }

    #[test]
    fn it_is_of_names_and_kinds_whatever_the_pages() {
        let all = digest(&[&[("a", true), ("a/b", false)]]);
        assert_eq!(digest(&[&[("a", true)], &[("a/b", false)], &[]]), all);
        for other in
            [&[("a", false), ("a/b", false)][..], &[("a", true)], &[("a", true), ("a/b", false), ("a/c", false)]]
        {
            assert_ne!(digest(&[other]), all, "{other:?}");
        }
    }
}
