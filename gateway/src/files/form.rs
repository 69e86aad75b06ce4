//! Uploads and folders by a form, or by parameters of the address, as clients of earlier servers send them. Source: RFC
//! 7578.
//!
//! Fields may come in any order: a file whose path is not known yet is taken in, and published once it is.

use std::path::Path as FileName;

use axum::{body::Body, response::Response};
use bytes::BytesMut;
use http::{HeaderValue, StatusCode, header};
use mesh::{Code, Fault};
use multer::{Field, Multipart};
use proto::{
    Links,
    auth::FileAccess,
    storage::{MakeFolderRequest, PutBegin, PutFinish},
};
use query::{
    file::{FileOperation, FilePath},
    media_type,
};

use super::{
    FilesRequest, ProjectFiles, conditional, missing_part, precondition,
    project_files::access,
    target::FileTarget,
    upload::{self, MESSAGE_BYTES, Put, Sending, TakenAhead},
};
use crate::{error, http::answer};

/// Most bytes of a field that is no file.
const FIELD_BYTES: usize = 64 * 1024;
/// Most fields of a form.
const FIELDS_MAX: usize = 32;

/// Fields of a form, those of the address among them.
#[derive(Debug, Default, Clone)]
struct FormFields(Vec<(String, String)>);

impl FormFields {
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Takes a field of the form: it wins over the address.
    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Whether folders that are missing are made; that they are is the default.
    fn makes_parents(&self) -> Result<bool, Fault> {
        match self.get("makeAll") {
            None | Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            // The text is known to clients of earlier servers.
            Some(_) => Err(error::bad_request("Incorrect value for makeAll")),
        }
    }

    fn is_file(&self) -> Result<bool, Fault> {
        match self.get("fileType") {
            Some("file") => Ok(true),
            None | Some("dir" | "folder") => Ok(false),
            Some(other) => Err(error::bad_request(format!("invalid fileType {other:?}: expected file, dir or folder"))),
        }
    }

    /// The folder that `path` names.
    fn folder(&self, request: &FilesRequest<'_>) -> Result<FileTarget, Fault> {
        let path = self.get("path").ok_or_else(|| error::bad_request("the field path is missing"))?;
        if !path.starts_with('/') {
            return Err(Fault::new(
                Code::Denied,
                format!("invalid path {path:?}: no rule is about paths without a slash at their beginning"),
            ));
        }
        FileTarget::of_text(&request.files.project, path)
    }

    fn meta(&self) -> Result<String, Fault> {
        self.get("meta").map_or(Ok(String::new()), upload::meta)
    }
}

/// The answer to a form.
pub async fn post(request: &FilesRequest<'_>, body: &mut Body) -> Result<Response, Fault> {
    request.bad_signature_use()?;
    let mut fields = FormFields::default();
    for name in ["path", "fileType", "makeAll", "name", "fileName", "meta"] {
        if let Some(value) = request.parameters.get(name) {
            fields.set(name, value.to_owned());
        }
    }
    let content_type = request.head.headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str);
    let content_type =
        content_type.transpose().map_err(|_| error::bad_request("invalid content-type: expected ASCII"))?;
    let content_type = content_type.unwrap_or_default();
    if content_type.starts_with("multipart/form-data") {
        let boundary = multer::parse_boundary(content_type).map_err(|error| malformed(&error))?;
        let ahead = TakenAhead::default();
        let form =
            Multipart::new(ahead.stream(std::mem::take(body), request.files.service.config().write_timeout), boundary);
        return Box::pin(Form { request, fields, form, ahead, count: 0 }.answer()).await;
    }
    if content_type.starts_with("application/x-www-form-urlencoded") {
        let read =
            crate::http::body::read(request.files.service.config(), &request.files.project, std::mem::take(body));
        let text = request.within_time(read).await?;
        let pairs: Vec<(String, String)> = axum::extract::Query::try_from_uri(&as_query(&text)?)
            .map_err(|error| error::bad_request(format!("invalid body: {error}")))?
            .0;
        pairs.into_iter().for_each(|(name, value)| fields.set(&name, value));
    }
    without_file(request, &fields).await
}

