//! Watches of tables: what is told of each change fits what was told before, whoever writes, joins, goes and comes again.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use mesh::{Call, Code, Fault};
use proto::{
    Links,
    link::Messages,
    realtime::{Event, Row, WatchRequest, WatchResponse},
};
use query::{Comparison, Field, Filter, Node, Quantifier, Read, Shape as ReadShape, Typed};
use serde_json::{Value, json};
use tests::{
    engine::{Database, Engine},
    mesh::{ENGINES, OPEN_LAB, Setup, Shape, TestMesh},
    token,
};

scenarios!(
    a_watch_follows_whoever_writes,
    watches_are_exact_beside_writers,
    a_watch_goes_on_within_a_large_transaction,
    a_watch_that_was_away_is_told_of_a_gap,
    rows_that_the_database_decides_on_are_followed,
    a_caller_who_may_read_less_is_told_so,
    what_cannot_be_watched_is_refused,
    watches_that_nobody_reads_hold_up_nobody,
);

const NOTES: &str = "
    CREATE TABLE note (id INTEGER PRIMARY KEY, owner TEXT, v INTEGER NOT NULL);
    CREATE TABLE tag (id INTEGER PRIMARY KEY, note_id INTEGER REFERENCES note (id), name TEXT);
    CREATE TABLE keyless (v INTEGER);
    CREATE VIEW shown AS SELECT id FROM note;";

/// A table of the engine that cannot be followed, and why.
fn unfollowed(engine: Engine) -> (&'static str, &'static str) {
    match engine {
        Engine::Mysql => ("CREATE TABLE unfollowed (id INTEGER PRIMARY KEY) ENGINE = MyISAM;", "MyISAM"),
        Engine::Sqlite => ("CREATE VIRTUAL TABLE unfollowed USING fts5(text);", "virtual table"),
        Engine::Postgres => ("CREATE UNLOGGED TABLE unfollowed (id INTEGER PRIMARY KEY);", "unlogged"),
    }
}

async fn lab(shape: Shape, engine: Engine, resources: &str) -> anyhow::Result<(TestMesh, Database)> {
    let lab = Some(format!("{NOTES}{}", unfollowed(engine).0));
    let setup = Setup { lab, resources: resources.to_owned(), ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    let database = mesh.lab.clone().context("the lab")?;
    Ok((mesh, database))
}

fn request(table: &str, token: &str, filter: Filter) -> WatchRequest {
    let node = Node { filter, ..Node::new(ReadShape::Many, [Field::columns()]) };
    WatchRequest {
        project: "shop".into(),
        token: token.into(),
        read: Read { database: "lab".into(), table: table.into(), node },
        before: Vec::new(),
        skip_initial: false,
        after: String::new(),
    }
}

fn notes(filter: Filter) -> WatchRequest {
    request("note", "", filter)
}

fn compare(column: &str, comparison: Comparison, value: Typed) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value }
}

/// What a client knows of the rows, and where it goes on.
#[derive(Default)]
struct Known {
    rows: BTreeMap<String, Value>,
    is_ready: bool,
    position: String,
    messages: usize,
    resyncs: Vec<String>,
}

struct Watch {
    messages: Messages<WatchResponse>,
    known: Known,
}

impl Watch {
    async fn begin(mesh: &TestMesh, request: WatchRequest) -> Result<Self, Fault> {
        let links = mesh.links().map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        let messages = links.realtime().watch(&Call::begin(None, None, None), request).await.map_err(Fault::from)?;
        Ok(Self { messages, known: Known::default() })
    }

    /// Begins again after the last message that was taken.
    async fn resume(self, mesh: &TestMesh, request: WatchRequest) -> anyhow::Result<Self> {
        let known = Known { is_ready: false, ..self.known };
        drop(self.messages);
        let request = WatchRequest { after: known.position.clone(), ..request };
        Ok(Self { known, ..Watch::begin(mesh, request).await? })
    }

