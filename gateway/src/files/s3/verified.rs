//! Signatures of requests, and what they must cover.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts};
use mesh::{Code, Fault};
use percent_encoding::percent_decode_str;
use s3s::{
    S3Request, S3Response, S3Result,
    auth::{S3Auth, SecretKey},
    route::S3Route,
    s3_error,
    service::S3ServiceBuilder,
};

use super::{
    S3Path,
    body::{CheckedBody, SharedBody, xml},
    chunks::Chunks,
    configured,
    fault::{self, invalid, not_implemented, with_code},
    operations::S3Operations,
};
use crate::{
    Service,
    catalogue::Project,
    edge::{Caller, Credential},
    files::{ProjectFiles, Streamed},
};

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
/// What it begins with where the body is in chunks.
const STREAMING: &[u8] = b"STREAMING-";
/// What is signed, in the `Authorization` header.
const SIGNED_HEADERS: &str = "SignedHeaders=";
/// What the names of headers of the protocol begin with.
const AMZ: &str = "x-amz-";
/// Most seconds for which an address may be signed.
const EXPIRES_MAX: u32 = 604_800;
/// Parameters of what is put about a file.
const ABOUT_FILES: [&str; 4] = ["acl", "legal-hold", "retention", "tagging"];
/// Parameters that sign an address.
const SIGNING: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
];

/// Refuses requests of forms that are not supported, whoever has signed them.
pub fn check_form(head: &Parts) -> Result<(), Fault> {
    let text = |name: HeaderName| {
        let value = head.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        String::from_utf8_lossy(value).to_ascii_lowercase()
    };
    let encodings = text(header::CONTENT_ENCODING);
    let is_known = |coding: &str| coding.is_empty() || coding == "aws-chunked" || coding == "identity";
    if let Some(other) = encodings.split(',').map(str::trim).find(|coding| !is_known(coding)) {
        return Err(not_implemented(&format!("content-encoding {other}")));
    }
    if head.method == Method::POST && text(header::CONTENT_TYPE).starts_with("multipart/form-data") {
        return Err(not_implemented("a form"));
    }
    Ok(())
}

/// The answer to a request that must be signed with an access key of the project.
pub async fn answer(
    service: &Service,
    (caller, project): (Caller, Option<Arc<Project>>),
    of: S3Path,
    head: Parts,
    body: SharedBody,
) -> Result<Response, Fault> {
    let verified = Verified { service: service.clone(), caller, project: project.clone(), of };
    let mut builder = configured(S3ServiceBuilder::new(S3Operations));
    builder.set_auth(AccessKeys(project));
    builder.set_route(SignedRoute(Arc::new(verified)));
    let sha256 = head.headers.get(CONTENT_SHA256).map(HeaderValue::as_bytes).unwrap_or_default();
    let body = match sha256.starts_with(STREAMING) {
        true => s3s::Body::http_body_unsync(Chunks::new(body)),
        false => s3s::Body::http_body_unsync(body),
    };
    let request = Request::from_parts(head, body);
    let first = builder.build();
    let answered = Box::pin(first.call(request)).await;
    let answered =
        answered.map_err(|cause| Fault::internal("the request could not be answered", format!("{cause:?}")))?;
    Ok(answered.map(Body::new))
}

/// The access keys of a project; none where it is not there.
struct AccessKeys(Option<Arc<Project>>);

#[tonic::async_trait]
impl S3Auth for AccessKeys {
    async fn get_secret_key(&self, id: &str) -> S3Result<SecretKey> {
        let key = self.0.iter().flat_map(|project| &project.spec.s3.keys).find(|key| key.id == id);
        let key = key.ok_or_else(|| s3_error!(InvalidAccessKeyId, "the access key is not known"))?;
        Ok(SecretKey::from(key.secret.as_str()))
    }
}

/// The only route of the first pass: whatever has a valid signature.
struct SignedRoute(Arc<Verified>);

/// A request on its way to its operation.
struct Verified {
    service: Service,
    caller: Caller,
    project: Option<Arc<Project>>,
    of: S3Path,
}

#[tonic::async_trait]
impl S3Route for SignedRoute {
    fn is_match(&self, _: &Method, _: &Uri, _: &HeaderMap, _: &mut http::Extensions) -> bool {
        true
    }

    async fn call(&self, request: S3Request<s3s::Body>) -> S3Result<S3Response<s3s::Body>> {
        Box::pin(self.0.answer(request)).await
    }
}

