//! Live queries over GraphQL sockets: nothing is lost, repeated, or shown to who may not see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use anyhow::{Context, ensure};
use rusqlite::Connection;
use serde_json::{Value, json};
use tests::{
    engine::Engine,
    mesh::{OPEN_LAB, Setup, Shape, TestMesh},
    socket::{Incoming, Socket},
    token,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

scenarios!(
    an_answer_comes_again_whenever_it_differs,
    every_answer_is_a_state_that_existed,
    a_caller_sees_their_rows_only,
    a_change_of_a_table_that_a_rule_looks_at_counts,
    a_rule_that_is_edited_ends_or_narrows_a_live_query,
    a_token_that_expires_ends_its_live_queries,
    who_breaks_the_protocol_is_closed_with_its_code,
    queries_and_mutations_are_answered_once,
    messages_have_the_limit_of_the_project,
    a_client_that_closes_its_connection_is_told_so,
    a_client_that_reads_nothing_holds_up_nobody_and_gets_the_last_state,
    what_cannot_be_followed_is_refused,
    a_node_that_stops_says_so,
);

const NOTES: &str = "
    CREATE TABLE note (id INTEGER PRIMARY KEY, owner TEXT, text TEXT);
    CREATE TABLE tag (id INTEGER PRIMARY KEY, note_id INTEGER REFERENCES note (id), name TEXT);
    CREATE TABLE other (id INTEGER PRIMARY KEY);
    CREATE VIEW shown AS SELECT id, text FROM note;
    CREATE VIRTUAL TABLE searched USING fts5(text);";

/// Rules that let everybody see their own notes.
fn own_notes() -> String {
    rules(r#"{ rule: match, type: string, eval: "==", f1: args.find.owner, f2: args.auth.id }"#)
}

/// Rules in which `read` decides who sees notes.
fn rules(read: &str) -> String {
    format!(
        "---\nkind: table\nmeta: {{ project: shop, database: lab, id: note }}\nspec: {{ rules: {{ read: {read} }} }}\n"
    )
}

async fn lab(shape: Shape, engine: Engine, schema: &str, resources: &str) -> anyhow::Result<TestMesh> {
    let (lab, resources) = (Some(schema.to_owned()), resources.to_owned());
    let setup = Setup { lab, resources, introspection: true, ..Setup::default() };
    TestMesh::with(shape, engine, &setup).await
}

async fn notes(shape: Shape, resources: &str) -> anyhow::Result<(TestMesh, tests::engine::Database)> {
    let mesh = lab(shape, Engine::Sqlite, NOTES, resources).await?;
    let database = mesh.lab.clone().context("the lab")?;
    Ok((mesh, database))
}

async fn an_answer_comes_again_whenever_it_differs(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = notes(shape, OPEN_LAB).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;

    socket.subscribe("1", "subscription { all: note(sort: [id_asc]) { id text tag { name } } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "all": [] }));
    let (_, done) =
        mesh.client.graphql("mutation { insert_note(docs: [{id: 1, text: \"a\"}]) { affected } }", json!({})).await?;
    assert_eq!(done, json!({ "data": { "insert_note": { "affected": 1 } } }));
    assert_eq!(socket.answer("1").await?, json!({ "all": [{ "id": 1, "text": "a", "tag": [] }] }));
    lab.run("INSERT INTO tag VALUES (1, 1, 'x')").await?;
    assert_eq!(socket.answer("1").await?, json!({ "all": [{ "id": 1, "text": "a", "tag": [{ "name": "x" }] }] }));
    // Neither what changes nothing of the answer nor other tables say anything.
    lab.run("UPDATE note SET owner = 'ann'; INSERT INTO other VALUES (1); UPDATE tag SET name = 'x'").await?;
    lab.run("DELETE FROM tag; DELETE FROM note").await?;
    assert_eq!(socket.answer("1").await?, json!({ "all": [] }));

    let with_variables = json!({
        "query": "subscription L($text: String!) { note(where: {text: {_eq: $text}}) { id } }",
        "variables": { "text": "b" }, "operationName": "L",
    });
    socket.send(&json!({ "type": "subscribe", "id": "2", "payload": with_variables })).await?;
    assert_eq!(socket.answer("2").await?, json!({ "note": [] }));
    socket.send(&json!({ "type": "complete", "id": "1" })).await?;
    lab.run("INSERT INTO note VALUES (7, NULL, 'b')").await?;
    assert_eq!(socket.answer("2").await?, json!({ "note": [{ "id": 7 }] }), "the first has ended");
    // The id is free again.
    socket.subscribe("1", "subscription { note_by_pk(id: 7) { text } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note_by_pk": { "text": "b" } }));
    lab.run("BEGIN; ALTER TABLE note RENAME TO old; CREATE TABLE note (id INTEGER PRIMARY KEY, owner TEXT, text TEXT); COMMIT")
        .await?;
    let mut ended = BTreeSet::new();
    while ended.len() < 2 {
        let Incoming::Message(message) = socket.next().await? else { anyhow::bail!("the socket is closed") };
        if message["payload"]["data"] == json!({ "note_by_pk": null })
            || message["payload"]["data"] == json!({ "note": [] })
        {
            ended.insert(message["id"].to_string());
        }
    }
    lab.run("INSERT INTO note VALUES (7, NULL, 'c')").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note_by_pk": { "text": "c" } }), "a table made anew is followed");
    mesh.stop().await;
    Ok(())
}

const CLOCK: &str = "
    CREATE TABLE clock (id INTEGER PRIMARY KEY, version INTEGER NOT NULL);
    CREATE TABLE item (id INTEGER PRIMARY KEY, clock_id INTEGER REFERENCES clock (id), v INTEGER NOT NULL);
    INSERT INTO clock VALUES (1, 0);
    INSERT INTO item VALUES (1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0);";

/// States by version: the items that there are.
type States = Arc<Mutex<BTreeMap<i64, Vec<(i64, i64)>>>>;

fn known(states: &States) -> MutexGuard<'_, BTreeMap<i64, Vec<(i64, i64)>>> {
    states.lock().expect("no code panics while it holds this lock")
}