    /// Takes the next message, which has to fit what is known. The code of the fault that ends the watch is an error.
    async fn next(&mut self) -> anyhow::Result<WatchResponse> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.messages.next()).await.context("a message")?;
        let message = next.context("a watch ends with a fault")?.map_err(Fault::from)?;
        self.known.apply(&message)?;
        Ok(message)
    }

    async fn until(&mut self, is_there: impl Fn(&Known) -> bool) -> anyhow::Result<()> {
        while !is_there(&self.known) {
            self.next().await?;
        }
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        self.until(|known| known.is_ready).await
    }

    /// The code of the fault that ends it.
    async fn end(&mut self) -> anyhow::Result<Code> {
        loop {
            if let Err(error) = self.next().await {
                return Ok(error.downcast::<Fault>()?.code);
            }
        }
    }
}

impl Known {
    fn apply(&mut self, message: &WatchResponse) -> anyhow::Result<()> {
        ensure!(message.position != self.position || !self.is_ready, "each message has a position of its own");
        self.position.clone_from(&message.position);
        self.messages += 1;
        match message.event.as_ref().context("an event")? {
            Event::Initial(row) => {
                let (key, now, _) = parts(row)?;
                ensure!(self.rows.insert(key.clone(), now).is_none(), "initial {key} twice");
            }
            Event::Ready(_) => self.is_ready = true,
            Event::Resync(resync) => {
                (self.is_ready, self.resyncs) = (false, [self.resyncs.clone(), vec![resync.reason.clone()]].concat());
                self.rows.clear();
            }
            Event::Insert(row) => {
                let (key, now, before) = parts(row)?;
                ensure!(before.is_null() && self.rows.insert(key.clone(), now).is_none(), "insert of known {key}");
            }
            Event::Update(row) => {
                let (key, now, before) = parts(row)?;
                let known = self.rows.insert(key.clone(), now).unwrap_or_default();
                ensure!(known == before, "update of {key}: before {before}, known {known}");
            }
            Event::Delete(row) => {
                let (key, _, before) = parts(row)?;
                let known = self.rows.remove(&key).unwrap_or_default();
                ensure!(known == before && !before.is_null(), "delete of {key}: before {before}, known {known}");
            }
        }
        Ok(())
    }
}

/// The key, the row and the row before.
fn parts(row: &Row) -> anyhow::Result<(String, Value, Value)> {
    let before = if row.before.is_empty() { Value::Null } else { serde_json::from_slice(&row.before)? };
    Ok((String::from_utf8(row.key.to_vec())?, serde_json::from_slice(&row.row)?, before))
}

