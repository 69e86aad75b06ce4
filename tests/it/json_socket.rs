//! Live queries over the predecessor's JSON socket, on both engines.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tests::{
    engine::{Database, Engine},
    json_socket::{JsonSocket, Rows},
    mesh::{ENGINES, OPEN_LAB, Setup, Shape, TestMesh},
    node_tool,
    socket::{Incoming, Socket},
    token,
};
use tokio_tungstenite::tungstenite::Message;

scenarios!(
    the_golden_exchange_is_answered,
    each_change_is_told_to_whom_it_concerns,
    conditions_are_those_of_reads,
    rows_are_told_apart_by_any_key,
    a_live_query_ends_where_its_client_says,
    what_is_wrong_is_told,
    malformed_messages_end_the_connection_at_most,
    who_may_not_read_is_told_so,
    who_may_no_longer_read_is_closed,
    a_live_query_that_ends_leaves_the_others,
    what_is_known_of_rows_has_a_limit_that_is_told_once,
    limits_hold,
    what_cannot_be_told_one_by_one_is_told_as_differences,
    a_client_that_reads_nothing_converges_and_holds_up_nobody,
    a_node_that_stops_says_so,
    clients_of_npm_are_served,
    the_documented_messages_are_answered,
);

const TODOS: &str = "CREATE TABLE todos (id VARCHAR(20) NOT NULL PRIMARY KEY, owner TEXT, n BIGINT);
    CREATE TABLE number (id BIGINT NOT NULL PRIMARY KEY, text TEXT);
    CREATE TABLE pair (a BIGINT NOT NULL, b VARCHAR(20) NOT NULL, n BIGINT, PRIMARY KEY (a, b));
    CREATE TABLE plain (text TEXT);
    CREATE TABLE secret (id BIGINT NOT NULL PRIMARY KEY);
    CREATE VIEW shown AS SELECT id FROM number;";

const OWN: &str = r#"{ rule: match, type: string, eval: "==", f1: args.find.owner, f2: args.auth.id }"#;

fn rules(read: &str) -> String {
    format!(
        "---\nkind: table\nmeta: {{ project: shop, database: lab, id: todos }}\nspec: {{ rules: {{ read: {read} }} }}\n"
    )
}

async fn lab(
    shape: Shape,
    engine: Engine,
    resources: &str,
    node_limits: &'static str,
) -> anyhow::Result<(TestMesh, Database)> {
    let setup = Setup { lab: Some(TODOS.to_owned()), resources: resources.to_owned(), node_limits, ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    let database = mesh.lab.clone().context("the lab")?;
    Ok((mesh, database))
}

/// A change as it is told, its time aside: that is after 2020.
fn without_time(mut feed: Value) -> Value {
    let time = feed.as_object_mut().and_then(|feed| feed.shift_remove("time"));
    assert!(time.as_ref().and_then(Value::as_i64).is_some_and(|time| time > 1_577_836_800_000), "{feed} {time:?}");
    feed
}

/// A change of `todos` as it is told.
fn todo(query: &str, kind: &str, id: &str, payload: Value) -> Value {
    json!({ "id": query, "docId": id, "find": { "id": id }, "type": kind, "payload": payload, "group": "todos",
        "dbType": "lab" })
}

fn reply(id: &str, ack: bool, error: &str) -> Value {
    json!({ "group": "todos", "id": id, "ack": ack, "error": error, "docs": [] })
}

async fn the_golden_exchange_is_answered(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB, "").await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1)").await?;
        let mut socket = JsonSocket::open(mesh.client.address()).await?;
        // The database is spelled as the client does.
        let data = json!({ "id": "q1", "group": "todos", "dbType": "sql-lab", "where": { "owner": "u1" },
            "options": { "skipInitial": false }, "token": "" });
        let begun = socket.ask("realtime-subscribe", data).await?;
        let first = json!({ "id": "q1", "docId": "t1", "find": { "id": "t1" }, "type": "initial",
            "payload": { "id": "t1", "owner": "u1", "n": 1 }, "time": 1, "group": "todos", "dbType": "sql-lab" });
        assert_eq!(begun, json!({ "group": "todos", "id": "q1", "ack": true, "error": "", "docs": [first] }));
        let create = json!({ "op": "one", "doc": { "id": "t2", "owner": "u1", "n": 2 } });
        let (status, _) = mesh.client.post("crud/lab/todos/create", &create).await?;
        assert_eq!(status, 200);
        let mut inserted = todo("q1", "insert", "t2", json!({ "id": "t2", "owner": "u1", "n": 2 }));
        inserted["dbType"] = json!("sql-lab");
        assert_eq!(without_time(socket.feed().await?), inserted);
        assert_eq!(
            socket.subscribe("q2", "todos", json!({ "where": { "owner": "zz" } })).await?,
            reply("q2", true, "")
        );
        let skip = json!({ "options": { "skipInitial": true }, "where": null });
        assert_eq!(socket.subscribe("q3", "todos", skip).await?, reply("q3", true, ""));
        let incomplete = socket.ask("realtime-subscribe", json!({ "id": "q4", "group": "todos" })).await?;
        assert_eq!(incomplete, reply("q4", false, "invalid request parameters provided"));
        let ended = socket.ask("realtime-unsubscribe", json!({ "group": "todos", "id": "q1" })).await?;
        assert_eq!(ended, reply("q1", true, ""));
        let unknown = socket.ask("realtime-unsubscribe", json!({ "group": "todos", "id": "q9" })).await?;
        assert_eq!(unknown, reply("q9", true, ""));
        assert_eq!(socket.ask("bogus", json!({})).await?, json!({ "error": "Invalid message type" }));
        lab.run("UPDATE todos SET n = 3 WHERE id = 't1'").await?;
        let told = without_time(socket.feed().await?);
        assert_eq!(told, todo("q3", "update", "t1", json!({ "id": "t1", "owner": "u1", "n": 3 })), "q1 has ended");
        socket.send_raw(Message::Text("abc".into())).await?;
        let told = json!({ "type": "unknown", "data": { "error": "invalid request sent" }, "id": "0" });
        assert_eq!(socket.next().await?, Incoming::Message(told));
        assert_eq!(socket.next().await?, Incoming::Closed(1007));
        mesh.stop().await;
    }
    Ok(())
}

