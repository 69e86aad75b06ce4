//! The front: what every request passes, whatever its protocol.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use mesh::{
    Call, Fault,
    listener::Connection,
    telemetry::{HttpMeter, Metrics},
};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};

use super::{admission::Ticket, answer, cors, current, guarded, node::Details, path, send_budget::SendBudget};
use crate::{Service, error, graphql, grpc};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the project that a request turned out to be for, where its path does not: gRPC names it in the message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visited(Arc<OnceLock<String>>);

impl Visited {
    /// The request is for `project`.
    pub(crate) fn visit(&self, project: &str) {
        self.0.get_or_init(|| project.to_owned());
    }
}

/// All there is at the public port. Gives each request its id, trace and deadline, sends it to its protocol and
/// finishes the answer. Clones are the same front.
#[derive(Clone)]
pub struct Front {
    parts: Arc<Parts>,
    connection: Option<Arc<Connection>>,
}

struct Parts {
    service: Service,
    meters: Meters,
    web: axum::Router,
    grpc: axum::Router,
    grpc_web: BoxCloneSyncService<Request, http::Response<tonic::body::Body>, Infallible>,
}

/// Marks the answer to a preflight, which says all there is to say to a browser.
#[derive(Debug, Clone)]
struct Preflight;

/// What a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Web,
    Grpc,
    GrpcWeb,
}

impl Front {
    pub(super) fn new(service: Service, web: axum::Router, grpc: axum::Router) -> Self {
        let inner = grpc.clone();
        let guarded = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let inner = inner.clone();
            async move { Ok::<_, Infallible>(called(inner, request.map(Body::new)).await) }
        });
        let grpc_web = BoxCloneSyncService::new(tonic_web::GrpcWebLayer::new().layer(guarded));
        let meters = Meters::new(service.mesh().metrics());
        Self { parts: Arc::new(Parts { service, meters, web, grpc, grpc_web }), connection: None }
    }

    /// The same for the requests of `connection`.
    pub fn on(&self, connection: Arc<Connection>) -> Self {
        Self { parts: self.parts.clone(), connection: Some(connection) }
    }

    pub(super) fn service(&self) -> &Service {
        &self.parts.service
    }
}

/// One for each protocol.
struct Meters {
    graphql: HttpMeter,
    rest: HttpMeter,
    grpc: HttpMeter,
    grpc_web: HttpMeter,
    node: HttpMeter,
}

impl Meters {
    fn new(metrics: &Metrics) -> Self {
        Self {
            graphql: metrics.http("graphql"),
            rest: metrics.http("rest"),
            grpc: metrics.http("grpc"),
            grpc_web: metrics.http("grpc-web"),
            node: metrics.http("node"),
        }
    }

    fn of(&self, route: Route) -> &HttpMeter {
        match route {
            Route::Graphql => &self.graphql,
            Route::Rest => &self.rest,
            Route::Grpc | Route::GrpcHealth => &self.grpc,
            Route::GrpcWeb => &self.grpc_web,
            Route::Node => &self.node,
        }
    }
}

/// What a request is for, as far as its path and its content type say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Graphql,
    Rest,
    Grpc,
    GrpcHealth,
    GrpcWeb,
    /// How the node is doing, and what nobody knows.
    Node,
}

impl Route {
    fn of(protocol: Protocol, path: &str) -> Self {
        match protocol {
            Protocol::Grpc if path.starts_with("/grpc.health.v1.Health/") => Route::GrpcHealth,
            Protocol::Grpc => Route::Grpc,
            Protocol::GrpcWeb => Route::GrpcWeb,
            Protocol::Web if project(path).is_none() => Route::Node,
            Protocol::Web if path.ends_with("/graphql") => Route::Graphql,
            Protocol::Web => Route::Rest,
        }
    }

    /// Whether it may be refused for want of room. Who asks how the node is doing has to learn it also then.
    fn is_shed(self) -> bool {
        !matches!(self, Route::GrpcHealth | Route::Node)
    }
}

/// What a gRPC request takes with it into the layers of its protocol, whose answers are made there.
#[derive(Clone)]
struct Sheddable {
    ticket: Ticket,
    budget: SendBudget,
    connection: Option<Arc<Connection>>,
}

