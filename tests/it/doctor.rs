//! `perigee doctor`: what it says of databases while a server runs and after one was killed, and what it removes.

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    client::Client,
    engine::{Database, Engine},
    mesh::{OPEN_LAB, Setup, ready, set_up},
    process::{self, Process, free_address},
    socket::Socket,
};

const NOTES: &str = "
    CREATE TABLE note (id INTEGER PRIMARY KEY);
    CREATE TABLE tag (id INTEGER PRIMARY KEY);
    CREATE VIEW shown AS SELECT id FROM note;";

/// All objects of a database.
fn objects(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "SELECT count(*) FROM sqlite_schema",
        Engine::Mysql => {
            "SELECT (SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE())
                + (SELECT count(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE())"
        }
        Engine::Postgres => {
            "SELECT (SELECT count(*) FROM pg_namespace) + (SELECT count(*) FROM pg_class) + (SELECT count(*) FROM pg_proc)
                + (SELECT count(*) FROM pg_trigger) + (SELECT count(*) FROM pg_description)"
        }
    }
}

struct Fixture {
    folder: TempDir,
    lab: Database,
}

impl Fixture {
    /// Resources of one database that everybody may use.
    async fn new(engine: Engine) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let setup = Setup { lab: Some(NOTES.to_owned()), resources: OPEN_LAB.to_owned(), ..Setup::default() };
        let (_, lab) = set_up(engine, folder.path(), &setup).await?;
        Ok(Self { folder, lab: lab.context("a lab")? })
    }

    /// A server, and a live query that it answers.
    async fn follow(&self) -> anyhow::Result<(Process, Socket)> {
        let http = free_address()?;
        let config = process::config(self.folder.path(), http, free_address()?, "");
        let node = Process::serve(self.folder.path(), "node", &[], &config)?;
        ready(&Client::new(http, "shop")).await?;
        let mut socket = Socket::open(http, "").await?;
        socket.subscribe("1", "subscription { note { id } }").await?;
        assert_eq!(socket.answer("1").await?, json!({ "note": [] }));
        Ok((node, socket))
    }

    /// A server with a live query that was killed.
    async fn killed(&self) -> anyhow::Result<()> {
        let (mut node, _socket) = self.follow().await?;
        node.kill()
    }

    fn doctor(&self, args: &[&str]) -> anyhow::Result<Output> {
        doctor(self.folder.path(), args)
    }

    /// What it says of the lab, as JSON.
    fn told(&self, args: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
        let output = self.doctor(&[args, &["--json"]].concat())?;
        let all: Value = serde_json::from_slice(&output.stdout)?;
        let databases = all["databases"].as_array().context("a list")?;
        let lab = databases.iter().find(|database| database["database"] == "lab").context("the lab")?;
        ensure!(lab["reached"] == true && lab["project"] == "shop", "{lab}");
        Ok((output.status.code(), lab.clone()))
    }
}

