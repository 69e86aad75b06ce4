//! The service and its RPCs.

use futures::{StreamExt, TryStreamExt, stream};
use mesh::{Mesh, Tasks, resources::Current, telemetry::Counter};
use proto::{
    auth::SignedGrant,
    grant::Verifier,
    link::Messages,
    services::storage::storage_server::Storage,
    storage::{
        BeginUploadRequest, BeginUploadResponse, ConcatUploadsRequest, ConcatUploadsResponse, CopyRequest,
        CopyResponse, DeleteRequest, DeleteResponse, DropUploadRequest, DropUploadResponse, FindUploadRequest,
        FindUploadResponse, GetRequest, GetResponse, Head, ImageRequest, InfoRequest, InfoResponse, JoinPartsRequest,
        JoinPartsResponse, ListPartsRequest, ListPartsResponse, ListRequest, ListResponse, ListUploadsRequest,
        ListUploadsResponse, MakeFolderRequest, MakeFolderResponse, PutRequest, PutResponse, get_response::Part,
    },
};
use query::file::{FileOperation, FilePath, FileTerms};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Config, Error,
    backend::Reader,
    buckets::{Bucket, Buckets},
    copy::{self, Copy},
    cursor::CursorKeys,
    images::{ImageSource, Images, MadeImage, WantedImage},
    list::PageRequest,
    object::{File, Published},
    put::{self, PutError, final_path},
    read::{Parts, Pieces},
    resumable::Uploads,
};

/// The storage service.
#[derive(Clone)]
pub struct Service {
    buckets: Buckets,
    verifier: Verifier,
    cursor_keys: CursorKeys,
    uploads: Uploads,
    images: Images,
    /// Bytes of files that were taken in and handed out.
    taken_bytes: Counter,
    given_bytes: Counter,
}

impl Service {
    /// Starts with the buckets of the resources in force, and follows them.
    pub fn start(mesh: Mesh, config: Config, current: Current, verifier: Verifier, tasks: Tasks) -> Self {
        let cursor_keys = CursorKeys::new(&config.cursor_secret);
        let secret = config.cursor_secret.clone();
        let metrics = mesh.metrics();
        let images = Images::new(config.images.clone(), metrics.images());
        let buckets = Buckets::start(&mesh, config, current, &tasks);
        let taken_bytes = metrics.file_bytes("in");
        let uploads = Uploads::new(buckets.clone(), verifier.clone(), &secret, taken_bytes.clone());
        Self { buckets, verifier, cursor_keys, uploads, images, taken_bytes, given_bytes: metrics.file_bytes("out") }
    }

    /// What a grant is for: its bucket, and its terms, which are not provisional.
    fn granted(&self, grant: Option<SignedGrant>, operation: FileOperation) -> Result<Granted, Error> {
        let terms = put::terms(&self.verifier, grant, operation)?;
        let path = final_path(&terms)?.clone();
        let bucket = self.buckets.find(&terms.project, &terms.bucket)?;
        Ok(Granted { bucket, terms, path })
    }

    async fn read(&self, request: GetRequest) -> Result<Messages<GetResponse>, Error> {
        let GetRequest { grant, ranges, ranges_if_etag, ranges_if_modified_s, image } = request;
        let Granted { bucket, path, .. } = self.granted(grant, FileOperation::Read)?;
        let wanted = image.map(|image| self.wanted_image(&bucket, image)).transpose()?;
        let (file, reader) = bucket.backend()?.read(&path).await?;
        let (file, content) = match wanted {
            None => (file, Content::File(reader)),
            Some(wanted) => Box::pin(self.image((&bucket, file, reader), wanted)).await?,
        };
        let is_meant = ranges_if_etag.is_none_or(|etag| etag == file.etag)
            && ranges_if_modified_s.is_none_or(|second| second == file.modified_ms.div_euclid(1000));
        let parts = if is_meant { Parts::of(&ranges, file.size) } else { Parts::Whole };
        let unsatisfiable = parts == Parts::Unsatisfiable;
        let head = Head { parts: parts.to_wire(), unsatisfiable, entry: Some(file.into()) };
        let head = GetResponse { part: Some(Part::Head(head)) };
        let given_bytes = self.given_bytes.clone();
        let data = content.parts(parts).map_ok(move |data| {
            given_bytes.inc_by(data.len() as u64);
            GetResponse { part: Some(Part::Data(data)) }
        });
        Ok(stream::iter([Ok(head)]).chain(data.map_err(Status::from)).boxed())
    }

