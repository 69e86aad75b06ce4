//! Files and folders.

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use mesh::{Code, Fault};
use proto::predecessor::{self as api};
use query::file::PAGE_MAX;
use serde::Serialize;
use tonic::{Request, Streaming};

use super::{Answers, AskedCall, RefusedCall, SpaceCloud};
use crate::{
    error,
    files::{self, FileParts, FileTarget, ListQuery, NewFile, ProjectFiles},
    grpc::{accept::required, broken_off, pieces, upload::UploadEnd},
};

/// Entries of a list, which is told at once.
const ENTRIES_MAX: usize = 10 * PAGE_MAX as usize;

#[derive(Serialize)]
struct NamedEntry {
    name: String,
    r#type: &'static str,
}

impl SpaceCloud {
    async fn files<M>(&self, accepted: AskedCall<M>) -> Result<(ProjectFiles, M), Fault> {
        let AskedCall { caller, meta, message, peer, .. } = accepted;
        Ok((ProjectFiles::of(&self.service, caller, &meta.project, peer).await?, message))
    }

    pub(super) async fn make_folder(&self, request: Request<api::CreateFolderRequest>) -> Result<Bytes, RefusedCall> {
        let accepted = self.accept(request, |message| message.meta.take())?;
        let refusal = RefusedCall::of(&accepted);
        let made = async {
            let (files, message) = self.files(accepted).await?;
            let target = target_in(&files, &message.path, &message.name)?;
            files.within_time(files::make_folder(&files, &target, false, String::new())).await?;
            Ok(Bytes::new())
        };
        made.await.map_err(refusal)
    }

    pub(super) async fn list(&self, request: Request<api::ListFilesRequest>) -> Result<Bytes, RefusedCall> {
        let accepted = self.accept(request, |message| message.meta.take())?;
        let refusal = RefusedCall::of(&accepted);
        let listed = async {
            let (files, message) = self.files(accepted).await?;
            let target = FileTarget::of_text(&files.project, folder(&message.path))?;
            let entries = files.within_time(entries(&files, &target)).await?;
            Ok(serde_json::to_vec(&entries).expect("texts can always be written to memory").into())
        };
        listed.await.map_err(refusal)
    }

    pub(super) async fn remove(&self, request: Request<api::DeleteFileRequest>) -> Result<Bytes, RefusedCall> {
        let accepted = self.accept(request, |message| message.meta.take())?;
        let refusal = RefusedCall::of(&accepted);
        let removed = async {
            let (files, message) = self.files(accepted).await?;
            let target = FileTarget::of_text(&files.project, required("path", &message.path)?)?;
            let removed = async {
                // Its kind is not told by the message.
                match files::remove(&files, &target, false, None).await {
                    Err(fault) if fault.message == files::IS_FOLDER => files::remove(&files, &target, true, None).await,
                    removed => removed,
                }
            };
            files.within_time(removed).await?;
            Ok(Bytes::new())
        };
        removed.await.map_err(refusal)
    }

    pub(super) async fn write(
        &self,
        request: Request<Streaming<api::UploadFileRequest>>,
    ) -> Result<Bytes, RefusedCall> {
        let (metadata, extensions, mut messages) = request.into_parts();
        let end = UploadEnd::of(&extensions);
        let first = tokio::time::timeout(self.service.config().write_timeout, messages.message()).await;
        let first = first.map_err(|_| Fault::new(Code::Deadline, "the stream did not begin"))?.map_err(broken_off)?;
        let first = first.ok_or_else(|| error::bad_request("the stream has no message: expected one with a path"))?;
        let begun = Request::from_parts(metadata, extensions, first);
        let accepted = self.accept(begun, |message| message.meta.take())?;
        let refusal = RefusedCall::of(&accepted);
        let written = async {
            let (files, api::UploadFileRequest { path, name, payload, .. }) = self.files(accepted).await?;
            let target = target_in(&files, &path, required("name", &name)?)?;
            let (content_type, meta) = (String::new(), String::new());
            let file = NewFile { target, content_type, meta, precondition: None, size: None };
            let mut body = Body::from_stream(end.checked(data(payload, messages)));
            Box::pin(files::write(&files, file, &mut body)).await?;
            Ok(Bytes::new())
        };
        written.await.map_err(refusal)
    }

    pub(super) async fn open(&self, request: Request<api::DownloadFileRequest>) -> Answers<api::FilePayload> {
        let opened = async {
            let accepted = self.accept(request, |message| message.meta.take())?;
            let refusal = RefusedCall::of(&accepted);
            let opened = async {
                let (files, message) = self.files(accepted).await?;
                let target = FileTarget::file_of_text(&files.project, "path", required("path", &message.path)?)?;
                let parts =
                    FileParts { ranges: Vec::new(), ranges_if_etag: None, ranges_if_modified_s: None, image: None };
                let file = files.within_time(files::open(&files, &target, parts)).await?;
                Ok(files::paced(&files.service, file.data()).boxed())
            };
            opened.await.map_err(refusal)
        };
        match Box::pin(opened).await {
            Err(refusal) => stream::iter([Ok(refused(&refusal))]).boxed(),
            Ok(data) => {
                let data = data.map_ok(|data| stream::iter(pieces(data)).map(Ok)).try_flatten();
                let told = |data: Result<Bytes, Fault>| match data {
                    Ok(payload) => api::FilePayload { status: 200, error: String::new(), payload },
                    Err(fault) => refused(&fault.into()),
                };
                data.map(move |data| Ok(told(data))).boxed()
            }
        }
    }
}

fn refused(refusal: &RefusedCall) -> api::FilePayload {
    let (status, error) = refusal.told();
    api::FilePayload { status, error, payload: Bytes::new() }
}

/// The bytes of the messages of a file, of which the first has `first`.
fn data(
    first: Bytes,
    messages: Streaming<api::UploadFileRequest>,
) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
    let rest = messages.map(|message| {
        let payload = message.map_err(broken_off)?.payload;
        Ok::<_, Fault>(stream::iter(pieces(payload)).map(Ok))
    });
    stream::iter(pieces(first)).map(Ok).chain(rest.try_flatten())
}

/// A path of a message without a byte is the root.
fn folder(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// What is called `name` in the folder at `path`.
fn target_in(files: &ProjectFiles, path: &str, name: &str) -> Result<FileTarget, Fault> {
    let mut target = FileTarget::of_text(&files.project, folder(path))?;
    if !name.is_empty() {
        target.path = files::child(&target.path, name)?;
    }
    Ok(target)
}

/// All that is in a folder. Errors: it is too much to tell at once.
async fn entries(files: &ProjectFiles, target: &FileTarget) -> Result<Vec<NamedEntry>, Fault> {
    let (mut told, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = ListQuery { limit: PAGE_MAX, cursor, files: true, folders: true, ..ListQuery::default() };
        let files::Listed { entries, cursor: next, .. } = files::page(files, target, query).await?;
        told.extend(entries.into_iter().map(|entry| {
            let name = entry.path.rsplit('/').next().unwrap_or_default().to_owned();
            NamedEntry { name, r#type: if entry.is_folder { "dir" } else { "file" } }
        }));
        if next.is_empty() {
            return Ok(told);
        }
        if told.len() >= ENTRIES_MAX {
            let text = format!("the folder has more than {ENTRIES_MAX} entries: list it in pages, by HTTP");
            return Err(Fault::new(Code::TooLarge, text));
        }
        cursor = next;
    }
}
