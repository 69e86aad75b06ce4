//! Signed addresses: whoever has one may read or write its file until it expires.

use axum::{body::Body, response::Response};
use http::StatusCode;
use mesh::Fault;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proto::auth::FileAccess;
use query::file::FileOperation;
use serde::{Deserialize, Serialize};

use super::{FilesRequest, access, delete::parsed, json, missing_part, moment};
use crate::http::{API_PREFIX, answer};

/// What a segment of an address may have as it is. Source: RFC 3986, section 2.3.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignRequest {
    method: SignedMethod,
    /// Seconds.
    expires: u32,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "UPPERCASE")]
enum SignedMethod {
    Get,
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
    let access = match method {
        SignedMethod::Get => access(&target, FileOperation::Read),
        // Whoever writes it decides how large it is.
        SignedMethod::Put => FileAccess { no_size: false, ..access(&target, FileOperation::Create) },
    };
    let edge = request.service.edge();
    let signature = edge.sign_file(&request.caller, &request.project, access, expires).await?;
    let signature = signature.ok_or_else(|| missing_part("no signature of a file"))?;
    let expires_s = signature.expires_s;
    let path: String =
        request.addressed(&target).map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT))).collect();
    let (project, signature) = (&request.project.id, &signature.signature);
    let url = format!("{API_PREFIX}{project}/files{path}?expires={expires_s}&signature={signature}");
    Ok(answer::json(StatusCode::OK, json(&Signed { url, expires: moment(expires_s.saturating_mul(1000)) })))
}

impl FilesRequest<'_> {
    /// The segments of the address of a target: the bucket's id where it is not the default one.
    fn addressed<'t>(&self, target: &'t super::FileTarget) -> impl Iterator<Item = &'t str> {
        let default = self.project.default_bucket().map(|bucket| bucket.id.as_str());
        let id = (default != Some(target.bucket.id.as_str())).then_some(target.bucket.id.as_str());
        id.into_iter().chain(target.path.segments())
    }
}
