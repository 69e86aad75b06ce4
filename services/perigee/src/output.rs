//! Output of commands.

use std::io::Write;

/// Prints `text` to stdout. A closed stdout is not an error.
pub fn print(text: &str) {
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

/// `text` as one word of a shell: as it is where no character has a meaning there, else in quotes.
pub fn shell_word(text: &str) -> String {
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-.:/@%+,=".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_a_shell_would_take_apart_is_quoted() {
        assert_eq!(shell_word("./perigee-data"), "./perigee-data");
        assert_eq!(shell_word("my shop"), "'my shop'");
        assert_eq!(shell_word("Ann's"), r"'Ann'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
