//! Operations on resumable uploads.

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header as http_header};
use mesh::{Code, Fault, seal};
use proto::{
    Links,
    auth::{FileAccess, SignedGrant, WireFileOperation},
    storage::{
        BeginUploadRequest, BeginUploadResponse, Checksum, ConcatUploadsRequest, DropUploadRequest, FindUploadRequest,
        FindUploadResponse, PutBegin, PutFinish, PutResponse, Resumption,
    },
};
use query::{file::FileOperation, media_type};

use super::{
    concat::Concat,
    empty,
    header::{
        self, Metadata, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_EXPIRES, UPLOAD_LENGTH, UPLOAD_METADATA,
        UPLOAD_OFFSET,
    },
};
use crate::{
    error,
    files::{
        FileTarget, ProjectFiles,
        project_files::access,
        upload::{Put, Sending, checked_type, meta},
    },
    http::{API_PREFIX, claims},
};

/// Media type of bytes of an upload.
const BYTES: &str = "application/offset+octet-stream";

/// A request to resumable uploads of a project.
pub struct UploadRequest<'a> {
    /// The files of the project.
    pub files: ProjectFiles,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Of the upload; empty where new ones are made.
    pub id: &'a str,
}

/// An upload that its caller may begin.
struct NewUpload {
    grant: Option<SignedGrant>,
    content_type: String,
    meta: String,
    /// What tells its creator from others.
    owner: Vec<u8>,
    /// What its creator is told again.
    label: String,
}