impl Parts {
    async fn answer<B>(&self, connection: Option<Arc<Connection>>, request: http::Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let started = Instant::now();
        let protocol = Protocol::of(&request);
        let (mut head, body) = request.into_parts();
        let cleaned = match protocol {
            Protocol::Web => path::clean(&head.uri),
            Protocol::Grpc | Protocol::GrpcWeb => Ok(None),
        };
        if let Ok(Some(uri)) = &cleaned {
            head.uri = uri.clone();
        }
        let route = Route::of(protocol, head.uri.path());
        let ticket = route.is_shed().then(|| Ticket::new(self.service.admission()));
        let body = match &ticket {
            Some(ticket) if !body.is_end_stream() => ticket.body(body),
            _ => Body::new(body),
        };
        let mut request = Request::from_parts(head, body);
        let call = self.call(protocol, &request);
        let origin = Origin::of(&mut request, protocol);

        let mut response = match cleaned {
            Err(fault) => answer::fault(&fault, &call),
            Ok(_) => {
                let routed = Routed { route, ticket, connection, origin: origin.as_ref() };
                call.clone().scope(self.routed(&call, routed, request)).await
            }
        };

        if let Some(origin) = origin {
            origin.write(&self.service, &mut response);
        }
        if let Ok(id) = HeaderValue::from_str(&call.request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        self.meters.of(route).done(status(&response), started.elapsed());
        response
    }

    /// What the client sent of id, trace and time, within the limits of the node and of the project. It is given up at
    /// its deadline by [`guarded`].
    fn call(&self, protocol: Protocol, request: &Request) -> Call {
        let text = |name: &HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        let mut time = self.service.config().time;
        let project = project(request.uri().path()).and_then(|project| self.service.edge().settings(project));
        if let Some(seconds) = project.and_then(|project| project.spec.limits.time_seconds) {
            time = time.min(Duration::try_from_secs_f64(seconds).unwrap_or(time));
        }
        if protocol != Protocol::Web {
            let asked = text(&HeaderName::from_static("grpc-timeout")).and_then(mesh::call::timeout);
            time = time.min(asked.unwrap_or(time));
        }
        Call::begin(text(&REQUEST_ID), text(&HeaderName::from_static("traceparent")), Some(time)).watched()
    }

    async fn routed(&self, call: &Call, routed: Routed<'_>, mut request: Request) -> Response {
        let Routed { route, ticket, connection, origin } = routed;
        let asked = cors::preflight(&request).zip(origin);
        if let Some((method, origin)) = asked
            && origin.is_served(&self.service)
        {
            let access = origin.access(&self.service);
            let mut response = cors::allowed(method, request.headers(), access, origin.name.clone());
            response.extensions_mut().insert(Preflight);
            return response;
        }
        match route {
            Route::Node => {
                let details = Details::of(&self.service, connection.as_deref(), request.headers());
                request.extensions_mut().insert(details);
                Box::pin(self.web(call, request)).await
            }
            Route::Graphql | Route::Rest => {
                let refuse = Refuse::of(&self.service, route, &request, call);
                match self.admitted(call, ticket, connection, request).await {
                    Ok(response) => response,
                    Err(fault) => refuse.answer(&fault),
                }
            }
            Route::Grpc | Route::GrpcHealth if request.version() < Version::HTTP_2 => {
                answer::fault(&error::bad_request("gRPC needs HTTP/2; over HTTP/1.1 there is grpc-web"), call)
            }
            Route::Grpc | Route::GrpcHealth | Route::GrpcWeb => {
                if let Some(ticket) = ticket {
                    let budget = self.service.send_budget().clone();
                    request.extensions_mut().insert(Sheddable { ticket, budget, connection });
                }
                if route != Route::GrpcWeb {
                    return Box::pin(called(self.grpc.clone(), request)).await;
                }
                let Ok(response) = Box::pin(self.grpc_web.clone().oneshot(request)).await;
                response.map(Body::new)
            }
        }
    }

    /// The answer to a request for a project, once there is a slot for it. Errors: `UNAVAILABLE`.
    async fn admitted(
        &self,
        call: &Call,
        ticket: Option<Ticket>,
        connection: Option<Arc<Connection>>,
        request: Request,
    ) -> Result<Response, Fault> {
        let version = request.version();
        if let Some(ticket) = &ticket
            && request.body().is_end_stream()
            && request.method() != Method::OPTIONS
        {
            ticket.enter().await?;
        }
        let response = self.web(call, request).await;
        if let Some(fault) = ticket.and_then(|ticket| ticket.refusal()) {
            return Err(fault);
        }
        self.service.send_budget().sent(response, version, connection.as_ref())
    }

    /// Through the routes; the one that most requests take is known without a router, which costs a microsecond. Its
    /// work is some kilobytes of state: in a box, the layers around it move a pointer.
    fn dispatched<'a>(&'a self, call: &'a Call, request: Request) -> BoxFuture<'a, Result<Response, Fault>> {
        match graphql_project(&request).map(str::to_owned) {
            Some(project) => Box::pin(graphql::posted(&self.service, project, request).map(Ok)),
            None => {
                let mut routed = Box::pin(self.web.clone().oneshot(request));
                Box::pin(async move {
                    let Ok(response) = guarded(call, routed.as_mut()).await?;
                    Ok(response)
                })
            }
        }
    }

    async fn web(&self, call: &Call, request: Request) -> Response {
        if let Some(encoding) = encoding(&request) {
            let message = format!("content-encoding {encoding} is not known, expected none or identity");
            return answer::fault(&error::bad_request(message), call);
        }
        let is_options = request.method() == Method::OPTIONS;
        let response = match self.dispatched(call, request).await {
            Ok(response) => response,
            Err(fault) => return answer::fault(&fault, call),
        };
        let is_known = response.status() == StatusCode::METHOD_NOT_ALLOWED;
        match response.headers().get(header::ALLOW) {
            Some(allow) if is_options && is_known => {
                let mut told = answer::json(StatusCode::OK, "{}");
                told.headers_mut().insert(header::ALLOW, allow.clone());
                told
            }
            _ => response,
        }
    }
}

/// What is known of a request before it is answered.
struct Routed<'a> {
    route: Route,
    ticket: Option<Ticket>,
    connection: Option<Arc<Connection>>,
    origin: Option<&'a Origin>,
}

