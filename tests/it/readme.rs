//! Every command of the README does what the README shows.

use std::{
    fs,
    io::{BufRead, BufReader},
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

/// Heading of the steps with a database of the reader.
const OWN_DATABASE: &str = "## Use your own database";
/// Heading of what comes after them.
const IN_PRODUCTION: &str = "## Run it for real";

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
    let readme = fs::read_to_string(root.join("README.md"))?;
    let steps = steps(readme.split(OWN_DATABASE).next().context("a beginning")?);
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
    let is_tried = |step: &&Step| ["curl ", "TOKEN=", "echo "].iter().any(|start| step.command.starts_with(start));
    let tried: Vec<&Step> = steps.iter().filter(is_tried).collect();
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

/// Runs `command` in a shell in `folder`, with `perigee` on its path; what it printed.
fn shell(folder: &Path, command: &str) -> anyhow::Result<String> {
    let programs = process::binary().parent().context("the binary stands in a folder")?.display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH")?);
    let output = Command::new("bash").args(["-c", command]).current_dir(folder).env("PATH", path).output()?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "{command}: {out}{err}");
    Ok(out)
}

/// The lines that a process prints up to one that `is_last`.
fn lines_until(
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
    is_last: fn(&str) -> bool,
) -> anyhow::Result<String> {
    let mut text = String::new();
    for line in lines {
        let line = line?;
        text.push_str(&line);
        text.push('\n');
        if is_last(line.trim_start()) {
            return Ok(text);
        }
    }
    anyhow::bail!("it ended after: {text}")
}

/// The first block of `language` in `section`.
fn block<'a>(section: &'a str, language: &str) -> anyhow::Result<&'a str> {
    let start = section.split_once(&format!("```{language}\n")).with_context(|| format!("no block of {language}"))?.1;
    Ok(start.split_once("```").context("a block ends")?.0)
}

#[test]
fn the_steps_with_a_database_of_ones_own_are_true() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let readme = fs::read_to_string(root.join("README.md"))?;
    let section = readme.split_once(OWN_DATABASE).context("the section")?.1;
    let section = section.split_once(IN_PRODUCTION).context("what comes after")?.0;
    let steps = steps(section);
    let folder = tempfile::tempdir()?;
    let database = rusqlite::Connection::open(folder.path().join("blog.db"))?;
    database.execute_batch(
        "CREATE TABLE post (id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL, title TEXT NOT NULL);
         INSERT INTO post VALUES (1, 1, 'Hello'), (2, 2, 'Not yours');",
    )?;
    let address = process::free_address()?.to_string();
    let run = |command: &str| shell(folder.path(), &command.replace("localhost:4122", &address));
    let shown = |at: usize| steps[at].prints.as_deref().context("the README shows what it prints");

    // From an empty folder to a running server, which says what to do.
    ensure!(run(&steps[0].command)?.starts_with(shown(0)?), "{}", run(&steps[0].command)?);
    ensure!(steps[1].command == "perigee dev blog");
    let mut dev = Command::new(process::binary());
    dev.args(["dev", "blog", "--listen", &address]).env("PERIGEE_TELEMETRY__LOG", "warn").current_dir(folder.path());
    let mut dev = Dev(dev.stdout(Stdio::piped()).stderr(fs::File::create(folder.path().join("log"))?).spawn()?);
    let mut lines = BufReader::new(dev.0.stdout.take().context("piped")?).lines();
    let note = lines_until(&mut lines, |line| line.starts_with("read: {"))?;
    ensure!(note.contains("database   blog  sqlite, 1 table, none open yet\n"), "{note}");
    ensure!(note.ends_with(block(section, "text")?), "{note}");

    // A refusal says why, to the caller and in the log.
    let refused = run(&steps[2].command)?;
    ensure!(refused.starts_with(shown(2)?), "{refused}");
    let unknown = run(&steps[2].command.replace("{ post", "{ posts"))?;
    ensure!(unknown.contains("table posts is not in the database; did you mean post?"), "{unknown}");
    let log = fs::read_to_string(folder.path().join("log"))?;
    ensure!(log.contains("request refused") && log.contains("spec.rules.read is deny"), "{log}");
    ensure!(log.contains("table posts is not in the database"), "{log}");

    // The rule that `dev` names; then it shows the table.
    let tables = folder.path().join("blog/tables.yaml");
    let (denied, allowed) = ("    read: { rule: deny }\n", "    read: { rule: allow }\n");
    let text = fs::read_to_string(&tables)?;
    ensure!(text.lines().nth(11) == Some(denied.trim_end()), "line 12 is the one that dev names: {text}");
    fs::write(&tables, text.replace(denied, allowed))?;
    let opened = lines_until(&mut lines, |line| line.starts_with("curl "))?;
    ensure!(opened.contains("post is open now, try:"), "{opened}");
    let curl = opened.lines().last().context("a line")?;
    ensure!(run(curl)?.contains("Not yours"), "{curl}");

    // A rule that needs a token, and a token.
    fs::write(&tables, text.replace(denied, block(section, "yaml")?))?;
    let refused = until(|| run(&steps[3].command), |answer| answer.contains("errors"))?;
    ensure!(refused.starts_with(shown(3)?), "{refused}");
    ensure!(steps[4].command.starts_with("TOKEN="));
    let mine = run(&format!("{}; {}", steps[4].command, steps[5].command))?;
    ensure!(mine == shown(5)?, "{mine}");

    // A page of this machine; a page from elsewhere may not.
    let page = |origin: &str| {
        let preflight = format!(
            "curl -si -X OPTIONS localhost:4122/v1/api/blog/graphql -H 'origin: {origin}' -H 'access-control-request-method: \
             POST' -H 'access-control-request-headers: content-type,authorization'"
        );
        let ask = steps[5].command.replace("curl -s", &format!("curl -si -H 'origin: {origin}'"));
        anyhow::Ok((run(&preflight)?, run(&format!("{}; {ask}", steps[4].command))?))
    };
    let (preflight, answer) = page("http://localhost:5173")?;
    for answer in [&preflight, &answer] {
        ensure!(answer.contains("access-control-allow-origin: http://localhost:5173"), "{answer}");
    }
    ensure!(preflight.contains("access-control-allow-headers: content-type,authorization"), "{preflight}");
    ensure!(answer.ends_with(shown(5)?), "{answer}");
    let (preflight, answer) = page("http://evil.test:5173")?;
    ensure!(!preflight.contains("access-control-allow-origin") && !answer.contains("access-control-allow-origin"));
    Ok(())
}

/// What `ask` answers once it `is_wanted`: an edit is in force within a second.
fn until(ask: impl Fn() -> anyhow::Result<String>, is_wanted: fn(&str) -> bool) -> anyhow::Result<String> {
    let late = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answer = ask()?;
        if is_wanted(&answer) {
            return Ok(answer);
        }
        ensure!(std::time::Instant::now() < late, "{answer}");
    }
}
