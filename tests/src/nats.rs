//! NATS servers: the one that tests share, and such as a test starts, kills and empties.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    process::{Variables, free_address},
    python_tool,
};

/// How long a server may take until it answers.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The settings of a node by which its bus is the server that tests share, with a mesh of its own; none, and a word about it,
/// where there is no such server and none is demanded.
pub fn shared_bus(mesh: &str) -> String {
    match std::env::var("TEST_NATS_URL") {
        Ok(url) => format!("mesh_key: \"{mesh}\"\nbus: {{ kind: nats, url: \"{url}\" }}\n"),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "TEST_NATS_URL names no server");
            eprintln!("without NATS: TEST_NATS_URL names no server");
            String::new()
        }
    }
}

/// A server of a test, killed when dropped.
pub struct NatsServer {
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
    arguments: Vec<String>,
    variables: Variables,
    child: Child,
}

impl NatsServer {
    /// Starts one with its data under `folder`.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::start_at(folder, free_address()?).await
    }

    /// As [`NatsServer::start`], at an address.
    pub async fn start_at(folder: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let data = folder.join("jetstream").display().to_string();
        Self::run(folder, address, command(address, &["-js", "-sd", &data]), Vec::new()).await
    }

    /// Starts one that has no JetStream.
    pub async fn without_jetstream(folder: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        Self::run(folder, address, command(address, &[]), Vec::new()).await
    }

    /// Starts one by a command, with what it says in `folder`.
    pub async fn run(
        folder: &Path,
        address: SocketAddr,
        arguments: Vec<String>,
        variables: Variables,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let child = spawn(folder, &arguments, &variables)?;
        let server = Self { address, folder: folder.to_owned(), arguments, variables, child };
        server.answers().await?;
        Ok(server)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again, after its end.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.folder, &self.arguments, &self.variables)?;
        self.answers().await
    }

    /// Removes all that it keeps, after its end.
    pub fn lose_data(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.folder.join("jetstream")).context("it kept something")
    }

    async fn answers(&self) -> anyhow::Result<()> {
        let until = Instant::now() + TIMEOUT;
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            let log = std::fs::read_to_string(self.folder.join("nats.log")).unwrap_or_default();
            ensure!(Instant::now() < until, "NATS does not answer: {log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// The command of a server at an address.
fn command(address: SocketAddr, arguments: &[&str]) -> Vec<String> {
    let (program, port) = (python_tool::path("nats-server").display().to_string(), address.port().to_string());
    [&[program.as_str(), "-a", "127.0.0.1", "-p", &port], arguments].concat().into_iter().map(str::to_owned).collect()
}

fn spawn(folder: &Path, arguments: &[String], variables: &[(String, String)]) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("nats.log"))?;
    let (program, arguments) = arguments.split_first().context("a command")?;
    let child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    child.context("nats-server starts")
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.kill();
    }
}
