//! Clients of changes of rows, by every protocol that tells them.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use proto::api::v1::{self as api, watch_response};
use serde_json::{Value, json};

use crate::{
    client::{Client, reason},
    event_stream::{EventStream, Sent, Version},
    operation,
    socket::{Incoming, Socket},
};

/// How long a message is waited for.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A protocol that tells changes of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// GraphQL, `graphql-transport-ws`.
    Socket,
    /// GraphQL, `graphql-ws`.
    LegacySocket,
    /// GraphQL over server-sent events.
    Events,
    /// REST over server-sent events.
    Rest,
    /// gRPC.
    Grpc,
}

/// All of them.
pub const FRAMINGS: [Framing; 5] =
    [Framing::Socket, Framing::LegacySocket, Framing::Events, Framing::Rest, Framing::Grpc];

/// What is watched.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The condition, by REST's grammar: names of columns and values.
    pub find: Value,
    /// The table.
    pub table: &'static str,
    /// Columns.
    pub columns: &'static [&'static str],
    /// The rows that there are are not told.
    pub skip_initial: bool,
    /// The position to go on after.
    pub after: String,
}

/// A message about a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `INSERT`
    pub kind: String,
    /// The row.
    pub row: Value,
    /// The row as it was.
    pub before: Value,
    /// Why changes may be missing.
    pub reason: Option<String>,
    /// Where to go on.
    pub position: String,
}

/// A watch of a client.
pub enum Watching {
    /// A socket, and whether it is of the old subprotocol.
    Socket(Box<Socket>, bool),
    /// A stream of events of GraphQL.
    Events(EventStream),
    /// A stream of events of REST.
    Rest(EventStream),
    /// A stream of messages.
    Grpc(Box<tonic::Streaming<api::WatchResponse>>),
}

impl Watching {
    /// Begins a watch of database `lab`. An error that is told at once has its code.
    pub async fn begin(
        framing: Framing,
        client: &Client,
        token: &str,
        asked: &Asked,
    ) -> anyhow::Result<Result<Self, String>> {
        let address = client.address();
        match framing {
            Framing::Socket => {
                let mut socket = Socket::open(address, token).await?;
                socket.subscribe("1", &asked.document()).await?;
                Ok(Ok(Self::Socket(socket.into(), false)))
            }
            Framing::LegacySocket => {
                let mut socket = Socket::open_legacy(address, json!({})).await?;
                let payload = json!({ "query": asked.document(), "authToken": token });
                socket.send(&json!({ "type": "start", "id": "1", "payload": payload })).await?;
                Ok(Ok(Self::Socket(socket.into(), true)))
            }
            Framing::Events => {
                let opened = EventStream::post(Version::Http1, address, token, &asked.document()).await?;
                Ok(opened.map(Self::Events).map_err(|status| status.to_string()))
            }
            Framing::Rest => {
                let opened = EventStream::open_path(address, token, &asked.path(), &[]).await?;
                Ok(opened.map(Self::Rest).map_err(|(_, code)| code))
            }
            Framing::Grpc => Self::begin_grpc(client, token, asked).await,
        }
    }

    async fn begin_grpc(client: &Client, token: &str, asked: &Asked) -> anyhow::Result<Result<Self, String>> {
        let client = if token.is_empty() { client.clone() } else { client.with_token(token) };
        Ok(match client.streaming("Watch", asked.message()).await? {
            Ok(messages) => Ok(Self::Grpc(Box::new(messages))),
            Err(status) => Err(reason(&status)?),
        })
    }

    /// The next message. An error of the protocol that ends the watch has its code.
    pub async fn next(&mut self) -> anyhow::Result<Result<Change, String>> {
        tokio::time::timeout(TIMEOUT, self.next_message()).await.context("no message came")?
    }

    async fn next_message(&mut self) -> anyhow::Result<Result<Change, String>> {
        match self {
            Self::Socket(socket, is_legacy) => {
                let (next, errors) = if *is_legacy { ("data", "/payload/errors/0") } else { ("next", "/payload/0") };
                loop {
                    match socket.next().await? {
                        Incoming::Message(message) if message["type"] == "ka" => {}
                        Incoming::Message(mut message) if message["type"] == next => {
                            return Change::of_graphql(message["payload"]["data"]["c"].take()).map(Ok);
                        }
                        Incoming::Message(message) if message["type"] == "error" => {
                            return Ok(Err(code(message.pointer(errors).unwrap_or(&Value::Null))?));
                        }
                        Incoming::Closed(code) => return Ok(Err(code.to_string())),
                        other => bail!("unexpected {other:?}"),
                    }
                }
            }
            Self::Events(events) => match events.next().await? {
                Sent::Next(answer) if answer["errors"].is_array() => Ok(Err(code(&answer["errors"][0])?)),
                Sent::Next(mut answer) => Change::of_graphql(answer["data"]["c"].take()).map(Ok),
                other => bail!("unexpected {other:?}"),
            },
            Self::Rest(events) => {
                let Sent::Event { name, id, data } = events.next().await? else { bail!("the stream has ended") };
                match name.as_str() {
                    "error" => Ok(Err(data["code"].as_str().context("a code")?.to_owned())),
                    "end" => Ok(Err("end".to_owned())),
                    _ => Ok(Ok(Change {
                        kind: name.to_uppercase(),
                        row: data["row"].clone(),
                        before: data["before"].clone(),
                        reason: data["reason"].as_str().map(str::to_owned),
                        position: id.context("an id")?,
                    })),
                }
            }
            Self::Grpc(messages) => match messages.next().await.context("the stream has ended")? {
                Ok(message) => Change::of_grpc(message).map(Ok),
                Err(status) => Ok(Err(reason(&status)?)),
            },
        }
    }

