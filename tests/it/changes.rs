//! Live queries beside writers that do not know of this server: on both engines nothing that is committed is missed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rusqlite::Connection;
use serde_json::{Value, json};
use tests::{
    engine::{Database, Engine},
    mesh::{OPEN_LAB, Setup, Shape, TestMesh},
    socket::{Incoming, Socket},
    token,
    watching::{Asked, Framing, Watching},
};
use tokio::{process::Command, sync::Barrier};
use tokio_postgres::{Client, NoTls};

scenarios!(
    writers_on_sqlite_are_all_followed,
    writers_on_postgres_are_all_followed,
    tables_of_postgres_are_followed_whatever_changes_them,
    a_table_that_is_being_written_is_followed_once_it_can_be,
    a_right_that_the_role_lacks_is_named,
    a_node_that_stops_leaves_nothing_in_the_database,
    programs_of_postgres_go_on_beside_live_queries,
    one_caller_has_the_rows_of_few_tables_followed,
    watches_and_live_queries_of_one_caller_have_one_limit_of_tables,
);

const WRITERS: i64 = 8;
const ROUNDS: i64 = 25;

const ITEMS: &str = "
    CREATE TABLE item (id INTEGER PRIMARY KEY, writer INTEGER NOT NULL, v INTEGER NOT NULL);
    CREATE TABLE other (id INTEGER PRIMARY KEY);";

/// Live queries on the items.
const QUERIES: [&str; 3] = [
    "item(sort: [id_asc]) { id writer v }",
    "item_aggregate(where: {v: {_gt: 20}}) { count }",
    "item(where: {v: {_gt: 40}}, sort: [v_desc, id_asc], limit: 3) { id }",
];

async fn lab(shape: Shape, engine: Engine, schema: &str) -> anyhow::Result<(TestMesh, Database)> {
    let setup = Setup { lab: Some(schema.to_owned()), resources: OPEN_LAB.to_owned(), ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    let database = mesh.lab.clone().context("the lab")?;
    Ok((mesh, database))
}

/// What a writer does in a round, up to its end: `None` where it is rolled back.
fn script(writer: i64, round: i64) -> (String, bool) {
    let (id, v) = (writer * 1000 + round % 5, round * 7 % 60 + writer);
    let script = format!(
        "INSERT INTO item VALUES ({id}, {writer}, {v}) ON CONFLICT (id) DO UPDATE SET v = item.v + {v};
         SAVEPOINT undone; DELETE FROM item WHERE writer = {writer}; ROLLBACK TO undone;
         SAVEPOINT kept; UPDATE item SET v = v - 1 WHERE writer = {writer} AND v > 50; RELEASE kept;
         DELETE FROM item WHERE writer = {writer} AND id <> {id} AND v % 3 = 0;"
    );
    (script, (writer + round) % 5 != 0)
}

fn ending(is_committed: bool) -> &'static str {
    if is_committed { "COMMIT" } else { "ROLLBACK" }
}

/// Live queries on one socket, and what each was answered last.
struct Followed {
    socket: Socket,
    last: Vec<Value>,
}

impl Followed {
    async fn begin(mesh: &TestMesh) -> anyhow::Result<Self> {
        let mut socket = Socket::open(mesh.client.address(), "").await?;
        for (index, query) in QUERIES.iter().enumerate() {
            socket.subscribe(&index.to_string(), &format!("subscription {{ {query} }}")).await?;
        }
        Ok(Self { socket, last: vec![Value::Null; QUERIES.len()] })
    }

    /// Takes answers until they are those of now. Nothing is written meanwhile, so one that was missed would not come.
    async fn is_up_to_date(&mut self, mesh: &TestMesh) -> anyhow::Result<()> {
        let mut now = Vec::new();
        for query in QUERIES {
            now.push(mesh.client.graphql(&format!("{{ {query} }}"), json!({})).await?.1["data"].take());
        }
        while self.last != now {
            let Incoming::Message(mut message) = self.socket.next().await.context(format!("{now:?}"))? else {
                anyhow::bail!("the socket is closed")
            };
            ensure!(message["type"] == "next", "{message}");
            let index: usize = message["id"].as_str().context("an id")?.parse()?;
            self.last[index] = message["payload"]["data"].take();
        }
        Ok(())
    }
}

