//! GraphQL over server-sent events, on both engines, over HTTP/1.1 and HTTP/2.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    client::Client,
    engine::{Database, Engine},
    event_stream::{EventStream, Sent, Version},
    mesh::{ENGINES, OPEN_LAB, Setup, Shape, TestMesh, ready},
    node_tool,
    process::{self, free_address},
    token,
};

scenarios!(
    an_answer_comes_again_whenever_it_differs,
    queries_and_mutations_are_answered_once,
    a_caller_sees_their_rows_until_a_rule_says_no,
    a_token_that_expires_ends_its_stream,
    what_is_wrong_is_told_in_the_stream,
    who_is_gone_costs_nothing,
    a_client_that_reads_nothing_holds_up_nobody_and_gets_the_last_state,
    a_node_that_stops_says_so,
    graphql_sse_of_npm_is_a_client,
);

const NOTES: &str = "CREATE TABLE note (id BIGINT PRIMARY KEY, owner TEXT, text TEXT, extra JSON);
    CREATE TABLE other (id BIGINT PRIMARY KEY);";
const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// Rules in which `read` decides who sees notes.
fn rules(read: &str) -> String {
    format!(
        "---\nkind: table\nmeta: {{ project: shop, database: lab, id: note }}\nspec: {{ rules: {{ read: {read} }} }}\n"
    )
}

const OWN: &str = r#"{ rule: match, type: string, eval: "==", f1: args.find.owner, f2: args.auth.id }"#;

async fn notes(shape: Shape, engine: Engine, resources: &str) -> anyhow::Result<(TestMesh, Database)> {
    let setup = Setup { lab: Some(NOTES.to_owned()), resources: resources.to_owned(), ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    let database = mesh.lab.clone().context("the lab")?;
    Ok((mesh, database))
}

async fn post(version: Version, mesh: &TestMesh, token: &str, query: &str) -> anyhow::Result<EventStream> {
    let opened = EventStream::post(version, mesh.client.address(), token, query).await?;
    opened.map_err(|status| anyhow::anyhow!("refused with {status}"))
}

async fn an_answer_comes_again_whenever_it_differs(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = notes(shape, engine, OPEN_LAB).await?;
        let query = "subscription { note(sort: [id_asc]) { id text extra } }";
        let mut streams = Vec::new();
        for version in VERSIONS {
            streams.push(post(version, &mesh, "", query).await?);
            let by_get = EventStream::get(version, mesh.client.address(), "", query).await?;
            streams.push(by_get.map_err(|status| anyhow::anyhow!("refused with {status}"))?);
        }
        let all = async |streams: &mut [EventStream], expected: Value| {
            for stream in streams {
                assert_eq!(stream.answer().await?, json!({ "note": expected }), "{engine:?}");
            }
            anyhow::Ok(())
        };
        all(&mut streams, json!([])).await?;
        // Line breaks of a text, and of JSON that is kept as it was written.
        lab.run("INSERT INTO note VALUES (1, NULL, 'a\nb\r', '{\"a\":\r\n\n1}')").await?;
        all(&mut streams, json!([{ "id": 1, "text": "a\nb\r", "extra": { "a": 1 } }])).await?;
        // Neither what changes nothing of the answer nor other tables say anything.
        lab.run("UPDATE note SET owner = 'ann'; INSERT INTO other VALUES (1)").await?;
        let insert = "mutation { insert_note(docs: [{id: 2}]) { affected } }";
        assert_eq!(mesh.client.graphql(insert, json!({})).await?.0, 200);
        let two = json!([{ "id": 1, "text": "a\nb\r", "extra": { "a": 1 } }, { "id": 2, "text": null, "extra": null }]);
        all(&mut streams, two).await?;
        mesh.stop().await;
    }
    Ok(())
}