fn doctor(folder: &Path, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(process::binary());
    Ok(command.args(["doctor", "resources", "--data", "data"]).args(args).current_dir(folder).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_and_removes_what_a_killed_server_left() -> anyhow::Result<()> {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::new(engine).await?;
        let before = fixture.lab.number(objects(engine)).await?;
        let (code, sound) = fixture.told(&[])?;
        let source = if engine == Engine::Postgres { "slot" } else { "triggers" };
        assert_eq!((code, &sound["source"]), (Some(0), &json!(source)), "{sound}");
        assert_eq!((&sound["followed"], &sound["objects"]), (&json!(["note", "tag"]), &json!([])), "{sound}");
        let view = json!({ "severity": "not followed", "text": "shown: expected a table, found a view", "sql": null });
        assert_eq!(sound["findings"], json!([view]));
        fixture.killed().await?;
        let left = fixture.told(&[])?.1;
        assert!(left["objects"].as_array().is_some_and(|objects| objects.len() > 3), "{left}");

        if engine == Engine::Postgres {
            assert_eq!(fixture.told(&["--remove"])?.1["partial"], true);
            let refused = fixture.doctor(&["--remove"])?;
            assert_eq!(refused.status.code(), Some(1));
            assert_eq!(text(&refused.stderr), "perigee: shop/lab keeps objects of live queries\n");
            assert!(text(&refused.stdout).contains("nothing is removed: a server follows tables of schema public now"));
        }
        let force: &[&str] = if engine == Engine::Postgres { &["--remove", "--force"] } else { &["--remove"] };
        let (code, removal) = fixture.told(force)?;

        assert_eq!((code, &removal["removed"]), (Some(0), &left["objects"]), "{removal}");
        assert_eq!((&removal["left"], &removal["warnings"]), (&json!([]), &json!([])), "{removal}");
        assert_eq!(removal["partial"], false);
        assert_eq!(fixture.lab.number(objects(engine)).await?, before);
        let (code, again) = fixture.told(&["--remove"])?;
        assert_eq!((code, &again["removed"]), (Some(0), &json!([])));
        let (_node, mut socket) = fixture.follow().await?;
        fixture.lab.run("INSERT INTO note VALUES (1)").await?;
        assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1 }] }));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_in_a_database_that_has_a_binary_log() -> anyhow::Result<()> {
    let fixture = Fixture::new(Engine::Mysql).await?;
    let before = fixture.lab.number(objects(Engine::Mysql)).await?;
    let (code, sound) = fixture.told(&[])?;
    assert_eq!((code, &sound["source"]), (Some(0), &json!("binlog")), "{sound}");
    assert_eq!((&sound["followed"], &sound["objects"]), (&json!(["note", "tag"]), &json!([])), "{sound}");
    let view = json!({ "severity": "not followed", "text": "shown: expected a table, found a view", "sql": null });
    assert_eq!(sound["findings"], json!([view]));
    let (mut node, mut socket) = fixture.follow().await?;
    assert_eq!(fixture.lab.number(objects(Engine::Mysql)).await?, before);
    fixture.lab.run("INSERT INTO note VALUES (1)").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1 }] }));
    assert_eq!(node.terminate().await?.code(), Some(0), "{}", node.log());
    assert_eq!(fixture.told(&["--remove"])?.1["removed"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_is_seen_and_goes_on() -> anyhow::Result<()> {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::new(engine).await?;
        let (mut node, mut socket) = fixture.follow().await?;
        let args: &[&str] = if engine == Engine::Postgres { &["--remove", "--force"] } else { &["--remove"] };
        if engine == Engine::Postgres {
            assert_eq!(fixture.told(&["--remove"])?.0, Some(1));
        }

        let (code, removal) = fixture.told(args)?;

        assert_eq!(code, Some(0), "{removal}");
        if engine == Engine::Sqlite {
            let warning = removal["warnings"][0].as_str().context("a warning")?;
            assert!(warning.starts_with("another program has the file open"), "{warning}");
        }
        fixture.lab.run("INSERT INTO note VALUES (7)").await?;
        assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 7 }] }), "the server made them again");
        assert_eq!(node.terminate().await?.code(), Some(0), "{}", node.log());
        assert_eq!(fixture.told(&[])?.1["objects"], json!([]));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_lacks_is_told_with_sql_that_helps() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "
        DO $$ BEGIN CREATE ROLE doctor_app LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
        DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO doctor_app', current_database()); END $$;
        CREATE TABLE note (id integer PRIMARY KEY); GRANT SELECT ON note TO doctor_app;
        CREATE TABLE tag (id integer PRIMARY KEY); ALTER TABLE tag OWNER TO doctor_app;
        CREATE TABLE person (id integer PRIMARY KEY); ALTER TABLE person OWNER TO doctor_app;";
    let setup = Setup { lab: Some(script.to_owned()), role: Some("doctor_app".to_owned()), ..Setup::default() };
    let (_, lab) = set_up(Engine::Postgres, folder.path(), &setup).await?;
    let lab = lab.context("a lab")?;

    let output = doctor(folder.path(), &[])?;

    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(text(&output.stderr), "perigee: shop/lab lacks something for live queries\n");
    // As the documentation shows it.
    let of_lab = &told[told.find("shop/lab").context("the lab")?..];
    let of_lab = of_lab.split("shop/music").next().unwrap_or_default();
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/realtime.md"))?;
    let shown = of_lab.replace("shop/lab", "crm/main").replace("doctor_app", "app");
    assert!(document.contains(&format!("$ perigee doctor crm\n{shown}```\n")), "{shown}");

    let sql: Vec<&str> = of_lab.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    lab.run(&sql.join("\n")).await?;
    let output = doctor(folder.path(), &[])?;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("3 of 3 tables can be followed"), "{}", text(&output.stdout));
    Ok(())
}

