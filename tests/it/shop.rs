//! The music shop: one snapshot for a tree, and rows that belong to somebody.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Context;
use serde_json::{Value, json};
use tests::{
    client::{Outcome, PROTOCOLS},
    engine::Engine,
    mesh::{ENGINES, Setup, Shape, TestMesh},
    operation::{Operation, Read},
};

scenarios!(
    a_tree_takes_one_statement_per_level_by_every_protocol,
    a_tree_shows_one_moment,
    graphql_without_a_token_says_401,
    rows_of_others_are_neither_changed_nor_made,
    a_column_added_while_the_node_runs_can_be_read,
);

fn read(value: Value) -> anyhow::Result<Operation> {
    Ok(Operation::Read(serde_json::from_value::<Read>(value)?))
}

/// SQL statements that the nodes have run so far, as their metrics say.
async fn statements(mesh: &TestMesh) -> anyhow::Result<u64> {
    let text = mesh.metrics().await?;
    let counts = text.lines().filter(|line| line.starts_with("perigee_statements_total{") && line.contains("read"));
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

async fn a_tree_takes_one_statement_per_level_by_every_protocol(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let mesh = TestMesh::shop(shape, engine).await?;
        for limit in [1, 20, 200] {
            let tree = read(json!({
                "table": "artist", "sort": ["artist_id"], "limit": limit,
                "select": { "name": 1, "album": { "select": { "title": 1, "track": { "select": ["name", "unit_price"] } } } },
            }))?;
            let mut answers = Vec::new();
            for protocol in PROTOCOLS {
                let before = statements(&mesh).await?;
                answers.push(mesh.client.run(protocol, "music", &tree).await?);
                let taken = statements(&mesh).await? - before;
                assert_eq!(taken, 3, "{protocol:?} of {limit} artists on {engine:?}");
            }
            let Outcome::Read(rows) = &answers[0] else { panic!("{:?}", answers[0]) };
            assert_eq!(rows.as_array().map(Vec::len), Some(limit));
            assert!(answers.iter().all(|answer| answer == &answers[0]), "protocols differ on {engine:?}");
        }
        mesh.stop().await;
    }
    Ok(())
}

/// A writer renames an artist and all its albums to one common word, again and again, each time in one transaction. A
/// tree that mixed two moments would show two words.
async fn a_tree_shows_one_moment(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let mesh = TestMesh::shop(shape, engine).await?;
        let done = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn({
            let (music, done) = (mesh.music.clone(), done.clone());
            async move {
                let mut round = 0_usize;
                while !done.load(Ordering::Relaxed) {
                    round += 1;
                    music
                        .run(&format!(
                            "BEGIN; UPDATE artist SET name = 'w{round}' WHERE artist_id = 90;
                             UPDATE album SET title = 'w{round}' WHERE artist_id = 90;
                             UPDATE track SET name = 'w{round}' WHERE album_id IN
                                (SELECT album_id FROM album WHERE artist_id = 90); COMMIT;"
                        ))
                        .await?;
                }
                anyhow::Ok(())
            }
        });
        let query = "{ artist_by_pk(artist_id: 90) { name album { title track { name } } } }";
        let mut seen = std::collections::BTreeSet::new();
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while seen.len() < 10 {
            assert!(tokio::time::Instant::now() < until, "the writer does not write while trees are read");
            let (_, response) = mesh.client.graphql(query, json!({})).await?;
            let artist = &response["data"]["artist_by_pk"];
            let name = artist["name"].as_str().context("a name")?;
            if name.starts_with('w') {
                for album in artist["album"].as_array().context("albums")? {
                    assert_eq!(album["title"], name, "{engine:?}");
                    for track in album["track"].as_array().context("tracks")? {
                        assert_eq!(track["name"], name, "{engine:?}");
                    }
                }
            }
            seen.insert(name.to_owned());
        }
        done.store(true, Ordering::Relaxed);
        writer.await??;
        mesh.stop().await;
    }
    Ok(())
}

