//! Live queries of many shapes equal their own re-run after every commit: with relations, conditions on relations, orders and
//! limits, also where the images of changes decide whom a change concerns.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    engine::{Database, Engine},
    mesh::{OPEN_LAB, Setup, Shape, TestMesh},
    socket::{Incoming, Socket},
};

scenarios!(answers_of_sqlite_equal_their_re_run, answers_of_postgres_equal_their_re_run);

const SCHEMA: &str = "
    CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, rank INTEGER);
    CREATE TABLE disc (id INTEGER PRIMARY KEY, singer_id INTEGER REFERENCES singer (id), v INTEGER, at TEXT);
    CREATE TABLE song (id INTEGER PRIMARY KEY, disc_id INTEGER REFERENCES disc (id), v INTEGER);
    INSERT INTO singer VALUES (1, 'a', 1), (2, 'b', 2), (3, 'A', 3), (4, NULL, 4), (5, 'b', NULL);
    INSERT INTO disc VALUES (1, 1, 1, 'x'), (2, 1, 2, NULL), (3, 2, 3, 'y'), (4, 3, 4, 'z'), (5, NULL, 5, 'x');
    INSERT INTO song VALUES (1, 1, 1), (2, 1, 2), (3, 2, 3), (4, 3, 4), (5, 4, 5), (6, NULL, 6);";

/// Live queries at once: of each table so many depend on some rows that images are followed. Some differ from others in their
/// values only, and are asked again together with them.
const SHAPES: [usize; 22] = [14, 12, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
/// How many of the rows that a relation leads to must pass.
const QUANTIFIERS: [&str; 3] = ["_some", "_none", "_every"];
/// Re-runs in one request.
const RERUNS: usize = 10;

/// Commits of one run: those that are promised are of all four together.
fn commits() -> usize {
    if std::env::var_os("PROVE").is_some() { 12_500 } else { 40 }
}

/// A shape of live queries.
struct Form {
    kind: u64,
    limit: u64,
    sort: String,
    quantifiers: [String; 2],
}

/// Numbers that a seed determines (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn one_of(&mut self, texts: &[&str]) -> String {
        texts[self.below(texts.len() as u64) as usize].to_owned()
    }

    /// What live queries of one shape have in common.
    fn form(&mut self) -> Form {
        Form {
            kind: self.below(11),
            limit: self.below(3) + 1,
            sort: self.one_of(&["v_desc, id_asc", "v_asc, id_desc", "id_asc"]),
            quantifiers: [self.one_of(&QUANTIFIERS), self.one_of(&QUANTIFIERS)],
        }
    }

    /// The selection of a live query, without the name by which it is told apart.
    fn selection(&mut self, Form { kind, limit, sort, quantifiers: [outer, inner] }: &Form) -> String {
        let (a, b, c) = (self.below(8), self.below(8), self.below(6) + 1);
        match kind {
            0 => format!(
                "singer(where: {{rank: {{_gte: {a}, _lt: {}}}}}, sort: [rank_desc, id_asc], limit: {limit}) {{ id name \
                 disc(where: {{v: {{_gt: {b}}}}}, sort: [{sort}], limit: 2) {{ id v song(sort: [id_asc]) {{ id v }} }} }}",
                a + 3
            ),
            1 => format!(
                "disc(where: {{singer_id: {{_eq: {c}}}}}, sort: [{sort}], limit: {limit}) {{ id v singer {{ name }} }}"
            ),
            2 => format!("disc_aggregate(where: {{v: {{_in: [{a}, {b}]}}}}) {{ count }}"),
            3 => format!(
                "song(where: {{disc: {{singer_id: {{_eq: {c}}}}}}}, sort: [{sort}], limit: {limit}) {{ id v disc {{ v }} }}"
            ),
            4 => format!(
                "singer_by_pk(id: {c}) {{ name disc(sort: [{sort}], limit: 2) {{ id v song(sort: [{sort}]) {{ v }} }} }}"
            ),
            5 => format!(
                "song(where: {{_or: [{{v: {{_eq: {a}}}}}, {{disc_id: {{_eq: {c}}}}}]}}, sort: [{sort}], limit: {limit}) \
                 {{ id disc_id v }}"
            ),
            6 => {
                format!(
                    "singer(where: {{disc: {{{outer}: {{v: {{_gt: {a}}}, song: {{{inner}: {{v: {{_lt: {b}}}}}}}}}}}}}, \
                     sort: [id_asc]) {{ id rank }}"
                )
            }
            7 => {
                let name = self.one_of(&["a", "A", "b"]);
                format!(
                    "singer(where: {{name: {{_eq: \"{name}\"}}}}, sort: [id_desc]) {{ id disc(sort: [id_asc]) {{ at }} }}"
                )
            }
            8 => format!(
                "disc(where: {{at: {{_gt: \"x\"}}, v: {{_lte: {a}}}}}, sort: [{sort}], limit: {limit}) {{ id at }}"
            ),
            9 => {
                format!("song(where: {{disc_id: {{_eq: null}}}}, sort: [{sort}], skip: 1, limit: {limit}) {{ id v }}")
            }
            _ => format!("song_aggregate(where: {{disc_id: {{_eq: {c}}}, v: {{_ne: {a}}}}}) {{ count }}"),
        }
    }

    /// A statement of a transaction, that a foreign key refuses at times.
    fn statement(&mut self) -> String {
        let (id, v) = (self.below(8) + 1, self.below(9));
        let v = if v == 8 { "NULL".to_owned() } else { v.to_string() };
        let parent = self.one_of(&["NULL", "1", "2", "3", "4", "5"]);
        let text = self.one_of(&["NULL", "'a'", "'A'", "'b'", "'x'", "'y'"]);
        match self.below(12) {
            0 => format!("UPDATE singer SET rank = {v} WHERE id = {id}"),
            1 => format!("UPDATE singer SET name = {text} WHERE id = {id}"),
            2 => format!("INSERT INTO singer VALUES ({id}, {text}, {v}) ON CONFLICT (id) DO UPDATE SET rank = {v}"),
            3 => format!("UPDATE disc SET v = {v}, at = {text} WHERE id = {id}"),
            4 => format!("UPDATE disc SET singer_id = {parent} WHERE id = {id}"),
            5 => {
                format!("INSERT INTO disc VALUES ({id}, {parent}, {v}, {text}) ON CONFLICT (id) DO UPDATE SET v = {v}")
            }
            6 => format!("UPDATE song SET v = {v} WHERE disc_id = {parent}"),
            7 => format!("UPDATE song SET disc_id = {parent} WHERE id = {id}"),
            8 => format!("DELETE FROM song WHERE id = {id}"),
            9 => {
                format!("DELETE FROM disc WHERE id = {id} AND NOT EXISTS (SELECT 1 FROM song WHERE disc_id = disc.id)")
            }
            10 => format!("UPDATE song SET v = v WHERE id = {id}"),
            _ => format!("INSERT INTO song VALUES ({id}, {parent}, {v}) ON CONFLICT (id) DO UPDATE SET v = {v}"),
        }
    }
}

