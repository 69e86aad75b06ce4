//! Documents of a starting folder.

use std::{collections::HashMap, fmt::Write, path::Path};

use crud::OutwardKey;
use mesh::resources;
use query::{Operation, Table, Writes};

use super::{
    File,
    links::{SuggestedLink, TableIndex},
    source::{DEFAULT_SCHEMA, Found, counts},
};
use crate::check::KINDS;

/// File of the JSON Schema that editors check the documents by. Its name is hidden, for no resources are in it.
const SCHEMA_FILE: &str = ".schema.json";
/// The id of a database that does not exist yet.
const DEFAULT_ID: &str = "main";
/// Foreign keys into other schemas that the closing note names.
const SHOWN_KEYS: usize = 10;

/// A folder to write: a project and its database.
pub struct Plan {
    project: String,
    database: Option<Found>,
    secret: String,
}

impl Plan {
    /// A folder with a new secret for the project's tokens.
    pub fn new(project: String, database: Option<Found>) -> Self {
        let secret = rand::random::<[u8; 32]>().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Self { project, database, secret }
    }

    /// The files of the folder.
    pub fn files(&self) -> Vec<File> {
        let open = |name, text| {
            let text = format!("# yaml-language-server: $schema={SCHEMA_FILE}\n{text}");
            File { name, text, is_secret: false }
        };
        vec![
            open("project.yaml", self.project_document()),
            open("database.yaml", self.database_documents()),
            open("tables.yaml", self.table_documents()),
            File { name: SCHEMA_FILE, text: format!("{:#}\n", resources::json_schema(KINDS)), is_secret: false },
            File { name: ".env", text: self.variables(), is_secret: true },
        ]
    }

    /// The closing note: files written and next steps.
    pub fn note(&self, dir: &Path) -> String {
        let dir = dir.display();
        let mut text = format!("wrote {dir}: project {}, ", self.project);
        match &self.database {
            Some(found) => {
                let databases = found.schemas.iter().map(|found| match found.schema.tables().len() {
                    0 => format!("database {} without a table yet", found.id),
                    1 => format!("database {} with 1 table", found.id),
                    many => format!("database {} with {many} tables", found.id),
                });
                text.push_str(&databases.collect::<Vec<_>>().join(", "));
                text.push_str("; every operation denied\n");
                surroundings(found, &mut text);
            }
            None => {
                let _infallible = writeln!(text, "database {DEFAULT_ID}");
            }
        }
        text + &format!("\nSay who may do what in {dir}/tables.yaml, then:\n\n  perigee dev {dir}\n")
    }

    fn project_document(&self) -> String {
        format!(
            "kind: project\n\
             meta: {{ id: {} }}\n\
             spec:\n  \
               # Keys that tokens are verified with; `perigee token` signs with the primary one.\n  \
               tokens: [{{ kid: main, alg: HS256, secret: \"${{env:{}}}\", primary: true }}]\n",
            scalar(&self.project),
            self.secret_variable()
        )
    }

    fn database_documents(&self) -> String {
        let Some(found) = &self.database else {
            let spec = format!(
                "  # A file under the data folder, made at the first start.\n  type: sqlite\n  url: sqlite:{}.db\n",
                self.project
            );
            return self.database_document(DEFAULT_ID, &spec);
        };
        let documents = found.schemas.iter().map(|schema| {
            let mut spec = format!("  type: {}\n  url: \"${{env:{}}}\"\n", found.engine.name(), self.url_variable());
            if let Some(name) = &schema.name {
                let _infallible = writeln!(spec, "  schema: {}", scalar(name));
            }
            self.database_document(&schema.id, &spec)
        });
        documents.collect::<Vec<_>>().join("---\n")
    }

    fn database_document(&self, id: &str, spec: &str) -> String {
        format!("kind: database\nmeta: {{ project: {}, id: {} }}\nspec:\n{spec}", scalar(&self.project), scalar(id))
    }

    fn table_documents(&self) -> String {
        let mut text = "# Who may do what. Nothing is allowed until a rule says so: `allow` is for everyone, \
                        `authenticated` for\n# every valid token, and a `match` looks at the token and the row:\n#\n\
                        #   read: { rule: match, type: number, eval: \"==\", f1: args.find.user_id, f2: args.auth.id }\n"
            .to_owned();
        let mut documents = Vec::new();
        let outward = self.outward_keys();
        for schema in self.database.iter().flat_map(|found| &found.schemas) {
            let name = schema.name.as_deref().unwrap_or(DEFAULT_SCHEMA);
            let index = TableIndex::of(&schema.schema);
            for table in schema.schema.tables() {
                let outward = outward.get(&(name, table.name.as_str())).map_or(&[][..], Vec::as_slice);
                let columns: Vec<&str> = outward.iter().flat_map(|key| &key.columns).map(String::as_str).collect();
                let links = links_comment(&index.suggested(table, &columns));
                documents.push(self.document(&schema.id, table, outward) + &links);
            }
            if schema.schema.tables().is_empty() {
                documents.push(self.rules(&schema.id, "default", Writes::ALL));
            }
        }
        if self.database.is_none() {
            // For every table without a document of its own.
            documents.push(self.rules(DEFAULT_ID, "default", Writes::ALL));
        }
        text.push_str(&documents.join("---\n"));
        text
    }

    /// Foreign keys that lead out of a schema, by the schema and the table that have them.
    fn outward_keys(&self) -> HashMap<(&str, &str), Vec<&OutwardKey>> {
        let mut by_table: HashMap<(&str, &str), Vec<&OutwardKey>> = HashMap::new();
        for key in self.database.iter().flat_map(|found| &found.outward_keys) {
            by_table.entry((&key.schema, &key.table)).or_default().push(key);
        }
        by_table
    }

