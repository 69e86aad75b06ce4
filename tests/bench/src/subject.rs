//! What is measured: processes on loopback ports, and the processor time they use.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::callgrind;

/// What each measurement starts from.
#[derive(clap::Args)]
pub struct Inputs {
    /// The perigee binary.
    #[arg(long)]
    pub perigee: PathBuf,
    /// Chinook as SQL scripts for both engines.
    #[arg(long)]
    pub chinook: PathBuf,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    pub only: String,
}

/// A running server of one or more processes, stopped when dropped.
pub struct Server {
    /// Where it answers.
    pub port: u16,
    processes: Vec<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// How a server is started.
#[derive(Debug, Clone, Copy)]
pub enum Launch<'a> {
    /// As it is.
    Plain,
    /// Under callgrind, which counts nothing until it is told to and keeps its files in this folder.
    Callgrind(&'a Path),
}

impl Launch<'_> {
    fn command(self, program: &Path) -> Command {
        match self {
            Self::Plain => Command::new(program),
            Self::Callgrind(home) => callgrind::command(home, program),
        }
    }
}

/// A port that nobody listens on.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Server {
    /// One of the servers written by hand.
    pub fn by_hand(driver: &str, database: &str, launch: Launch) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = launch.command(&std::env::current_exe()?);
        command.args(["serve", driver, database, &port.to_string()]);
        Self { port, processes: vec![command.spawn()?] }.answering()
    }

    /// Perigee with all services in one process.
    pub fn near(perigee: &Path, home: &Path, launch: Launch) -> anyhow::Result<Self> {
        let port = free_port()?;
        let config = home.join("near.yaml");
        fs::write(&config, node(home, "gateway, auth-rules, crud, realtime, storage", port, free_port()?, ""))?;
        Self { port, processes: vec![serve(launch.command(perigee), &config, &[])?] }.answering()
    }

    /// The gRPC server of a user.
    pub fn echo() -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["echo", &port.to_string()]);
        Self { port, processes: vec![command.spawn()?] }.answering()
    }

    /// Perigee with functions, which may be on this machine.
    pub fn calling(perigee: &Path, home: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let config = home.join("calling.yaml");
        let services = "gateway, auth-rules, crud, realtime, storage, functions";
        fs::write(&config, node(home, services, port, free_port()?, "egress: { allow: [\"127.0.0.0/8\"] }\n"))?;
        Self { port, processes: vec![serve(Command::new(perigee), &config, &[])?] }.answering()
    }

    /// Perigee with each service in a process of its own.
    pub fn split(perigee: &Path, home: &Path) -> anyhow::Result<Self> {
        let (port, auth, crud, realtime) = (free_port()?, free_port()?, free_port()?, free_port()?);
        let storage = free_port()?;
        let called = format!("auth-rules: [\"http://127.0.0.1:{auth}\"], crud: [\"http://127.0.0.1:{crud}\"]");
        let further = format!("realtime: [\"http://127.0.0.1:{realtime}\"], storage: [\"http://127.0.0.1:{storage}\"]");
        let peers = format!("peers: {{ {called}, {further} }}\n");
        let called = format!("peers: {{ {called} }}\n");
        let mut processes = Vec::new();
        for (service, http, mesh, peers) in [
            ("crud", free_port()?, crud, ""),
            ("auth-rules", free_port()?, auth, ""),
            ("realtime", free_port()?, realtime, called.as_str()),
            ("storage", free_port()?, storage, ""),
            ("gateway", port, free_port()?, peers.as_str()),
        ] {
            let config = home.join(format!("split-{service}.yaml"));
            fs::write(&config, node(home, service, http, mesh, peers))?;
            processes.push(serve(Command::new(perigee), &config, &[service])?);
        }
        Self { port, processes }.answering()
    }

    /// The process that was started first.
    pub fn process(&self) -> Option<u32> {
        self.processes.first().map(Child::id)
    }

    /// Processor time of all its processes so far.
    pub fn processor_time(&self) -> Duration {
        self.processes.iter().map(|process| processor_time(process.id())).sum()
    }

    /// Resident memory of all its processes, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.processes.iter().filter_map(|process| resident_bytes(process.id())).sum()
    }

    fn answering(self) -> anyhow::Result<Self> {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(self);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("port {} does not answer", self.port)
    }
}

