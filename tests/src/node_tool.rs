//! Tools of others that run in Node: the scripts of `tests/node`.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use tokio::process::Command;

/// How long a script may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The folder of the scripts.
pub fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("node")
}

/// The folder of the packages that they need.
///
/// # Panics
/// When `NODE_PATH` is not set: a test that needs a tool fails when there is none.
pub fn packages() -> PathBuf {
    std::env::var_os("NODE_PATH").map(PathBuf::from).expect("NODE_PATH names packages; scripts/test installs them")
}

/// What a script of `tests/node` prints.
pub async fn script(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut node = Command::new("node");
    node.arg(scripts().join(name)).args(arguments);
    output(node).await
}

/// What a command prints, which has to succeed.
pub async fn output(mut command: Command) -> anyhow::Result<String> {
    packages();
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(TIMEOUT, run).await.with_context(|| format!("{command:?} takes too long"))??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {} {out} {err}", output.status);
    Ok(out.into_owned())
}
