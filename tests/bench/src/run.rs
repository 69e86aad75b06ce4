//! The comparison: all subjects of a scenario in turn, several rounds, medians at the end.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    calls,
    live::{self, Database, Lab},
    load::{self, Requests, Round},
    matching,
    report::{self, Rounds},
    requests::{self, Scenario},
    subject::{self, Inputs, Launch, Server},
};
use anyhow::{Context, ensure};

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    inputs: Inputs,
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
}

const SCENARIOS: [Scenario; 4] = [Scenario::Point, Scenario::Nested { artists: 20 }, Scenario::List, Scenario::Insert];

/// Runs everything and prints it.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let home = folder.path();
    let url = prepare_postgres(&options).await?;
    let file = subject::write_sqlite(&options.inputs.chinook, home)?;
    fs::create_dir_all(home.join("pg"))?;
    fs::create_dir_all(home.join("triggers"))?;
    fs::create_dir_all(home.join("lite"))?;
    let resources = subject::write_resources(&home.join("pg"), "postgres", &url, "auto")?;
    subject::write_resources(&home.join("triggers"), "postgres", &url, "triggers")?;
    subject::write_resources(&home.join("lite"), "sqlite", &format!("sqlite:{}", file.display()), "auto")?;
    let token = subject::token(&options.inputs.perigee, &resources)?;
    first_answer(&options, home, &token).await?;

    let bench = Bench { url, file, token, home: home.to_owned(), options };
    for scenario in SCENARIOS {
        let (name, about) = (scenario.name(), scenario.about());
        if name.contains(&bench.options.inputs.only) {
            report::print(&format!("{name}: {about} (PostgreSQL)"), &bench.on_postgres(scenario).await?);
            report::print(&format!("{name}: {about} (SQLite)"), &bench.on_sqlite(scenario).await?);
        }
    }
    if "calls".contains(&bench.options.inputs.only) {
        let Options { inputs, rounds, seconds, .. } = &bench.options;
        calls::run(inputs, &bench.home.join("calls"), (*rounds, *seconds)).await?;
    }
    if "matching".contains(&bench.options.inputs.only) {
        println!();
        matching::run(&matching::Options::default())?;
    }
    if "live".contains(&bench.options.inputs.only) {
        let server = || Database::Postgres(bench.url.clone());
        live::run(&bench.lab("pg", "PostgreSQL, slot", server())).await?;
        live::run(&bench.lab("triggers", "PostgreSQL, triggers", server())).await?;
        live::run(&bench.lab("lite", "SQLite", Database::Sqlite(bench.file.clone()))).await?;
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
    /// What measurements of live queries need.
    fn lab(&self, folder: &str, name: &'static str, database: Database) -> Lab {
        let Options { inputs, postmaster, rounds, seconds, .. } = &self.options;
        Lab {
            perigee: inputs.perigee.clone(),
            home: self.home.join(folder),
            name,
            database,
            token: self.token.clone(),
            postmaster: *postmaster,
            rounds: *rounds,
            lasting: Duration::from_secs(*seconds),
        }
    }

    async fn on_postgres(&self, scenario: Scenario) -> anyhow::Result<BTreeMap<String, Rounds>> {
        let home = self.home.join("pg");
        let perigee = &self.options.inputs.perigee;
        let near = Server::near(perigee, &home, Launch::Plain)?;
        let split = Server::split(perigee, &home)?;
        let sqlx = Server::by_hand("sqlx", &self.url, Launch::Plain)?;
        let pipelined = Server::by_hand("postgres", &self.url, Launch::Plain)?;
        let subjects = [
            ("b sqlx", &sqlx, requests::by_hand(scenario)),
            ("c pipelined", &pipelined, requests::by_hand(scenario)),
            ("d perigee graphql", &near, requests::graphql(scenario, &self.token)),
            ("d perigee rest", &near, requests::rest(scenario, &self.token)),
            ("d perigee grpc", &near, requests::grpc(scenario, &self.token)),
            ("e perigee split", &split, requests::graphql(scenario, &self.token)),
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

    async fn on_sqlite(&self, scenario: Scenario) -> anyhow::Result<BTreeMap<String, Rounds>> {
        let near = Server::near(&self.options.inputs.perigee, &self.home.join("lite"), Launch::Plain)?;
        let rusqlite = Server::by_hand("rusqlite", &self.file.display().to_string(), Launch::Plain)?;
        let subjects = [
            ("f rusqlite", &rusqlite, requests::by_hand(scenario)),
            ("g perigee graphql", &near, requests::graphql(scenario, &self.token)),
            ("g perigee rest", &near, requests::rest(scenario, &self.token)),
            ("g perigee grpc", &near, requests::grpc(scenario, &self.token)),
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
    fn pgbench(&self, scenario: Scenario) -> anyhow::Result<(Round, Duration)> {
        let script = self.home.join(format!("{}.sql", scenario.name()));
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
    client.batch_execute(&fs::read_to_string(options.inputs.chinook.join("postgresql.sql"))?).await?;
    client
        .batch_execute("CREATE TABLE note (note_id bigserial PRIMARY KEY, body text NOT NULL, rank int NOT NULL)")
        .await?;
    client.batch_execute("VACUUM ANALYZE").await?;
    Ok(url)
}

/// From start to the first answered request, and the memory of an idle node.
async fn first_answer(options: &Options, home: &Path, token: &str) -> anyhow::Result<()> {
    for engine in ["lite", "pg"] {
        let Requests::Http(requests) = requests::graphql(Scenario::Point, token) else { continue };
        let mut times = Vec::new();
        let mut resident = 0;
        for _ in 0..options.rounds {
            let began = Instant::now();
            let server = Server::near(&options.inputs.perigee, &home.join(engine), Launch::Plain)?;
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

fn pgbench_script(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Point => {
            "\\set id random(1, 347)\nSELECT album_id, title, artist_id FROM album WHERE album_id = :id;\n"
        }
        Scenario::Nested { .. } => {
            "SELECT json_agg(json_build_object('artist_id', a.artist_id, 'name', a.name, 'album', (SELECT \
             coalesce(json_agg(json_build_object('album_id', b.album_id, 'title', b.title, 'track', (SELECT \
             coalesce(json_agg(json_build_object('track_id', t.track_id, 'name', t.name, 'milliseconds', \
             t.milliseconds) ORDER BY t.track_id), '[]') FROM track t WHERE t.album_id = b.album_id)) ORDER BY \
             b.album_id), '[]') FROM album b WHERE b.artist_id = a.artist_id)) ORDER BY a.artist_id) FROM (SELECT \
             artist_id, name FROM artist ORDER BY artist_id LIMIT 20) a;\n"
        }
        Scenario::List => {
            "SELECT track_id, name, milliseconds FROM track WHERE genre_id = 1 AND milliseconds > 200000 ORDER BY \
             milliseconds DESC, track_id LIMIT 50;\n"
        }
        Scenario::Insert => {
            "\\set n random(1, 1000000)\nINSERT INTO note (body, rank) VALUES ('a note', :n) RETURNING note_id, body, \
             rank;\n"
        }
    }
}
