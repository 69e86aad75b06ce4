//! The comparison: all subjects of a scenario in turn, several rounds, medians at the end.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use prost_types::{Struct, Value, value::Kind};
use proto::api::v1::{CreateRequest, ReadRequest, Related, Select};

use crate::{
    load::{self, Requests, Round},
    report::{self, Rounds},
    subject::{self, Server},
};

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// The perigee binary.
    #[arg(long)]
    perigee: PathBuf,
    /// Chinook as SQL scripts for both engines.
    #[arg(long)]
    chinook: PathBuf,
    /// A PostgreSQL server on which a database may be made.
    #[arg(long, env = "TEST_POSTGRES_URL")]
    postgres: String,
    /// Process id of that server, for its processor time.
    #[arg(long)]
    postmaster: u32,
    /// Folder of pgbench.
    #[arg(long)]
    pgbench: PathBuf,
    /// Rounds of each subject.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a round.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

const SCENARIOS: [(&str, &str); 4] = [
    ("point", "one album by its key"),
    ("nested", "20 artists, their albums, their tracks"),
    ("list", "50 tracks filtered and sorted"),
    ("insert", "one row, answered as stored"),
];

/// Runs everything and prints it.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let home = folder.path();
    let url = prepare_postgres(&options).await?;
    let file = prepare_sqlite(&options, home)?;
    fs::create_dir_all(home.join("pg"))?;
    fs::create_dir_all(home.join("lite"))?;
    let resources = subject::write_resources(&home.join("pg"), "postgres", &url)?;
    subject::write_resources(&home.join("lite"), "sqlite", &format!("sqlite:{}", file.display()))?;
    let token = token(&options.perigee, &resources)?;
    first_answer(&options, home, &token).await?;

    let bench = Bench { url, file, token, home: home.to_owned(), options };
    for (scenario, about) in SCENARIOS {
        if scenario.contains(&bench.options.only) {
            report::print(&format!("{scenario}: {about} (PostgreSQL)"), &bench.on_postgres(scenario).await?);
            report::print(&format!("{scenario}: {about} (SQLite)"), &bench.on_sqlite(scenario).await?);
        }
    }
    Ok(())
}

struct Bench {
    options: Options,
    url: String,
    file: PathBuf,
    token: String,
    home: PathBuf,
}

impl Bench {
    async fn on_postgres(&self, scenario: &str) -> anyhow::Result<BTreeMap<String, Rounds>> {
        let home = self.home.join("pg");
        let perigee = &self.options.perigee;
        let near = Server::near(perigee, &home)?;
        let split = Server::split(perigee, &home)?;
        let sqlx = Server::by_hand("sqlx", &self.url)?;
        let pipelined = Server::by_hand("postgres", &self.url)?;
        let subjects = [
            ("b sqlx", &sqlx, by_hand_requests(scenario)),
            ("c pipelined", &pipelined, by_hand_requests(scenario)),
            ("d perigee graphql", &near, graphql_requests(scenario, &self.token)),
            ("d perigee rest", &near, rest_requests(scenario, &self.token)),
            ("d perigee grpc", &near, grpc_requests(scenario, &self.token)),
            ("e perigee split", &split, graphql_requests(scenario, &self.token)),
        ];
        let mut results = BTreeMap::<String, Rounds>::new();
        for round in 0..=self.options.rounds {
            if round > 0 {
                let (measured, database) = self.pgbench(scenario)?;
                results.entry("a pgbench".to_owned()).or_default().push(measured, Duration::ZERO, database);
            }
            for (name, server, requests) in &subjects {
                self.round(round, name, server, requests, &mut results).await?;
            }
        }
        Ok(results)
    }

