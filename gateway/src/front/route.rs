//! The protocol and the route of a request, and the metrics of each.

use http::{HeaderValue, Method, header, request::Parts};
use mesh::telemetry::{HttpMeter, Metrics};

use crate::{
    files::{FilesPath, S3Path, UploadsPath},
    graphql::PostedDocument,
    http::{API_PREFIX, ContentType, HeaderSummary},
    rest::PostedTable,
};

/// Wire protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP with JSON.
    Web,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
}

impl Protocol {
    /// Routes by method and content type.
    pub fn of<B>(request: &http::Request<B>, summary: HeaderSummary) -> Self {
        if request.method() != Method::POST || summary.content != ContentType::Grpc {
            return Protocol::Web;
        }
        match request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default() {
            b"application/grpc-web"
            | b"application/grpc-web+proto"
            | b"application/grpc-web-text"
            | b"application/grpc-web-text+proto" => Protocol::GrpcWeb,
            _ => Protocol::Grpc,
        }
    }
}

/// Kind of route, by path and content type: decides on metrics, load shedding and the format of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The GraphQL endpoint of a project.
    Graphql,
    /// Files of a project.
    Files,
    /// Files of a project by the S3 protocol.
    S3,
    /// Any other path of a project.
    Rest,
    /// gRPC but for its health check.
    Grpc,
    /// The health check of gRPC.
    GrpcHealth,
    /// gRPC-Web.
    GrpcWeb,
    /// Health and metrics of the node, and unknown paths.
    Node,
}

impl Route {
    /// The route of `path`.
    pub fn of(protocol: Protocol, path: &str) -> Self {
        match protocol {
            Protocol::Grpc if path.starts_with("/grpc.health.v1.Health/") => Route::GrpcHealth,
            Protocol::Grpc => Route::Grpc,
            Protocol::GrpcWeb => Route::GrpcWeb,
            Protocol::Web if S3Path::of(path).is_some() => Route::S3,
            Protocol::Web if project(path).is_none() => Route::Node,
            Protocol::Web if path.ends_with("/graphql") || path.ends_with("/graphql/socket") => Route::Graphql,
            Protocol::Web => Route::Rest,
        }
    }

    /// Whether it takes part in load shedding. Health checks have to be answered under overload too.
    pub fn is_shed(self) -> bool {
        !matches!(self, Route::GrpcHealth | Route::Node)
    }
}

/// Request metrics of each protocol.
pub struct Meters {
    graphql: HttpMeter,
    files: HttpMeter,
    s3: HttpMeter,
    rest: HttpMeter,
    grpc: HttpMeter,
    grpc_web: HttpMeter,
    node: HttpMeter,
}

impl Meters {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            graphql: metrics.http("graphql"),
            files: metrics.http("files"),
            s3: metrics.http("s3"),
            rest: metrics.http("rest"),
            grpc: metrics.http("grpc"),
            grpc_web: metrics.http("grpc-web"),
            node: metrics.http("node"),
        }
    }

    /// The metrics of `route`.
    pub fn of(&self, route: Route) -> &HttpMeter {
        match route {
            Route::Graphql => &self.graphql,
            Route::Files => &self.files,
            Route::S3 => &self.s3,
            Route::Rest => &self.rest,
            Route::Grpc | Route::GrpcHealth => &self.grpc,
            Route::GrpcWeb => &self.grpc_web,
            Route::Node => &self.node,
        }
    }
}

/// The project that a path is for.
pub fn project(path: &str) -> Option<&str> {
    if let Some(s3) = S3Path::of(path) {
        return Some(s3.project(path));
    }
    let rest = path.strip_prefix(API_PREFIX)?;
    // Ids are short: a search made for long texts takes longer than looking at each byte.
    let end = rest.bytes().position(|byte| byte == b'/')?;
    Some(&rest[..end])
}

/// The handler of a request that bypasses the router.
///
/// Nearly all requests are a POST whose path needs no decoding: the router would cost them some microseconds. Paths of
/// files are not cleaned before they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// A document.
    Graphql(PostedDocument),
    /// An operation on the rows of a table.
    Table(PostedTable),
    /// A file, or a folder of files.
    Files(FilesPath),
    /// A resumable upload of a file.
    Upload(UploadsPath),
    /// A request of the S3 protocol.
    S3(S3Path),
}

impl Handler {
    /// The handler of a request with this `head`; `None` where the router has to find it.
    pub fn of(head: &Parts) -> Option<Self> {
        let path = head.uri.path();
        if head.method != Method::POST {
            return Self::of_files(path);
        }
        // `graphql` ends with this letter, and no operation on rows does.
        let posted = match path.as_bytes().last() {
            Some(b'l') => PostedDocument::of(path).map(Handler::Graphql),
            _ => PostedTable::of(path).map(Handler::Table),
        };
        posted.or_else(|| Self::of_files(path))
    }

    fn of_files(path: &str) -> Option<Self> {
        let files = FilesPath::of(path).map(Handler::Files);
        let files = files.or_else(|| UploadsPath::of(path).map(Handler::Upload));
        files.or_else(|| S3Path::of(path).map(Handler::S3))
    }