/// A form without a file.
async fn without_file(request: &FilesRequest<'_>, fields: &FormFields) -> Result<Response, Fault> {
    if fields.is_file()? {
        return Err(error::bad_request("Incorrect value for file: the form has no file"));
    }
    request.within_time(make_folder(request, fields)).await
}

/// A body of fields as the query of an address.
fn as_query(body: &[u8]) -> Result<http::Uri, Fault> {
    let text = std::str::from_utf8(body).map_err(|_| error::bad_request("invalid body: not UTF-8"))?;
    format!("/?{text}").parse().map_err(|_| error::bad_request("invalid body: expected fields, percent-encoded"))
}

fn malformed(error: &multer::Error) -> Fault {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast_ref::<Fault>() {
            Some(fault) => fault.clone(),
            None => error::bad_request("the body broke off"),
        },
        other => error::bad_request(format!("invalid form: {other}")),
    }
}

/// Makes the folder that the fields name.
async fn make_folder(request: &FilesRequest<'_>, fields: &FormFields) -> Result<Response, Fault> {
    let makes_parents = fields.makes_parents()?;
    let mut target = fields.folder(request)?;
    if let Some(name) = fields.get("name") {
        target.path = child(&target.path, name)?;
    }
    make(&request.files, &target, !makes_parents, fields.meta()?).await?;
    Ok(answer::json(StatusCode::OK, "{}"))
}

/// Makes a folder that the caller may create, with metadata that was checked.
pub(crate) async fn make(
    files: &ProjectFiles,
    target: &FileTarget,
    needs_parent: bool,
    meta: String,
) -> Result<(), Fault> {
    let grant = files.grant(FileAccess { meta, ..access(target, FileOperation::Create) }).await?;
    files.service.mesh().storage().make_folder(&files.caller.call, MakeFolderRequest { grant, needs_parent }).await?;
    Ok(())
}

/// `name` in a folder. Errors: it is no name of one segment. The text is known to clients of earlier servers.
pub(crate) fn child(folder: &FilePath, name: &str) -> Result<FilePath, Fault> {
    folder.child(name).map_err(|error| error::bad_request(format!("invalid file name: {error}")))
}

/// A form that is read.
struct Form<'a> {
    request: &'a FilesRequest<'a>,
    fields: FormFields,
    form: Multipart<'static>,
    ahead: TakenAhead,
    count: usize,
}

impl Form<'_> {
    async fn answer(mut self) -> Result<Response, Fault> {
        while let Some(field) = self.next_field().await? {
            match field.name() {
                Some("file") => return Box::pin(self.file(field)).await,
                Some(name) => {
                    let name = name.to_owned();
                    self.field(&name, field).await?;
                }
                None => {}
            }
        }
        without_file(self.request, &self.fields).await
    }

    async fn next_field(&mut self) -> Result<Option<Field<'static>>, Fault> {
        let field = self.form.next_field().await.map_err(|error| malformed(&error))?;
        self.ahead.told();
        self.count += usize::from(field.is_some());
        match self.count > FIELDS_MAX {
            true => Err(error::bad_request(format!("the form is over the limit of {FIELDS_MAX} fields"))),
            false => Ok(field),
        }
    }

    /// Keeps the text of a field.
    async fn field(&mut self, name: &str, mut field: Field<'static>) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(|error| malformed(&error))? {
            self.ahead.told();
            bytes.extend_from_slice(&chunk);
            if bytes.len() > FIELD_BYTES {
                return Err(error::bad_request(format!("field {name} is over the limit of {FIELD_BYTES} bytes")));
            }
        }
        let text =
            String::from_utf8(bytes).map_err(|_| error::bad_request(format!("invalid field {name}: not UTF-8")))?;
        self.fields.set(name, text);
        Ok(())
    }

    /// Takes in the file of the form, and publishes it after the last field.
    async fn file(self, field: Field<'static>) -> Result<Response, Fault> {
        let request = self.request;
        let given_name = field.file_name().map(base_name).map(str::to_owned);
        let content_type = upload::checked_type(field.content_type().map(AsRef::as_ref).unwrap_or_default())?;
        // Without a path it goes to the default bucket.
        let begun = match self.fields.get("path") {
            Some(_) => Some(self.fields.folder(request)?),
            None => None,
        };
        let bucket = match &begun {
            Some(folder) => folder.bucket.clone(),
            None => FileTarget::of_text(&request.files.project, "/")?.bucket,
        };
        let provisional = FileAccess {
            bucket: bucket.id.clone(),
            path: None,
            no_size: false,
            content_type: content_type.clone(),
            ..access(&FileTarget { bucket: bucket.clone(), path: FilePath::default() }, FileOperation::Create)
        };
        let grant = request.files.grant(provisional).await?;
        let meta = self.fields.meta()?;
        let begin = PutBegin { grant, content_type: content_type.clone(), meta, ..PutBegin::default() };
        let put = Put::new(&request.files.service);
        let response = put
            .run(&request.files.caller.call, async |sending: Sending| {
                let upload = FormUpload { form: self, sending, given_name, content_type, bucket_id: bucket.id.clone() };
                Box::pin(upload.run(field, begin)).await
            })
            .await?;
        let entry = response.entry.ok_or_else(|| missing_part("no entry of a file"))?;
        let mut response = answer::json(StatusCode::OK, "{}");
        response.headers_mut().insert(header::ETAG, conditional::etag(&entry.etag)?);
        Ok(response)
    }
}