async fn graphql_without_a_token_says_401(shape: Shape) -> anyhow::Result<()> {
    let mesh = TestMesh::shop(shape, Engine::Sqlite).await?;

    let (status, response) = mesh.client.graphql("{ invoice { total } }", json!({})).await?;

    assert_eq!(status, 401, "{response}");
    assert_eq!(response["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    let (status, response) = mesh.client.post("crud/music/invoice/read", &json!({ "op": "all" })).await?;
    assert_eq!((status, &response["code"]), (401, &json!("UNAUTHENTICATED")));
    mesh.stop().await;
    Ok(())
}

/// Rules on `invoice` for customers who may write their own.
const OWNERS: &str = r#"
kind: table
meta: { project: shop, database: music, id: invoice }
spec:
  rules:
    create: { rule: match, type: number, eval: "==", f1: args.doc.customer_id, f2: args.auth.id }
    read: { rule: match, type: number, eval: "==", f1: args.find.customer_id, f2: args.auth.id }
    update: { rule: match, type: number, eval: "==", f1: args.find.customer_id, f2: args.auth.id, mode: filter }
    delete: { rule: match, type: number, eval: "==", f1: args.find.customer_id, f2: args.auth.id, mode: filter }
"#;

async fn rows_of_others_are_neither_changed_nor_made(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let mesh =
            TestMesh::with(shape, engine, &Setup { replace: vec![("invoice", OWNERS)], ..Setup::default() }).await?;
        let caller = mesh.customer(5);
        let foreign = "SELECT count(*) FROM invoice WHERE customer_id = 6 AND total < 100";
        let before = mesh.music.number(foreign).await?;
        for protocol in PROTOCOLS {
            let run = |operation: Value| {
                let caller = caller.clone();
                async move {
                    let operation: Operation = serde_json::from_value(operation)?;
                    caller.run(protocol, "music", &operation).await
                }
            };
            let returning = json!(["invoice_id"]);
            for operation in [
                json!({ "update": { "table": "invoice", "find": { "customer_id": 6 }, "update": { "$set": { "total": 999 } }, "returning": returning } }),
                json!({ "delete": { "table": "invoice", "find": { "customer_id": 6 }, "returning": returning } }),
            ] {
                let Outcome::Written(written) = run(operation).await? else { panic!("not written") };
                assert_eq!(written[0].affected, Some(0), "{protocol:?} {engine:?} {shape:?}");
            }
            let mut invoice =
                json!({ "invoice_id": 5000, "customer_id": 6, "invoice_date": "2020-01-01T00:00:00Z", "total": 1 });
            let create = |doc: &Value| json!({ "create": { "table": "invoice", "docs": [doc] } });
            let outcome = run(create(&invoice)).await?;
            assert!(
                matches!(&outcome, Outcome::Failed(refusal) if refusal.code == "DENIED"),
                "{protocol:?} {outcome:?}"
            );
            invoice["customer_id"] = json!(5);
            assert!(matches!(run(create(&invoice)).await?, Outcome::Written(_)), "{protocol:?}");
            mesh.music.run("DELETE FROM invoice WHERE invoice_id = 5000").await?;
        }
        assert_eq!(mesh.music.number(foreign).await?, before);
        mesh.stop().await;
    }
    Ok(())
}

async fn a_column_added_while_the_node_runs_can_be_read(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let mesh = TestMesh::shop(shape, engine).await?;
        mesh.client.graphql("{ genre { name } }", json!({})).await?;
        mesh.music.run("ALTER TABLE genre ADD COLUMN mood VARCHAR(20) DEFAULT 'fine'").await?;

        let query = "{ genre(limit: 1) { mood } }";
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
        let response = loop {
            let (_, response) = mesh.client.graphql(query, json!({})).await?;
            if response["data"].is_object() || tokio::time::Instant::now() > until {
                break response;
            }
        };

        assert_eq!(response["data"], json!({ "genre": [{ "mood": "fine" }] }), "{engine:?} {response}");
        mesh.stop().await;
    }
    Ok(())
}