    /// The project's id in `path`, of which this handler was made.
    pub fn project(self, path: &str) -> &str {
        match self {
            Handler::Graphql(posted) => posted.project(path),
            Handler::Table(posted) => posted.project(path),
            Handler::Files(files) => files.project(path),
            Handler::Upload(uploads) => uploads.project(path),
            Handler::S3(s3) => s3.project(path),
        }
    }

    /// Its kind of route.
    pub fn route(self) -> Route {
        match self {
            Handler::Graphql(_) => Route::Graphql,
            Handler::Table(_) => Route::Rest,
            Handler::Files(_) | Handler::Upload(_) => Route::Files,
            Handler::S3(_) => Route::S3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{front::path, plan::TableRef};

    /// Paths of up to five segments after the prefix.
    fn paths() -> Vec<String> {
        let segments = ["shop", "crud", "batch", "graphql", "read", "%72ead", "a.b", ""];
        let mut paths = vec!["/v1/api".to_owned()];
        let mut from = 0;
        for _ in 0..5 {
            let longer = paths[from..].iter().flat_map(|path| segments.map(|segment| format!("{path}/{segment}")));
            let longer: Vec<_> = longer.collect();
            from = paths.len();
            paths.extend(longer);
        }
        paths
    }

    fn head(method: Method, path: &str) -> Parts {
        http::Request::builder().method(method).uri(path).body(()).expect("the test sends legal paths").into_parts().0
    }

    fn names(handler: Handler, path: &str) -> Vec<&str> {
        match handler {
            Handler::Graphql(posted) => vec![posted.project(path)],
            Handler::Table(posted) => {
                let TableRef { project, database, table } = posted.table_ref(path);
                vec![project, database, table]
            }
            Handler::Files(files) => vec![files.project(path)],
            Handler::Upload(uploads) => vec![uploads.project(path)],
            Handler::S3(s3) => vec![s3.project(path)],
        }
    }

    #[test]
    fn what_bypasses_the_router_is_what_the_router_would_find() {
        let (mut documents, mut tables) = (0, 0);
        for path in paths() {
            let head = head(Method::POST, &path);
            let segments: Vec<&str> = path.split('/').skip(3).collect();
            let plain = |segments: &[&str]| segments.iter().all(|name| !name.is_empty() && !name.contains(['%', '.']));
            let expected = match *segments.as_slice() {
                [project, "graphql"] if plain(&[project]) => Some((Route::Graphql, vec![project])),
                [project, "crud", database, table, "read"] if plain(&[project, database, table]) => {
                    Some((Route::Rest, vec![project, database, table]))
                }
                _ => None,
            };

            let handler = Handler::of(&head);

            let found = handler.map(|handler| (handler.route(), names(handler, &path)));
            assert_eq!(found, expected, "{path}");
            let Some(handler) = handler else { continue };
            assert_eq!(path::clean(&head.uri), Ok(None), "{path}");
            assert_eq!(Route::of(Protocol::Web, &path), handler.route(), "{path}");
            match handler {
                Handler::Graphql(_) => documents += 1,
                Handler::Table(_) => tables += 1,
                Handler::Files(_) | Handler::Upload(_) | Handler::S3(_) => unreachable!("no path is of files"),
            }
        }
        assert_eq!((documents, tables), (5, 125));
    }

    #[test]
    fn files_bypass_the_router_by_every_method() {
        for path in [
            "/v1/api/shop/files",
            "/v1/api/shop/files/",
            "/v1/api/shop/files//a/../b%2F",
            "/v1/api/shop/files/graphql",
            "/v1/api/shop/uploads",
            "/v1/api/shop/uploads/x",
        ] {
            for method in
                [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::POST, Method::DELETE, Method::PATCH]
            {
                let handler = Handler::of(&head(method.clone(), path)).unwrap_or_else(|| panic!("{method} {path}"));
                assert_eq!((handler.route(), handler.project(path)), (Route::Files, "shop"), "{method} {path}");
            }
        }
        for (path, method) in [("/s3/shop", Method::GET), ("/s3/shop/files/a//../b%2F", Method::PUT)] {
            let handler = Handler::of(&head(method.clone(), path)).unwrap_or_else(|| panic!("{method} {path}"));
            assert_eq!((handler.route(), handler.project(path)), (Route::S3, "shop"), "{method} {path}");
        }
        for path in [
            "/s3/sh%6Fp/files",
            "/v1/api/shop/filesX",
            "/v1/api/shop/file",
            "/v1/api//files",
            "/v1/api/sh%6Fp/files",
            "/v1/apis/shop/files",
        ] {
            assert_eq!(Handler::of(&head(Method::GET, path)), None, "{path}");
        }
    }

    #[test]
    fn only_a_post_bypasses_the_router() {
        for path in ["/v1/api/shop/graphql", "/v1/api/shop/crud/music/track/read"] {
            assert!(Handler::of(&head(Method::POST, path)).is_some(), "{path}");
            for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
                assert_eq!(Handler::of(&head(method.clone(), path)), None, "{method} {path}");
            }
        }
    }
}
