//! Files: `/v1/api/{project}/files/{path}`, streamed both ways.
//!
//! A path is checked before any rule is asked, rules before any byte is taken or given. Nothing here holds a whole file.

mod compression;
mod conditional;
mod delete;
mod disposition;
mod download;
mod form;
mod image;
mod list;
mod multipart;
mod operate;
mod parameters;
mod project_files;
mod range;
mod rate;
mod s3;
mod sign;
mod target;
mod tus;
mod upload;

use std::pin::pin;

use axum::{body::Body, response::Response};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use mesh::{Call, Code, Fault};
use proto::storage::{Entry, Precondition};
use query::{datetime, file::FilePath};
use serde::Serialize;

use crate::{
    Service,
    edge::{Caller, Credential},
    error,
    http::{API_PREFIX, answer, guarded, plain_segment},
};
pub(crate) use delete::{IS_FOLDER, remove};
pub(crate) use download::{FileParts, Streamed, open, paced};
pub(crate) use form::{child, make as make_folder};
pub(crate) use list::{ListQuery, Listed, info as entry_of, page};
pub(crate) use operate::{CopyKind, Transfer, transfer};
use parameters::FileParameters;
pub(crate) use project_files::{ProjectFiles, peer};
pub(crate) use rate::FileRates;
pub(crate) use s3::{S3Path, answer as answer_s3};
pub(crate) use sign::{SignedMethod, signed_address};
pub(crate) use target::FileTarget;
pub(crate) use tus::{UploadsPath, answer as answer_upload};
pub(crate) use upload::{NewFile, checked_type, meta, write};

const FILES: &str = "files";
const ALLOWED: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";

/// A path of files: the length of the project's id in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilesPath {
    project: u16,
}

impl FilesPath {
    /// Parses `path`; `None` where it is no such path. What follows is not looked at.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let (project, rest) = plain_segment(path.strip_prefix(API_PREFIX)?)?;
        let rest = rest.strip_prefix(FILES)?;
        let project = u16::try_from(project.len()).ok()?;
        (rest.is_empty() || rest.starts_with('/')).then_some(Self { project })
    }

    /// The project's id in `path`, the one that was parsed.
    pub(crate) fn project(self, path: &str) -> &str {
        &path[API_PREFIX.len()..][..usize::from(self.project)]
    }

    /// What follows the slash after `files` in `path`, percent-encoded; `None` where there is no slash.
    fn encoded(self, path: &str) -> Option<&str> {
        path[API_PREFIX.len() + usize::from(self.project) + 1 + FILES.len()..].strip_prefix('/')
    }
}

/// A request for files.
struct FilesRequest<'a> {
    files: ProjectFiles,
    head: &'a Parts,
    /// What follows the slash after `files`, percent-encoded.
    encoded: &'a str,
    /// There is nothing after `files`.
    is_form_path: bool,
    parameters: FileParameters,
}

/// The answer to a request to a path of files.
pub(crate) async fn answer(service: &Service, call: &Call, files: FilesPath, head: &Parts, body: Body) -> Response {
    if head.method == Method::OPTIONS {
        return with_allow(answer::json(StatusCode::OK, "{}"));
    }
    let answered = guarded(call, pin!(respond(service, call, files, head, body))).await;
    answered.unwrap_or_else(Err).unwrap_or_else(|fault| {
        let response = answer::fault(&fault, call);
        if fault.code == Code::Method { with_allow(response) } else { response }
    })
}

async fn respond(
    service: &Service,
    call: &Call,
    files: FilesPath,
    head: &Parts,
    mut body: Body,
) -> Result<Response, Fault> {
    let path = head.uri.path();
    let caller = Caller::of(call.clone(), &head.headers)?;
    let mut project_files = ProjectFiles::of(service, caller, files.project(path), peer(&head.extensions)).await?;
    let parameters = FileParameters::of(&head.uri)?;
    project_files.credential = Credential::of_signature(parameters.signature()?);
    let encoded = files.encoded(path);
    let request = FilesRequest {
        files: project_files,
        head,
        encoded: encoded.unwrap_or_default(),
        is_form_path: encoded.is_none(),
        parameters,
    };
    let answered = Box::pin(request.respond(&mut body)).await;
    if let Err(fault) = &answered {
        service.edge().log_refusal(&request.files.caller, fault);
        if !head.headers.contains_key(header::EXPECT) {
            // A client that is still sending when the connection closes never sees the answer.
            crate::http::body::discard(body, service.config().body_bytes).await;
        }
    }
    answered
}

