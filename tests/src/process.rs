//! Nodes as processes of their own: the shipped binary, started, killed and told to stop.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{client::Client, mesh::ready};

/// The binary that the workspace built.
///
/// # Panics
/// When it is not there: `cargo test --workspace` builds it.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test runs from a file");
    let folder = test.ancestors().nth(2).expect("target/debug/deps is three folders deep");
    let binary = folder.join("perigee");
    assert!(binary.exists(), "{} is not built", binary.display());
    binary
}

/// A port that nobody listens on, and that no outgoing connection is given meanwhile: below the range of those.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + (std::process::id() % 100) as u16 * 200;
    for _ in 0..200 {
        let address = SocketAddr::from(([127, 0, 0, 1], start + NEXT.fetch_add(1, Ordering::Relaxed) % 200));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no port from {start} on is free")
}

/// A node in a process of its own, killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
    again: (PathBuf, PathBuf, Vec<String>, Variables),
}

/// Variables of a process beside those of the test.
pub type Variables = Vec<(String, String)>;

impl Process {
    /// `perigee serve` of some services over a configuration text.
    pub fn serve(folder: &Path, name: &str, services: &[&str], config: &str) -> anyhow::Result<Self> {
        let file = folder.join(format!("{name}.yaml"));
        std::fs::write(&file, config)?;
        let mut arguments = vec!["serve".to_owned()];
        arguments.extend(services.iter().map(|service| (*service).to_owned()));
        arguments.extend(["--config".to_owned(), file.display().to_string()]);
        Self::start(folder.join(format!("{name}.log")), arguments, Variables::new())
    }

    /// `perigee dev` over the resources and the data in `folder`.
    pub fn dev(folder: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let path = |name: &str| folder.join(name).display().to_string();
        let listen = ["--listen".to_owned(), address.to_string(), "--data".to_owned(), path("data")];
        let arguments = ["dev".to_owned(), path("resources")].into_iter().chain(listen);
        Self::start(folder.join("dev.log"), arguments.collect(), Variables::new())
    }

    /// `perigee` with some arguments and variables; what it prints is added to a file.
    pub fn start(log: PathBuf, arguments: Vec<String>, variables: Variables) -> anyhow::Result<Self> {
        Self::program(binary(), log, arguments, variables)
    }

    /// Another program with some arguments and variables; what it prints is added to a file.
    pub fn program(
        program: PathBuf,
        log: PathBuf,
        arguments: Vec<String>,
        variables: Variables,
    ) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let child = Command::new(&program)
            .args(&arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} starts", program.display()))?;
        Ok(Self { child, again: (program, log.clone(), arguments, variables), log })
    }

    /// Starts the command again, after its end.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let (program, log, arguments, variables) = self.again.clone();
        *self = Self::program(program, log, arguments, variables)?;
        Ok(())
    }

    /// Ends the process at once, as `kill -9` does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends the process a signal of this name.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        // The shell's own: a slim machine has no program called kill.
        let kill = format!("kill -{name} $0");
        let told = Command::new("sh").args(["-c", &kill, &self.child.id().to_string()]).status()?;
        ensure!(told.success(), "the process can be sent a signal");
        Ok(())
    }

    /// Asks the process to stop, as `kill` does, and waits for its end.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.ended().await
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "the process does not stop: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The most memory it has had resident so far, in bytes.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    /// Memory it has resident, in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("the line is there")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Processor time it has used so far. Source: `proc_pid_stat(5)`, where a tick is 10 ms on every Linux.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("a name in parentheses")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration of a node whose resources and data stand in `folder`.
pub fn config(folder: &Path, http: SocketAddr, mesh: SocketAddr, peers: &str) -> String {
    let folder = folder.display();
    format!(
        "listen: {{ http: \"{http}\", mesh: \"{mesh}\" }}\n{peers}\nresources: {{ kind: folder, path: \"{folder}/resources\" }}\n\
         data: \"{folder}/data\"\n"
    )
}

/// Seven processes: a gateway, auth-rules, realtime, storage, functions and two of crud.
pub struct Spread {
    /// The one that clients reach.
    pub gateway: Process,
    /// Both that hold rows.
    pub crud: [Process; 2],
    /// A caller without a token.
    pub client: Client,
    _auth: Process,
    _realtime: Process,
    _storage: Process,
    _functions: Process,
}

impl Spread {
    /// Starts them over the resources in `folder` and waits until they are ready.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let (http, auth, one, two) = (free_address()?, free_address()?, free_address()?, free_address()?);
        let (realtime, storage, functions) = (free_address()?, free_address()?, free_address()?);
        let serve = |name: &str, service: &str, http, mesh, peers: &str| {
            Process::serve(folder, name, &[service], &config(folder, http, mesh, peers))
        };
        let called = format!("auth-rules: [\"http://{auth}\"], crud: [\"http://{one}\", \"http://{two}\"]");
        let peers = format!(
            "peers: {{ {called}, realtime: [\"http://{realtime}\"], storage: [\"http://{storage}\"], functions: [\"http://{functions}\"] }}\n"
        );
        // The gateway first: order does not matter.
        let spread = Self {
            gateway: serve("gateway", "gateway", http, free_address()?, &peers)?,
            _auth: serve("auth", "auth-rules", free_address()?, auth, "")?,
            _realtime: serve("realtime", "realtime", free_address()?, realtime, &format!("peers: {{ {called} }}\n"))?,
            _storage: serve("storage", "storage", free_address()?, storage, "")?,
            _functions: serve(
                "functions",
                "functions",
                free_address()?,
                functions,
                &format!("peers: {{ {called} }}\n"),
            )?,
            crud: [
                serve("crud-one", "crud", free_address()?, one, "")?,
                serve("crud-two", "crud", free_address()?, two, "")?,
            ],
            client: Client::new(http, "shop"),
        };
        ready(&spread.client).await?;
        Ok(spread)
    }
}
