//! `docker-compose.yml`: accepted by the tools of others, and run as processes, as `docs/deploy.md` says.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    client::Client,
    compose::{self, Compose},
    engine::Database,
    python_tool,
    socket::{Incoming, Socket},
    token,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(root().join(path)).context(path.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_of_others_accept_the_files() -> anyhow::Result<()> {
    let path = |name: &str| root().join(name).display().to_string();
    let schema = ["--builtin-schema", "vendor.compose-spec", &path("docker-compose.yml")];
    python_tool::program("check-jsonschema", &schema).await?;
    python_tool::program("hadolint", &[&path("deploy/Dockerfile")]).await?;
    Ok(())
}

#[test]
fn the_image_is_built_as_what_ships_and_does_not_run_as_root() -> anyhow::Result<()> {
    let dockerfile = text("deploy/Dockerfile")?;
    let toolchain = text("rust-toolchain.toml")?;
    let version = toolchain.split('"').nth(1).context("a version")?;
    ensure!(dockerfile.contains(&format!("FROM rust:{version}-")), "{version}");
    ensure!(dockerfile.contains(&format!("RUSTUP_TOOLCHAIN={version}\n")), "{version}");
    ensure!(text("Cargo.toml")?.contains("\n[profile.dist]\n") && dockerfile.contains("--profile dist"));
    let (_, last) = dockerfile.rsplit_once("\nFROM ").context("stages")?;
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).context("a user")?;
    ensure!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    let ignored = text(".dockerignore")?;
    for folder in ["deploy", "target", ".git"] {
        ensure!(ignored.lines().any(|line| line == folder), "{folder} is not sent to the build");
    }
    ensure!(text(".gitignore")?.contains("\n/deploy/secrets.d\n"));
    Ok(())
}

#[test]
fn containers_are_confined_and_only_gateways_are_published_to_this_machine() -> anyhow::Result<()> {
    let compose = compose::read(&root().join("docker-compose.yml"))?;
    let services = compose["services"].as_object().context("services")?;
    let mut published = Vec::new();
    for (name, service) in services {
        for port in service["ports"].as_array().into_iter().flatten() {
            published.push(format!("{name} {}", port.as_str().context("a port is a string")?));
        }
        ensure!(service["healthcheck"]["test"][0] == "CMD", "{name} has a health check");
        if name != "postgres" {
            ensure!(service["read_only"] == true && service["cap_drop"] == json!(["ALL"]), "{name}");
            ensure!(service["security_opt"] == json!(["no-new-privileges:true"]), "{name}");
        }
        // Nothing that is secret stands in the file.
        for (variable, value) in service["environment"].as_object().context("an environment")? {
            let is_secret = ["KEY", "PASSWORD", "SECRET"].iter().any(|part| variable.contains(part));
            ensure!(
                !is_secret || value.as_str().is_some_and(|value| value.contains("/run/secrets/")),
                "{name} {variable}"
            );
        }
    }
    assert_eq!(published, ["gateway-1 127.0.0.1:4122:4122", "gateway-2 127.0.0.1:4123:4122"]);
    Ok(())
}

/// Builds of one name that run beside each other fail with *already exists*.
#[test]
fn the_image_is_built_for_one_container_and_pulled_for_none() -> anyhow::Result<()> {
    let compose = compose::read(&root().join("docker-compose.yml"))?;
    let services = compose["services"].as_object().context("services")?;
    let ours = || services.iter().filter(|(_, service)| service["image"] == "perigee");
    assert_eq!(ours().count(), services.len() - 2, "all but NATS and PostgreSQL");
    let built: Vec<&String> = ours().filter(|(_, of)| of.get("build").is_some()).map(|(name, _)| name).collect();
    assert_eq!(built, ["gateway-1"]);
    for (name, service) in ours() {
        ensure!(service["pull_policy"] == "never", "{name}: a registry may have another image of that name");
    }
    Ok(())
}

