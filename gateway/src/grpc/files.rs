//! The service `perigee.api.v1.Files`.

use std::pin::Pin;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{Extensions, HeaderMap};
use mesh::{Code, Fault};
use prost::Message;
use proto::{
    api::v1::{self as api, files_server, get_response, put_request},
    storage::{ByteRange, Entry, Precondition, PutResponse},
};
use query::file::PAGE_MAX;
use tonic::{Request, Response, Status, Streaming};

use super::{
    accept::{accepted, required},
    status,
    upload::UploadEnd,
    wire_fault,
};
use crate::{
    Service, error,
    files::{self, CopyKind, FileParts, FileTarget, ListQuery, NewFile, ProjectFiles, SignedMethod, Transfer, peer},
};

/// Most entity tags of a condition.
const ETAGS_MAX: usize = 64;
/// Bytes that are passed on at a time of a message with more.
const PIECE_BYTES: usize = 256 * 1024;

/// The messages of a file that is read.
type GetMessages = Pin<Box<dyn Stream<Item = Result<api::GetResponse, Status>> + Send>>;

/// The handlers.
pub struct Files {
    service: Service,
}

#[tonic::async_trait]
impl files_server::Files for Files {
    async fn put(&self, request: Request<Streaming<api::PutRequest>>) -> Result<Response<api::FileInfo>, Status> {
        Box::pin(self.write(request)).await.map(Response::new).map_err(status)
    }

    type GetStream = GetMessages;

    async fn get(&self, request: Request<api::GetRequest>) -> Result<Response<GetMessages>, Status> {
        let (files, message) = self.accept(request, |message| &message.project).await.map_err(status)?;
        Box::pin(read(&files, message)).await.map(Response::new).map_err(status)
    }

    async fn info(&self, request: Request<api::InfoRequest>) -> Result<Response<api::FileInfo>, Status> {
        let (files, message) = self.accept(request, |message| &message.project).await.map_err(status)?;
        info(&files, message).await.map(Response::new).map_err(status)
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Result<Response<api::ListResponse>, Status> {
        let (files, message) = self.accept(request, |message| &message.project).await.map_err(status)?;
        files.within_time(list(&files, message)).await.map(Response::new).map_err(status)
    }

    async fn delete(
        &self,
        request: Request<api::DeleteFileRequest>,
    ) -> Result<Response<api::DeleteFileResponse>, Status> {
        let (files, message) = self.accept(request, |message| &message.project).await.map_err(status)?;
        files.within_time(delete(&files, message)).await.map_err(status)?;
        Ok(Response::new(api::DeleteFileResponse {}))
    }

    async fn copy(&self, request: Request<api::CopyRequest>) -> Result<Response<api::FileInfo>, Status> {
        let (files, message) = self.accept(request, |message| &message.project).await.map_err(status)?;
        let api::CopyRequest { path, to, if_match, if_none_match, .. } = message;
        let condition = precondition(if_match, &if_none_match).map_err(status)?;
        Box::pin(transfer(&files, (&path, &to), CopyKind::Copy, condition)).await.map(Response::new).map_err(status)
    }

    async fn r#move(&self, request: Request<api::MoveRequest>) -> Result<Response<api::FileInfo>, Status> {
        let (files, message) = self.accept(request, |message| &message.project).await.map_err(status)?;
        let api::MoveRequest { path, to, if_match, if_none_match, .. } = message;
        let condition = precondition(if_match, &if_none_match).map_err(status)?;
        Box::pin(transfer(&files, (&path, &to), CopyKind::Move, condition)).await.map(Response::new).map_err(status)
    }

    async fn sign(&self, request: Request<api::SignRequest>) -> Result<Response<api::SignResponse>, Status> {
        let (files, message) = self.accept(request, |message| &message.project).await.map_err(status)?;
        files.within_time(sign(&files, message)).await.map(Response::new).map_err(status)
    }
}

impl Files {
    /// Handlers of `service`.
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// The files that a request is about, and its message.
    async fn accept<M: Message>(
        &self,
        request: Request<M>,
        project: impl Fn(&M) -> &str,
    ) -> Result<(ProjectFiles, M), Fault> {
        let (metadata, extensions, message) = request.into_parts();
        let files = self.files((metadata.as_ref(), &extensions), &message, project(&message)).await?;
        Ok((files, message))
    }

    async fn files(
        &self,
        head: (&HeaderMap, &Extensions),
        message: &impl Message,
        project: &str,
    ) -> Result<ProjectFiles, Fault> {
        let (caller, _) = accepted(&self.service, head, message, required("project", project)?)?;
        ProjectFiles::of(&self.service, caller, project, peer(head.1)).await
    }