    fn document(&self, database: &str, table: &Table, outward: &[&OutwardKey]) -> String {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let mut text = format!("# Columns: {}\n", one_line(&columns.join(", ")));
        if !table.relations.is_empty() {
            let relations: Vec<&str> = table.relations.iter().map(|relation| relation.name.as_str()).collect();
            let _infallible = writeln!(text, "# Relations: {}", one_line(&relations.join(", ")));
        }
        for key in outward {
            let columns = key.columns.join(", ");
            let whether = if self.database.as_ref().is_some_and(|found| has_schema(found, &key.foreign_schema)) {
                "a relation".to_owned()
            } else {
                format!("a relation once --schema {} reads it too", key.foreign_schema)
            };
            let line = format!("{columns} refers to {}, in another schema: {whether}", far(key));
            let _infallible = writeln!(text, "# {}", one_line(&line));
        }
        text + &self.rules(database, &table.name, table.writes)
    }

    /// The rules of a table, which deny what can be done with it.
    fn rules(&self, database: &str, table: &str, writes: Writes) -> String {
        let operations = [Operation::Create, Operation::Read, Operation::Update, Operation::Delete];
        let possible = operations.iter().filter(|operation| **operation == Operation::Read || writes.has(**operation));
        let rules: String = possible.map(|operation| format!("    {}: {{ rule: deny }}\n", operation.name())).collect();
        format!(
            "kind: table\n\
             meta: {{ project: {}, database: {}, id: {} }}\n\
             spec:\n  \
               rules:\n{rules}",
            scalar(&self.project),
            scalar(database),
            scalar(table)
        )
    }

    fn variables(&self) -> String {
        let mut text = format!("{}={}\n", self.secret_variable(), self.secret);
        if let Some(found) = &self.database {
            let _infallible = writeln!(text, "{}={}", self.url_variable(), quoted(&found.url));
        }
        text
    }

    fn secret_variable(&self) -> String {
        format!("{}_SECRET", variable(&self.project))
    }

    fn url_variable(&self) -> String {
        format!("{}_DATABASE_URL", variable(&self.project))
    }
}

/// `links` of a table's `spec` as comments, to be taken by leaving out `# `; empty without any.
fn links_comment(links: &[SuggestedLink]) -> String {
    if links.is_empty() {
        return String::new();
    }
    let mut text = "  # links:                      # no foreign key declares these; uncomment to use\n".to_owned();
    for link in links {
        let [name, table] = [&link.name, &link.table].map(|name| scalar(name));
        let [column, foreign] = [&link.column, &link.foreign_column].map(|name| scalar(name));
        let line = format!("{name}: {{ table: {table}, on: {{ {column}: {foreign} }} }}");
        let _infallible = writeln!(text, "  #   {}", one_line(&line));
    }
    text
}

/// Writes what is not in the documents: what was left out of the schemas that were read, and what lies outside them.
fn surroundings(found: &Found, text: &mut String) {
    for object in found.schemas.iter().flat_map(|found| &found.left_out) {
        let _infallible = writeln!(text, "left out: {}: {}", object.name, object.why);
    }
    let unmet: Vec<_> = found.outward_keys.iter().filter(|key| !has_schema(found, &key.foreign_schema)).collect();
    for key in unmet.iter().take(SHOWN_KEYS) {
        let near = format!("{}.{} ({})", key.schema, key.table, key.columns.join(", "));
        let _infallible = writeln!(
            text,
            "no relation: {near} refers to {}, in another schema; --schema {} reads it too",
            far(key),
            key.foreign_schema
        );
    }
    if unmet.len() > SHOWN_KEYS {
        let more = unmet.len() - SHOWN_KEYS;
        let _infallible = writeln!(text, "no relation: {more} more foreign keys lead into other schemas");
    }
    if !found.others.is_empty() {
        let others = counts(&found.others);
        let _infallible = writeln!(text, "not read: of tables in other schemas, {others}; --schema NAME reads them");
    }
}

/// Whether the schema called `name` is one of those found: keys into it make relations.
fn has_schema(found: &Found, name: &str) -> bool {
    found.schemas.iter().any(|schema| schema.name.as_deref() == Some(name))
}

/// `schema.table` that a foreign key leads to.
fn far(key: &OutwardKey) -> String {
    format!("{}.{}", key.foreign_schema, key.foreign_table)
}

/// `id` as the start of a variable's name.
fn variable(id: &str) -> String {
    let name: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// `value` of a variable, as a shell reads it too.
fn quoted(value: &str) -> String {
    let is_plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:/@%+,=".contains(c));
    if is_plain { value.to_owned() } else { format!("'{value}'") }
}

/// `text` as a YAML string: as it is where nothing can mistake it for something else, else quoted as in JSON.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// `text` in a comment: what could end the line is gone.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_yaml_would_read_as_something_else_are_quoted() {
        assert_eq!(scalar("invoice_line"), "invoice_line");
        for (name, quoted) in [("no", r#""no""#), ("1", r#""1""#), ("a: b", r#""a: b""#), ("a\"b", r#""a\"b""#)] {
            assert_eq!(scalar(name), quoted);
        }
    }

    #[test]
    fn secrets_stand_in_the_variables_only() {
        let plan = Plan::new("my-shop".to_owned(), None);

        for file in plan.files() {
            assert_eq!(file.text.contains(&plan.secret), file.is_secret, "{}", file.name);
        }
        assert!(plan.variables().starts_with("MY_SHOP_SECRET="));
    }

    #[test]
    fn a_variable_that_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("postgres://ann@db/shop"), "postgres://ann@db/shop");
        assert_eq!(quoted("sqlite:/my files/a.db"), "'sqlite:/my files/a.db'");
    }
}
