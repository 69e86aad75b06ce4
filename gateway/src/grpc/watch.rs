//! `rpc Watch`: changes of rows as a stream of messages.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use mesh::{Code, Fault, listener::Connection};
use proto::{
    api::v1::{self as api, watch_response},
    realtime::{Event, Row, WatchResponse},
};
use query::{Budget, Node, Operation, Parser, Read, Shape, Table};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    data::{FoundCaller, table_ref},
    select::Selection,
    status, value,
};
use crate::{
    Service,
    catalogue::ProjectRef,
    http::{Reservation, SendBudget, SocketProgress},
    live::{Hold, Watch, WatchedRows},
    plan::RequestPlanner,
};

/// The messages of one call.
pub type WatchMessages = Pin<Box<dyn Stream<Item = Result<api::WatchResponse, Status>> + Send>>;

/// A call, whose messages are taken one after the other.
struct Call {
    watch: Watch,
    draining: CancellationToken,
    budget: SendBudget,
    progress: SocketProgress,
    /// The last message, until the next one is asked for.
    sending: Option<(usize, Reservation)>,
    _hold: Hold,
}

/// Begins the watch that `message` asks for.
pub async fn begin(
    service: &Service,
    (caller, found): FoundCaller<'_>,
    message: api::WatchRequest,
    connection: Option<Arc<Connection>>,
) -> Result<WatchMessages, Fault> {
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
    let connection = connection.unwrap_or_else(|| Arc::new(Connection::new(([0, 0, 0, 0], 0).into())));
    let (watch, hold) = Box::pin(service.watch(caller, &planned.project, Some(connection.peer.ip()), rows)).await?;
    let call = Call {
        watch,
        draining: service.tasks().draining().clone(),
        budget: service.send_budget().clone(),
        progress: SocketProgress::new(connection),
        sending: None,
        _hold: hold,
    };
    let next = |call: Option<Call>| async {
        let mut call = call?;
        Some(match call.next().await {
            Ok(message) => (Ok(message), Some(call)),
            Err(fault) => (Err(status(fault)), None),
        })
    };
    Ok(stream::unfold(Some(call), next).boxed())
}

impl Call {
    /// The next message, which counts as an answer that its client has not taken until another one is asked for.
    async fn next(&mut self) -> Result<api::WatchResponse, Fault> {
        if let Some((bytes, _)) = self.sending.take() {
            self.progress.add(bytes);
        }
        let message = tokio::select! {
            biased;
            () = self.draining.cancelled() => {
                return Err(Fault::new(Code::Unavailable, "the node stops; call again"));
            }
            message = self.watch.next() => response(message?),
        };
        let bytes = prost::Message::encoded_len(&message);
        self.sending = Some((bytes, self.budget.queue(bytes, &self.progress)?));
        Ok(message)
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