/// A number that a seed and a round determine (splitmix64).
fn random(seed: u64, round: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Moves values between items, in transactions some of which are rolled back, in part or as a whole.
fn write(file: &str, writer: u64, states: &States) -> anyhow::Result<()> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(std::time::Duration::from_secs(20))?;
    for round in 0..40 {
        let random = random(writer, round);
        let (from, to, by) = (random % 6 + 1, random / 7 % 6 + 1, random / 49 % 5);
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; UPDATE clock SET version = version + 1;
             INSERT INTO item VALUES ({from}, 1, -{by}) ON CONFLICT (id) DO UPDATE SET v = v - {by};
             INSERT INTO item VALUES ({to}, 1, {by}) ON CONFLICT (id) DO UPDATE SET v = v + {by};
             SAVEPOINT undone; DELETE FROM item; ROLLBACK TO undone;
             DELETE FROM item WHERE id > 4 AND v = 0;"
        ))?;
        if random.is_multiple_of(5) {
            connection.execute_batch("ROLLBACK")?;
            continue;
        }
        let version = connection.query_row("SELECT version FROM clock", [], |row| row.get(0))?;
        let mut items = connection.prepare("SELECT id, v FROM item ORDER BY id")?;
        let items = items.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        known(states).insert(version, items);
        connection.execute_batch("COMMIT")?;
    }
    Ok(())
}

/// The answer in a state: its version and its items.
type Expected = fn(i64, &[(i64, i64)]) -> Value;

