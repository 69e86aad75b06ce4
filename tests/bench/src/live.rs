//! Live queries: how long a change takes to its subscriber, what idle ones cost, and what writers pay. Beside them, what people
//! write by hand: `LISTEN` with a query for each subscriber, and polling each second.

mod subscribers;
mod writers;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub use self::writers::Database;
use self::{
    subscribers::{Framing, Subscribers},
    writers::Writers,
};
use crate::subject::{self, Launch, Server};

/// Live queries over one row each, to which changes are sent.
const SUBSCRIBERS: usize = 200;
/// Live queries that nothing happens to.
const IDLE: usize = 10_000;
/// Rows of the table; those beyond the subscribed ones are of nobody.
const ROWS: usize = 20_000;
/// Transactions each second, where they are not as many as the database takes.
const RATE: u64 = 500;

/// What the measurements of live queries need.
pub struct Lab {
    /// The perigee binary.
    pub perigee: PathBuf,
    /// Folder of the nodes' configuration, data and resources.
    pub home: PathBuf,
    /// The database, whose table `note` is made anew for each measurement.
    pub database: Database,
    /// A token that the rules let in.
    pub token: String,
    /// Process of the PostgreSQL server.
    pub postmaster: u32,
    /// Rounds of what is compared.
    pub rounds: usize,
    /// Length of a measurement.
    pub lasting: Duration,
}

/// Who tells subscribers of changes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Subject {
    /// Perigee, in these messages.
    Perigee(Framing),
    /// A server by hand.
    ByHand(&'static str),
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Subject::Perigee(Framing::Answers) => "perigee answers",
            Subject::Perigee(Framing::Changes) => "perigee changes",
            Subject::Perigee(Framing::Lines) => "perigee lines",
            Subject::ByHand("listen") => "listen by hand",
            Subject::ByHand(_) => "poll by hand",
        }
    }

    fn framing(self) -> Framing {
        match self {
            Subject::Perigee(framing) => framing,
            Subject::ByHand(_) => Framing::Lines,
        }
    }
}

/// Measures all of it and prints it.
pub async fn run(lab: &Lab) -> anyhow::Result<()> {
    lab.latencies().await?;
    lab.idle().await?;
    lab.saturation().await
}

