//! Files and folders that are deleted.

use axum::{body::Body, response::Response};
use http::StatusCode;
use mesh::{Code, Fault};
use proto::{
    Links,
    auth::FileVerdict,
    storage::{DeleteRequest, EntriesDigest, ListRequest, Precondition},
};
use query::file::{FileOperation, PAGE_MAX};
use serde::{Deserialize, Serialize};

use super::{FilesRequest, ProjectFiles, json, list, precondition, project_files::access, target::FileTarget};
use crate::{
    error,
    http::{answer, body},
};

/// What is said where a folder is to be deleted as a file.
pub(crate) const IS_FOLDER: &str = "cannot delete the folder";
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
    let precondition = if is_folder { None } else { precondition(request)? };
    remove(&request.files, &target, is_folder, precondition).await?;
    Ok(answer::json(StatusCode::OK, "{}"))
}

/// Deletes a file, or a folder with all that is in it.
pub(crate) async fn remove(
    files: &ProjectFiles,
    target: &FileTarget,
    is_folder: bool,
    precondition: Option<Precondition>,
) -> Result<(), Fault> {
    if target.path.is_root() {
        return Err(error::bad_request("refusing to delete the root"));
    }
    let verdict = files.allowed(access(target, FileOperation::Delete)).await?;
    let judged = if is_folder { Box::pin(judged(files, target, &verdict)).await? } else { Vec::new() };
    let message = DeleteRequest { grant: verdict.grant, folder: is_folder, precondition, judged };
    let deleted = files.service.mesh().storage().delete(&files.caller.call, message).await;
    match deleted.map_err(Fault::from) {
        // Told of a folder that is meant as a file. The text is known to clients of earlier servers.
        Err(fault) if fault.code == Code::BadRequest && fault.message.ends_with(" is a folder") => {
            Err(error::bad_request(IS_FOLDER))
        }
        deleted => deleted.map(drop),
    }
}

/// The digest of the entries of a folder; empty where all that may ever be in it may be deleted.
///
/// Errors: the caller may not delete one of them.
async fn judged(files: &ProjectFiles, target: &FileTarget, verdict: &FileVerdict) -> Result<Vec<u8>, Fault> {
    if verdict.covers {
        return Ok(Vec::new());
    }
    let mut digest = EntriesDigest::default();
    let mut cursor = String::new();
    loop {
        let message = ListRequest {
            grant: verdict.grant.clone(),
            limit: PAGE_MAX,
            cursor,
            recursive: true,
            files: true,
            folders: true,
            ..ListRequest::default()
        };
        let listed = files.service.mesh().storage().list(&files.caller.call, message).await.map_err(Fault::from);
        let page = match listed {
            // Nothing is deleted where nothing is.
            Err(fault) if fault.code == Code::NotFound => return Ok(digest.finish()),
            page => page?,
        };
        let allowed = list::allowed(files, target, &page.entries, FileOperation::Delete).await?;
        if allowed.contains(&false) {
            return Err(Fault::new(Code::Denied, "an entry of the folder may not be deleted"));
        }
        digest.add(&page.entries);
        if page.cursor.is_empty() {
            return Ok(digest.finish());
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
    let target = FileTarget::of_text(&request.files.project, path)?;
    remove(&request.files, &target, false, precondition(request)?).await
}

/// The JSON of a request's body.
pub async fn parsed<T: serde::de::DeserializeOwned>(request: &FilesRequest<'_>, body: &mut Body) -> Result<T, Fault> {
    let bytes = body::read(request.files.service.config(), &request.files.project, std::mem::take(body)).await?;
    serde_json::from_slice(&bytes).map_err(|error| error::bad_request(format!("invalid body: {error}")))
}
