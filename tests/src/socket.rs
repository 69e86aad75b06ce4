//! Client of GraphQL over WebSocket.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

/// How long a message is waited for.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A connection.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The subprotocol that the server speaks.
    pub protocol: String,
}

/// What comes from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A message of the protocol.
    Message(Value),
    /// The connection was closed with a code.
    Closed(u16),
}

impl Socket {
    /// A connection to the endpoint of a project, after the handshake with these further headers. An error has the status
    /// of a refusal.
    pub async fn connect(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{address}{path}").into_client_request().expect("an address is a URL");
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("the test sends a legal header"));
        }
        match connect_async(request).await {
            Ok((stream, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol").and_then(|name| name.to_str().ok());
                Ok(Self { stream, protocol: protocol.unwrap_or_default().to_owned() })
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// A connection to the endpoint of project `shop` that is acknowledged.
    pub async fn open(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let path = "/v1/api/shop/graphql";
        let connected = Self::connect(address, path, &[("sec-websocket-protocol", "graphql-transport-ws")]).await;
        let mut socket = connected.map_err(|status| anyhow::anyhow!("refused with {status}"))?;
        let payload = if token.is_empty() { json!({}) } else { json!({ "authorization": format!("Bearer {token}") }) };
        socket.send(&json!({ "type": "connection_init", "payload": payload })).await?;
        match socket.next().await? {
            Incoming::Message(message) if message == json!({ "type": "connection_ack" }) => Ok(socket),
            other => bail!("not acknowledged: {other:?}"),
        }
    }

    /// As [`Socket::open`], by the old subprotocol; `payload` is that of the first message.
    pub async fn open_legacy(address: SocketAddr, payload: Value) -> anyhow::Result<Self> {
        let path = "/v1/api/shop/graphql/socket";
        let connected = Self::connect(address, path, &[("sec-websocket-protocol", "graphql-ws")]).await;
        let mut socket = connected.map_err(|status| anyhow::anyhow!("refused with {status}"))?;
        socket.send(&json!({ "type": "connection_init", "payload": payload })).await?;
        for r#type in ["connection_ack", "ka"] {
            match socket.next().await? {
                Incoming::Message(message) if message == json!({ "type": r#type, "payload": {} }) => {}
                other => bail!("not acknowledged: {other:?}"),
            }
        }
        Ok(socket)
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        self.send_raw(Message::Text(message.to_string().into())).await
    }

    /// Sends a frame.
    pub async fn send_raw(&mut self, message: Message) -> anyhow::Result<()> {
        Ok(self.stream.send(message).await?)
    }

    /// Begins an operation.
    pub async fn subscribe(&mut self, id: &str, query: &str) -> anyhow::Result<()> {
        self.send(&json!({ "type": "subscribe", "id": id, "payload": { "query": query } })).await
    }

    /// What comes next.
    pub async fn next(&mut self) -> anyhow::Result<Incoming> {
        loop {
            let next = tokio::time::timeout(TIMEOUT, self.stream.next()).await.context("no message came")?;
            match next.context("the connection was closed without a code")?? {
                Message::Text(text) => return Ok(Incoming::Message(serde_json::from_str(&text)?)),
                Message::Close(frame) => {
                    return Ok(Incoming::Closed(frame.context("a close frame has a code")?.code.into()));
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => bail!("unexpected frame {other:?}"),
            }
        }
    }

    /// The data of the next answer to the operation `id`, which must be what comes next.
    pub async fn answer(&mut self, id: &str) -> anyhow::Result<Value> {
        match self.next().await? {
            Incoming::Message(mut message) if message["type"] == "next" && message["id"] == id => {
                Ok(message["payload"]["data"].take())
            }
            other => bail!("no answer to {id}: {other:?}"),
        }
    }

    /// The code of the error that ends the operation `id`, which must be what comes next.
    pub async fn error(&mut self, id: &str) -> anyhow::Result<String> {
        match self.next().await? {
            Incoming::Message(message) if message["type"] == "error" && message["id"] == id => {
                let code = message["payload"][0]["extensions"]["code"].as_str();
                Ok(code.with_context(|| format!("no code in {message}"))?.to_owned())
            }
            other => bail!("no error of {id}: {other:?}"),
        }
    }
}
