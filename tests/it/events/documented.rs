//! What `docs/events.md` shows happens.

use anyhow::ensure;
use tests::{
    client::Client,
    document::{Document, start_python},
    mesh::ready,
    process::{Process, free_address},
    webhook::{Manner, Webhook},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_what_happens() -> anyhow::Result<()> {
    let document = Document::open("events.md")?;
    let folder = tempfile::tempdir()?;
    let (address, target) = (free_address()?, free_address()?);
    let code = document.block("python")?.replace("8000", &target.port().to_string());
    let (_webhook, mut printed) = start_python(folder.path(), &code).await?;

    let resources = folder.path().join("resources");
    std::fs::create_dir_all(&resources)?;
    std::fs::write(resources.join("shop.sql"), document.block("sql")?)?;
    std::fs::write(
        resources.join("shop.yaml"),
        document.block("yaml")?.replace("localhost:8000", &target.to_string()),
    )?;
    let node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    // Changes are taken once the table is followed, which the position in the queue shows.
    let queue = folder.path().join("data/functions/events.db");
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !queue.exists() {
        ensure!(tokio::time::Instant::now() < until, "there is a queue: {}", node.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    super::operated::eventually(&queue, "SELECT count(*) FROM followed_tables WHERE length(position) > 0", 1).await?;

    ensure!(document.run_commands(address, |printed| printed).await? == 1, "one command");
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), printed.next_line()).await??;
    assert_eq!(told.as_deref(), Some(document.block("text")?.trim_end()), "{}", node.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_section_on_custom_events_tells_what_happens() -> anyhow::Result<()> {
    let section = Document::open("events.md")?.section("Custom events")?;
    let (folder, webhook, address) = (tempfile::tempdir()?, Webhook::start().await?, free_address()?);
    webhook.answers("/receipts", Manner::Says(200, r#"{"response": {"number":1}}"#));
    let resources = folder.path().join("resources");
    std::fs::create_dir_all(&resources)?;
    let yaml = section.block("yaml")?.replace("http://localhost:8000/receipts", &webhook.url("/receipts"));
    std::fs::write(resources.join("shop.yaml"), yaml)?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    ensure!(section.run_commands(address, |printed| printed).await? == 7, "seven commands");
    let mut orders: Vec<i64> = webhook
        .count("/receipts", 4)
        .await?
        .iter()
        .filter_map(|delivery| delivery.request.body["data"]["order"].as_i64())
        .collect();
    orders.sort_unstable();
    assert_eq!(orders, [7, 8, 9, 10]);
    Ok(())
}
