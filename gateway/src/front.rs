//! The HTTP service of the public port: mounts the protocols, and does what every request needs.
//!
//! Request id, trace and deadline, admission, CORS and metrics are alike for all protocols.

mod node;
mod origin;
mod path;
mod route;
pub mod server;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use mesh::{Call, Fault, listener::Connection};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};

use self::{
    node::Details,
    origin::{PreflightAnswered, RequestOrigin},
    route::{Handler, Meters, Protocol, Route},
};
use crate::{
    Service,
    catalogue::{Project, ProjectRef},
    error, files, graphql, grpc,
    http::{GRPC_TIMEOUT, HeaderSummary, REQUEST_ID, SendBudget, TRACEPARENT, Ticket, answer, cors, current, guarded},
    legacy::{self, grpc::ToldStatus},
    openapi, pages, rest,
};

/// HTTP service of the public port.
///
/// It gives each request its id, trace and deadline, passes it to its protocol and adds the headers of the answer.
/// Clones are the same service.
#[derive(Clone)]
pub struct Front {
    state: Arc<FrontState>,
    connection: Option<Arc<Connection>>,
}

struct FrontState {
    service: Service,
    meters: Meters,
    web: axum::Router,
    grpc: GrpcServices,
    grpc_web: BoxCloneSyncService<Request, http::Response<tonic::body::Body>, Infallible>,
}

impl Service {
    /// The HTTP service of the public port: the routes of all protocols.
    pub fn front(&self) -> Front {
        let web = axum::Router::new()
            .merge(node::routes())
            .merge(rest::routes())
            .merge(openapi::routes())
            .merge(graphql::routes())
            .merge(legacy::routes())
            .merge(if self.config().pages.is_some() { pages::routes() } else { axum::Router::new() })
            .fallback(answer::unknown_path)
            .method_not_allowed_fallback(answer::wrong_method)
            .with_state(self.clone());
        Front::new(self.clone(), web)
    }
}

/// `/live`, `/ready`, `/metrics` and the health check with all details, for the mesh port.
pub fn node_routes(mesh: mesh::Mesh) -> axum::Router {
    node::routes()
        .layer(axum::Extension(node::Details::Shown))
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .with_state(mesh)
}

impl Front {
    fn new(service: Service, web: axum::Router) -> Self {
        let grpc = GrpcServices::new(&service);
        let inner = grpc.clone();
        let translated = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let inner = inner.clone();
            async move {
                let mut request = request.map(Body::new);
                let admission = request.extensions_mut().remove::<GrpcAdmission>();
                Ok::<_, Infallible>(call_grpc(&inner, request, admission).await)
            }
        });
        let grpc_web = BoxCloneSyncService::new(tonic_web::GrpcWebLayer::new().layer(translated));
        let meters = Meters::new(service.mesh().metrics());
        Self { state: Arc::new(FrontState { service, meters, web, grpc, grpc_web }), connection: None }
    }

    /// The front for requests of `connection`.
    pub fn on(&self, connection: Arc<Connection>) -> Self {
        Self { state: self.state.clone(), connection: Some(connection) }
    }

    fn service(&self) -> &Service {
        &self.state.service
    }

    fn answer<B>(&self, request: http::Request<B>) -> BoxFuture<'static, Response>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        Box::pin(self.state.clone().answer(self.connection.clone(), request))
    }
}

/// Admission state of a gRPC request, for where its answer is made: with gRPC-Web, inside of layers.
#[derive(Clone)]
struct GrpcAdmission {
    ticket: Ticket,
    budget: SendBudget,
    connection: Option<Arc<Connection>>,
}

impl FrontState {
    /// The answer to a request.
    ///
    /// What needs no waiting is done at once: it would be in the future, which is moved when it is boxed.
    fn answer<B>(
        self: Arc<Self>,
        connection: Option<Arc<Connection>>,
        request: http::Request<B>,
    ) -> impl Future<Output = Response> + Send + use<B>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let started = Instant::now();
        let summary = HeaderSummary::of(request.headers());
        let protocol = Protocol::of(&request, summary);
        let (mut head, body) = request.into_parts();
        let handler = if protocol == Protocol::Web { Handler::of(&head) } else { None };
        let cleaned = match protocol {
            Protocol::Web if handler.is_none() => path::clean(&head.uri),
            Protocol::Web | Protocol::Grpc | Protocol::GrpcWeb => Ok(None),
        };
        let cleaned = cleaned.map(|uri| {
            if let Some(uri) = uri {
                head.uri = uri;
            }
        });
        let route = handler.map_or_else(|| Route::of(protocol, head.uri.path()), Handler::route);
        let waits = summary.has_expect && head.version < Version::HTTP_2 && !body.is_end_stream();
        let ticket = route.is_shed().then(|| Ticket::new(self.service.admission()));
        let body = match &ticket {
            Some(ticket) if !body.is_end_stream() => ticket.body(body),
            _ => Body::new(body),
        };
        // In a box, since each of the functions below would move it.
        let mut request = Box::new(Request::from_parts(head, body));
        let (call, project) = self.call(started, protocol, &request, (handler, summary));
        let origin = RequestOrigin::of(&mut request, protocol, summary);

