//! `perigee init` on databases of others, and the JSON Schema of what it writes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, ensure};
use mesh::resources::Snapshot;
use perigee::KINDS;
use saphyr::LoadableYamlNode;
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
        text.contains("no relation: sales.ticket (employee_id) refers to hr.employee, in another schema; --schema hr reads it too\n"),
        "{text}"
    );
    assert!(text.contains("not read: of tables in other schemas, hr has 2; --schema NAME reads them\n"), "{text}");

    let tables = fs::read_to_string(folder.path().join("one/tables.yaml"))?;
    let wanted = "# employee_id refers to hr.employee, in another schema: a relation once --schema hr reads it too\n";
    assert!(tables.contains(wanted), "{tables}");

    let both = init("both", &["--schema", "sales", "--schema", "hr"])?;
    ensure!(both.status.success(), "{}", told(&both));
    let text = String::from_utf8(both.stdout)?;
    assert!(!text.contains("no relation"), "{text}");
    let tables = fs::read_to_string(folder.path().join("both/tables.yaml"))?;
    assert!(tables.contains("# employee_id refers to hr.employee, in another schema: a relation\n"), "{tables}");
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

/// Columns that are called after tables, and such as only seem to be.
const NAMES: &str = r#"
CREATE TABLE users (id integer PRIMARY KEY, name text UNIQUE);
CREATE TABLE category (code text PRIMARY KEY);
CREATE TABLE team (team_id integer PRIMARY KEY);
CREATE TABLE "yes" (id integer PRIMARY KEY);
CREATE TABLE item (id integer PRIMARY KEY);
CREATE TABLE tag (id integer PRIMARY KEY);
CREATE TABLE log (id integer);
CREATE TABLE note (id integer PRIMARY KEY, user_id integer REFERENCES users);
CREATE TABLE post (id integer PRIMARY KEY, user_id integer, user_name text, "categoryCode" text, team_id integer,
    team text, yes_id integer, item_id integer, item_type text, tag_id text, log_id integer, ghost_id integer);
CREATE VIEW recent AS SELECT id, user_id FROM post;"#;

/// Documents with the links that they offer.
fn taken(documents: &str) -> String {
    documents.replace("\n  # ", "\n  ")
}

/// The links that a table's document offers.
fn offered(documents: &str, table: &str) -> anyhow::Result<Option<String>> {
    let mut all = documents.split("---\n");
    let document = all.find(|text| text.contains(&format!("id: {table} }}"))).context("a document of the table")?;
    if !document.contains("\n  # links:") {
        return Ok(None);
    }
    let taken = saphyr::Yaml::load_from_str(&taken(document))?;
    let links = &taken[0]["spec"]["links"];
    ensure!(taken[0]["spec"]["rules"]["read"]["rule"].as_str() == Some("deny"), "{taken:?}");
    let links = links.as_mapping().context("links are a mapping")?.iter().map(|(name, link)| {
        let on = link["on"]
            .as_mapping()
            .context("on is a mapping")?
            .iter()
            .map(|(column, foreign)| Some(format!("{} = {}", column.as_str()?, foreign.as_str()?)));
        let on = on.collect::<Option<Vec<_>>>().context("columns are strings")?.join(", ");
        Ok(format!("{}: {} where {on}", name.as_str().context("a name")?, link["table"].as_str().context("a table")?))
    });
    Ok(Some(links.collect::<anyhow::Result<Vec<_>>>()?.join("; ")))
}

#[tokio::test(flavor = "multi_thread")]
async fn init_offers_links_where_names_suggest_them() -> anyhow::Result<()> {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let folder = tempfile::tempdir()?;
        let database = Database::filled(engine, folder.path(), NAMES).await?;
        let output = perigee(folder.path(), &["init", "p", "--database", &database.url])?;
        ensure!(output.status.success(), "{}", told(&output));

        let documents = fs::read_to_string(folder.path().join("p/tables.yaml"))?;
        let lines = "  # links:                      # no foreign key declares these; uncomment to use\n  \
                     #   user: { table: users, on: { user_id: id } }\n";
        assert!(documents.contains(lines), "{documents}");
        // `team` is a column.
        let post = "user: users where user_id = id; \
                    category: category where categoryCode = code; team_row: team where team_id = team_id; \
                    yes: yes where yes_id = id";
        assert_eq!(offered(&documents, "post")?.as_deref(), Some(post), "{documents}");
        assert_eq!(offered(&documents, "recent")?.as_deref(), Some("user: users where user_id = id"));
        for none in ["users", "category", "team", "item", "note"] {
            assert_eq!(offered(&documents, none)?, None, "{none}: {documents}");
        }
        for text in [documents.clone(), taken(&documents)] {
            fs::write(folder.path().join("p/tables.yaml"), text)?;
            let check = perigee(folder.path(), &["check", "p"])?;
            ensure!(check.status.success(), "{}", told(&check));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn init_offers_no_link_in_place_of_a_key_into_another_schema() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let sql = format!(
        "{SCHEMAS} CREATE TABLE sales.employee (id int PRIMARY KEY, office_id int);
                       CREATE TABLE sales.office (id int PRIMARY KEY);"
    );
    let database = Database::filled(Engine::Postgres, folder.path(), &sql).await?;
    let output = perigee(folder.path(), &["init", "p", "--database", &database.url, "--schema", "sales"])?;
    ensure!(output.status.success(), "{}", told(&output));
    let documents = fs::read_to_string(folder.path().join("p/tables.yaml"))?;
    assert_eq!(offered(&documents, "ticket")?, None, "{documents}");
    assert_eq!(offered(&documents, "employee")?.as_deref(), Some("office: office where office_id = id"), "{documents}");
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

#[tokio::test(flavor = "multi_thread")]
async fn init_reads_a_database_of_mariadb() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "CREATE TABLE author (id int AUTO_INCREMENT PRIMARY KEY, name varchar(50));
        CREATE TABLE post (id int PRIMARY KEY, author_id int, FOREIGN KEY (author_id) REFERENCES author (id));
        CREATE VIEW recent AS SELECT DISTINCT id FROM post;";
    let database = Database::filled(Engine::Mysql, folder.path(), script).await?;
    let init = |dir: &str, more: &[&str]| {
        perigee(folder.path(), &[&["init", dir, "--project", "p", "--database", &database.url], more].concat())
    };

    let wrong = init("wrong", &["--schema", "sales"])?;
    let wanted = "perigee: a database of MariaDB has no schema sales: leave --schema out\n";
    assert_eq!((wrong.status.code(), told(&wrong).as_str()), (Some(1), wanted));

    let written = init("p", &[])?;
    ensure!(written.status.success(), "{}", told(&written));
    let text = fs::read_to_string(folder.path().join("p/database.yaml"))?;
    assert!(text.contains("type: mysql\n") && !text.contains("mysql://"), "{text}");
    let check = perigee(folder.path(), &["check", "p"])?;
    assert_eq!(String::from_utf8(check.stdout)?, "p: 1 project, 1 database, 3 tables, no faults\n");

    let doctor = perigee(folder.path(), &["doctor", "p", "--data", "data"])?;
    let text = String::from_utf8(doctor.stdout)?;
    assert!(doctor.status.success() && text.contains("2 of 3 tables can be followed"), "{text}");
    assert!(text.contains("changes are read from the binary log"), "{text}");
    assert!(text.contains("not followed: recent: expected a table, found a view"), "{text}");
    Ok(())
}
