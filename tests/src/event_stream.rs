//! Client of GraphQL over server-sent events.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, header};
use http_body_util::{BodyDataStream, BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};

/// How long an event is waited for.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A response that is a stream of events, on a connection of its own. Dropped, its client is gone.
pub struct EventStream {
    body: std::pin::Pin<Box<dyn futures::Stream<Item = anyhow::Result<Bytes>> + Send>>,
    text: String,
}

/// What comes from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Sent {
    /// The event `next`.
    Next(Value),
    /// The event `complete`.
    Complete,
    /// Another event.
    Event {
        /// Its name.
        name: String,
        /// Its id.
        id: Option<String>,
        /// Its data.
        data: Value,
    },
    /// The end of the response.
    End,
}

impl EventStream {
    /// The response to a POST of a document for project `shop`. An error has the status of a refusal.
    pub async fn post(
        version: Version,
        address: SocketAddr,
        token: &str,
        query: &str,
    ) -> anyhow::Result<Result<Self, u16>> {
        let request = Request::post(url(address)).header(header::CONTENT_TYPE, "application/json");
        Self::open(version, request, token, json!({ "query": query }).to_string()).await
    }

    /// As [`EventStream::post`], by GET.
    pub async fn get(
        version: Version,
        address: SocketAddr,
        token: &str,
        query: &str,
    ) -> anyhow::Result<Result<Self, u16>> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let request = Request::builder().method(Method::GET).uri(format!("{}?query={query}", url(address)));
        Self::open(version, request, token, String::new()).await
    }

    /// The response to a GET of a path with further headers. An error has the status and the code of a refusal.
    pub async fn open_path(
        address: SocketAddr,
        token: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> anyhow::Result<Result<Self, (u16, String)>> {
        let mut request = Request::builder().method(Method::GET).uri(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match Self::send(Version::Http1, request, token, String::new()).await? {
            Ok(opened) => Ok(Ok(opened)),
            Err((status, body)) => {
                let body: Value = serde_json::from_slice(&body).context("a refusal is JSON")?;
                Ok(Err((status, body["code"].as_str().with_context(|| format!("no code in {body}"))?.to_owned())))
            }
        }
    }

    /// The response to a POST of JSON to a path. An error has the status and the body of a refusal.
    pub async fn post_path(
        address: SocketAddr,
        token: &str,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Result<Self, (u16, Value)>> {
        let request = Request::post(format!("http://{address}{path}")).header(header::CONTENT_TYPE, "application/json");
        let sent = Self::send(Version::Http1, request, token, body.to_string()).await?;
        Ok(match sent {
            Ok(opened) => Ok(opened),
            Err((status, body)) => Err((status, serde_json::from_slice(&body)?)),
        })
    }

    async fn open(
        version: Version,
        request: http::request::Builder,
        token: &str,
        body: String,
    ) -> anyhow::Result<Result<Self, u16>> {
        Ok(Self::send(version, request, token, body).await?.map_err(|(status, _)| status))
    }

    async fn send(
        version: Version,
        request: http::request::Builder,
        token: &str,
        body: String,
    ) -> anyhow::Result<Result<Self, (u16, Bytes)>> {
        let mut request = request.header(header::ACCEPT, "text/event-stream");
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let client = Client::builder(TokioExecutor::new()).http2_only(version == Version::Http2).build_http();
        let response = client.request(request.body(Full::new(Bytes::from(body)))?).await?;
        let (head, body) = response.into_parts();
        if head.status != 200 {
            return Ok(Err((head.status.as_u16(), body.collect().await?.to_bytes())));
        }
        let media = head.headers.get(header::CONTENT_TYPE).context("a content type")?;
        ensure!(media.as_bytes().starts_with(b"text/event-stream"), "{media:?}");
        // The connection lives as long as its client.
        let body = BodyDataStream::new(body.map_err(anyhow::Error::from)).map(move |piece| {
            let _ = &client;
            piece
        });
        Ok(Ok(Self { body: Box::pin(body), text: String::new() }))
    }

    /// What comes next; comments are left out.
    pub async fn next(&mut self) -> anyhow::Result<Sent> {
        loop {
            let Some((block, rest)) = self.text.split_once("\n\n") else {
                match tokio::time::timeout(TIMEOUT, self.body.next()).await.context("no event came")? {
                    Some(piece) => self.text.push_str(std::str::from_utf8(&piece?)?),
                    None if self.text.is_empty() => return Ok(Sent::End),
                    None => bail!("an event is cut off: {}", self.text),
                }
                continue;
            };
            let sent = parsed(block)?;
            self.text = rest.to_owned();
            if let Some(sent) = sent {
                return Ok(sent);
            }
        }
    }

    /// The data of the next answer, which must be what comes next.
    pub async fn answer(&mut self) -> anyhow::Result<Value> {
        match self.next().await? {
            Sent::Next(mut answer) if answer.get("errors").is_none() => Ok(answer["data"].take()),
            other => bail!("no answer: {other:?}"),
        }
    }

    /// The code of the error that ends the stream, which must be what comes next.
    pub async fn error(&mut self) -> anyhow::Result<String> {
        let Sent::Next(answer) = self.next().await? else { bail!("no error") };
        let code =
            answer["errors"][0]["extensions"]["code"].as_str().with_context(|| format!("no code in {answer}"))?;
        let end = [self.next().await?, self.next().await?];
        ensure!(end == [Sent::Complete, Sent::End], "{answer} is followed by {end:?}");
        Ok(code.to_owned())
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/v1/api/shop/graphql")
}

/// An event; `None` for a comment.
fn parsed(block: &str) -> anyhow::Result<Option<Sent>> {
    let (mut event, mut id, mut data) = (None, None, Vec::new());
    for line in block.lines().filter(|line| !line.starts_with(':')) {
        match line.split_once(':').context("a line has a name")? {
            ("event", name) => event = Some(name.trim()),
            ("id", value) => id = Some(value.trim().to_owned()),
            ("data", value) => data.push(value),
            _ => bail!("unexpected line: {line}"),
        }
    }
    Ok(match event {
        None => None,
        Some("next") => Some(Sent::Next(serde_json::from_str(&data.join("\n"))?)),
        Some("complete") => Some(Sent::Complete),
        Some(other) => Some(Sent::Event { name: other.to_owned(), id, data: serde_json::from_str(&data.join("\n"))? }),
    })
}