        async move {
            let mut response = match cleaned {
                Err(fault) => answer::fault(&fault, &call),
                Ok(()) => {
                    let target = Target { handler, summary, project, connection: None };
                    let context = RouteContext { route, target, ticket, connection, origin: origin.as_ref() };
                    call.clone().scope(self.dispatch(&call, context, request)).await
                }
            };

            if let Some(origin) = origin {
                origin.write(&self.service, &mut response);
            }
            if let Ok(mut id) = HeaderValue::from_str(&call.request_id) {
                // Each is another: in the table of the headers that HTTP/2 sends only once they would push out the others.
                id.set_sensitive(true);
                response.headers_mut().insert(REQUEST_ID, id);
            }
            if waits {
                close_unless_done(&mut response);
            }
            self.meters.of(route).done(status(&response), started.elapsed());
            response
        }
    }

    /// The call context of a request: id, trace and deadline as sent, within the limits of the node and of the project.
    /// The project, where all is known of it.
    ///
    /// The deadline is enforced by [`guarded`].
    fn call(
        &self,
        started: Instant,
        protocol: Protocol,
        request: &Request,
        (handler, summary): (Option<Handler>, HeaderSummary),
    ) -> (Call, Option<Arc<Project>>) {
        let text = |name: &HeaderName| match summary.has_context {
            true => request.headers().get(name).and_then(|value| value.to_str().ok()),
            false => None,
        };
        let mut time = self.service.config().time;
        let path = request.uri().path();
        let id = handler.map(|handler| handler.project(path)).or_else(|| route::project(path));
        let known = id.and_then(|id| self.service.edge().known(id));
        if let Some(known) = &known {
            time = self.service.config().time(&known.project.spec);
        }
        let asked = if protocol == Protocol::Web { None } else { text(&GRPC_TIMEOUT).and_then(mesh::call::timeout) };
        // Files take as long as they are large, and functions as long as they say; their handlers limit what else they do.
        let is_unlimited = match protocol {
            Protocol::Web => match handler {
                Some(Handler::Files(_) | Handler::Upload(_) | Handler::S3(_)) => true,
                Some(Handler::Graphql(_) | Handler::Table(_)) => false,
                None => rest::is_call(path),
            },
            Protocol::Grpc | Protocol::GrpcWeb => grpc::has_own_time(path) || legacy::grpc::has_own_time(path),
        };
        let time = [(!is_unlimited).then_some(time), asked].into_iter().flatten().min();
        let call = Call::begin_at(started, text(&REQUEST_ID), text(&TRACEPARENT), time).without_timer();
        (call, known.filter(|known| known.is_described).map(|known| known.project))
    }

    async fn dispatch(&self, call: &Call, context: RouteContext<'_>, mut request: Box<Request>) -> Response {
        let RouteContext { route, target, ticket, connection, origin } = context;
        let asked = cors::preflight(&request).zip(origin);
        if let Some((method, origin)) = asked
            && origin.is_served(&self.service)
        {
            let access = origin.access(&self.service);
            let mut response = cors::preflight_response(method, request.headers(), access, origin.name.clone());
            response.extensions_mut().insert(PreflightAnswered);
            return response;
        }
        match route {
            Route::Node => {
                let details = Details::of(&self.service, connection.as_deref(), request.headers());
                request.extensions_mut().insert(details);
                Box::pin(self.web(call, target, request)).await
            }
            Route::Graphql | Route::Files | Route::S3 | Route::Rest => {
                let format = RefusalFormat::of(&self.service, route, &request, target.summary, call);
                match self.with_admission(call, target, ticket, connection, request).await {
                    Ok(response) => response,
                    Err(fault) => format.answer(&fault),
                }
            }
            Route::Grpc | Route::GrpcHealth if request.version() < Version::HTTP_2 => {
                answer::fault(&error::bad_request("gRPC needs HTTP/2; over HTTP/1.1 there is grpc-web"), call)
            }
            Route::Grpc | Route::GrpcHealth | Route::GrpcWeb => {
                let budget = self.service.send_budget().clone();
                let admission = ticket.map(|ticket| GrpcAdmission { ticket, budget, connection });
                if route != Route::GrpcWeb {
                    return Box::pin(call_grpc(&self.grpc, *request, admission)).await;
                }
                if let Some(admission) = admission {
                    request.extensions_mut().insert(admission);
                }
                let Ok(response) = Box::pin(self.grpc_web.clone().oneshot(*request)).await;
                response.map(Body::new)
            }
        }
    }

    /// The answer to a request for a project, once there is a slot for it. Errors: `UNAVAILABLE`.
    async fn with_admission(
        &self,
        call: &Call,
        target: Target<'_>,
        ticket: Option<Ticket>,
        connection: Option<Arc<Connection>>,
        mut request: Box<Request>,
    ) -> Result<Response, Fault> {
        let version = request.version();
        if let Some(ticket) = &ticket
            && request.body().is_end_stream()
            && request.method() != Method::OPTIONS
        {
            ticket.enter().await?;
        }
        // Handlers of the router have it from there.
        let is_untaken = matches!(target.handler, Some(Handler::Graphql(_) | Handler::Table(_)));
        if let Some(connection) = connection.as_ref().filter(|_| !is_untaken || request.method() == Method::GET) {
            request.extensions_mut().insert(connection.clone());
        }
        let target = Target { connection: connection.as_ref(), ..target };
        let response = self.web(call, target, request).await;
        if let Some(fault) = ticket.and_then(|ticket| ticket.refusal()) {
            return Err(fault);
        }
        if let Some(files::Streamed { size }) = response.extensions().get::<files::Streamed>().copied() {
            return self.service.send_budget().track_stream(response, size, connection.as_ref());
        }
        self.service.send_budget().track(response, version, connection.as_ref())
    }

    /// Runs the handler of the request's route.
    ///
    /// The future is some kilobytes large: in a box, the layers around it move a pointer.
    #[expect(clippy::large_futures, reason = "they are made in the box, and stay there")]
    fn to_protocol<'a>(
        &'a self,
        call: &'a Call,
        Target { handler, summary, project, connection }: Target<'a>,
        request: Box<Request>,
    ) -> BoxFuture<'a, Result<Response, Fault>> {
        match handler {
            Some(Handler::Graphql(posted)) => Box::pin(async move {
                let (head, body) = request.into_parts();
                let project = ProjectRef { id: posted.project(head.uri.path()), found: project };
                let sender = graphql::Sender { headers: &head.headers, summary, connection };
                Ok(graphql::answer_post(&self.service, call.clone(), project, sender, body).await)
            }),
            Some(Handler::Table(posted)) => Box::pin(async move {
                let (head, body) = request.into_parts();
                Ok(rest::answer_post(&self.service, call, (posted, project), &head, body).await)
            }),
            Some(Handler::Files(of)) => Box::pin(async move {
                let (head, body) = request.into_parts();
                Ok(files::answer(&self.service, call, of, &head, body).await)
            }),
            Some(Handler::Upload(of)) => Box::pin(async move {
                let (head, body) = request.into_parts();
                Ok(files::answer_upload(&self.service, call, of, &head, body).await)
            }),
            Some(Handler::S3(of)) => Box::pin(async move {
                let (head, body) = request.into_parts();
                Ok(files::answer_s3(&self.service, call, of, head, body).await)
            }),
            None => {
                let mut routed = Box::pin(self.web.clone().oneshot(*request));
                Box::pin(async move {
                    let Ok(response) = guarded(call, routed.as_mut()).await?;
                    Ok(response)
                })
            }
        }
    }

    async fn web(&self, call: &Call, target: Target<'_>, request: Box<Request>) -> Response {
        // A body of the S3 protocol has a coding of its own.
        if target.summary.has_encoding
            && !matches!(target.handler, Some(Handler::S3(_)))
            && let Some(encoding) = encoding(&request)
        {
            let message = format!("content-encoding {encoding} is not supported: send none or identity");
            return answer::fault(&error::bad_request(message), call);
        }
        let is_options = request.method() == Method::OPTIONS;
        let response = match self.to_protocol(call, target, request).await {
            Ok(response) => response,
            Err(fault) => return answer::fault(&fault, call),
        };
        let is_known = response.status() == StatusCode::METHOD_NOT_ALLOWED;
        if !is_options || !is_known {
            return response;
        }
        match response.headers().get(header::ALLOW) {
            Some(allow) => {
                let mut options = answer::json(StatusCode::OK, "{}");
                options.headers_mut().insert(header::ALLOW, allow.clone());
                options
            }
            None => response,
        }
    }
}

