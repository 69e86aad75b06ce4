//! Files that are copied and moved.

use axum::{body::Body, response::Response};
use mesh::Fault;
use proto::{
    Links,
    auth::FileAccess,
    storage::{CopyRequest, CopyResponse, Precondition},
};
use query::file::FileOperation;
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
    let copied = transfer(&request.files, &from, &target, kind, precondition(request)?).await?;
    stored(&target, copied.entry, copied.created)
}

/// Copies or moves a file.
pub(crate) async fn transfer(
    files: &ProjectFiles,
    from: &FileTarget,
    target: &FileTarget,
    kind: CopyKind,
    precondition: Option<Precondition>,
) -> Result<CopyResponse, Fault> {
    let source = files.grant(access(from, FileOperation::Read)).await?;
    let delete = match kind {
        CopyKind::Copy => None,
        CopyKind::Move => files.grant(access(from, FileOperation::Delete)).await?,
    };
    let entry = list::entry(files, source.clone()).await?;
    if entry.is_folder {
        return Err(error::bad_request(format!("{} is a folder", from.path)));
    }
    let access = FileAccess {
        size: Some(entry.size),
        no_size: false,
        content_type: entry.content_type,
        meta: entry.meta,
        ..access(target, FileOperation::Create)
    };
    let message = CopyRequest { source, target: files.grant(access).await?, delete, precondition };
    Ok(files.service.mesh().storage().copy(&files.caller.call, message).await?)
}