    /// What of an image is wanted, and entity tags that the caller has.
    fn wanted_image(&self, bucket: &Bucket, image: ImageRequest) -> Result<(WantedImage, Vec<String>), Error> {
        if bucket.spec.images.is_empty() {
            return Err(Error::NoImages(bucket.id().to_owned()));
        }
        Ok((WantedImage::new(&image, self.images.side())?, image.known_etags))
    }

    /// The image that is made of a file.
    async fn image(
        &self,
        (bucket, file, reader): (&Bucket, File, Reader),
        (wanted, known_etags): (WantedImage, Vec<String>),
    ) -> Result<(File, Content), Error> {
        let etag = wanted.etag(&file.etag, file.size);
        if known_etags.contains(&etag) {
            return Ok((File { size: 0, etag, ..file }, Content::None));
        }
        let made = Box::pin(self.images.image(ImageSource { bucket, file: &file, reader }, &wanted)).await?;
        Ok((made.file(file, etag), Content::Image(made)))
    }

    async fn list_page(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let grant = request.grant.clone();
        let granted = match self.granted(grant.clone(), FileOperation::List) {
            // Whoever deletes a folder is told what that takes along.
            Err(Error::WrongGrant(_)) => self.granted(grant, FileOperation::Delete)?,
            granted => granted?,
        };
        let Granted { bucket, terms, path } = granted;
        let cursors = self.cursor_keys.of(&terms);
        let page = bucket.backend()?.list(&path, PageRequest::new(request, &path, &cursors)?).await?;
        let cursor = cursors.seal(&page.last);
        Ok(ListResponse { entries: page.entries.into_iter().map(Into::into).collect(), cursor })
    }

    async fn make(&self, request: MakeFolderRequest) -> Result<(), Error> {
        let Granted { bucket, path, .. } = self.granted(request.grant, FileOperation::Create)?;
        bucket.backend()?.make_folder(&path, request.needs_parent).await
    }

    async fn remove(&self, request: DeleteRequest) -> Result<bool, Error> {
        let Granted { bucket, path, .. } = self.granted(request.grant, FileOperation::Delete)?;
        if path.is_root() {
            return Err(Error::Malformed("refusing to delete the root".to_owned()));
        }
        match request.folder {
            true => bucket.delete_folder(&path, request.judged.to_vec()).await,
            false => bucket.delete_file(&path, request.precondition).await.map(|()| true),
        }
    }

    async fn stored(&self, mut messages: Streaming<PutRequest>) -> Result<PutResponse, PutError> {
        let mut begin = put::beginning(&mut messages).await?;
        if let Some(resumption) = begin.resumption.take() {
            return Box::pin(self.uploads.append(begin.grant, resumption, messages)).await;
        }
        if let Some(part) = begin.part.take() {
            return Box::pin(self.uploads.put_part(begin.grant, part, messages)).await;
        }
        let Published { file, created } = Box::pin(put::put((&self.buckets, &self.verifier), begin, messages)).await?;
        self.taken_bytes.inc_by(file.size);
        Ok(PutResponse { entry: Some(file.into()), created, ..PutResponse::default() })
    }