async fn queries_and_mutations_are_answered_once(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, _) = notes(shape, engine, OPEN_LAB).await?;
        for (query, data) in [
            ("mutation { insert_note(docs: [{id: 1}]) { affected } }", json!({ "insert_note": { "affected": 1 } })),
            ("{ __typename note { id } }", json!({ "__typename": "Query", "note": [{ "id": 1 }] })),
        ] {
            let mut stream = post(Version::Http1, &mesh, "", query).await?;
            assert_eq!(stream.answer().await?, data);
            assert_eq!((stream.next().await?, stream.next().await?), (Sent::Complete, Sent::End));
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn a_caller_sees_their_rows_until_a_rule_says_no(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = notes(shape, engine, &rules(OWN)).await?;
        lab.run("INSERT INTO note (id, owner) VALUES (1, 'ann'), (2, 'bob')").await?;
        let mut stream =
            post(Version::Http1, &mesh, &token::sign(json!({ "id": "ann" })), "subscription { note { id } }").await?;
        assert_eq!(stream.answer().await?, json!({ "note": [{ "id": 1 }] }));
        lab.run("INSERT INTO note (id, owner) VALUES (3, 'bob')").await?;
        lab.run("UPDATE note SET owner = 'ann' WHERE id = 2").await?;
        assert_eq!(stream.answer().await?, json!({ "note": [{ "id": 1 }, { "id": 2 }] }));
        mesh.edit(&rules("{ rule: deny }"))?;
        assert_eq!(stream.error().await?, "DENIED");
        mesh.stop().await;
    }
    Ok(())
}

async fn a_token_that_expires_ends_its_stream(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, _) = notes(shape, engine, &rules(OWN)).await?;
        // On a busy machine a token may expire before there is an answer.
        let mut lifetimes = [1, 2, 4, 8].into_iter();
        let (short, mut stream) = loop {
            let seconds = lifetimes.next().context("there is no answer while a token is good")?;
            let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, seconds);
            if let Ok(mut stream) = post(Version::Http2, &mesh, &short, "subscription { note { id } }").await
                && let Ok(answer) = stream.answer().await
            {
                assert_eq!(answer, json!({ "note": [] }));
                break (short, stream);
            }
        };
        assert_eq!(stream.error().await?, "TOKEN_EXPIRED");
        for token in [&short, "a.b.c"] {
            let again = EventStream::post(Version::Http1, mesh.client.address(), token, "{ note { id } }").await?;
            assert_eq!(again.map(|_| "a stream"), Err(401));
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn what_is_wrong_is_told_in_the_stream(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, Engine::Sqlite, &rules(OWN)).await?;
    let ann = token::sign(json!({ "id": "ann" }));
    for (token, query, code) in [
        ("", "subscription { note { id } }", "UNAUTHENTICATED"),
        (&ann, "subscription { other { id } }", "DENIED"),
        (&ann, "subscription { note { lost } }", "UNKNOWN_COLUMN"),
        (&ann, "subscription { a: note { id } b: note { id } }", "BAD_REQUEST"),
        (&ann, "subscription {", "BAD_REQUEST"),
    ] {
        assert_eq!(post(Version::Http1, &mesh, token, query).await?.error().await?, code, "{query}");
    }
    mesh.stop().await;
    Ok(())
}

/// The values of a gauge on all nodes together.
async fn gauge(mesh: &TestMesh, name: &str) -> anyhow::Result<u64> {
    let text = mesh.metrics().await?;
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.map(|value| Ok(value.parse::<u64>()?)).sum()
}

async fn who_is_gone_costs_nothing(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, _) = notes(shape, engine, OPEN_LAB).await?;
        let mut streams = Vec::new();
        for version in VERSIONS {
            streams.push(post(version, &mesh, "", "subscription { note { id } }").await?);
        }
        for stream in &mut streams {
            stream.answer().await?;
        }
        for name in ["perigee_event_streams", "perigee_live_queries"] {
            assert_eq!(gauge(&mesh, name).await?, 2, "{name}");
        }
        drop(streams);
        // Nothing is sent to them; their connections tell it.
        let gone = async {
            while gauge(&mesh, "perigee_event_streams").await? > 0 || gauge(&mesh, "perigee_live_queries").await? > 0 {}
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.context("it is noticed")??;
        mesh.stop().await;
    }
    Ok(())
}

async fn a_client_that_reads_nothing_holds_up_nobody_and_gets_the_last_state(shape: Shape) -> anyhow::Result<()> {
    // Few enough that all are there before the slow clients lose their connections, on a machine that is busy too.
    const STATES: i64 = 10;
    let (mesh, lab) = notes(shape, Engine::Sqlite, OPEN_LAB).await?;
    lab.run("INSERT INTO note (id, text) VALUES (0, hex(zeroblob(1500000)))").await?;
    let query = "subscription { note { id text } }";
    let mut fast = post(Version::Http1, &mesh, "", query).await?;
    let id = |answer: Value| answer["note"][0]["id"].as_i64().context("an id");
    let mut slow = Vec::new();
    for version in VERSIONS {
        slow.push(post(version, &mesh, "", query).await?);
    }
    assert_eq!(id(fast.answer().await?)?, 0);
    for state in 1..=STATES {
        lab.run(&format!("UPDATE note SET id = {state}")).await?;
        assert_eq!(id(fast.answer().await?)?, state, "the other client gets each state");
    }
    for mut slow in slow {
        let mut received = vec![id(slow.answer().await?)?];
        while received.last() != Some(&STATES) {
            received.push(id(slow.answer().await?)?);
        }
        assert!(received.len() < 9, "some were not read for it: {received:?}");
        assert!(received.is_sorted(), "{received:?}");
    }
    mesh.stop().await;
    Ok(())
}

