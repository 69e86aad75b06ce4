//! `perigee serve`: services of one node, as its configuration says.

use std::path::PathBuf;

use anyhow::Context;
use mesh::config;

use crate::{
    failure::Failure,
    node::{self, Mode, Node, Signals},
    output,
};

/// Arguments of `perigee serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  perigee serve --print-config > node.yaml && perigee serve crud auth-rules realtime --config node.yaml"
)]
pub struct ServeArgs {
    /// What to run: gateway, crud, auth-rules, realtime, storage, functions
    #[arg(value_name = "SERVICE")]
    pub services: Vec<mesh::config::ServiceName>,
    /// The node's configuration; PERIGEE_ variables win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Prints the commented defaults and exits
    #[arg(long)]
    pub print_config: bool,
}

/// Runs the services until the process is asked to stop.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    if args.print_config {
        output::print(config::DEFAULT);
        return Ok(());
    }
    let mut config =
        config::Node::load(args.config.as_deref(), node::variables()).context("the configuration is wrong")?;
    if !args.services.is_empty() {
        config.services = args.services;
    }
    mesh::telemetry::start(&config.telemetry).context("the log cannot be started")?;
    let signals = Signals::catch()?;
    let node = Node::start(config, Mode::Serve).await?;
    node.run(signals).await
}
