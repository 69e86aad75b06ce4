//! Documents of `docs/`, whose programs and commands are run.

use std::{path::Path, process::Stdio};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A document.
pub struct Document(String);

impl Document {
    /// The one with a file name.
    pub fn open(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string()).map(Self)
    }

    /// The section with a heading, up to the next one.
    pub fn section(&self, heading: &str) -> anyhow::Result<Self> {
        let (_, rest) = self.0.split_once(&format!("\n## {heading}\n")).context("a section")?;
        Ok(Self(rest.split("\n## ").next().unwrap_or_default().to_owned()))
    }

    /// The first block in a language.
    pub fn block(&self, language: &str) -> anyhow::Result<&str> {
        let (_, rest) = self.0.split_once(&format!("```{language}\n")).context("a block")?;
        Ok(rest.split_once("```").context("its end")?.0)
    }

    /// Runs the commands of the `console` block at the node whose `address` takes the place of `localhost:4122`, and compares
    /// what they print, of which `compared` takes what is compared. How many commands there are.
    pub async fn run_commands(
        &self,
        address: std::net::SocketAddr,
        compared: impl Fn(&str) -> &str,
    ) -> anyhow::Result<usize> {
        self.run_commands_of("console", Path::new("."), address, compared).await
    }

    /// Likewise, those of the first block in `language`, in a folder.
    pub async fn run_commands_of(
        &self,
        language: &str,
        folder: &Path,
        address: std::net::SocketAddr,
        compared: impl Fn(&str) -> &str,
    ) -> anyhow::Result<usize> {
        let mut count = 0;
        for example in self.block(language)?.split("$ ").skip(1) {
            let (command, expected) = example.split_once('\n').context("a command and what it prints")?;
            let command = command.replace("localhost:4122", &address.to_string());
            let output = Command::new("bash").args(["-c", &command]).current_dir(folder).output().await?;
            let printed = String::from_utf8(output.stdout)?;
            assert_eq!(compared(&printed).trim_end(), expected.trim_end(), "{command}");
            count += 1;
        }
        Ok(count)
    }
}

/// Starts a program in Python, which ends when dropped, and waits until it prints `ready`: what it prints then.
pub async fn start_python(folder: &Path, code: &str) -> anyhow::Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let file = folder.join("program.py");
    std::fs::write(&file, code)?;
    let mut child = Command::new("python3").arg("-u").arg(&file).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut printed = BufReader::new(child.stdout.take().context("it prints")?).lines();
    let first = printed.next_line().await?;
    ensure!(first.as_deref() == Some("ready"), "{first:?}");
    Ok((child, printed))
}
