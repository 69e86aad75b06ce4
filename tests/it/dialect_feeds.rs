//! Live queries in the dialect of GraphQL, one message a row, over both subprotocols and server-sent events.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tests::{
    engine::{Database, Engine},
    event_stream::{EventStream, Sent, Version},
    mesh::{ENGINES, OPEN_LAB, Setup, Shape, TestMesh},
    socket::{Incoming, Socket},
    token,
};

scenarios!(
    the_golden_exchange_is_answered,
    each_framing_tells_each_change,
    what_is_selected_is_told,
    what_is_wrong_is_told,
    who_may_not_read_is_told_so,
    differences_are_told_after_a_truncation,
);

const TODOS: &str = "CREATE TABLE todos (id VARCHAR(20) NOT NULL PRIMARY KEY, owner TEXT, n BIGINT);
    CREATE TABLE posted (id BIGINT NOT NULL PRIMARY KEY, payload TEXT);
    CREATE TABLE plain (text TEXT);
    CREATE TABLE secret (id BIGINT NOT NULL PRIMARY KEY);";

const OWN: &str = "---\nkind: table\nmeta: { project: shop, database: lab, id: todos }\n\
    spec: { rules: { read: { rule: match, type: string, eval: \"==\", f1: args.find.owner, f2: args.auth.id } } }\n";

/// How a client is told rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Current,
    Legacy,
    Events,
}

const FRAMINGS: [Framing; 3] = [Framing::Current, Framing::Legacy, Framing::Events];

enum Client {
    Socket(Box<Socket>, Framing),
    Events(EventStream),
}

impl Client {
    /// Begins a subscription with the id `s`.
    async fn begin(framing: Framing, mesh: &TestMesh, token: &str, query: &str) -> anyhow::Result<Self> {
        let address = mesh.client.address();
        match framing {
            Framing::Current => {
                let mut socket = Socket::open(address, token).await?;
                socket.subscribe("s", query).await?;
                Ok(Self::Socket(socket.into(), framing))
            }
            Framing::Legacy => {
                let mut socket = Socket::open_legacy(address, json!({})).await?;
                let payload = json!({ "query": query, "authToken": token });
                socket.send(&json!({ "type": "start", "id": "s", "payload": payload })).await?;
                Ok(Self::Socket(socket.into(), framing))
            }
            Framing::Events => {
                let opened = EventStream::post(Version::Http1, address, token, query).await?;
                Ok(Self::Events(opened.map_err(|status| anyhow::anyhow!("refused with {status}"))?))
            }
        }
    }

    /// The next result, or the code of the error that ends it.
    async fn next(&mut self) -> anyhow::Result<Result<Value, String>> {
        let code = |errors: &Value| {
            let code = errors[0]["extensions"]["code"].as_str();
            code.map(str::to_owned).with_context(|| format!("no code: {errors}"))
        };
        match self {
            Self::Socket(socket, framing) => {
                let (next, errors) = match framing {
                    Framing::Legacy => ("data", "/payload/errors"),
                    _ => ("next", "/payload"),
                };
                match socket.next().await? {
                    Incoming::Message(mut told) if told["type"] == next && told["id"] == "s" => {
                        Ok(Ok(told["payload"]["data"].take()))
                    }
                    Incoming::Message(told) if told["type"] == "error" && told["id"] == "s" => {
                        Ok(Err(code(told.pointer(errors).context("errors")?)?))
                    }
                    other => bail!("unexpected {other:?}"),
                }
            }
            Self::Events(events) => match events.next().await? {
                Sent::Next(answer) if answer["errors"].is_array() => Ok(Err(code(&answer["errors"])?)),
                Sent::Next(mut answer) => Ok(Ok(answer["data"].take())),
                other => bail!("unexpected {other:?}"),
            },
        }
    }

    async fn data(&mut self) -> anyhow::Result<Value> {
        self.next().await?.map_err(|code| anyhow::anyhow!("ended with {code}"))
    }
}