async fn a_watch_follows_whoever_writes(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB).await?;
        lab.run("INSERT INTO note VALUES (1, 'ann', 1)").await?;
        let mut watch = Watch::begin(&mesh, notes(Filter::TRUE)).await?;
        watch.ready().await?;
        assert_eq!(watch.known.rows.len(), 1);
        let (_, done) = mesh
            .client
            .graphql("mutation { insert_note(docs: [{id: 2, owner: \"bob\", v: 2}]) { affected } }", json!({}))
            .await?;
        assert_eq!(done, json!({ "data": { "insert_note": { "affected": 1 } } }));
        let Some(Event::Insert(row)) = watch.next().await?.event else { bail!("an insert") };
        assert_eq!(row.row, r#"{"id":2,"owner":"bob","v":2}"#);
        lab.run("UPDATE note SET id = 5, v = 7 WHERE id = 1; DELETE FROM note WHERE id = 2").await?;
        let Some(Event::Delete(row)) = watch.next().await?.event else { bail!("a delete") };
        assert_eq!((&row.row[..], &row.key[..]), (&br#"{"id":1,"owner":null,"v":null}"#[..], &br#"{"id":1}"#[..]));
        let Some(Event::Insert(row)) = watch.next().await?.event else { bail!("an insert") };
        assert_eq!(row.row, r#"{"id":5,"owner":"ann","v":7}"#);
        watch.until(|known| known.rows.len() == 1).await?;
        lab.run("INSERT INTO note VALUES (9, NULL, 9)").await?;
        let mut watch = watch.resume(&mesh, notes(Filter::TRUE)).await?;
        watch.until(|known| known.rows.len() == 2).await?;
        assert_eq!(watch.known.resyncs, Vec::<String>::new());
        drop(watch);
        mesh.stop().await;
    }
    Ok(())
}

/// Statements of a writer in a round.
fn script(engine: Engine, writer: i64, round: i64) -> String {
    let (id, v) = (writer * 1000 + round % 7, round * 7 % 60 + writer);
    let end = if (writer + round) % 5 == 0 { "ROLLBACK" } else { "COMMIT" };
    let conflict = match engine {
        Engine::Sqlite | Engine::Postgres => "ON CONFLICT (id) DO UPDATE SET",
        Engine::Mysql => "ON DUPLICATE KEY UPDATE",
    };
    format!(
        "BEGIN;
         INSERT INTO note VALUES ({id}, 'w{writer}', {v}) {conflict} v = note.v + 1;
         SAVEPOINT undone; DELETE FROM note WHERE owner = 'w{writer}'; ROLLBACK TO undone;
         UPDATE note SET v = v - 1 WHERE owner = 'w{writer}' AND v > 50;
         UPDATE note SET id = id + 100 WHERE owner = 'w{writer}' AND id = {id} AND v % 4 = 0 AND NOT EXISTS
             (SELECT 1 FROM note AS taken WHERE taken.id = {id} + 100);
         DELETE FROM note WHERE owner = 'w{writer}' AND id <> {id} AND v % 3 = 0;
         {end};"
    )
}

async fn watches_are_exact_beside_writers(shape: Shape) -> anyhow::Result<()> {
    let (writers, rounds) = match std::env::var_os("PROVE") {
        Some(_) => (8, 200),
        None => (4, 40),
    };
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB).await?;
        let writers = (0..writers).map(|writer| {
            let lab = lab.clone();
            async move {
                for round in 0..rounds {
                    match lab.run(&script(engine, writer, round)).await {
                        // MariaDB locks the rows that a condition looks at: the transaction is rolled back.
                        Err(error) if engine == Engine::Mysql && error.to_string().contains("Deadlock") => {}
                        done => done?,
                    }
                }
                anyhow::Ok(())
            }
        });
        let filters = [
            Filter::TRUE,
            compare("v", Comparison::Gt, Typed::Int(20)),
            compare("owner", Comparison::Eq, Typed::Text("w1".to_owned())),
            Filter::Not(Box::new(Filter::In { column: "v".to_owned(), values: vec![Typed::Int(3), Typed::Int(4)] })),
        ];
        let watches = filters.iter().cycle().take(8).enumerate().map(|(number, filter)| {
            let mesh = &mesh;
            async move {
                let asked = request("note", "", filter.clone());
                let mut watch = Watch::begin(mesh, asked.clone()).await?;
                // Goes and comes again after some messages, others after more.
                for _ in 0..3 {
                    let until = watch.known.messages + 10 + number;
                    watch.until(|known| known.is_ready && known.messages >= until || is_over(known)).await?;
                    watch = watch.resume(mesh, asked.clone()).await?;
                }
                watch.until(is_over).await?;
                anyhow::Ok((filter.clone(), watch.known))
            }
        });
        let written = async {
            futures::future::try_join_all(writers).await?;
            // Passes every filter but that of an owner, who has one too.
            lab.run("INSERT INTO note VALUES (-1, 'w1', 99)").await
        };
        let (known, ()) = tokio::try_join!(futures::future::try_join_all(watches), written)?;
        for (filter, known) in known {
            let mut fresh = Watch::begin(&mesh, request("note", "", filter.clone())).await?;
            fresh.ready().await?;
            assert_eq!(known.rows, fresh.known.rows, "{filter:?}");
            assert_eq!(known.resyncs, Vec::<String>::new(), "{filter:?}");
        }
        mesh.stop().await;
    }
    Ok(())
}

