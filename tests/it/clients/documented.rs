//! The programs of `docs/workers.md` are the examples that run, and its commands are answered as it says.

use anyhow::ensure;
use tests::{
    client::Client,
    document::Document,
    mesh::ready,
    process::{Process, free_address},
    worker_program::Language,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_what_happens() -> anyhow::Result<()> {
    let document = Document::open("workers.md")?;
    let (folder, address) = (tempfile::tempdir()?, free_address()?);
    std::fs::create_dir_all(folder.path().join("resources"))?;
    std::fs::write(folder.path().join("resources/shop.yaml"), document.block("yaml")?)?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    for (language, block) in Language::ALL.into_iter().zip(["js", "python", "go", "rust"]) {
        let example = std::fs::read_to_string(language.example("send"))?;
        ensure!(document.block(block)? == example, "{block} is not {}", language.example("send").display());
        if language.is_left_out() {
            continue;
        }
        let mut worker = language.start("send", folder.path(), &[&format!("http://{address}")])?;
        let first =
            "curl -s -o /dev/null -w '%{http_code}' -d '{}' http://localhost:4122/v1/api/shop/services/mail/send";
        wait_for_worker(&first.replace("localhost:4122", &address.to_string())).await?;
        let shown = document.run_commands(address, |printed| printed).await?;
        ensure!(shown == 2, "{shown}");
        ensure!(worker.0.terminate().await.is_ok(), "{block}");
    }
    Ok(())
}

/// Waits until the command prints another status than 503.
async fn wait_for_worker(command: &str) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let output = tokio::process::Command::new("bash").args(["-c", command]).output().await?;
        if output.stdout != b"503" {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < until, "no worker comes");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