#[test]
fn secrets_are_made_once() -> anyhow::Result<()> {
    let folder = secrets()?;
    let read = || -> anyhow::Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder.path().join("made"))? {
            let entry = entry?;
            all.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path())?));
        }
        all.sort();
        Ok(all)
    };
    let first = read()?;
    let compose = compose::read(&root().join("docker-compose.yml"))?;
    let declared: Vec<&String> = compose["secrets"].as_object().context("secrets")?.keys().collect();
    assert_eq!(first.iter().map(|(name, _)| name).collect::<Vec<_>>(), declared);
    for (name, secret) in &first {
        ensure!(secret.len() == 64 && secret.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
    }
    std::fs::remove_file(folder.path().join("made/mesh_key"))?;
    make_secrets(&folder)?;
    let again = read()?;
    ensure!(again[0] != first[0] && again[1..] == first[1..], "those that are there stay");
    Ok(())
}

fn secrets() -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    make_secrets(&folder)?;
    Ok(folder)
}

fn make_secrets(folder: &TempDir) -> anyhow::Result<()> {
    let made = Command::new(root().join("deploy/secrets")).arg(folder.path().join("made")).status()?;
    ensure!(made.success());
    Ok(())
}

async fn up(secrets: &TempDir) -> anyhow::Result<Compose> {
    Compose::up(&root().join("docker-compose.yml"), &secrets.path().join("made")).await
}

fn gateways(compose: &Compose) -> anyhow::Result<[Client; 2]> {
    let client = |name| Ok::<_, anyhow::Error>(Client::new(compose.published(name)?.1, "shop"));
    Ok([client("gateway-1")?, client("gateway-2")?])
}

async fn title(client: &Client) -> anyhow::Result<Value> {
    let (status, mut answer) = client.graphql("{ album_by_pk(album_id: 1) { title } }", json!({})).await?;
    ensure!(status == 200, "{status} {answer}");
    Ok(answer["data"]["album_by_pk"]["title"].take())
}

/// Renames an album. One that is sent to a node which was just killed is answered as unavailable.
async fn rename(client: &Client, title: &str) -> anyhow::Result<()> {
    let query =
        "mutation($title: String!) { update_album(where: {album_id: {_eq: 1}}, set: {title: $title}) { affected } }";
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let (_, answer) = client.graphql(query, json!({ "title": title })).await?;
        if answer == json!({ "data": { "update_album": { "affected": 1 } } }) {
            return Ok(());
        }
        let is_unavailable = answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE";
        ensure!(is_unavailable && Instant::now() < until, "{answer}");
    }
}

/// Takes the answers of a live query until one has this title.
async fn until_title(socket: &mut Socket, title: &str) -> anyhow::Result<()> {
    loop {
        let Incoming::Message(message) = socket.next().await? else { anyhow::bail!("the socket is closed") };
        ensure!(message["type"] == "next", "{message}");
        if message["payload"]["data"]["album_by_pk"]["title"] == title {
            return Ok(());
        }
    }
}

