//! The operations that are supported; all others are answered `NotImplemented`.

use std::sync::Arc;

use mesh::Fault;
use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
        GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
        HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
        ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
        ListObjectsV2Output, ListPartsInput, ListPartsOutput, PutObjectInput, PutObjectOutput, UploadPartCopyInput,
        UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
    },
    s3_error,
};

use super::{fault::error_of, listing, multipart, objects};
use crate::files::ProjectFiles;

/// S3Operations on the files that a request brings along.
pub struct S3Operations;

/// The files that a request is about.
fn files<T>(request: &S3Request<T>) -> S3Result<Arc<ProjectFiles>> {
    let files = request.extensions.get::<Arc<ProjectFiles>>().cloned();
    files.ok_or_else(|| s3_error!(AccessDenied, "Signature is required"))
}

/// The outcome of an operation. Large ones come in a box: their futures would be in those of all layers.
async fn answered<T: Send>(work: impl Future<Output = Result<T, Fault>> + Send) -> S3Result<S3Response<T>> {
    work.await.map(S3Response::new).map_err(error_of)
}

/// Runs an operation within the time of a request.
fn within<'a, T: Send + 'a>(
    files: &'a ProjectFiles,
    work: impl Future<Output = Result<T, Fault>> + Send + 'a,
) -> impl Future<Output = Result<T, Fault>> + Send + 'a {
    files.within_time(work)
}

#[tonic::async_trait]
impl S3 for S3Operations {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let files = files(&request)?;
        Box::pin(objects::get(&files, request)).await.map_err(error_of)
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(objects::put(files, request))).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, objects::head(files, request)))).await
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, objects::delete(files, request)))).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, objects::delete_many(files, request)))).await
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(objects::copy(files, request))).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, listing::list_v2(files, request.input)))).await
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, listing::list(files, request.input)))).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, multipart::create(files, request)))).await
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(multipart::put(files, request.input))).await
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(multipart::copy(files, request))).await
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, multipart::list(files, request.input)))).await
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, listing::uploads(files, request.input)))).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let files = &files(&request)?;
        answered(Box::pin(within(files, multipart::abort(files, request.input)))).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let files = files(&request)?;
        answered(Box::pin(multipart::complete(files, request))).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let files = files(&request)?;
        objects::bucket(&files, &request.input.bucket).map_err(error_of)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let files = files(&request)?;
        objects::bucket(&files, &request.input.bucket).map_err(error_of)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let files = files(&request)?;
        let ids = files.project.buckets.iter().map(|bucket| bucket.id.clone());
        let buckets = ids.map(|id| Bucket { name: Some(id), ..Bucket::default() }).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
    }
}
