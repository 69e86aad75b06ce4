//! The requests of `docs/storage.md` are answered as it says.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use tests::{
    client::Client,
    mesh::ready,
    process::{Process, free_address},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_what_happens() -> anyhow::Result<()> {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/storage.md"))?;
    let block = |language: &str| {
        let (_, rest) = document.split_once(&format!("```{language}\n")).context("a block")?;
        anyhow::Ok(rest.split_once("```").context("its end")?.0)
    };
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
