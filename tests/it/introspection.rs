//! The published GraphQL schema, as the tools of others understand it.

use std::{fmt::Write, path::Path};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    client::Client,
    engine::Engine,
    mesh::{ENGINES, Setup, Shape, TestMesh, ready},
    node_tool,
    process::{Process, free_address},
    token,
};
use tokio::process::Command;

scenarios!(graphql_js_takes_the_schema_that_each_caller_reaches, what_is_published_is_executed);

/// The music shop, and the lab whose names and types are odd, both with their schema shown.
pub async fn shown(shape: Shape, engine: Engine) -> anyhow::Result<TestMesh> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let lab = match engine {
        Engine::Sqlite => "lab.sqlite.sql",
        Engine::Postgres => "lab.postgres.sql",
        Engine::Mysql => "lab.mysql.sql",
    };
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let lab = Some(format!("{}\n{}", read(lab)?, read("lab.rows.sql")?));
    let spec = json!({ "graphql": { "introspection": true } });
    let projects = vec![("lab".to_owned(), spec)];
    TestMesh::with(shape, engine, &Setup { lab, projects, introspection: true, ..Setup::default() }).await
}

fn names(shown: &Value, member: &str) -> Vec<String> {
    let names = shown[member].as_array().into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

async fn graphql_js_takes_the_schema_that_each_caller_reaches(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let mesh = shown(shape, engine).await?;
        let schema = |url: String, token: String| async move {
            let text = node_tool::script("schema.js", &[&url, &token]).await?;
            serde_json::from_str::<Value>(&text).context("the script prints JSON")
        };
        let url = mesh.client.graphql_url();

        let anybody = schema(url.clone(), String::new()).await?;
        let staff = schema(url, token::staff()).await?;
        let lab = schema(mesh.client.with_project("lab").graphql_url(), String::new()).await?;

        let has = |shown: &Value, member: &str, name: &str| names(shown, member).iter().any(|known| known == name);
        for table in ["artist", "album", "track", "track_by_pk", "track_aggregate"] {
            assert!(has(&anybody, "query", table) && has(&staff, "query", table), "{table} {engine:?}");
        }
        for table in ["invoice", "employee", "playlist"] {
            assert!(!has(&anybody, "query", table) && has(&staff, "query", table), "{table} {engine:?}");
        }
        for r#type in ["Employee", "EmployeeFilter", "InvoiceSort", "PlaylistInsert"] {
            assert!(!has(&anybody, "types", r#type), "{type} {engine:?}");
        }
        assert!(names(&anybody, "mutation").is_empty());
        for table in ["album", "track_by_pk", "track_aggregate"] {
            assert!(has(&anybody, "subscription", table), "{table} {engine:?}");
        }
        assert!(!has(&anybody, "subscription", "invoice"), "{engine:?}");
        assert_eq!(
            names(&staff, "mutation"),
            ["update_album", "insert_playlist", "insert_playlist_track", "update_track"]
        );
        for field in ["t", "keyless_aggregate", "odd__name___drop_by_pk"] {
            assert!(has(&lab, "query", field), "{field} {engine:?}: {lab}");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn what_is_published_is_executed(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let mesh = shown(shape, engine).await?;
        let lab = mesh.client.with_project("lab").graphql_url();
        for (url, token) in [(mesh.client.graphql_url(), token::staff()), (lab, String::new())] {
            // Not at random: a failure would not come again.
            let text = node_tool::script("queries.js", &[&url, "7", "300", &token]).await?;
            let done: Value = serde_json::from_str(&text)?;
            let answered = done["answered"].as_u64().context("a count")?;
            assert!(answered >= 150, "{url} {engine:?} {done}");
        }
        mesh.stop().await;
    }
    Ok(())
}

/// A running `perigee dev` of one project.
pub struct Dev {
    pub process: Process,
    pub client: Client,
    folder: tempfile::TempDir,
}

impl Dev {
    pub async fn start(project: &str, resources: &[(&str, String)], database: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for name in ["resources", "data"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        for (name, text) in resources {
            std::fs::write(folder.path().join("resources").join(name), text)?;
        }
        rusqlite::Connection::open(folder.path().join("data/test.db"))?.execute_batch(database)?;
        let address = free_address()?;
        let process = Process::dev(folder.path(), address)?;
        let client = Client::new(address, project);
        ready(&client).await?;
        Ok(Self { process, client, folder })
    }

    /// The music shop of the example.
    async fn shop() -> anyhow::Result<Self> {
        let example = tests::engine::chinook();
        let read = |name: &str| std::fs::read_to_string(example.join(name));
        let database = "kind: database\nmeta: { project: shop, id: music }\nspec: { url: \"sqlite:test.db\" }\n";
        let resources = [
            ("project.yaml", read("project.yaml")?),
            ("database.yaml", database.to_owned()),
            ("tables.yaml", read("tables.yaml")?),
            ("live.html", read("live.html")?),
        ];
        Self::start("shop", &resources, &read("sqlite.sql")?).await
    }

    /// A token as `perigee token` prints it.
    async fn token(&self, project: &str, claims: &str) -> anyhow::Result<String> {
        let mut command = Command::new(tests::process::binary());
        command.args(["token", project, claims, "--dir"]).arg(self.folder.path().join("resources"));
        command.arg("--data").arg(self.folder.path().join("data"));
        Ok(node_tool::output(command).await?.trim().to_owned())
    }

    /// A thousand tables that everybody may use, which refer to each other as `parent` says.
    pub async fn thousand_tables(parent: fn(usize) -> Option<usize>) -> anyhow::Result<Self> {
        let mut tables = "BEGIN;\n".to_owned();
        for index in 0..1000 {
            let parent = parent(index).map(|parent| format!("REFERENCES t{parent} (id)")).unwrap_or_default();
            writeln!(
                tables,
                "CREATE TABLE t{index} (id INTEGER PRIMARY KEY, parent_id INTEGER {parent}, name TEXT NOT NULL, a INTEGER, \
                 b REAL, c NUMERIC(10, 2), d DATE, e TIMESTAMP, f BOOLEAN, g JSON);"
            )?;
        }
        tables.push_str("COMMIT;");
        let resources = r#"
kind: project
meta: { id: big }
---
kind: database
meta: { project: big, id: big }
spec: { url: "sqlite:test.db" }
---
kind: table
meta: { project: big, database: big, id: default }
spec:
  rules: { read: { rule: allow }, create: { rule: allow }, update: { rule: allow }, delete: { rule: allow } }
"#;
        Self::start("big", &[("all.yaml", resources.to_owned())], &tables).await
    }
}

/// Memory that the schema of a thousand tables may leave behind, in bytes: what the allocator keeps of it for the next one.
const LEFT_BEHIND: u64 = 40_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_of_a_thousand_tables_is_shown_in_bounded_memory() -> anyhow::Result<()> {
    let dev = Dev::thousand_tables(|index| index.checked_sub(1)).await?;
    // What reads take anyway is taken before.
    let (status, answer) = dev.client.graphql("{ t0 { id } t999_aggregate { count } }", json!({})).await?;
    ensure!(status == 200, "{answer}");
    let before = dev.process.memory()?;

    let text = node_tool::script("schema.js", &[&dev.client.graphql_url()]).await?;

    let shown: Value = serde_json::from_str(&text)?;
    assert_eq!((names(&shown, "query").len(), names(&shown, "mutation").len()), (3000, 3000));
    let left = dev.process.memory()?.saturating_sub(before);
    ensure!(left < LEFT_BEHIND, "{left} bytes are left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn graphiql_completes_a_name_and_shows_an_answer() -> anyhow::Result<()> {
    let dev = Dev::shop().await?;
    let url = dev.client.graphql_url();
    let start = url.split_once("/v1/").context("an address")?.0;

    let printed = node_tool::script("graphiql.js", &[start, "shop"]).await?;

    assert_eq!(printed.trim(), "answered");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_page_shows_in_one_window_what_is_changed_in_another() -> anyhow::Result<()> {
    let dev = Dev::shop().await?;
    let url = dev.client.graphql_url();
    let start = url.split_once("/v1/").context("an address")?.0;
    let token = dev.token("shop", r#"{"role": "staff"}"#).await?;

    let printed = node_tool::script("live_page.js", &[start, &token]).await?;

    assert_eq!(printed.trim(), "shown");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_typescript_types_a_query_that_runs() -> anyhow::Result<()> {
    let dev = Dev::shop().await?;
    let (work, packages) = (dev.folder.path().join("codegen"), node_tool::packages());
    std::fs::create_dir(&work)?;
    for file in ["codegen.js", "main.ts"] {
        std::fs::copy(node_tool::scripts().join("codegen").join(file), work.join(file))?;
    }
    std::os::unix::fs::symlink(&packages, work.join("node_modules"))?;
    let url = dev.client.graphql_url();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(packages.join(".bin").join(arguments[0]));
        command.args(&arguments[1..]).current_dir(&work).env("SCHEMA", &url);
        node_tool::output(command)
    };

    run(&["graphql-codegen", "--config", "codegen.js"]).await?;
    run(&[
        "tsc",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "commonjs",
        "--types",
        "node",
        "--skipLibCheck",
        "main.ts",
    ])
    .await?;
    let mut node = Command::new("node");
    node.arg(work.join("main.js")).arg(&url);
    let printed: Value = serde_json::from_str(&node_tool::output(node).await?)?;

    let wanted = json!({ "title": "Let There Be Rock", "artist": "AC/DC", "tracks": 8, "wrong": "function" });
    assert_eq!(printed, wanted);
    Ok(())
}
