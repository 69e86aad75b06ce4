//! Resumable uploads: `/v1/api/{project}/uploads`. Source: TUS 1.0.0, with creation, creation-with-upload, termination,
//! checksum, expiration and concatenation.

mod concat;
mod header;
mod upload;

use std::pin::pin;

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header as http_header, request::Parts};
use mesh::{Call, Code, Fault};

use self::upload::UploadRequest;
use super::{ProjectFiles, project_files::peer};
use crate::{
    Service,
    edge::Caller,
    error,
    http::{API_PREFIX, answer, body, guarded, plain_segment},
};

const UPLOADS: &str = "uploads";
const ALLOWED: &str = "POST, HEAD, PATCH, DELETE, OPTIONS";
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const EXTENSIONS: HeaderValue =
    HeaderValue::from_static("creation,creation-with-upload,termination,checksum,expiration,concatenation");
const ALGORITHMS: HeaderValue = HeaderValue::from_static("sha1,sha256");
const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
/// Detail of the fault of bytes that do not have their checksum.
const CHECKSUM: &str = "checksum";
/// Detail of the fault of a request that another one is in the way of.
const BUSY: &str = "busy";
/// Status of the fault of a checksum.
const CHECKSUM_MISMATCH: u16 = 460;

/// A path of resumable uploads: the length of the project's id in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadsPath {
    project: u16,
}

impl UploadsPath {
    /// Parses `path`; `None` where it is no such path. What follows is not looked at.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let (project, rest) = plain_segment(path.strip_prefix(API_PREFIX)?)?;
        let rest = rest.strip_prefix(UPLOADS)?;
        let project = u16::try_from(project.len()).ok()?;
        (rest.is_empty() || rest.starts_with('/')).then_some(Self { project })
    }

    /// The project's id in `path`, the one that was parsed.
    pub(crate) fn project(self, path: &str) -> &str {
        &path[API_PREFIX.len()..][..usize::from(self.project)]
    }

    /// The id of the upload in `path`; empty where new ones are made.
    fn id(self, path: &str) -> &str {
        let rest = &path[API_PREFIX.len() + usize::from(self.project) + 1 + UPLOADS.len()..];
        rest.strip_prefix('/').unwrap_or(rest)
    }
}

/// The answer to a request to a path of resumable uploads.
pub(crate) async fn answer(service: &Service, call: &Call, uploads: UploadsPath, head: &Parts, body: Body) -> Response {
    let answered = match method(head) {
        Ok(Method::OPTIONS) => Ok(described()),
        Ok(method) => {
            guarded(call, pin!(respond(service, call, uploads, (head, &method), body))).await.and_then(|told| told)
        }
        Err(fault) => Err(fault),
    };
    let mut response = answered.unwrap_or_else(|fault| refused(&fault, &head.method, call));
    response.headers_mut().insert(TUS_RESUMABLE, VERSION);
    response
}

/// The method that is meant: clients behind some proxies can send no other than POST.
fn method(head: &Parts) -> Result<Method, Fault> {
    match head.headers.get(METHOD_OVERRIDE) {
        Some(meant) if head.method == Method::POST => Method::from_bytes(meant.as_bytes())
            .map_err(|_| error::bad_request("invalid x-http-method-override: expected a method")),
        Some(_) | None => Ok(head.method.clone()),
    }
}

/// What the server can do.
fn described() -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(TUS_VERSION, VERSION);
    headers.insert(TUS_EXTENSION, EXTENSIONS);
    headers.insert(TUS_CHECKSUM_ALGORITHM, ALGORITHMS);
    headers.insert(http_header::ALLOW, HeaderValue::from_static(ALLOWED));
    response
}

fn refused(fault: &Fault, method: &Method, call: &Call) -> Response {
    let mut response = answer::fault(fault, call);
    if fault.detail(CHECKSUM).is_some()
        && let Ok(status) = StatusCode::from_u16(CHECKSUM_MISMATCH)
    {
        *response.status_mut() = status;
    }
    let passes = matches!(fault.code, Code::Unavailable | Code::Deadline) || fault.detail(BUSY).is_some();
    if *method == Method::HEAD && passes {
        // Of any other status, clients take the upload for lost and begin again.
        *response.status_mut() = StatusCode::LOCKED;
    }
    let headers = response.headers_mut();
    match fault.code {
        Code::Method => headers.insert(http_header::ALLOW, HeaderValue::from_static(ALLOWED)),
        Code::Precondition => headers.insert(TUS_VERSION, VERSION),
        _ => None,
    };
    response
}

async fn respond(
    service: &Service,
    call: &Call,
    uploads: UploadsPath,
    (head, method): (&Parts, &Method),
    mut body: Body,
) -> Result<Response, Fault> {
    check_version(&head.headers)?;
    let path = head.uri.path();
    let caller = Caller::of(call.clone(), &head.headers)?;
    let files = ProjectFiles::of(service, caller, uploads.project(path), peer(&head.extensions)).await?;
    let request = UploadRequest { files, headers: &head.headers, id: uploads.id(path) };
    let answered = Box::pin(request.respond(method, &mut body)).await;
    if let Err(fault) = &answered {
        service.edge().log_refusal(&request.files.caller, fault);
        if !head.headers.contains_key(http_header::EXPECT) {
            // A client that is still sending when the connection closes never sees the answer.
            body::discard(body, service.config().body_bytes).await;
        }
    }
    answered
}

fn check_version(headers: &HeaderMap) -> Result<(), Fault> {
    let told = headers.get(TUS_RESUMABLE);
    if told == Some(&VERSION) {
        return Ok(());
    }
    let found = told.map_or_else(|| "none".to_owned(), |told| String::from_utf8_lossy(told.as_bytes()).into_owned());
    Err(Fault::new(Code::Precondition, format!("invalid tus-resumable: expected 1.0.0, found {found}")))
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(http_header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_would_be_told_more_later_is_locked() {
        let status =
            |fault: Fault, method: Method| refused(&fault, &method, &Call::begin(Some("r"), None, None)).status();
        let busy = || Fault::new(Code::Conflict, "another request goes on").with(BUSY, "upload");
        for (fault, of_head) in [
            (busy(), StatusCode::LOCKED),
            (Fault::new(Code::Unavailable, "no storage"), StatusCode::LOCKED),
            (Fault::new(Code::Deadline, "too late"), StatusCode::LOCKED),
            (Fault::new(Code::Conflict, "a folder is there"), StatusCode::CONFLICT),
        ] {
            assert_eq!(status(fault, Method::HEAD), of_head);
        }
        assert_eq!(status(busy(), Method::PATCH), StatusCode::CONFLICT);
    }

    #[test]
    fn a_path_has_a_project_and_may_have_an_id() {
        for (path, expected) in [
            ("/v1/api/shop/uploads", Some(("shop", ""))),
            ("/v1/api/shop/uploads/", Some(("shop", ""))),
            ("/v1/api/shop/uploads/a_-b", Some(("shop", "a_-b"))),
            ("/v1/api/shop/uploads/a/b", Some(("shop", "a/b"))),
            ("/v1/api/shop/uploadsX", None),
            ("/v1/api//uploads", None),
            ("/v1/api/sh%6Fp/uploads", None),
            ("/v1/api/shop/files/uploads", None),
        ] {
            let found = UploadsPath::of(path).map(|found| (found.project(path), found.id(path)));
            assert_eq!(found, expected, "{path}");
        }
    }
}
