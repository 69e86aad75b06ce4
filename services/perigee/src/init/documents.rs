//! Documents of a starting folder.

use std::{fmt::Write, path::Path};

use query::{Operation, Table, Writes};

use super::{File, source::Found};

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
        let open = |name, text| File { name, text, is_secret: false };
        vec![
            open("project.yaml", self.project_document()),
            open("database.yaml", self.database_document()),
            open("tables.yaml", self.table_documents()),
            File { name: ".env", text: self.variables(), is_secret: true },
        ]
    }

    /// The closing note: files written and next steps.
    pub fn note(&self, dir: &Path) -> String {
        let dir = dir.display();
        let tables = match &self.database {
            Some(found) => format!(", {} tables, every operation denied", found.schema.tables().len()),
            None => String::new(),
        };
        let left_out = self.database.iter().flat_map(|found| &found.left_out);
        let left_out: String = left_out.map(|object| format!("left out: {}: {}\n", object.name, object.why)).collect();
        format!(
            "wrote {dir}: project {}, database {}{tables}\n{left_out}\n\
             Say who may do what in {dir}/tables.yaml, then:\n\n  perigee dev {dir}\n",
            self.project,
            self.database_id()
        )
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

    fn database_document(&self) -> String {
        let spec = match &self.database {
            Some(found) => {
                format!("  type: {}\n  url: \"${{env:{}}}\"\n", found.engine.name(), self.url_variable())
            }
            None => format!(
                "  # A file under the data folder, made at the first start.\n  type: sqlite\n  url: sqlite:{}.db\n",
                self.project
            ),
        };
        let (project, id) = (scalar(&self.project), scalar(self.database_id()));
        format!("kind: database\nmeta: {{ project: {project}, id: {id} }}\nspec:\n{spec}")
    }

    fn table_documents(&self) -> String {
        let mut text = "# Who may do what. Nothing is allowed until a rule says so: `allow` is for everyone, \
                        `authenticated` for\n# every valid token, and a `match` looks at the token and the row:\n#\n\
                        #   read: { rule: match, type: number, eval: \"==\", f1: args.find.user_id, f2: args.auth.id }\n"
            .to_owned();
        match &self.database {
            Some(found) => {
                let documents: Vec<String> = found.schema.tables().iter().map(|table| self.document(table)).collect();
                text.push_str(&documents.join("---\n"));
            }
            // For every table without a document of its own.
            None => text.push_str(&self.rules("default", Writes::ALL)),
        }
        text
    }

    fn document(&self, table: &Table) -> String {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let mut text = format!("# Columns: {}\n", one_line(&columns.join(", ")));
        if !table.relations.is_empty() {
            let relations: Vec<&str> = table.relations.iter().map(|relation| relation.name.as_str()).collect();
            let _infallible = writeln!(text, "# Relations: {}", one_line(&relations.join(", ")));
        }
        text + &self.rules(&table.name, table.writes)
    }

    /// The rules of a table, which deny what can be done with it.
    fn rules(&self, table: &str, writes: Writes) -> String {
        let operations = [Operation::Create, Operation::Read, Operation::Update, Operation::Delete];
        let possible = operations.iter().filter(|operation| **operation == Operation::Read || writes.has(**operation));
        let rules: String = possible.map(|operation| format!("    {}: {{ rule: deny }}\n", operation.name())).collect();
        format!(
            "kind: table\n\
             meta: {{ project: {}, database: {}, id: {} }}\n\
             spec:\n  \
               rules:\n{rules}",
            scalar(&self.project),
            scalar(self.database_id()),
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

    fn database_id(&self) -> &str {
        self.database.as_ref().map_or("main", |found| &found.id)
    }

    fn secret_variable(&self) -> String {
        format!("{}_SECRET", variable(&self.project))
    }

    fn url_variable(&self) -> String {
        format!("{}_DATABASE_URL", variable(&self.project))
    }
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
