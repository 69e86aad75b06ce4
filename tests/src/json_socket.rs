//! Client of the predecessor's JSON socket.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::socket::{Incoming, Socket};

/// A connection.
pub struct JsonSocket {
    socket: Socket,
    count: usize,
}

impl JsonSocket {
    /// The endpoint of project `shop`.
    pub const PATH: &str = "/v1/api/shop/socket/json";

    /// A connection to project `shop`.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let opened = Self::connect(address, Self::PATH, &[]).await;
        opened.map_err(|status| anyhow::anyhow!("refused with {status}"))
    }

    /// A connection after the handshake with these further headers. An error has the status of a refusal.
    pub async fn connect(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        Ok(Self { socket: Socket::connect(address, path, headers).await?, count: 0 })
    }

    /// Sends a message of a type; its id.
    pub async fn send(&mut self, r#type: &str, data: Value) -> anyhow::Result<String> {
        self.count += 1;
        let id = format!("m{}", self.count);
        self.socket.send(&json!({ "id": id, "type": r#type, "data": data })).await?;
        Ok(id)
    }

    /// Sends a frame.
    pub async fn send_raw(&mut self, message: Message) -> anyhow::Result<()> {
        self.socket.send_raw(message).await
    }

    /// What comes next.
    pub async fn next(&mut self) -> anyhow::Result<Incoming> {
        self.socket.next().await
    }

    /// The data of the reply to a message, which comes next.
    pub async fn ask(&mut self, r#type: &str, data: Value) -> anyhow::Result<Value> {
        let id = self.send(r#type, data).await?;
        match self.next().await? {
            Incoming::Message(mut reply) if reply["id"] == id.as_str() && reply["type"] == r#type => {
                Ok(reply["data"].take())
            }
            other => bail!("no reply to {type}: {other:?}"),
        }
    }

    /// Begins a live query of a table of database `lab`; the data of the reply.
    pub async fn subscribe(&mut self, id: &str, group: &str, more: Value) -> anyhow::Result<Value> {
        let mut data =
            json!({ "id": id, "group": group, "dbType": "lab", "where": {}, "options": {}, "project": "shop" });
        for (name, value) in more.as_object().into_iter().flatten() {
            data[name] = value.clone();
        }
        self.ask("realtime-subscribe", data).await
    }

    /// The rows of a live query that begins.
    pub async fn rows(&mut self, id: &str, group: &str, more: Value) -> anyhow::Result<Rows> {
        let reply = self.subscribe(id, group, more).await?;
        ensure!(reply["ack"] == true && reply["error"] == "", "refused: {reply}");
        let mut rows = Rows::default();
        for row in reply["docs"].as_array().into_iter().flatten() {
            ensure!(row["type"] == "initial" && row["time"] == 1, "no row of the beginning: {row}");
            rows.merge(row)?;
        }
        Ok(rows)
    }

    /// The next change of a row, which comes next.
    pub async fn feed(&mut self) -> anyhow::Result<Value> {
        match self.next().await? {
            Incoming::Message(mut feed) if feed["id"] == "" && feed["type"] == "realtime-feed" => {
                Ok(feed["data"].take())
            }
            other => bail!("no change: {other:?}"),
        }
    }
}

/// Rows as a client keeps them, by their keys.
#[derive(Debug, Default, PartialEq)]
pub struct Rows(pub BTreeMap<String, Value>);

impl Rows {
    /// Merges a row as clients do. An error says that it contradicts what is known.
    pub fn merge(&mut self, row: &Value) -> anyhow::Result<()> {
        let find = row["find"].to_string();
        ensure!(row["find"].as_object().is_some_and(|find| !find.is_empty()), "rows cannot be told apart: {row}");
        match row["type"].as_str() {
            Some("initial") => ensure!(self.0.insert(find, row["payload"].clone()).is_none(), "told twice: {row}"),
            Some("insert" | "update") => drop(self.0.insert(find, row["payload"].clone())),
            Some("delete") => drop(self.0.remove(&find)),
            other => bail!("unknown type {other:?}"),
        }
        Ok(())
    }

    /// The rows, in the order of their keys.
    pub fn payloads(&self) -> Vec<&Value> {
        self.0.values().collect()
    }
}