async fn lab(shape: Shape, engine: Engine, resources: &str) -> anyhow::Result<(TestMesh, Database)> {
    let setup = Setup { lab: Some(TODOS.to_owned()), resources: resources.to_owned(), ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    let database = mesh.lab.clone().context("the lab")?;
    Ok((mesh, database))
}

/// A message of the old subprotocol, which comes next.
async fn told(socket: &mut Socket, expected: Value) -> anyhow::Result<()> {
    let next = if expected["type"] == "ka" { socket.next().await? } else { next(socket).await? };
    assert_eq!(next, Incoming::Message(expected));
    Ok(())
}

/// The next message but those that keep the connection, which come from time to time.
async fn next(socket: &mut Socket) -> anyhow::Result<Incoming> {
    loop {
        match socket.next().await? {
            Incoming::Message(message) if message["type"] == "ka" => {}
            other => return Ok(other),
        }
    }
}

async fn the_golden_exchange_is_answered(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB).await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1)").await?;
        let path = "/v1/api/shop/graphql/socket";
        let connected = Socket::connect(mesh.client.address(), path, &[("sec-websocket-protocol", "graphql-ws")]);
        let mut socket = connected.await.map_err(|status| anyhow::anyhow!("refused with {status}"))?;
        socket.send(&json!({ "id": "1", "type": "connection_init" })).await?;
        told(&mut socket, json!({ "type": "connection_ack", "id": "1", "payload": {} })).await?;
        told(&mut socket, json!({ "type": "ka", "id": "1", "payload": {} })).await?;
        let start = |id: &str, payload: Value| json!({ "id": id, "type": "start", "payload": payload });
        let data = |id: &str, row: Value| json!({ "type": "data", "id": id, "payload": { "data": { "todos": row } } });
        let query = "subscription { todos(where: {owner: \"u1\"}) @lab { type payload { id } find } }";
        socket.send(&start("1", json!({ "query": query }))).await?;
        let row = |kind: &str, id: &str| json!({ "type": kind, "payload": { "id": id, "__typename": "todos" }, "find": { "id": id } });
        told(&mut socket, data("1", row("initial", "t1"))).await?;
        lab.run("INSERT INTO todos VALUES ('t2', 'u1', 2), ('t3', 'u2', 3)").await?;
        told(&mut socket, data("1", row("insert", "t2"))).await?;
        lab.run("UPDATE todos SET owner = 'u9' WHERE id = 't2'").await?;
        told(&mut socket, data("1", row("delete", "t2"))).await?;
        lab.run("DELETE FROM todos WHERE id = 't1'").await?;
        told(&mut socket, data("1", row("delete", "t1"))).await?;
        socket.send(&json!({ "id": "1", "type": "stop" })).await?;
        told(&mut socket, json!({ "type": "complete", "id": "1" })).await?;
        socket.send(&json!({ "id": "9", "type": "stop" })).await?;
        let Incoming::Message(error) = next(&mut socket).await? else { bail!("it is told") };
        assert_eq!(
            (&error["type"], &error["payload"]["errors"][0]["message"]),
            (&json!("error"), &json!("got stop wanted start"))
        );

        // Variables, and nothing of the rows that there are.
        let query = "subscription($o: String, $skip: Boolean) { todos(where: {owner: $o}, skipInitial: $skip) @lab { type docId } }";
        let variables = json!({ "o": "u2", "skip": true });
        socket.send(&start("2", json!({ "query": query, "variables": variables }))).await?;
        let quiet = "subscription { todos(where: {owner: \"u2\"}, options: {skipInitial: true}) @lab { type } }";
        socket.send(&start("3", json!({ "query": quiet }))).await?;
        // What is answered shows that both have begun.
        socket.send(&start("4", json!({ "query": "subscription { todos @lab { docId } }" }))).await?;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let Incoming::Message(row) = next(&mut socket).await? else { bail!("a row") };
            ids.push((row["id"].clone(), row["payload"]["data"]["todos"]["docId"].clone()));
        }
        ids.sort_by_key(|(_, doc)| doc.to_string());
        assert_eq!(ids, [(json!("4"), json!("t2")), (json!("4"), json!("t3"))]);
        socket.send(&json!({ "id": "4", "type": "stop" })).await?;
        told(&mut socket, json!({ "type": "complete", "id": "4" })).await?;
        lab.run("UPDATE todos SET n = 4 WHERE id = 't3'").await?;
        let mut rows = Vec::new();
        for _ in 0..2 {
            let Incoming::Message(row) = next(&mut socket).await? else { bail!("a row") };
            rows.push(row);
        }
        rows.sort_by_key(|row| row["id"].to_string());
        assert_eq!(rows[0], data("2", json!({ "type": "update", "docId": "t3" })));
        assert_eq!(rows[1], data("3", json!({ "type": "update" })));
        socket.send(&start("5", json!({ "query": "subscription {" }))).await?;
        let Incoming::Message(error) = next(&mut socket).await? else { bail!("it is told") };
        assert_eq!((&error["type"], &error["id"]), (&json!("error"), &json!("5")));
        assert!(error["payload"]["errors"][0]["message"].is_string(), "{error}");
        mesh.stop().await;
    }
    Ok(())
}

