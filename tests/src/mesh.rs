//! A mesh with throw-away data: all services in one process, each as a node of its own, or as processes.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;
use mesh::config;
use perigee::node::{Mode, Node};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::Client,
    engine::{self, Database, Engine},
    nats,
    process::{Spread, free_address},
    token,
};

/// Shape of a mesh: how its services are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All in one process.
    OneProcess,
    /// Each on a port of its own, with NATS between.
    Split,
    /// As the shipped binary, in seven processes, two of them crud.
    Processes,
}

/// All engines.
pub const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::Mysql];

/// Resources that let everybody do everything with the tables of `lab`.
pub const OPEN_LAB: &str = "\
---
kind: table
meta: { project: shop, database: lab, id: default }
spec:
  rules:
    create: { rule: allow }
    read: { rule: allow }
    update: { rule: allow, allowAll: true }
    delete: { rule: allow, allowAll: true }
";

/// Resources of a test beside the music shop.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Further YAML documents.
    pub resources: String,
    /// SQL that fills a second database, `lab`.
    pub lab: Option<String>,
    /// The role as which the mesh connects to `lab` on a server; absent: its owner.
    pub role: Option<String>,
    /// Further databases that are schemas of `lab` on a server, called as their schemas are.
    pub schemas: Vec<String>,
    /// Further projects with the same `lab`, whose tables everybody may use: id and `spec`.
    pub projects: Vec<(String, Value)>,
    /// Whether the project shows its GraphQL schema.
    pub introspection: bool,
    /// Limits of the project, such as `answerBytes: 1000`.
    pub limits: &'static str,
    /// From what changes of rows are learnt; by default `auto`, and in the shape of several nodes `triggers`.
    pub changes: &'static str,
    /// Further nodes that run functions, in the shape of several nodes.
    pub more_functions: usize,
    /// Limits of the nodes of this process, such as `sockets: 2`.
    pub node_limits: &'static str,
    /// Limits of images of the nodes of this process, such as `side: 100`.
    pub node_images: &'static str,
    /// Tables of the shop whose rules are replaced, each by a document.
    pub replace: Vec<(&'static str, &'static str)>,
}

/// A running mesh of project `shop`.
pub struct TestMesh {
    /// A caller without a token.
    pub client: Client,
    /// Database `music`.
    pub music: Database,
    /// Database `lab`, where the test asked for one.
    pub lab: Option<Database>,
    schemas: Vec<String>,
    running: Running,
    folder: TempDir,
}

/// The running parts of a mesh.
enum Running {
    Nodes(Vec<Node>),
    /// Killed when dropped.
    Processes(Box<Spread>),
}

impl TestMesh {
    /// The music shop with the rules of the example.
    pub async fn shop(shape: Shape, engine: Engine) -> anyhow::Result<Self> {
        Self::with(shape, engine, &Setup::default()).await
    }

    /// The music shop and what `setup` adds.
    pub async fn with(shape: Shape, engine: Engine, setup: &Setup) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // Both sources of changes of rows of a server are tried, each in one shape.
        let has_triggers = shape == Shape::Split && engine != Engine::Mysql;
        let changes = if has_triggers { "triggers" } else { setup.changes };
        let (music, lab) = set_up(engine, folder.path(), &Setup { changes, ..setup.clone() }).await?;
        let (running, client) = start(shape, folder.path(), setup).await?;
        ready(&client).await?;
        Ok(Self { client, music, lab, schemas: setup.schemas.clone(), running, folder })
    }

    /// Whether the project has a database called `id`.
    pub fn has(&self, id: &str) -> bool {
        id == "music" || self.lab.is_some() && (id == "lab" || self.schemas.iter().any(|schema| schema == id))
    }

    /// A caller with the token of a customer.
    pub fn customer(&self, id: i64) -> Client {
        self.client.with_token(&token::customer(id))
    }

    /// A caller with the token of an employee.
    pub fn staff(&self) -> Client {
        self.client.with_token(&token::staff())
    }

    /// Puts `resources` in the place of the documents that [`Setup::resources`] are.
    pub fn edit(&self, resources: &str) -> anyhow::Result<()> {
        std::fs::write(self.folder.path().join("resources/further.yaml"), resources)?;
        Ok(())
    }

    /// The data folder of all nodes.
    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// The links of the node that clients reach, where it is of this process.
    pub fn links(&self) -> anyhow::Result<::mesh::Mesh> {
        let Running::Nodes(nodes) = &self.running else { anyhow::bail!("the nodes are processes of their own") };
        Ok(nodes.first().context("a gateway")?.mesh().clone())
    }

    /// The metrics of all nodes of this process, as they tell them.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let Running::Nodes(nodes) = &self.running else { anyhow::bail!("the nodes are processes of their own") };
        let mut all = String::new();
        for address in nodes.iter().filter_map(|node| node.http.or(node.peer)) {
            let response = Client::new(address, "shop").send(http::Method::GET, "/metrics", &[], "").await?;
            anyhow::ensure!(response.status() == 200, "no metrics at {address}: {}", response.status());
            all.push_str(std::str::from_utf8(response.body())?);
        }
        Ok(all)
    }

    /// Ends all nodes in order, as a signal does.
    pub async fn stop(self) {
        match self.running {
            Running::Nodes(nodes) => {
                for node in nodes {
                    node.drain().await;
                }
            }
            Running::Processes(spread) => drop(spread),
        }
    }
}

