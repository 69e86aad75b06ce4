//! The case suite: the same operations by every protocol, on all engines, in both shapes, with equal answers.

use std::path::Path;

use anyhow::Context;
use tests::{
    case::{self, PEOPLE, Suite},
    engine::Engine,
    mesh::{OPEN_LAB, Setup, Shape, TestMesh},
};

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_sqlite_in_one_process() -> anyhow::Result<()> {
    suite(Shape::OneProcess, Engine::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_sqlite_split() -> anyhow::Result<()> {
    suite(Shape::Split, Engine::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_postgres_in_one_process() -> anyhow::Result<()> {
    suite(Shape::OneProcess, Engine::Postgres).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_postgres_split() -> anyhow::Result<()> {
    suite(Shape::Split, Engine::Postgres).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_mysql_in_one_process() -> anyhow::Result<()> {
    suite(Shape::OneProcess, Engine::Mysql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_mysql_split() -> anyhow::Result<()> {
    suite(Shape::Split, Engine::Mysql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_mysql_in_four_processes() -> anyhow::Result<()> {
    suite(Shape::Processes, Engine::Mysql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_mysql_alone_in_one_process() -> anyhow::Result<()> {
    topics(Shape::OneProcess, Engine::Mysql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_mysql_alone_split() -> anyhow::Result<()> {
    topics(Shape::Split, Engine::Mysql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_sqlite_in_four_processes() -> anyhow::Result<()> {
    suite(Shape::Processes, Engine::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_postgres_in_four_processes() -> anyhow::Result<()> {
    suite(Shape::Processes, Engine::Postgres).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_sqlite_alone_in_one_process() -> anyhow::Result<()> {
    topics(Shape::OneProcess, Engine::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_sqlite_alone_split() -> anyhow::Result<()> {
    topics(Shape::Split, Engine::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_postgres_alone_in_one_process() -> anyhow::Result<()> {
    topics(Shape::OneProcess, Engine::Postgres).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_postgres_alone_split() -> anyhow::Result<()> {
    topics(Shape::Split, Engine::Postgres).await
}

/// What only one engine can hold, by every protocol: each folder is a topic with a database of its own.
async fn topics(shape: Shape, engine: Engine) -> anyhow::Result<()> {
    let (name, least) = match engine {
        Engine::Sqlite => ("sqlite", 140),
        Engine::Postgres => ("postgres", 242),
        Engine::Mysql => ("mysql", 20),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(name);
    let mut topics = std::fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
    topics.sort_by_key(std::fs::DirEntry::file_name);
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in topics {
        let path = entry.path();
        let suites = case::load(&path).with_context(|| path.display().to_string())?;
        count += suites.iter().map(|suite| suite.cases.len()).sum::<usize>();
        wrong.extend(topic(shape, engine, &path, &suites).await.with_context(|| path.display().to_string())?);
    }
    assert!(count >= least, "only {count} cases");
    assert!(wrong.is_empty(), "{} of {count} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// The cases of one folder that are wrong. Without resources, everybody may do everything. A first line
/// `-- role: NAME` of its schema, which makes that role, says who the server's connections are; a first line
/// `-- schemas: NAME` names schemas that are databases of their own.
async fn topic(shape: Shape, engine: Engine, folder: &Path, suites: &[Suite]) -> anyhow::Result<Vec<String>> {
    let schema = std::fs::read_to_string(folder.join("schema.sql"))?;
    let rows = std::fs::read_to_string(folder.join("rows.sql"))?;
    let own = folder.join("resources");
    let resources = if own.exists() { std::fs::read_to_string(own)? } else { OPEN_LAB.to_owned() };
    let role = schema.lines().next().and_then(|line| line.strip_prefix("-- role: ")).map(str::to_owned);
    let schemas = schema.lines().next().and_then(|line| line.strip_prefix("-- schemas: ")).unwrap_or_default();
    let schemas = schemas.split_whitespace().map(str::to_owned).collect();
    let lab = Some(format!("{schema}\n{rows}"));
    let mesh = TestMesh::with(shape, engine, &Setup { resources, lab, role, schemas, ..Setup::default() }).await?;

    let wrong = case::run(&mesh, suites, &rows).await?;

    mesh.stop().await;
    Ok(wrong)
}

async fn suite(shape: Shape, engine: Engine) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let suites = case::load(&folder)?;
    let suites = case::on_engine(suites, engine);
    let count: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    assert!(count >= 250, "only {count} cases");

    let schema = match engine {
        Engine::Sqlite => "lab.sqlite.sql",
        Engine::Postgres => "lab.postgres.sql",
        Engine::Mysql => "lab.mysql.sql",
    };
    let rows = std::fs::read_to_string(folder.join("lab.rows.sql"))?;
    let (own_sql, own_resources) = case::own_tables(&suites);
    let lab =
        format!("{}\n{rows}\nCREATE TABLE people {PEOPLE};\n{own_sql}", std::fs::read_to_string(folder.join(schema))?);
    let resources = format!("{}\n{own_resources}", std::fs::read_to_string(folder.join("lab.resources"))?);
    let setup = Setup { resources, lab: Some(lab), projects: case::own_projects(&suites), ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;

    let wrong = case::run(&mesh, &suites, &rows).await?;

    mesh.stop().await;
    assert!(wrong.is_empty(), "{} of {count} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