    async fn on_sqlite(&self, scenario: &str) -> anyhow::Result<BTreeMap<String, Rounds>> {
        let near = Server::near(&self.options.perigee, &self.home.join("lite"))?;
        let rusqlite = Server::by_hand("rusqlite", &self.file.display().to_string())?;
        let subjects = [
            ("f rusqlite", &rusqlite, by_hand_requests(scenario)),
            ("g perigee graphql", &near, graphql_requests(scenario, &self.token)),
            ("g perigee rest", &near, rest_requests(scenario, &self.token)),
            ("g perigee grpc", &near, grpc_requests(scenario, &self.token)),
        ];
        let mut results = BTreeMap::<String, Rounds>::new();
        for round in 0..=self.options.rounds {
            for (name, server, requests) in &subjects {
                self.round(round, name, server, requests, &mut results).await?;
            }
        }
        Ok(results)
    }

    /// One round of one subject; round 0 warms up and is not counted.
    async fn round(
        &self,
        round: usize,
        name: &str,
        server: &Server,
        requests: &Requests,
        results: &mut BTreeMap<String, Rounds>,
    ) -> anyhow::Result<()> {
        let lasting = if round == 0 { Duration::from_millis(500) } else { Duration::from_secs(self.options.seconds) };
        let before = (server.processor_time(), subject::postgres_time(self.options.postmaster));
        let measured = load::round(server.port, requests, lasting).await.with_context(|| name.to_owned())?;
        if round > 0 {
            let server_time = server.processor_time().saturating_sub(before.0);
            let database = subject::postgres_time(self.options.postmaster).saturating_sub(before.1);
            results.entry(name.to_owned()).or_default().push(measured, server_time, database);
        }
        Ok(())
    }

    /// pgbench with prepared statements: what the database does when nothing stands before it.
    fn pgbench(&self, scenario: &str) -> anyhow::Result<(Round, Duration)> {
        let script = self.home.join(format!("{scenario}.sql"));
        fs::write(&script, pgbench_script(scenario))?;
        let before = subject::postgres_time(self.options.postmaster);
        let output = Command::new(self.options.pgbench.join("pgbench"))
            .args(["-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", &self.options.seconds.to_string(), "-f"])
            .arg(&script)
            .arg(&self.url)
            .output()?;
        let database = subject::postgres_time(self.options.postmaster).saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
        let number = |name: &str| -> anyhow::Result<f64> {
            let line = text.lines().find(|line| line.starts_with(name)).context("pgbench prints its results")?;
            let value = line.split(['=', ':']).nth(1).context("a value")?.trim();
            Ok(value.split_whitespace().next().context("a number")?.parse()?)
        };
        let mean = Duration::from_secs_f64(number("latency average")? / 1e3);
        let answers = number("number of transactions actually processed")? as u64;
        Ok((Round { per_second: number("tps")?, p50: mean, p99: mean, answers }, database))
    }
}