    /// The next messages up to READY, and that one's position.
    pub async fn until_ready(&mut self) -> anyhow::Result<(Vec<Change>, String)> {
        let mut told = Vec::new();
        loop {
            let change = self.next().await?.map_err(|code| anyhow::anyhow!("ended with {code}"))?;
            match change.kind.as_str() {
                "READY" => return Ok((told, change.position)),
                _ => told.push(change),
            }
        }
    }
}

impl Asked {
    /// A GraphQL document, whose field has the key `c`.
    fn document(&self) -> String {
        let row = self.columns.join(" ");
        let mut conditions = Vec::new();
        for (name, value) in self.find.as_object().into_iter().flatten() {
            conditions.push(format!("{name}: {{_eq: {value}}}"));
        }
        let find = format!("where: {{{}}}, ", conditions.join(", "));
        let after = if self.after.is_empty() { String::new() } else { format!(", after: {:?}", self.after) };
        let initial = !self.skip_initial;
        let table = self.table;
        format!(
            "subscription {{ c: {table}_changes({find}initial: {initial}{after}) \
             {{ type row {{ {row} }} before {{ {row} }} reason position }} }}"
        )
    }

    /// A message of gRPC.
    pub fn message(&self) -> api::WatchRequest {
        let columns = self.columns.iter().map(|name| (*name).to_owned()).collect();
        api::WatchRequest {
            project: "shop".to_owned(),
            database: "lab".to_owned(),
            table: self.table.to_owned(),
            r#where: operation::structure(&self.find),
            select: Some(api::Select { columns, ..Default::default() }),
            after: self.after.clone(),
            skip_initial: self.skip_initial,
        }
    }

    /// A path of REST.
    pub fn path(&self) -> String {
        let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let (find, select) = (encoded(&self.find.to_string()), encoded(&json!(self.columns).to_string()));
        let after = if self.after.is_empty() { String::new() } else { format!("&after={}", encoded(&self.after)) };
        let initial = !self.skip_initial;
        format!("/v1/api/shop/crud/lab/{}/watch?find={find}&select={select}&initial={initial}{after}", self.table)
    }
}

impl Change {
    fn of_graphql(told: Value) -> anyhow::Result<Self> {
        let text = |name: &str| told[name].as_str().map(str::to_owned);
        ensure!(told.is_object(), "no change: {told}");
        Ok(Self {
            kind: text("type").context("a type")?,
            row: told["row"].clone(),
            before: told["before"].clone(),
            reason: text("reason"),
            position: text("position").context("a position")?,
        })
    }

    fn of_grpc(message: api::WatchResponse) -> anyhow::Result<Self> {
        let (kind, row, reason) = match message.event.context("an event")? {
            watch_response::Event::Initial(row) => ("INITIAL", Some(row), None),
            watch_response::Event::Ready(_) => ("READY", None, None),
            watch_response::Event::Insert(row) => ("INSERT", Some(row), None),
            watch_response::Event::Update(row) => ("UPDATE", Some(row), None),
            watch_response::Event::Delete(row) => ("DELETE", Some(row), None),
            watch_response::Event::Resync(resync) => ("RESYNC", None, Some(resync.reason)),
        };
        let image = |bytes: Option<&[u8]>| match bytes {
            None | Some([]) => Ok(Value::Null),
            Some(bytes) => serde_json::from_slice(bytes),
        };
        Ok(Self {
            kind: kind.to_owned(),
            row: image(row.as_ref().map(|row| &row.row[..]))?,
            before: image(row.as_ref().map(|row| &row.before[..]))?,
            reason,
            position: message.position,
        })
    }
}

fn code(error: &Value) -> anyhow::Result<String> {
    Ok(error["extensions"]["code"].as_str().with_context(|| format!("no code in {error}"))?.to_owned())
}