/// What the selections answer, asked anew.
async fn re_run(mesh: &TestMesh, selections: &[String]) -> anyhow::Result<Vec<Value>> {
    let mut answers = Vec::new();
    for selections in selections.chunks(RERUNS) {
        let aliased = selections.iter().enumerate().map(|(index, one)| format!("q{index}: {}", one));
        let document = format!("{{ {} }}", aliased.collect::<Vec<_>>().join(" "));
        let (status, mut answer) = mesh.client.graphql(&document, json!({})).await?;
        ensure!(status == 200 && answer.get("errors").is_none(), "{document}: {answer}");
        answers.extend((0..selections.len()).map(|index| answer["data"][format!("q{index}")].take()));
    }
    Ok(answers)
}

/// Live queries and their last answers.
struct Live {
    socket: Socket,
    selections: Vec<String>,
    last: BTreeMap<usize, Value>,
}

impl Live {
    /// Takes what comes until all answers are these.
    async fn until(&mut self, expected: &[Value]) -> anyhow::Result<()> {
        while let Some(lagging) = (0..expected.len()).find(|index| self.last.get(index) != Some(&expected[*index])) {
            let told = self.socket.next().await.with_context(|| {
                let (selection, last) = (&self.selections[lagging], self.last.get(&lagging));
                format!("{selection}: told {last:?}, and is {}", expected[lagging])
            })?;
            let Incoming::Message(mut message) = told else { anyhow::bail!("the socket is closed") };
            ensure!(message["type"] == "next", "{message}");
            let index: usize = message["id"].as_str().context("an id")?.parse()?;
            let answer = message["payload"]["data"]["live"].take();
            ensure!(self.last.insert(index, answer.clone()).as_ref() != Some(&answer), "repeated: {answer}");
        }
        Ok(())
    }
}

async fn follows(shape: Shape, engine: Engine) -> anyhow::Result<()> {
    let setup = Setup { lab: Some(SCHEMA.to_owned()), resources: OPEN_LAB.to_owned(), ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    let database: Database = mesh.lab.clone().context("the lab")?;
    let mut random = Random(u64::from(std::process::id()));
    let seed = random.0;
    let mut selections = Vec::new();
    for count in SHAPES {
        let form = random.form();
        selections.extend((0..count).map(|_| random.selection(&form)));
    }
    let mut live = Live { socket: Socket::open(mesh.client.address(), "").await?, selections, last: BTreeMap::new() };
    for (index, selection) in live.selections.iter().enumerate() {
        let query = format!("subscription {{ live: {} }}", selection);
        live.socket.subscribe(&index.to_string(), &query).await?;
    }
    let expected = re_run(&mesh, &live.selections).await?;
    live.until(&expected).await?;
    for round in 0..commits() {
        let count = random.below(3) + 1;
        let statements: Vec<String> = (0..count).map(|_| random.statement()).collect();
        // A statement that the database refuses undoes its transaction.
        let _ = database.run(&format!("BEGIN; {}; COMMIT", statements.join("; "))).await;
        let expected = re_run(&mesh, &live.selections).await?;
        let told = live.until(&expected).await;
        told.with_context(|| format!("seed {seed}, round {round}: {}", statements.join("; ")))?;
    }
    mesh.stop().await;
    Ok(())
}

async fn answers_of_sqlite_equal_their_re_run(shape: Shape) -> anyhow::Result<()> {
    follows(shape, Engine::Sqlite).await
}

async fn answers_of_postgres_equal_their_re_run(shape: Shape) -> anyhow::Result<()> {
    follows(shape, Engine::Postgres).await
}
