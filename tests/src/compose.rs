//! The services of a compose file as processes of this machine: each port of each service is one of loopback.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    case,
    client::Client,
    engine::{self, Database},
    nats::NatsServer,
    process::{self, Process, Variables, free_address},
    python_tool,
};

/// How long a service may take until it is healthy.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(30);
/// Ports that services have in their containers.
const PORTS: [u16; 5] = [4122, 4130, 4222, 5432, 8222];
/// Where the binary stands in the image.
const PROGRAM: &str = "/usr/local/bin/perigee";
/// Where containers find their secrets.
const SECRETS: &str = "/run/secrets";

/// A compose file, and what runs of it. The processes are killed when it is dropped.
pub struct Compose {
    /// The folder of the file, to which its paths are relative.
    root: PathBuf,
    services: Map<String, Value>,
    secrets: BTreeMap<String, PathBuf>,
    addresses: BTreeMap<(String, u16), SocketAddr>,
    started: BTreeSet<String>,
    processes: BTreeMap<String, Process>,
    nats: Option<NatsServer>,
    folder: TempDir,
}

impl Compose {
    /// Starts the services of the file in the order that it asks for, with the secrets of the folder `secrets`, and waits
    /// until all are healthy.
    pub async fn up(file: &Path, secrets: &Path) -> anyhow::Result<Self> {
        let mut document = read(file)?;
        let services = document["services"].as_object_mut().map(std::mem::take).context("services")?;
        let files = document["secrets"].as_object().context("secrets")?;
        let files = files.iter().map(|(name, secret)| {
            let file = Path::new(secret["file"].as_str().context("a secret is a file")?);
            Ok((name.clone(), secrets.join(file.file_name().context("a name")?)))
        });
        let mut compose = Self {
            root: file.parent().context("a folder")?.to_owned(),
            services,
            secrets: files.collect::<anyhow::Result<_>>()?,
            addresses: BTreeMap::new(),
            started: BTreeSet::new(),
            processes: BTreeMap::new(),
            nats: None,
            folder: tempfile::tempdir()?,
        };
        let names: Vec<String> = compose.services.keys().cloned().collect();
        for (name, port) in names.iter().flat_map(|name| PORTS.map(|port| (name.clone(), port))) {
            compose.addresses.insert((name, port), free_address()?);
        }
        for name in &names {
            Box::pin(compose.start(name)).await?;
        }
        for name in &names {
            compose.healthy(name).await?;
        }
        Ok(compose)
    }

    /// Names of the services.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// A process of the file.
    pub fn process(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        self.processes.get_mut(name).with_context(|| format!("{name} runs"))
    }

    /// The port of this machine that a service publishes, and the address that stands for it here.
    pub fn published(&self, name: &str) -> anyhow::Result<(&str, SocketAddr)> {
        let [port] = self.texts(name, "ports")?[..] else { anyhow::bail!("{name} publishes a port") };
        let (host, container) = port.rsplit_once(':').context("HOST:PORT:PORT")?;
        Ok((host, self.addresses[&(name.to_owned(), container.parse()?)]))
    }