async fn writers_on_sqlite_are_all_followed(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Sqlite, ITEMS).await?;
    let file = lab.url.strip_prefix("sqlite:").context("a file")?.to_owned();
    let mut followed = Followed::begin(&mesh).await?;
    for round in 0..ROUNDS {
        let writers = (0..WRITERS).map(|writer| {
            let file = file.clone();
            tokio::task::spawn_blocking(move || {
                let connection = Connection::open(file)?;
                connection.busy_timeout(Duration::from_secs(20))?;
                let (script, is_committed) = script(writer, round);
                connection.execute_batch(&format!("BEGIN IMMEDIATE; {script} {}", ending(is_committed)))
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await??;
        }
        followed.is_up_to_date(&mesh).await?;
    }
    mesh.stop().await;
    Ok(())
}

async fn connect(lab: &Database) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(&lab.url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// In each round one writer begins before the others and is committed after them.
async fn writers_on_postgres_are_all_followed(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Postgres, ITEMS).await?;
    let mut followed = Followed::begin(&mesh).await?;
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        clients.push(Arc::new(connect(&lab).await?));
    }
    for round in 0..ROUNDS {
        let (begun, others_ended) = (Arc::new(Barrier::new(clients.len())), Arc::new(Barrier::new(clients.len())));
        let writers = clients.iter().zip(0..WRITERS).map(|(client, writer)| {
            let (client, begun, others_ended) = (client.clone(), begun.clone(), others_ended.clone());
            tokio::spawn(async move {
                let is_long = writer == round % WRITERS;
                let (script, is_committed) = script(writer, round);
                if !is_long {
                    begun.wait().await;
                    client.batch_execute(&format!("BEGIN; {script} {}", ending(is_committed))).await?;
                    others_ended.wait().await;
                    return anyhow::Ok(());
                }
                client.batch_execute(&format!("BEGIN; {script}")).await?;
                begun.wait().await;
                others_ended.wait().await;
                Ok(client.batch_execute("COMMIT").await?)
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await??;
        }
        followed.is_up_to_date(&mesh).await?;
    }
    mesh.stop().await;
    Ok(())
}

async fn tables_of_postgres_are_followed_whatever_changes_them(shape: Shape) -> anyhow::Result<()> {
    let schema = "
        CREATE TABLE note (id integer PRIMARY KEY, text text);
        CREATE TABLE tag (id integer, note_id integer REFERENCES note ON DELETE CASCADE, name text) PARTITION BY LIST (id);
        CREATE TABLE tag_1 PARTITION OF tag FOR VALUES IN (1);
        CREATE TABLE other (id integer PRIMARY KEY);";
    let (mesh, lab) = lab(shape, Engine::Postgres, schema).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    socket.subscribe("1", "subscription { note(sort: [id_asc]) { id text tag { name } } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [] }));
    let (_, done) =
        mesh.client.graphql("mutation { insert_note(docs: [{id: 1, text: \"a\"}]) { affected } }", json!({})).await?;
    assert_eq!(done, json!({ "data": { "insert_note": { "affected": 1 } } }));
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1, "text": "a", "tag": [] }] }));
    lab.run("INSERT INTO tag_1 VALUES (1, 1, 'x'); INSERT INTO other VALUES (1)").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1, "text": "a", "tag": [{ "name": "x" }] }] }));
    // A partition that is made later, and a change that is not one of the answer.
    lab.run("CREATE TABLE tag_2 PARTITION OF tag FOR VALUES IN (2); UPDATE note SET text = 'a'").await?;
    lab.run("TRUNCATE tag; INSERT INTO tag_2 VALUES (2, 1, 'y')").await?;
    let expected = json!({ "note": [{ "id": 1, "text": "a", "tag": [{ "name": "y" }] }] });
    while socket.answer("1").await? != expected {}
    lab.run("SET session_replication_role TO replica; UPDATE tag SET name = 'z'").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 1, "text": "a", "tag": [{ "name": "z" }] }] }));
    lab.run("TRUNCATE note CASCADE").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [] }));
    lab.run(
        "BEGIN; ALTER TABLE note RENAME TO old; CREATE TABLE note (id integer PRIMARY KEY, text text); \
             ALTER TABLE tag DROP CONSTRAINT tag_note_id_fkey, ADD FOREIGN KEY (note_id) REFERENCES note; COMMIT",
    )
    .await?;
    lab.run("INSERT INTO note VALUES (7, 'c')").await?;
    assert_eq!(socket.answer("1").await?, json!({ "note": [{ "id": 7, "text": "c", "tag": [] }] }));
    mesh.stop().await;
    Ok(())
}