impl Verified {
    async fn answer(&self, signed: S3Request<s3s::Body>) -> S3Result<S3Response<s3s::Body>> {
        let files = self.files(&signed).map_err(fault::error_of)?;
        let request = self.operation(signed, &files).await.map_err(fault::error_of)?;
        let second = configured(S3ServiceBuilder::new(S3Operations)).build();
        let response = Box::pin(second.call(request)).await;
        let response = response.map_err(|cause| {
            fault::error_of(Fault::internal("the request could not be answered", format!("{cause:?}")))
        })?;
        let (mut head, body) = response.into_parts();
        if head.headers.contains_key(header::CONTENT_RANGE) && head.status == StatusCode::OK {
            // The library tells it of bodies only.
            head.status = StatusCode::PARTIAL_CONTENT;
        }
        let mut answer = S3Response::with_status(body, head.status);
        answer.headers = head.headers;
        if let Some(streamed) = head.extensions.get::<Streamed>() {
            answer.extensions.insert(*streamed);
        }
        Ok(answer)
    }

    /// The files of the project for the key that has signed the request. Errors: something is not signed that must be.
    fn files(&self, signed: &S3Request<s3s::Body>) -> Result<Arc<ProjectFiles>, Fault> {
        let is_of_s3 = signed.service.as_deref() == Some("s3") && signed.region.is_some();
        // Signatures of other versions have no region.
        let credentials = signed.credentials.as_ref().filter(|_| is_of_s3);
        let Some((credentials, project)) = credentials.zip(self.project.clone()) else {
            return Err(invalid("InvalidRequest", "only Signature Version 4 of the service s3 is supported"));
        };
        check_signed(&signed.headers, &signed.uri)?;
        Ok(Arc::new(ProjectFiles {
            service: self.service.clone(),
            caller: self.caller.clone(),
            project,
            credential: Credential::AccessKey(credentials.access_key.clone()),
            peer: None,
            counted: std::sync::Mutex::default(),
        }))
    }

    /// The request below the project, without what has signed it.
    async fn operation(
        &self,
        signed: S3Request<s3s::Body>,
        files: &Arc<ProjectFiles>,
    ) -> Result<Request<s3s::Body>, Fault> {
        let S3Request { input, method, uri, mut headers, trailing_headers, .. } = signed;
        let below = self.of.below(uri.path());
        let query = unsigned(uri.query().unwrap_or_default());
        let body = match method {
            Method::POST | Method::PUT => {
                let body = CheckedBody::new(input, &headers, trailing_headers)?;
                match method == Method::POST || has_xml(below, &query) {
                    true => files.within_time(xml(body)).await?.into(),
                    false => s3s::Body::http_body_unsync(body),
                }
            }
            _ => s3s::Body::empty(),
        };
        headers.remove(header::AUTHORIZATION);
        headers.remove(CONTENT_SHA256);
        let mut request = Request::new(body);
        *request.uri_mut() =
            format!("{below}?{query}").parse().map_err(|_| invalid("InvalidURI", "invalid address"))?;
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        request.extensions_mut().insert(files.clone());
        Ok(request)
    }
}

/// The decoded name of a parameter of an address.
fn name(pair: &str) -> String {
    percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy().into_owned()
}

/// The parameters of an address without those that sign it.
fn unsigned(query: &str) -> String {
    let pairs: Vec<&str> = query.split('&').filter(|pair| !SIGNING.contains(&name(pair).as_str())).collect();
    pairs.join("&")
}

/// Whether what is put is no file and no part, but XML about a bucket or a file.
fn has_xml(below: &str, query: &str) -> bool {
    let below = percent_decode_str(below).decode_utf8_lossy();
    let has_key = below.trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
    !has_key || query.split('&').any(|pair| ABOUT_FILES.contains(&name(pair).as_str()))
}

