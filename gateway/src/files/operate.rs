//! Files that are copied and moved.

use axum::{body::Body, response::Response};
use mesh::Fault;
use proto::{Links, auth::FileAccess, storage::CopyRequest};
use query::file::FileOperation;
use serde::Deserialize;

use super::{FilesRequest, access, delete::parsed, list, precondition, stored, target::FileTarget};
use crate::error;

/// What becomes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyKind {
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
    let target = FileTarget::of_text(&request.project, &to)?;
    if target.path.is_root() || to.ends_with('/') {
        return Err(error::bad_request(format!("invalid to: {to} is a folder")));
    }
    let source = request.grant(access(&from, FileOperation::Read)).await?;
    let delete = match kind {
        CopyKind::Copy => None,
        CopyKind::Move => request.grant(access(&from, FileOperation::Delete)).await?,
    };
    let entry = list::entry(request, source.clone()).await?;
    if entry.is_folder {
        return Err(error::bad_request(format!("{} is a folder", from.path)));
    }
    let access = FileAccess {
        size: Some(entry.size),
        no_size: false,
        content_type: entry.content_type,
        meta: entry.meta,
        ..access(&target, FileOperation::Create)
    };
    let message =
        CopyRequest { source, target: request.grant(access).await?, delete, precondition: precondition(request)? };
    let copied = request.service.mesh().storage().copy(&request.caller.call, message).await?;
    stored(&target, copied.entry, copied.created)
}
