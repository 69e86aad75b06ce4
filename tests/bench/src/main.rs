//! Measures Perigee against what people would write by hand, in interleaved rounds of one run.
//!
//! `scripts/bench` builds everything as it ships, in profile `dist`, and calls `bench run` with a private PostgreSQL;
//! with `--instructions` it calls `bench instructions`.

mod by_hand;
mod callgrind;
mod calls;
mod grpc;
mod instructions;
mod live;
mod load;
mod matching;
mod report;
mod requests;
mod run;
mod subject;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Measures Perigee against servers written by hand")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the comparison and prints it.
    Run(run::Options),
    /// Counts the instructions of one request in each scenario, on SQLite.
    Instructions(instructions::Options),
    /// Finds out which of many conditions a change concerns.
    Matching(matching::Options),
    /// Serves the scenarios by hand; the comparison starts these itself.
    Serve {
        /// With which driver.
        #[arg(value_enum)]
        by: by_hand::Driver,
        /// Database: a PostgreSQL URL or an SQLite file.
        database: String,
        /// Port on loopback.
        port: u16,
    },
    /// Serves the gRPC server of a user; the comparison starts it itself.
    Echo {
        /// Port on loopback.
        port: u16,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Run(options) => runtime.block_on(run::run(options)),
        Command::Instructions(options) => runtime.block_on(instructions::run(options)),
        Command::Matching(options) => matching::run(&options),
        Command::Echo { port } => runtime.block_on(calls::serve(port)),
        Command::Serve { by, database, port } => runtime.block_on(by_hand::serve(by, &database, port)),
    }
}