async fn a_table_that_is_being_written_is_followed_once_it_can_be(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Postgres, ITEMS).await?;
    let long = connect(&lab).await?;
    long.batch_execute("BEGIN; INSERT INTO item VALUES (1, 1, 1)").await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    socket.subscribe("1", "subscription { item { id } }").await?;
    // Who writes after us is not held up for long.
    lab.run("SET lock_timeout TO '5s'; INSERT INTO item VALUES (2, 2, 2); DELETE FROM item WHERE id = 2").await?;
    long.batch_execute("COMMIT").await?;
    assert_eq!(socket.answer("1").await?, json!({ "item": [{ "id": 1 }] }));
    lab.run("DELETE FROM item").await?;
    assert_eq!(socket.answer("1").await?, json!({ "item": [] }));
    mesh.stop().await;
    Ok(())
}

async fn a_right_that_the_role_lacks_is_named(shape: Shape) -> anyhow::Result<()> {
    let schema = "
        DO $$ BEGIN CREATE ROLE changes_reader LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
        CREATE TABLE note (id integer PRIMARY KEY);
        GRANT SELECT ON note TO changes_reader;";
    let setup = Setup {
        lab: Some(schema.to_owned()),
        resources: OPEN_LAB.to_owned(),
        role: Some("changes_reader".to_owned()),
        ..Setup::default()
    };
    let mesh = TestMesh::with(shape, Engine::Postgres, &setup).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    socket.subscribe("1", "subscription { note { id } }").await?;
    let Incoming::Message(message) = socket.next().await? else { anyhow::bail!("the socket is closed") };
    let error = &message["payload"][0];
    assert_eq!(error["extensions"]["code"], "BAD_REQUEST", "{message}");
    let why = "changes of note cannot be followed: role changes_reader must own public.note to make triggers, \
               its owner is postgres";
    assert_eq!(error["message"], why);
    // Reads are not refused.
    let (_, answer) = mesh.client.graphql("{ note { id } }", json!({})).await?;
    assert_eq!(answer, json!({ "data": { "note": [] } }));
    mesh.stop().await;
    Ok(())
}