/// Refuses what is not covered by a valid signature: else who sees a request could change what it asks for.
fn check_signed(headers: &HeaderMap, uri: &Uri) -> Result<(), Fault> {
    let parameter = |wanted: &str| {
        let pair = uri.query().unwrap_or_default().split('&').find(|pair| name(pair) == wanted)?;
        let (_, value) = pair.split_once('=')?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let signed = match parameter("X-Amz-SignedHeaders") {
        Some(_) if headers.contains_key(header::AUTHORIZATION) => {
            let message = "a request is signed by its address or by its header, not by both";
            return Err(invalid("InvalidArgument", message));
        }
        Some(signed) => signed,
        None => {
            let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let (_, list) = text.split_once(SIGNED_HEADERS).unwrap_or_default();
            list.split(',').next().unwrap_or_default().trim().to_owned()
        }
    };
    let denied = |message: String| with_code("AccessDenied", Fault::new(Code::Denied, message));
    let is_signed = |name: &str| signed.split(';').any(|signed| signed.eq_ignore_ascii_case(name));
    if !is_signed(header::HOST.as_str()) {
        return Err(denied("the header host must be signed".to_owned()));
    }
    // The hash of the body is signed in its own place.
    let mut own = headers.iter().filter(|(name, _)| name.as_str().starts_with(AMZ) && *name != CONTENT_SHA256);
    // Signatures leave out values that are no text.
    let is_covered = |name: &str, value: &HeaderValue| is_signed(name) && std::str::from_utf8(value.as_bytes()).is_ok();
    if let Some((other, _)) = own.find(|(name, value)| !is_covered(name.as_str(), value)) {
        return Err(denied(format!("the header {other} was sent and not signed")));
    }
    match parameter("X-Amz-Expires").map(|text| text.parse::<u32>()) {
        None => Ok(()),
        Some(Ok(1..=EXPIRES_MAX)) => Ok(()),
        Some(_) => Err(invalid(
            "AuthorizationQueryParametersError",
            format!("invalid X-Amz-Expires: expected 1 to {EXPIRES_MAX} seconds"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(authorization: &str, own: &[&'static str], query: &str) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).expect("it is legal"));
        }
        headers.extend(own.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x"))));
        let uri: Uri = format!("/s3/shop/files/a?{query}").parse().expect("the test sends a legal address");
        check_signed(&headers, &uri).map_err(|fault| fault.detail("s3").unwrap_or_default().to_owned())
    }

    #[test]
    fn headers_of_the_protocol_must_be_signed() {
        let header = |signed: &str| format!("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders={signed}, Signature=c");
        let denied = Err("AccessDenied".to_owned());
        assert_eq!(checked(&header("host;x-amz-date"), &["x-amz-date", "x-amz-content-sha256", "range"], ""), Ok(()));
        assert_eq!(checked(&header("host"), &["x-amz-copy-source"], ""), denied);
        assert_eq!(checked(&header("x-amz-date"), &[], ""), denied);
        let presigned = |signed: &str, expires: &str| format!("X-Amz-SignedHeaders={signed}&X-Amz-Expires={expires}");
        assert_eq!(checked("", &[], &presigned("host", "604800")), Ok(()));
        assert_eq!(checked("", &["x-amz-meta-a"], &presigned("host%3Bx-amz-meta-a", "1")), Ok(()));
        assert_eq!(checked("", &["x-amz-meta-a"], &presigned("host", "1")), denied);
        for expires in ["0", "604801", "x", ""] {
            let found = checked("", &[], &presigned("host", expires));
            assert_eq!(found, Err("AuthorizationQueryParametersError".to_owned()), "{expires}");
        }
    }

    #[test]
    fn a_form_is_refused_however_its_type_is_written() {
        for content_type in
            ["multipart/form-data; boundary=x", "Multipart/FORM-Data; boundary=x", "multipart/form-data; a=\u{e9}"]
        {
            let value = HeaderValue::from_bytes(content_type.as_bytes()).expect("it is legal");
            let request = Request::post("/s3/shop/files").header(header::CONTENT_TYPE, value).body(());
            let (head, ()) = request.expect("the test sends a legal request").into_parts();
            let refused = check_form(&head).map_err(|fault| fault.detail("s3").unwrap_or_default().to_owned());
            assert_eq!(refused, Err("NotImplemented".to_owned()), "{content_type}");
        }
    }

    #[test]
    fn what_is_put_about_buckets_and_files_is_xml() {
        for (below, query) in [("/", ""), ("/files", "versioning"), ("/files/", ""), ("/files/a", "x=1&t%61gging")] {
            assert!(has_xml(below, query), "{below} {query}");
        }
        for (below, query) in [("/files/a", ""), ("/files%2Fa", ""), ("/files/acl", "partNumber=1&uploadId=acl")] {
            assert!(!has_xml(below, query), "{below} {query}");
        }
    }

    #[test]
    fn what_has_signed_an_address_is_left_out() {
        assert_eq!(unsigned("list-type=2&X-Amz-Signature=a&prefix=b%2F&X%2DAmz-Date=c"), "list-type=2&prefix=b%2F");
        assert_eq!(unsigned(""), "");
    }
}