impl UploadRequest<'_> {
    /// The answer.
    pub async fn respond(&self, method: &Method, body: &mut Body) -> Result<Response, Fault> {
        match (method, self.id.is_empty()) {
            (&Method::POST, true) => Box::pin(self.create(body)).await,
            (&Method::HEAD, false) => Box::pin(self.tell()).await,
            (&Method::PATCH, false) => Box::pin(self.go_on(body)).await,
            (&Method::DELETE, false) => self.files.within_time(self.end()).await,
            (method, _) => Err(Fault::new(Code::Method, format!("method {method} is not allowed here"))),
        }
    }

    /// `POST`: begins an upload, with its first bytes where they are sent along.
    async fn create(&self, body: &mut Body) -> Result<Response, Fault> {
        if self.headers.contains_key(&UPLOAD_DEFER_LENGTH) {
            return Err(error::bad_request(format!("invalid {UPLOAD_DEFER_LENGTH}: not supported")));
        }
        let has_bytes = self.has_bytes()?;
        if !has_bytes && !body.is_end_stream() {
            return Err(unsupported_type());
        }
        let is_partial = match Concat::of(self.headers, &self.files.project.id)? {
            Concat::Whole => false,
            Concat::Partial => true,
            Concat::Final(ids) => return Box::pin(self.concat(ids, body.is_end_stream())).await,
        };
        let size = header::number(self.headers, &UPLOAD_LENGTH)?;
        let begun = self.files.within_time(self.begin(size, is_partial)).await?;
        let mut response = self.created(&begun.id)?;
        let mut expires_ms = begun.expires_ms;
        // A file without bytes is complete at once.
        if has_bytes || size == 0 {
            let found = self.find(&begun.id).await?;
            let stored = self.append(&found, &begun.id, (0, header::checksum(self.headers)?), body).await?;
            response.headers_mut().insert(UPLOAD_OFFSET, stored.offset.into());
            expires_ms = stored.expires_ms;
        }
        response.headers_mut().extend(header::expires(expires_ms).map(|expires| (UPLOAD_EXPIRES, expires)));
        Ok(response)
    }

    fn created(&self, id: &str) -> Result<Response, Fault> {
        let mut response = empty(StatusCode::CREATED);
        let location = HeaderValue::from_str(&format!("{API_PREFIX}{}/uploads/{id}", self.files.project.id));
        let location = location.map_err(|error| Fault::internal("the upload could not be begun", error))?;
        response.headers_mut().insert(http_header::LOCATION, location);
        Ok(response)
    }

    /// Puts a file together of the uploads with these ids: each was begun by the caller, as a part, and is complete. It may
    /// take as long as to write the file.
    async fn concat(&self, ids: Vec<String>, has_no_body: bool) -> Result<Response, Fault> {
        if self.headers.contains_key(&UPLOAD_LENGTH) || !has_no_body {
            return Err(error::bad_request(
                "a file that is put together has no upload-length, and no bytes of its own",
            ));
        }
        let mut size = 0_u64;
        for id in &ids {
            let found = self.files.within_time(self.own(id)).await?;
            if !found.partial {
                return Err(error::bad_request("invalid upload-concat: an upload was not begun as partial"));
            }
            size = size.saturating_add(found.size);
        }
        let NewUpload { grant, content_type, meta, owner, label } =
            self.files.within_time(self.described(size)).await?;
        let request = ConcatUploadsRequest { grant, content_type, meta, owner, label, ids };
        let joined = self.files.service.mesh().storage().concat_uploads(&self.files.caller.call, request).await?;
        let mut response = self.created(&joined.id)?;
        response.headers_mut().extend(header::expires(joined.expires_ms).map(|expires| (UPLOAD_EXPIRES, expires)));
        Ok(response)
    }

    async fn begin(&self, size: u64, partial: bool) -> Result<BeginUploadResponse, Fault> {
        let NewUpload { grant, content_type, meta, owner, label } = self.described(size).await?;
        let request = BeginUploadRequest { grant, content_type, meta, owner, label, in_parts: false, partial };
        Ok(self.files.service.mesh().storage().begin_upload(&self.files.caller.call, request).await?)
    }

    /// What the metadata of the request says of a file of `size` bytes, and the grant to write it.
    async fn described(&self, size: u64) -> Result<NewUpload, Fault> {
        let metadata = Metadata::of(self.headers)?;
        let path = metadata.get("path");
        if path.is_empty() {
            return Err(Fault::new(Code::Required, "path of upload-metadata is required"));
        }
        let target = FileTarget::file_of_text(&self.files.project, "path of upload-metadata", path)?;
        let content_type = checked_type(metadata.get("filetype"))?;
        let meta = match metadata.get("meta") {
            "" => String::new(),
            text => meta(text)?,
        };
        let access = FileAccess {
            size: Some(size),
            no_size: false,
            content_type: media_type::kept(&content_type, target.path.name()).to_owned(),
            meta: meta.clone(),
            ..access(&target, FileOperation::Create)
        };
        let grant = self.files.grant(access).await?;
        let owner = self.bearer().await?;
        Ok(NewUpload { grant, content_type, meta, owner, label: metadata.label })
    }

    /// `HEAD`: how far the upload is. One that is complete is published first: a client that is told so sends nothing more.
    async fn tell(&self) -> Result<Response, Fault> {
        let found = self.own(self.id).await?;
        self.files.grant(access_of(&found)).await?;
        let (mut offset, mut expires_ms) = (found.offset, found.expires_ms);
        if offset == found.size && !found.published && !found.partial {
            let stored = self.append(&found, self.id, (offset, None), &mut Body::empty()).await?;
            (offset, expires_ms) = (stored.offset, stored.expires_ms);
        }
        let mut response = empty(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(UPLOAD_OFFSET, offset.into());
        headers.insert(UPLOAD_LENGTH, found.size.into());
        if !found.label.is_empty() {
            headers.extend(HeaderValue::from_str(&found.label).ok().map(|label| (UPLOAD_METADATA, label)));
        }
        headers.extend(header::expires(expires_ms).map(|expires| (UPLOAD_EXPIRES, expires)));
        headers.extend(Concat::told(&found, &self.files.project.id).map(|told| (UPLOAD_CONCAT, told)));
        Ok(response)
    }

    /// `PATCH`: more bytes.
    async fn go_on(&self, body: &mut Body) -> Result<Response, Fault> {
        if !self.has_bytes()? {
            return Err(unsupported_type());
        }
        let offset = header::number(self.headers, &UPLOAD_OFFSET)?;
        let checksum = header::checksum(self.headers)?;
        let found = self.own(self.id).await?;
        if !found.joined_of.is_empty() {
            return Err(Fault::new(Code::Denied, "a file that was put together of uploads takes no bytes"));
        }
        let stored = self.append(&found, self.id, (offset, checksum), body).await?;
        let mut response = empty(StatusCode::NO_CONTENT);
        response.headers_mut().insert(UPLOAD_OFFSET, stored.offset.into());
        response.headers_mut().extend(header::expires(stored.expires_ms).map(|expires| (UPLOAD_EXPIRES, expires)));
        Ok(response)
    }

    /// `DELETE`: the upload ends; a file that was published stays.
    async fn end(&self) -> Result<Response, Fault> {
        let found = self.own(self.id).await?;
        let request = DropUploadRequest { grant: self.files.grant(access_of(&found)).await?, id: self.id.to_owned() };
        self.files.service.mesh().storage().drop_upload(&self.files.caller.call, request).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// Sends the body as bytes from `offset` on, and publishes the file where they complete it.
    async fn append(
        &self,
        found: &FindUploadResponse,
        id: &str,
        (offset, checksum): (u64, Option<Checksum>),
        body: &mut Body,
    ) -> Result<PutResponse, Fault> {
        let announced = HttpBody::size_hint(body).lower();
        if offset.saturating_add(announced) > found.size {
            let message = format!("the upload would have more bytes than upload-length said, which is {}", found.size);
            return Err(Fault::new(Code::TooLarge, message));
        }
        let access = access_of(found);
        let grant = self.files.grant(access.clone()).await?;
        let resumption = Some(Resumption { id: id.to_owned(), offset, checksum });
        let begin = PutBegin { grant, resumption, ..PutBegin::default() };
        let send = async |mut sending: Sending| {
            if !sending.begin(begin).await {
                return Ok(());
            }
            let Some(sent) = sending.body(body).await? else { return Ok(()) };
            let grant = match offset.checked_add(sent) == Some(found.size) && !found.partial {
                // Rules may have changed since it was begun.
                true => self.files.grant(access).await?,
                false => None,
            };
            sending.finish(PutFinish { grant, ..PutFinish::default() }).await;
            Ok(())
        };
        Put::new(&self.files.service).run(&self.files.caller.call, send).await
    }

    /// The upload, if the caller is who began it. Whether they may still write its file is asked by each operation.
    async fn own(&self, id: &str) -> Result<FindUploadResponse, Fault> {
        let found = self.find(id).await?;
        match found.owner.is_empty() || found.owner == self.bearer().await? {
            true => Ok(found),
            false => Err(Fault::new(Code::Denied, "only who began the upload may go on with it")),
        }
    }

    async fn find(&self, id: &str) -> Result<FindUploadResponse, Fault> {
        let request = FindUploadRequest { project: self.files.project.id.to_string(), id: id.to_owned() };
        Ok(self.files.service.mesh().storage().find_upload(&self.files.caller.call, request).await?)
    }

    /// What tells the caller from others: the claims of the token, but for when it was issued; empty without a token.
    ///
    /// Errors: the token is not valid.
    async fn bearer(&self) -> Result<Vec<u8>, Fault> {
        let (caller, project) = (&self.files.caller, &self.files.project);
        if caller.token.is_empty() {
            return Ok(Vec::new());
        }
        // Else a forged token would count for whom it names.
        self.files.service.edge().reach(caller, project).await?;
        let claims = claims::identity(&caller.token).unwrap_or_default();
        Ok(seal::hash_of(&[project.id.as_bytes(), claims.as_bytes()]).as_bytes().to_vec())
    }

    /// Whether the body is bytes of an upload. Errors: it is of another type.
    fn has_bytes(&self) -> Result<bool, Fault> {
        match self.headers.get(http_header::CONTENT_TYPE).map(HeaderValue::as_bytes) {
            None | Some(b"") => Ok(false),
            Some(found) if found.eq_ignore_ascii_case(BYTES.as_bytes()) => Ok(true),
            Some(_) => Err(unsupported_type()),
        }
    }
}

fn unsupported_type() -> Fault {
    Fault::new(Code::UnsupportedType, format!("invalid content-type: expected {BYTES}"))
}

/// The access of who goes on with an upload: to write the file that it will be.
fn access_of(found: &FindUploadResponse) -> FileAccess {
    let name = found.path.rsplit('/').next().unwrap_or(&found.path);
    FileAccess {
        bucket: found.bucket.clone(),
        operation: WireFileOperation::from(FileOperation::Create).into(),
        path: Some(found.path.clone()),
        size: Some(found.size),
        content_type: media_type::kept(&found.content_type, name).to_owned(),
        meta: found.meta.clone(),
        no_size: false,
    }
}
