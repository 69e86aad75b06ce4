//! An S3 server in the test's process, over a folder.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use http::{Extensions, HeaderMap, Method, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::{Body, S3Request, S3Response, S3Result, auth::SimpleAuth, route::S3Route, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::{net::TcpListener, task::JoinHandle};

/// Id and secret of the only key.
pub const KEY: (&str, &str) = ("tests", "a-secret-of-the-tests");
/// The only bucket.
pub const BUCKET: &str = "bucket";

/// A running server; it ends when dropped.
pub struct S3 {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl S3 {
    /// Serves the buckets that are folders in `folder`.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder.join(BUCKET))?;
        let files =
            FileSystem::new(folder).map_err(|error| anyhow::anyhow!("{error:?}")).context("a folder to serve")?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY.0, KEY.1));
        builder.set_route(NoFolders(folder.to_owned()));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // What a client breaks off is its own affair.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Self { address, serving })
    }

    /// `backend` of a bucket resource whose objects are below `prefix`.
    pub fn backend(&self, prefix: &str) -> String {
        format!(
            "{{ kind: s3, bucket: {BUCKET}, endpoint: \"http://{}\", accessKey: {}, secretKey: {}, pathStyle: true, \
             prefix: \"{prefix}\" }}",
            self.address, KEY.0, KEY.1
        )
    }
}

/// Answers that there is no object where the folder that is served has a folder: a store has none of these.
struct NoFolders(PathBuf);

#[tonic::async_trait]
impl S3Route for NoFolders {
    fn is_match(&self, method: &Method, uri: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        let key = uri.path().trim_matches('/');
        *method == Method::HEAD && key.contains('/') && self.0.join(key).is_dir()
    }

    async fn check_access(&self, _: &mut S3Request<Body>) -> S3Result<()> {
        Ok(())
    }

    async fn call(&self, _: S3Request<Body>) -> S3Result<S3Response<Body>> {
        Err(s3s::s3_error!(NoSuchKey))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
