//! Live queries: how long a change takes to its subscriber, what idle ones cost, and what writers pay. Beside them, what people
//! write by hand: `LISTEN` with a query for each subscriber, and polling each second.

mod subscribers;
mod writers;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub use self::writers::Database;
use self::{
    subscribers::{Asked, Follower, Framing, Subscribers},
    writers::{Target, Writers},
};
use crate::subject::{self, Launch, Server};

/// Live queries over one row each, to which changes are sent.
const SUBSCRIBERS: usize = 200;
/// Whole answers about notes.
const NOTES: (Framing, Asked) = (Framing::Answers, Asked::Note);
/// Live queries that nothing happens to.
const IDLE: usize = 10_000;
/// Rows of the table; those beyond the subscribed ones are of nobody.
const ROWS: usize = 20_000;
/// Transactions each second, where they are not as many as the database takes.
const RATE: u64 = 500;

/// Subscribers, and writers whose changes concern them.
#[derive(Debug, Clone, Copy)]
struct Audience {
    about: &'static str,
    subscribers: usize,
    asked: Asked,
    /// Transactions each second.
    rate: u64,
}

/// Each transaction concerns one subscriber.
const ONE_EACH: Audience =
    Audience { about: "of a row each", subscribers: SUBSCRIBERS, asked: Asked::Note, rate: RATE };
/// Each transaction concerns all of them, whose queries are of one shape.
const ALL: Audience = Audience { about: "of a join that all share", subscribers: 500, asked: Asked::Post, rate: 5 };

impl Audience {
    fn target(self, number: u64) -> Target {
        match self.asked {
            Asked::Note => Target::Note(usize::try_from(number).unwrap_or_default() % self.subscribers + 1),
            Asked::Post => Target::Topic,
        }
    }
}

/// What the measurements of live queries need.
pub struct Lab {
    /// The perigee binary.
    pub perigee: PathBuf,
    /// Folder of the nodes' configuration, data and resources.
    pub home: PathBuf,
    /// The engine, and what changes are learnt from.
    pub name: &'static str,
    /// The database, whose tables are made anew for each measurement.
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
    lab.latencies(ONE_EACH).await?;
    lab.latencies(ALL).await?;
    lab.idle().await?;
    lab.drain().await?;
    lab.saturation().await
}

impl Lab {
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

    /// From commit to the sockets of the subscribers whom each transaction concerns.
    async fn latencies(&self, audience: Audience) -> anyhow::Result<()> {
        let (engine, Audience { about, subscribers: count, asked, rate }) = (self.name, audience);
        println!("\nlive: {count} subscribers {about}, {rate} writes/s, commit to socket ({engine}); of each write:");
        let heads = ["told", "p50 ms", "p99 ms", "reads", "server µs", "db µs"];
        println!("{:<16}{}", "", heads.map(|head| format!(" {head:>10}")).concat());
        for subject in self.subjects() {
            if asked == Asked::Post && subject == Subject::Perigee(Framing::Changes) {
                continue;
            }
            let (mut times, mut writes, mut reads) = (Vec::new(), 0, 0.0);
            let (mut server_time, mut database_time) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..self.rounds {
                self.database.prepare(ROWS, subject == Subject::ByHand("listen")).await?;
                let server = self.server(subject).await?;
                let what = (subject.framing(), asked);
                let subscribers = Subscribers::begin(server.port, &self.token, what, 1..=count).await?;
                // Images of changes are followed from then on.
                tokio::time::sleep(Duration::from_secs(1)).await;
                let before = (server.processor_time(), subject::postgres_time(self.postmaster));
                let read = self.statements(subject, &server).await?;
                let written = Writers::paced(&self.database, rate, self.lasting, move |number| audience.target(number));
                let commits = written.await?;
                tokio::time::sleep(Duration::from_millis(1500)).await;
                server_time += server.processor_time().saturating_sub(before.0);
                database_time += subject::postgres_time(self.postmaster).saturating_sub(before.1);
                reads += self.statements(subject, &server).await? - read;
                writes += commits.len();
                times.extend(subscribers.latencies(&commits));
            }
            ensure!(!times.is_empty(), "{}: nothing was told", subject.name());
            times.sort_unstable();
            let each = |time: Duration| time.as_secs_f64() * 1e6 / writes as f64;
            let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
            let reads = if reads.is_nan() { "unknown".to_owned() } else { format!("{:.1}", reads / writes as f64) };
            println!(
                "{:<16} {:>10.2} {:>10.2} {:>10.2} {reads:>10} {:>10.0} {:>10.0}",
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

    /// Statements of a server so far, where it counts them.
    async fn statements(&self, subject: Subject, server: &Server) -> anyhow::Result<f64> {
        match subject {
            Subject::Perigee(_) => statements(server.port).await,
            Subject::ByHand(_) => Ok(f64::NAN),
        }
    }

    /// What live queries cost that nothing happens to: while nothing is written at all, and while others are.
    async fn idle(&self) -> anyhow::Result<()> {
        self.database.prepare(ROWS, false).await?;
        let server = self.server(Subject::Perigee(Framing::Answers)).await?;
        let before = server.resident_bytes();
        let subscribers = Subscribers::begin(server.port, &self.token, NOTES, 1..=IDLE).await?;
        // Those that came before the images of changes were followed are asked once more.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let memory = server.resident_bytes().saturating_sub(before);
        println!("\nlive: {IDLE} idle live queries ({})", self.name);
        println!("memory {:.0} MB, {:.1} KB for each", memory as f64 / 1e6, memory as f64 / 1e3 / IDLE as f64);
        for (what, rate) in [("nothing is written", 0), ("500 writes/s of other rows", RATE)] {
            let before_all = self.database.transactions().await?;
            let (reads, time) = (statements(server.port).await?, server.processor_time());
            let commits = match rate {
                0 => {
                    tokio::time::sleep(self.lasting).await;
                    0
                }
                _ => Writers::paced(&self.database, rate, self.lasting, |_| Target::Note(ROWS)).await?.len(),
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

    /// How fast the log is read of what was committed while no server was there.
    async fn drain(&self) -> anyhow::Result<()> {
        self.database.prepare(ROWS, false).await?;
        let server = self.server(Subject::Perigee(Framing::Changes)).await?;
        let mut follower = Follower::begin(server.port, &self.token, "").await?;
        self.database.change("before").await?;
        let position = follower.until("before").await?;
        drop((follower, server));
        let writing = self.lasting * 3;
        let rate = Writers::saturated(&self.database, writing, IDLE..ROWS).await?;
        self.database.change("after").await?;
        let server = self.server(Subject::Perigee(Framing::Changes)).await?;
        let begun = Instant::now();
        let mut follower = Follower::begin(server.port, &self.token, &position).await?;
        follower.until("after").await?;
        let (count, seconds) = (rate * writing.as_secs_f64(), begun.elapsed().as_secs_f64());
        println!("\nlive: a log of {count:.0} transactions of a row each ({})", self.name);
        println!("read in {:.0} ms, {:.0} transactions/s", seconds * 1e3, count / seconds);
        Ok(())
    }

    /// What writers that write as fast as they can lose by subscribers.
    async fn saturation(&self) -> anyhow::Result<()> {
        println!("\nlive: writers at saturation ({})", self.name);
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
                    let all = Subscribers::begin(server.port, &self.token, NOTES, 1..=count).await?;
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
