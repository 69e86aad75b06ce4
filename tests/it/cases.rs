//! The case suite: the same operations by every protocol, on both engines, in both shapes, with equal answers.

use std::path::Path;

use tests::{
    case::{self, PEOPLE},
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
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
async fn cases_on_sqlite_in_four_processes() -> anyhow::Result<()> {
    suite(Shape::Processes, Engine::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_on_postgres_in_four_processes() -> anyhow::Result<()> {
    suite(Shape::Processes, Engine::Postgres).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_sqlite_alone_in_one_process() -> anyhow::Result<()> {
    sqlite_suite(Shape::OneProcess).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_sqlite_alone_split() -> anyhow::Result<()> {
    sqlite_suite(Shape::Split).await
}

/// What only SQLite can hold, by every protocol.
async fn sqlite_suite(shape: Shape) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/sqlite");
    let suites = case::load(&folder)?;
    let count: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    assert!(count >= 40, "only {count} cases");

    let rows = std::fs::read_to_string(folder.join("rows.sql"))?;
    let lab = format!("{}\n{rows}", std::fs::read_to_string(folder.join("schema.sql"))?);
    let resources = std::fs::read_to_string(folder.join("resources"))?;
    let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, lab: Some(lab), ..Setup::default() }).await?;

    let wrong = case::run(&mesh, &suites, &rows).await?;

    mesh.stop().await;
    assert!(wrong.is_empty(), "{} of {count} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

async fn suite(shape: Shape, engine: Engine) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let suites = case::load(&folder)?;
    let count: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    assert!(count >= 250, "only {count} cases");

    let schema = match engine {
        Engine::Sqlite => "lab.sqlite.sql",
        Engine::Postgres => "lab.postgres.sql",
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
