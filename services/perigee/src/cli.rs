//! Everything a user types.

use std::{
    ffi::OsString,
    io::Write,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, Subcommand, error::ErrorKind};
use serde_json::{Map, Value};

use crate::{check, dev, failure::Failure, health, init, serve, token, version};

/// Runs the command that `args` (with the program's name first) say.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A closed stdout is no reason to fail.
            let _printed = error.print();
            return Ok(());
        }
        Err(error) => return Err(Failure::Usage(one_line(&error))),
    };
    match cli.command {
        Command::Dev(args) => block_on(dev::run(args)),
        Command::Init(args) => block_on(init::run(args)),
        Command::Serve(args) => serve::run(args),
        Command::Check { dir } => check::run(&dir),
        Command::Token(args) => token::run(&args),
        Command::Health { address } => Ok(health::ask(&address)?),
        Command::Version => {
            say(&format!("perigee {}\n", version::VERSION));
            Ok(())
        }
    }
}

/// Prints `text`. That nobody reads it is no failure.
pub(crate) fn say(text: &str) {
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

/// Runs `work` on a runtime with a thread per core.
pub(crate) fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(work)
}

/// Your databases, secured, over GraphQL, REST, gRPC and grpc-web.
#[derive(Debug, Parser)]
#[command(name = "perigee", version = version::VERSION, disable_help_subcommand = true)]
#[command(after_help = "Example:\n  perigee dev examples/chinook")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the whole mesh in this process, for development
    Dev(Dev),
    /// Writes a starting resource folder, with a table document for each table of a database
    Init(Init),
    /// Runs services of this node: those named, else those its configuration lists, else all
    Serve(Serve),
    /// Validates a resource folder without opening databases
    #[command(after_help = "Example:\n  perigee check examples/chinook")]
    Check {
        /// The resource folder
        dir: PathBuf,
    },
    /// Prints a token signed with a project's primary key
    Token(Token),
    /// Exits with 0 if a node is ready, for containers without curl
    #[command(after_help = "Example:\n  perigee health 127.0.0.1:4122")]
    Health {
        /// Address of the node's HTTP port
        #[arg(value_name = "ADDR", default_value = "127.0.0.1:4122")]
        address: String,
    },
    /// Prints version, commit and build
    #[command(after_help = "Example:\n  perigee version")]
    Version,
}

/// Arguments of `perigee dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee dev examples/chinook --listen 127.0.0.1:8080")]
pub(crate) struct Dev {
    /// The resource folder
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Where to listen; loopback only, for there is no login
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4122", value_parser = loopback)]
    pub listen: SocketAddr,
    /// Where SQLite files and development keys are kept
    #[arg(long, value_name = "DIR", default_value = "./perigee-data")]
    pub data: PathBuf,
}

/// Arguments of `perigee init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee init shop --database postgres://localhost/shop")]
pub(crate) struct Init {
    /// The folder to write; made where it does not exist
    pub dir: PathBuf,
    /// The project's id; the folder's name where it is not given
    #[arg(long, value_name = "ID", value_parser = project_id)]
    pub project: Option<String>,
    /// A database to look at: sqlite:FILE or postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL", value_parser = init::Source::parse)]
    pub database: Option<init::Source>,
}

/// Arguments of `perigee serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee serve crud auth-rules --config node.yaml")]
pub(crate) struct Serve {
    /// What to run: gateway, crud, auth-rules
    #[arg(value_name = "SERVICE")]
    pub services: Vec<mesh::config::ServiceName>,
    /// The node's configuration; PERIGEE_ variables win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Prints the commented defaults and exits
    #[arg(long)]
    pub print_config: bool,
}

/// Arguments of `perigee token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  perigee token shop '{\"id\": 5}' --dir examples/chinook")]
pub(crate) struct Token {
    /// The project's id
    pub project: String,
    /// What the token says, a JSON object
    #[arg(value_parser = claims)]
    pub claims: Map<String, Value>,
    /// How long it is valid: 30s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    pub expires: Duration,
    /// The resource folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Where `perigee dev` keeps its keys
    #[arg(long, value_name = "DIR", default_value = "./perigee-data")]
    pub data: PathBuf,
}

/// The message of a usage error and where to read on, in one line.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::MissingSubcommand {
        return "no command is given; `perigee --help` lists them".to_owned();
    }
    let text = error.to_string();
    let said = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let said: Vec<&str> = said.map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("{}; --help shows an example", said.join("; ").trim_start_matches("error: "))
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| format!("expected HOST:PORT: {error}"))?;
    let address = addresses.next().ok_or("the name has no address")?;
    if !address.ip().to_canonical().is_loopback() {
        return Err("`perigee dev` has no login and listens on loopback only, such as 127.0.0.1:4122; \
                    to be reached from other machines use `perigee serve`"
            .to_owned());
    }
    Ok(address)
}

fn project_id(text: &str) -> Result<String, String> {
    match gateway::is_project_id(text) {
        true => Ok(text.to_owned()),
        false => Err("expected letters a to z, digits, `-` and `_`, the first no sign".to_owned()),
    }
}

fn claims(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(claims)) => Ok(claims),
        Ok(_) => Err("expected a JSON object, such as '{\"id\": 5}'".to_owned()),
        Err(error) => Err(format!("expected a JSON object, such as '{{\"id\": 5}}': {error}")),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = mesh::config::duration(text).map_err(|error| error.to_string())?;
    if lifetime < Duration::from_secs(1) {
        return Err("a token must be valid for a second at least".to_owned());
    }
    Ok(lifetime)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn usage(args: &[&str]) -> String {
        let args = ["perigee"].iter().chain(args).map(OsString::from).collect::<Vec<_>>();
        match run(args) {
            Err(Failure::Usage(message)) => message,
            other => panic!("expected a usage error, got {other:?}"),
        }
    }

    #[test]
    fn a_project_that_no_folder_may_have_is_not_written() {
        for id in ["Shop", "-a", "../x", ""] {
            assert!(usage(&["init", "x", &format!("--project={id}")]).contains("expected letters a to z"), "{id}");
        }
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert!(help.contains("Example:\n  perigee "), "{help}");
        }
    }

    #[test]
    fn wrong_usage_is_one_line() {
        for args in [
            &["dev", "--no-such"][..],
            &["serve", "gatewy"],
            &[],
            &["nothing"],
            &["token", "shop"],
            &["token", "shop", "{"],
            &["token", "shop", "[1]"],
            &["dev", "--listen", "0.0.0.0:4122"],
        ] {
            let message = usage(args);
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn dev_listens_on_loopback_only() {
        for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            loopback(address).unwrap();
        }
        for address in ["0.0.0.0:4122", "[::]:4122", "192.168.1.1:4122", "4122", ""] {
            loopback(address).unwrap_err();
        }
    }

    #[test]
    fn a_lifetime_is_a_number_and_a_unit() {
        assert_eq!(lifetime("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(lifetime("7d"), Ok(Duration::from_secs(7 * 24 * 60 * 60)));
        for text in ["", "h", "1", "-1h", "0s", "1hour", "1é"] {
            lifetime(text).unwrap_err();
        }
    }
}
