//! Files that are copied and moved.

use axum::{body::Body, response::Response};
use mesh::Fault;
use proto::{
    Links,
    auth::FileAccess,
    storage::{CopyRequest, CopyResponse, Description, Precondition},
};
use query::{file::FileOperation, media_type};
use serde::Deserialize;

use super::{
    FilesRequest, ProjectFiles, delete::parsed, list, precondition, project_files::access, stored, target::FileTarget,
};
use crate::error;

/// What becomes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyKind {
    /// It stays.
    Copy,
    /// It is deleted.
    Move,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destination {
    to: String,
}

/// `POST ?op=copy|move`
pub async fn copy(request: &FilesRequest<'_>, body: &mut Body, kind: CopyKind) -> Result<Response, Fault> {
    request.bad_signature_use()?;
    let from = request.file_target()?;
    let Destination { to } = request.within_time(parsed(request, body)).await?;
    let target = FileTarget::file_of_text(&request.files.project, "to", &to)?;
    let precondition = precondition(request)?;
    let copied = transfer(&request.files, Transfer::new(&from, &target, kind, precondition)).await?;
    stored(&target, copied.entry, copied.created)
}

/// A copy, or a move.
pub(crate) struct Transfer<'a> {
    /// The file.
    pub(crate) from: &'a FileTarget,
    /// Where to.
    pub(crate) target: &'a FileTarget,
    /// What becomes of the source.
    pub(crate) kind: CopyKind,
    /// What must hold of the file at the target.
    pub(crate) precondition: Option<Precondition>,
    /// Type and metadata of the copy, checked; absent: those of the source.
    pub(crate) description: Option<Description>,
    /// Entity tag that the source must have; empty: any.
    pub(crate) source_etag: String,
}

impl<'a> Transfer<'a> {
    /// A copy or a move of the file as it is.
    pub(crate) fn new(
        from: &'a FileTarget,
        target: &'a FileTarget,
        kind: CopyKind,
        precondition: Option<Precondition>,
    ) -> Self {
        Self { from, target, kind, precondition, description: None, source_etag: String::new() }
    }
}

/// Copies or moves a file.
pub(crate) async fn transfer(files: &ProjectFiles, transfer: Transfer<'_>) -> Result<CopyResponse, Fault> {
    let Transfer { from, target, kind, precondition, description, source_etag } = transfer;
    let source = files.grant(access(from, FileOperation::Read)).await?;
    let delete = match kind {
        CopyKind::Copy => None,
        CopyKind::Move => files.grant(access(from, FileOperation::Delete)).await?,
    };
    let entry = list::entry(files, source.clone()).await?;
    if entry.is_folder {
        return Err(error::bad_request(format!("{} is a folder", from.path)));
    }
    let (content_type, meta) = match &description {
        Some(told) => (media_type::kept(&told.content_type, target.path.name()).to_owned(), told.meta.clone()),
        None => (entry.content_type, entry.meta),
    };
    let access = FileAccess {
        size: Some(entry.size),
        no_size: false,
        content_type,
        meta,
        ..access(target, FileOperation::Create)
    };
    let target = files.grant(access).await?;
    let message = CopyRequest { source, target, delete, precondition, description, source_etag };
    Ok(files.service.mesh().storage().copy(&files.caller.call, message).await?)
}