async fn a_node_that_stops_says_so(shape: Shape) -> anyhow::Result<()> {
    for version in VERSIONS {
        let (mesh, _) = notes(shape, Engine::Sqlite, OPEN_LAB).await?;
        let mut stream = post(version, &mesh, "", "subscription { note { id } }").await?;
        assert_eq!(stream.answer().await?, json!({ "note": [] }));
        let ((), error) = tokio::join!(mesh.stop(), stream.error());
        assert_eq!(error?, "UNAVAILABLE", "{version:?}");
    }
    Ok(())
}

async fn graphql_sse_of_npm_is_a_client(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let resources = format!("{OPEN_LAB}{}", rules("{ rule: authenticated }").replace("id: note", "id: other"));
        let (mesh, _) = notes(shape, engine, &resources).await?;
        let token = token::sign(json!({ "id": "7" }));
        let text = node_tool::script("events.js", &[&mesh.client.graphql_url(), &token]).await?;
        let got: Value = serde_json::from_str(&text)?;
        assert_eq!(
            got,
            json!({
                "inserted": [{ "data": { "insert_note": { "affected": 1 } } }],
                "live": [{ "data": { "note": [{ "id": 1 }] } }, { "data": { "note": [{ "id": 1 }, { "id": 2 }] } }],
                "codes": ["UNAUTHENTICATED", "UNKNOWN_COLUMN", "BAD_REQUEST", null],
                "forged": 401,
            }),
            "{engine:?}"
        );
        mesh.stop().await;
    }
    Ok(())
}

/// The commands of `docs/realtime.md` and the lines that they print first.
fn documented() -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/realtime.md"))?;
    let blocks = docs.split("```console\n").skip(1).map(|rest| {
        let mut lines = rest.split_once("```").context("its end")?.0.lines().map(str::to_owned);
        let command = lines.next().and_then(|line| Some(line.strip_prefix("$ ")?.to_owned())).context("a command")?;
        Ok((command, lines.collect()))
    });
    blocks.collect()
}

/// Whether a line is the one that is shown, which may be cut short by an ellipsis.
fn is_shown(printed: &str, shown: &str) -> bool {
    shown.strip_suffix('…').map_or(printed == shown, |start| printed.starts_with(start) && printed.len() > start.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_commands_print_what_is_shown() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize()?;
    std::os::unix::fs::symlink(example, folder.path().join("examples"))?;
    let address = free_address()?;
    let dev = Command::new(process::binary())
        .args(["dev", "examples/chinook", "--listen", &address.to_string()])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _dev = Killed(dev);
    ready(&Client::new(address, "shop")).await?;
    // Another test runs those of `perigee doctor`.
    let commands: Vec<_> =
        documented()?.into_iter().filter(|(command, _)| !command.starts_with("perigee doctor ")).collect();
    ensure!(commands.len() == 2, "{commands:?}");
    for (command, shown) in commands {
        let is_followed = command.starts_with("curl ") && shown.iter().any(|line| line.starts_with("data: "));
        ensure!(is_followed, "{command} {shown:?}");
        let command = format!("exec {}", command.replace("localhost:4122", &address.to_string()));
        let curl = Command::new("bash").args(["-c", &command]).stdout(Stdio::piped()).spawn()?;
        let mut curl = Killed(curl);
        let lines = BufReader::new(curl.0.stdout.take().context("piped")?).lines();
        let printed: Vec<String> = lines
            .skip_while(|line| line.as_ref().is_ok_and(|line| line == ":" || line.is_empty()))
            .take(shown.len())
            .collect::<Result<_, _>>()?;
        let is_same =
            printed.len() == shown.len() && printed.iter().zip(&shown).all(|(one, other)| is_shown(one, other));
        assert!(is_same, "{printed:?} {shown:?}");
    }
    Ok(())
}

/// A process that is killed when it is no longer needed.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
