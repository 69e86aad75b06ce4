//! `perigee events`: the events of triggers that wait, were delivered, or are dead letters.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use functions::{EventFilter, EventStatus, EventSummary, Queue};
use mesh::config::{self, QueueConfig};

use crate::{failure::Failure, node, output};

/// Arguments of `perigee events`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  perigee events list --status failed\n  perigee events replay --trigger receipt --config node.yaml"
)]
pub struct EventsArgs {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Lists events, the oldest first
    #[command(after_help = "Example:\n  perigee events list --project shop --status failed --json")]
    List {
        #[command(flatten)]
        selection: Selection,
        /// Prints a line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// Delivers dead letters again, or other events that are finished, as if they had just been made
    #[command(after_help = "Example:\n  perigee events replay --trigger receipt")]
    Replay {
        #[command(flatten)]
        selection: Selection,
    },
    /// Removes dead letters, or other events that are not being delivered
    #[command(after_help = "Example:\n  perigee events purge --status processed")]
    Purge {
        #[command(flatten)]
        selection: Selection,
    },
}

/// Which events.
#[derive(Debug, Args)]
struct Selection {
    /// Ids of events; none: all
    ids: Vec<String>,
    /// Of this project only
    #[arg(long)]
    project: Option<String>,
    /// Of this trigger only
    #[arg(long)]
    trigger: Option<String>,
    /// Of this status only; replay and purge without it and without ids: failed
    #[arg(long, value_parser = PossibleValuesParser::new(EventStatus::ALL.map(EventStatus::name)))]
    status: Option<String>,
    /// The configuration of a node that delivers them; PERIGEE_ variables win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the one node that delivers them keeps its data; absent: as the configuration says
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data: Option<PathBuf>,
}

impl Selection {
    /// The filter, with a status where neither one nor ids are given.
    fn filter(&self, default: Option<EventStatus>) -> EventFilter {
        let given = self.status.as_deref();
        let status = EventStatus::ALL.into_iter().find(|status| Some(status.name()) == given);
        EventFilter {
            ids: self.ids.clone(),
            project: self.project.clone(),
            trigger: self.trigger.clone(),
            status: status.or(default.filter(|_| self.ids.is_empty())),
        }
    }

    async fn queue(&self) -> anyhow::Result<Queue> {
        if let Some(data) = &self.data {
            return Ok(Queue::beside(&QueueConfig::File {}, data).await?);
        }
        let node =
            config::Node::load(self.config.as_deref(), node::variables()).context("the configuration is wrong")?;
        Ok(Queue::beside(&node.queue, &node.data).await?)
    }
}

/// Does what the arguments say. Fails where an event that is asked for by id does not exist.
pub async fn run(args: EventsArgs) -> Result<(), Failure> {
    match args.command {
        EventsCommand::List { selection, json } => Box::pin(list(&selection, json)).await?,
        EventsCommand::Replay { selection } => {
            let filter = selection.filter(Some(EventStatus::Failed));
            let queue = Box::pin(selection.queue()).await?;
            let replayed = queue.replay(&filter, queue.now_ms()).await.context("events are not replayed")?;
            output::print(&format!("{replayed} events are delivered again\n"));
        }
        EventsCommand::Purge { selection } => {
            let filter = selection.filter(Some(EventStatus::Failed));
            let removed = Box::pin(selection.queue()).await?.purge(&filter).await.context("events are not removed")?;
            output::print(&format!("{removed} events are removed\n"));
        }
    }
    Ok(())
}

async fn list(selection: &Selection, json: bool) -> anyhow::Result<()> {
    let (queue, filter) = (Box::pin(selection.queue()).await?, selection.filter(None));
    let mut after = 0;
    loop {
        let page = queue.list(&filter, after).await.context("events are not listed")?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.seq;
        let lines: String = page.iter().map(|event| if json { json_line(event) } else { line(event) }).collect();
        output::print(&lines);
    }
}

fn json_line(event: &EventSummary) -> String {
    let json = serde_json::to_string(event).expect("texts and numbers can always be written as JSON");
    format!("{json}\n")
}

/// For people: one line, whatever the endpoint answered.
fn line(event: &EventSummary) -> String {
    let EventSummary { id, project, trigger_id, r#type, status, attempts, code, last, .. } = event;
    let code = code.map_or_else(|| "-".to_owned(), |code| code.to_string());
    let last: String = last.chars().map(|char| if char.is_control() { ' ' } else { char }).take(100).collect();
    format!("{id}  {project}/{trigger_id}  {type}  {status}  attempts {attempts}  {code}  {last}\n")
}
