//! Copies of files, and moves.

use futures::TryStreamExt;
use proto::storage::{Description, Precondition};
use query::{
    file::{FilePath, FileTerms},
    media_type,
};

use crate::{
    Error,
    buckets::Bucket,
    content_type::{self, SNIFFED_BYTES},
    object::{Publication, Published},
    put::{self, final_path},
    read::Parts,
};

/// What is copied where.
pub struct Copy<'a> {
    /// Where from.
    pub source: (&'a Bucket, &'a FileTerms),
    /// Where to.
    pub target: (&'a Bucket, &'a FileTerms),
    /// Whether the source is deleted.
    pub is_move: bool,
    /// What must hold of the file at the target.
    pub precondition: Option<Precondition>,
    /// Type and metadata of the copy; absent: those of the source.
    pub description: Option<Description>,
    /// Entity tag that the source must have; empty: any.
    pub source_etag: String,
}

/// Copies or moves a file.
pub async fn run(copy: Copy<'_>) -> Result<Published, Error> {
    let Copy { source: (from_bucket, from_terms), target: (to_bucket, to_terms), is_move, .. } = copy;
    let Copy { precondition, description, source_etag, .. } = copy;
    let (from, to) = (final_path(from_terms)?, final_path(to_terms)?);
    if to.is_root() {
        return Err(Error::IsFolder(to.to_string()));
    }
    let is_one_bucket = (&from_terms.project, &from_terms.bucket) == (&to_terms.project, &to_terms.bucket);
    if is_one_bucket && from == to && description.is_none() {
        return Err(Error::Conflict(format!("{from} cannot be copied to itself")));
    }
    let (source, target) = (from_bucket.backend()?, to_bucket.backend()?);
    let (file, reader) = source.read(from).await?;
    let is_other = !source_etag.is_empty() && source_etag != file.etag;
    if is_other || to_terms.size.is_some_and(|size| size != file.size) {
        // It was replaced since the rules were asked.
        return Err(Error::Precondition);
    }
    let limits = &to_bucket.spec.limits;
    if let Some(limit) = limits.size.filter(|limit| file.size > limit.0) {
        return Err(Error::TooLarge(limit.0));
    }
    let (content_type, meta) = match description {
        Some(Description { content_type, meta }) => (media_type::kept(&content_type, to.name()).to_owned(), meta),
        None => (file.content_type, file.meta),
    };
    put::check_meta(&meta)?;
    content_type::check_declared(&limits.types, &content_type)?;
    let publication = Publication {
        path: to.clone(),
        content_type: content_type.clone(),
        meta: meta.clone(),
        precondition,
        needs_parent: false,
    };
    if is_move
        && is_one_bucket
        && from != to
        && let Some(renamed) = to_bucket.rename(from, &publication).await
    {
        return renamed;
    }
    put::check_size(to_bucket, to, file.size)?;
    to_bucket.check_room(to, file.size, &[]).await?;
    let mut upload = target.begin(Some(to), &content_type, &meta).await?;
    let mut pieces = reader.parts(Parts::Whole);
    let mut beginning = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        let wanted = SNIFFED_BYTES - beginning.len();
        beginning.extend_from_slice(&piece[..wanted.min(piece.len())]);
        upload.write(piece).await?;
    }
    content_type::check(&limits.types, &content_type, &beginning)?;
    let published = to_bucket.publish(upload, publication, file.size, Vec::new()).await?;
    if is_move {
        delete_source(from_bucket, from, file.etag).await?;
    }
    Ok(published)
}

/// Deletes what was moved, unless it was replaced while it was copied.
async fn delete_source(source: &Bucket, from: &FilePath, etag: String) -> Result<(), Error> {
    let unchanged = Precondition { etags: vec![etag], ..Precondition::default() };
    source.delete_file(from, Some(unchanged)).await
}
