//! The requests of `docs/storage.md` are answered as it says.

use std::process::Command;

use anyhow::{Context, ensure};
use tests::{
    client::Client,
    document::Document,
    mesh::ready,
    process::{Process, free_address},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_s3_does_what_it_says() -> anyhow::Result<()> {
    let document = Document::open("storage.md")?;
    let folder = tempfile::tempdir()?;
    let resources = folder.path().join("resources");
    std::fs::create_dir_all(&resources)?;
    std::fs::write(resources.join("depot.yaml"), document.block("yaml s3")?)?;
    std::fs::write(resources.join("backup.key"), "a secret that is long enough for a key")?;
    std::fs::write(resources.join("film.mp4"), "a film")?;
    let address = free_address()?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "depot")).await?;
    let code = document.block("python")?.replace("localhost:4122", &address.to_string());
    let python = std::env::var_os("TEST_PYTHON").context("TEST_PYTHON names a Python; scripts/test makes one")?;
    let output = Command::new(python).args(["-B", "-c", &code]).current_dir(&resources).output()?;
    let printed = String::from_utf8(output.stdout)?;
    let told = String::from_utf8_lossy(&output.stderr);
    let (count, url) = printed.split_once('\n').with_context(|| told.into_owned())?;
    let read = Command::new("curl").args(["-s", url.trim()]).output()?;
    assert_eq!((count, &read.stdout[..]), ("1", &b"a film"[..]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_what_happens() -> anyhow::Result<()> {
    let document = Document::open("storage.md")?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("resources"))?;
    std::fs::write(folder.path().join("resources/shop.yaml"), document.block("yaml")?)?;
    let address = free_address()?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    let shown = document.run_commands(address, |printed| printed).await?;
    ensure!(shown == 10, "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_images_does_what_it_says() -> anyhow::Result<()> {
    let document = Document::open("storage.md")?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("resources"))?;
    std::fs::write(folder.path().join("resources/gallery.yaml"), document.block("yaml images")?)?;
    image::DynamicImage::new_rgb8(300, 200).save(folder.path().join("photo.png"))?;
    let address = free_address()?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "gallery")).await?;
    let shown = document.run_commands_of("console images", folder.path(), address, |printed| printed).await?;
    ensure!(shown == 3, "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_quotas_does_what_it_says() -> anyhow::Result<()> {
    let document = Document::open("storage.md")?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("resources"))?;
    std::fs::write(folder.path().join("resources/club.yaml"), document.block("yaml quotas")?)?;
    let address = free_address()?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "club")).await?;
    let shown = document.run_commands_of("console quotas", folder.path(), address, |printed| printed).await?;
    ensure!(shown == 3, "{shown}");
    Ok(())
}