async fn a_node_that_stops_leaves_nothing_in_the_database(shape: Shape) -> anyhow::Result<()> {
    let ours = "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE tgname LIKE 'perigee%'";
    let (mesh, lab) = lab(shape, Engine::Postgres, ITEMS).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    socket.subscribe("1", "subscription { item { id } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "item": [] }));
    assert_eq!(lab.number(ours).await?, 1, "the other table is not captured");

    mesh.stop().await;

    assert_eq!(lab.number(ours).await?, 0);
    assert_eq!(lab.number("SELECT count(*) FROM pg_namespace WHERE nspname = 'perigee_changes'").await?, 0);
    Ok(())
}

/// Runs a program of PostgreSQL's packages, which must end well.
async fn program(name: &str, args: &[&str], url: &str) -> anyhow::Result<String> {
    let output = Command::new(name).args(args).arg(url).kill_on_drop(true).output().await.context(name.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && !said.contains("ERROR"), "{name}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Tables of `pgbench`, one with partitions and one without a key.
const BENCH: &str = "
    CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
    CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
    CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) PARTITION BY RANGE (aid);
    CREATE TABLE pgbench_accounts_1 PARTITION OF pgbench_accounts FOR VALUES FROM (MINVALUE) TO (50000);
    CREATE TABLE pgbench_accounts_2 PARTITION OF pgbench_accounts FOR VALUES FROM (50000) TO (MAXVALUE);
    CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
    INSERT INTO pgbench_branches VALUES (1, 0);
    INSERT INTO pgbench_tellers SELECT n, 1, 0 FROM generate_series(1, 10) n;
    INSERT INTO pgbench_accounts SELECT n, 1, 0 FROM generate_series(1, 100000) n;
    DO $$ BEGIN CREATE ROLE changes_dumper LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO changes_dumper;";

/// A load of many clients, and a dump by a role that may only read.
async fn programs_of_postgres_go_on_beside_live_queries(shape: Shape) -> anyhow::Result<()> {
    let (mesh, lab) = lab(shape, Engine::Postgres, BENCH).await?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    let queries = [
        (
            "pgbench_accounts_aggregate(where: {abalance: {_gt: 0}}) { count }",
            "SELECT count(*) FROM pgbench_accounts WHERE abalance > 0",
        ),
        ("pgbench_history_aggregate { count }", "SELECT count(*) FROM pgbench_history"),
        ("pgbench_branches { bbalance }", "SELECT bbalance::bigint FROM pgbench_branches"),
    ];
    for (id, (query, _)) in queries.iter().enumerate() {
        socket.subscribe(&id.to_string(), &format!("subscription {{ {query} }}")).await?;
    }
    for _ in queries {
        let first = socket.next().await?;
        assert!(matches!(&first, Incoming::Message(message) if message["type"] == "next"), "{first:?}");
    }

    let load = ["--no-vacuum", "--client=8", "--transactions=50"];
    let ran = program("pgbench", &load, &lab.url).await?;
    assert!(ran.contains("400/400"), "{ran}");
    let dump = program("pg_dump", &[], &lab.url_of("changes_dumper")?).await?;
    assert!(dump.contains("CREATE TRIGGER perigee_changes_"), "the tables are captured");
    let mut expected = Vec::new();
    for (_, query) in queries {
        expected.push(lab.number(query).await?);
    }
    let mut last = [0; 3];
    while last[..] != expected {
        let Incoming::Message(message) = socket.next().await.context(format!("{expected:?}"))? else {
            anyhow::bail!("the socket is closed")
        };
        let index: usize = message["id"].as_str().context("an id")?.parse()?;
        last[index] = number(&message["payload"]["data"]).context(message.to_string())?;
    }
    mesh.stop().await;
    let dump = program("pg_dump", &[], &lab.url).await?;
    assert!(!dump.contains("perigee_changes"), "a node that stops leaves nothing to a dump");
    Ok(())
}

/// The only number in an answer.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Object(fields) => fields.values().find_map(number),
        Value::Array(items) => items.iter().find_map(number),
        other => other.as_i64(),
    }
}

/// Live queries on some rows of a table, from which on the images of its changes are followed.
const SOME_ROWS: i64 = 9;

/// Live queries of one caller, each on a row of `table`.
async fn of_rows(mesh: &TestMesh, token: &str, table: &str) -> anyhow::Result<Socket> {
    let mut socket = Socket::open(mesh.client.address(), token).await?;
    for id in 1..=SOME_ROWS {
        let id = id.to_string();
        socket.subscribe(&id, &format!("subscription {{ {table}_by_pk(id: {id}) {{ v }} }}")).await?;
        socket.answer(&id).await?;
    }
    Ok(socket)
}

/// Changes the first row of `table`, and takes the answer.
async fn change(lab: &Database, socket: &mut Socket, table: &str, v: u32) -> anyhow::Result<()> {
    lab.run(&format!("UPDATE {table} SET v = {v} WHERE id = 1")).await?;
    let answer = json!({ format!("{table}_by_pk"): { "v": v } });
    while socket.answer("1").await? != answer {}
    Ok(())
}

