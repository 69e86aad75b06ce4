//! Links of tables: an edit is in force as a whole, and what a database cannot have is told.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tests::{
    client::{Client, Outcome, PROTOCOLS},
    mesh::{ENGINES, Setup, Shape, TestMesh},
    operation::Operation,
};

scenarios!(an_edit_of_links_is_in_force, a_link_to_other_rows_never_shows_those_of_before);

const TABLES: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, v TEXT);
    CREATE TABLE tag (id INTEGER PRIMARY KEY, note INTEGER);
    CREATE TABLE secret (id INTEGER PRIMARY KEY, note INTEGER);
    INSERT INTO note VALUES (1, 'x'), (2, 'y'); INSERT INTO tag VALUES (7, 1), (8, 1);
    INSERT INTO secret VALUES (9, 1);";

/// Documents of the lab, where `note` has links.
fn documents(links: Value) -> String {
    let document = |id: &str, spec: Value| {
        // JSON is YAML.
        let document = json!({"kind": "table", "meta": {"project": "shop", "database": "lab", "id": id}, "spec": spec});
        format!("---\n{document}\n")
    };
    let rules = json!({"read": {"rule": "allow"}});
    document("note", json!({"rules": rules, "links": links})) + &document("tag", json!({ "rules": rules }))
}

async fn lab(shape: Shape, engine: tests::engine::Engine, links: Value) -> anyhow::Result<TestMesh> {
    let resources = documents(links);
    let lab = Some(TABLES.to_owned());
    TestMesh::with(shape, engine, &Setup { resources, lab, introspection: true, ..Setup::default() }).await
}

fn read(relation: &str) -> anyhow::Result<Operation> {
    let select = json!({"id": 1, (relation): {"select": ["id"], "sort": ["id"]}});
    Ok(serde_json::from_value(json!({"read": {"table": "note", "select": select, "sort": ["id"]}}))?)
}

/// Repeats `ask` until it gives what is `wanted`.
pub async fn becomes<T: PartialEq + std::fmt::Debug>(
    wanted: T,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let found = ask().await?;
        if found == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < until, "wanted {wanted:?}, found {found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The fields of type `Note` that the published schema has.
async fn fields(mesh: &TestMesh) -> anyhow::Result<Vec<String>> {
    fields_of(&mesh.client, "Note").await
}

/// The fields of an object type that the published schema has.
pub async fn fields_of(client: &Client, name: &str) -> anyhow::Result<Vec<String>> {
    let (_, shown) =
        client.graphql(&format!("{{ __type(name: \"{name}\") {{ fields {{ name }} }} }}"), json!({})).await?;
    let fields = shown["data"]["__type"]["fields"].as_array().cloned().unwrap_or_default();
    Ok(fields.iter().filter_map(|field| field["name"].as_str().map(str::to_owned)).collect())
}

/// What is left out of the lab, as `/ready` tells it.
pub async fn left_out(mesh: &TestMesh) -> anyhow::Result<Value> {
    let (_, report) = mesh.client.get("/ready").await?;
    Ok(report["parts"]["database shop/lab"]["left_out"].clone())
}

async fn an_edit_of_links_is_in_force(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let tags = json!({"table": "tag", "on": {"id": "note"}});
        let mesh = lab(shape, engine, json!({ "tags": tags })).await?;
        let rows = |name: &str| json!([{"id": 1, (name): [{"id": 7}, {"id": 8}]}, {"id": 2, (name): []}]);
        for protocol in PROTOCOLS {
            let found = mesh.client.run(protocol, "lab", &read("tags")?).await?;
            assert_eq!(found, Outcome::Read(rows("tags")), "{engine:?} {protocol:?}");
        }
        let (_, counted) =
            mesh.client.graphql("{ note(sort: [id_asc]) { tags_aggregate { count } } }", json!({})).await?;
        let counts = json!([{"tags_aggregate": [{"count": 2}]}, {"tags_aggregate": [{"count": 0}]}]);
        assert_eq!(counted["data"]["note"], counts, "{engine:?} {counted}");
        assert_eq!(fields(&mesh).await?, ["id", "v", "tags", "tags_aggregate"], "{engine:?}");

        mesh.edit(&documents(json!({ "labels": tags })))?;

        for protocol in PROTOCOLS {
            let labels = read("labels")?;
            becomes(Outcome::Read(rows("labels")), async || mesh.client.run(protocol, "lab", &labels).await).await?;
            let found = mesh.client.run(protocol, "lab", &read("tags")?).await?;
            assert!(matches!(&found, Outcome::Failed(_)), "{engine:?} {protocol:?} {found:?}");
        }
        let labelled = ["id", "v", "labels", "labels_aggregate"].map(str::to_owned).to_vec();
        becomes(labelled, async || fields(&mesh).await).await?;

        mesh.edit(&documents(json!({"labels": tags, "lost": {"table": "tagg", "on": {"id": "note"}}})))?;
        if shape == Shape::OneProcess {
            let why = json!({"note.links.lost": "table tagg is not in the database; did you mean tag?"});
            becomes(why, async || left_out(&mesh).await).await?;
            mesh.edit(&documents(json!({ "labels": tags })))?;
            becomes(Value::Null, async || left_out(&mesh).await).await?;
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn a_link_to_other_rows_never_shows_those_of_before(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let open = json!({"table": "tag", "on": {"id": "note"}});
        let denied = json!({"table": "secret", "on": {"id": "note"}});
        let mesh = lab(shape, engine, json!({ "more": open })).await?;
        let more = read("more")?;

        mesh.edit(&documents(json!({ "more": denied })))?;

        for protocol in PROTOCOLS {
            becomes("UNAUTHENTICATED".to_owned(), async || match mesh.client.run(protocol, "lab", &more).await? {
                Outcome::Failed(refusal) => Ok(refusal.code),
                Outcome::Read(rows) => {
                    ensure!(!rows.to_string().contains('9'), "{rows}");
                    Ok(String::new())
                }
                other => anyhow::bail!("{other:?}"),
            })
            .await?;
        }
        mesh.stop().await;
    }
    Ok(())
}
