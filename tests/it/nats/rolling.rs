//! Rolling restarts: each process of the mesh is stopped and started again, one after the other, while rows change. A client that
//! loses its connection goes on after the last position that it was told, at the other gateway.

use tokio::task::JoinHandle;

use super::*;

/// Protocols of the clients.
const CLIENTS: [Framing; 5] = [Framing::Socket, Framing::LegacySocket, Framing::Events, Framing::Rest, Framing::Grpc];

/// Restarts of the whole mesh.
fn rounds() -> usize {
    if std::env::var_os("PROVE").is_some() { 20 } else { 3 }
}

/// A client that goes on wherever it can.
struct Resuming {
    gateways: [Client; 2],
    framing: Framing,
    /// The gateway that it tries next.
    turn: usize,
    known: Known,
    /// After the last message; empty until all rows were told.
    position: String,
    resumed: usize,
    ready: Arc<AtomicUsize>,
}

impl Resuming {
    /// Follows all rows until one is told whose id is -1.
    async fn follow(mut self) -> anyhow::Result<(Known, usize)> {
        let mut until = Instant::now() + TIMEOUT;
        while !self.known.rows.contains_key(&-1) {
            let before = self.known.changes;
            let ended = self.follow_stream().await;
            if self.known.changes > before {
                until = Instant::now() + TIMEOUT;
            }
            if let Err(error) = ended {
                ensure!(Instant::now() < until, "{:?} cannot go on: {error:#}", self.framing);
                self.turn += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok((self.known, self.resumed))
    }

    /// Follows one stream. Errors: it ended.
    async fn follow_stream(&mut self) -> anyhow::Result<()> {
        let after = self.position.clone();
        let asked = Asked { find: json!({}), table: "note", columns: &["id", "v"], after, ..Asked::default() };
        let client = &self.gateways[self.turn % 2];
        let mut watching =
            Watching::begin(self.framing, client, "", &asked).await?.map_err(|code| anyhow::anyhow!("{code}"))?;
        if self.position.is_empty() {
            // Without a position all rows are told again.
            self.known.rows.clear();
        } else {
            self.resumed += 1;
        }
        while !self.known.rows.contains_key(&-1) {
            let change = watching.next().await?.map_err(|code| anyhow::anyhow!("ended with {code}"))?;
            self.known.changes += 1;
            let is_ready = change.kind == "READY";
            if is_ready && self.position.is_empty() {
                self.ready.fetch_add(1, Ordering::Relaxed);
            }
            let position = change.position.clone();
            self.take(change).unwrap_or_else(|fault| panic!("{:?}: {fault}", self.framing));
            if is_ready || !self.position.is_empty() {
                self.position = position;
            }
        }
        Ok(())
    }

    /// A message has to fit those before.
    fn take(&mut self, change: Change) -> Result<(), String> {
        let id = change.row["id"].as_i64().unwrap_or_default();
        let rows = &mut self.known.rows;
        match change.kind.as_str() {
            "READY" => {}
            "RESYNC" => {
                rows.clear();
                self.known.resyncs.push(change.reason.unwrap_or_default());
            }
            "INITIAL" | "INSERT" => {
                if let Some(before) = rows.insert(id, change.row) {
                    return Err(format!("{before} is told twice"));
                }
            }
            "UPDATE" | "DELETE" => {
                let before = match change.kind.as_str() {
                    "UPDATE" => rows.insert(id, change.row.clone()),
                    _ => rows.remove(&id),
                };
                if before.as_ref() != Some(&change.before) {
                    return Err(format!("{before:?} is not before {change:?}"));
                }
            }
            other => return Err(format!("unexpected {other}")),
        }
        Ok(())
    }
}

/// Stops a process and starts it again.
async fn restart((process, client): &mut (Process, Client)) -> anyhow::Result<()> {
    let status = process.terminate().await?;
    ensure!(status.success(), "{status}: {}", process.log());
    process.restart()?;
    ready(client).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_lose_nothing_while_each_process_is_restarted() -> anyhow::Result<()> {
    let mut nodes = Nodes::start().await?;
    let told = Arc::<AtomicUsize>::default();
    let clients: Vec<JoinHandle<_>> = CLIENTS
        .into_iter()
        .enumerate()
        .map(|(turn, framing)| {
            let (gateways, ready) = (nodes.clients(), told.clone());
            let (known, position) = Default::default();
            let client = Resuming { gateways, framing, turn, known, position, resumed: 0, ready };
            tokio::spawn(client.follow())
        })
        .collect();
    let until = Instant::now() + TIMEOUT;
    while told.load(Ordering::Relaxed) < CLIENTS.len() {
        ensure!(Instant::now() < until, "{told:?} clients are told all rows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let writer = Writer::start(&nodes.lab);
    for _ in 0..rounds() {
        for index in 0..2 {
            restart(&mut nodes.crud[index]).await?;
            writer.more(10).await?;
            restart(&mut nodes.gateways[index]).await?;
            writer.more(10).await?;
            restart(&mut nodes.others[index]).await?;
            writer.more(10).await?;
        }
    }
    let transactions = writer.finish().await?;
    nodes.lab.run("INSERT INTO note VALUES (-1, 0)").await?;
    let there = rows(&nodes.clients()[0]).await?;
    let mut resumed = Vec::new();
    for (client, framing) in clients.into_iter().zip(CLIENTS) {
        let (known, times) = client.await??;
        ensure!(known.rows == there, "{framing:?}: {:?}\n{there:?}", known.rows);
        assert_eq!(known.resyncs, Vec::<String>::new(), "{framing:?}");
        ensure!(times > 0, "{framing:?} lost its connection, and went on");
        resumed.push(times);
    }
    eprintln!("{} restarts, {transactions} transactions; clients went on {resumed:?} times", rounds() * 6);
    Ok(())
}