/// Shapes of live queries on the items, and what each answers in a state.
const SHAPES: [(&str, Expected); 4] = [
    ("clock_by_pk(id: 1) { version item(sort: [id_asc]) { id v } }", |version, items| {
        let items: Vec<_> = items.iter().map(|(id, v)| json!({ "id": id, "v": v })).collect();
        json!({ "clock_by_pk": { "version": version, "item": items } })
    }),
    ("clock { version item(where: {v: {_gt: 0}}, sort: [v_desc, id_asc], limit: 2) { id } }", |version, items| {
        let mut above: Vec<_> = items.iter().filter(|(_, v)| *v > 0).collect();
        above.sort_by_key(|(id, v)| (-v, *id));
        let above: Vec<_> = above.into_iter().take(2).map(|(id, _)| json!({ "id": id })).collect();
        json!({ "clock": [{ "version": version, "item": above }] })
    }),
    (
        "item_aggregate(where: {v: {_lt: 0}}) { count }",
        |_, items| json!({ "item_aggregate": [{ "count": items.iter().filter(|(_, v)| *v < 0).count() }] }),
    ),
    ("item(where: {clock: {version: {_gt: 3}}, id: {_eq: 2}}) { v clock { version } }", |version, items| {
        let second = items.iter().filter(|(id, _)| *id == 2 && version > 3);
        let second: Vec<_> = second.map(|(_, v)| json!({ "v": v, "clock": { "version": version } })).collect();
        json!({ "item": second })
    }),
];

/// What a live query was answered, checked as it comes: it differs from the answer before, and is that of a state which
/// is not older.
struct Followed {
    shape: usize,
    last: Value,
    version: i64,
}

impl Followed {
    fn take(&mut self, answer: Value, states: &States) -> anyhow::Result<()> {
        ensure!(answer != self.last, "repeated: {answer}");
        let states = known(states);
        let state =
            states.range(self.version..).find(|(version, items)| SHAPES[self.shape].1(**version, items) == answer);
        let (version, _) = state.with_context(|| format!("no state after {} was {answer}", self.version))?;
        (self.version, self.last) = (*version, answer);
        Ok(())
    }
}

async fn every_answer_is_a_state_that_existed(shape: Shape) -> anyhow::Result<()> {
    let mesh = lab(shape, Engine::Sqlite, CLOCK, OPEN_LAB).await?;
    let database = mesh.lab.clone().context("the lab")?;
    let file = database.url.strip_prefix("sqlite:").context("a file")?.to_owned();
    let states = States::default();
    known(&states).insert(0, vec![(1, 0), (2, 0), (3, 0), (4, 0)]);
    let follow = async |states: &States| {
        let mut socket = Socket::open(mesh.client.address(), "").await?;
        let mut followed = BTreeMap::new();
        for (shape, (selection, _)) in SHAPES.iter().enumerate() {
            let id = format!("{shape}");
            socket.subscribe(&id, &format!("subscription {{ {selection} }}")).await?;
            followed.insert(id, Followed { shape, last: Value::Null, version: 0 });
        }
        let states = states.clone();
        anyhow::Ok(tokio::spawn(async move {
            let last = states.clone();
            // Until the last state has been answered to all; then nothing comes any more.
            loop {
                let Incoming::Message(mut message) = socket.next().await? else { anyhow::bail!("closed") };
                ensure!(message["type"] == "next", "{message}");
                let id = message["id"].as_str().context("an id")?.to_owned();
                let followed_one = followed.get_mut(&id).context("an id of ours")?;
                followed_one.take(message["payload"]["data"].take(), &states)?;
                if followed.values().all(|one| is_at_end(one, &last)) {
                    return anyhow::Ok(followed.into_values().map(|one| (one.shape, one.last)).collect::<Vec<_>>());
                }
            }
        }))
    };
    let mut followers = vec![follow(&states).await?, follow(&states).await?];
    let writers = |numbers: std::ops::Range<u64>| {
        numbers.map(|writer| {
            let (file, states) = (file.clone(), states.clone());
            tokio::task::spawn_blocking(move || write(&file, writer, &states))
        })
    };
    let first: Vec<_> = writers(0..3).collect();
    followers.push(follow(&states).await?);
    for writer in first {
        writer.await??;
    }
    let second: Vec<_> = writers(3..6).collect();
    followers.push(follow(&states).await?);
    for writer in second {
        writer.await??;
    }
    // Once it is known, all who follow wait for the last state.
    let items = known(&states).last_key_value().context("a state")?.1.clone();
    known(&states).insert(END, items);
    database.run("UPDATE clock SET version = 1000001").await?;

    for follower in followers {
        for (shape, last) in follower.await?? {
            let (_, answer) = mesh.client.graphql(&format!("{{ {} }}", SHAPES[shape].0), json!({})).await?;
            assert_eq!(answer["data"], last, "{}", SHAPES[shape].0);
        }
    }
    mesh.stop().await;
    Ok(())
}