    async fn copied(&self, request: CopyRequest) -> Result<Published, Error> {
        let CopyRequest { source, target, delete, precondition, description, source_etag } = request;
        let source = self.granted(source, FileOperation::Read)?;
        let target = self.granted(target, FileOperation::Create)?;
        let deleted = delete.map(|delete| self.granted(Some(delete), FileOperation::Delete)).transpose()?;
        if deleted
            .as_ref()
            .is_some_and(|deleted| (&deleted.terms.bucket, &deleted.path) != (&source.terms.bucket, &source.path))
        {
            return Err(Error::WrongGrant("it is for another file"));
        }
        let copy = Copy {
            source: (&source.bucket, &source.terms),
            target: (&target.bucket, &target.terms),
            is_move: deleted.is_some(),
            precondition,
            description,
            source_etag,
        };
        Box::pin(copy::run(copy)).await
    }
}

/// Bytes that are handed out.
enum Content {
    /// Those of a file.
    File(Reader),
    /// Those of an image that was made of a file.
    Image(MadeImage),
    /// None: the caller has them.
    None,
}

impl Content {
    fn parts(self, parts: Parts) -> Pieces {
        match self {
            Content::File(reader) => reader.parts(parts),
            Content::Image(image) => image.parts(parts),
            Content::None => stream::empty().boxed(),
        }
    }
}

/// What a grant is for.
struct Granted {
    bucket: Arc<Bucket>,
    terms: FileTerms,
    path: FilePath,
}

#[tonic::async_trait]
impl Storage for Service {
    async fn put(&self, request: Request<Streaming<PutRequest>>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(Box::pin(self.stored(request.into_inner())).await?))
    }

    type GetStream = Messages<GetResponse>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Messages<GetResponse>>, Status> {
        Ok(Response::new(self.read(request.into_inner()).await?))
    }

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let Granted { bucket, path, .. } = self.granted(request.into_inner().grant, FileOperation::Read)?;
        let entry = bucket.backend()?.info(&path).await?;
        Ok(Response::new(InfoResponse { entry: Some(entry.into()) }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Ok(Response::new(Box::pin(self.list_page(request.into_inner())).await?))
    }

    async fn make_folder(&self, request: Request<MakeFolderRequest>) -> Result<Response<MakeFolderResponse>, Status> {
        self.make(request.into_inner()).await?;
        Ok(Response::new(MakeFolderResponse {}))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let deleted = self.remove(request.into_inner()).await?;
        Ok(Response::new(DeleteResponse { deleted }))
    }

    async fn copy(&self, request: Request<CopyRequest>) -> Result<Response<CopyResponse>, Status> {
        let Published { file, created } = Box::pin(self.copied(request.into_inner())).await?;
        Ok(Response::new(CopyResponse { entry: Some(file.into()), created }))
    }

    async fn begin_upload(
        &self,
        request: Request<BeginUploadRequest>,
    ) -> Result<Response<BeginUploadResponse>, Status> {
        Ok(Response::new(self.uploads.begin(request.into_inner()).await?))
    }

    async fn find_upload(&self, request: Request<FindUploadRequest>) -> Result<Response<FindUploadResponse>, Status> {
        Ok(Response::new(self.uploads.find(request.into_inner()).await?))
    }

    async fn drop_upload(&self, request: Request<DropUploadRequest>) -> Result<Response<DropUploadResponse>, Status> {
        self.uploads.remove(request.into_inner()).await?;
        Ok(Response::new(DropUploadResponse {}))
    }

    async fn concat_uploads(
        &self,
        request: Request<ConcatUploadsRequest>,
    ) -> Result<Response<ConcatUploadsResponse>, Status> {
        Ok(Response::new(self.uploads.concat(request.into_inner()).await?))
    }

    async fn list_uploads(
        &self,
        request: Request<ListUploadsRequest>,
    ) -> Result<Response<ListUploadsResponse>, Status> {
        Ok(Response::new(Box::pin(self.uploads.list(request.into_inner())).await?))
    }

    async fn list_parts(&self, request: Request<ListPartsRequest>) -> Result<Response<ListPartsResponse>, Status> {
        Ok(Response::new(self.uploads.list_parts(request.into_inner()).await?))
    }

    async fn join_parts(&self, request: Request<JoinPartsRequest>) -> Result<Response<JoinPartsResponse>, Status> {
        Ok(Response::new(self.uploads.join_parts(request.into_inner()).await?))
    }
}
