//! GraphiQL: the page that a browser gets at the GraphQL endpoint of a project that shows its schema.
//!
//! Its files are embedded: the page loads nothing from another host.

use std::io::Read;

use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use mesh::Fault;

use crate::{
    Service,
    catalogue::Project,
    http::{answer, current},
    pages,
};

const PAGE: &str = include_str!("../../graphiql/page.html");
const START: &str = include_str!("../../graphiql/start.html");
/// What the page may do: scripts of this server alone, requests to it alone. GraphiQL's editor writes styles.
const CONTENT_SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    connect-src 'self'; img-src 'self' data:; font-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
/// Files are named with the version, so that a new one is another file.
const FILE_CACHE: &str = "public, max-age=86400";

/// A file of the page.
struct PageFile {
    name: &'static str,
    media: &'static str,
    content: FileContent,
}

enum FileContent {
    Gzip(&'static [u8]),
    Plain(&'static str),
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [PageFile; 5] = [
    PageFile {
        name: "graphiql.js",
        media: SCRIPT,
        content: FileContent::Gzip(include_bytes!("../../graphiql/graphiql.js.gz")),
    },
    PageFile {
        name: "graphiql.css",
        media: "text/css; charset=utf-8",
        content: FileContent::Gzip(include_bytes!("../../graphiql/graphiql.css.gz")),
    },
    PageFile {
        name: "react.js",
        media: SCRIPT,
        content: FileContent::Gzip(include_bytes!("../../graphiql/react.js.gz")),
    },
    PageFile {
        name: "react-dom.js",
        media: SCRIPT,
        content: FileContent::Gzip(include_bytes!("../../graphiql/react-dom.js.gz")),
    },
    PageFile { name: "start.js", media: SCRIPT, content: FileContent::Plain(include_str!("../../graphiql/start.js")) },
];

/// The page, if a browser asks for one and the project shows its schema.
pub fn page(service: &Service, project: &Project, headers: &HeaderMap) -> Option<Response> {
    if !accepts_html(headers) || !service.config().publishes(&project.spec) {
        return None;
    }
    Some(html(PAGE.replace("VERSION", env!("CARGO_PKG_VERSION"))))
}

/// A file of the page.
pub async fn file(
    State(service): State<Service>,
    Path((project, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    let project = service.edge().settings(&project);
    let is_published = project.is_some_and(|project| service.config().publishes(&project.spec));
    match FILES.iter().find(|file| is_published && file.name == name) {
        Some(file) => file.answer(request.headers()).await,
        None => answer::unknown_path(request).await,
    }
}

/// The first page of a node that shows schemas without being told to: it leads to GraphiQL.
pub async fn start(State(service): State<Service>, request: Request) -> Response {
    if !service.config().introspection {
        return answer::unknown_path(request).await;
    }
    let mut projects = String::new();
    for project in service.edge().projects().iter().filter(|project| service.config().publishes(&project.spec)) {
        // Ids have neither quotes nor angle brackets.
        let id = &project.id;
        projects.push_str(&format!("      <li><a href=\"v1/api/{id}/graphql\">{id}</a></li>\n"));
    }
    // No id has the angle bracket of the second mark.
    html(START.replace("PROJECTS", &projects).replace("<!-- pages -->\n", &page_links(&service).await))
}

/// Links to the pages beside the resources.
async fn page_links(service: &Service) -> String {
    let Some(folder) = service.config().pages.clone() else { return String::new() };
    let names = match tokio::task::spawn_blocking(move || pages::names(&folder)).await {
        Ok(Ok(names)) if !names.is_empty() => names,
        _ => return String::new(),
    };
    let links: Vec<String> =
        names.iter().map(|name| format!("      <li><a href=\"{name}\">{name}</a></li>\n")).collect();
    format!("    <p>Pages beside the resources:</p>\n    <ul>\n{}    </ul>\n", links.concat())
}

impl PageFile {
    async fn answer(&self, headers: &HeaderMap) -> Response {
        let plain = match self.content {
            FileContent::Plain(text) => text.as_bytes().to_vec(),
            FileContent::Gzip(bytes) if accepts_gzip(headers) => {
                let mut response = self.headed(bytes.to_vec());
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                return response;
            }
            FileContent::Gzip(bytes) => {
                let unpack = tokio::task::spawn_blocking(move || {
                    let mut plain = Vec::new();
                    GzDecoder::new(bytes).read_to_end(&mut plain).map(|_| plain)
                });
                match unpack.await {
                    Ok(Ok(plain)) => plain,
                    Ok(Err(error)) => return answer::fault(&Fault::internal("invalid file", error), &current()),
                    Err(panic) => return answer::fault(&Fault::internal("invalid file", panic), &current()),
                }
            }
        };
        self.headed(plain)
    }

    fn headed(&self, content: Vec<u8>) -> Response {
        let mut response = answer::of_type(HeaderValue::from_static(self.media), StatusCode::OK, content);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(FILE_CACHE));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

fn html(text: String) -> Response {
    let mut response = answer::page(text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn accepts_html(headers: &HeaderMap) -> bool {
    lists(headers, &header::ACCEPT, "text/html")
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    lists(headers, &header::ACCEPT_ENCODING, "gzip")
}

/// Whether a header lists `value` other than to refuse it.
fn lists(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|listed| listed.eq_ignore_ascii_case(value));
        let is_refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        is_named && !is_refused
    })
}