impl Lab {
    fn engine(&self) -> &'static str {
        match self.database {
            Database::Sqlite(_) => "SQLite",
            Database::Postgres(_) => "PostgreSQL",
        }
    }

    fn subjects(&self) -> Vec<Subject> {
        let ours = [Subject::Perigee(Framing::Answers), Subject::Perigee(Framing::Changes)];
        match self.database {
            Database::Sqlite(_) => ours.to_vec(),
            Database::Postgres(_) => [&ours[..], &[Subject::ByHand("listen"), Subject::ByHand("poll")]].concat(),
        }
    }

    async fn server(&self, subject: Subject) -> anyhow::Result<Server> {
        match (subject, &self.database) {
            (Subject::ByHand(driver), Database::Postgres(url)) => Server::by_hand(driver, url, Launch::Plain),
            _ => {
                let server = Server::near(&self.perigee, &self.home, Launch::Plain)?;
                subscribers::ready(server.port, &self.token).await?;
                Ok(server)
            }
        }
    }

    /// From commit to the socket of the one subscriber whom each transaction concerns.
    async fn latencies(&self) -> anyhow::Result<()> {
        let engine = self.engine();
        println!("\nlive: {SUBSCRIBERS} subscribers of a row each, {RATE} writes/s, commit to socket ({engine})");
        println!("{:<16} {:>9} {:>9} {:>9} {:>10} {:>10}", "", "told", "p50 ms", "p99 ms", "server µs", "db µs");
        for subject in self.subjects() {
            let (mut times, mut writes) = (Vec::new(), 0);
            let (mut server_time, mut database_time) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..self.rounds {
                self.database.prepare(ROWS, subject == Subject::ByHand("listen")).await?;
                let server = self.server(subject).await?;
                let subscribers =
                    Subscribers::begin(server.port, &self.token, subject.framing(), 1..=SUBSCRIBERS).await?;
                let before = (server.processor_time(), subject::postgres_time(self.postmaster));
                let written = Writers::paced(&self.database, RATE, self.lasting, |number| {
                    usize::try_from(number).unwrap_or_default() % SUBSCRIBERS + 1
                });
                let commits = written.await?;
                tokio::time::sleep(Duration::from_millis(1500)).await;
                server_time += server.processor_time().saturating_sub(before.0);
                database_time += subject::postgres_time(self.postmaster).saturating_sub(before.1);
                writes += commits.len();
                times.extend(subscribers.latencies(&commits));
            }
            ensure!(!times.is_empty(), "{}: nothing was told", subject.name());
            times.sort_unstable();
            let each = |time: Duration| time.as_secs_f64() * 1e6 / writes as f64;
            let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
            println!(
                "{:<16} {:>9.2} {:>9.2} {:>9.2} {:>10.0} {:>10.0}",
                subject.name(),
                times.len() as f64 / writes as f64,
                milliseconds(times[times.len() / 2]),
                milliseconds(times[times.len() * 99 / 100]),
                each(server_time),
                each(database_time),
            );
        }
        Ok(())
    }

    /// What live queries cost that nothing happens to: while nothing is written at all, and while others are.
    async fn idle(&self) -> anyhow::Result<()> {
        self.database.prepare(ROWS, false).await?;
        let server = self.server(Subject::Perigee(Framing::Answers)).await?;
        let before = server.resident_bytes();
        let subscribers = Subscribers::begin(server.port, &self.token, Framing::Answers, 1..=IDLE).await?;
        // Those that came before the images of changes were followed are asked once more.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let memory = server.resident_bytes().saturating_sub(before);
        println!("\nlive: {IDLE} idle live queries ({})", self.engine());
        println!("memory {:.0} MB, {:.1} KB for each", memory as f64 / 1e6, memory as f64 / 1e3 / IDLE as f64);
        for (what, rate) in [("nothing is written", 0), ("500 writes/s of other rows", RATE)] {
            let before_all = self.database.transactions().await?;
            let (reads, time) = (statements(server.port).await?, server.processor_time());
            let commits = match rate {
                0 => {
                    tokio::time::sleep(self.lasting).await;
                    0
                }
                _ => Writers::paced(&self.database, rate, self.lasting, |_| ROWS).await?.len(),
            };
            let seconds = self.lasting.as_secs_f64();
            let (reads, time) = (statements(server.port).await? - reads, server.processor_time().saturating_sub(time));
            let others = self.database.transactions().await?.zip(before_all).map(|((after, end), (before, begin))| {
                (after - before - commits as f64).max(0.0) / (end - begin).as_secs_f64()
            });
            println!(
                "{what}: {:.1} reads/s of perigee, {} at the database, processor {:.1} %",
                reads / seconds,
                others.map_or("unknown".to_owned(), |each| format!("{each:.1} other transactions/s")),
                time.as_secs_f64() / seconds * 100.0
            );
        }
        drop(subscribers);
        Ok(())
    }

    /// What writers that write as fast as they can lose by subscribers.
    async fn saturation(&self) -> anyhow::Result<()> {
        println!("\nlive: writers at saturation ({})", self.engine());
        let by_hand = matches!(self.database, Database::Postgres(_)).then_some(("notify by hand", None, true));
        let cases =
            [("nobody listens", None, false), ("1 live query", Some(1), false), ("20 live queries", Some(20), false)];
        let mut rates: Vec<(&str, Vec<f64>)> = Vec::new();
        for _ in 0..self.rounds {
            for (name, count, notifies) in cases.into_iter().chain(by_hand) {
                self.database.prepare(ROWS, notifies).await?;
                let server = self.server(Subject::Perigee(Framing::Answers)).await?;
                let mut subscribers = None;
                if let Some(count) = count {
                    let all = Subscribers::begin(server.port, &self.token, Framing::Answers, 1..=count).await?;
                    subscribers = Some(all);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                // Rows of nobody, so that what is measured is what telling of changes costs.
                let rate = Writers::saturated(&self.database, self.lasting, IDLE..ROWS).await?;
                match rates.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, rates)) => rates.push(rate),
                    None => rates.push((name, vec![rate])),
                }
                drop((subscribers, server));
            }
        }
        let median = |rates: &[f64]| {
            let mut rates = rates.to_vec();
            rates.sort_unstable_by(f64::total_cmp);
            rates[rates.len() / 2]
        };
        let alone = median(&rates.first().context("a case")?.1);
        for (name, rates) in &rates {
            println!("{name:<16} {:>9.0} writes/s {:>6.2}", median(rates), median(rates) / alone);
        }
        Ok(())
    }
}

/// Statements of the node at `port` so far.
async fn statements(port: u16) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let lines = text.lines().filter(|line| line.starts_with("perigee_statements_total"));
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    ensure!(text.starts_with("HTTP/1.1 200"), "metrics: {}", text.lines().next().unwrap_or_default());
    Ok(counts.sum())
}
