//! Files and folders that are deleted.

use axum::{body::Body, response::Response};
use http::StatusCode;
use mesh::{Code, Fault};
use proto::{
    Links,
    auth::{FileVerdict, SignedGrant},
    storage::{DeleteRequest, ListRequest},
};
use query::file::{FileOperation, PAGE_MAX};
use serde::{Deserialize, Serialize};

use super::{FilesRequest, access, json, list, precondition, target::FileTarget};
use crate::{
    error,
    http::{answer, body},
};

/// Most paths of one request.
const PATHS_MAX: usize = 1000;

/// `DELETE` of a file, or of a folder with all that is in it.
pub async fn delete(request: &FilesRequest<'_>) -> Result<Response, Fault> {
    request.bad_signature_use()?;
    let target = request.target()?;
    let is_folder = match request.parameters.get("fileType") {
        None | Some("" | "file") => false,
        Some("dir" | "folder") => true,
        Some(other) => {
            return Err(error::bad_request(format!("invalid fileType {other:?}: expected file, dir or folder")));
        }
    };
    if target.path.is_root() {
        return Err(error::bad_request("refusing to delete the root"));
    }
    let verdict = request.allowed(access(&target, FileOperation::Delete)).await?;
    if is_folder {
        check_entries(request, &target, &verdict).await?;
    }
    delete_one(request, verdict.grant, is_folder).await?;
    Ok(answer::json(StatusCode::OK, "{}"))
}

async fn delete_one(request: &FilesRequest<'_>, grant: Option<SignedGrant>, folder: bool) -> Result<(), Fault> {
    let precondition = if folder { None } else { precondition(request)? };
    let message = DeleteRequest { grant, folder, precondition };
    let deleted = request.service.mesh().storage().delete(&request.caller.call, message).await;
    match deleted.map_err(Fault::from) {
        // Told of a folder that is meant as a file. The text is known to clients of earlier servers.
        Err(fault) if fault.code == Code::BadRequest && fault.message.ends_with(" is a folder") => {
            Err(error::bad_request("cannot delete the folder"))
        }
        deleted => deleted.map(drop),
    }
}

/// Refuses to delete a folder with an entry that the caller may not delete.
async fn check_entries(request: &FilesRequest<'_>, target: &FileTarget, verdict: &FileVerdict) -> Result<(), Fault> {
    if verdict.covers {
        return Ok(());
    }
    let mut cursor = String::new();
    loop {
        let message = ListRequest {
            grant: verdict.grant.clone(),
            limit: PAGE_MAX,
            cursor,
            recursive: true,
            files: true,
            folders: true,
            search: String::new(),
        };
        let listed = request.service.mesh().storage().list(&request.caller.call, message).await.map_err(Fault::from);
        let page = match listed {
            // Nothing is deleted where nothing is.
            Err(fault) if fault.code == Code::NotFound => return Ok(()),
            page => page?,
        };
        let allowed = list::allowed(request, target, &page.entries, FileOperation::Delete).await?;
        if allowed.contains(&false) {
            return Err(Fault::new(Code::Denied, "an entry of the folder may not be deleted"));
        }
        if page.cursor.is_empty() {
            return Ok(());
        }
        cursor = page.cursor;
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paths {
    paths: Vec<String>,
}

/// The result for one path.
#[derive(Serialize)]
struct Deleted {
    path: String,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// `POST ?op=delete`: files, each with a result of its own.
pub async fn delete_many(request: &FilesRequest<'_>, body: &mut Body) -> Result<Response, Fault> {
    #[derive(Serialize)]
    struct Results {
        result: Vec<Deleted>,
    }
    request.bad_signature_use()?;
    let Paths { paths } = parsed(request, body).await?;
    if paths.len() > PATHS_MAX {
        return Err(error::bad_request(format!("invalid paths: over the limit of {PATHS_MAX}, found {}", paths.len())));
    }
    let mut result = Vec::with_capacity(paths.len());
    for path in paths {
        let fault = delete_path(request, &path).await.err();
        let (error, code) = fault.map(|fault| (fault.message, fault.code.as_str())).unzip();
        result.push(Deleted { path, deleted: error.is_none(), error, code });
    }
    Ok(answer::json(StatusCode::OK, json(&Results { result })))
}

async fn delete_path(request: &FilesRequest<'_>, path: &str) -> Result<(), Fault> {
    let target = FileTarget::of_text(&request.project, path)?;
    if target.path.is_root() {
        return Err(error::bad_request("refusing to delete the root"));
    }
    let grant = request.grant(access(&target, FileOperation::Delete)).await?;
    delete_one(request, grant, false).await
}

/// The JSON of a request's body.
pub async fn parsed<T: serde::de::DeserializeOwned>(request: &FilesRequest<'_>, body: &mut Body) -> Result<T, Fault> {
    let bytes = body::read(request.service.config(), &request.project, std::mem::take(body)).await?;
    serde_json::from_slice(&bytes).map_err(|error| error::bad_request(format!("invalid body: {error}")))
}
