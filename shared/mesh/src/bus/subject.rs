//! Names in subjects, and in the names of streams and keys.

/// Most characters of a word: names of streams have at most 255.
const WORD_CHARS_MAX: usize = 96;

/// A name as one word of a subject: letters and digits as they are, of all else the bytes, as `-2e` for a dot. Two names
/// never become one, and none becomes several words or a wildcard. A long one ends with its hash, after two hyphens.
pub fn word(name: &str) -> String {
    use std::fmt::Write;
    let mut word = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => word.push(byte.into()),
            // A String takes all that is written to it.
            other => _ = write!(word, "-{other:02x}"),
        }
    }
    if word.len() > WORD_CHARS_MAX {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        word.truncate(WORD_CHARS_MAX / 2);
        _ = write!(word, "--{}", &hash[..32]);
    }
    word
}

/// The name of a mesh, by the secret that its nodes share: two meshes on one server are apart. It shows nothing of the secret.
pub fn mesh(secret: &[u8]) -> String {
    let key = blake3::derive_key("perigee 2026-11 name of a mesh on its bus", secret);
    key[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_reaches_another_subject() {
        let names =
            ["a.b", "a", "a*", ">", "*", "", "a-2eb", "A", "a b", "a\n", "ä", "a_b", "a/b", "$JS", "a\0", ".", ".."];
        let words: BTreeSet<String> = names.iter().map(|name| word(name)).collect();
        assert_eq!(words.len(), names.len());
        for word in words {
            assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{word}");
        }
        assert_eq!(word("a.b"), "a-2eb");
        let long = ["x".repeat(96), "x".repeat(97), "x".repeat(98), format!("{}.", "x".repeat(96))];
        let words: BTreeSet<String> = long.iter().map(|name| word(name)).collect();
        assert!(words.len() == 4 && words.iter().all(|word| word.len() <= WORD_CHARS_MAX), "{words:?}");
    }

    #[test]
    fn the_name_of_a_mesh_is_that_of_its_secret() {
        assert_eq!(mesh(b"one"), mesh(b"one"));
        assert_ne!(mesh(b"one"), mesh(b"other"));
        assert_eq!(mesh(b"").len(), 16);
    }
}