/// The file of a form on its way to storage.
struct FormUpload<'a> {
    form: Form<'a>,
    sending: Sending,
    /// The name that the part of the form has.
    given_name: Option<String>,
    content_type: String,
    bucket_id: String,
}

impl FormUpload<'_> {
    async fn run(mut self, mut field: Field<'static>, begin: PutBegin) -> Result<(), Fault> {
        if !self.sending.begin(begin).await {
            return Ok(());
        }
        let mut size = 0;
        let mut waiting = BytesMut::new();
        loop {
            let next = async { field.chunk().await.map_err(|error| malformed(&error)) };
            let Some(chunk) = self.sending.wait(next).await? else { return Ok(()) };
            self.form.ahead.told();
            let is_last = chunk.is_none();
            if let Some(chunk) = chunk {
                size += chunk.len() as u64;
                waiting.extend_from_slice(&chunk);
            }
            let is_due = waiting.len() >= MESSAGE_BYTES || is_last && !waiting.is_empty();
            if is_due && !self.sending.data(waiting.split().freeze()).await {
                return Ok(());
            }
            if is_last {
                break;
            }
        }
        drop(field);
        loop {
            let Some(field) = self.sending_field().await? else { return Ok(()) };
            let Some(field) = field else { break };
            match field.name() {
                Some("file") => return Err(error::bad_request("the form has two files")),
                Some(name) => {
                    let name = name.to_owned();
                    self.form.field(&name, field).await?;
                }
                None => {}
            }
        }
        self.finish(size).await
    }

    /// The next field; `None` where storage has ended.
    async fn sending_field(&mut self) -> Result<Option<Option<Field<'static>>>, Fault> {
        let Self { form, sending, .. } = self;
        sending.wait(form.next_field()).await
    }

    /// Publishes the file where the fields say, if the rules let its sender write it there.
    async fn finish(mut self, size: u64) -> Result<(), Fault> {
        let (request, fields) = (self.form.request, &self.form.fields);
        if !fields.is_file()? {
            return Err(error::bad_request("a form with a file needs the field fileType, which must be file"));
        }
        let makes_parents = fields.makes_parents()?;
        let mut target = fields.folder(request)?;
        if target.bucket.id != self.bucket_id {
            return Err(error::bad_request(
                "the field path must come before the file: it is of another bucket than the default one",
            ));
        }
        let name = fields.get("fileName").or(self.given_name.as_deref());
        let name = name
            .ok_or_else(|| error::bad_request("Incorrect value for file: it has no name, and there is no fileName"))?;
        target.path = child(&target.path, name)?;
        let meta = fields.meta()?;
        let access = FileAccess {
            size: Some(size),
            no_size: false,
            content_type: media_type::kept(&self.content_type, target.path.name()).to_owned(),
            meta: meta.clone(),
            ..access(&target, FileOperation::Create)
        };
        let grant = request.files.grant(access).await?;
        let precondition = precondition(request)?;
        self.sending.finish(PutFinish { grant, meta, precondition, needs_parent: !makes_parents }).await;
        Ok(())
    }
}

/// The last part of the name that a browser gives: some send whole paths.
fn base_name(name: &str) -> &str {
    FileName::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name)
}
