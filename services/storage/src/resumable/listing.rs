//! Lists of uploads in parts.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use proto::storage::{ListUploadsRequest, ListUploadsResponse, ListedUpload};
use query::file::PAGE_MAX;

use super::Uploads;
use crate::{Error, record};

/// Uploads that are looked at at once.
const LOOKS: usize = 16;
/// Most uploads of one creator that are looked at.
const LOOKED_AT_MAX: usize = 1000;

/// A page of the uploads of one creator. Only those of the page are held.
pub async fn list(uploads: &Uploads, request: ListUploadsRequest) -> Result<ListUploadsResponse, Error> {
    let ListUploadsRequest { project, bucket: of, owner, prefix, after_path, after_id, limit } = request;
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Error::Malformed(format!("invalid limit: expected 1 to {PAGE_MAX}, found {limit}")));
    }
    let limit = limit as usize;
    let owner = <[u8; 32]>::try_from(owner);
    let owner = owner.map_err(|_| Error::Malformed("invalid owner: expected 32 bytes".to_owned()))?;
    let owner = blake3::Hash::from_bytes(owner).to_hex().to_string();
    let bucket = uploads.buckets.find(&project, &of)?;
    let backend = bucket.backend()?;
    let of_owner = owner.clone();
    let names = backend.upload_names(move |name| record::may_be_of(name, &of_owner)).await?;
    if names.len() > LOOKED_AT_MAX {
        return Err(Error::ManyUnfinished);
    }
    let found = stream::iter(names).map(|name| async move {
        match backend.find_upload(&name).await {
            Ok(found) => Ok(Some((name, found))),
            // It has ended since, or is void.
            Err(Error::NoUpload) => Ok(None),
            Err(error) => Err(error),
        }
    });
    let mut found = Box::pin(found.buffer_unordered(LOOKS));
    let mut page: BTreeMap<(String, String), i64> = BTreeMap::new();
    while let Some(found) = found.try_next().await? {
        let Some((name, found)) = found else { continue };
        let record = found.record;
        let is_own = record.in_parts && !found.is_published && record.owner == owner;
        if !is_own || !record.path.starts_with(&prefix) {
            continue;
        }
        let id = uploads.ids.seal(&project, &of, &name);
        let is_after = record.path > after_path || (!after_id.is_empty() && record.path == after_path && id > after_id);
        if is_after {
            page.insert((record.path, id), found.changed_ms);
        }
        if page.len() > limit + 1 {
            page.pop_last();
        }
    }
    let more = page.len() > limit;
    let uploads = page.into_iter().take(limit);
    let uploads = uploads.map(|((path, id), changed_ms)| ListedUpload { id, path, changed_ms }).collect();
    Ok(ListUploadsResponse { uploads, more })
}