async fn each_change_is_told_to_whom_it_concerns(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB, "").await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1), ('t3', 'u2', 3)").await?;
        let mut socket = JsonSocket::open(mesh.client.address()).await?;
        let find = json!({ "where": { "owner": "u1" } });
        assert_eq!(socket.rows("q1", "todos", find.clone()).await?.payloads().len(), 1);
        let row = |id: &str, owner: &str, n: i64| json!({ "id": id, "owner": owner, "n": n });
        for (change, expected) in [
            ("INSERT INTO todos VALUES ('t4', 'u2', 0)", vec![]),
            ("INSERT INTO todos VALUES ('t2', 'u1', 2)", vec![("insert", "t2", row("t2", "u1", 2))]),
            ("UPDATE todos SET n = 5 WHERE id = 't1'", vec![("update", "t1", row("t1", "u1", 5))]),
            ("UPDATE todos SET owner = 'u1' WHERE id = 't3'", vec![("update", "t3", row("t3", "u1", 3))]),
            ("UPDATE todos SET owner = 'u9' WHERE id = 't1'", vec![("delete", "t1", Value::Null)]),
            ("DELETE FROM todos WHERE id = 't4'", vec![]),
            ("UPDATE todos SET n = 7 WHERE id = 'zz'", vec![]),
            (
                "UPDATE todos SET n = 7 WHERE owner = 'u1'",
                vec![("update", "t2", row("t2", "u1", 7)), ("update", "t3", row("t3", "u1", 7))],
            ),
            (
                "UPDATE todos SET id = 't8' WHERE id = 't2'",
                vec![("delete", "t2", Value::Null), ("insert", "t8", row("t8", "u1", 7))],
            ),
            ("DELETE FROM todos WHERE id = 't8'", vec![("delete", "t8", Value::Null)]),
        ] {
            lab.run(change).await?;
            let mut told = Vec::new();
            for _ in &expected {
                told.push(without_time(socket.feed().await?));
            }
            told.sort_by_key(|feed| (feed["type"].to_string(), feed["docId"].to_string()));
            let expected: Vec<_> =
                expected.into_iter().map(|(kind, id, payload)| todo("q1", kind, id, payload)).collect();
            assert_eq!(told, expected, "{engine:?} {change}");
        }
        // Two live queries of one connection are told each.
        assert_eq!(socket.rows("q2", "todos", json!({ "where": { "n": { "$gte": 7 } } })).await?.payloads().len(), 1);
        lab.run("UPDATE todos SET n = 8 WHERE id = 't3'").await?;
        let mut told = [without_time(socket.feed().await?), without_time(socket.feed().await?)];
        told.sort_by_key(|feed| feed["id"].to_string());
        assert_eq!(told, ["q1", "q2"].map(|id| todo(id, "update", "t3", row("t3", "u1", 8))));
        // The same id is another live query from then on.
        socket.rows("q1", "todos", json!({ "where": { "n": 100 } })).await?;
        lab.run("UPDATE todos SET n = 9 WHERE id = 't3'").await?;
        assert_eq!(without_time(socket.feed().await?), todo("q2", "update", "t3", row("t3", "u1", 9)));
        lab.run("UPDATE todos SET n = 100 WHERE id = 't3'").await?;
        let mut told = [socket.feed().await?, socket.feed().await?].map(|feed| feed["id"].to_string());
        told.sort();
        assert_eq!(told, ["\"q1\"", "\"q2\""]);
        mesh.stop().await;
    }
    Ok(())
}