    /// The content of a secret.
    pub fn secret(&self, name: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.secrets.get(name).context("the secret is declared")?)?)
    }

    /// What `docker compose exec SERVICE ARGUMENTS…` prints.
    pub async fn exec(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let ([program, arguments @ ..], variables) = (arguments, self.variables(name)?) else {
            anyhow::bail!("a program is given")
        };
        ensure!([PROGRAM, "perigee"].contains(program), "{program} is not in the image");
        let mut arguments: Vec<String> =
            arguments.iter().map(|argument| self.here(name, argument)).collect::<Result<_, _>>()?;
        if arguments == ["health"] {
            arguments.push(self.addresses[&(name.to_owned(), 4122)].to_string());
        }
        let output = Command::new(process::binary()).args(&arguments).envs(variables).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name}: {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until the health check of a service succeeds.
    pub async fn healthy(&self, name: &str) -> anyhow::Result<()> {
        let until = Instant::now() + HEALTHY_TIMEOUT;
        loop {
            match self.health(name).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => {
                    let log = self.processes.get(name).map(Process::log).unwrap_or_default();
                    return Err(error.context(format!("{name} is not healthy: {log}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Runs the health check of a service once.
    pub async fn health(&self, name: &str) -> anyhow::Result<()> {
        let test = self.texts_of(&self.services[name]["healthcheck"]["test"])?;
        let ["CMD", command @ ..] = &test[..] else { anyhow::bail!("{name}: expected CMD, found {test:?}") };
        let arguments = match command {
            ["pg_isready", arguments @ ..] => arguments,
            ["wget", .., url] => return self.answers(name, url).await,
            command => return self.exec(name, command).await.map(drop),
        };
        let port = server_address()?.rsplit_once(':').context("HOST:PORT")?.1.to_owned();
        let output = Command::new("pg_isready").args(arguments).env("PGPORT", port).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    /// Whether a URL of a service is answered well.
    async fn answers(&self, name: &str, url: &str) -> anyhow::Result<()> {
        let here = self.here(name, url)?;
        let (address, path) = here.trim_start_matches("http://").split_once('/').context("a path")?;
        let (status, answer) = Client::new(address.parse()?, "").get(&format!("/{path}")).await?;
        ensure!(status == 200, "{name}: {status} {answer}");
        Ok(())
    }

    /// Starts a service after those that it depends on.
    async fn start(&mut self, name: &str) -> anyhow::Result<()> {
        if !self.started.insert(name.to_owned()) {
            return Ok(());
        }
        for (dependency, is_healthy) in self.dependencies(name)? {
            Box::pin(self.start(&dependency)).await?;
            if is_healthy {
                self.healthy(&dependency).await?;
            }
        }
        if !self.is_built(name) {
            return match self.texts(name, "entrypoint")?[..] {
                [] => self.fill(name).await,
                _ => self.start_nats(name).await,
            };
        }
        let arguments = self.texts(name, "command")?.into_iter().map(str::to_owned).collect();
        let log = self.folder.path().join(format!("{name}.log"));
        let process = Process::start(log, arguments, self.variables(name)?)?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Whether the image of a service is one that the file builds, for it or for another.
    fn is_built(&self, name: &str) -> bool {
        let image = &self.services[name]["image"];
        self.services.values().any(|service| service.get("build").is_some() && service["image"] == *image)
    }

    /// Services that another depends on, and whether these have to be healthy.
    fn dependencies(&self, name: &str) -> anyhow::Result<Vec<(String, bool)>> {
        match &self.services[name]["depends_on"] {
            Value::Null => Ok(Vec::new()),
            Value::Object(all) => {
                let is_healthy = |on: &Value| on["condition"] == "service_healthy";
                Ok(all.iter().map(|(name, on)| (name.clone(), is_healthy(on))).collect())
            }
            list => Ok(self.texts_of(list)?.into_iter().map(|name| (name.to_owned(), false)).collect()),
        }
    }

    /// Starts the server of a service by its own command, which finds the program where the tests have it.
    async fn start_nats(&mut self, name: &str) -> anyhow::Result<()> {
        let command = self.texts(name, "entrypoint")?.into_iter().map(|word| self.here(name, word));
        let command = command.collect::<anyhow::Result<Vec<String>>>()?;
        let folder = python_tool::path("nats-server").parent().context("a folder")?.display().to_string();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
        let address = self.addresses[&(name.to_owned(), 4222)];
        let (folder, variables) = (self.folder.path().join(name), vec![("PATH".to_owned(), path)]);
        self.nats = Some(NatsServer::run(&folder, address, command, variables).await?);
        Ok(())
    }

    /// Makes the role and the database that the image of PostgreSQL makes from these variables, with its scripts, on the
    /// server of the tests.
    async fn fill(&self, name: &str) -> anyhow::Result<()> {
        let of = &self.services[name];
        let variable = |name: &str| of["environment"][name].as_str().with_context(|| name.to_owned());
        let (user, database) = (variable("POSTGRES_USER")?, variable("POSTGRES_DB")?);
        let password = fs::read_to_string(self.here(name, variable("POSTGRES_PASSWORD_FILE")?)?)?;
        let admin = Database::on_server("postgres")?;
        admin.run(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await?;
        admin.run(&format!("DROP ROLE IF EXISTS {user}")).await?;
        admin.run(&format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'")).await?;
        admin.run(&format!("CREATE DATABASE {database} OWNER {user}")).await?;
        let server = server_address()?;
        let filled = Database::at(&format!("postgres://{user}:{password}@{server}/{database}"));
        for (source, _) in
            self.mounts(name)?.iter().filter(|(_, target)| target.starts_with("/docker-entrypoint-initdb.d/"))
        {
            filled.run(&fs::read_to_string(self.root.join(source))?).await?;
        }
        Ok(())
    }

    /// The environment of a service, and the data folder of its image.
    fn variables(&self, name: &str) -> anyhow::Result<Variables> {
        let data = self.folder.path().join(name).join("data");
        let mut variables = vec![("PERIGEE_DATA".to_owned(), data.display().to_string())];
        for (variable, value) in self.services[name]["environment"].as_object().context("an environment")? {
            let value = value.as_str().with_context(|| format!("{variable} is a string"))?;
            variables.push((variable.clone(), self.here(name, value)?));
        }
        Ok(variables)
    }

    /// A text of a service with addresses, secrets and mounted folders as they are here.
    fn here(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let mut here = self.addressed(name, &text.replace("$$", "$"))?;
        for (source, target) in self.mounts(name)? {
            if here.contains(target) && self.root.join(source).is_dir() {
                here = here.replace(target, &self.mounted(name, source)?.display().to_string());
            }
        }
        Ok(here)
    }

    /// A text with addresses and secrets as they are here. Those that the service does not have stay as they are.
    fn addressed(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let mut here = text.to_owned();
        for ((service, port), address) in &self.addresses {
            let address = if *port == 5432 { server_address()? } else { address.to_string() };
            for before in ["//", "@"] {
                here = here.replace(&format!("{before}{service}:{port}"), &format!("{before}{address}"));
            }
            if service == name {
                here =
                    here.replace(&format!("0.0.0.0:{port}"), &address).replace(&format!("127.0.0.1:{port}"), &address);
            }
        }
        for (volume, target) in self.mounts(name)?.into_iter().filter(|(source, _)| !source.contains('/')) {
            let folder = self.folder.path().join(name).join(volume);
            here = here.replace(target, &folder.display().to_string());
        }
        for secret in self.texts(name, "secrets")? {
            let file = self.secrets.get(secret).with_context(|| format!("secret {secret} is declared"))?;
            here = here.replace(&format!("{SECRETS}/{secret}"), &file.display().to_string());
        }
        Ok(here)
    }

    /// A copy of a mounted folder, for one service.
    fn mounted(&self, name: &str, source: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join(name).join("mounted");
        if folder.exists() {
            return Ok(folder);
        }
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(self.root.join(source))? {
            let entry = entry?;
            let text = self.addressed(name, &fs::read_to_string(entry.path())?)?;
            fs::write(folder.join(entry.file_name()), text)?;
        }
        Ok(folder)
    }

    /// Sources and targets of what is mounted.
    fn mounts(&self, name: &str) -> anyhow::Result<Vec<(&str, &str)>> {
        let parts = |volume: &'_ str| -> anyhow::Result<(usize, usize)> {
            let source = volume.find(':').context("SOURCE:TARGET")?;
            Ok((source, volume[source + 1..].find(':').map_or(volume.len(), |end| source + 1 + end)))
        };
        let mount = |volume| parts(volume).map(|(source, end)| (&volume[..source], &volume[source + 1..end]));
        self.texts(name, "volumes")?.into_iter().map(mount).collect()
    }

    /// A list of texts of a service; empty where it has none.
    fn texts(&self, name: &str, key: &str) -> anyhow::Result<Vec<&str>> {
        self.texts_of(&self.services[name][key]).with_context(|| format!("{name}.{key}"))
    }

    fn texts_of<'a>(&self, list: &'a Value) -> anyhow::Result<Vec<&'a str>> {
        match list {
            Value::Null => Ok(Vec::new()),
            list => list.as_array().context("a list")?.iter().map(|item| item.as_str().context("a string")).collect(),
        }
    }
}

/// A compose file with its merges done.
pub fn read(file: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(file)?;
    let documents = Yaml::load_from_str(&text)?;
    let [document] = &documents[..] else { anyhow::bail!("one document") };
    Ok(merged(case::plain(document)?))
}

/// The value with the members of `<<` beside those that it has itself.
fn merged(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Map<String, Value> =
                members.into_iter().map(|(name, value)| (name, merged(value))).collect();
            // Of several, the first that has a member gives it.
            let bases = match members.remove("<<") {
                Some(Value::Array(bases)) => bases,
                base => base.into_iter().collect(),
            };
            for (name, value) in bases.into_iter().filter_map(object).flatten() {
                members.entry(name).or_insert(value);
            }
            Value::Object(members)
        }
        Value::Array(items) => items.into_iter().map(merged).collect(),
        scalar => scalar,
    }
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Host and port of the server of the tests.
fn server_address() -> anyhow::Result<String> {
    let server = engine::server();
    let (_, address) = server.split_once("://").context("a URL")?;
    let address = address.split('/').next().context("an address")?;
    Ok(address.rsplit_once('@').map_or(address, |(_, address)| address).to_owned())
}
