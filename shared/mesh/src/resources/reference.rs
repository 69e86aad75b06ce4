//! `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` in texts; `$${` stands for `${` itself.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::read_file::read_file_as_text;
use crate::yaml::below;

/// Sources of references: variables, and the files that were read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Variables of the folder's `.env`; those of the process come first.
    variables: HashMap<String, String>,
    /// Files that were read, or should have been.
    pub files: Vec<PathBuf>,
}

impl Sources {
    /// Sources of a resource folder: its `.env` is read, if it has one.
    pub(super) fn of(folder: &Path) -> Self {
        let file = folder.join(".env");
        let text = read_file_as_text(&file).unwrap_or_default();
        Self { variables: text.lines().filter_map(variable).collect(), files: vec![file] }
    }

    /// Replaces every reference in the texts of `value`, which stands at `path`; `refuse` is told of each that leads
    /// nowhere.
    pub(super) fn resolve(
        &mut self,
        value: &mut Value,
        path: &str,
        folder: &Path,
        refuse: &mut dyn FnMut(&str, String),
    ) {
        match value {
            Value::String(text) if text.contains("${") => match self.text(text, folder) {
                Ok(resolved) => *text = resolved,
                Err(message) => refuse(path, message),
            },
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.resolve(item, &below(path, &index.to_string()), folder, refuse);
                }
            }
            Value::Object(entries) => {
                for (key, entry) in entries {
                    self.resolve(entry, &below(path, key), folder, refuse);
                }
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => (),
        }
    }

    fn text(&mut self, text: &str, folder: &Path) -> Result<String, String> {
        let mut resolved = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, reference) = (&rest[..start], &rest[start + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                resolved.push_str(before);
                resolved.push_str("${");
                rest = reference;
                continue;
            }
            resolved.push_str(before);
            let end = reference.find('}').ok_or("a reference that begins with ${ has no }")?;
            resolved.push_str(&self.target(&reference[..end], folder)?);
            rest = &reference[end + 1..];
        }
        resolved.push_str(rest);
        Ok(resolved)
    }

    fn target(&mut self, reference: &str, folder: &Path) -> Result<String, String> {
        match reference.split_once(':') {
            Some(("env", name)) => {
                let (name, default) = match name.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (name, None),
                };
                let set = env::var(name).ok().or_else(|| self.variables.get(name).cloned());
                set.or_else(|| default.map(str::to_owned)).ok_or_else(|| format!("the variable {name} is not set"))
            }
            Some(("file", path)) => {
                let file = folder.join(path);
                let text = read_file_as_text(&file).map_err(|error| format!("the file {path} cannot be read: {error}"));
                self.files.push(file);
                let text = text?;
                Ok(text.strip_suffix('\n').map_or(text.as_str(), |line| line.trim_end_matches('\r')).to_owned())
            }
            _ => {
                Err("expected ${env:NAME}, ${env:NAME:-default} or ${file:PATH}; $${ stands for a plain ${".to_owned())
            }
        }
    }
}

/// `NAME=value`, perhaps after `export`, the value perhaps in quotes.
fn variable(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
    let value = value.trim();
    let unquoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    Some((name.trim().to_owned(), unquoted.unwrap_or(value).to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn sources() -> Sources {
        let variables = HashMap::from([("SHOP".to_owned(), "music".to_owned()), ("NONE".to_owned(), String::new())]);
        Sources { variables, files: Vec::new() }
    }

    fn resolved(text: &str) -> Result<String, String> {
        sources().text(text, Path::new("."))
    }

    #[test]
    fn a_variable_stands_anywhere_in_a_text() {
        assert_eq!(resolved("a ${env:SHOP}-${env:SHOP}."), Ok("a music-music.".to_owned()));
        assert_eq!(resolved("${env:NOT_SET_ANYWHERE:-sqlite:music.db}"), Ok("sqlite:music.db".to_owned()));
        assert_eq!(resolved("${env:SHOP:-other}${env:NONE:-x}"), Ok("music".to_owned()));
        assert_eq!(resolved("costs $5, $${env:SHOP}"), Ok("costs $5, ${env:SHOP}".to_owned()));
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_refused_by_name() {
        assert_eq!(resolved("${env:NOT_SET_ANYWHERE}"), Err("the variable NOT_SET_ANYWHERE is not set".to_owned()));
        assert!(resolved("${file:no/such}").is_err_and(|text| text.starts_with("the file no/such cannot be read: ")));
        assert!(resolved("${SHOP}").is_err_and(|text| text.starts_with("expected ${env:NAME}")));
        assert!(resolved("${env:SHOP").is_err_and(|text| text.ends_with("has no }")));
    }

    #[test]
    fn a_file_is_read_beside_the_document_without_its_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "hush\r\n").unwrap();
        let mut sources = sources();
        assert_eq!(sources.text("<${file:secret}>", folder.path()), Ok("<hush>".to_owned()));
        assert_eq!(sources.files, [folder.path().join("secret")]);
    }

    #[test]
    fn every_text_of_a_value_is_looked_at_and_every_fault_told() {
        let mut value = json!({"a": ["${env:SHOP}", 1, "${x}"], "b": {"c": "${env:NOT_SET_ANYWHERE}"}});
        let mut refused = Vec::new();
        sources().resolve(&mut value, "spec", Path::new("."), &mut |path, _| refused.push(path.to_owned()));
        assert_eq!(value["a"][0], "music");
        assert_eq!(refused, ["spec.a.2", "spec.b.c"]);
    }

    #[test]
    fn a_folder_may_have_variables_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".env"), "# c\nA=1\nexport B = \"two words\"\nC='x=y'\n\nnothing\n").unwrap();
        let sources = Sources::of(folder.path());
        assert_eq!(sources.variables["A"], "1");
        assert_eq!(sources.variables["B"], "two words");
        assert_eq!(sources.variables["C"], "x=y");
        assert_eq!(sources.variables.len(), 3);
    }
}