/// Version of the last state.
const END: i64 = 1_000_001;

/// Whether a live query has been answered as the last state is.
fn is_at_end(followed: &Followed, states: &States) -> bool {
    let states = known(states);
    states.get(&END).is_some_and(|items| SHAPES[followed.shape].1(END, items) == followed.last)
}

async fn a_caller_sees_their_rows_only(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = notes(shape, &own_notes()).await?;
    lab.run("INSERT INTO note VALUES (1, 'ann', 'a'), (2, 'bob', 'b')").await?;
    let (ann, bob) = (token::sign(json!({ "id": "ann" })), token::sign(json!({ "id": "bob" })));
    let mut socket = Socket::open(mesh.client.address(), &ann).await?;
    let query = "subscription { note { id text } }";
    socket.subscribe("1", query).await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1, "text": "a" }] }));

    lab.run("UPDATE note SET text = 'secret' WHERE owner = 'bob'").await?;
    lab.run("UPDATE note SET text = 'mine' WHERE owner = 'ann'").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1, "text": "mine" }] }));
    lab.run("UPDATE note SET owner = 'bob'").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [] }), "what is no longer hers is gone");
    // A renewed token counts at once.
    socket.send(&json!({ "type": "ping", "payload": { "authorization": format!("Bearer {bob}") } })).await?;
    assert_eq!(socket.next().await?, Incoming::Message(json!({ "type": "pong" })));
    let both = json!({ "note": [{ "id": 1, "text": "mine" }, { "id": 2, "text": "secret" }] });
    assert_eq!(socket.answer("1").await?, both);
    socket.send(&json!({ "type": "ping", "payload": { "authorization": "forged" } })).await?;
    assert_eq!(socket.next().await?, Incoming::Message(json!({ "type": "pong" })));
    assert_eq!(socket.error("1").await?, "UNAUTHENTICATED");

    let mut anonymous = Socket::open(mesh.client.address(), "").await?;
    anonymous.subscribe("1", query).await?;
    assert_eq!(anonymous.error("1").await?, "UNAUTHENTICATED");
    let triggers = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'tag'";
    let mut denied = Socket::open(mesh.client.address(), &ann).await?;
    for query in
        ["subscription { tag { id } }", "subscription { note { id tag { name } } }", "subscription { lost { id } }"]
    {
        denied.subscribe("1", query).await?;
        assert_eq!(denied.error("1").await?, "DENIED", "{query}");
    }
    assert_eq!(lab.number(triggers).await?, 0, "nothing is set up for who may not");
    mesh.stop().await;
    Ok(())
}