/// Transactions whose images were looked at, and that concerned a live query.
async fn looked_at(mesh: &TestMesh) -> anyhow::Result<u64> {
    let text = mesh.metrics().await?;
    let prefix = "perigee_live_changes_total{concerns=\"some\"} ";
    text.lines().find_map(|line| line.strip_prefix(prefix)).map_or(Ok(0), |count| Ok(count.parse()?))
}

async fn one_caller_has_the_rows_of_few_tables_followed(shape: Shape) -> anyhow::Result<()> {
    const TABLES: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, v INTEGER);
        CREATE TABLE part (id INTEGER PRIMARY KEY, v INTEGER);
        INSERT INTO item VALUES (1, 0); INSERT INTO part VALUES (1, 0);";
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let (lab, resources) = (Some(TABLES.to_owned()), OPEN_LAB.to_owned());
        let setup = Setup { lab, resources, node_limits: "followed_tables: 1", ..Setup::default() };
        let mesh = TestMesh::with(shape, engine, &setup).await?;
        let lab = mesh.lab.clone().context("the lab")?;
        let until_looked_at = async |socket: &mut Socket, table: &str| {
            let (before, mut v) = (looked_at(&mesh).await?, 0);
            while looked_at(&mesh).await? == before {
                v += 1;
                ensure!(v < 400, "{engine:?}: the images of {table} are not followed");
                change(&lab, socket, table, v).await?;
            }
            anyhow::Ok(())
        };
        let mut items = of_rows(&mesh, "", "item").await?;
        until_looked_at(&mut items, "item").await?;
        let mut parts = of_rows(&mesh, "", "part").await?;
        let before = looked_at(&mesh).await?;
        for v in 1..=20 {
            change(&lab, &mut parts, "part", v).await?;
        }
        assert_eq!(looked_at(&mesh).await?, before, "{engine:?}: a second table of the same caller");
        let text = mesh.metrics().await?;
        ensure!(text.contains("perigee_shed_total{limit=\"followed_tables\"} 9"), "{engine:?}");
        // Another caller has a table of their own.
        let mut others = of_rows(&mesh, &token::sign(json!({ "id": "ann" })), "part").await?;
        until_looked_at(&mut others, "part").await?;
        mesh.stop().await;
    }
    Ok(())
}

async fn watches_and_live_queries_of_one_caller_have_one_limit_of_tables(shape: Shape) -> anyhow::Result<()> {
    const TABLES: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, v INTEGER);
        CREATE TABLE part (id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO item VALUES (1, 0);";
    let (lab, resources) = (Some(TABLES.to_owned()), OPEN_LAB.to_owned());
    let setup = Setup { lab, resources, node_limits: "followed_tables: 1", ..Setup::default() };
    let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
    let ann = token::sign(json!({ "id": "ann" }));
    let watch = async |table: &'static str, token: &str| {
        let asked = Asked { find: json!({}), table, columns: &["id", "v"], ..Asked::default() };
        Watching::begin(Framing::Grpc, &mesh.client, token, &asked).await
    };
    let mut first = watch("item", "").await?.map_err(anyhow::Error::msg)?;
    first.until_ready().await?;
    let mut again = watch("item", "").await?.map_err(anyhow::Error::msg)?;
    again.until_ready().await?;
    let refused = match watch("part", "").await? {
        Err(code) => code,
        Ok(mut watching) => watching.next().await?.expect_err("it is refused"),
    };
    assert_eq!(refused, "TOO_MANY");
    let mut others = watch("part", &ann).await?.map_err(anyhow::Error::msg)?;
    others.until_ready().await?;
    // One that counts for a table of a live query goes on beside it.
    let parts = of_rows(&mesh, &ann, "part").await?;
    drop(parts);
    drop((first, again));
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut watching = match watch("part", "").await? {
            Ok(watching) => watching,
            Err(_) if Instant::now() < until => continue,
            Err(code) => anyhow::bail!("{code}"),
        };
        match watching.until_ready().await {
            Ok(_) => break,
            Err(error) => ensure!(Instant::now() < until, "{error}"),
        }
    }
    mesh.stop().await;
    Ok(())
}
