//! Schemas that move while requests go on, and errors of databases as each protocol tells them.

use serde_json::{Value, json};
use tests::{
    client::{Outcome, PROTOCOLS, Protocol},
    engine::Engine,
    mesh::{ENGINES, OPEN_LAB, Setup, Shape, TestMesh},
    operation::Operation,
};

scenarios!(
    all_columns_are_read_right_after_one_is_gone,
    a_read_that_fails_says_which_field,
    a_mutation_that_the_database_denies_says_which_field,
);

async fn lab(shape: Shape, engine: Engine, schema: &str) -> anyhow::Result<TestMesh> {
    let setup = Setup { resources: OPEN_LAB.to_owned(), lab: Some(schema.to_owned()), ..Setup::default() };
    TestMesh::with(shape, engine, &setup).await
}

/// A read that names no columns gets those that there are, at once, by the protocols that know such reads.
async fn all_columns_are_read_right_after_one_is_gone(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let schema = "CREATE TABLE note (id INTEGER PRIMARY KEY, v TEXT, a TEXT, b TEXT);
            CREATE TABLE tag (id INTEGER PRIMARY KEY, note_id INTEGER REFERENCES note (id), a TEXT, b TEXT);
            INSERT INTO note VALUES (1, 'x', 'y', 'z'); INSERT INTO tag VALUES (7, 1, 'y', 'z');";
        let mesh = lab(shape, engine, schema).await?;
        let database = mesh.lab.as_ref().expect("the mesh has a lab");
        let all: Operation = serde_json::from_value(json!({"read": {"table": "note"}}))?;
        let below: Operation = serde_json::from_value(
            json!({"read": {"table": "tag", "find": {"id": 7}, "select": {"id": 1, "note": {}}}}),
        )?;
        let protocols = || PROTOCOLS.into_iter().filter(|protocol| *protocol != Protocol::Graphql);
        let check = async |operation: &Operation, rows: Value| {
            for protocol in protocols() {
                let outcome = mesh.client.run(protocol, "lab", operation).await?;
                assert_eq!(outcome, Outcome::Read(rows.clone()), "{engine:?} {protocol:?}");
            }
            anyhow::Ok(())
        };
        check(&all, json!([{"id": 1, "v": "x", "a": "y", "b": "z"}])).await?;
        database.run("ALTER TABLE note DROP COLUMN a").await?;
        check(&all, json!([{"id": 1, "v": "x", "b": "z"}])).await?;
        check(&below, json!([{"id": 7, "note": {"id": 1, "v": "x", "b": "z"}}])).await?;
        database.run("ALTER TABLE note RENAME COLUMN b TO c").await?;
        check(&below, json!([{"id": 7, "note": {"id": 1, "v": "x", "c": "z"}}])).await?;
        check(&all, json!([{"id": 1, "v": "x", "c": "z"}])).await?;
        mesh.stop().await;
    }
    Ok(())
}

async fn a_read_that_fails_says_which_field(shape: Shape) -> anyhow::Result<()> {
    let failing = [
        (Engine::Sqlite, "CREATE VIEW v AS SELECT abs(-9223372036854775807 - id) AS a FROM t"),
        (Engine::Postgres, "CREATE VIEW v AS SELECT 1 / (id - 1) AS a FROM t"),
        (Engine::Mysql, "CREATE VIEW v AS SELECT 9223372036854775807 + id AS a FROM t"),
    ];
    for (engine, view) in failing {
        let schema = format!("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1); {view};");
        let mesh = lab(shape, engine, &schema).await?;

        let (_, response) =
            mesh.client.graphql("{ a: t { id }\n b: v { a }\n music: genre { name } }", json!({})).await?;

        assert_eq!(response.get("data"), Some(&Value::Null), "{engine:?} {response}");
        let error = &response["errors"][0];
        let place = (&error["path"], &error["locations"]);
        assert_eq!(place, (&json!(["b"]), &json!([{ "line": 2, "column": 2 }])), "{engine:?} {response}");
        mesh.stop().await;
    }
    Ok(())
}

async fn a_mutation_that_the_database_denies_says_which_field(shape: Shape) -> anyhow::Result<()> {
    let schema = "CREATE TABLE t (id integer PRIMARY KEY);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not yours' USING ERRCODE = '42501'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse();";
    let mesh = lab(shape, Engine::Postgres, schema).await?;

    let (_, response) =
        mesh.client.graphql("mutation { b: insert_t(docs: [{id: 1}]) { affected } }", json!({})).await?;

    let error = &response["errors"][0];
    let told = json!([error["extensions"]["code"], error["path"], error["locations"]]);
    assert_eq!(told, json!(["DENIED", ["b"], [{ "line": 1, "column": 12 }]]), "{response}");
    mesh.stop().await;
    Ok(())
}