    async fn write(&self, request: Request<Streaming<api::PutRequest>>) -> Result<api::FileInfo, Fault> {
        let (metadata, extensions, mut messages) = request.into_parts();
        let idle = self.service.config().write_timeout;
        let first = tokio::time::timeout(idle, messages.message()).await;
        let first = first.map_err(|_| Fault::new(Code::Deadline, "the stream did not begin"))?;
        let Some(put_request::Part::Header(header)) = first.map_err(broken_off)?.and_then(|message| message.part)
        else {
            return Err(error::bad_request("the first message of a file must be its header"));
        };
        let files = self.files((metadata.as_ref(), &extensions), &header, &header.project).await?;
        let file = new_file(&files, header)?;
        let mut body = Body::from_stream(UploadEnd::of(&extensions).checked(data(messages)));
        let PutResponse { entry, created, .. } = Box::pin(files::write(&files, file, &mut body)).await?;
        Ok(api::FileInfo { created, ..told(entry.ok_or_else(no_entry)?) })
    }
}

fn new_file(files: &ProjectFiles, header: api::PutHeader) -> Result<NewFile, Fault> {
    let api::PutHeader { path, content_type, if_match, if_none_match, meta, size, .. } = header;
    let meta = if meta.is_empty() { meta } else { files::meta(&meta)? };
    Ok(NewFile {
        target: file_target(files, "path", &path)?,
        content_type: files::checked_type(&content_type)?,
        meta,
        precondition: precondition(if_match, &if_none_match)?,
        size,
    })
}

/// The bytes of the messages after the header.
fn data(messages: Streaming<api::PutRequest>) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
    let pieces = messages.map(|message| match message.map_err(broken_off)?.part {
        Some(put_request::Part::Data(data)) => Ok(stream::iter(pieces(data)).map(Ok)),
        Some(put_request::Part::Header(_)) => Err(error::bad_request("a file has one header")),
        None => Err(error::bad_request("a message of a file is empty: expected data")),
    });
    pieces.try_flatten()
}

/// `data` in pieces, which share their memory.
pub(crate) fn pieces(mut data: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!data.is_empty()).then(|| data.split_to(data.len().min(PIECE_BYTES))))
}

/// Why a stream of a client breaks off.
pub(crate) fn broken_off(status: Status) -> Fault {
    wire_fault(&status).unwrap_or_else(|| error::bad_request("the stream broke off"))
}

async fn read(files: &ProjectFiles, message: api::GetRequest) -> Result<GetMessages, Fault> {
    let target = file_target(files, "path", &message.path)?;
    let (first, last) = (message.first, message.last);
    if let (Some(first), Some(last)) = (first, last)
        && last < first
    {
        return Err(error::bad_request(format!("invalid last: expected at least first, {first}, found {last}")));
    }
    let condition = precondition(message.if_match, "")?;
    let is_part = first.is_some() || last.is_some();
    let ranges = is_part.then_some(ByteRange { first, last }).into_iter().collect();
    let parts = FileParts { ranges, ..FileParts::default() };
    let file = files.within_time(files::open(files, &target, parts)).await?;
    let is_met = condition.is_none_or(|condition| condition.present || condition.etags.contains(&file.entry.etag));
    if !is_met {
        return Err(Fault::new(Code::Precondition, "the file is not as the condition of the request says"));
    }
    if let Some(fault) = file.unsatisfiable() {
        return Err(fault);
    }
    let info = get_response::Part::Info(told(file.entry.clone()));
    let data = files::paced(&files.service, file.data()).map_ok(get_response::Part::Data);
    let parts = stream::iter([Ok(info)]).chain(data);
    Ok(parts.map(|part| Ok(api::GetResponse { part: Some(part.map_err(status)?) })).boxed())
}

async fn info(files: &ProjectFiles, message: api::InfoRequest) -> Result<api::FileInfo, Fault> {
    let target = target(files, "path", &message.path)?;
    Ok(told(files.within_time(files::entry_of(files, &target)).await?))
}

async fn list(files: &ProjectFiles, message: api::ListRequest) -> Result<api::ListResponse, Fault> {
    let target = target(files, "path", &message.path)?;
    let mode = api::ListMode::try_from(message.mode)
        .map_err(|_| error::bad_request(format!("invalid mode {}: expected 0, 1 or 2", message.mode)))?;
    let api::ListRequest { limit, cursor, recursive, search, .. } = message;
    let query = ListQuery {
        limit: if limit == 0 { PAGE_MAX } else { limit },
        cursor,
        recursive,
        files: mode != api::ListMode::Folders,
        folders: mode != api::ListMode::Files,
        search,
        ..ListQuery::default()
    };
    let files::Listed { entries, cursor, .. } = files::page(files, &target, query).await?;
    Ok(api::ListResponse { entries: entries.into_iter().map(told).collect(), cursor })
}