/// Ends the connection of a client that waits to send its body, and has been told not to: what comes next on it would be taken
/// for the body. Source: RFC 9110, section 10.1.1.
fn close_unless_done(response: &mut Response) {
    if !response.status().is_success() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Context that routing needs besides the request.
struct RouteContext<'a> {
    route: Route,
    target: Target<'a>,
    ticket: Option<Ticket>,
    connection: Option<Arc<Connection>>,
    origin: Option<&'a RequestOrigin>,
}

/// Who answers a request, and what of it is known already.
struct Target<'a> {
    handler: Option<Handler>,
    summary: HeaderSummary,
    project: Option<Arc<Project>>,
    /// The connection of a request that takes part in load shedding.
    connection: Option<&'a Arc<Connection>>,
}

/// Format of refusals: that of the request's protocol.
struct RefusalFormat<'a> {
    service: &'a Service,
    call: &'a Call,
    media: Option<graphql::Media>,
}

impl<'a> RefusalFormat<'a> {
    fn of(service: &'a Service, route: Route, request: &Request, summary: HeaderSummary, call: &'a Call) -> Self {
        let media = (route == Route::Graphql).then(|| graphql::Media::of(request.headers(), summary));
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
        let answer = self.answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// Content encoding of the body, if any.
fn encoding(request: &Request) -> Option<String> {
    let mut all = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let encoding =
        all.find(|encoding| !encoding.is_empty() && !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))?;
    Some(String::from_utf8_lossy(encoding.as_bytes()).chars().take(64).collect())
}

/// What is spoken over gRPC: the API, and the predecessor's.
#[derive(Clone)]
struct GrpcServices {
    api: grpc::Services,
    legacy: legacy::grpc::Server,
}

impl GrpcServices {
    fn new(service: &Service) -> Self {
        Self { api: grpc::Services::new(service), legacy: legacy::grpc::Server::new(service) }
    }

