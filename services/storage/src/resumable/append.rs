//! Streams with which a resumable upload goes on.

use std::time::Duration;

use mesh::{clock, telemetry::Counter};
use proto::{
    auth::SignedGrant,
    grant::Verifier,
    storage::{Precondition, PutFinish, PutRequest, PutResponse, Resumption, put_request::Part},
};
use query::{
    file::{FileOperation, FileTerms},
    media_type,
};
use tokio::time::Instant;
use tonic::Streaming;

use super::{Uploads, checksum::Verification, ids::UploadId, takeover::Turn};
use crate::{
    Error,
    backend::{Appending, Backend},
    buckets::Bucket,
    content_type,
    object::Publication,
    put::{self, PutError, final_path, terms},
    record::{Record, expires_ms},
};

/// How long a stream waits for the one before to end.
const WAIT: Duration = Duration::from_secs(5);
/// How often it looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// An upload that goes on with a stream.
struct Append<'a> {
    bucket: &'a Bucket,
    name: String,
    record: Record,
    appending: Appending,
    verification: Option<Verification>,
    offset: u64,
    taken_bytes: Counter,
}

/// Goes on with an upload, and publishes it where it is complete and the stream ends with a grant for that.
pub async fn append(
    uploads: &Uploads,
    (grant, resumption): (Option<SignedGrant>, Resumption),
    messages: Streaming<PutRequest>,
) -> Result<PutResponse, PutError> {
    let terms = terms(&uploads.verifier, grant, FileOperation::Create)?;
    let UploadId { bucket, name } = uploads.ids.open(&terms.project, &resumption.id)?;
    let bucket = uploads.buckets.find(&terms.project, &bucket)?;
    let found = bucket.backend()?.find_upload(&name).await?;
    if found.record.in_parts {
        return Err(Error::NoUpload.into());
    }
    check_terms(&terms, &bucket, &found.record)?;
    // The limit may have changed since it was begun.
    put::check_size(&bucket, &found.record.file_path()?, found.record.size)?;
    let verification = resumption.checksum.map(Verification::try_from).transpose()?;
    if found.is_published {
        // Who did not see the answer comes again, with nothing more to send.
        return match resumption.offset == found.record.size {
            true => {
                let (offset, expires_ms) = (found.record.size, found.expires_ms());
                Ok(PutResponse { offset, expires_ms, ..PutResponse::default() })
            }
            false => Err(wrong_offset(found.record.size, resumption.offset).into()),
        };
    }
    let turn = uploads.takeovers.begin(&name);
    let appending = resumed(bucket.backend()?, (&name, verification.is_some()), &turn).await?;
    let offset = appending.offset();
    if offset != resumption.offset {
        return Err(wrong_offset(offset, resumption.offset).into());
    }
    let taken_bytes = uploads.taken_bytes.clone();
    let record = found.record;
    let append = Append { bucket: &bucket, name, record, appending, verification, offset, taken_bytes };
    Box::pin(append.run(&uploads.verifier, messages, &turn)).await
}

/// Whether the grant is for the file of the upload.
fn check_terms(terms: &FileTerms, bucket: &Bucket, record: &Record) -> Result<(), Error> {
    let is_same =
        terms.bucket == bucket.id() && final_path(terms)?.as_str() == record.path && terms.size == Some(record.size);
    if is_same { Ok(()) } else { Err(Error::WrongGrant("it is for another file")) }
}

/// The upload for this stream alone, once the one before has ended.
async fn resumed(backend: &Backend, (name, is_checked): (&str, bool), turn: &Turn) -> Result<Appending, Error> {
    let end = Instant::now() + WAIT;
    loop {
        match backend.resume_upload(name, is_checked).await {
            Err(Error::Busy) if Instant::now() < end && !turn.taken_over.is_cancelled() => {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            resumed => return resumed,
        }
    }
}

fn wrong_offset(has: u64, told: u64) -> Error {
    Error::Conflict(format!("invalid offset: the upload has {has} bytes, found {told}"))
}

impl Append<'_> {
    async fn run(
        mut self,
        verifier: &Verifier,
        mut messages: Streaming<PutRequest>,
        turn: &Turn,
    ) -> Result<PutResponse, PutError> {
        match self.take(&mut messages, turn).await {
            Ok(finish) => Ok(Box::pin(self.finish(verifier, finish)).await?),
            Err(error) => {
                Box::pin(self.broken()).await;
                Err(error)
            }
        }
    }

    /// Takes in what comes, until the stream is finished.
    async fn take(&mut self, messages: &mut Streaming<PutRequest>, turn: &Turn) -> Result<PutFinish, PutError> {
        loop {
            let message = tokio::select! {
                message = messages.message() => message?,
                () = self.appending.is_in_the_way() => return Err(Error::Overloaded.into()),
                () = turn.taken_over.cancelled() => return Err(Error::TakenOver.into()),
            };
            let data = match message.and_then(|message| message.part) {
                Some(Part::Data(data)) => data,
                Some(Part::Finish(finish)) => return Ok(finish),
                Some(Part::Begin(_)) => return Err(Error::Malformed("an upload has one beginning".to_owned()).into()),
                None => return Err(Error::BrokenOff.into()),
            };
            self.offset += data.len() as u64;
            if self.offset > self.record.size {
                return Err(Error::Malformed("the upload has more bytes than were announced".to_owned()).into());
            }
            self.taken_bytes.inc_by(data.len() as u64);
            if let Some(verification) = &mut self.verification {
                verification.update(&data);
            }
            self.appending.write(data).await?;
        }
    }

    /// What has come of a stream that ends early counts, unless it has to be verified as a whole.
    async fn broken(self) {
        let ended = match self.verification {
            Some(_) => self.appending.discard().await,
            None => self.appending.keep().await.map(drop),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "an upload that broke off could not be left in order");
        }
    }

    async fn finish(mut self, verifier: &Verifier, finish: PutFinish) -> Result<PutResponse, Error> {
        if let Some(verification) = self.verification.take()
            && let Err(error) = verification.finish()
        {
            self.appending.discard().await?;
            return Err(error);
        }
        let Self { bucket, name, record, appending, offset, .. } = self;
        let appending = appending.keep().await?;
        let expires_ms = expires_ms(clock::unix_ms(std::time::SystemTime::now()));
        let is_whole = offset == record.size && !record.is_partial;
        let Some(grant) = finish.grant.filter(|_| is_whole) else {
            return Ok(PutResponse { offset, expires_ms, ..PutResponse::default() });
        };
        check_terms(&terms(verifier, Some(grant), FileOperation::Create)?, bucket, &record)?;
        let path = record.file_path()?;
        let content_type = media_type::kept(&record.content_type, path.name()).to_owned();
        let (appending, beginning) = appending.beginning().await?;
        content_type::check(&bucket.spec.limits.types, &content_type, &beginning)?;
        let precondition: Option<Precondition> = finish.precondition;
        let publication =
            Publication { path, content_type, meta: record.meta, precondition, needs_parent: finish.needs_parent };
        let published = Box::pin(bucket.publish_upload(appending, publication, (name, record.size))).await?;
        Ok(PutResponse { entry: Some(published.file.into()), created: published.created, offset, expires_ms })
    }
}
