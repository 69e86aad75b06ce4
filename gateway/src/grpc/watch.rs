//! `rpc Watch`: changes of rows as a stream of messages.

use std::sync::Arc;

use mesh::{Fault, listener::Connection};
use proto::{
    api::v1::{self as api, watch_response},
    realtime::{Event, Row, WatchResponse},
};
use query::{Budget, Node, Operation, Parser, Read, Shape, Table};

use super::{
    data::{FoundCaller, table_ref},
    messages::{MessageSource, Messages, messages},
    select::Selection,
    value,
};
use crate::{
    Service,
    catalogue::ProjectRef,
    http::or_unknown,
    live::{Watch, WatchedRows},
    plan::RequestPlanner,
};

/// Begins the watch that `message` asks for.
pub async fn begin(
    service: &Service,
    (caller, found): FoundCaller<'_>,
    message: api::WatchRequest,
    connection: Option<Arc<Connection>>,
) -> Result<Messages<api::WatchResponse>, Fault> {
    let table_ref = table_ref(&message.project, &message.database, &message.table)?;
    let mut guard = service.guard();
    let find = value::object(message.r#where, &mut guard).map_err(Fault::from)?;
    let selection = Selection::of(message.select, &mut guard).map_err(Fault::from)?;
    let mut planner = RequestPlanner::begin(service, caller, ProjectRef { id: table_ref.project, found }).await?;
    let plan = |parser: Parser<'_>, table: &Table, budget: &mut Budget| {
        Ok(Node {
            filter: parser.filter(table, &find, budget)?,
            ..Node::new(Shape::Many, selection.fields(parser, table, budget)?)
        })
    };
    let planned = planner.plan(table_ref, Operation::Read, plan).await?;
    let read = Read { database: planned.database, table: table_ref.table.into(), node: planned.plan };
    let rows = WatchedRows { read, before: Vec::new(), skip_initial: message.skip_initial, after: message.after };
    let connection = or_unknown(connection);
    let watch = Box::pin(service.watch(caller, &planned.project, Some(connection.peer.ip()), rows)).await?;
    Ok(messages(service, connection, watch))
}

impl MessageSource for Watch {
    type Message = api::WatchResponse;

    async fn next_message(&mut self) -> Result<Option<api::WatchResponse>, Fault> {
        self.next().await.map(|message| Some(response(message)))
    }
}

/// A message as clients are told it.
fn response(message: WatchResponse) -> api::WatchResponse {
    let row = |row: Row| api::Row { row: row.row, before: row.before };
    let event = message.event.map(|event| match event {
        Event::Initial(of) => watch_response::Event::Initial(row(of)),
        Event::Ready(_) => watch_response::Event::Ready(api::Ready {}),
        Event::Insert(of) => watch_response::Event::Insert(row(of)),
        Event::Update(of) => watch_response::Event::Update(row(of)),
        Event::Delete(of) => watch_response::Event::Delete(row(of)),
        Event::Resync(resync) => watch_response::Event::Resync(api::Resync { reason: resync.reason }),
    });
    api::WatchResponse { event, position: message.position }
}