async fn delete(files: &ProjectFiles, message: api::DeleteFileRequest) -> Result<(), Fault> {
    let target = target(files, "path", &message.path)?;
    if message.folder && !message.if_match.is_empty() {
        return Err(error::bad_request("invalid if_match: expected none for a folder"));
    }
    files::remove(files, &target, message.folder, precondition(message.if_match, "")?).await
}

async fn transfer(
    files: &ProjectFiles,
    (path, to): (&str, &str),
    kind: CopyKind,
    condition: Option<Precondition>,
) -> Result<api::FileInfo, Fault> {
    let (from, to) = (file_target(files, "path", path)?, file_target(files, "to", to)?);
    let copied = files::transfer(files, Transfer::new(&from, &to, kind, condition)).await?;
    Ok(api::FileInfo { created: copied.created, ..told(copied.entry.ok_or_else(no_entry)?) })
}

async fn sign(files: &ProjectFiles, message: api::SignRequest) -> Result<api::SignResponse, Fault> {
    let target = file_target(files, "path", &message.path)?;
    let method = match api::SignMethod::try_from(message.method) {
        Ok(api::SignMethod::Get) => SignedMethod::Get,
        Ok(api::SignMethod::Put) => SignedMethod::Put,
        Ok(api::SignMethod::Unspecified) => return Err(Fault::new(Code::Required, "method is required")),
        Err(_) => return Err(error::bad_request(format!("invalid method {}: expected 1 or 2", message.method))),
    };
    let (url, expires_s) = files::signed_address(files, &target, method, message.expires).await?;
    Ok(api::SignResponse { url, expires_s })
}

/// What the field `name` of a message names.
fn target(files: &ProjectFiles, name: &str, path: &str) -> Result<FileTarget, Fault> {
    match path {
        "" => Err(Fault::new(Code::Required, format!("{name} is required"))),
        path => FileTarget::of_text(&files.project, path),
    }
}

fn file_target(files: &ProjectFiles, name: &str, path: &str) -> Result<FileTarget, Fault> {
    match path {
        "" => Err(Fault::new(Code::Required, format!("{name} is required"))),
        path => FileTarget::file_of_text(&files.project, name, path),
    }
}

/// What must hold of the file that is there; `None` where that is nothing.
fn precondition(if_match: Vec<String>, if_none_match: &str) -> Result<Option<Precondition>, Fault> {
    let absent = match if_none_match {
        "" => false,
        "*" => true,
        other => return Err(error::bad_request(format!("invalid if_none_match {other:?}: expected *"))),
    };
    if if_match.len() > ETAGS_MAX {
        return Err(error::bad_request(format!("invalid if_match: over the limit of {ETAGS_MAX} entity tags")));
    }
    let present = if_match.iter().any(|etag| etag == "*");
    if present && if_match.len() > 1 || if_match.iter().any(String::is_empty) {
        return Err(error::bad_request("invalid if_match: expected * or entity tags"));
    }
    let etags = if present { Vec::new() } else { if_match };
    let precondition = Precondition { absent, present, etags };
    Ok((precondition != Precondition::default()).then_some(precondition))
}

/// A file or a folder as clients are told it.
fn told(entry: Entry) -> api::FileInfo {
    let Entry { path, is_folder, size, modified_ms, etag, content_type, meta } = entry;
    api::FileInfo { path: format!("/{path}"), is_folder, size, modified_ms, etag, content_type, meta, created: false }
}

fn no_entry() -> Fault {
    Fault::internal("the storage service gave an answer that cannot be read", "no entry of a file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_one_star_or_entity_tags() {
        let of = |tags: &[&str], absent: &str| precondition(tags.iter().map(|tag| (*tag).to_owned()).collect(), absent);
        assert_eq!(of(&[], ""), Ok(None));
        assert_eq!(of(&["*"], ""), Ok(Some(Precondition { present: true, ..Precondition::default() })));
        assert_eq!(of(&[], "*"), Ok(Some(Precondition { absent: true, ..Precondition::default() })));
        let tags = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(of(&["a", "b"], ""), Ok(Some(Precondition { etags: tags, ..Precondition::default() })));
        for (tags, absent) in [(&["*", "a"][..], ""), (&[""], ""), (&[], "a"), (&["a"; 65], "")] {
            assert_eq!(of(tags, absent).map_err(|fault| fault.code), Err(Code::BadRequest), "{tags:?} {absent}");
        }
    }

    #[test]
    fn a_large_message_is_passed_on_in_pieces() {
        let sizes = |bytes: usize| pieces(Bytes::from(vec![7; bytes])).map(|piece| piece.len()).collect::<Vec<_>>();
        assert_eq!(sizes(0), [0; 0]);
        assert_eq!(sizes(PIECE_BYTES), [PIECE_BYTES]);
        assert_eq!(sizes(2 * PIECE_BYTES + 1), [PIECE_BYTES, PIECE_BYTES, 1]);
    }
}
