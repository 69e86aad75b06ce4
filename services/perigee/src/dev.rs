//! `perigee dev`: the whole mesh in one process, and a note of what it opened.

mod example;

use std::{
    collections::BTreeSet,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use mesh::{
    Call, Mesh, config,
    resources::{Current, Snapshot},
};
use proto::{
    Links,
    crud::{Database, DescribeRequest},
};
use query::resources::ProjectResource;

use crate::{
    check,
    failure::Failure,
    node::{self, Mode, Node, Signals},
    output,
    progress::Progress,
    token,
    version::VERSION,
};
use example::TableKey;

/// How long the note waits for databases to be reached.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it asks whether they are.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Arguments of `perigee dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee dev examples/chinook --listen 127.0.0.1:8080")]
pub struct DevArgs {
    /// The resource folder
    #[arg(default_value = token::DEFAULT_DIR)]
    pub dir: PathBuf,
    /// Where to listen; loopback only, for there is no login
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4122", value_parser = loopback)]
    pub listen: SocketAddr,
    /// Where SQLite files and development keys are kept
    #[arg(long, value_name = "DIR", default_value = token::DEFAULT_DATA)]
    pub data: PathBuf,
}

/// Runs everything until the process is asked to stop.
pub async fn run(args: DevArgs) -> Result<(), Failure> {
    check::is_folder(&args.dir)?;
    let mut config = config::Node::load(None, node::variables()).context("the configuration is wrong")?;
    config.services = config::ServiceName::all();
    config.peers.clear();
    config.listen.http = args.listen;
    config.data = args.data.clone();
    config.resources = config::Resources::Folder { path: args.dir.clone() };
    mesh::telemetry::start(&config.telemetry).context("the log cannot be started")?;

    let signals = Signals::catch()?;
    let node = Node::start(config, Mode::Dev).await?;
    let base = node.http.map(|address| format!("http://{address}")).unwrap_or_default();
    let context = Context { base, dir: args.dir, data: args.data, mesh: node.mesh().clone() };
    let mut current = node.resources().clone();
    let snapshot = current.borrow_and_update().clone();
    let projects = projects(&context.mesh, &snapshot).await;
    let open = example::open_tables(&snapshot, &projects);
    output::print(&note(&context, &snapshot, &projects, &open).await);
    tokio::select! {
        ended = node.run(signals) => ended,
        () = follow(context, current, open) => Ok(()),
    }
}

/// What the notes tell of.
pub struct Context {
    /// URL of the HTTP port.
    base: String,
    /// The resource folder.
    dir: PathBuf,
    /// The data folder.
    data: PathBuf,
    mesh: Mesh,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| format!("expected HOST:PORT: {error}"))?;
    let address = addresses.next().ok_or("the name has no address")?;
    if !address.ip().to_canonical().is_loopback() {
        return Err("`perigee dev` has no login and listens on loopback only, such as 127.0.0.1:4122; \
                    to be reached from other machines use `perigee serve`"
            .to_owned());
    }
    Ok(address)
}

/// A project and what crud says of its databases.
pub struct Project {
    id: String,
    databases: Vec<Database>,
}

/// All projects, once each of their databases is reached or known not to be.
async fn projects(mesh: &Mesh, snapshot: &Snapshot) -> Vec<Project> {
    let _progress = Progress::start("reading the schemas of the databases");
    let mut projects = Vec::new();
    let late = tokio::time::Instant::now() + REACH_TIMEOUT;
    for (ProjectResource { meta, .. }, _) in snapshot.of() {
        let databases = databases(mesh, &meta.id, late).await;
        projects.push(Project { id: meta.id.clone(), databases });
    }
    projects
}

async fn databases(mesh: &Mesh, project: &str, late: tokio::time::Instant) -> Vec<Database> {
    loop {
        let request = DescribeRequest { project: project.to_owned(), ..Default::default() };
        let databases = match mesh.crud().describe(&Call::begin(None, None, None), request).await {
            Ok(response) => response.databases,
            Err(_not_yet) => Vec::new(),
        };
        if !databases.iter().any(Database::is_opening) || tokio::time::Instant::now() > late {
            return databases;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The start-up note: addresses, projects, databases, and a first request.
async fn note(context: &Context, snapshot: &Snapshot, projects: &[Project], open: &BTreeSet<TableKey>) -> String {
    let Context { base, dir, data, .. } = context;
    let mut lines = vec![
        format!("perigee {VERSION}"),
        String::new(),
        format!("  listening  {base}  GraphQL, REST, gRPC, grpc-web; this machine only, no operator login"),
        format!("  resources  {}  a change is in force within a second", dir.display()),
        format!("  data       {}", data.display()),
    ];
    for project in projects {
        lines.push(format!("  project    {}  {base}/v1/api/{}/graphql  GraphiQL in a browser", project.id, project.id));
        lines.extend(project.databases.iter().map(|database| database_line(&project.id, database, open)));
    }
    if let Some(project) = projects.first() {
        let (id, options) = (&project.id, token::options(dir, data));
        lines.push(format!("  tokens     perigee token {id} '{{\"id\": 1}}'{options}"));
    } else {
        lines.push("  no project yet; `perigee init` writes one, and it is in force at once".to_owned());
    }
    lines.push(String::new());
    lines.push(match example::curl(context, snapshot, projects, |_| true).await {
        Some((_, curl)) => format!("  try:\n  {curl}\n"),
        None => match example::first_rule(dir, snapshot, projects).filter(|_| open.is_empty()) {
            Some(rule) => format!("  nothing is open yet; {rule}"),
            None => format!("  try:\n  curl -s {base}/v1/api/health-check\n"),
        },
    });
    lines.join("\n") + "\n"
}

fn database_line(project: &str, database: &Database, open: &BTreeSet<TableKey>) -> String {
    let found = match &database.schema {
        Some(schema) => {
            let is_here = |(of, id, _): &&TableKey| of == project && *id == database.id;
            let tables = match schema.tables().len() {
                1 => "1 table".to_owned(),
                many => format!("{many} tables"),
            };
            match open.iter().filter(is_here).count() {
                0 if schema.tables().is_empty() => tables,
                0 => format!("{tables}, none open yet"),
                count => format!("{tables}, {count} open"),
            }
        }
        None if database.error.is_empty() => "not reached yet".to_owned(),
        None => format!("not reached: {}", database.error),
    };
    format!("  database   {}  {}, {found}", database.id, database.engine)
}

/// After each edit that opens a table, prints a command that shows it. Never ends.
async fn follow(context: Context, mut current: Current, mut open: BTreeSet<TableKey>) {
    while current.changed().await.is_ok() {
        let snapshot = current.borrow_and_update().clone();
        let projects = projects(&context.mesh, &snapshot).await;
        let now = example::open_tables(&snapshot, &projects);
        if let Some((table, curl)) = example::curl(&context, &snapshot, &projects, |key| !open.contains(key)).await {
            output::print(&format!("\n  {table} is open now, try:\n  {curl}\n"));
        }
        open = now;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_listens_on_loopback_only() {
        for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            loopback(address).unwrap();
        }
        for address in ["0.0.0.0:4122", "[::]:4122", "192.168.1.1:4122", "4122", ""] {
            loopback(address).unwrap_err();
        }
    }
}