fn with_allow(mut response: Response) -> Response {
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    response
}

impl FilesRequest<'_> {
    async fn respond(&self, body: &mut Body) -> Result<Response, Fault> {
        let op = self.parameters.get("op");
        match (&self.head.method, op) {
            (&Method::GET, Some("list")) => self.within_time(list::list(self)).await,
            (&Method::GET, Some("exist")) => self.within_time(list::exist(self)).await,
            (&Method::GET, Some("info")) => self.within_time(list::told_info(self)).await,
            // Words of other clients' downloads are not looked at.
            (&Method::GET, _) => Box::pin(download::get(self)).await,
            (&Method::HEAD, _) => self.within_time(download::head(self)).await,
            (&Method::PUT, _) => upload::put(self, body).await,
            (&Method::DELETE, _) => self.within_time(delete::delete(self)).await,
            // Copies may take longer than other requests.
            (&Method::POST, Some("copy")) => Box::pin(operate::copy(self, body, CopyKind::Copy)).await,
            (&Method::POST, Some("move")) => Box::pin(operate::copy(self, body, CopyKind::Move)).await,
            (&Method::POST, Some("delete")) => self.within_time(delete::delete_many(self, body)).await,
            (&Method::POST, Some("sign")) => self.within_time(sign::sign(self, body)).await,
            (&Method::POST, Some(other)) => {
                let hint = query::nearest(other, ["copy", "move", "delete", "sign"]);
                let hint = hint.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
                Err(error::bad_request(format!("invalid op {other}: expected copy, move, delete or sign{hint}")))
            }
            (&Method::POST, None) if self.is_form_path => Box::pin(form::post(self, body)).await,
            (method, _) => Err(Fault::new(Code::Method, format!("method {method} is not allowed here"))),
        }
    }

    /// Runs `work` within the time of a request: only streams of files take longer.
    fn within_time<'a, T: Send + 'a>(
        &'a self,
        work: impl Future<Output = Result<T, Fault>> + Send + 'a,
    ) -> impl Future<Output = Result<T, Fault>> + Send + 'a {
        self.files.within_time(work)
    }

    /// The bucket and the path that the address names.
    fn target(&self) -> Result<FileTarget, Fault> {
        FileTarget::of_address(&self.files.project, self.encoded)
    }

    /// The target as a file. Errors: it can only be a folder.
    fn file_target(&self) -> Result<FileTarget, Fault> {
        let target = self.target()?;
        match target.path.is_root() || FilePath::names_folder(self.encoded) {
            true => Err(error::bad_request(format!("{} is a folder", target.path))),
            false => Ok(target),
        }
    }

    fn bad_signature_use(&self) -> Result<(), Fault> {
        match self.files.credential {
            Credential::Signature(_) => {
                Err(Fault::new(Code::Denied, "the signature of an address is for GET, HEAD and PUT of its file"))
            }
            Credential::Token | Credential::AccessKey(_) => Ok(()),
        }
    }
}

/// What is told of a file that was written: `{path, size, etag, contentType}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    path: String,
    size: u64,
    etag: &'a str,
    content_type: &'a str,
}

/// The answer about a file that was written.
fn stored(target: &FileTarget, entry: Option<Entry>, created: bool) -> Result<Response, Fault> {
    let Some(entry) = entry else { return Err(Fault::internal("the file could not be stored", "no entry of a file")) };
    let told = Stored {
        path: target.path.to_string(),
        size: entry.size,
        etag: &entry.etag,
        content_type: &entry.content_type,
    };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer::json(status, json(&told));
    response.headers_mut().insert(header::ETAG, conditional::etag(&entry.etag)?);
    Ok(response)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers can always be written as JSON")
}

/// Milliseconds since the Unix epoch as clients are told them: RFC 3339.
fn moment(unix_ms: i64) -> String {
    datetime::written(|out| datetime::rfc3339(out, unix_ms.saturating_mul(1000)))
}

/// A fault of the storage service.
fn missing_part(what: &'static str) -> Fault {
    Fault::internal("the storage service gave an answer that cannot be read", what)
}

/// The precondition that the headers of a change of a file make.
fn precondition(request: &FilesRequest<'_>) -> Result<Option<Precondition>, Fault> {
    conditional::of_change(&request.head.headers)
}