fn serve(mut perigee: Command, config: &Path, services: &[&str]) -> anyhow::Result<Child> {
    perigee
        .arg("serve")
        .args(services)
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", perigee.get_program().display()))
}

fn node(home: &Path, services: &str, http: u16, mesh: u16, peers: &str) -> String {
    let home = home.display();
    format!(
        "services: [{services}]\nlisten: {{ http: \"127.0.0.1:{http}\", mesh: \"127.0.0.1:{mesh}\" }}\n{peers}\
         resources: {{ kind: folder, path: \"{home}/resources\" }}\ndata: \"{home}/data\"\n\
         telemetry: {{ log: error }}\n"
    )
}

/// Processor time of PostgreSQL's processes so far, the server's own and those it started.
pub fn postgres_time(postmaster: u32) -> Duration {
    let children = children(postmaster).into_iter().map(processor_time).sum::<Duration>();
    processor_time(postmaster) + reaped_time(postmaster) + children
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|process| stat(*process).and_then(|fields| fields.get(1)?.parse().ok()) == Some(parent))
        .collect()
}

/// Fields of `/proc/PID/stat` from the third (the state) on.
fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn ticks(process: u32, fields: [usize; 2]) -> Duration {
    let Some(stat) = stat(process) else { return Duration::ZERO };
    let ticks: u64 = fields.iter().filter_map(|field| stat.get(*field)?.parse::<u64>().ok()).sum();
    // A tick is 10 ms on Linux.
    Duration::from_millis(ticks * 10)
}

fn processor_time(process: u32) -> Duration {
    ticks(process, [11, 12])
}

fn reaped_time(process: u32) -> Duration {
    ticks(process, [13, 14])
}

fn resident_bytes(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The file that holds resources of the shop and the notes, rules on.
pub fn write_resources(home: &Path, kind: &str, url: &str, changes: &str) -> anyhow::Result<PathBuf> {
    let resources = home.join("resources");
    fs::create_dir_all(&resources)?;
    fs::create_dir_all(home.join("data"))?;
    let mut text = format!(
        "kind: project\nmeta: {{ id: shop }}\nspec:\n  tokens: [{{ kid: main, alg: HS256, secret: \"{}\", primary: true }}]\n\
         ---\nkind: database\nmeta: {{ project: shop, id: music }}\nspec: {{ type: {kind}, url: \"{url}\", changes: {{ source: {changes} }} }}\n",
        "bench-secret-of-at-least-thirty-two-bytes"
    );
    for table in ["artist", "album", "track", "note", "post", "topic"] {
        let rule = "{ rule: match, type: string, eval: \"==\", f1: args.auth.role, f2: user }";
        let create = if table == "note" { format!(", create: {rule}") } else { String::new() };
        text.push_str(&format!(
            "---\nkind: table\nmeta: {{ project: shop, database: music, id: {table} }}\n\
             spec: {{ rules: {{ read: {rule}{create} }} }}\n"
        ));
    }
    fs::write(resources.join("shop.yaml"), text)?;
    Ok(resources)
}

/// An SQLite file with the music shop and an empty table of notes.
pub fn write_sqlite(chinook: &Path, home: &Path) -> anyhow::Result<PathBuf> {
    let file = home.join("music.db");
    let connection = rusqlite::Connection::open(&file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(&fs::read_to_string(chinook.join("sqlite.sql"))?)?;
    connection.execute_batch(
        "CREATE TABLE note (note_id INTEGER PRIMARY KEY, body TEXT NOT NULL, rank INTEGER NOT NULL); ANALYZE;",
    )?;
    Ok(file)
}

/// A token that the rules of the shop let in.
pub fn token(perigee: &Path, resources: &Path) -> anyhow::Result<String> {
    let output = Command::new(perigee)
        .args(["token", "shop", r#"{"id":"u1","role":"user"}"#, "--expires", "24h", "--dir"])
        .arg(resources)
        .output()?;
    ensure!(output.status.success(), "perigee token: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
