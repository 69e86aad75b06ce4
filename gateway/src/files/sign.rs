//! Signed addresses: whoever has one may read or write its file until it expires.

use axum::{body::Body, response::Response};
use http::StatusCode;
use mesh::Fault;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proto::auth::FileAccess;
use query::file::FileOperation;
use serde::{Deserialize, Serialize};

use super::{
    FileTarget, FilesRequest, ProjectFiles, delete::parsed, json, missing_part, moment, project_files::access,
};
use crate::{
    catalogue::Project,
    http::{API_PREFIX, answer},
};

/// What a segment of an address may have as it is. Source: RFC 3986, section 2.3.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignRequest {
    method: SignedMethod,
    /// Seconds.
    expires: u32,
}

/// What a signed address is for.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum SignedMethod {
    /// And HEAD.
    Get,
    /// With any body.
    Put,
}

#[derive(Serialize)]
struct Signed {
    url: String,
    expires: String,
}

/// `POST ?op=sign`
pub async fn sign(request: &FilesRequest<'_>, body: &mut Body) -> Result<Response, Fault> {
    request.bad_signature_use()?;
    let target = request.file_target()?;
    let SignRequest { method, expires } = parsed(request, body).await?;
    let (url, expires_s) = signed_address(&request.files, &target, method, expires).await?;
    Ok(answer::json(StatusCode::OK, json(&Signed { url, expires: moment(expires_s.saturating_mul(1000)) })))
}

/// A signed address that is good for so many seconds, and the second since the Unix epoch from which it is void.
pub(crate) async fn signed_address(
    files: &ProjectFiles,
    target: &FileTarget,
    method: SignedMethod,
    seconds: u32,
) -> Result<(String, i64), Fault> {
    let access = match method {
        SignedMethod::Get => access(target, FileOperation::Read),
        // Whoever writes it decides how large it is.
        SignedMethod::Put => FileAccess { no_size: false, ..access(target, FileOperation::Create) },
    };
    let signature = files.service.edge().sign_file(&files.caller, &files.project, access, seconds).await?;
    let signature = signature.ok_or_else(|| missing_part("no signature of a file"))?;
    let expires_s = signature.expires_s;
    let segments = addressed(&files.project, target);
    let path: String = segments.map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT))).collect();
    let (project, signature) = (&files.project.id, &signature.signature);
    Ok((format!("{API_PREFIX}{project}/files{path}?expires={expires_s}&signature={signature}"), expires_s))
}

/// The segments of the address of a target: the bucket's id where it is not the default one.
fn addressed<'t>(project: &Project, target: &'t FileTarget) -> impl Iterator<Item = &'t str> {
    let default = project.default_bucket().map(|bucket| bucket.id.as_str());
    let id = (default != Some(target.bucket.id.as_str())).then_some(target.bucket.id.as_str());
    id.into_iter().chain(target.path.segments())
}
