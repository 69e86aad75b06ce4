//! Lists of objects: folders of the bucket as the protocol sees them, keys with a common prefix.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mesh::{Code, Fault};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proto::{
    Links,
    storage::{Entry, ListUploadsRequest, ListUploadsResponse},
};
use query::file::{FilePath, PAGE_MAX};
use s3s::dto::{
    CommonPrefix, EncodingType, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput,
    ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, MultipartUpload, Object,
};

use super::{
    description::{etag, moment},
    fault::{invalid, not_implemented},
    multipart::owner,
    objects::bucket,
};
use crate::files::{FileTarget, ListQuery, Listed, ProjectFiles, page};

/// What keys have as they are where they are told percent-encoded.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// Most pages of storage that are looked at for what the caller may list.
const PAGES_MAX: usize = 10;
/// Comes after every character that a key can have.
const LAST: char = '\u{10ffff}';

/// What a list is asked to have.
struct ObjectQuery {
    folder: FileTarget,
    /// The path of the folder with a slash at its end; empty for the root.
    above: String,
    /// What the names in it begin with.
    rest: String,
    recursive: bool,
    limit: u32,
    /// Where it begins.
    from: ListStart,
}

/// Where a list begins.
enum ListStart {
    /// After a key or a common prefix; empty: at the beginning.
    Key(String),
    /// At a cursor of storage.
    Cursor(String),
}

/// A page of a list.
#[derive(Default)]
struct FoundObjects {
    entries: Vec<Entry>,
    /// Where the next one begins; `None` at the end.
    next: Option<ListStart>,
}

impl FoundObjects {
    /// The first `limit` of `entries`, after which there are more if any are left, or as `has_next` says.
    fn cut(mut entries: Vec<Entry>, limit: usize, has_next: bool) -> Self {
        let has_next = has_next || entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| has_next).map(|last| ListStart::Key(key(last)));
        Self { entries, next }
    }
}

impl ObjectQuery {
    fn of(
        files: &ProjectFiles,
        id: &str,
        (prefix, delimiter, limit): (Option<&str>, Option<&str>, Option<i32>),
        from: ListStart,
    ) -> Result<Self, Fault> {
        let recursive = match delimiter.unwrap_or_default() {
            "" => true,
            "/" => false,
            other => return Err(not_implemented(&format!("the delimiter {other:?}"))),
        };
        let limit = u32::try_from(limit.unwrap_or(i32::MAX));
        let limit = limit.map_err(|_| invalid("InvalidArgument", "invalid max-keys: must not be negative"))?;
        let prefix = prefix.unwrap_or_default();
        if prefix.starts_with('/') {
            return Err(invalid("InvalidArgument", "invalid prefix: no key begins with a slash"));
        }
        let (folder, rest) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let mut target = bucket(files, id)?;
        target.path = FilePath::from_key(folder).map_err(Fault::from)?;
        let above = if prefix.contains('/') { format!("{}/", target.path.as_str()) } else { String::new() };
        if !rest.is_empty() {
            // Else no name begins so.
            FilePath::from_key(&format!("x/{rest}")).map_err(Fault::from)?;
        }
        Ok(Self { folder: target, above, rest: rest.to_owned(), recursive, limit: limit.min(PAGE_MAX), from })
    }

    /// The page. Of entries that the caller may not list it tells nothing, not even by whether there is a next one: it
    /// looks ahead to the next that he may, through ten thousand.
    async fn find(self, files: &ProjectFiles) -> Result<FoundObjects, Fault> {
        let limit = self.limit as usize;
        if limit == 0 {
            return Ok(FoundObjects::default());
        }
        let Some(mut query) = self.query()? else { return Ok(FoundObjects::default()) };
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let Listed { entries, cursor, is_judged } = match page(files, &self.folder, query.clone()).await {
                // No key begins so.
                Err(fault) if fault.code == Code::NotFound => return Ok(FoundObjects::default()),
                listed => listed?,
            };
            found.extend(entries);
            let has_next = !cursor.is_empty();
            if !has_next || found.len() > limit || (!is_judged && !found.is_empty()) {
                return Ok(FoundObjects::cut(found, limit, has_next && !is_judged));
            }
            query = ListQuery { cursor, limit: PAGE_MAX, ..query };
        }
        match found.is_empty() {
            true => Ok(FoundObjects { entries: found, next: Some(ListStart::Cursor(query.cursor)) }),
            false => Ok(FoundObjects::cut(found, limit, true)),
        }
    }

    /// What storage is asked for; `None` where all that could be found comes before the beginning.
    fn query(&self) -> Result<Option<ListQuery>, Fault> {
        let query = ListQuery {
            limit: self.limit,
            recursive: self.recursive,
            files: true,
            folders: !self.recursive,
            prefix: self.rest.clone(),
            ..ListQuery::default()
        };
        match &self.from {
            ListStart::Cursor(cursor) => Ok(Some(ListQuery { cursor: cursor.clone(), ..query })),
            ListStart::Key(after) => match after.strip_prefix(&self.above) {
                Some(place) => Ok(Some(ListQuery { after: self.place(place), ..query })),
                None if after.as_str() < self.above.as_str() => Ok(Some(query)),
                None => Ok(None),
            },
        }
    }

    /// The place in the folder after which storage begins for what comes after the key `place` below it.
    fn place(&self, place: &str) -> String {
        match place.split_once('/') {
            // The common prefix itself comes before the key, and what else begins with it comes after.
            Some((first, rest)) if !self.recursive && !rest.is_empty() => format!("{first}.{LAST}"),
            Some(_) | None => place.to_owned(),
        }
    }
}