async fn conditions_are_those_of_reads(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB, "").await?;
        let mut socket = JsonSocket::open(mesh.client.address()).await?;
        socket.rows("all", "todos", json!({})).await?;
        for (index, (find, owner, n, matches)) in [
            (json!({}), "'9'", "1", true),
            (json!({ "n": 1 }), "'9'", "1", true),
            (json!({ "n": 1 }), "'9'", "NULL", false),
            (json!({ "n": { "$ne": 1 } }), "'9'", "1", false),
            (json!({ "n": { "$ne": null } }), "'9'", "2", true),
            (json!({ "n": null }), "'9'", "NULL", true),
            (json!({ "n": { "$gt": 1, "$lt": 5 } }), "'9'", "3", true),
            (json!({ "n": { "$gt": 1, "$lt": 5 } }), "'9'", "5", false),
            (json!({ "owner": { "$gt": "2021-01-01" } }), "'2021-02-01'", "1", true),
            (json!({ "n": { "$in": [1, 2] } }), "'9'", "1", true),
            (json!({ "n": { "$in": [1, 2] }, "owner": "9" }), "'0'", "1", false),
            (json!({ "n": { "$nin": [1, 2] } }), "'9'", "3", true),
            (json!({ "$or": [{ "n": 1 }, { "owner": "2" }] }), "'2'", "0", true),
            (json!({ "owner": "9", "$or": [{ "n": 1 }] }), "'0'", "1", false),
            (json!({ "$or:1": [{ "n": 1 }], "$or:2": [{ "owner": "9" }] }), "'9'", "1", true),
        ]
        .into_iter()
        .enumerate()
        {
            let begun = socket.rows("q", "todos", json!({ "where": find, "options": { "skipInitial": true } })).await?;
            assert_eq!(begun, Rows::default());
            lab.run(&format!("INSERT INTO todos VALUES ('t{index}', {owner}, {n})")).await?;
            let mut told = vec![socket.feed().await?["id"].clone()];
            if matches {
                told.push(socket.feed().await?["id"].clone());
            }
            told.sort_by_key(Value::to_string);
            let expected = if matches { vec!["all", "q"] } else { vec!["all"] };
            assert_eq!(told, expected, "{engine:?} {find} {owner} {n}");
            socket.ask("realtime-unsubscribe", json!({ "id": "q" })).await?;
            // The rows at the beginning are those that the changes are told of.
            let rows = socket.rows("q", "todos", json!({ "where": find })).await?;
            let key = json!({ "id": format!("t{index}") }).to_string();
            assert_eq!(rows.0.contains_key(&key), matches, "{engine:?} {find}");
            socket.ask("realtime-unsubscribe", json!({ "id": "q" })).await?;
        }
        for find in [
            json!({ "n": { "$neq": 1 } }),
            json!({ "owner": { "$regex": "^x" } }),
            json!({ "owner": { "$contains": { "k": 1 } } }),
            json!({ "$or2": [{ "n": 1 }] }),
            json!({ "'n'": 1 }),
            json!({ "owner": { "$like": "x%" } }),
        ] {
            let status = mesh.client.post("crud/lab/todos/read", &json!({ "op": "all", "find": find })).await?.0;
            assert_eq!(status, 400, "{find}");
            assert_eq!(socket.subscribe("q", "todos", json!({ "where": find })).await?["ack"], false, "{find}");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn rows_are_told_apart_by_any_key(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB, "").await?;
        let mut socket = JsonSocket::open(mesh.client.address()).await?;
        socket.rows("n", "number", json!({})).await?;
        socket.rows("p", "pair", json!({})).await?;
        let mut time = 0;
        for (change, doc, find) in [
            ("INSERT INTO number VALUES (7, 'x')", "7", json!({ "id": 7 })),
            ("UPDATE number SET text = 'y' WHERE id = 7", "7", json!({ "id": 7 })),
            (
                "INSERT INTO number VALUES (9007199254740993, NULL)",
                "9007199254740993",
                json!({ "id": 9_007_199_254_740_993_i64 }),
            ),
            ("INSERT INTO pair VALUES (1, 'x', 2)", r#"[1,"x"]"#, json!({ "a": 1, "b": "x" })),
            ("DELETE FROM pair", r#"[1,"x"]"#, json!({ "a": 1, "b": "x" })),
        ] {
            lab.run(change).await?;
            let feed = socket.feed().await?;
            assert_eq!((&feed["docId"], &feed["find"]), (&json!(doc), &find), "{engine:?} {change}");
            assert!(feed["time"].as_i64() >= Some(time), "{feed}");
            time = feed["time"].as_i64().context("a time")?;
        }
        for (table, why) in [("plain", "no primary key"), ("shown", "it is a view")] {
            let refused = socket.subscribe("r", table, json!({})).await?;
            assert_eq!(refused["ack"], false, "{table}");
            assert!(refused["error"].as_str().is_some_and(|error| error.contains(why)), "{refused}");
        }
        mesh.stop().await;

        // Where a part of the key is hidden, a client would take several rows for one.
        let rule = "{ rule: allow }";
        let hidden = rules(rule).replace(" } }\n", " }, columns: { deny: [id] } }\n");
        let (mesh, lab) = self::lab(shape, engine, &hidden, "").await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1)").await?;
        let mut socket = JsonSocket::open(mesh.client.address()).await?;
        let refused = socket.subscribe("q", "todos", json!({})).await?;
        assert_eq!((&refused["ack"], &refused["docs"]), (&json!(false), &json!([])), "{refused}");
        mesh.stop().await;
        let hidden = rules(rule).replace(" } }\n", " }, columns: { deny: [owner] } }\n");
        let (mesh, lab) = self::lab(shape, engine, &hidden, "").await?;
        let mut socket = JsonSocket::open(mesh.client.address()).await?;
        socket.rows("q", "todos", json!({})).await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1)").await?;
        let told = without_time(socket.feed().await?)["payload"].clone();
        assert_eq!(told, json!({ "id": "t1", "n": 1 }), "what is hidden is not told");
        mesh.stop().await;
    }
    Ok(())
}

