//! Workers of the clients in `clients/`: their examples, as programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    node_tool,
    process::{self, Process, Variables},
    python_tool,
};

/// How long a program may take to print what is waited for.
const PRINT_TIMEOUT: Duration = Duration::from_secs(30);

/// The language of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Of Node.
    TypeScript,
    /// With asyncio.
    Python,
    /// With its own toolchain.
    Go,
    /// An example that `cargo test --workspace` builds.
    Rust,
}

/// A program that is a worker, killed when dropped.
pub struct WorkerProgram(pub Process);

impl Language {
    /// Whether its tests are left out, which is told.
    pub fn is_left_out(self) -> bool {
        let is_left_out = self == Self::Go && go().is_none();
        if is_left_out {
            eprintln!("left out: there is no Go");
        }
        is_left_out
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::TypeScript, Self::Python, Self::Go, Self::Rust];

    /// The example with this name, relative to the tree.
    pub fn example(self, name: &str) -> PathBuf {
        let example = match self {
            Self::TypeScript => format!("typescript/examples/{name}.js"),
            Self::Python => format!("python/examples/{name}.py"),
            Self::Go => format!("go/examples/{name}/main.go"),
            Self::Rust => format!("rust/examples/{name}.rs"),
        };
        clients().join(example)
    }

    /// Starts the example with this name; what it needs is put into `folder`.
    pub fn start(self, name: &str, folder: &Path, arguments: &[&str]) -> anyhow::Result<WorkerProgram> {
        let (program, mut all, variables) = match self {
            Self::TypeScript => {
                let example = package(folder)?.join(format!("examples/{name}.js"));
                (PathBuf::from("node"), vec![example.display().to_string()], Variables::new())
            }
            Self::Python => {
                let path = clients().join("python").display().to_string();
                // Bytecode beside the sources would be files of the tree.
                let arguments = vec!["-Bu".to_owned(), self.example(name).display().to_string()];
                (python_tool::python(), arguments, vec![("PYTHONPATH".to_owned(), path)])
            }
            Self::Go => (build_go(name, folder)?, Vec::new(), Variables::new()),
            Self::Rust => {
                let program = process::binary().with_file_name("examples").join(name);
                ensure!(program.exists(), "{} is not built", program.display());
                (program, Vec::new(), Variables::new())
            }
        };
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Process::program(program, folder.join("worker.log"), all, variables).map(WorkerProgram)
    }
}

impl WorkerProgram {
    /// Waits until it has printed a text so many times.
    pub async fn printed(&self, text: &str, times: usize) -> anyhow::Result<()> {
        let until = Instant::now() + PRINT_TIMEOUT;
        while self.0.log().matches(text).count() < times {
            ensure!(Instant::now() < until, "{text} is not printed {times} times: {}", self.0.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// The Go that builds the client of Go; `None` where `TEST_GO` says that there is none, and its tests are left out.
pub fn go() -> Option<PathBuf> {
    let go = std::env::var_os("TEST_GO").unwrap_or_else(|| "go".into());
    (go != "none").then(|| go.into())
}

/// The folder of the clients.
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients")
}

/// A copy of the package of Node in `folder`, beside the packages that it needs: modules are looked for where they stand.
pub fn package(folder: &Path) -> anyhow::Result<PathBuf> {
    let package = folder.join("typescript");
    if !package.exists() {
        let from = clients().join("typescript");
        let copied = Command::new("cp").arg("-r").args([&from, &package]).status()?;
        ensure!(copied.success(), "{} is copied", from.display());
        std::os::unix::fs::symlink(node_tool::packages(), package.join("node_modules"))?;
    }
    Ok(package)
}

fn build_go(name: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let program = folder.join(format!("go-{name}"));
    if !program.exists() {
        let mut go = Command::new(go().context("there is a Go")?);
        go.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(format!("./examples/{name}"));
        let built = go.current_dir(clients().join("go")).output().context("go is installed")?;
        ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(program)
}
