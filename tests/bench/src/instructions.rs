//! User instructions and allocations per request, and the thresholds that they are held to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::{
    callgrind::{Count, Counter},
    load::{Client, Requests},
    matching::{self, Way},
    requests::{self, Scenario},
    subject::{self, Inputs, Launch, Server},
};

/// What to count.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    inputs: Inputs,
    /// The file of thresholds.
    #[arg(long)]
    thresholds: PathBuf,
    /// Fails for what takes more instructions than its threshold.
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Writes the thresholds anew, a little above what was counted.
    #[arg(long)]
    update: bool,
}

/// Batches that are counted.
const BATCHES: usize = 5;
/// Batches before counting begins: caches are full and buffers have grown by then.
const WARM_UP_BATCHES: usize = 5;
/// Between an answer and the next request.
const PAUSE: Duration = Duration::from_micros(300);
/// What a new threshold leaves above the count, in percent.
const HEADROOM_PERCENT: u64 = 3;

const SCENARIOS: [Scenario; 4] = [Scenario::Point, Scenario::Nested { artists: 5 }, Scenario::List, Scenario::Insert];

/// Counts everything and prints it.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let home = folder.path();
    let file = subject::write_sqlite(&options.inputs.chinook, home)?;
    let resources = subject::write_resources(home, "sqlite", &format!("sqlite:{}", file.display()), "auto")?;
    let token = subject::token(&options.inputs.perigee, &resources)?;

    println!("{:<16} {:>14} {:>12}   of one request on SQLite", "", "instructions", "allocations");
    let mut counts = BTreeMap::new();
    for scenario in SCENARIOS {
        if !scenario.name().contains(&options.inputs.only) {
            continue;
        }
        let server = Server::by_hand("rusqlite", &file.display().to_string(), Launch::Callgrind(home))?;
        print("by hand", scenario, per_request(home, &server, requests::by_hand(scenario), batch(scenario)).await?);
        drop(server);
        for (protocol, requests) in protocols(scenario, &token) {
            let server = Server::near(&options.inputs.perigee, home, Launch::Callgrind(home))?;
            let count = per_request(home, &server, requests, batch(scenario)).await?;
            print(protocol, scenario, count);
            counts.insert(format!("{} {protocol}", scenario.name()), count.instructions);
        }
    }
    if "matching".contains(&options.inputs.only) {
        for (name, way) in [("each", Way::Each), ("index", Way::Index)] {
            let count = matching::counted(home, way)?;
            println!(
                "{:<16} {:>14} {:>12}   of one change",
                format!("matching {name}"),
                count.instructions,
                count.allocations
            );
            if way == Way::Index {
                counts.insert(format!("matching {name}"), count.instructions);
            }
        }
    }
    if options.update {
        write_thresholds(&options.thresholds, &counts)?;
    }
    if options.check {
        check(&read_thresholds(&options.thresholds)?, &counts)?;
    }
    Ok(())
}

/// All protocols for what is small, so that what the protocol adds shows; GraphQL for the rest.
fn protocols(scenario: Scenario, token: &str) -> Vec<(&'static str, Requests)> {
    let mut protocols = vec![("graphql", requests::graphql(scenario, token))];
    if matches!(scenario, Scenario::Point) {
        protocols.push(("rest", requests::rest(scenario, token)));
        protocols.push(("grpc", requests::grpc(scenario, token)));
    }
    protocols
}

/// Requests of one batch: fewer where each is long.
fn batch(scenario: Scenario) -> usize {
    match scenario {
        Scenario::Point | Scenario::Insert => 60,
        Scenario::Nested { .. } | Scenario::List => 10,
    }
}

fn print(subject: &str, scenario: Scenario, count: Count) {
    let name = format!("{} {subject}", scenario.name());
    println!("{name:<16} {:>14} {:>12}", count.instructions, count.allocations);
}

