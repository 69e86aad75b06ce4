//! The requests of `docs/functions.md` are answered as it says.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use tests::{
    client::Client,
    mesh::ready,
    process::{Process, free_address},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command as Program,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_what_happens() -> anyhow::Result<()> {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/functions.md"))?;
    let block = |language: &str| {
        let (_, rest) = document.split_once(&format!("```{language}\n")).context("a block")?;
        anyhow::Ok(rest.split_once("```").context("its end")?.0)
    };
    let folder = tempfile::tempdir()?;
    let (address, target) = (free_address()?, free_address()?);
    let program = folder.path().join("mail.py");
    std::fs::write(&program, block("python")?.replace("8000", &target.port().to_string()))?;
    let mut server = Program::new("python3")
        .arg("-u")
        .arg(&program)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let started = BufReader::new(server.stdout.take().context("it prints")?).lines().next_line().await?;
    ensure!(started.as_deref() == Some("ready"), "{started:?}");

    std::fs::create_dir_all(folder.path().join("resources"))?;
    let resources = block("yaml")?.replace("localhost:8000", &target.to_string());
    std::fs::write(folder.path().join("resources/shop.yaml"), resources)?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    let mut shown = 0;
    for example in block("console")?.split("$ ").skip(1) {
        let (command, expected) = example.split_once('\n').context("a command and what it prints")?;
        let command = command.replace("localhost:4122", &address.to_string());
        let output = Command::new("bash").args(["-c", &command]).output()?;
        let printed = String::from_utf8(output.stdout)?;
        let without_id = printed.split(",\"requestId\"").next().unwrap_or_default();
        assert_eq!(without_id.trim_end(), expected.trim_end(), "{command}");
        shown += 1;
    }
    ensure!(shown == 5, "{shown}");
    Ok(())
}

/// A gateway without the service tells so, and serves the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_the_service_tells_so() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("resources"))?;
    let resources = "kind: project\nmeta: { id: shop }\n---\nkind: service\nmeta: { project: shop, id: mail }\n\
                     spec: { http: { url: \"http://localhost:1\" }, default: { rule: { rule: allow } } }\n";
    std::fs::write(folder.path().join("resources/shop.yaml"), resources)?;
    let (http, mesh) = (free_address()?, free_address()?);
    let config = tests::process::config(folder.path(), http, mesh, "");
    let node = Process::serve(folder.path(), "small", &["gateway", "crud", "auth-rules", "realtime"], &config)?;
    let client = Client::new(http, "shop");
    ready(&client).await?;
    let (status, told) = client.post("services/mail/send", &serde_json::json!({})).await?;
    ensure!(status == 503 && told["code"] == "UNAVAILABLE", "{status} {told} {}", node.log());
    Ok(())
}
