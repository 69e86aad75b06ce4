//! Output of commands.

use std::io::Write;

/// Prints `text` to stdout. A closed stdout is not an error.
pub fn print(text: &str) {
    let _closed = std::io::stdout().write_all(text.as_bytes());
}
