//! Budgets of requests: answers over their limit, and callers that leave.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use proto::api::v1 as api;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    client::{Client, Outcome, PROTOCOLS, Protocol, reason},
    engine::{Database, Engine},
    mesh::{ENGINES, Setup, Shape, TestMesh, ready, write_resources},
    operation::Operation,
    process::{self, Process, Spread, free_address},
};

/// Each track is written once for every track of its genre, and once more for each of those: 67 GB of JSON.
const BOMB: &str = "{ genre { track { genre { track { genre { track { name } } } } } } }";
const OVER: &str = "the answer is over the limit of 67108864 bytes; ask for less with select, where or limit";

/// How long a bomb and a point read beside it may take at most: short on a machine of its own, where `PROVE` is set.
fn most() -> (Duration, Duration) {
    match std::env::var_os("PROVE") {
        Some(_) => (Duration::from_secs(10), Duration::from_secs(1)),
        None => (Duration::from_secs(30), Duration::from_secs(10)),
    }
}

/// What the bomb selects of a genre, in REST's grammar.
fn bomb() -> Value {
    let tracks = json!({ "track": { "select": ["name"] } });
    (0..2).fold(tracks, |below, _| json!({ "track": { "select": { "genre": { "select": below } } } }))
}

/// Code and text of the answer to the bomb.
async fn blow(client: &Client, protocol: Protocol) -> anyhow::Result<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match protocol {
        Protocol::Graphql => {
            let (_, body) = client.graphql(BOMB, json!({})).await?;
            let error = &body["errors"][0];
            Ok((text(&error["extensions"]["code"]), text(&error["message"])))
        }
        Protocol::Rest => {
            let request = json!({ "op": "all", "options": { "select": bomb() } });
            let (_, body) = client.post("crud/music/genre/read", &request).await?;
            Ok((text(&body["code"]), text(&body["error"])))
        }
        Protocol::Grpc | Protocol::GrpcWeb => {
            let request = api::ReadRequest {
                project: "shop".to_owned(),
                database: "music".to_owned(),
                table: "genre".to_owned(),
                select: tests::operation::select(&bomb()),
                ..Default::default()
            };
            let answer: Result<api::ReadResponse, tonic::Status> = client.unary(protocol, "Read", request).await?;
            let status = answer.err().context("no rows")?;
            Ok((reason(&status)?, status.message().to_owned()))
        }
    }
}

/// Bombs by every protocol at once, and what others see of them.
async fn bombs(client: &Client, nodes: &[&Process]) -> anyhow::Result<()> {
    let bombs = PROTOCOLS.map(|protocol| {
        let client = client.clone();
        tokio::spawn(async move {
            let start = Instant::now();
            let answer = blow(&client, protocol).await?;
            anyhow::Ok((answer, start.elapsed()))
        })
    });
    let (most, most_of_point) = most();
    while !bombs.iter().all(tokio::task::JoinHandle::is_finished) {
        let start = Instant::now();
        let (status, body) = client.graphql("{ album_by_pk(album_id: 1) { title } }", json!({})).await?;
        assert_eq!(status, 200, "{body}");
        assert!(start.elapsed() < most_of_point, "a point read took {:?}", start.elapsed());
    }
    for (protocol, bomb) in PROTOCOLS.iter().zip(bombs) {
        let (answer, time) = bomb.await??;
        assert_eq!(answer, ("TOO_LARGE".to_owned(), OVER.to_owned()), "{protocol:?}");
        assert!(time < most, "{protocol:?} took {time:?}");
    }
    for node in nodes {
        let peak = node.peak_memory()?;
        assert!(peak < 600 << 20, "{} MiB were resident", peak >> 20);
    }
    Ok(())
}

