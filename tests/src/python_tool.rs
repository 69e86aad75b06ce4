//! Tools of others that run in Python: the scripts of `tests/python`.

use std::{path::PathBuf, time::Duration};

use tokio::process::Command;

use crate::tool;

/// How long a script may take.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What a script of `tests/python` prints, which has to succeed.
///
/// # Panics
/// When `TEST_PYTHON` is not set: a test that needs a tool fails when there is none.
pub async fn script(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python").join(name);
    // Bytecode beside the scripts would be files of the tree.
    let mut command = Command::new(python());
    command.arg("-B").arg(script).args(arguments);
    tool::output(command, TIMEOUT).await
}

/// What the script of `tests/python` for the predecessor's client prints, which has to succeed.
///
/// # Panics
/// When `TEST_SPACE_API_PYTHON` is not set: a test that needs a tool fails when there is none.
pub async fn space_api(arguments: &[&str]) -> anyhow::Result<String> {
    let python =
        std::env::var_os("TEST_SPACE_API_PYTHON").expect("TEST_SPACE_API_PYTHON names a Python with the client");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/space_api_client.py");
    let mut command = Command::new(python);
    command.arg("-B").arg(script).args(arguments);
    tool::output(command, TIMEOUT).await
}

/// What a program of the packages of `tests/python` prints, which has to succeed.
///
/// # Panics
/// When `TEST_PYTHON` is not set: a test that needs a tool fails when there is none.
pub async fn program(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(path(name));
    command.args(arguments);
    tool::output(command, TIMEOUT).await
}

/// Where a program of the packages of `tests/python` is.
///
/// # Panics
/// When `TEST_PYTHON` is not set: a test that needs a tool fails when there is none.
pub fn path(name: &str) -> PathBuf {
    python().with_file_name(name)
}

/// The Python that has the packages of `tests/python`.
///
/// # Panics
/// When `TEST_PYTHON` is not set: a test that needs a tool fails when there is none.
pub fn python() -> PathBuf {
    std::env::var_os("TEST_PYTHON").expect("TEST_PYTHON names a Python; scripts/test makes one").into()
}