async fn prepare_postgres(options: &Options) -> anyhow::Result<String> {
    let (admin, connection) = tokio_postgres::connect(&options.postgres, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    admin.batch_execute("DROP DATABASE IF EXISTS bench").await?;
    admin.batch_execute("CREATE DATABASE bench").await?;
    let (server, _) = options.postgres.rsplit_once('/').context("a URL with a database")?;
    let url = format!("{server}/bench");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(&fs::read_to_string(options.chinook.join("postgresql.sql"))?).await?;
    client
        .batch_execute("CREATE TABLE note (note_id bigserial PRIMARY KEY, body text NOT NULL, rank int NOT NULL)")
        .await?;
    client.batch_execute("VACUUM ANALYZE").await?;
    Ok(url)
}

fn prepare_sqlite(options: &Options, home: &Path) -> anyhow::Result<PathBuf> {
    let file = home.join("music.db");
    let connection = rusqlite::Connection::open(&file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(&fs::read_to_string(options.chinook.join("sqlite.sql"))?)?;
    connection.execute_batch(
        "CREATE TABLE note (note_id INTEGER PRIMARY KEY, body TEXT NOT NULL, rank INTEGER NOT NULL); ANALYZE;",
    )?;
    Ok(file)
}

fn token(perigee: &Path, resources: &Path) -> anyhow::Result<String> {
    let output = Command::new(perigee)
        .args(["token", "shop", r#"{"id":"u1","role":"user"}"#, "--expires", "24h", "--dir"])
        .arg(resources)
        .output()?;
    ensure!(output.status.success(), "perigee token: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// From start to the first answered request, and the memory of an idle node.
async fn first_answer(options: &Options, home: &Path, token: &str) -> anyhow::Result<()> {
    for engine in ["lite", "pg"] {
        let Requests::Http(requests) = graphql_requests("point", token) else { continue };
        let mut times = Vec::new();
        let mut resident = 0;
        for _ in 0..options.rounds {
            let began = Instant::now();
            let server = Server::near(&options.perigee, &home.join(engine))?;
            let one = Requests::Http(vec![requests[0].clone()]);
            while load::round(server.port, &one, Duration::from_millis(1)).await.is_err() {}
            times.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(300)).await;
            resident = resident.max(server.resident_bytes());
        }
        times.sort_unstable();
        println!(
            "{engine}: first answer {:.0} ms after start (median of {}), resident {:.1} MB",
            times[times.len() / 2].as_secs_f64() * 1e3,
            times.len(),
            resident as f64 / 1e6
        );
    }
    Ok(())
}

fn pgbench_script(scenario: &str) -> &'static str {
    match scenario {
        "point" => "\\set id random(1, 347)\nSELECT album_id, title, artist_id FROM album WHERE album_id = :id;\n",
        "nested" => {
            "SELECT json_agg(json_build_object('artist_id', a.artist_id, 'name', a.name, 'album', (SELECT \
             coalesce(json_agg(json_build_object('album_id', b.album_id, 'title', b.title, 'track', (SELECT \
             coalesce(json_agg(json_build_object('track_id', t.track_id, 'name', t.name, 'milliseconds', \
             t.milliseconds) ORDER BY t.track_id), '[]') FROM track t WHERE t.album_id = b.album_id)) ORDER BY \
             b.album_id), '[]') FROM album b WHERE b.artist_id = a.artist_id)) ORDER BY a.artist_id) FROM (SELECT \
             artist_id, name FROM artist ORDER BY artist_id LIMIT 20) a;\n"
        }
        "list" => {
            "SELECT track_id, name, milliseconds FROM track WHERE genre_id = 1 AND milliseconds > 200000 ORDER BY \
             milliseconds DESC, track_id LIMIT 50;\n"
        }
        _ => {
            "\\set n random(1, 1000000)\nINSERT INTO note (body, rank) VALUES ('a note', :n) RETURNING note_id, body, \
             rank;\n"
        }
    }
}

fn http(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: \
         application/json\r\nAccept: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn by_hand_requests(scenario: &str) -> Requests {
    Requests::Http(match scenario {
        "point" => (1..=347).map(|id| http("GET", &format!("/point?id={id}"), "none", "")).collect(),
        "insert" => {
            (1..=1000).map(|n| http("POST", "/insert", "none", &format!(r#"{{"body":"a note","rank":{n}}}"#))).collect()
        }
        other => vec![http("GET", &format!("/{other}"), "none", "")],
    })
}

fn graphql_requests(scenario: &str, token: &str) -> Requests {
    let post = |query: &str, variables: String| {
        let body = format!(r#"{{"query":"{query}","variables":{{{variables}}}}}"#);
        http("POST", "/v1/api/shop/graphql", token, &body)
    };
    Requests::Http(match scenario {
        "point" => (1..=347)
            .map(|id| {
                post(
                    "query($id: Int!) { album_by_pk(album_id: $id) { album_id title artist_id } }",
                    format!(r#""id":{id}"#),
                )
            })
            .collect(),
        "nested" => vec![post(
            "{ artist(sort: [artist_id_asc], limit: 20) { artist_id name album { album_id title track { track_id name \
             milliseconds } } } }",
            String::new(),
        )],
        "list" => vec![post(
            "{ track(where: {genre_id: {_eq: 1}, milliseconds: {_gt: 200000}}, sort: [milliseconds_desc], limit: 50) { \
             track_id name milliseconds } }",
            String::new(),
        )],
        _ => (1..=1000)
            .map(|n| {
                post(
                    "mutation($docs: [NoteInsert!]!) { insert_note(docs: $docs) { returning { note_id body rank } } }",
                    format!(r#""docs":[{{"body":"a note","rank":{n}}}]"#),
                )
            })
            .collect(),
    })
}

fn rest_requests(scenario: &str, token: &str) -> Requests {
    let post = |table: &str, operation: &str, body: &str| {
        http("POST", &format!("/v1/api/shop/crud/music/{table}/{operation}"), token, body)
    };
    Requests::Http(match scenario {
        "point" => (1..=347)
            .map(|id| post("album", "read", &format!(r#"{{"op":"one","find":{{"album_id":{id}}}}}"#)))
            .collect(),
        "nested" => vec![post(
            "artist",
            "read",
            r#"{"op":"all","options":{"sort":["artist_id"],"limit":20,"select":{"artist_id":1,"name":1,"album":{"select":
            {"album_id":1,"title":1,"track":{"select":{"track_id":1,"name":1,"milliseconds":1}}}}}}}"#,
        )],
        "list" => vec![post(
            "track",
            "read",
            r#"{"op":"all","find":{"genre_id":1,"milliseconds":{"$gt":200000}},"options":{"sort":["-milliseconds"],
            "limit":50,"select":{"track_id":1,"name":1,"milliseconds":1}}}"#,
        )],
        _ => (1..=1000)
            .map(|n| {
                let body = format!(
                    r#"{{"op":"one","doc":{{"body":"a note","rank":{n}}},"returning":["note_id","body","rank"]}}"#
                );
                post("note", "create", &body)
            })
            .collect(),
    })
}

fn number(value: i32) -> Value {
    Value { kind: Some(Kind::NumberValue(f64::from(value))) }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Struct {
    Struct { fields: members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

fn columns<const N: usize>(names: [&str; N]) -> Select {
    Select { columns: names.map(str::to_owned).to_vec(), relations: Default::default() }
}

fn related(name: &str, select: Select) -> [(String, Related); 1] {
    [(name.to_owned(), Related { select: Some(select), ..Related::default() })]
}

fn read(table: &str) -> ReadRequest {
    ReadRequest {
        project: "shop".to_owned(),
        database: "music".to_owned(),
        table: table.to_owned(),
        ..Default::default()
    }
}

fn grpc_requests(scenario: &str, token: &str) -> Requests {
    let token = token.to_owned();
    let one = |request| Requests::GrpcRead(vec![request], token.clone());
    match scenario {
        "point" => Requests::GrpcRead(
            (1..=347)
                .map(|id| ReadRequest { r#where: Some(object([("album_id", number(id))])), ..read("album") })
                .collect(),
            token,
        ),
        "nested" => {
            let mut album = columns(["album_id", "title"]);
            album.relations.extend(related("track", columns(["track_id", "name", "milliseconds"])));
            let mut artist = columns(["artist_id", "name"]);
            artist.relations.extend(related("album", album));
            one(ReadRequest {
                select: Some(artist),
                sort: vec!["artist_id".to_owned()],
                limit: Some(20),
                ..read("artist")
            })
        }
        "list" => {
            let longer = object([("$gt", number(200_000))]);
            let longer = Value { kind: Some(Kind::StructValue(longer)) };
            one(ReadRequest {
                r#where: Some(object([("genre_id", number(1)), ("milliseconds", longer)])),
                select: Some(columns(["track_id", "name", "milliseconds"])),
                sort: vec!["-milliseconds".to_owned()],
                limit: Some(50),
                ..read("track")
            })
        }
        _ => {
            let doc = |n| {
                object([("body", Value { kind: Some(Kind::StringValue("a note".to_owned())) }), ("rank", number(n))])
            };
            let create = |n| CreateRequest {
                project: "shop".to_owned(),
                database: "music".to_owned(),
                table: "note".to_owned(),
                docs: vec![doc(n)],
                returning: Some(columns(["note_id", "body", "rank"])),
            };
            Requests::GrpcCreate((1..=1000).map(create).collect(), token)
        }
    }
}
