//! Tools of others that run in Node: the scripts of `tests/node`.

use std::{path::PathBuf, time::Duration};

use tokio::process::Command;

use crate::tool;

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
pub async fn output(command: Command) -> anyhow::Result<String> {
    packages();
    tool::output(command, TIMEOUT).await
}
