//! Metrics of what buckets have.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// Bytes and files of buckets.
#[derive(Debug, Default, Clone)]
pub(super) struct FileFamilies {
    bytes: Family<OfBucket, Gauge>,
    files: Family<OfBucket, Gauge>,
}

/// A bucket, by the ids of resources: operators choose them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBucket {
    project: String,
    bucket: String,
}

/// What is measured of a bucket that has quotas.
#[derive(Debug, Clone)]
pub struct FileUsage {
    families: FileFamilies,
    of: OfBucket,
}

impl FileUsage {
    /// Sets how many bytes and files it has.
    pub fn set(&self, bytes: u64, files: u64) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.families.bytes.get_or_create(&self.of).set(number(bytes));
        self.families.files.get_or_create(&self.of).set(number(files));
    }

    /// Forgets it: it has no quotas any longer.
    pub fn forget(&self) {
        self.families.bytes.remove(&self.of);
        self.families.files.remove(&self.of);
    }
}

impl FileFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        let (bytes, files) = (self.bytes.clone(), self.files.clone());
        registry.register("bucket_bytes", "Bytes of the files of a bucket with quotas", bytes);
        registry.register("bucket_files", "Files of a bucket with quotas", files);
    }

    pub(super) fn usage(&self, project: &str, bucket: &str) -> FileUsage {
        let of = OfBucket { project: project.to_owned(), bucket: bucket.to_owned() };
        FileUsage { families: self.clone(), of }
    }
}
