//! The requests of `docs/storage.md` are answered as it says.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use tests::{
    client::Client,
    mesh::ready,
    process::{Process, free_address},
};

/// The block of the document that is in `language`.
fn block(language: &str) -> anyhow::Result<String> {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/storage.md"))?;
    let (_, rest) = document.split_once(&format!("```{language}\n")).context("a block")?;
    Ok(rest.split_once("```").context("its end")?.0.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_s3_does_what_it_says() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let resources = folder.path().join("resources");
    std::fs::create_dir_all(&resources)?;
    std::fs::write(resources.join("depot.yaml"), block("yaml s3")?)?;
    std::fs::write(resources.join("backup.key"), "a secret that is long enough for a key")?;
    std::fs::write(resources.join("film.mp4"), "a film")?;
    let address = free_address()?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "depot")).await?;
    let code = block("python")?.replace("localhost:4122", &address.to_string());
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
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("resources"))?;
    std::fs::write(folder.path().join("resources/shop.yaml"), block("yaml")?)?;
    let address = free_address()?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    let mut shown = 0;
    for example in block("console")?.split("$ ").skip(1) {
        let (command, expected) = example.split_once('\n').context("a command and what it prints")?;
        let command = command.replace("localhost:4122", &address.to_string());
        let output = Command::new("bash").args(["-c", &command]).output()?;
        let printed = String::from_utf8(output.stdout)?;
        assert_eq!(printed.trim_end(), expected.trim_end(), "{command}");
        shown += 1;
    }
    ensure!(shown == 10, "{shown}");
    Ok(())
}