async fn a_live_query_ends_where_its_client_says(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Sqlite, OPEN_LAB, "").await?;
    let mut socket = JsonSocket::open(mesh.client.address()).await?;
    // Each message has its reply, in order, whether the live query had begun or not.
    let subscribe = json!({ "id": "q", "group": "todos", "dbType": "lab" });
    let begin = socket.send("realtime-subscribe", subscribe.clone()).await?;
    let end = socket.send("realtime-unsubscribe", json!({ "id": "q", "group": "todos" })).await?;
    for id in [&begin, &end] {
        let Incoming::Message(told) = socket.next().await? else { anyhow::bail!("a reply") };
        assert_eq!((&told["id"], &told["data"]["ack"]), (&json!(id), &json!(true)), "{told}");
    }
    socket.rows("q2", "todos", json!({})).await?;
    lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1)").await?;
    assert_eq!(socket.feed().await?["id"], "q2");
    // Whoever is gone holds nothing.
    drop(socket);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while !mesh.metrics().await?.lines().any(|line| line == "perigee_live_queries 0") {
        anyhow::ensure!(tokio::time::Instant::now() < until, "a live query is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mesh.stop().await;
    Ok(())
}

async fn what_is_wrong_is_told(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = lab(shape, Engine::Sqlite, OPEN_LAB, "").await?;
    let mut socket = JsonSocket::open(mesh.client.address()).await?;
    for (more, error) in [
        (json!({ "where": { "lost": 1 } }), "column lost is not in table todos"),
        (json!({ "where": { "n": "x" } }), "n"),
        (json!({ "where": { "n": { "$like": "x%" } } }), "operator $like"),
        (json!({ "where": [] }), "invalid where: expected object, found array"),
        // Nobody may use it: it looks like one that is denied.
        (json!({ "dbType": "other" }), "token contains an invalid number of segments"),
        (json!({ "options": { "skipInitial": 1 } }), "invalid options.skipInitial: expected boolean, found integer"),
        (json!({ "token": 7 }), "invalid token: expected string, found integer"),
    ] {
        let refused = socket.subscribe("q", "todos", more.clone()).await?;
        assert_eq!((&refused["ack"], &refused["docs"]), (&json!(false), &json!([])), "{more}");
        assert!(refused["error"].as_str().is_some_and(|text| text.contains(error)), "{more}: {refused}");
    }
    let refused = socket.subscribe("q", "todo", json!({})).await?;
    assert!(refused["error"].as_str().is_some_and(|text| text.contains("todos")), "{refused}");
    let worker = json!({ "service": "w", "project": "shop" });
    assert_eq!(socket.ask("service-register", worker).await?["ack"], false, "no such service");
    let topic = json!({ "subject": "news", "queue": "", "project": "shop" });
    assert_eq!(socket.ask("pubsub-subscribe", topic).await?["status"], 404);
    // Nothing is sent to the answer of a worker: what comes next is the reply to another message.
    socket.send("service-request", json!({ "id": "c", "params": {} })).await?;
    assert_eq!(socket.ask("bogus", json!({})).await?["error"], "Invalid message type");
    mesh.stop().await;
    Ok(())
}

async fn malformed_messages_end_the_connection_at_most(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = lab(shape, Engine::Sqlite, OPEN_LAB, "body_bytes: 100000").await?;
    let address = mesh.client.address();
    let text = |text: &str| Message::Text(text.to_owned().into());
    for frame in [
        text(""),
        text("[]"),
        text(r#"{"type": 7}"#),
        text(r#"{"id": {}, "type": "x"}"#),
        text(&"[".repeat(10_000)),
        text(&format!(r#"{{"type": "{}"}}"#, "x".repeat(300))),
        Message::Binary(vec![0xff, 0xfe].into()),
    ] {
        let mut socket = JsonSocket::open(address).await?;
        socket.send_raw(frame.clone()).await?;
        let Incoming::Message(told) = socket.next().await? else { anyhow::bail!("it is told: {frame}") };
        assert_eq!((&told["type"], &told["id"]), (&json!("unknown"), &json!("0")), "{frame}");
        assert_eq!(socket.next().await?, Incoming::Closed(1007), "{frame}");
    }
    let mut socket = JsonSocket::open(address).await?;
    for data in
        [json!(null), json!(7), json!([]), json!("x"), json!({ "id": [], "group": {}, "dbType": 1, "where": 2 })]
    {
        assert_eq!(socket.ask("realtime-subscribe", data.clone()).await?["ack"], false, "{data}");
        assert_eq!(socket.ask("realtime-unsubscribe", data.clone()).await?["ack"], true, "{data}");
    }
    // Before it is known whose it is, messages are small; then they are as large as a body.
    let large = |bytes: usize| json!({ "where": { "owner": "x".repeat(bytes) } });
    let mut stranger = JsonSocket::open(address).await?;
    // The server may close before it has taken all of it.
    let _ = stranger.send("bogus", large(20_000)).await;
    assert_eq!(stranger.next().await?, Incoming::Closed(1009));
    assert_eq!(socket.subscribe("q", "todos", json!({})).await?["ack"], true);
    assert_eq!(socket.subscribe("q", "todos", large(50_000)).await?["ack"], true);
    let _ = socket.send("bogus", large(200_000)).await;
    assert_eq!(socket.next().await?, Incoming::Closed(1009));
    mesh.stop().await;
    Ok(())
}

async fn who_may_not_read_is_told_so(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, &rules(OWN), "").await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'ann', 1), ('t2', 'bob', 2)").await?;
        let (ann, address) = (token::sign(json!({ "id": "ann" })), mesh.client.address());
        let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, -5);
        let foreign = token::sign_with(json!({ "id": "ann" }), "another-secret-that-is-as-long-as-the-other", 60);
        let mut socket = JsonSocket::open(address).await?;
        for (token, error) in [
            ("", "token contains an invalid number of segments"),
            ("forged", "token contains an invalid number of segments"),
            (&short, "Token is expired"),
            (&foreign, "signature is invalid"),
        ] {
            let refused = socket.subscribe("q", "todos", json!({ "token": token })).await?;
            assert_eq!(refused, reply("q", false, error), "{token}");
        }
        // The project is that of the address, whatever a message says.
        for spelled in [ann.clone(), format!("Bearer {ann}")] {
            let rows = socket.rows("q", "todos", json!({ "token": spelled, "project": "lost" })).await?;
            assert_eq!(rows.payloads(), [&json!({ "id": "t1", "owner": "ann", "n": 1 })]);
        }
        // A denied table and one that there is not look the same.
        let refused = async |socket: &mut JsonSocket, table: &str| {
            let refused = socket.subscribe("r", table, json!({ "token": ann })).await?;
            anyhow::ensure!(refused["ack"] == false && refused["docs"] == json!([]), "{refused}");
            anyhow::Ok(refused["error"].as_str().unwrap_or_default().replace(table, "T"))
        };
        let denied = refused(&mut socket, "secret").await?;
        assert_eq!(refused(&mut socket, "lost").await?, denied);
        let changes = lab.run("UPDATE todos SET n = 9; INSERT INTO todos VALUES ('t3', 'bob', 3)");
        changes.await?;
        let told = without_time(socket.feed().await?);
        assert_eq!(told, todo("q", "update", "t1", json!({ "id": "t1", "owner": "ann", "n": 9 })));
        lab.run("UPDATE todos SET n = 10 WHERE id = 't1'").await?;
        assert_eq!(socket.feed().await?["payload"]["n"], 10, "nothing of others is told");

        // The token of the handshake counts for messages without one.
        let authorization = format!("Bearer {ann}");
        let named = JsonSocket::connect(address, JsonSocket::PATH, &[("authorization", &authorization)]).await;
        let mut named = named.map_err(|status| anyhow::anyhow!("refused with {status}"))?;
        assert_eq!(named.rows("q", "todos", json!({})).await?.payloads().len(), 1);

        let connect = async |path: &str, headers: &[(&'static str, &str)]| {
            JsonSocket::connect(address, path, headers).await.map(|_| "connected")
        };
        assert_eq!(connect(JsonSocket::PATH, &[("origin", "https://evil.example")]).await, Err(403));
        assert_eq!(connect(JsonSocket::PATH, &[("origin", &format!("http://{address}"))]).await, Ok("connected"));
        assert_eq!(connect("/v1/api/lost/socket/json", &[]).await, Err(404));
        let (status, answer) = mesh.client.get(JsonSocket::PATH).await?;
        assert_eq!((status, &answer["code"]), (400, &json!("BAD_REQUEST")), "{answer}");
        mesh.stop().await;
    }
    Ok(())
}

async fn who_may_no_longer_read_is_closed(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, &rules(OWN), "").await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'ann', 1), ('t2', 'bob', 2)").await?;
        let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, 4);
        let mut expiring = JsonSocket::open(mesh.client.address()).await?;
        expiring.rows("q", "todos", json!({ "token": short })).await?;
        let ann = token::sign(json!({ "id": "ann" }));
        let mut socket = JsonSocket::open(mesh.client.address()).await?;
        let mut rows = socket.rows("q", "todos", json!({ "token": ann })).await?;
        assert_eq!(expiring.next().await?, Incoming::Closed(1008), "{engine:?}: its token expires");
        // Wider rules show more rows, narrower ones take them away.
        for (read, count) in [("{ rule: authenticated }", 2), (OWN, 1)] {
            mesh.edit(&rules(read))?;
            while rows.payloads().len() != count {
                rows.merge(&socket.feed().await?)?;
            }
        }
        mesh.edit(&rules("{ rule: deny }"))?;
        assert_eq!(socket.next().await?, Incoming::Closed(1008), "{engine:?}: nothing may be read");
        mesh.stop().await;
    }
    Ok(())
}

