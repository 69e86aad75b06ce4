//! The requests of `docs/functions.md` are answered as it says.

use anyhow::ensure;
use tests::{
    client::Client,
    document::{Document, start_python},
    grpc_server::{GrpcServer, Reflection},
    mesh::ready,
    process::{Process, free_address},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_what_happens() -> anyhow::Result<()> {
    let document = Document::open("functions.md")?;
    let folder = tempfile::tempdir()?;
    let (address, target) = (free_address()?, free_address()?);
    let code = document.block("python")?.replace("8000", &target.port().to_string());
    let _server = start_python(folder.path(), &code).await?;

    std::fs::create_dir_all(folder.path().join("resources"))?;
    let resources = document.block("yaml")?.replace("localhost:8000", &target.to_string());
    std::fs::write(folder.path().join("resources/shop.yaml"), resources)?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    let shown =
        document.run_commands(address, |printed| printed.split(",\"requestId\"").next().unwrap_or_default()).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_section_on_grpc_servers_tells_what_happens() -> anyhow::Result<()> {
    let section = Document::open("functions.md")?.section("gRPC servers")?;
    let folder = tempfile::tempdir()?;
    let server = GrpcServer::start(Reflection::V1).await?;
    std::fs::create_dir_all(folder.path().join("resources"))?;
    let resources = section.block("yaml")?.replace("http://localhost:9000", &server.url());
    std::fs::write(folder.path().join("resources/shop.yaml"), resources.replace("mail.v1.Mail", "test.mail.v1.Mail"))?;
    let address = free_address()?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    let shown = section.run_commands(address, |printed| printed).await?;
    ensure!(shown == 4, "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_section_on_lists_tells_what_happens() -> anyhow::Result<()> {
    let section = Document::open("functions.md")?.section("Lists of parameters")?;
    let folder = tempfile::tempdir()?;
    let (address, target) = (free_address()?, free_address()?);
    let code = section.block("python")?.replace("8000", &target.port().to_string());
    let _server = start_python(folder.path(), &code).await?;
    std::fs::create_dir_all(folder.path().join("resources"))?;
    let resources = section.block("yaml")?.replace("localhost:8000", &target.to_string());
    std::fs::write(folder.path().join("resources/shop.yaml"), resources)?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    let shown = section.run_commands(address, |printed| printed).await?;
    ensure!(shown == 3, "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_section_on_writes_tells_what_happens() -> anyhow::Result<()> {
    let section = Document::open("functions.md")?.section("Before writes")?;
    let folder = tempfile::tempdir()?;
    let (address, target) = (free_address()?, free_address()?);
    let code = section.block("python")?.replace("8000", &target.port().to_string());
    let _server = start_python(folder.path(), &code).await?;

    let resources = folder.path().join("resources");
    std::fs::create_dir_all(&resources)?;
    std::fs::write(resources.join("shop.sql"), section.block("sql")?)?;
    std::fs::write(resources.join("shop.yaml"), section.block("yaml")?.replace("localhost:8000", &target.to_string()))?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    let shown = section.run_commands(address, |printed| printed).await?;
    ensure!(shown == 3, "{shown}");
    Ok(())
}