/// The key of a file, or the common prefix that a folder is.
fn key(entry: &Entry) -> String {
    if entry.is_folder { format!("{}/", entry.path) } else { entry.path.clone() }
}

/// How keys are told.
struct Encoding(bool);

impl Encoding {
    fn of(wanted: Option<&EncodingType>) -> Result<Self, Fault> {
        match wanted.map(EncodingType::as_str) {
            None => Ok(Self(false)),
            Some(EncodingType::URL) => Ok(Self(true)),
            Some(other) => Err(invalid(
                "InvalidArgument",
                format!("invalid encoding-type {other:?}: expected {}", EncodingType::URL),
            )),
        }
    }

    fn told(&self, text: String) -> String {
        if self.0 { utf8_percent_encode(&text, KEY).to_string() } else { text }
    }

    fn objects(&self, entries: Vec<Entry>) -> (Vec<Object>, Vec<CommonPrefix>) {
        let (folders, files): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.is_folder);
        let objects = files.into_iter().map(|entry| Object {
            // Some stores leave them out of their lists.
            e_tag: (!entry.etag.is_empty()).then(|| etag(&entry.etag)),
            size: i64::try_from(entry.size).ok(),
            last_modified: moment(entry.modified_ms),
            key: Some(self.told(entry.path)),
            storage_class: Some(s3s::dto::ObjectStorageClass::from_static(s3s::dto::ObjectStorageClass::STANDARD)),
            ..Object::default()
        });
        let prefixes = folders.iter().map(|entry| CommonPrefix { prefix: Some(self.told(key(entry))) });
        (objects.collect(), prefixes.collect())
    }
}

/// A continuation token: it tells nothing that the caller was not told, or a cursor of storage, which tells nothing.
fn token(next: &ListStart) -> String {
    match next {
        ListStart::Key(key) => format!("k{}", URL_SAFE_NO_PAD.encode(key)),
        ListStart::Cursor(cursor) => format!("c{cursor}"),
    }
}

fn of_token(token: &str) -> Result<ListStart, Fault> {
    let malformed = || invalid("InvalidArgument", "invalid continuation-token");
    match token.split_at_checked(1) {
        Some(("c", cursor)) if !cursor.is_empty() => Ok(ListStart::Cursor(cursor.to_owned())),
        Some(("k", key)) => {
            let key = URL_SAFE_NO_PAD.decode(key).ok().and_then(|key| String::from_utf8(key).ok());
            Ok(ListStart::Key(key.ok_or_else(malformed)?))
        }
        _ => Err(malformed()),
    }
}

/// `ListObjectsV2`
pub async fn list_v2(files: &ProjectFiles, input: ListObjectsV2Input) -> Result<ListObjectsV2Output, Fault> {
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let from = match &input.continuation_token {
        Some(token) => of_token(token)?,
        None => ListStart::Key(input.start_after.clone().unwrap_or_default()),
    };
    let asked = (input.prefix.as_deref(), input.delimiter.as_deref(), input.max_keys);
    let wanted = ObjectQuery::of(files, &input.bucket, asked, from)?;
    let limit = wanted.limit;
    let FoundObjects { entries, next } = wanted.find(files).await?;
    let count = i32::try_from(entries.len()).unwrap_or(i32::MAX);
    let (objects, prefixes) = encoding.objects(entries);
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoding.told(input.prefix.unwrap_or_default())),
        max_keys: i32::try_from(limit).ok(),
        key_count: Some(count),
        continuation_token: input.continuation_token,
        is_truncated: Some(next.is_some()),
        next_continuation_token: next.as_ref().map(token),
        contents: Some(objects),
        common_prefixes: Some(prefixes),
        delimiter: input.delimiter.map(|delimiter| encoding.told(delimiter)),
        encoding_type: input.encoding_type,
        start_after: input.start_after.map(|after| encoding.told(after)),
        ..ListObjectsV2Output::default()
    })
}

