//! Everything a user types.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::{check, dev, doctor, events, failure::Failure, health, init, output, serve, token, version};

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
        Command::Serve(args) => block_on(serve::run(args)),
        Command::Check { dir } => check::run(&dir),
        Command::Doctor(args) => block_on(doctor::run(args)),
        Command::Events(args) => block_on(events::run(args)),
        Command::Token(args) => token::run(&args),
        Command::Health { address } => Ok(health::ask(&address)?),
        Command::Schema => {
            let schema = mesh::resources::json_schema(check::KINDS);
            output::print(&format!("{schema:#}\n"));
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "perigee", &mut script);
            output::print(&String::from_utf8_lossy(&script));
            Ok(())
        }
        Command::Version => {
            output::print(&format!("perigee {}\n", version::VERSION));
            Ok(())
        }
    }
}

/// Runs `work` on a runtime with a thread per core.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
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
    Dev(dev::DevArgs),
    /// Writes a starting resource folder, with a table document for each table of a database
    Init(init::InitArgs),
    /// Runs services of this node: those named, else those its configuration lists, else all
    Serve(serve::ServeArgs),
    /// Validates a resource folder without opening databases
    #[command(after_help = "Example:\n  perigee check examples/chinook")]
    Check {
        /// The resource folder
        dir: PathBuf,
    },
    /// Says what live queries have of each database, and what they lack; removes what they left
    Doctor(doctor::DoctorArgs),
    /// Lists events of triggers, delivers dead letters again, removes what is finished
    Events(events::EventsArgs),
    /// Prints a token signed with a project's primary key
    Token(token::TokenArgs),
    /// Exits with 0 if a node is ready, for containers without curl
    #[command(after_help = "Example:\n  perigee health 127.0.0.1:4122")]
    Health {
        /// Address of the node's HTTP port
        #[arg(value_name = "ADDR", default_value = "127.0.0.1:4122")]
        address: String,
    },
    /// Prints the JSON Schema of resource documents, for editors
    #[command(after_help = "Example:\n  perigee schema > .schema.json")]
    Schema,
    /// Prints a script that completes commands, for bash, elvish, fish, powershell or zsh
    #[command(after_help = "Example:\n  perigee completions bash > perigee.bash && . ./perigee.bash")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints version, commit and build
    #[command(after_help = "Example:\n  perigee version")]
    Version,
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

#[cfg(test)]
mod tests {
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
            &["doctor", "--force"],
            &["events"],
            &["events", "list", "--status", "lost"],
            &["token", "shop"],
            &["token", "shop", "{"],
            &["token", "shop", "[1]"],
            &["dev", "--listen", "0.0.0.0:4122"],
        ] {
            let message = usage(args);
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