/// One test runs the file at a time: its database has a name of its own on the server.
#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_of_the_file_goes_on_while_any_one_of_its_pairs_is_gone() -> anyhow::Result<()> {
    let secrets = secrets()?;
    let mut compose = up(&secrets).await?;
    assert_eq!(
        compose.services().collect::<Vec<_>>(),
        [
            "gateway-1",
            "gateway-2",
            "crud-1",
            "crud-2",
            "auth-rules",
            "realtime",
            "storage",
            "functions",
            "nats",
            "postgres"
        ]
    );
    documented(&compose).await?;
    let [one, two] = gateways(&compose)?;
    let staff = token::sign_with(json!({ "role": "staff" }), &compose.secret("token_secret")?, 3600);
    assert_eq!(title(&one).await?, title(&two).await?);
    let refused =
        two.graphql("mutation { update_album(where: {}, set: {title: \"x\"}) { affected } }", json!({})).await?;
    assert_eq!(refused.0, 401, "{}", refused.1);
    let two = two.with_token(&staff);
    let mut socket = Socket::open(one.address(), "").await?;
    socket.subscribe("1", "subscription { album_by_pk(album_id: 1) { title } }").await?;
    until_title(&mut socket, title(&two).await?.as_str().context("a title")?).await?;

    rename(&two, "first").await?;
    until_title(&mut socket, "first").await?;
    for (name, other) in [("crud-1", "second"), ("crud-2", "third")] {
        compose.process(name)?.kill()?;
        compose.health(name).await.expect_err("it is gone");
        // Each gateway goes to the other crud, and the live query too.
        rename(&two, other).await?;
        until_title(&mut socket, other).await?;
        assert_eq!((title(&one).await?, title(&two).await?), (json!(other), json!(other)));
        compose.process(name)?.restart()?;
        compose.healthy(name).await?;
        compose.healthy("gateway-1").await?;
    }
    changes_are_told(&one, &two).await?;
    compose.process("gateway-1")?.kill()?;
    assert_eq!(title(&two).await?, "fourth");

    // The rest stops as containers are stopped.
    for name in ["gateway-2", "realtime", "storage", "functions", "auth-rules", "crud-1", "crud-2"] {
        let status = compose.process(name)?.terminate().await?;
        ensure!(status.success(), "{name}: {status} {}", compose.process(name)?.log());
    }
    let left = compose.exec("crud-1", &["perigee", "doctor", "/etc/perigee/shop", "--remove", "--force"]).await?;
    ensure!(left.starts_with("shop/music  postgres\n"), "{left}");
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'perigee%'";
    assert_eq!(Database::on_server("shop")?.number(ours).await?, 0);
    Ok(())
}

/// A change of a row through one gateway is told by the other one, which asks the node of realtime.
async fn changes_are_told(one: &Client, two: &Client) -> anyhow::Result<()> {
    let mut socket = Socket::open(one.address(), "").await?;
    let changes = "subscription { album_changes(where: {album_id: {_eq: 1}}, initial: false) { type row { title } } }";
    socket.subscribe("1", changes).await?;
    let told = socket.answer("1").await?;
    assert_eq!(told["album_changes"], json!({ "type": "READY", "row": null }));
    rename(two, "fourth").await?;
    let told = socket.answer("1").await?;
    assert_eq!(told["album_changes"], json!({ "type": "UPDATE", "row": { "title": "fourth" } }));
    Ok(())
}

/// The commands of the documentation print what it shows.
async fn documented(compose: &Compose) -> anyhow::Result<()> {
    let document = text("docs/deploy.md")?;
    let mut token = String::new();
    let mut shown = 0;
    let lines: Vec<&str> = document.lines().collect();
    for (command, prints) in lines.windows(2).filter_map(|pair| Some((pair[0].strip_prefix("$ ")?, pair[1]))) {
        if let Some(command) = command.strip_prefix("TOKEN=$(docker compose exec -T gateway-1 ") {
            let words = command.trim_end_matches(')').replace("'{\"role\": \"staff\"}'", "{\"role\":\"staff\"}");
            token = compose.exec("gateway-1", &words.split(' ').collect::<Vec<_>>()).await?.trim_end().to_owned();
        } else if command.starts_with("curl ") {
            let mut command = command.replace("$TOKEN", &token);
            for name in ["gateway-1", "gateway-2"] {
                let (host, here) = compose.published(name)?;
                let port = host.parse::<SocketAddr>()?.port();
                command = command.replace(&format!("localhost:{port}/"), &format!("{here}/"));
            }
            let output = Command::new("bash").args(["-c", &command]).stdin(Stdio::null()).output()?;
            assert_eq!(String::from_utf8(output.stdout)?, prints, "{command}");
            shown += 1;
        }
    }
    assert_eq!(shown, 3);
    let told = compose.exec("crud-1", &["perigee", "doctor", "/etc/perigee/shop"]).await?;
    assert!(told.contains("11 of 11 tables can be followed"), "{told}");
    Ok(())
}