/// What one request takes: the lowest of some batches, so that what the server does by itself now and then is left out.
async fn per_request(home: &Path, server: &Server, requests: Requests, batch: usize) -> anyhow::Result<Count> {
    let mut client = connect(server.port, &requests).await?;
    client.send(WARM_UP_BATCHES * batch).await?;
    let mut counter = Counter::start(home, server.process().context("the server runs")?)?;
    paced(&mut client, batch).await?;
    counter.reset()?;
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        paced(&mut client, batch).await?;
        batches.push(counter.take()?);
    }
    let lowest = |of: fn(&Count) -> u64| batches.iter().map(of).min().unwrap_or_default() / batch as u64;
    Ok(Count { instructions: lowest(|count| count.instructions), allocations: lowest(|count| count.allocations) })
}

/// Sends the same requests each time. The server rests before each: whether a request meets it while it still looks for
/// the next one would else be a matter of luck, and of some percent.
async fn paced(client: &mut Client, count: usize) -> anyhow::Result<()> {
    client.rewind();
    for _ in 0..count {
        client.send(1).await?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Connects to a server that has just been started: until its database is open, it answers with an error.
async fn connect(port: u16, requests: &Requests) -> anyhow::Result<Client> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut client = Client::connect(port, requests.clone()).await?;
        match client.send(1).await {
            Ok(()) => return Ok(client),
            Err(failure) if Instant::now() > until => return Err(failure.context("no first answer")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Lines of a scenario, a protocol and the most instructions; `#` begins a comment.
fn read_thresholds(file: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut thresholds = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, most) = line.rsplit_once(' ').context("a name and a number")?;
        let most = most.parse().with_context(|| format!("{}: invalid number in {line:?}", file.display()))?;
        thresholds.insert(name.trim_end().to_owned(), most);
    }
    Ok(thresholds)
}

/// Replaces the thresholds of what was counted; the other lines stay as they are.
fn write_thresholds(file: &Path, counts: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut thresholds = read_thresholds(file)?;
    thresholds.extend(counts.iter().map(|(name, count)| (name.clone(), threshold(*count))));
    let mut written: String =
        text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    for (name, most) in &thresholds {
        written.push_str(&format!("{name:<16} {most:>9}\n"));
    }
    Ok(fs::write(file, written)?)
}

/// A little above a count, rounded up to hundreds.
fn threshold(count: u64) -> u64 {
    (count + count * HEADROOM_PERCENT / 100).next_multiple_of(100)
}

fn check(thresholds: &BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    ensure!(!counts.is_empty(), "no scenario of this name");
    let failures = failures(thresholds, counts);
    for failure in &failures {
        eprintln!("{failure}");
    }
    if !failures.is_empty() {
        bail!("{} of {} scenarios fail", failures.len(), counts.len());
    }
    Ok(())
}

/// A line for each scenario that takes too much or has no threshold.
fn failures(thresholds: &BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, count) in counts {
        match thresholds.get(name) {
            None => failures.push(format!("{name}: {count} instructions, no threshold")),
            Some(most) if count > most => {
                failures.push(format!("{name}: {count} instructions, at most {most} allowed"))
            }
            Some(_) => {}
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts<const N: usize>(of: [(&str, u64); N]) -> BTreeMap<String, u64> {
        of.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn what_takes_more_than_its_threshold_fails() {
        let thresholds = counts([("point graphql", 1000), ("point rest", 900)]);
        let counted = counts([("point graphql", 1001), ("point rest", 900), ("list graphql", 5)]);
        assert_eq!(
            failures(&thresholds, &counted),
            ["list graphql: 5 instructions, no threshold", "point graphql: 1001 instructions, at most 1000 allowed"]
        );
        assert!(check(&thresholds, &counted).is_err());
        assert!(check(&thresholds, &counts([("point rest", 900)])).is_ok());
        assert!(check(&thresholds, &counts([])).is_err());
    }

    #[test]
    fn new_thresholds_keep_comments_and_what_was_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("instructions.txt");
        fs::write(&file, "# Most instructions.\npoint graphql 99\nlist graphql 2000\n").unwrap();
        write_thresholds(&file, &counts([("point graphql", 1000)])).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "# Most instructions.\nlist graphql          2000\npoint graphql         1100\n"
        );
        assert_eq!(read_thresholds(&file).unwrap(), counts([("point graphql", 1100), ("list graphql", 2000)]));
        fs::write(&file, "point graphql many\n").unwrap();
        assert!(read_thresholds(&file).is_err());
    }
}
