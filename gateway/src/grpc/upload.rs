//! Uploads that are whole: a client that leaves in the middle has not come to the end of its file.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{body::Body, extract::Request};
use futures::{Stream, StreamExt, stream};
use http::Extensions;
use http_body_util::BodyExt;
use mesh::Fault;

use crate::error;

/// Paths whose messages are of one file.
const UPLOADS: [&str; 2] = ["/perigee.api.v1.Files/Put", "/proto.SpaceCloud/UploadFile"];

/// Whether the body of an upload broke off, which tonic takes for its end where a client cancels.
#[derive(Debug, Clone, Default)]
pub struct UploadEnd(Arc<AtomicBool>);

/// Whether `path` is of uploads.
pub fn is_upload(path: &str) -> bool {
    UPLOADS.contains(&path)
}

/// An upload whose end is watched.
pub fn watched(mut request: Request) -> Request {
    let end = UploadEnd::default();
    request.extensions_mut().insert(end.clone());
    request.map(|body| {
        Body::new(body.map_err(move |cause| {
            end.0.store(true, Ordering::Relaxed);
            cause
        }))
    })
}

impl UploadEnd {
    /// That of a request.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// `data`, with an error where its end is none.
    pub fn checked<T: Send + 'static>(
        self,
        data: impl Stream<Item = Result<T, Fault>> + Send + 'static,
    ) -> impl Stream<Item = Result<T, Fault>> + Send + 'static {
        let end = stream::once(async move {
            self.0.load(Ordering::Relaxed).then(|| Err(error::bad_request("the stream broke off")))
        });
        data.chain(end.filter_map(async |end| end))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::future;

    use super::*;

    #[tokio::test]
    async fn an_upload_that_breaks_off_has_no_end() {
        for is_broken in [false, true] {
            let last = if is_broken { Err(std::io::Error::other("reset")) } else { Ok(Bytes::from_static(b"b")) };
            let frames = stream::iter([Ok(Bytes::from_static(b"a")), last]);
            let request = watched(Request::new(Body::from_stream(frames)));
            let end = UploadEnd::of(request.extensions());
            // As tonic does, an error is taken for the end.
            let data = request.into_body().into_data_stream().take_while(|piece| future::ready(piece.is_ok())).boxed();
            let read: Vec<_> =
                end.checked(data.map(|piece| piece.map_err(|_| error::bad_request("x")))).collect().await;
            assert_eq!(read.iter().filter(|piece| piece.is_err()).count(), usize::from(is_broken), "{read:?}");
        }
    }

    #[test]
    fn uploads_are_told_by_their_path() {
        assert!(is_upload("/proto.SpaceCloud/UploadFile") && !is_upload("/proto.SpaceCloud/DownloadFile"));
    }
}
