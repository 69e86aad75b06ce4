//! `meta` and `spec` of buckets.

use std::fmt;

use serde::Deserialize;

use super::Resource;

/// A `bucket` document.
pub type BucketResource = Resource<BucketMeta, Bucket>;

/// `meta` of a bucket.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BucketMeta {
    /// The project's id.
    pub project: String,
    /// The bucket's id in it: letters a to z, digits, `_` and `-`, beginning with a letter or digit.
    pub id: String,
}

/// `spec` of a bucket.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Bucket {
    /// Where the objects are; absent: a folder under the data folder of the node.
    pub backend: BucketBackend,
    /// Whether it is reached without its id; absent: if it is the project's only one.
    pub default: bool,
    /// Who may do what below which prefix: the most specific prefix of a path decides.
    pub rules: Vec<FileRule>,
    /// Limits of objects.
    pub limits: BucketLimits,
    /// `Cache-Control` of downloads.
    pub cache_control: Option<String>,
    /// Whether pages, scripts and drawings that can hold scripts are shown by browsers, instead of being saved.
    pub inline: bool,
    /// Kinds of images that are resized and converted for who asks for that; none: no file is.
    pub images: Vec<ImageKind>,
}

/// A kind of images that can be read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// WebP.
    Webp,
}

impl ImageKind {
    /// All of them.
    pub const ALL: [ImageKind; 3] = [ImageKind::Jpeg, ImageKind::Png, ImageKind::Webp];

    /// Its name, as it stands in documents and addresses.
    pub fn name(self) -> &'static str {
        match self {
            ImageKind::Jpeg => "jpeg",
            ImageKind::Png => "png",
            ImageKind::Webp => "webp",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            ImageKind::Jpeg => "image/jpeg",
            ImageKind::Png => "image/png",
            ImageKind::Webp => "image/webp",
        }
    }
}

/// Where the objects of a bucket are.
#[derive(Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum BucketBackend {
    /// A folder of the node's machine.
    Local {
        /// The folder; a relative one is below the data folder. Absent: `objects/PROJECT/BUCKET`.
        path: Option<String>,
    },
    /// The memory of the node: gone when it stops.
    Memory {
        /// Most bytes of all objects; absent: 256 MiB.
        size: Option<ByteSize>,
    },
    /// S3 and what speaks its protocol.
    S3 {
        /// The bucket's name there.
        bucket: String,
        /// The region; absent: `us-east-1`.
        region: Option<String>,
        /// The address of the service; absent: Amazon's.
        endpoint: Option<String>,
        /// The id of an access key; absent with `secretKey`: what the machine has.
        access_key: Option<String>,
        /// The access key's secret.
        secret_key: Option<String>,
        /// Whether the bucket stands in the path of addresses, or in their host.
        #[serde(default)]
        path_style: bool,
        /// Objects are below this prefix.
        prefix: Option<String>,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The bucket's name there.
        bucket: String,
        /// The JSON of a service account's key; absent: what the machine has.
        credentials: Option<String>,
        /// Objects are below this prefix.
        prefix: Option<String>,
    },
    /// Azure Blob Storage.
    Azure {
        /// The account.
        account: String,
        /// The container.
        container: String,
        /// The account's key.
        key: String,
        /// Objects are below this prefix.
        prefix: Option<String>,
    },
}

impl Default for BucketBackend {
    fn default() -> Self {
        BucketBackend::Local { path: None }
    }
}

impl BucketBackend {
    /// Its kind, as it stands in documents.
    pub fn kind(&self) -> &'static str {
        match self {
            BucketBackend::Local { .. } => "local",
            BucketBackend::Memory { .. } => "memory",
            BucketBackend::S3 { .. } => "s3",
            BucketBackend::Gcs { .. } => "gcs",
            BucketBackend::Azure { .. } => "azure",
        }
    }
}

impl fmt::Debug for BucketBackend {
    /// Without its secrets, so that no log ever has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketBackend").field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// Rules of the files below a prefix.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    /// Segments; one that begins with `:` takes any, which rules see as `args.params`.
    pub prefix: String,
    /// Who may write files and make folders.
    pub create: Option<serde_json::Value>,
    /// Who may read files.
    pub read: Option<serde_json::Value>,
    /// Who may delete.
    pub delete: Option<serde_json::Value>,
    /// Who may list; absent: who may read.
    pub list: Option<serde_json::Value>,
    /// Most bytes and files of each folder that the prefix matches.
    pub quota: Option<FileQuota>,
}

/// Most bytes and files together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct FileQuota {
    /// Bytes: a number, or a text such as `10MB`; absent: any number.
    pub bytes: Option<ByteSize>,
    /// Files; absent: any number.
    pub files: Option<u64>,
}

/// Most requests of one caller.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FileRate {
    /// Requests that a caller may make again each second.
    pub per_second: f64,
    /// Requests at once, before that; absent: those of one second, at least one.
    #[serde(default)]
    pub burst: Option<u32>,
}

impl FileRate {
    /// Least requests each second: some in a day.
    pub const PER_SECOND_MIN: f64 = 0.0001;
    /// Most requests each second, and at once.
    pub const MAX: f64 = 1_000_000.0;
}

/// Limits of the objects of a bucket.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BucketLimits {
    /// Most bytes of an object: a number, or a text such as `10MB`.
    pub size: Option<ByteSize>,
    /// Media types that objects may have, such as `image/*`; none: all.
    pub types: Vec<String>,
    /// Most bytes and files of the bucket.
    pub quota: Option<FileQuota>,
    /// Most requests of one caller.
    pub rate: Option<FileRate>,
}

/// A number of bytes: a number, or a text with a unit of 1000 (`kB`, `MB`, `GB`, `TB`) or of 1024 (`KiB`, `MiB`, `GiB`,
/// `TiB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "ByteSizeText")]
#[cfg_attr(feature = "json-schema", schemars(with = "ByteSizeText"))]
pub struct ByteSize(pub u64);

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum ByteSizeText {
    Number(u64),
    Text(String),
}

impl TryFrom<ByteSizeText> for ByteSize {
    type Error = String;

    fn try_from(size: ByteSizeText) -> Result<Self, String> {
        let text = match size {
            ByteSizeText::Number(bytes) => return Ok(Self(bytes)),
            ByteSizeText::Text(text) => text,
        };
        let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "kb" => Some(1000),
            "mb" => Some(1000_u64.pow(2)),
            "gb" => Some(1000_u64.pow(3)),
            "tb" => Some(1000_u64.pow(4)),
            "kib" => Some(1 << 10),
            "mib" => Some(1 << 20),
            "gib" => Some(1 << 30),
            "tib" => Some(1 << 40),
            _ => None,
        };
        let bytes = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| "expected bytes, such as 1000000 or 10MB".to_owned())
    }
}
