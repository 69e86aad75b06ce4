//! Live queries that differ in their values only are asked again together: one statement for all of them where the engine can
//! do that, and each has the answer of its own values and grants.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    socket::{Incoming, Socket},
    token,
};

scenarios!(a_change_for_all_live_queries_of_a_shape_is_few_statements, values_that_fail_fail_nobody_else);

const SCHEMA: &str = "
    CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT, owner TEXT);
    CREATE TABLE post (id INTEGER PRIMARY KEY, topic_id INTEGER REFERENCES topic (id), owner TEXT, score INTEGER);
    INSERT INTO topic VALUES (1, 'first', 'ann'), (2, 'second', 'bob');";

/// Everybody sees their own posts, and all topics.
const RULES: &str = "---
kind: table
meta: { project: shop, database: lab, id: topic }
spec: { rules: { read: { rule: allow } } }
---
kind: table
meta: { project: shop, database: lab, id: post }
spec: { rules: { read: { rule: match, type: string, eval: '==', f1: args.find.owner, f2: args.auth.id } } }
";

/// Live queries of one shape.
const QUERIES: usize = 100;
/// Callers whose they are.
const CALLERS: usize = 4;
/// Changes that concern all of them.
const CHANGES: usize = 6;

/// The number of a metric of the mesh, over all of its labels.
async fn metric(mesh: &TestMesh, name: &str) -> anyhow::Result<u64> {
    let text = mesh.metrics().await?;
    let lines = text.lines().filter(|line| line.starts_with(name));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

async fn a_change_for_all_live_queries_of_a_shape_is_few_statements(shape: Shape) -> anyhow::Result<()> {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let setup = Setup { lab: Some(SCHEMA.to_owned()), resources: RULES.to_owned(), ..Setup::default() };
        let mesh = TestMesh::with(shape, engine, &setup).await?;
        let lab = mesh.lab.clone().context("the lab")?;
        let post = |id: usize| format!("({id}, 1, 'caller{}', {id})", id % CALLERS);
        lab.run(&format!("INSERT INTO post VALUES {}", (1..=QUERIES).map(post).collect::<Vec<_>>().join(", "))).await?;
        let mut sockets = Vec::new();
        for caller in 0..CALLERS {
            let token = token::sign(json!({ "id": format!("caller{caller}") }));
            let mut socket = Socket::open(mesh.client.address(), &token).await?;
            for id in (1..=QUERIES).filter(|id| id % 2 == caller % 2) {
                let query = format!(
                    "subscription {{ post(where: {{id: {{_eq: {id}}}}}, sort: [score_desc], limit: 1) {{ id topic {{ name }} }} }}"
                );
                socket.subscribe(&id.to_string(), &query).await?;
            }
            sockets.push(socket);
        }
        // Half of them are of rows of somebody else.
        let expected = |caller: usize, id: usize, name: &str| match id % CALLERS == caller {
            true => json!({ "post": [{ "id": id, "topic": { "name": name } }] }),
            false => json!({ "post": [] }),
        };
        for (caller, socket) in sockets.iter_mut().enumerate() {
            let all = (1..=QUERIES).filter(|id| id % 2 == caller % 2);
            until(socket, all.map(|id| (id, expected(caller, id, "first"))).collect()).await?;
        }
        let before = (metric(&mesh, "perigee_statements_total").await?, batched(&mesh).await?);
        for change in 0..CHANGES {
            let name = format!("name {change}");
            lab.run(&format!("UPDATE topic SET name = '{name}' WHERE id = 1")).await?;
            for (caller, socket) in sockets.iter_mut().enumerate() {
                let own = (1..=QUERIES).filter(|id| id % CALLERS == caller);
                until(socket, own.map(|id| (id, expected(caller, id, &name))).collect()).await?;
            }
        }
        let statements = metric(&mesh, "perigee_statements_total").await? - before.0;
        let batched = batched(&mesh).await? - before.1;
        ensure!(batched >= QUERIES as u64 * CHANGES as u64, "{engine:?}: {batched} were read together");
        if engine == Engine::Postgres {
            // Alone they were two statements each: posts, and their topics. How many are due at the same time depends on the load.
            let alone = (2 * QUERIES * CALLERS / 2 * CHANGES) as u64;
            ensure!(statements * 3 < alone, "{statements} statements, and {alone} alone");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn batched(mesh: &TestMesh) -> anyhow::Result<u64> {
    metric(mesh, "perigee_batched_live_reads_total").await
}

/// Takes what comes until each of these is answered as expected.
async fn until(socket: &mut Socket, mut expected: BTreeMap<usize, Value>) -> anyhow::Result<()> {
    while let Some((id, lagging)) = expected.iter().next() {
        let told = socket.next().await.with_context(|| format!("{id} is to be told {lagging}"))?;
        let Incoming::Message(message) = told else { anyhow::bail!("the socket is closed") };
        ensure!(message["type"] == "next", "{message}");
        let id: usize = message["id"].as_str().context("an id")?.parse()?;
        if expected.get(&id) == Some(&message["payload"]["data"]) {
            expected.remove(&id);
        }
    }
    Ok(())
}

async fn values_that_fail_fail_nobody_else(shape: Shape) -> anyhow::Result<()> {
    const NUMBERS: &str = "
        CREATE TABLE part (id INTEGER PRIMARY KEY, label TEXT);
        CREATE TABLE note (id INTEGER PRIMARY KEY, part_id INTEGER REFERENCES part (id), body TEXT);
        INSERT INTO part VALUES (1, 'a');
        INSERT INTO note VALUES (1, 1, 'x'), (2, 1, 'y');";
    let resources = "---
kind: table
meta: { project: shop, database: lab, id: default }
spec: { rules: { read: { rule: allow } } }
";
    // An answer over its limit ends its own live query only.
    let setup = Setup {
        lab: Some(NUMBERS.to_owned()),
        resources: resources.to_owned(),
        limits: "answerBytes: 20000",
        ..Setup::default()
    };
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let mesh = TestMesh::with(shape, engine, &setup).await?;
        let lab = mesh.lab.clone().context("the lab")?;
        let mut socket = Socket::open(mesh.client.address(), "").await?;
        for id in 1..=2 {
            let query = format!("subscription {{ note(where: {{id: {{_eq: {id}}}}}) {{ body part {{ label }} }} }}");
            socket.subscribe(&id.to_string(), &query).await?;
        }
        let note = |body: &str, label: &str| json!({ "note": [{ "body": body, "part": { "label": label } }] });
        until(&mut socket, BTreeMap::from([(1, note("x", "a")), (2, note("y", "a"))])).await?;
        let long = "z".repeat(30_000);
        lab.run(&format!("UPDATE note SET body = '{long}' WHERE id = 2; UPDATE part SET label = 'b'")).await?;
        let (mut has_ended, mut is_told) = (false, false);
        while !(has_ended && is_told) {
            let Incoming::Message(message) = socket.next().await? else { anyhow::bail!("the socket is closed") };
            match message["id"].as_str() {
                Some("1") if message["type"] == "next" => {
                    is_told =
                        message["payload"]["data"] == json!({ "note": [{ "body": "x", "part": { "label": "b" } }] });
                }
                Some("2") if message["type"] == "error" => {
                    assert_eq!(message["payload"][0]["extensions"]["code"], "TOO_LARGE", "{message}");
                    has_ended = true;
                }
                _ => ensure!(message["type"] == "next", "{message}"),
            }
        }
        lab.run("UPDATE part SET label = 'c'").await?;
        assert_eq!(socket.answer("1").await?, note("x", "c"));
        mesh.stop().await;
    }
    Ok(())
}
