//! `perigee init` on databases of others, and the JSON Schema of what it writes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, ensure};
use mesh::resources::Snapshot;
use perigee::KINDS;
use serde_json::{Value, json};
use tests::{
    engine::{self, Database, Engine},
    process,
};

/// As AdventureWorks or MusicBrainz: nothing in `public`, and a foreign key from one schema into another.
const SCHEMAS: &str = "\
CREATE SCHEMA sales; CREATE SCHEMA hr; CREATE SCHEMA bare;
CREATE TABLE hr.employee (id int PRIMARY KEY, name text);
CREATE TABLE hr.office (id int PRIMARY KEY);
CREATE TABLE sales.ticket (id int PRIMARY KEY, employee_id int REFERENCES hr.employee);";

fn perigee(folder: &Path, args: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(process::binary()).args(args).current_dir(folder).output()?)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn init_says_where_the_tables_are() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let database = Database::filled(Engine::Postgres, folder.path(), SCHEMAS).await?;
    let init = |dir: &str, more: &[&str]| {
        perigee(folder.path(), &[&["init", dir, "--project", "p", "--database", &database.url], more].concat())
    };

    let without = init("without", &[])?;
    let wanted = "perigee: public has no tables; hr has 2, sales has 1: `perigee init … --schema hr`, once for each \
                  schema to serve\n";
    assert_eq!((without.status.code(), told(&without).as_str()), (Some(1), wanted));
    assert!(!folder.path().join("without").exists(), "nothing is written");

    let wrong = init("wrong", &["--schema", "sale"])?;
    let wanted = "perigee: the database has no schema sale, did you mean sales?; of tables, hr has 2, sales has 1";
    assert!(told(&wrong).starts_with(wanted), "{}", told(&wrong));

    let one = init("one", &["--schema", "sales"])?;
    let text = String::from_utf8(one.stdout)?;
    assert!(text.contains("database sales with 1 table;"), "{text}");
    assert!(
        text.contains("no relation: sales.ticket (employee_id) refers to hr.employee, in another schema\n"),
        "{text}"
    );
    assert!(text.contains("not read: of tables in other schemas, hr has 2; --schema NAME reads them\n"), "{text}");

    let both = init("both", &["--schema", "sales", "--schema", "hr"])?;
    ensure!(both.status.success(), "{}", told(&both));
    let tables = fs::read_to_string(folder.path().join("both/tables.yaml"))?;
    assert!(tables.contains("# employee_id refers to hr.employee, in another schema: no relation\n"), "{tables}");
    let databases = fs::read_to_string(folder.path().join("both/database.yaml"))?;
    assert!(databases.contains("  schema: sales\n---\n") && databases.ends_with("  schema: hr\n"), "{databases}");
    let check = perigee(folder.path(), &["check", "both"])?;
    assert_eq!(String::from_utf8(check.stdout)?, "both: 1 project, 2 databases, 3 tables, no faults\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn init_of_a_database_without_a_table_says_so() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let database = Database::filled(Engine::Postgres, folder.path(), "SELECT 1").await?;
    let output = perigee(folder.path(), &["init", "p", "--database", &database.url])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains(" without a table yet; every operation denied\n"), "{text}");
    let tables = fs::read_to_string(folder.path().join("p/tables.yaml"))?;
    assert!(tables.contains("id: default }"), "{tables}");
    Ok(())
}

/// What the schema says is wrong with a document.
fn faults(schema: &jsonschema::Validator, document: &Value) -> Vec<String> {
    schema.iter_errors(document).map(|error| error.to_string()).collect()
}

#[test]
fn the_schema_of_documents_knows_what_the_parser_knows() -> anyhow::Result<()> {
    let output = perigee(Path::new("."), &["schema"])?;
    let schema = jsonschema::draft202012::new(&serde_json::from_slice(&output.stdout)?)?;
    let mut yaml = String::new();
    for file in ["project.yaml", "database.yaml", "tables.yaml"] {
        let text = fs::read_to_string(engine::chinook().join(file))?;
        yaml.push_str(&format!("---\n{}\n", text.replace("${env:CHINOOK_URL:-", "${env:CHINOOK_URL_OF_NOBODY:-")));
    }
    let snapshot = Snapshot::parse(&yaml, KINDS).ok().context("the example is valid")?;
    for document in &snapshot.documents {
        let json = json!({ "kind": document.kind, "meta": document.meta, "spec": document.spec });
        assert_eq!(faults(&schema, &json), [""; 0], "{json}");
    }
    assert!(snapshot.documents.len() > 10);

    let table = |rules: Value| {
        let meta = json!({ "project": "shop", "database": "music", "id": "t" });
        json!({ "kind": "table", "meta": meta, "spec": { "rules": rules } })
    };
    for wrong in [
        json!({ "kind": "tabel", "meta": {} }),
        json!({ "kind": "project", "meta": { "id": "a" }, "spec": { "nmae": "x" } }),
        json!({ "kind": "database", "meta": { "project": "a", "id": "b" }, "spec": {} }),
        table(json!({ "raed": { "rule": "allow" } })),
        table(json!({ "read": { "rule": "alow" } })),
        table(json!({ "read": { "rule": "match", "eval": "==" } })),
        table(json!({ "read": { "rule": "and", "clauses": [{ "rule": "allow", "allowAll": true }] } })),
    ] {
        let text = serde_json::to_string(&wrong)?;
        assert!(!faults(&schema, &wrong).is_empty(), "the schema refuses {wrong}");
        assert!(Snapshot::parse(&text, KINDS).is_err(), "and so does the parser {wrong}");
    }
    Ok(())
}
