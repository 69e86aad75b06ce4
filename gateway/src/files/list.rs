//! What is known of files and folders.

use axum::response::Response;
use http::StatusCode;
use mesh::{Code, Fault};
use proto::{
    Links,
    auth::SignedGrant,
    storage::{Entry, InfoRequest, ListRequest, ListResponse},
};
use query::file::{FileOperation, FilePath, PAGE_MAX};
use serde::Serialize;

use super::{FilesRequest, ProjectFiles, json, missing_part, moment, project_files::access, target::FileTarget};
use crate::{error, http::answer};

/// An entry as clients are told it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldEntry<'a> {
    name: &'a str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    etag: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    content_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct ListPage<'a> {
    result: Vec<ToldEntry<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    cursor: &'a str,
}

impl<'a> ToldEntry<'a> {
    fn of(entry: &'a Entry, name: &'a str) -> Self {
        Self {
            name,
            r#type: if entry.is_folder { "dir" } else { "file" },
            size: (!entry.is_folder).then_some(entry.size),
            last_modified: (entry.modified_ms != 0).then(|| moment(entry.modified_ms)),
            etag: &entry.etag,
            content_type: &entry.content_type,
            meta: serde_json::from_str(&entry.meta).ok(),
        }
    }
}

/// What a page of a folder is asked to have.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListQuery {
    /// Entries, 1 to [`PAGE_MAX`].
    pub(crate) limit: u32,
    /// Where the page before ended; empty: the beginning.
    pub(crate) cursor: String,
    /// Everything below the folder.
    pub(crate) recursive: bool,
    /// Files are wanted.
    pub(crate) files: bool,
    /// Folders are wanted.
    pub(crate) folders: bool,
    /// A part of names; empty: all.
    pub(crate) search: String,
    /// What paths below the folder begin with, without a slash; empty: all.
    pub(crate) prefix: String,
    /// Where there is no cursor: a path below the folder after which the page begins.
    pub(crate) after: String,
}

/// A page of a folder, as far as its caller may list it.
pub(crate) struct Listed {
    /// Its entries.
    pub(crate) entries: Vec<Entry>,
    /// Where the next page begins; empty at the end.
    pub(crate) cursor: String,
    /// Whether entries are left out that the caller may not list.
    pub(crate) is_judged: bool,
}

/// `?op=list`
pub async fn list(request: &FilesRequest<'_>) -> Result<Response, Fault> {
    request.bad_signature_use()?;
    let target = request.target()?;
    let parameters = &request.parameters;
    let (files, folders) = match parameters.get("mode") {
        None | Some("" | "all") => (true, true),
        Some("file") => (true, false),
        Some("dir") => (false, true),
        Some(other) => return Err(error::bad_request(format!("invalid mode {other:?}: expected all, file or dir"))),
    };
    let query = ListQuery {
        limit: parameters.number("limit", PAGE_MAX)?,
        cursor: parameters.get("cursor").unwrap_or_default().to_owned(),
        recursive: parameters.flag("recursive")?,
        files,
        folders,
        search: parameters.get("search").unwrap_or_default().to_owned(),
        ..ListQuery::default()
    };
    let Listed { entries, cursor, .. } = page(&request.files, &target, query).await?;
    let above = match target.path.as_str() {
        "" => 0,
        folder => folder.len() + 1,
    };
    let result =
        entries.iter().map(|entry| ToldEntry::of(entry, entry.path.get(above..).unwrap_or_default())).collect();
    Ok(answer::json(StatusCode::OK, json(&ListPage { result, cursor: &cursor })))
}

/// A page of a folder.
pub(crate) async fn page(files: &ProjectFiles, target: &FileTarget, query: ListQuery) -> Result<Listed, Fault> {
    let limit = query.limit;
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(error::bad_request(format!("invalid limit: expected 1 to {PAGE_MAX}, found {limit}")));
    }
    let verdict = files.allowed(access(target, FileOperation::List)).await?;
    // Where entries are left out, a search of storage would tell by its cursors whether one has such a name.
    let is_judged = query.recursive && !verdict.covers;
    let message = ListRequest {
        grant: verdict.grant,
        limit,
        cursor: query.cursor,
        recursive: query.recursive,
        files: query.files,
        folders: query.folders,
        search: if is_judged { String::new() } else { query.search.clone() },
        prefix: query.prefix,
        after: query.after,
    };
    let listed = files.service.mesh().storage().list(&files.caller.call, message).await?;
    let ListResponse { mut entries, cursor } = listed;
    if is_judged {
        let allowed = allowed(files, target, &entries, FileOperation::List).await?;
        let mut allowed = allowed.into_iter();
        let search = query.search.to_lowercase();
        entries.retain(|entry| allowed.next().unwrap_or(false) && name(entry).to_lowercase().contains(&search));
    }
    Ok(Listed { entries, cursor, is_judged })
}

/// Which of the entries below a target the caller may do something with.
pub async fn allowed(
    files: &ProjectFiles,
    target: &FileTarget,
    entries: &[Entry],
    operation: FileOperation,
) -> Result<Vec<bool>, Fault> {
    let accesses = entries.iter().map(|entry| {
        let path = FilePath::from_key(&entry.path)?;
        Ok(access(&FileTarget { path, ..target.clone() }, operation))
    });
    let accesses = accesses.collect::<Result<Vec<_>, query::Error>>()?;
    let verdicts = files.verdicts(accesses, true).await?;
    Ok(verdicts.into_iter().map(|verdict| verdict.grant.is_some()).collect())
}

/// `?op=exist`
pub async fn exist(request: &FilesRequest<'_>) -> Result<Response, Fault> {
    match found(request).await {
        Ok(_) => Ok(answer::json(StatusCode::OK, "{}")),
        // The text is known to clients of earlier servers.
        Err(fault) if fault.code == Code::NotFound => {
            Err(Fault::new(Code::NotFound, "provided file / dir path not found"))
        }
        Err(fault) => Err(fault),
    }
}

/// `?op=info`
pub async fn told_info(request: &FilesRequest<'_>) -> Result<Response, Fault> {
    #[derive(Serialize)]
    struct Info<'a> {
        result: ToldEntry<'a>,
    }
    let entry = found(request).await?;
    Ok(answer::json(StatusCode::OK, json(&Info { result: ToldEntry::of(&entry, name(&entry)) })))
}

/// The last segment of the path of an entry.
fn name(entry: &Entry) -> &str {
    entry.path.rsplit('/').next().unwrap_or_default()
}

async fn found(request: &FilesRequest<'_>) -> Result<Entry, Fault> {
    request.bad_signature_use()?;
    info(&request.files, &request.target()?).await
}

/// What is known of a file or a folder that the caller may read.
pub(crate) async fn info(files: &ProjectFiles, target: &FileTarget) -> Result<Entry, Fault> {
    let grant = files.grant(access(target, FileOperation::Read)).await?;
    entry(files, grant).await
}

/// What is known of what a grant to read is for.
pub async fn entry(files: &ProjectFiles, grant: Option<SignedGrant>) -> Result<Entry, Fault> {
    let info = files.service.mesh().storage().info(&files.caller.call, InfoRequest { grant }).await?;
    info.entry.ok_or_else(|| missing_part("no entry of a file"))
}