async fn each_framing_tells_each_change(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB).await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1)").await?;
        let query = "subscription { t: todos @lab { id type payload find docId time group dbType __typename } }";
        let mut clients = Vec::new();
        for framing in FRAMINGS {
            clients.push((framing, Client::begin(framing, &mesh, "", query).await?));
        }
        let row = |framing: Framing, kind: &str, payload: Value| {
            let id = if framing == Framing::Events { "" } else { "s" };
            let mut payload = payload;
            payload["__typename"] = json!("todos");
            json!({ "t": { "id": id, "type": kind, "payload": payload, "find": { "id": "t1" }, "docId": "t1", "time": 1,
                "group": "todos", "dbType": "lab", "__typename": "subscribe_todos" } })
        };
        let all = json!({ "id": "t1", "owner": "u1", "n": 1 });
        for (framing, client) in &mut clients {
            assert_eq!(client.data().await?, row(*framing, "initial", all.clone()), "{framing:?}");
        }
        for (change, kind, payload) in [
            ("UPDATE todos SET n = 2", "update", json!({ "id": "t1", "owner": "u1", "n": 2 })),
            ("DELETE FROM todos", "delete", json!({ "id": "t1" })),
            ("INSERT INTO todos VALUES ('t1', NULL, 3)", "insert", json!({ "id": "t1", "owner": null, "n": 3 })),
        ] {
            lab.run(change).await?;
            for (framing, client) in &mut clients {
                let mut told = client.data().await?;
                assert!(told["t"]["time"].as_i64() > Some(1_577_836_800_000), "{told}");
                told["t"]["time"] = json!(1);
                assert_eq!(told, row(*framing, kind, payload.clone()), "{framing:?} {engine:?} {change}");
            }
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn what_is_selected_is_told(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Sqlite, OPEN_LAB).await?;
    lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1); INSERT INTO posted VALUES (7, 'x')").await?;
    for (query, expected) in [
        // Without a directive what is selected says that it is the dialect's.
        (
            "subscription { todos { payload { number: n } dbType } }",
            json!({ "todos": { "payload": { "number": 1, "__typename": "todos" }, "dbType": "lab" } }),
        ),
        // A column of that name is a column.
        ("subscription { posted { payload } }", json!({ "posted": [{ "payload": "x" }] })),
        (
            "subscription { posted @lab { payload { payload } docId } }",
            json!({ "posted": { "payload": { "payload": "x", "__typename": "posted" }, "docId": "7" } }),
        ),
        (
            "subscription { todos @lab { payload { type: __typename __typename } ...F } } fragment F on T { k: type }",
            json!({ "todos": { "payload": { "type": "todos", "__typename": "todos" }, "k": "initial" } }),
        ),
        // Other fields of a database are not.
        ("subscription { todos_by_pk(id: \"t1\") @lab { n } }", json!({ "todos_by_pk": { "n": 1 } })),
        (
            "subscription { todos_changes @lab { type row { n } } }",
            json!({ "todos_changes": { "type": "INITIAL", "row": { "n": 1 } } }),
        ),
    ] {
        for framing in FRAMINGS {
            let mut client = Client::begin(framing, &mesh, "", query).await?;
            assert_eq!(client.data().await?, expected, "{framing:?} {query}");
        }
    }
    // A row whose change is not selected is told all the same.
    let mut client = Client::begin(Framing::Current, &mesh, "", "subscription { todos @lab { type } }").await?;
    assert_eq!(client.data().await?, json!({ "todos": { "type": "initial" } }));
    lab.run("UPDATE todos SET n = 2").await?;
    assert_eq!(client.data().await?, json!({ "todos": { "type": "update" } }));
    mesh.stop().await;
    Ok(())
}

async fn what_is_wrong_is_told(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = lab(shape, Engine::Sqlite, OPEN_LAB).await?;
    for (query, code) in [
        ("subscription { todos @lab }", "BAD_REQUEST"),
        ("subscription { todos @lab { n } }", "UNKNOWN_COLUMN"),
        ("subscription { todos @lab { payload { lost } } }", "UNKNOWN_COLUMN"),
        ("subscription { todos @lab { type { a } } }", "BAD_REQUEST"),
        ("subscription { todos @lab { find { id } } }", "BAD_REQUEST"),
        ("subscription { todos @lab { a: payload { n } b: payload { id } } }", "BAD_REQUEST"),
        ("subscription { todos(limit: 1) @lab { type } }", "UNKNOWN_ARGUMENT"),
        ("subscription { todos(skipInitial: 1) @lab { type } }", "WRONG_TYPE"),
        ("subscription { todos(options: true) @lab { type } }", "WRONG_TYPE"),
        ("subscription { todos(options: {skip: true}) @lab { type } }", "UNKNOWN_ARGUMENT"),
        ("subscription { todos(where: {n: \"x\"}) @lab { type } }", "WRONG_TYPE"),
        ("subscription { todos(where: {n: {_like: 1}}) @lab { type } }", "UNKNOWN_OPERATOR"),
        ("subscription { todos @other { type } }", "UNKNOWN_DATABASE"),
        ("subscription { todos @lab { type } secret @lab { type } }", "BAD_REQUEST"),
        ("subscription { plain @lab { type } }", "BAD_REQUEST"),
    ] {
        for framing in FRAMINGS {
            let mut client = Client::begin(framing, &mesh, "", query).await?;
            assert_eq!(client.next().await?.err().as_deref(), Some(code), "{framing:?} {query}");
        }
    }
    mesh.stop().await;
    Ok(())
}