async fn a_live_query_that_ends_leaves_the_others(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, &rules(OWN), "").await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'ann', 1), ('t2', 'bob', 2)").await?;
        let (ann, bob) = (json!({ "id": "ann" }), json!({ "id": "bob" }));
        for is_acknowledged in [true, false] {
            let (long, short) = (token::sign(ann.clone()), token::sign_with(bob.clone(), token::SECRET, 4));
            let mut socket = JsonSocket::open(mesh.client.address()).await?;
            socket.rows("q1", "todos", json!({ "token": long })).await?;
            let subscribe = json!({ "id": "q2", "group": "todos", "dbType": "lab", "token": short });
            let asked = socket.send("realtime-subscribe", subscribe).await?;
            let Incoming::Message(begun) = socket.next().await? else { anyhow::bail!("a reply") };
            assert_eq!((&begun["id"], &begun["data"]["ack"]), (&json!(asked), &json!(true)), "{begun}");
            // What its caller may not read any more is taken away, then it is told why.
            assert_eq!(without_time(socket.feed().await?), todo("q2", "delete", "t2", Value::Null), "{engine:?}");
            let Incoming::Message(ended) = socket.next().await? else { anyhow::bail!("its end") };
            let mut expected = reply("q2", false, "the token has expired");
            expected["code"] = json!("TOKEN_EXPIRED");
            assert_eq!(ended, json!({ "type": "realtime-subscribe", "id": asked, "data": expected }), "{engine:?}");
            lab.run("UPDATE todos SET n = n + 1").await?;
            let feed = socket.feed().await?;
            assert_eq!((&feed["id"], &feed["docId"]), (&json!("q1"), &json!("t1")), "the other goes on");
            if is_acknowledged {
                socket.ask("realtime-unsubscribe", json!({ "id": "q2" })).await?;
            }
            socket.ask("realtime-unsubscribe", json!({ "id": "q1" })).await?;
            match is_acknowledged {
                true => assert_eq!(socket.subscribe("q3", "secret", json!({})).await?["ack"], false, "it stays open"),
                // A client that does not know the message connects again.
                false => assert_eq!(socket.next().await?, Incoming::Closed(1008), "{engine:?}"),
            }
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn what_is_known_of_rows_has_a_limit_that_is_told_once(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Sqlite, OPEN_LAB, "caller_bytes: 400000").await?;
    let mut socket = JsonSocket::open(mesh.client.address()).await?;
    socket.rows("q1", "todos", json!({})).await?;
    let skip = json!({ "options": { "skipInitial": true } });
    socket.rows("q2", "number", skip.clone()).await?;
    lab.run(
        "WITH RECURSIVE s(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s WHERE id < 5000)
         INSERT INTO number SELECT id, 'x' FROM s",
    )
    .await?;
    let ended = loop {
        let Incoming::Message(message) = socket.next().await? else { anyhow::bail!("it goes on") };
        if message["type"] != "realtime-feed" {
            break message;
        }
        assert_eq!(message["data"]["type"], "insert", "{message}");
    };
    let is_limit =
        |data: &Value| data["error"].as_str().is_some_and(|error| error.ends_with("limits.caller_bytes: 400000"));
    assert!(ended["data"]["id"] == "q2" && is_limit(&ended["data"]), "{ended}");
    // Whoever begins again has the same rows, and is told so before anything else.
    let again = socket.subscribe("q2", "number", skip).await?;
    assert!(again["ack"] == false && is_limit(&again), "{again}");
    lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1)").await?;
    assert_eq!(socket.feed().await?["id"], "q1", "the other goes on");
    mesh.stop().await;
    Ok(())
}

