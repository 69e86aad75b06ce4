//! Every command of the README does what the README shows.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use tests::{client::Client, mesh::ready, process};

/// A command of the README and what it prints, where the README shows it.
struct Step {
    command: String,
    prints: Option<String>,
}

/// The commands of all `console` blocks, in order.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), prints: None }),
                (None, Some(step)) => step.prints = Some(line.to_owned()),
                (None, None) => {}
            },
        }
    }
    steps
}

struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_is_true() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let steps = steps(&std::fs::read_to_string(root.join("README.md"))?);
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(root.join("examples"), folder.path().join("examples"))?;
    let address = process::free_address()?;
    let perigee = process::binary().display().to_string();

    let run = "cargo run --release -- dev examples/chinook";
    ensure!(steps.iter().any(|step| step.command == run), "the first command is shown");
    let dev = Command::new(&perigee)
        .args(["dev", "examples/chinook", "--listen", &address.to_string()])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _dev = Dev(dev);
    ready(&Client::new(address, "shop")).await?;

    // One shell runs all of them, so that what one sets the next one has.
    let mut script = String::new();
    let tried: Vec<&Step> =
        steps.iter().filter(|step| step.command.starts_with("curl ") || step.command.starts_with("TOKEN=")).collect();
    for step in &tried {
        let command = step.command.replace("localhost:4122", &address.to_string());
        script.push_str(&command.replace("cargo run -q --release --", &perigee));
        script.push_str("; printf '\\036'\n");
    }
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(&script).current_dir(folder.path());
    let output = tokio::task::spawn_blocking(move || shell.output());
    let output = tokio::time::timeout(Duration::from_secs(30), output).await.context("the commands end")???;
    let text = String::from_utf8(output.stdout)?;
    let printed: Vec<&str> = text.split('\u{1e}').collect();
    ensure!(printed.len() == tried.len() + 1, "{text} {}", String::from_utf8_lossy(&output.stderr));
    let mut shown = 0;
    for (step, printed) in tried.iter().zip(printed) {
        if let Some(prints) = &step.prints {
            assert_eq!(printed.trim(), prints, "{}", step.command);
            shown += 1;
        }
    }
    assert!(shown >= 4, "the README shows what its commands print");
    Ok(())
}