/// How a request for a project is refused: in the form of its protocol.
struct Refuse<'a> {
    service: &'a Service,
    call: &'a Call,
    media: Option<graphql::Media>,
}

impl<'a> Refuse<'a> {
    fn of(service: &'a Service, route: Route, request: &Request, call: &'a Call) -> Self {
        let media = (route == Route::Graphql).then(|| graphql::Media::of(request.headers()));
        Self { service, call, media }
    }

    fn answer(self, fault: &Fault) -> Response {
        match self.media {
            Some(media) => graphql::refused(self.service, self.call, media, fault),
            None => answer::fault(fault, self.call),
        }
    }
}

impl<B> tower::Service<http::Request<B>> for Front
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (parts, connection) = (self.parts.clone(), self.connection.clone());
        Box::pin(async move { Ok(parts.answer(connection, request).await) })
    }
}

impl Protocol {
    fn of<B>(request: &http::Request<B>) -> Self {
        let content = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if request.method() != Method::POST || !content.starts_with(b"application/grpc") {
            return Protocol::Web;
        }
        match content {
            b"application/grpc-web"
            | b"application/grpc-web+proto"
            | b"application/grpc-web-text"
            | b"application/grpc-web-text+proto" => Protocol::GrpcWeb,
            _ => Protocol::Grpc,
        }
    }
}

/// The page that a request comes from, and whose answer it may read.
struct Origin {
    name: HeaderValue,
    project: Option<String>,
    visited: Option<Visited>,
}

impl Origin {
    fn of(request: &mut Request, protocol: Protocol) -> Option<Self> {
        let name = request.headers().get(header::ORIGIN)?.clone();
        let project = project(request.uri().path()).map(str::to_owned);
        let is_grpc = protocol != Protocol::Web || project.is_none();
        let visited = is_grpc.then(Visited::default);
        if let Some(visited) = &visited {
            request.extensions_mut().insert(visited.clone());
        }
        Some(Self { name, project, visited })
    }

    /// Origins of the project; where none is known (a preflight of gRPC cannot tell), those of all.
    fn origins(&self, service: &Service) -> Vec<String> {
        let visited = self.visited.as_ref().and_then(|visited| visited.0.get());
        service.edge().origins(self.project.as_ref().or(visited).map(String::as_str))
    }

    fn is_served(&self, service: &Service) -> bool {
        !self.origins(service).is_empty()
    }

    fn access(&self, service: &Service) -> cors::Access {
        cors::access(&self.origins(service), &self.name)
    }

    fn write(self, service: &Service, response: &mut Response) {
        let origins = self.origins(service);
        let is_preflight = response.extensions().get::<Preflight>().is_some();
        if !origins.is_empty() && !is_preflight {
            cors::write(response.headers_mut(), cors::access(&origins, &self.name), self.name);
        }
    }
}

/// How the body is encoded, if it is.
fn encoding(request: &Request) -> Option<String> {
    let mut all = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let encoding =
        all.find(|encoding| !encoding.is_empty() && !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))?;
    Some(String::from_utf8_lossy(encoding.as_bytes()).chars().take(64).collect())
}

/// The project that a path is for.
fn project(path: &str) -> Option<&str> {
    let (project, _) = path.strip_prefix("/v1/api/")?.split_once('/')?;
    Some(project)
}

/// The project that a document is posted for, where its name is written as it is.
fn graphql_project(request: &Request) -> Option<&str> {
    let project = request.uri().path().strip_prefix("/v1/api/")?.strip_suffix("/graphql")?;
    let is_plain = project.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    (request.method() == Method::POST && is_plain).then_some(project)
}

/// A gRPC request through its routes, unless there is no room for it or its answer.
async fn called(routes: axum::Router, mut request: Request) -> Response {
    let sheddable = request.extensions_mut().remove::<Sheddable>();
    let version = request.version();
    let response = match guarded(&current(), Box::pin(routes.oneshot(request)).as_mut()).await {
        Ok(Ok(response)) => response,
        Err(fault) => grpc::refused(fault),
    };
    let Some(Sheddable { ticket, budget, connection }) = sheddable else { return response };
    match ticket.refusal() {
        Some(fault) => grpc::refused(fault),
        None => budget.sent(response, version, connection.as_ref()).unwrap_or_else(grpc::refused),
    }
}

/// The HTTP status of an answer, or the one that goes with the status of a gRPC answer.
fn status(response: &Response) -> u16 {
    match response.extensions().get::<tonic::Status>() {
        Some(status) if status.code() != tonic::Code::Ok => Fault::from(status.clone()).code.http(),
        _ => response.status().as_u16(),
    }
}