async fn limits_hold(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Sqlite, OPEN_LAB, "sockets: 2, subscriptions: 2").await?;
    let (address, token) = (mesh.client.address(), json!(token::sign(json!({ "id": "ann" }))));
    let mut first = JsonSocket::open(address).await?;
    for id in ["q1", "q2"] {
        first.rows(id, "todos", json!({ "token": token })).await?;
    }
    let refused = first.subscribe("q3", "todos", json!({ "token": token })).await?;
    assert!(refused["error"].as_str().is_some_and(|error| error.ends_with("limits.subscriptions: 2")), "{refused}");
    // Another id takes no further place.
    first.rows("q2", "todos", json!({ "token": token })).await?;
    first.ask("realtime-unsubscribe", json!({ "id": "q1" })).await?;
    first.rows("q3", "todos", json!({ "token": token })).await?;
    let mut second = JsonSocket::open(address).await?;
    assert_eq!(second.subscribe("q", "todos", json!({ "token": token })).await?["ack"], false, "of all its sockets");
    let mut third = JsonSocket::open(address).await?;
    let refused = third.subscribe("q", "todos", json!({ "token": token })).await?;
    assert!(refused["error"].as_str().is_some_and(|error| error.ends_with("limits.sockets: 2")), "{refused}");
    assert_eq!(third.next().await?, Incoming::Closed(1013));
    lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1)").await?;
    assert_eq!(first.feed().await?["docId"], "t1", "the others go on");
    mesh.stop().await;

    // The rows that there are, and what is known of them, count for the caller.
    let (mesh, lab) = self::lab(shape, Engine::Sqlite, OPEN_LAB, "caller_bytes: 200000").await?;
    lab.run(
        "WITH RECURSIVE s(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s WHERE id < 2000)
         INSERT INTO number SELECT id, hex(randomblob(100)) FROM s",
    )
    .await?;
    let mut socket = JsonSocket::open(mesh.client.address()).await?;
    let refused = socket.subscribe("q", "number", json!({})).await?;
    assert!(refused["error"].as_str().is_some_and(|error| error.ends_with("limits.caller_bytes: 200000")), "{refused}");
    let few = json!({ "where": { "id": { "$lte": 100 } } });
    assert_eq!(socket.rows("q", "number", few).await?.payloads().len(), 100, "there is room again");
    mesh.stop().await;
    Ok(())
}

