//! What `docs/events.md` shows happens.

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
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md"))?;
    let block = |language: &str| {
        let (_, rest) = document.split_once(&format!("```{language}\n")).context("a block")?;
        anyhow::Ok(rest.split_once("```").context("its end")?.0)
    };
    let folder = tempfile::tempdir()?;
    let (address, target) = (free_address()?, free_address()?);
    let program = folder.path().join("receipts.py");
    std::fs::write(&program, block("python")?.replace("8000", &target.port().to_string()))?;
    let mut webhook = Program::new("python3")
        .arg("-u")
        .arg(&program)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut printed = BufReader::new(webhook.stdout.take().context("it prints")?).lines();
    ensure!(printed.next_line().await?.as_deref() == Some("ready"), "it starts");

    let resources = folder.path().join("resources");
    std::fs::create_dir_all(&resources)?;
    std::fs::write(resources.join("shop.sql"), block("sql")?)?;
    std::fs::write(resources.join("shop.yaml"), block("yaml")?.replace("localhost:8000", &target.to_string()))?;
    let node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    // Changes are taken once the table is followed, which the position in the queue shows.
    let queue = folder.path().join("data/functions/events.db");
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !queue.exists() {
        ensure!(tokio::time::Instant::now() < until, "there is a queue: {}", node.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    super::operated::eventually(&queue, "SELECT count(*) FROM followed_tables", 1).await?;

    let (command, expected) = block("console")?.trim_start_matches("$ ").split_once('\n').context("a command")?;
    let command = command.replace("localhost:4122", &address.to_string());
    let output = Command::new("bash").args(["-c", &command]).output()?;
    assert_eq!(String::from_utf8(output.stdout)?.trim_end(), expected.trim_end(), "{command}");
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), printed.next_line()).await??;
    assert_eq!(told.as_deref(), Some(block("text")?.trim_end()), "{}", node.log());
    Ok(())
}
