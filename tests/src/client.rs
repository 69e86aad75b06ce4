//! Clients of every protocol, whose answers come out alike.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client as Pool, rt::TokioExecutor};
use prost::Message;
use proto::{
    api::v1::{self as api, files_client::FilesClient},
    predecessor::space_cloud_client::SpaceCloudClient,
};
use serde_json::{Value, json};
use tonic::{Status, metadata::AsciiMetadataValue, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    graphql::{self, Spelling},
    operation::{self, Operation},
};

/// Protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `POST …/graphql`.
    Graphql,
    /// `POST …/crud/{database}/…`.
    Rest,
    /// `perigee.api.v1.Data` over HTTP/2.
    Grpc,
    /// grpc-web, as browsers call it, over HTTP/1.1.
    GrpcWeb,
}

/// Every protocol.
pub const PROTOCOLS: [Protocol; 4] = [Protocol::Graphql, Protocol::Rest, Protocol::Grpc, Protocol::GrpcWeb];

/// Outcome of an operation, alike for all protocols.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Rows, a row, a number or null.
    Read(Value),
    /// Result of each write.
    Written(Vec<Written>),
    /// The error.
    Failed(Refusal),
}

/// An error as a protocol tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: String,
    /// For people.
    pub text: String,
}

/// Result of one write, as far as the protocol tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Rows inserted, changed or deleted.
    pub affected: Option<u64>,
    /// Rows of `returning`.
    pub rows: Option<Value>,
}

/// A caller of one node.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    project: String,
    token: Option<String>,
    pool: Pool<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    channel: Channel,
}

