//! Measures Perigee against what people would write by hand, in interleaved rounds of one run.
//!
//! `scripts/bench` starts a private PostgreSQL, builds everything for release and calls `bench run`.

mod by_hand;
mod load;
mod report;
mod run;
mod subject;

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
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse().command {
        Command::Run(options) => runtime.block_on(run::run(options)),
        Command::Serve { by, database, port } => runtime.block_on(by_hand::serve(by, &database, port)),
    }
}