    async fn answer(&self, request: Request) -> Response {
        match legacy::grpc::is_path(request.uri().path()) {
            true => Box::pin(self.legacy.answer(request)).await,
            false => self.api.answer(request).await,
        }
    }
}

/// Whether `path` is of a method that counts for the connection of its caller.
fn is_of_connection(path: &str) -> bool {
    grpc::is_of_connection(path) || legacy::grpc::is_of_connection(path)
}

/// A gRPC request through its routes, unless there is no room for it or its answer.
async fn call_grpc(services: &GrpcServices, mut request: Request, admission: Option<GrpcAdmission>) -> Response {
    let (version, is_told) = (request.version(), legacy::grpc::is_told(request.uri().path()));
    let refused = if is_told { legacy::grpc::refused } else { grpc::refused };
    let connection = admission.as_ref().and_then(|admission| admission.connection.as_ref());
    if let Some(connection) = connection.filter(|_| is_of_connection(request.uri().path())).cloned() {
        request.extensions_mut().insert(connection);
    }
    let response = match guarded(&current(), Box::pin(services.answer(request)).as_mut()).await {
        Ok(response) => response,
        Err(fault) => refused(fault),
    };
    let Some(GrpcAdmission { ticket, budget, connection }) = admission else { return response };
    match ticket.refusal() {
        Some(fault) => refused(fault),
        None => budget.track(response, version, connection.as_ref()).unwrap_or_else(grpc::refused),
    }
}

/// The HTTP status of an answer, or the one that goes with the status of a gRPC answer.
fn status(response: &Response) -> u16 {
    if let Some(ToldStatus(status)) = response.extensions().get() {
        return *status;
    }
    match response.extensions().get::<tonic::Status>() {
        Some(status) if status.code() != tonic::Code::Ok => Fault::from(status.clone()).code.http(),
        _ => response.status().as_u16(),
    }
}
