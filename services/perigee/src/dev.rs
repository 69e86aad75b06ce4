//! `perigee dev`: the whole mesh in one process, and a note of what it opened.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, anyhow};
use mesh::{Call, config, resources::Snapshot};
use proto::{
    Links,
    crud::{Database, DescribeRequest},
};
use query::resources::{ProjectResource, TableMeta};

use crate::{
    failure::Failure,
    node::{self, Mode, Node, Signals},
    output,
    version::VERSION,
};

/// How long the note waits for databases to be reached.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it asks whether they are.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Arguments of `perigee dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee dev examples/chinook --listen 127.0.0.1:8080")]
pub struct DevArgs {
    /// The resource folder
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Where to listen; loopback only, for there is no login
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4122", value_parser = loopback)]
    pub listen: SocketAddr,
    /// Where SQLite files and development keys are kept
    #[arg(long, value_name = "DIR", default_value = "./perigee-data")]
    pub data: PathBuf,
}

/// Runs everything until the process is asked to stop.
pub async fn run(args: DevArgs) -> Result<(), Failure> {
    if !args.dir.is_dir() {
        return Err(anyhow!("{0} is not a directory; `perigee init {0}` makes one", args.dir.display()).into());
    }
    let mut config = config::Node::load(None, node::variables()).context("the configuration is wrong")?;
    config.services = config::ServiceName::all();
    config.peers.clear();
    config.listen.http = args.listen;
    config.data = args.data.clone();
    config.resources = config::Resources::Folder { path: args.dir.clone() };
    mesh::telemetry::start(&config.telemetry).context("the log cannot be started")?;

    let signals = Signals::catch()?;
    let node = Node::start(config, Mode::Dev).await?;
    let projects = projects(&node).await;
    output::print(&note(&args, &node, &projects));
    node.run(signals).await
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
struct Project {
    id: String,
    databases: Vec<Database>,
}

/// All projects, once each of their databases is reached or known not to be.
async fn projects(node: &Node) -> Vec<Project> {
    let snapshot = node.resources().borrow().clone();
    let mut projects = Vec::new();
    let late = tokio::time::Instant::now() + REACH_TIMEOUT;
    for (ProjectResource { meta, .. }, _) in snapshot.of() {
        let databases = databases(node, &meta.id, late).await;
        projects.push(Project { id: meta.id.clone(), databases });
    }
    projects
}

async fn databases(node: &Node, project: &str, late: tokio::time::Instant) -> Vec<Database> {
    loop {
        let request = DescribeRequest { project: project.to_owned(), ..Default::default() };
        let databases = match node.mesh().crud().describe(&Call::begin(None, None, None), request).await {
            Ok(response) => response.databases,
            Err(_not_yet) => Vec::new(),
        };
        let is_known = |database: &Database| database.schema.is_some() || !database.error.is_empty();
        if databases.iter().all(is_known) || tokio::time::Instant::now() > late {
            return databases;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The start-up note: addresses, projects and databases.
fn note(args: &DevArgs, node: &Node, projects: &[Project]) -> String {
    let base = node.http.map(|address| format!("http://{address}")).unwrap_or_default();
    let mut lines = vec![
        format!("perigee {VERSION}"),
        String::new(),
        format!("  listening  {base}  GraphQL, REST, gRPC, grpc-web; this machine only, no operator login"),
        format!("  resources  {}  a change is in force within a second", args.dir.display()),
        format!("  data       {}", args.data.display()),
    ];
    for project in projects {
        lines.push(format!("  project    {}  {base}/v1/api/{}/graphql  GraphiQL in a browser", project.id, project.id));
        lines.extend(project.databases.iter().map(database_line));
    }
    if let Some(project) = projects.first() {
        let (id, dir, data) = (&project.id, args.dir.display(), args.data.display());
        lines.push(format!("  tokens     perigee token {id} '{{\"id\": 1}}' --dir {dir} --data {data}"));
    } else {
        lines.push("  no project yet; `perigee init` writes one, and it is in force at once".to_owned());
    }
    let snapshot = node.resources().borrow().clone();
    lines.extend([
        String::new(),
        "  try:".to_owned(),
        format!("  {}", curl(&base, &snapshot, projects)),
        String::new(),
    ]);
    lines.join("\n") + "\n"
}

fn database_line(database: &Database) -> String {
    let found = match &database.schema {
        Some(schema) if schema.tables().len() == 1 => "1 table".to_owned(),
        Some(schema) => format!("{} tables", schema.tables().len()),
        None if database.error.is_empty() => "not reached yet".to_owned(),
        None => format!("not reached: {}", database.error),
    };
    format!("  database   {}  {}, {found}", database.id, database.engine)
}

/// A command that works without a token: a read of a table that is open to all, else the health check.
fn curl(base: &str, snapshot: &Snapshot, projects: &[Project]) -> String {
    match auth_rules::open_tables(snapshot).find_map(|meta| open_read(meta, projects)) {
        Some((project, document)) => format!(
            "curl -s {base}/v1/api/{project}/graphql -H 'content-type: application/json' -d '{{\"query\": \"{document}\"}}'"
        ),
        None => format!("curl -s {base}/v1/api/health-check"),
    }
}

/// The project and a GraphQL document that reads a few columns of the table that `meta` names.
fn open_read(meta: &TableMeta, projects: &[Project]) -> Option<(String, String)> {
    let project = projects.iter().find(|project| project.id == meta.project)?;
    let database = project.databases.iter().find(|database| database.id == meta.database)?;
    let tables = database.schema.as_ref()?.tables();
    let table = tables.iter().find(|table| table.name == meta.id && is_name(&table.name))?;
    let columns = table.columns.iter().map(|column| column.name.as_str()).filter(|name| is_name(name));
    let columns = columns.take(3).collect::<Vec<_>>().join(" ");
    let database = if is_name(&meta.database) { &meta.database } else { return None };
    let is_readable = !columns.is_empty();
    is_readable.then(|| (project.id.clone(), format!("{{ {}(limit: 3) @{database} {{ {columns} }} }}", table.name)))
}

/// Whether `text` is a GraphQL name that a shell takes as it is.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
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