/// The shop in one process, with limits of its node, ready.
async fn near(engine: Engine, limits: &str) -> anyhow::Result<(TempDir, Process, Client)> {
    let folder = tempfile::tempdir()?;
    let music = Database::shop(engine, folder.path()).await?;
    write_resources(folder.path(), &music, None, &Setup::default())?;
    let http = free_address()?;
    let config = process::config(folder.path(), http, free_address()?, "") + limits;
    let node = Process::serve(folder.path(), "near", &[], &config)?;
    let client = Client::new(http, "shop");
    ready(&client).await?;
    Ok((folder, node, client))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_in_one_process_is_refused_and_hurts_nobody() -> anyhow::Result<()> {
    for engine in ENGINES {
        let (_folder, node, client) = near(engine, "").await?;
        bombs(&client, &[&node]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_over_several_processes_is_refused_and_hurts_nobody() -> anyhow::Result<()> {
    for engine in ENGINES {
        let folder = tempfile::tempdir()?;
        let music = Database::shop(engine, folder.path()).await?;
        write_resources(folder.path(), &music, None, &Setup::default())?;
        let spread = Spread::start(folder.path()).await?;
        bombs(&spread.client, &[&spread.gateway, &spread.crud[0], &spread.crud[1]]).await?;
    }
    Ok(())
}

/// Waits until the process is idle: it uses no processor to speak of for a while.
async fn idle(node: &Process, within: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + within;
    loop {
        let before = node.processor_time()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if node.processor_time()? - before <= Duration::from_millis(20) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the process is still busy: {}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_frees_processor_and_memory() -> anyhow::Result<()> {
    for engine in ENGINES {
        // With the largest limit there is, so that it takes long to be reached.
        let (_folder, node, client) = near(engine, "limits: { answer_bytes: 134217728 }\n").await?;
        let before = node.memory()?;
        let callers = [(); 3].map(|()| {
            let client = client.clone();
            tokio::spawn(async move { client.graphql(BOMB, json!({})).await })
        });
        let end = Instant::now() + Duration::from_secs(20);
        while node.memory()? < before + (96 << 20) {
            ensure!(Instant::now() < end, "no answer is written");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        ensure!(callers.iter().all(|caller| !caller.is_finished()), "the answers are still being written");

        callers.iter().for_each(tokio::task::JoinHandle::abort);

        idle(&node, Duration::from_secs(1)).await?;
        let end = Instant::now() + Duration::from_secs(1);
        // The allocator keeps some of what the rows took.
        while node.memory()? > before + (64 << 20) {
            ensure!(Instant::now() < end, "{} MiB are resident", node.memory()? >> 20);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// Documents of a second database.
const NOTES: &str = "kind: table\nmeta: { project: shop, database: lab, id: note }\nspec:\n  rules:\n    \
                     create: { rule: allow }\n    read: { rule: allow }\n    update: { rule: allow }\n";

/// A read of that many artists.
fn artists(limit: u32) -> anyhow::Result<Operation> {
    Ok(serde_json::from_value(json!({ "read": { "table": "artist", "select": ["name"], "limit": limit } }))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_project_holds_by_every_protocol() -> anyhow::Result<()> {
    for (shape, engine) in [Shape::OneProcess, Shape::Split].into_iter().zip(ENGINES) {
        let setup = Setup { limits: "answerBytes: 1000", ..Setup::default() };
        let mesh = TestMesh::with(shape, engine, &setup).await?;
        for protocol in PROTOCOLS {
            let few = mesh.client.run(protocol, "music", &artists(5)?).await?;
            assert!(matches!(few, Outcome::Read(_)), "{protocol:?} {few:?}");
            let many = mesh.client.run(protocol, "music", &artists(200)?).await?;
            assert!(
                matches!(&many, Outcome::Failed(refusal) if refusal.code == "TOO_LARGE"),
                "{protocol:?} {shape:?} {many:?}"
            );
        }
        mesh.stop().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_several_databases_share_the_limit() -> anyhow::Result<()> {
    let lab = "CREATE TABLE note (id BIGINT PRIMARY KEY, body TEXT); INSERT INTO note VALUES (1, 'short');";
    for shape in [Shape::OneProcess, Shape::Split] {
        let setup = Setup {
            resources: NOTES.to_owned(),
            lab: Some(lab.to_owned()),
            limits: "answerBytes: 600",
            ..Setup::default()
        };
        let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
        let read = |document: String| {
            let client = mesh.client.clone();
            async move {
                let (_, body) = client.graphql(&document, json!({})).await?;
                anyhow::Ok(body["errors"][0]["extensions"]["code"].clone())
            }
        };
        let (artists, notes) = ("a: artist(limit: 14) @music { name }", "n: note @lab { id body }");
        assert_eq!(read(format!("{{ {artists} }}")).await?, Value::Null);
        assert_eq!(read(format!("{{ {artists} {notes} }}")).await?, Value::Null);
        mesh.lab.as_ref().context("lab")?.run(&format!("UPDATE note SET body = '{}'", "x".repeat(500))).await?;
        assert_eq!(read(format!("{{ {notes} }}")).await?, Value::Null);
        assert_eq!(read(format!("{{ {artists} {notes} }}")).await?, json!("TOO_LARGE"));

        // Of writes, the first database's last; the second's have too large an answer, and are not done.
        let document = format!(
            "mutation {{ \
             a: update_track(where: {{ track_id: {{ _lte: 3 }} }}, set: {{ unit_price: 2 }}) @music {{ returning {{ name composer }} }} \
             b: update_note(where: {{ id: {{ _eq: 1 }} }}, set: {{ body: \"{}\" }}) @lab {{ returning {{ body }} }} }}",
            "y".repeat(450),
        );
        let (_, body) = mesh.staff().graphql(&document, json!({})).await?;
        let error = &body["errors"][0];
        assert_eq!((&error["extensions"]["code"], &error["path"]), (&json!("TOO_LARGE"), &json!(["b"])), "{body}");
        assert!(error["message"].to_string().contains("limit of 600 bytes"), "{body}");
        assert_eq!(body["data"]["a"]["returning"].as_array().map(Vec::len), Some(3), "{body}");
        let changed = "SELECT count(*) FROM note WHERE body LIKE '%y%'";
        assert_eq!(mesh.lab.as_ref().context("lab")?.number(changed).await?, 0);
        mesh.stop().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_the_limit_passes_in_both_shapes() -> anyhow::Result<()> {
    // 63 rows of a megabyte and some: 66,066,000 bytes of text below a limit of 67,108,864.
    let lab = "CREATE TABLE note (id BIGINT PRIMARY KEY, body TEXT); \
               WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 63) \
               INSERT INTO note SELECT i, replace(hex(zeroblob(524333)), '0', 'x') FROM n;";
    let setup = Setup { resources: NOTES.to_owned(), lab: Some(lab.to_owned()), ..Setup::default() };
    for shape in [Shape::OneProcess, Shape::Split] {
        let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
        let notes = json!({ "op": "all", "options": { "select": ["body"] } });
        let (status, body) = mesh.client.post("crud/lab/note/read", &notes).await?;
        assert_eq!((status, body["result"].as_array().map(Vec::len)), (200, Some(63)), "{shape:?}");
        mesh.lab.as_ref().context("lab")?.run("INSERT INTO note SELECT 64, body FROM note WHERE id = 1").await?;
        let (status, body) = mesh.client.post("crud/lab/note/read", &notes).await?;
        assert_eq!((status, body["error"].as_str()), (413, Some(OVER)), "{shape:?}");
        mesh.stop().await;
    }
    Ok(())
}
