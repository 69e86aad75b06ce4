//! Cross-origin resource sharing. Source: Fetch standard, "CORS protocol".

use std::sync::{Arc, OnceLock};

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};

const ALLOWED_METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
const ALLOWED_HEADERS: [&str; 23] = [
    "authorization",
    "content-type",
    "accept",
    "origin",
    "x-request-id",
    "idempotency-key",
    "traceparent",
    "grpc-timeout",
    "x-grpc-web",
    "x-user-agent",
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    "x-meta",
    "tus-resumable",
    "upload-length",
    "upload-offset",
    "upload-metadata",
    "upload-checksum",
    "x-http-method-override",
];
const EXPOSED_HEADERS: &str = "Authorization, Content-Type, X-Request-Id, X-Perigee-Truncated, ETag, Accept-Ranges, Content-Range, Content-Disposition, Content-Length, Last-Modified, Location, X-Meta, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Checksum-Algorithm, Upload-Offset, Upload-Length, Upload-Metadata, Upload-Expires, Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin";

/// The project of a request whose path does not name one.
///
/// gRPC names it in the message: its handler sets it, and the front reads it for the CORS headers of the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestedProject(Arc<OnceLock<String>>);

impl RequestedProject {
    /// Records that the request is for `project`; the first record counts.
    pub(crate) fn set(&self, project: &str) {
        self.0.get_or_init(|| project.to_owned());
    }

    /// The project, once it is known.
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// CORS permissions of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The origin is listed: it may send credentials.
    Listed,
    /// Any origin may read, without credentials.
    Open,
    /// No page of that origin may read it.
    None,
}

/// The permissions of `origin` by the list of allowed origins.
pub fn access(origins: &[String], origin: &HeaderValue) -> Access {
    let is_listed = origins.iter().any(|known| known != "*" && known.as_bytes() == origin.as_bytes());
    match is_listed {
        true => Access::Listed,
        false if origins.iter().any(|known| known == "*") => Access::Open,
        false => Access::None,
    }
}

/// Whether `origin` is a page that this machine serves: a loopback host of HTTP or HTTPS, with any port.
pub fn is_local_page(origin: &HeaderValue) -> bool {
    let Some((scheme, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let is_local = |host: &str| ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_local_authority =
        is_local(authority) || authority.rsplit_once(':').is_some_and(|(host, port)| is_local(host) && is_port(port));
    ["http", "https"].contains(&scheme) && is_local_authority
}

/// Writes what `origin` may do into the headers of an answer.
pub fn write_headers(headers: &mut HeaderMap, access: Access, origin: HeaderValue) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    match access {
        Access::None => return,
        Access::Open => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Access::Listed => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
}

/// The method that a preflight asks for; `None` for any other request.
pub fn preflight(request: &Request<Body>) -> Option<&HeaderValue> {
    if request.method() != Method::OPTIONS || !request.headers().contains_key(header::ORIGIN) {
        return None;
    }
    request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight that asks for `method` and the headers it names.
pub fn preflight_response(method: &HeaderValue, request: &HeaderMap, access: Access, origin: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    let wanted = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let is_known =
        ALLOWED_METHODS.iter().any(|known| known.as_str().as_bytes() == method.as_bytes()) && are_known(wanted);
    write_headers(headers, if is_known { access } else { Access::None }, origin);
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Method"));
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    if is_known && access != Access::None {
        headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        if let Some(wanted) = wanted {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
    response
}

fn are_known(wanted: Option<&HeaderValue>) -> bool {
    let Some(wanted) = wanted else { return true };
    let Ok(wanted) = wanted.to_str() else { return false };
    let mut names = wanted.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.all(|name| ALLOWED_HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Vec<String> {
        list.iter().map(|origin| (*origin).to_owned()).collect()
    }

    #[test]
    fn a_listed_origin_wins_over_any() {
        let page = HeaderValue::from_static("http://a.test");
        assert_eq!(access(&origins(&["*", "http://a.test"]), &page), Access::Listed);
        assert_eq!(access(&origins(&["*"]), &page), Access::Open);
        assert_eq!(access(&origins(&["http://a.test:80", "http://A.test"]), &page), Access::None);
        assert_eq!(access(&[], &page), Access::None);
    }

    #[test]
    fn pages_of_this_machine_are_told_by_their_host() {
        for page in
            ["http://localhost:5173", "http://127.0.0.1:1", "http://[::1]:80", "http://localhost", "https://[::1]"]
        {
            assert!(is_local_page(&HeaderValue::from_static(page)), "{page}");
        }
        for page in [
            "null",
            "*",
            "",
            "http://localhost:",
            "http://localhost:80.evil.test",
            "http://localhost.evil.test",
            "http://evil.test:80",
            "http://evil.test/localhost",
            "http://a@localhost:1",
            "http://127.0.0.1.evil.test:80",
            "http://192.168.1.1:80",
            "file://localhost",
        ] {
            assert!(!is_local_page(&HeaderValue::from_static(page)), "{page}");
        }
    }

    #[test]
    fn the_star_is_no_origin() {
        assert_eq!(access(&origins(&["*"]), &HeaderValue::from_static("*")), Access::Open);
    }

    #[test]
    fn an_open_answer_never_allows_credentials() {
        let mut headers = HeaderMap::new();
        write_headers(&mut headers, Access::Open, HeaderValue::from_static("http://a.test"));
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn a_preflight_for_an_unknown_header_is_not_allowed() {
        let mut request = HeaderMap::new();
        let page = HeaderValue::from_static("http://a.test");
        let post = HeaderValue::from_static("POST");
        request.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("Content-Type, authorization"));
        let response = preflight_response(&post, &request, Access::Listed, page.clone());
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "Content-Type, authorization");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], "POST");
        request.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-custom"));
        let response = preflight_response(&post, &request, Access::Listed, page);
        assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}
