//! The S3 protocol: `/s3/{project}/{bucket}/{key}`. Source: Amazon S3 API reference, 2006-03-01.
//!
//! A request goes through the protocol's library twice: first as it was sent, for its signature, then without what
//! signed it and with the path below the project, for its operation. Its access key stands for the claims that rules see.

mod body;
mod checksum;
mod chunks;
mod description;
mod fault;
mod listing;
mod multipart;
mod objects;
mod operations;
mod verified;

use std::pin::pin;

use axum::{body::Body, response::Response};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use mesh::{Call, Fault};
use s3s::{config::S3Config, service::S3ServiceBuilder, validation::NameValidation};

use self::body::SharedBody;
use crate::{
    Service,
    edge::Caller,
    http::{guarded, plain_segment},
};

/// What paths of the protocol begin with.
const PREFIX: &str = "/s3/";
/// Most bytes of the XML of a request: ten thousand parts, or a thousand keys.
const XML_BYTES: usize = 4 << 20;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// A path of the S3 protocol: the length of the project's id in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct S3Path {
    project: u16,
}

impl S3Path {
    /// Parses `path`; `None` where it is no such path. What follows is not looked at.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let (project, _) = plain_segment(path.strip_prefix(PREFIX)?)?;
        Some(Self { project: u16::try_from(project.len()).ok()? })
    }

    /// The project's id in `path`, the one that was parsed.
    pub(crate) fn project(self, path: &str) -> &str {
        &path[PREFIX.len()..][..usize::from(self.project)]
    }

    /// What follows the project's id in `path`, percent-encoded, with a slash at its beginning.
    fn below(self, path: &str) -> &str {
        match &path[PREFIX.len() + usize::from(self.project)..] {
            "" => "/",
            below => below,
        }
    }
}

/// Names of buckets are those of the project, whatever the rules of Amazon are.
struct AnyName;

impl NameValidation for AnyName {
    fn validate_bucket_name(&self, name: &str) -> bool {
        !name.is_empty()
    }
}

/// The library's limits.
fn limits() -> S3Config {
    let mut config = S3Config::default();
    config.xml_max_body_size = XML_BYTES;
    // Forms are refused before.
    config.post_object_max_file_size = 0;
    config
}

fn configured(mut builder: S3ServiceBuilder) -> S3ServiceBuilder {
    builder.set_config(std::sync::Arc::new(s3s::config::StaticConfigProvider::new(std::sync::Arc::new(limits()))));
    builder.set_validation(AnyName);
    builder
}

/// The answer to a request of the S3 protocol.
pub(crate) async fn answer(service: &Service, call: &Call, of: S3Path, head: Parts, body: Body) -> Response {
    let expects = head.headers.contains_key(header::EXPECT);
    let body = SharedBody::new(body);
    let answered = guarded(call, pin!(respond(service, call, of, head, body.clone()))).await;
    let mut response = answered.unwrap_or_else(Err).unwrap_or_else(|fault| fault::response(fault, call));
    if response.status().is_client_error() && !expects {
        // A client that is still sending when the connection closes never sees the answer.
        crate::http::body::discard(body.take(), service.config().body_bytes).await;
    }
    if response.status() == StatusCode::NOT_MODIFIED {
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    if let Ok(id) = HeaderValue::from_str(&call.request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn respond(service: &Service, call: &Call, of: S3Path, head: Parts, body: SharedBody) -> Result<Response, Fault> {
    verified::check_form(&head)?;
    // Who has no key of a project learns nothing of it: one that is not there is as one without keys.
    let project = service.edge().settings(of.project(head.uri.path()));
    let caller = Caller { call: call.clone(), token: std::sync::Arc::default() };
    Box::pin(verified::answer(service, (caller, project), of, head, body)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_project_and_what_is_below_it() {
        for (path, expected) in [
            ("/s3/shop", Some(("shop", "/"))),
            ("/s3/shop/", Some(("shop", "/"))),
            ("/s3/shop/files", Some(("shop", "/files"))),
            ("/s3/shop/files/a%2F..//b", Some(("shop", "/files/a%2F..//b"))),
            ("/s3/", None),
            ("/s3", None),
            ("/s3//files", None),
            ("/s3/sh%6Fp/files", None),
            ("/s3x/shop/files", None),
        ] {
            let found = S3Path::of(path).map(|found| (found.project(path), found.below(path)));
            assert_eq!(found, expected, "{path}");
        }
    }
}