async fn a_change_of_a_table_that_a_rule_looks_at_counts(shape: Shape) -> anyhow::Result<()> {
    const SCHEMA: &str = "
        CREATE TABLE team (id INTEGER PRIMARY KEY, owner TEXT);
        CREATE TABLE note (id INTEGER PRIMARY KEY, team_id INTEGER REFERENCES team (id));
        CREATE TABLE tag (id INTEGER PRIMARY KEY, note_id INTEGER REFERENCES note (id));
        INSERT INTO team VALUES (1, 'bob');
        INSERT INTO note VALUES (1, 1);
        INSERT INTO tag VALUES (1, 1);";
    // The caller may read no other table.
    let by_team = r#"{ rule: match, type: string, eval: "==", f1: args.find.note.team.owner, f2: args.auth.id }"#;
    let rules = rules(by_team).replace("id: note", "id: tag");
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let mesh = lab(shape, engine, SCHEMA, &rules).await?;
        let lab = mesh.lab.clone().context("the lab")?;
        let mut socket = Socket::open(mesh.client.address(), &token::sign(json!({ "id": "ann" }))).await?;
        socket.subscribe("1", "subscription { tag { id } }").await?;
        assert_eq!(socket.answer("1").await?, json!({ "tag": [] }));

        lab.run("UPDATE team SET owner = 'ann'").await?;
        assert_eq!(socket.answer("1").await?, json!({ "tag": [{ "id": 1 }] }), "{engine:?}");
        lab.run("UPDATE note SET team_id = NULL").await?;
        assert_eq!(socket.answer("1").await?, json!({ "tag": [] }), "{engine:?}: a right that ended");
        mesh.stop().await;
    }
    Ok(())
}

async fn a_rule_that_is_edited_ends_or_narrows_a_live_query(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = notes(shape, &rules("{ rule: allow }")).await?;
    lab.run("INSERT INTO note VALUES (1, 'ann', 'a'), (2, 'bob', 'b')").await?;
    let ann = token::sign(json!({ "id": "ann" }));
    let mut socket = Socket::open(mesh.client.address(), &ann).await?;
    socket.subscribe("1", "subscription { note { id } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1 }, { "id": 2 }] }));

    mesh.edit(&own_notes())?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1 }] }));
    mesh.edit(&rules("{ rule: deny }"))?;
    assert_eq!(socket.error("1").await?, "DENIED");
    mesh.stop().await;
    Ok(())
}

async fn a_token_that_expires_ends_its_live_queries(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = notes(shape, &format!("{OPEN_LAB}{}", own_notes())).await?;
    lab.run("INSERT INTO note VALUES (1, 'ann', 'a')").await?;
    let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, 1);
    let mut socket = Socket::open(mesh.client.address(), &short).await?;
    socket.subscribe("open", "subscription { other { id } }").await?;
    assert_eq!(socket.answer("open").await?, json!({ "other": [] }));
    socket.subscribe("own", "subscription { note { id } }").await?;
    assert_eq!(socket.answer("own").await?, json!({ "note": [{ "id": 1 }] }));

    assert_eq!(socket.error("own").await?, "TOKEN_EXPIRED");
    // What everybody may read goes on.
    lab.run("INSERT INTO other VALUES (1)").await?;
    assert_eq!(socket.answer("open").await?, json!({ "other": [{ "id": 1 }] }));
    mesh.stop().await;
    Ok(())
}

