//! `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` in texts; `$${` stands for `${` itself.

use std::{
    collections::HashMap,
    env, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::read_file::read_file_as_text;
use crate::yaml::below;

/// Sources of references: variables, and the files that were read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The resource folder; `None` for documents that lie in none.
    root: Option<PathBuf>,
    /// What the `.env` of each folder says that was looked into.
    variables: HashMap<PathBuf, VariableFile>,
    /// Files that were read, or should have been.
    pub files: Vec<PathBuf>,
}

/// A `.env`.
#[derive(Debug)]
enum VariableFile {
    Read(HashMap<String, String>),
    Missing,
    /// Why it cannot be read.
    Unreadable(String),
}

impl VariableFile {
    fn read(file: &Path) -> Self {
        match read_file_as_text(file) {
            Ok(text) => VariableFile::Read(text.lines().filter_map(variable).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => VariableFile::Missing,
            Err(error) => VariableFile::Unreadable(error.to_string()),
        }
    }
}

impl Sources {
    /// Sources of a resource folder.
    ///
    /// A variable is that of the process, else that of the `.env` beside the document, else of the nearest folder above
    /// it, up to `root`.
    pub(super) fn of(root: &Path) -> Self {
        let mut sources = Self { root: Some(root.to_owned()), ..Self::default() };
        // Also where no document asks for it yet: an edit of it counts as one of the folder.
        sources.variables_in(root);
        sources
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

    /// The text with what its references lead to; an error is what is wrong with the first that leads nowhere.
    pub(super) fn text(&mut self, text: &str, folder: &Path) -> Result<String, String> {
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
                match (self.variable(name, folder), default) {
                    (Ok(set), _) => Ok(set),
                    (Err(_), Some(default)) => Ok(default.to_owned()),
                    (Err(unset), None) => Err(unset),
                }
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

impl Sources {
    /// The variable called `name`, for a document in `folder`; where it is not set, says which files were looked into.
    fn variable(&mut self, name: &str, folder: &Path) -> Result<String, String> {
        if let Ok(set) = env::var(name) {
            return Ok(set);
        }
        let Some(root) = self.root.clone() else { return Err(format!("the variable {name} is not set")) };
        let mut looked = Vec::new();
        for above in folder.ancestors().take_while(|above| above.starts_with(&root)) {
            let file = above.join(".env");
            let shown = file.strip_prefix(".").unwrap_or(&file).display().to_string();
            match self.variables_in(above) {
                VariableFile::Read(variables) => match variables.get(name) {
                    Some(set) => return Ok(set.clone()),
                    None => looked.push(format!("{shown} does not set it")),
                },
                VariableFile::Missing => looked.push(format!("there is no {shown}")),
                VariableFile::Unreadable(why) => looked.push(format!("{shown} cannot be read ({why})")),
            }
        }
        Err(format!("the variable {name} is not set: {}", looked.join(", ")))
    }

    /// The `.env` of `folder`.
    fn variables_in(&mut self, folder: &Path) -> &VariableFile {
        let files = &mut self.files;
        self.variables.entry(folder.to_owned()).or_insert_with(|| {
            let file = folder.join(".env");
            let read = VariableFile::read(&file);
            files.push(file);
            read
        })
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
        let variables = HashMap::from([(PathBuf::from("."), VariableFile::Read(variables))]);
        Sources { root: Some(PathBuf::from(".")), variables, files: Vec::new() }
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
        let unset = "the variable NOT_SET_ANYWHERE is not set: .env does not set it";
        assert_eq!(resolved("${env:NOT_SET_ANYWHERE}"), Err(unset.to_owned()));
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
        let VariableFile::Read(variables) = &sources.variables[folder.path()] else { panic!("{sources:?}") };
        assert_eq!(variables["A"], "1");
        assert_eq!(variables["B"], "two words");
        assert_eq!(variables["C"], "x=y");
        assert_eq!(variables.len(), 3);
    }

    #[test]
    fn the_variables_beside_a_document_come_before_those_above_it() {
        let root = tempfile::tempdir().unwrap();
        let (shop, deep) = (root.path().join("shop"), root.path().join("shop/deep"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.path().join(".env"), "PERIGEE_TEST_A=root\nPERIGEE_TEST_B=root\n").unwrap();
        fs::write(shop.join(".env"), "PERIGEE_TEST_A=shop\n").unwrap();
        let mut sources = Sources::of(root.path());
        assert_eq!(sources.text("${env:PERIGEE_TEST_A}", &deep).as_deref(), Ok("shop"));
        assert_eq!(sources.text("${env:PERIGEE_TEST_B}", &deep).as_deref(), Ok("root"));
        assert_eq!(sources.text("${env:PERIGEE_TEST_A}", root.path()).as_deref(), Ok("root"));
        fs::create_dir(shop.join("odd")).unwrap();
        fs::create_dir(shop.join("odd/.env")).unwrap();
        let unset = sources.text("${env:PERIGEE_TEST_C}", &shop.join("odd")).unwrap_err();
        let (odd, shop, root) = (shop.join("odd"), shop.display(), root.path().display());
        assert_eq!(
            unset,
            format!(
                "the variable PERIGEE_TEST_C is not set: {}/.env cannot be read (not a regular file), {shop}/.env does \
                 not set it, {root}/.env does not set it",
                odd.display()
            )
        );
        assert_eq!(sources.files.len(), 4, "all are watched: {:?}", sources.files);
    }
}