async fn who_may_not_read_is_told_so(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OWN).await?;
        lab.run("INSERT INTO todos VALUES ('t1', 'ann', 1), ('t2', 'bob', 2)").await?;
        let ann = token::sign(json!({ "id": "ann" }));
        let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, 4);
        let query = "subscription { todos @lab { type docId } }";
        let first = json!({ "todos": { "type": "initial", "docId": "t1" } });
        let mut expiring = Vec::new();
        for framing in FRAMINGS {
            let mut client = Client::begin(framing, &mesh, &short, query).await?;
            assert_eq!(client.data().await?, first, "{framing:?}");
            expiring.push((framing, client));
        }
        let mut clients = Vec::new();
        for framing in FRAMINGS {
            let mut client = Client::begin(framing, &mesh, "", query).await?;
            assert_eq!(client.next().await?.err().as_deref(), Some("UNAUTHENTICATED"), "{framing:?}");
            for table in ["secret", "lost"] {
                let query = format!("subscription {{ {table} @lab {{ type }} }}");
                let mut client = Client::begin(framing, &mesh, &ann, &query).await?;
                assert_eq!(client.next().await?.err().as_deref(), Some("DENIED"), "{framing:?} {table}");
            }
            let mut client = Client::begin(framing, &mesh, &ann, query).await?;
            assert_eq!(client.data().await?, first, "{framing:?}");
            clients.push((framing, client));
        }
        for (framing, client) in &mut expiring {
            assert_eq!(client.next().await?.err().as_deref(), Some("TOKEN_EXPIRED"), "{framing:?} {engine:?}");
        }
        lab.run("UPDATE todos SET n = 9").await?;
        lab.run("UPDATE todos SET owner = 'bob' WHERE id = 't1'").await?;
        for (framing, client) in &mut clients {
            for kind in ["update", "delete"] {
                let expected = json!({ "todos": { "type": kind, "docId": "t1" } });
                assert_eq!(client.data().await?, expected, "{framing:?}");
            }
        }
        mesh.edit(
            &OWN.replace(
                "rule: match, type: string, eval: \"==\", f1: args.find.owner, f2: args.auth.id",
                "rule: deny",
            ),
        )?;
        for (framing, client) in &mut clients {
            assert_eq!(client.next().await?.err().as_deref(), Some("DENIED"), "{framing:?} {engine:?}");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn differences_are_told_after_a_truncation(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Postgres, OPEN_LAB).await?;
    lab.run("INSERT INTO todos VALUES ('t1', 'u1', 1), ('t2', 'u1', 2), ('t3', 'u1', 3)").await?;
    let mut clients = Vec::new();
    for framing in FRAMINGS {
        let mut client =
            Client::begin(framing, &mesh, "", "subscription { todos @lab { type docId payload { n } } }").await?;
        for _ in 0..3 {
            assert_eq!(client.data().await?["todos"]["type"], "initial", "{framing:?}");
        }
        clients.push((framing, client));
    }
    lab.run(
        "BEGIN; TRUNCATE todos; INSERT INTO todos VALUES ('t2', 'u1', 2), ('t3', 'u1', 7), ('t4', 'u1', 4); COMMIT",
    )
    .await?;
    for (framing, client) in &mut clients {
        let mut told = Vec::new();
        for _ in 0..3 {
            let row = client.data().await?["todos"].take();
            told.push((row["docId"].clone(), row["type"].clone(), row["payload"]["n"].clone()));
        }
        told.sort_by_key(|(doc, ..)| doc.to_string());
        let expected = [
            (json!("t1"), json!("delete"), Value::Null),
            (json!("t3"), json!("update"), json!(7)),
            (json!("t4"), json!("insert"), json!(4)),
        ];
        assert_eq!(told, expected, "{framing:?}");
    }
    mesh.stop().await;
    Ok(())
}