async fn what_cannot_be_told_one_by_one_is_told_as_differences(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Postgres, OPEN_LAB, "").await?;
    lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1), ('t2', 'u1', 2)").await?;
    let mut socket = JsonSocket::open(mesh.client.address()).await?;
    let mut rows = socket.rows("q", "todos", json!({})).await?;
    let mut changes = JsonSocket::open(mesh.client.address()).await?;
    changes.rows("q", "todos", json!({ "options": { "skipInitial": true } })).await?;
    lab.run("BEGIN; TRUNCATE todos; INSERT INTO todos VALUES ('t2', 'u1', 2), ('t3', 'u1', 3); COMMIT").await?;
    let mut told = Vec::new();
    while rows != expected(&["t2", "t3"]) {
        let feed = socket.feed().await?;
        rows.merge(&feed)?;
        told.push((feed["type"].as_str().unwrap_or_default().to_owned(), feed["docId"].clone()));
    }
    told.sort_by_key(|(kind, _)| kind.clone());
    assert_eq!(told, [("delete".to_owned(), json!("t1")), ("insert".to_owned(), json!("t3"))], "the other is the same");
    // So is who was told none of the rows.
    let mut told =
        [changes.feed().await?, changes.feed().await?].map(|feed| [feed["type"].clone(), feed["docId"].clone()]);
    told.sort_by_key(|[kind, _]| kind.to_string());
    assert_eq!(told, [["delete", "t1"], ["insert", "t3"]].map(|row| row.map(|text| json!(text))));
    mesh.stop().await;
    Ok(())
}

/// Rows of `todos` with these ids.
fn expected(ids: &[&str]) -> Rows {
    let row = |id: &&str| {
        let n: i64 = id.trim_start_matches('t').parse().expect("a number");
        (json!({ "id": id }).to_string(), json!({ "id": id, "owner": "u1", "n": n }))
    };
    Rows(ids.iter().map(row).collect())
}

async fn a_client_that_reads_nothing_converges_and_holds_up_nobody(shape: Shape) -> anyhow::Result<()> {
    const ROUNDS: i64 = 60;
    let (mesh, lab) = lab(shape, Engine::Sqlite, OPEN_LAB, "").await?;
    lab.run("INSERT INTO number VALUES (1, ''), (2, ''), (3, '')").await?;
    let address = mesh.client.address();
    let (mut slow, mut fast) = (JsonSocket::open(address).await?, JsonSocket::open(address).await?);
    let mut of_slow = slow.rows("q", "number", json!({})).await?;
    let mut of_fast = fast.rows("q", "number", json!({})).await?;
    for round in 1..=ROUNDS {
        let text = format!("'{round}:' || hex(zeroblob(500000))");
        lab.run(&format!("UPDATE number SET text = {text} WHERE id = 1")).await?;
        lab.run(&format!("DELETE FROM number WHERE id > 2; INSERT INTO number VALUES ({}, 'r{round}')", round + 3))
            .await?;
        let key = format!("{{\"id\":{}}}", round + 3);
        while !of_fast.0.contains_key(&key) {
            of_fast.merge(&fast.feed().await?)?;
        }
    }
    assert_eq!(of_fast.0.len(), 3);
    let mut told = 0;
    while of_slow != of_fast {
        of_slow.merge(&slow.feed().await?)?;
        told += 1;
    }
    assert!(told < 3 * ROUNDS, "not all was kept for it: {told}");
    // It goes on with what follows.
    lab.run("UPDATE number SET text = 'end' WHERE id = 2").await?;
    let last = slow.feed().await?;
    assert_eq!((&last["type"], &last["payload"]), (&json!("update"), &json!({ "id": 2, "text": "end" })));
    mesh.stop().await;
    Ok(())
}