/// In PostgreSQL its log tells it in several messages, and keys change at the ends of them.
async fn a_watch_goes_on_within_a_large_transaction(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB).await?;
        let all = || notes(Filter::TRUE);
        let mut watch = Watch::begin(&mesh, all()).await?;
        watch.ready().await?;
        let text = "x".repeat(20_000);
        let rows: Vec<String> = (1..=120).map(|id| format!("({id}, '{text}', {id})")).collect();
        lab.run(&format!(
            "BEGIN; INSERT INTO note VALUES {}; UPDATE note SET id = id + 1000; DELETE FROM note WHERE id < 1050;
             INSERT INTO note VALUES (-1, 'w1', 99); COMMIT",
            rows.join(", ")
        ))
        .await?;
        let mut left = Vec::new();
        while !is_over(&watch.known) {
            watch.next().await?;
            if watch.known.messages % 9 == 0 {
                left.push(Known {
                    rows: watch.known.rows.clone(),
                    position: watch.known.position.clone(),
                    ..Known::default()
                });
            }
        }
        assert_eq!(watch.known.messages, 1 + 120 + 240 + 49 + 1, "{engine:?}");
        let expected = std::mem::take(&mut watch.known.rows);
        assert_eq!(expected.len(), 72);
        // Of what the others read, then of the log alone.
        let mut kept = Some(watch);
        for _ in 0..2 {
            for known in &left {
                let Known { rows, position, .. } = known;
                let known = Known { rows: rows.clone(), position: position.clone(), ..Known::default() };
                let gone = WatchRequest { after: position.clone(), ..all() };
                let mut again = Watch { known, ..Watch::begin(&mesh, gone).await? };
                again.until(is_over).await?;
                assert_eq!((&again.known.rows, &again.known.resyncs), (&expected, &Vec::new()), "{engine:?}");
            }
            kept.take();
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn a_watch_that_was_away_is_told_of_a_gap(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Postgres, OPEN_LAB).await?;
    lab.run("INSERT INTO note VALUES (1, 'ann', 1)").await?;
    // Others read on, or nobody does.
    for others in [1, 0] {
        let all = || notes(Filter::TRUE);
        let mut kept = Vec::new();
        let mut away = Watch::begin(&mesh, all()).await?;
        away.ready().await?;
        for _ in 0..others {
            let mut watch = Watch::begin(&mesh, all()).await?;
            watch.ready().await?;
            kept.push(watch);
        }
        lab.run("TRUNCATE note CASCADE").await?;
        for watch in &mut kept {
            watch.until(|known| known.is_ready && known.resyncs == ["truncate"]).await?;
        }
        let mut again = away.resume(&mesh, all()).await?;
        let first = again.next().await?.event;
        // Where nobody was told of the gap, the log may not know of it yet.
        assert!(others == 0 || matches!(first, Some(Event::Resync(_))), "{first:?}");
        again.until(|known| known.is_ready && !known.resyncs.is_empty()).await?;
        assert_eq!((again.known.rows.len(), again.known.resyncs.len()), (0, 1));
        lab.run("INSERT INTO note VALUES (1, 'ann', 1)").await?;
        again.until(|known| known.rows.len() == 1).await?;
    }
    mesh.stop().await;
    Ok(())
}