impl Client {
    /// A caller without a token.
    pub fn new(address: SocketAddr, project: &str) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address is a URL");
        Self {
            address,
            project: project.to_owned(),
            token: None,
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            channel: channel.connect_lazy(),
        }
    }

    /// The address of the project's GraphQL endpoint.
    pub fn graphql_url(&self) -> String {
        format!("http://{}/v1/api/{}/graphql", self.address, self.project)
    }

    /// The path of the description of the project's REST API.
    pub fn openapi_path(&self) -> String {
        format!("/v1/api/{}/openapi.json", self.project)
    }

    /// The address of the description of the project's REST API.
    pub fn openapi_url(&self) -> String {
        format!("http://{}{}", self.address, self.openapi_path())
    }

    /// The address of the node.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The client with a token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The client for another project of the node.
    pub fn with_project(&self, project: &str) -> Self {
        Self { project: project.to_owned(), ..self.clone() }
    }

    /// Runs an operation by one protocol.
    pub async fn run(&self, protocol: Protocol, database: &str, operation: &Operation) -> anyhow::Result<Outcome> {
        match protocol {
            Protocol::Graphql => self.by_graphql(Spelling::Directive, database, operation).await,
            Protocol::Rest => self.by_rest(database, operation).await,
            Protocol::Grpc | Protocol::GrpcWeb => self.by_grpc(protocol, database, operation).await,
        }
    }

    /// Sends an HTTP request with this caller's token; the path starts at the root.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Response<Bytes>> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.pool.request(request.body(Full::new(body.into()))?).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    /// Posts JSON below the project; answers status and JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.post_bytes(path, body.to_string()).await
    }

    /// Posts bytes as JSON below the project; answers status and JSON body.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> anyhow::Result<(u16, Value)> {
        let path = format!("/v1/api/{}/{path}", self.project);
        let response = self.send(Method::POST, &path, &[("content-type", "application/json")], body).await?;
        let status = response.status().as_u16();
        let json = serde_json::from_slice(response.body())
            .with_context(|| format!("{status} {}", String::from_utf8_lossy(response.body())))?;
        Ok((status, json))
    }

    /// Sends a GraphQL document; answers status and response.
    pub async fn graphql(&self, query: &str, variables: Value) -> anyhow::Result<(u16, Value)> {
        self.post("graphql", &json!({ "query": query, "variables": variables })).await
    }

    /// Gets a path of the node; answers status and JSON body.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        let response = self.send(Method::GET, path, &[], Bytes::new()).await?;
        Ok((response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or(Value::Null)))
    }

    /// Runs an operation as a GraphQL document in one of its spellings.
    pub async fn by_graphql(
        &self,
        spelling: Spelling,
        database: &str,
        operation: &Operation,
    ) -> anyhow::Result<Outcome> {
        let (query, variables) = operation.graphql(spelling, database);
        let (status, response) = self.graphql(&query, variables).await?;
        if let Some(error) = response["errors"].get(0) {
            let code = error["extensions"]["code"].as_str().context("an error has a code")?.to_owned();
            let text = error["message"].as_str().context("an error has a text")?.to_owned();
            return Ok(Outcome::Failed(Refusal { code, text }));
        }
        ensure!(status == 200, "{status} {response}");
        let response = graphql::unaliased(response);
        let data = response["data"].as_object().context("an answer has data")?;
        if !operation.is_write() {
            return Ok(Outcome::Read(data["r0"].clone()));
        }
        let written = data
            .values()
            .map(|field| Written { affected: field["affected"].as_u64(), rows: field.get("returning").cloned() });
        Ok(Outcome::Written(written.collect()))
    }

    async fn by_rest(&self, database: &str, operation: &Operation) -> anyhow::Result<Outcome> {
        let (path, body) = operation.rest();
        let (status, response) = self.post(&format!("crud/{database}/{}", encoded(&path)), &body).await?;
        if status != 200 {
            let code = response["code"].as_str().with_context(|| format!("an error has a code: {response}"))?;
            let text = response["error"].as_str().with_context(|| format!("an error has a text: {response}"))?;
            let one = matches!(operation, Operation::Read(read) if read.op == "one");
            return Ok(if one && code == "NOT_FOUND" {
                Outcome::Read(Value::Null)
            } else {
                Outcome::Failed(Refusal { code: code.to_owned(), text: text.to_owned() })
            });
        }
        match operation {
            Operation::Read(_) => Ok(Outcome::Read(response["result"].clone())),
            Operation::Batch(items) => Ok(Outcome::Written(vec![Written { affected: None, rows: None }; items.len()])),
            Operation::Create(_) | Operation::Update(_) | Operation::Delete(_) => {
                let written =
                    Written { affected: response["affected"].as_u64(), rows: response.get("result").cloned() };
                Ok(Outcome::Written(vec![written]))
            }
        }
    }

    async fn by_grpc(&self, protocol: Protocol, database: &str, operation: &Operation) -> anyhow::Result<Outcome> {
        let answer = match operation {
            Operation::Read(read) if read.op == "count" => {
                let request = api::AggregateRequest {
                    r#where: operation::structure(&read.find),
                    ..self.aggregate(database, &read.table)
                };
                let answer: Result<api::ReadResponse, Status> = self.unary(protocol, "Aggregate", request).await?;
                answer.map(|answer| rows(&answer.rows).map(|rows| Outcome::Read(rows[0]["count"].clone())))
            }
            Operation::Read(read) => {
                let answer: Result<api::ReadResponse, Status> =
                    self.unary(protocol, "Read", self.read(database, read)).await?;
                answer.map(|answer| {
                    let rows = rows(&answer.rows)?;
                    Ok(Outcome::Read(if read.op == "one" { rows.get(0).cloned().unwrap_or(Value::Null) } else { rows }))
                })
            }
            Operation::Batch(items) => {
                let items = items.iter().map(|item| self.item(item)).collect();
                let request = api::BatchRequest { project: self.project.clone(), database: database.to_owned(), items };
                let answer: Result<api::BatchResponse, Status> = self.unary(protocol, "Batch", request).await?;
                answer.map(|answer| {
                    answer.results.iter().map(written).collect::<anyhow::Result<_>>().map(Outcome::Written)
                })
            }
            Operation::Create(_) | Operation::Update(_) | Operation::Delete(_) => {
                let answer: Result<api::WriteResponse, Status> = match self.write(database, operation) {
                    api::batch_item::Write::Create(request) => self.unary(protocol, "Create", request).await?,
                    api::batch_item::Write::Update(request) => self.unary(protocol, "Update", request).await?,
                    api::batch_item::Write::Delete(request) => self.unary(protocol, "Delete", request).await?,
                };
                answer.map(|answer| Ok(Outcome::Written(vec![written(&answer)?])))
            }
        };
        match answer {
            Ok(outcome) => outcome,
            Err(status) => Ok(Outcome::Failed(Refusal { code: reason(&status)?, text: status.message().to_owned() })),
        }
    }

    fn aggregate(&self, database: &str, table: &str) -> api::AggregateRequest {
        api::AggregateRequest {
            project: self.project.clone(),
            database: database.to_owned(),
            table: table.to_owned(),
            ..Default::default()
        }
    }

    fn read(&self, database: &str, read: &operation::Read) -> api::ReadRequest {
        api::ReadRequest {
            project: self.project.clone(),
            database: database.to_owned(),
            table: read.table.clone(),
            r#where: operation::structure(&read.find),
            select: operation::select(&read.select),
            sort: read.sort.clone(),
            skip: read.skip.unwrap_or(0),
            limit: if read.op == "one" { Some(1) } else { read.limit },
        }
    }

    fn item(&self, operation: &Operation) -> api::BatchItem {
        api::BatchItem { write: Some(self.write("", operation)) }
    }

    fn write(&self, database: &str, operation: &Operation) -> api::batch_item::Write {
        let (project, database) = (self.project.clone(), database.to_owned());
        match operation {
            Operation::Create(create) => api::batch_item::Write::Create(api::CreateRequest {
                project,
                database,
                table: create.table.clone(),
                docs: create.docs.iter().filter_map(operation::structure).collect(),
                returning: operation::select(&create.returning),
            }),
            Operation::Update(update) => api::batch_item::Write::Update(api::UpdateRequest {
                project,
                database,
                table: update.table.clone(),
                r#where: operation::structure(&update.find),
                update: operation::structure(&Value::Object(update.update.clone())),
                returning: operation::select(&update.returning),
            }),
            Operation::Delete(delete) => api::batch_item::Write::Delete(api::DeleteRequest {
                project,
                database,
                table: delete.table.clone(),
                r#where: operation::structure(&delete.find),
                returning: operation::select(&delete.returning),
            }),
            Operation::Read(_) | Operation::Batch(_) => panic!("a batch has writes only"),
        }
    }

    /// Calls a method of `perigee.api.v1.Data`.
    pub async fn unary<Q: Message + 'static, A: Message + Default + 'static>(
        &self,
        protocol: Protocol,
        method: &str,
        message: Q,
    ) -> anyhow::Result<Result<A, Status>> {
        self.unary_at(protocol, &format!("/perigee.api.v1.Data/{method}"), message).await
    }

    /// Calls the method at `path`.
    pub async fn unary_at<Q: Message + 'static, A: Message + Default + 'static>(
        &self,
        protocol: Protocol,
        path: &str,
        message: Q,
    ) -> anyhow::Result<Result<A, Status>> {
        if protocol == Protocol::GrpcWeb {
            return self.grpc_web(path, &message.encode_to_vec()).await;
        }
        let (mut grpc, request) = self.grpc(message).await?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        Ok(grpc.unary(request, path.parse()?, codec).await.map(tonic::Response::into_inner))
    }

    /// A client of `perigee.api.v1.Files`; tokens go with the requests.
    pub fn files(&self) -> FilesClient<Channel> {
        FilesClient::new(self.channel.clone())
    }

    /// A client of the predecessor's service; tokens go with the requests.
    pub fn space_cloud(&self) -> SpaceCloudClient<Channel> {
        SpaceCloudClient::new(self.channel.clone())
    }

    /// A request of gRPC with the token.
    pub fn bearing<Q>(&self, message: Q) -> anyhow::Result<tonic::Request<Q>> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", AsciiMetadataValue::try_from(format!("Bearer {token}"))?);
        }
        Ok(request)
    }

    /// A client of gRPC that is ready, and a request with the token.
    async fn grpc<Q>(&self, message: Q) -> anyhow::Result<(tonic::client::Grpc<Channel>, tonic::Request<Q>)> {
        let request = self.bearing(message)?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await?;
        Ok((grpc, request))
    }

    /// Calls a method of `perigee.api.v1.Data` that answers with a stream.
    pub async fn streaming<Q: Message + 'static, A: Message + Default + 'static>(
        &self,
        method: &str,
        message: Q,
    ) -> anyhow::Result<Result<tonic::Streaming<A>, Status>> {
        self.streaming_at(&format!("/perigee.api.v1.Data/{method}"), message).await
    }

    /// Calls the method at `path`, which answers with a stream.
    pub async fn streaming_at<Q: Message + 'static, A: Message + Default + 'static>(
        &self,
        path: &str,
        message: Q,
    ) -> anyhow::Result<Result<tonic::Streaming<A>, Status>> {
        let (mut grpc, request) = self.grpc(message).await?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        Ok(grpc.server_streaming(request, path.parse()?, codec).await.map(tonic::Response::into_inner))
    }

    /// Calls a method that takes a stream and answers with one.
    pub async fn bidirectional<Q: Message + 'static, A: Message + Default + 'static>(
        &self,
        path: &str,
        messages: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> anyhow::Result<Result<tonic::Streaming<A>, Status>> {
        let (mut grpc, request) = self.grpc(messages).await?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        Ok(grpc.streaming(request, path.parse()?, codec).await.map(tonic::Response::into_inner))
    }

    /// One message and its answer as browsers frame them: `application/grpc-web+proto`, trailers in the body.
    pub async fn grpc_web<A: Message + Default>(
        &self,
        path: &str,
        message: &[u8],
    ) -> anyhow::Result<Result<A, Status>> {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len())?);
        body.put_slice(message);
        let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
        let response = self.send(Method::POST, path, &headers, body.freeze()).await?;
        let mut answer = None;
        let mut trailers = response.headers().clone();
        let mut rest = response.body().as_ref();
        while rest.len() >= 5 {
            let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
            let frame = rest.get(5..5 + length).context("a frame is whole")?;
            if rest[0] & 0x80 == 0 {
                answer = Some(A::decode(frame)?);
            } else {
                for line in std::str::from_utf8(frame)?.lines() {
                    let (name, value) = line.split_once(':').context("a trailer has a name")?;
                    trailers.insert(name.trim().parse::<header::HeaderName>()?, value.trim().parse()?);
                }
            }
            rest = &rest[5 + length..];
        }
        let status = Status::from_header_map(&trailers).with_context(|| format!("a status in {trailers:?}"))?;
        match answer {
            Some(answer) if status.code() == tonic::Code::Ok => Ok(Ok(answer)),
            _ => Ok(Err(status)),
        }
    }
}

/// A path with every byte that may not stand in one percent-encoded.
fn encoded(path: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    path.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn rows(bytes: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(bytes).with_context(|| format!("rows are JSON: {}", BASE64_STANDARD.encode(bytes)))
}

fn written(response: &api::WriteResponse) -> anyhow::Result<Written> {
    let rows = if response.rows.is_empty() { None } else { Some(rows(&response.rows)?) };
    Ok(Written { affected: Some(response.affected), rows })
}

/// The stable code that a gRPC status carries.
pub fn reason(status: &Status) -> anyhow::Result<String> {
    match status.get_details_error_info() {
        Some(info) => Ok(info.reason),
        None => bail!("a status without error info: {status:?}"),
    }
}