/// Waits until every part of a node says that it is ready.
pub async fn ready(client: &Client) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match client.get("/ready").await {
            Ok((200, _)) => return Ok(()),
            answer => anyhow::ensure!(tokio::time::Instant::now() < until, "not ready: {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fills the databases of a test, music and what `setup` has as lab, and writes its resources below `folder`.
pub async fn set_up(engine: Engine, folder: &Path, setup: &Setup) -> anyhow::Result<(Database, Option<Database>)> {
    let music = Database::shop(engine, folder).await?;
    let lab = match &setup.lab {
        Some(script) => Some(Database::filled(engine, folder, script).await?),
        None => None,
    };
    write_resources(folder, &music, lab.as_ref(), setup)?;
    Ok((music, lab))
}

/// Writes the resources of the example below `folder`, with keys and the databases of a test.
pub fn write_resources(folder: &Path, music: &Database, lab: Option<&Database>, setup: &Setup) -> anyhow::Result<()> {
    let resources = folder.join("resources");
    std::fs::create_dir_all(&resources)?;
    let (secret, limits, introspection) = (token::SECRET, setup.limits, setup.introspection);
    let changes = if setup.changes.is_empty() { "auto" } else { setup.changes };
    let mut project = format!(
        "kind: project\nmeta: {{ id: shop }}\nspec:\n  tokens: [{{ kid: main, alg: HS256, secret: {secret}, primary: true }}]\n  limits: {{ {limits} }}\n  graphql: {{ introspection: {introspection} }}\n"
    );
    let music = std::iter::once(("music", "public", Some(music)));
    let schemas = setup.schemas.iter().map(|schema| (schema.as_str(), schema.as_str(), lab));
    for (id, schema, database) in music.chain([("lab", "public", lab)]).chain(schemas) {
        if let Some(database) = database {
            let url = match (id, &setup.role) {
                (id, Some(role)) if id != "music" => database.url_of(role)?,
                _ => database.url.clone(),
            };
            project.push_str(&format!(
                "---\nkind: database\nmeta: {{ project: shop, id: {id} }}\nspec: {{ url: \"{url}\", schema: {schema}, changes: {{ source: {changes} }} }}\n"
            ));
        }
    }
    for (id, spec) in &setup.projects {
        let allowed = ["create", "read", "update", "delete"].map(|operation| (operation, json!({ "rule": "allow" })));
        let url = &lab.context("further projects have a lab")?.url;
        for document in [
            json!({ "kind": "project", "meta": { "id": id }, "spec": spec }),
            json!({ "kind": "database", "meta": { "project": id, "id": "lab" }, "spec": { "url": url } }),
            json!({
                "kind": "table",
                "meta": { "project": id, "database": "lab", "id": "default" },
                "spec": { "rules": allowed.into_iter().collect::<std::collections::BTreeMap<_, _>>() },
            }),
        ] {
            // JSON is YAML.
            project.push_str(&format!("---\n{document}\n"));
        }
    }
    std::fs::write(resources.join("project.yaml"), project)?;
    std::fs::write(resources.join("tables.yaml"), shop_tables(setup)?)?;
    std::fs::write(resources.join("further.yaml"), &setup.resources)?;
    Ok(())
}

/// The rules of the example, those replaced that `setup` replaces.
fn shop_tables(setup: &Setup) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(engine::chinook().join("tables.yaml"))?;
    let mut documents: Vec<&str> = text.split("\n---\n").collect();
    for (table, document) in &setup.replace {
        let place = documents.iter_mut().find(|document| document.contains(&format!("id: {table} }}")));
        *place.context("the example has the table")? = document;
    }
    Ok(documents.join("\n---\n"))
}

async fn start(shape: Shape, folder: &Path, setup: &Setup) -> anyhow::Result<(Running, Client)> {
    let mut limits = match setup.node_limits {
        "" => String::new(),
        limits => format!("limits: {{ {limits} }}\n"),
    };
    if !setup.node_images.is_empty() {
        limits.push_str(&format!("images: {{ {} }}\n", setup.node_images));
    }
    let nodes = match shape {
        Shape::Processes => {
            let spread = Box::new(Spread::start(folder).await?);
            let client = spread.client.clone();
            return Ok((Running::Processes(spread), client));
        }
        Shape::OneProcess => {
            vec![node(folder, "[gateway, crud, auth-rules, realtime, storage, functions]", &limits).await?]
        }
        Shape::Split => {
            // Its own name on the bus: the databases of others are called alike.
            let limits = format!("{limits}{}", nats::shared_bus(&folder.display().to_string()));
            let crud = node(folder, "[crud]", &limits).await?;
            let address = |node: &Node| node.peer.context("a node that others call has an address");
            let rows = format!("crud: [\"http://{}\"]", address(&crud)?);
            // Functions and rules call each other.
            let rules = free_address()?;
            let peers = format!("{limits}peers: {{ {rows}, auth-rules: [\"http://{rules}\"] }}\n");
            let mut functions = Vec::new();
            for _ in 0..=setup.more_functions {
                functions.push(node(folder, "[functions]", &peers).await?);
            }
            let urls = functions.iter().map(|node| Ok(format!("\"http://{}\"", address(node)?)));
            let urls = urls.collect::<anyhow::Result<Vec<String>>>()?.join(", ");
            // Its rules ask functions.
            let peers = format!("{limits}peers: {{ functions: [{urls}] }}\n");
            let auth = node_at(folder, "[auth-rules]", rules, &peers).await?;
            let peers = format!("{rows}, auth-rules: [\"http://{}\"]", address(&auth)?);
            let realtime = node(folder, "[realtime]", &format!("{limits}peers: {{ {peers} }}\n")).await?;
            let storage = node(folder, "[storage]", &limits).await?;
            let further = format!(
                "{limits}peers: {{ {peers}, realtime: [\"http://{}\"], storage: [\"http://{}\"], \
                 functions: [{urls}] }}\n",
                address(&realtime)?,
                address(&storage)?
            );
            let gateway = node(folder, "[gateway]", &further).await?;
            let mut nodes = vec![gateway, realtime, storage];
            nodes.extend(functions);
            nodes.extend([crud, auth]);
            nodes
        }
    };
    let http = nodes.iter().find_map(|node| node.http).context("a gateway")?;
    Ok((Running::Nodes(nodes), Client::new(http, "shop")))
}

async fn node(folder: &Path, services: &str, further: &str) -> anyhow::Result<Node> {
    node_at(folder, services, ([127, 0, 0, 1], 0).into(), further).await
}

/// A node that others call at an address.
async fn node_at(folder: &Path, services: &str, mesh: SocketAddr, further: &str) -> anyhow::Result<Node> {
    let folder = folder.display();
    let text = format!(
        "services: {services}\nlisten: {{ http: \"127.0.0.1:0\", mesh: \"{mesh}\" }}\n{further}\
         egress: {{ allow: [127.0.0.0/8] }}\nresources: {{ kind: folder, path: \"{folder}/resources\" }}\n\
         data: \"{folder}/data\"\n"
    );
    let config = config::Node::parse("test", &text, [])?;
    Node::start(config, Mode::Serve).await.map_err(|failure| anyhow::anyhow!("{failure:?}"))
}
