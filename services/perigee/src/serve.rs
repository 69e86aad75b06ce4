//! `perigee serve`: services of one node, as its configuration says.

use anyhow::Context;
use mesh::config;

use crate::{
    cli,
    failure::Failure,
    node::{self, Mode, Node, Signals},
};

/// Runs the services until the process is asked to stop.
pub fn run(args: cli::Serve) -> Result<(), Failure> {
    if args.print_config {
        cli::say(config::DEFAULT);
        return Ok(());
    }
    let mut config =
        config::Node::load(args.config.as_deref(), node::variables()).context("the configuration is wrong")?;
    if !args.services.is_empty() {
        config.services = args.services;
    }
    mesh::telemetry::start(&config.telemetry).context("the log cannot be started")?;
    cli::block_on(async {
        let signals = Signals::catch()?;
        let node = Node::start(config, Mode::Serve).await?;
        node.run(signals).await
    })
}