async fn a_node_that_stops_says_so(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = lab(shape, Engine::Sqlite, OPEN_LAB, "").await?;
    let mut socket = JsonSocket::open(mesh.client.address()).await?;
    socket.rows("q", "todos", json!({})).await?;
    let mut idle = JsonSocket::open(mesh.client.address()).await?;
    let ((), next, of_idle) = tokio::join!(mesh.stop(), socket.next(), idle.next());
    assert_eq!((next?, of_idle?), (Incoming::Closed(1012), Incoming::Closed(1012)));
    Ok(())
}

/// The predecessor's clients of three generations, as they are.
async fn clients_of_npm_are_served(shape: Shape) -> anyhow::Result<()> {
    const VERSIONS: [&str; 3] = ["0.12.1", "0.15.0", "0.19.3"];
    // The first of them knows databases by their kind alone: the project has one.
    let keys = json!([{ "kid": "main", "alg": "HS256", "secret": token::SECRET, "primary": true }]);
    let own = rules(OWN).replace("project: shop", "project: forum");
    let all = "{ rules: { create: { rule: allow }, update: { rule: allow }, delete: { rule: allow },";
    let setup = Setup {
        lab: Some(TODOS.to_owned()),
        resources: own.replace("{ rules: {", all),
        projects: vec![("forum".to_owned(), json!({ "tokens": keys }))],
        ..Setup::default()
    };
    let mesh = TestMesh::with(shape, Engine::Postgres, &setup).await?;
    let url = format!("http://{}/", mesh.client.address());
    let tokens = VERSIONS.map(|version| {
        let claims = json!({ "id": version });
        let short = token::sign_with(claims.clone(), token::SECRET, 4);
        (version.to_owned(), json!({ "token": token::sign(claims), "short": short }))
    });
    let tokens = Value::Object(tokens.into_iter().collect()).to_string();
    let got: Value = serde_json::from_str(&node_tool::script("space_api.js", &[&url, "forum", &tokens]).await?)?;
    for version in VERSIONS {
        let of = &got[version];
        let row = |name: &str, n: i64| json!({ "id": format!("{version}-{name}"), "owner": version, "n": n });
        assert_eq!(of["initial"], json!([row("a", 1), row("b", 2)]), "{version}: {of}");
        let steps = json!([
            { "type": "insert", "rows": [row("a", 1), row("b", 2), row("c", 3)] },
            { "type": "update", "rows": [row("a", 1), row("b", 7), row("c", 3)] },
            { "type": "delete", "rows": [row("a", 1), row("b", 7)] },
            { "type": "delete", "rows": [row("b", 7)] },
        ]);
        assert_eq!(of["steps"], steps, "{version}");
        assert_eq!(of["afterUnsubscribe"], 0, "{version}: nothing is told after the end");
        assert_eq!(of["type"], "initial", "{version}: it has begun again");
        assert_eq!(of["reconnected"], json!([row("b", 7), row("d", 4), row("e", 5)]), "{version}");
        assert_eq!(of["errors"], json!(["token contains an invalid number of segments"]), "{version}");
        assert_eq!(of["expired"], json!(["Token is expired"]), "{version}");
    }
    mesh.stop().await;
    Ok(())
}

/// The messages of `docs/realtime.md` for old clients: each is followed by its answer.
async fn the_documented_messages_are_answered(shape: Shape) -> anyhow::Result<()> {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/realtime.md"))?;
    let section = docs.split_once("\n## Rows for old clients").context("the section")?.1;
    let section = section.split_once("\n## ").context("its end")?.0;
    let blocks: Vec<&str> = section.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [of_json, of_graphql] = blocks[..] else { anyhow::bail!("two blocks: {blocks:?}") };
    for engine in ENGINES {
        let mesh = TestMesh::shop(shape, engine).await?;
        let mut json_socket = JsonSocket::open(mesh.client.address()).await?;
        let mut socket = Socket::open_legacy(mesh.client.address(), json!({})).await?;
        let messages: Vec<Value> = of_json.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        for pair in messages.chunks(2) {
            json_socket.send_raw(Message::Text(pair[0].to_string().into())).await?;
            assert_eq!(Some(json_socket.next().await?), pair.get(1).cloned().map(Incoming::Message));
        }
        let messages: Vec<Value> = of_graphql.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        for pair in messages.chunks(2) {
            socket.send(&pair[0]).await?;
            assert_eq!(Some(socket.next().await?), pair.get(1).cloned().map(Incoming::Message));
        }
        mesh.stop().await;
    }
    Ok(())
}
