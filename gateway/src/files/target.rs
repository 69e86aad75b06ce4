//! The bucket and the path that an address, or a text, names.

use std::sync::Arc;

use mesh::{Code, Fault};
use query::file::FilePath;

use crate::{
    catalogue::{BucketSettings, Project},
    error,
};

/// A bucket and a path in it.
#[derive(Debug, Clone)]
pub(crate) struct FileTarget {
    /// The bucket.
    pub(crate) bucket: Arc<BucketSettings>,
    /// The path in it.
    pub(crate) path: FilePath,
}

impl FileTarget {
    /// What the part of an address after `files/` names.
    ///
    /// Errors: `BAD_REQUEST` for what no path may be; `UNKNOWN_BUCKET`.
    pub(crate) fn of_address(project: &Project, encoded: &str) -> Result<Self, Fault> {
        Self::of(project, FilePath::from_address(encoded)?)
    }

    /// What a text with a slash at its beginning names. Errors: likewise.
    pub(crate) fn of_text(project: &Project, text: &str) -> Result<Self, Fault> {
        Self::of(project, FilePath::parse(text)?)
    }

    /// What a text names as a file. Errors: likewise; it can only be a folder: it is the field `name` of a request.
    pub(crate) fn file_of_text(project: &Project, name: &str, text: &str) -> Result<Self, Fault> {
        let target = Self::of_text(project, text)?;
        match target.path.is_root() || text.ends_with('/') {
            true => Err(error::bad_request(format!("invalid {name}: {text} is a folder"))),
            false => Ok(target),
        }
    }

    /// The first segment is the id of a bucket, unless it is of the default bucket or of none; then all of the path is of
    /// the default bucket.
    fn of(project: &Project, path: FilePath) -> Result<Self, Fault> {
        let default = project.default_bucket();
        if let Some((first, rest)) = path.split_first()
            && let Some(bucket) = project.buckets.iter().find(|bucket| bucket.id == first)
            && default.is_none_or(|default| !Arc::ptr_eq(default, bucket))
        {
            return Ok(Self { bucket: bucket.clone(), path: rest? });
        }
        if let Some(bucket) = default {
            return Ok(Self { bucket: bucket.clone(), path });
        }
        let unknown = |message: String| Fault::new(Code::UnknownBucket, message);
        Err(match path.split_first() {
            // The text is known to clients of earlier servers.
            _ if project.buckets.is_empty() => unknown("This feature isn't enabled".to_owned()),
            Some((first, _)) => unknown(format!("bucket {first} is not known")),
            None => unknown("the path must begin with the id of a bucket: the project has no default one".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use query::resources::Bucket;

    use super::*;

    fn project(buckets: &[(&str, bool)]) -> Project {
        let bucket = |(id, default): &(&str, bool)| {
            Arc::new(BucketSettings { id: (*id).to_owned(), spec: Bucket { default: *default, ..Bucket::default() } })
        };
        Project {
            id: "shop".into(),
            spec: query::resources::Project::default(),
            databases: Vec::new(),
            buckets: buckets.iter().map(bucket).collect(),
            services: Vec::new(),
            hooks: Arc::default(),
            has_events: false,
            version: 1,
        }
    }

    fn named(buckets: &[(&str, bool)], encoded: &str) -> Result<(String, String), Code> {
        let target = FileTarget::of_address(&project(buckets), encoded).map_err(|fault| fault.code)?;
        Ok((target.bucket.id.clone(), target.path.to_string()))
    }

    fn ok(bucket: &str, path: &str) -> Result<(String, String), Code> {
        Ok((bucket.to_owned(), path.to_owned()))
    }

    #[test]
    fn the_default_bucket_or_the_only_one_needs_no_id() {
        assert_eq!(named(&[("a", false)], "x/y"), ok("a", "/x/y"));
        assert_eq!(named(&[("a", false)], "a/y"), ok("a", "/a/y"));
        let two = [("a", true), ("b", false)];
        assert_eq!(named(&two, "x/y"), ok("a", "/x/y"));
        assert_eq!(named(&two, "b/y"), ok("b", "/y"));
        assert_eq!(named(&two, "b"), ok("b", "/"));
        assert_eq!(named(&two, ""), ok("a", "/"));
    }

    #[test]
    fn an_unknown_bucket_is_told() {
        let two = [("a", false), ("b", false)];
        for path in ["x/y", ""] {
            assert_eq!(named(&two, path), Err(Code::UnknownBucket), "{path}");
        }
        assert_eq!(named(&[], "x"), Err(Code::UnknownBucket));
        assert_eq!(named(&two, "a/y"), ok("a", "/y"));
    }

    #[test]
    fn the_path_of_a_bucket_is_checked_without_its_id() {
        assert_eq!(named(&[("a", true), ("b", false)], "b/.perigee/x"), Err(Code::BadRequest));
        assert_eq!(named(&[], "a/%2e%2e/x"), Err(Code::BadRequest), "before anything is told of buckets");
    }
}
