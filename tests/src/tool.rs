//! Programs of others that a test runs.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use tokio::process::Command;

/// What a command prints, which has to succeed within `timeout`.
pub async fn output(mut command: Command, timeout: Duration) -> anyhow::Result<String> {
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(timeout, run).await.with_context(|| format!("{command:?} takes too long"))??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {} {out} {err}", output.status);
    Ok(out.into_owned())
}
