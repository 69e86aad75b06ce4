//! OpenAPI: the description of the REST API of a project, as far as the caller's rules reach.
//!
//! It is shown where the GraphQL schema is, made and kept as answers of introspection are.

mod calls;
mod document;
mod names;
mod operations;
mod queue;
mod responses;
mod tables;
mod values;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use futures::stream;
use http::StatusCode;
use mesh::{Code, Fault};

use crate::{
    Service,
    edge::Caller,
    graphql::CompressedJson,
    http::{answer, guarded},
};

/// What the document is called among the answers that are kept.
const DOCUMENT: &str = "openapi.json";

/// The route of the document.
pub fn routes() -> Router<Service> {
    Router::new().route("/v1/api/{project}/openapi.json", get(description))
}

async fn description(State(service): State<Service>, caller: Caller, Path(project): Path<String>) -> Response {
    let described = std::pin::pin!(describe(&service, &caller, &project));
    match guarded(&caller.call, described).await.unwrap_or_else(Err) {
        Ok(json) => answer::json(StatusCode::OK, Body::from_stream(stream::iter(json.pieces()))),
        Err(fault) => {
            service.edge().log_refusal(&caller, &fault);
            answer::fault(&fault, &caller.call)
        }
    }
}

/// The description for a caller.
///
/// Errors: `UNKNOWN_PROJECT`; `NOT_FOUND` where the project shows no schema; `TOO_LARGE` beyond the limit of an answer.
async fn describe(service: &Service, caller: &Caller, project: &str) -> Result<CompressedJson, Fault> {
    let project = service.edge().project(caller, project.into()).await?;
    if !service.config().publishes(&project.spec) {
        return Err(Fault::new(Code::NotFound, "the OpenAPI document is not available in this project"));
    }
    let reach = service.edge().reach(caller, &project).await?;
    let bytes_max = service.edge().answer_bytes(&project);
    let caches = service.graphql();
    let names = caches.names(project);
    caches.introspection.document(&names, reach, DOCUMENT, bytes_max, document::write).await
}