/// `ListObjects`
pub async fn list(files: &ProjectFiles, input: ListObjectsInput) -> Result<ListObjectsOutput, Fault> {
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let asked = (input.prefix.as_deref(), input.delimiter.as_deref(), input.max_keys);
    let mut from = ListStart::Key(input.marker.clone().unwrap_or_default());
    loop {
        let wanted = ObjectQuery::of(files, &input.bucket, asked, from)?;
        let limit = wanted.limit;
        let FoundObjects { entries, next } = wanted.find(files).await?;
        let marker = match next {
            // A marker is a key: it goes on here until there is one.
            Some(ListStart::Cursor(cursor)) => {
                from = ListStart::Cursor(cursor);
                continue;
            }
            Some(ListStart::Key(key)) => Some(key),
            None => None,
        };
        let (objects, prefixes) = encoding.objects(entries);
        return Ok(ListObjectsOutput {
            name: Some(input.bucket.clone()),
            prefix: Some(encoding.told(input.prefix.clone().unwrap_or_default())),
            marker: Some(encoding.told(input.marker.clone().unwrap_or_default())),
            max_keys: i32::try_from(limit).ok(),
            is_truncated: Some(marker.is_some()),
            next_marker: marker.map(|marker| encoding.told(marker)),
            contents: Some(objects),
            common_prefixes: Some(prefixes),
            delimiter: input.delimiter.clone().map(|delimiter| encoding.told(delimiter)),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        });
    }
}

/// `ListMultipartUploads`: those of the access key that asks.
pub async fn uploads(
    files: &ProjectFiles,
    input: ListMultipartUploadsInput,
) -> Result<ListMultipartUploadsOutput, Fault> {
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    if input.delimiter.as_deref().is_some_and(|delimiter| !delimiter.is_empty()) {
        return Err(not_implemented("the delimiter of uploads"));
    }
    let target = bucket(files, &input.bucket)?;
    let limit = u32::try_from(input.max_uploads.unwrap_or(i32::MAX));
    let limit = limit.map_err(|_| invalid("InvalidArgument", "invalid max-uploads: must not be negative"))?;
    let limit = limit.clamp(1, PAGE_MAX);
    // No rule is asked of it, and it costs the most.
    files.count_request(std::slice::from_ref(&target.bucket.id)).await?;
    let request = ListUploadsRequest {
        project: files.project.id.to_string(),
        bucket: target.bucket.id.clone(),
        owner: owner(files),
        prefix: input.prefix.clone().unwrap_or_default(),
        after_path: input.key_marker.clone().unwrap_or_default(),
        after_id: input.upload_id_marker.clone().unwrap_or_default(),
        limit,
    };
    let ListUploadsResponse { uploads, more } =
        files.service.mesh().storage().list_uploads(&files.caller.call, request).await?;
    let last = uploads.last().filter(|_| more);
    let (next_key_marker, next_upload_id_marker) =
        (last.map(|last| encoding.told(last.path.clone())), last.map(|last| last.id.clone()));
    let told = uploads.into_iter().map(|upload| MultipartUpload {
        initiated: moment(upload.changed_ms),
        key: Some(encoding.told(upload.path)),
        upload_id: Some(upload.id),
        ..MultipartUpload::default()
    });
    Ok(ListMultipartUploadsOutput {
        uploads: Some(told.collect()),
        is_truncated: Some(more),
        next_key_marker,
        next_upload_id_marker,
        max_uploads: i32::try_from(limit).ok(),
        bucket: Some(input.bucket),
        prefix: input.prefix.map(|prefix| encoding.told(prefix)),
        key_marker: input.key_marker.map(|marker| encoding.told(marker)),
        upload_id_marker: input.upload_id_marker,
        encoding_type: input.encoding_type,
        ..ListMultipartUploadsOutput::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_a_key_or_a_cursor() {
        for next in
            [ListStart::Key("a/b c".to_owned()), ListStart::Key(String::new()), ListStart::Cursor("x".to_owned())]
        {
            let told = match (&next, of_token(&token(&next)).expect("it is ours")) {
                (ListStart::Key(key), ListStart::Key(told)) | (ListStart::Cursor(key), ListStart::Cursor(told)) => {
                    *key == told
                }
                (ListStart::Key(_) | ListStart::Cursor(_), _) => false,
            };
            assert!(told);
        }
        for forged in ["", "c", "k%", "x", "é"] {
            assert!(of_token(forged).is_err(), "{forged}");
        }
    }
}