#[test]
fn a_database_that_cannot_be_reached_is_told() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let resources = folder.path().join("resources");
    std::fs::create_dir(&resources)?;
    let project = "kind: project\nmeta: { id: shop }\n";
    std::fs::write(resources.join("project.yaml"), project)?;
    let output = doctor(folder.path(), &[])?;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "resources has no database\n".to_owned()));

    let address = free_address()?;
    let databases = format!(
        "{project}---\nkind: database\nmeta: {{ project: shop, id: file }}\nspec: {{ url: \"sqlite:none.db\" }}\n\
         ---\nkind: database\nmeta: {{ project: shop, id: server }}\nspec: {{ url: \"postgres://ann:secret@{address}/x\" }}\n"
    );
    std::fs::write(resources.join("project.yaml"), databases)?;
    for args in [&[][..], &["--remove"]] {
        let output = doctor(folder.path(), args)?;
        let told = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let failed = "perigee: shop/file cannot be reached, shop/server cannot be reached\n";
        assert_eq!(text(&output.stderr), failed);
        assert!(told.contains("there is no file data/none.db; a server makes it at its start"), "{told}");
        assert!(told.contains("shop/server  postgres\n  not reached: ") && !told.contains("secret"), "{told}");
    }
    assert!(!folder.path().join("data").exists(), "nothing is made");
    let wrong = doctor(folder.path(), &["--force"])?;
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
    Ok(())
}

/// The `sql` blocks of a section of the documentation.
fn blocks<'a>(document: &'a str, section: &str) -> anyhow::Result<Vec<&'a str>> {
    let rest = document.split_once(&format!("\n### {section}\n")).context("a section")?.1;
    let section = rest.split("\n### ").next().context("its text")?;
    let blocks = section.split("```sql\n").skip(1).map(|block| block.split("```").next().context("a block ends"));
    blocks.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sql_of_the_documentation_removes_as_much() -> anyhow::Result<()> {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/realtime.md"))?;
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::new(engine).await?;
        let before = fixture.lab.number(objects(engine)).await?;
        fixture.killed().await?;
        match engine {
            Engine::Sqlite => {
                let blocks = blocks(&document, "SQLite")?;
                let (query, drop) = blocks.last().context("a block")?.split_once('\n').context("two statements")?;
                let file = fixture.lab.url.strip_prefix("sqlite:").context("a file")?;
                let connection = rusqlite::Connection::open(file)?;
                let mut triggers = connection.prepare(query.trim_end_matches(';'))?;
                let triggers = triggers.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
                ensure!(triggers.len() == 3, "{triggers:?}");
                connection.execute_batch(&format!("{} {drop}", triggers.concat()))?;
            }
            Engine::Postgres => fixture.lab.run(blocks(&document, "PostgreSQL")?.last().context("a block")?).await?,
            Engine::Mysql => unreachable!("nothing is made in it"),
        }
        assert_eq!(fixture.lab.number(objects(engine)).await?, before);
    }
    Ok(())
}