/// Whether the last row of the writers is known.
fn is_over(known: &Known) -> bool {
    known.is_ready && known.rows.contains_key(r#"{"id":-1}"#)
}

async fn rows_that_the_database_decides_on_are_followed(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB).await?;
        lab.run("INSERT INTO note VALUES (1, 'ann', 1), (2, 'bob', 2)").await?;
        let filter = Box::new(compare("name", Comparison::Eq, Typed::Text("x".to_owned())));
        let relation = "tag".to_owned();
        let tagged = Filter::Related { relation, long_name: None, quantifier: Quantifier::Some, filter };
        let mut watch = Watch::begin(&mesh, notes(tagged.clone())).await?;
        watch.ready().await?;
        assert_eq!(watch.known.rows.len(), 0);
        lab.run("INSERT INTO tag VALUES (1, 1, 'x')").await?;
        let Some(Event::Update(row)) = watch.next().await?.event else { bail!("an update") };
        assert_eq!((&row.row[..], row.before.len()), (&br#"{"id":1,"owner":"ann","v":1}"#[..], 0));
        lab.run("UPDATE note SET v = 7 WHERE id = 1").await?;
        let Some(Event::Update(row)) = watch.next().await?.event else { bail!("an update") };
        assert_eq!(row.before, r#"{"id":1,"owner":"ann","v":1}"#);
        lab.run("UPDATE tag SET note_id = 2").await?;
        watch.until(|known| known.rows.keys().eq([r#"{"id":2}"#])).await?;
        // What the rows were then is not known any more.
        let mut again = watch.resume(&mesh, notes(tagged)).await?;
        again.until(|known| known.is_ready && known.resyncs == ["position"]).await?;
        assert_eq!(again.known.rows.len(), 1);
        drop(again);
        mesh.stop().await;
    }
    Ok(())
}

/// Rules in which `read` decides who sees notes.
fn rules(read: &str) -> String {
    format!(
        "---\nkind: table\nmeta: {{ project: shop, database: lab, id: note }}\nspec: {{ rules: {{ read: {read} }} }}\n"
    )
}

async fn a_caller_who_may_read_less_is_told_so(shape: Shape) -> anyhow::Result<()> {
    let own = rules(r#"{ rule: match, type: string, eval: "==", f1: args.find.owner, f2: args.auth.id }"#);
    let (mesh, lab) = lab(shape, Engine::Sqlite, &rules("{ rule: authenticated }")).await?;
    lab.run("INSERT INTO note VALUES (1, 'ann', 1), (2, 'bob', 2)").await?;
    let ann = token::sign(json!({ "id": "ann" }));
    let asked = || request("note", &ann, Filter::TRUE);
    assert_eq!(
        Watch::begin(&mesh, notes(Filter::TRUE)).await.err().map(|fault| fault.code),
        Some(Code::Unauthenticated)
    );
    let mut watch = Watch::begin(&mesh, asked()).await?;
    watch.ready().await?;
    assert_eq!(watch.known.rows.len(), 2);
    mesh.edit(&own)?;
    watch.until(|known| known.resyncs == ["rules"] && known.is_ready).await?;
    assert_eq!(watch.known.rows.keys().collect::<Vec<_>>(), [r#"{"id":1}"#]);
    lab.run("UPDATE note SET v = 7 WHERE id = 2; INSERT INTO note VALUES (3, 'ann', 3)").await?;
    let Some(Event::Insert(row)) = watch.next().await?.event else { bail!("an insert") };
    assert_eq!(row.key, r#"{"id":3}"#);

    let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, 2);
    let mut brief = Watch::begin(&mesh, request("note", &short, Filter::TRUE)).await?;
    assert_eq!(brief.end().await?, Code::TokenExpired);
    assert_eq!(brief.known.rows.len(), 2);
    mesh.edit(&rules("{ rule: deny }"))?;
    assert_eq!(watch.end().await?, Code::Denied);
    assert_eq!(Watch::begin(&mesh, asked()).await.err().map(|fault| fault.code), Some(Code::Denied));
    mesh.stop().await;
    Ok(())
}

async fn what_cannot_be_watched_is_refused(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, _) = lab(shape, engine, OPEN_LAB).await?;
        let refused = [("shown", "view"), ("keyless", "no primary key"), ("unfollowed", unfollowed(engine).1)];
        for (table, why) in refused {
            let fault = Watch::begin(&mesh, request(table, "", Filter::TRUE)).await.err().context("a refusal")?;
            assert_eq!(fault.code, Code::BadRequest);
            assert!(fault.message.contains(why), "{fault}");
        }
        mesh.stop().await;
    }
    Ok(())
}

/// More of them than fit into what a connection between two nodes has in flight.
async fn watches_that_nobody_reads_hold_up_nobody(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Sqlite, OPEN_LAB).await?;
    lab.run(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
         INSERT INTO note SELECT i, hex(zeroblob(50000)), i FROM n",
    )
    .await?;
    let mut unread = Vec::new();
    for _ in 0..12 {
        unread.push(Watch::begin(&mesh, notes(Filter::TRUE)).await?);
    }
    for id in 1..=20 {
        let one = compare("id", Comparison::Eq, Typed::Int(id));
        let mut watch = Watch::begin(&mesh, notes(one)).await?;
        watch.ready().await?;
        assert_eq!(watch.known.rows.len(), 1);
    }
    for watch in &mut unread {
        watch.ready().await?;
        assert_eq!(watch.known.rows.len(), 50);
    }
    mesh.stop().await;
    Ok(())
}