async fn who_breaks_the_protocol_is_closed_with_its_code(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, OPEN_LAB).await?;
    let address = mesh.client.address();
    let protocol = ("sec-websocket-protocol", "graphql-transport-ws");
    let (path, other) = ("/v1/api/shop/graphql", "/v1/api/shop/graphql/socket");
    for (path, headers, status) in [
        (path, &[][..], 400),
        (path, &[("sec-websocket-protocol", "graphql")], 400),
        ("/v1/api/lost/graphql", &[protocol], 404),
        (path, &[protocol, ("origin", "https://evil.example")], 403),
    ] {
        assert_eq!(Socket::connect(address, path, headers).await.map(|_| ()), Err(status), "{path} {headers:?}");
    }
    let own = format!("http://{address}");
    let mut early =
        Socket::connect(address, other, &[protocol, ("origin", &own)]).await.expect("its own page may call");
    early.subscribe("1", "subscription { note { id } }").await?;
    assert_eq!(early.next().await?, Incoming::Closed(4401));
    let mut forged = Socket::connect(address, path, &[protocol]).await.expect("it connects");
    forged.send(&json!({ "type": "connection_init", "payload": { "token": "a.b.c" } })).await?;
    assert_eq!(forged.next().await?, Incoming::Closed(4403));

    let text = |text: &str| Message::Text(text.to_owned().into());
    let large = format!(r#"{{"type": "ping", "payload": {{"x": "{}"}}}}"#, "x".repeat(9 << 20));
    for (frame, code) in [
        (text("no JSON"), 4400),
        (text(r#"{"type": "start"}"#), 4400),
        (text(r#"{"type": "subscribe", "id": "1", "payload": {"query": 1}}"#), 4400),
        (Message::Binary(vec![0].into()), 4400),
        (text(r#"{"type": "connection_init"}"#), 4429),
        (text(&large), 1009),
    ] {
        let mut socket = Socket::open(address, "").await?;
        // The server may close before it has taken all of it.
        let _ = socket.send_raw(frame.clone()).await;
        match socket.next().await {
            Ok(next) => assert_eq!(next, Incoming::Closed(code)),
            Err(error) => ensure!(code == 1009, "{error}"),
        }
    }
    let mut twice = Socket::open(address, "").await?;
    for _ in 0..2 {
        twice.subscribe("1", "subscription { note { id } }").await?;
    }
    let mut next = twice.next().await?;
    while let Incoming::Message(message) = &next {
        assert_eq!(message["type"], "next", "{message}");
        next = twice.next().await?;
    }
    assert_eq!(next, Incoming::Closed(4409));
    mesh.stop().await;
    Ok(())
}

async fn queries_and_mutations_are_answered_once(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, OPEN_LAB).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    for (query, data) in [
        (
            "mutation { insert_note(docs: [{id: 1, text: \"a\"}]) { affected } }",
            json!({ "insert_note": { "affected": 1 } }),
        ),
        ("{ __typename note { text } }", json!({ "__typename": "Query", "note": [{ "text": "a" }] })),
    ] {
        socket.subscribe("q", query).await?;
        assert_eq!(socket.answer("q").await?, data);
        assert_eq!(socket.next().await?, Incoming::Message(json!({ "type": "complete", "id": "q" })));
    }
    socket.subscribe("q", "{ note { lost } }").await?;
    assert_eq!(socket.error("q").await?, "UNKNOWN_COLUMN");
    mesh.stop().await;
    Ok(())
}

async fn messages_have_the_limit_of_the_project(shape: Shape) -> anyhow::Result<()> {
    // A message of `size` bytes.
    let subscribe = |size: usize| {
        let message = |text: &str| {
            let payload = json!({ "query": "{ note { id } }", "variables": { "unused": text } });
            json!({ "type": "subscribe", "id": "1", "payload": payload }).to_string()
        };
        let text = message(&"x".repeat(size - message("").len()));
        assert_eq!(text.len(), size);
        Message::Text(text.into())
    };
    for (limits, most) in [("bodyBytes: 50000", 50_000), ("", 8 << 20)] {
        let (lab, resources) = (Some(NOTES.to_owned()), OPEN_LAB.to_owned());
        let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { lab, resources, limits, ..Setup::default() }).await?;
        let mut socket = Socket::open(mesh.client.address(), "").await?;
        for _ in 0..2 {
            socket.send_raw(subscribe(most)).await?;
            assert_eq!(socket.answer("1").await?, json!({ "note": [] }), "{limits}");
            assert_eq!(socket.next().await?, Incoming::Message(json!({ "type": "complete", "id": "1" })));
        }
        // The server may close before it has taken all of it.
        let _ = socket.send_raw(subscribe(most + 1)).await;
        match socket.next().await {
            Ok(next) => assert_eq!(next, Incoming::Closed(1009), "{limits}"),
            Err(error) => ensure!(most > 50_000, "{error}"),
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn a_client_that_closes_its_connection_is_told_so(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, OPEN_LAB).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    socket.subscribe("1", "subscription { note { id } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [] }));
    let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.send_raw(Message::Close(Some(frame))).await?;
    assert_eq!(socket.next().await?, Incoming::Closed(1000));
    mesh.stop().await;
    Ok(())
}

async fn a_client_that_reads_nothing_holds_up_nobody_and_gets_the_last_state(shape: Shape) -> anyhow::Result<()> {
    const STATES: i64 = 20;
    let (mesh, lab) = notes(shape, OPEN_LAB).await?;
    lab.run("INSERT INTO note VALUES (0, NULL, hex(zeroblob(1500000)))").await?;
    let (mut slow, mut fast) =
        (Socket::open(mesh.client.address(), "").await?, Socket::open(mesh.client.address(), "").await?);
    let query = "subscription { note { id text } }";
    slow.subscribe("1", query).await?;
    fast.subscribe("1", query).await?;
    let id = |answer: Value| answer["note"][0]["id"].as_i64().context("an id");
    assert_eq!(id(fast.answer("1").await?)?, 0);
    for state in 1..=STATES {
        lab.run(&format!("UPDATE note SET id = {state}")).await?;
        assert_eq!(id(fast.answer("1").await?)?, state, "the other client gets each state");
    }
    let mut received = vec![id(slow.answer("1").await?)?];
    while received.last() != Some(&STATES) {
        received.push(id(slow.answer("1").await?)?);
    }
    assert!(received.len() < 12, "most were not kept for it: {received:?}");
    assert!(received.is_sorted(), "{received:?}");
    mesh.stop().await;
    Ok(())
}

async fn what_cannot_be_followed_is_refused(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, OPEN_LAB).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    for (query, code) in [
        ("subscription { shown { id } }", "BAD_REQUEST"),
        ("subscription { note { id } tag { id } }", "BAD_REQUEST"),
        ("subscription { note @include(if: false) { id } }", "BAD_REQUEST"),
        ("subscription { __typename }", "BAD_REQUEST"),
        ("subscription { note @other { id } }", "UNKNOWN_DATABASE"),
        ("subscription { searched { text } }", "BAD_REQUEST"),
        ("subscription { note { lost } }", "UNKNOWN_COLUMN"),
        ("subscription { note(where: {id: {_eq: \"x\"}}) { id } }", "WRONG_TYPE"),
        ("subscription {", "BAD_REQUEST"),
    ] {
        socket.subscribe("1", query).await?;
        assert_eq!(socket.error("1").await?, code, "{query}");
    }
    socket.subscribe("1", "subscription { note_by_pk(id: 1) @lab { id } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note_by_pk": null }), "a directive may name the database");
    let published = "{ __type(name: \"Subscription\") { fields { name } } }";
    let (_, answer) = mesh.client.graphql(published, json!({})).await?;
    let fields = answer["data"]["__type"]["fields"].as_array().context("fields")?;
    assert!(fields.iter().any(|field| field["name"] == "note"), "{answer}");
    assert!(fields.iter().all(|field| field["name"] != "searched" && field["name"] != "shown"), "{answer}");
    let (status, answer) = mesh.client.graphql("subscription { note { id } }", json!({})).await?;
    assert_eq!((status, &answer["errors"][0]["extensions"]["code"]), (400, &json!("BAD_REQUEST")), "{answer}");
    mesh.stop().await;

    let mesh = lab(shape, Engine::Postgres, "CREATE VIEW note AS SELECT 1 AS id", OPEN_LAB).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    socket.subscribe("1", "subscription { note { id } }").await?;
    assert_eq!(socket.error("1").await?, "BAD_REQUEST");
    mesh.stop().await;
    Ok(())
}

async fn a_node_that_stops_says_so(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, OPEN_LAB).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    socket.subscribe("1", "subscription { note { id } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [] }));

    let ((), next) = tokio::join!(mesh.stop(), socket.next());

    assert_eq!(next?, Incoming::Closed(1012));
    Ok(())
}
