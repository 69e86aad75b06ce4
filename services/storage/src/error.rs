//! Errors of this service.

use mesh::{Code, Fault};
use proto::grant::Unverified;
use rustix::io::Errno;

/// Why a store in memory does not take an object in.
#[derive(Debug, thiserror::Error)]
#[error("the bucket in memory is full")]
pub struct NoRoom;

/// Detail of the fault of bytes that do not have their checksum.
const CHECKSUM: &str = "checksum";
/// Detail of the fault of a request that another one is in the way of.
const BUSY: &str = "busy";

/// An error of this service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such bucket in the project.
    #[error("bucket {0} is not known")]
    UnknownBucket(String),
    /// The backend of the bucket cannot be used now.
    #[error("bucket {0} cannot be reached")]
    Unreachable(String),
    /// The grant of the rule engine is not one.
    #[error(transparent)]
    Ungranted(#[from] Unverified),
    /// A grant is of another operation, void, or for something else.
    #[error("invalid grant: {0}")]
    WrongGrant(&'static str),
    /// The request is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The stream ended before the file did.
    #[error("the upload broke off")]
    BrokenOff,
    /// There is no such file.
    #[error("file not found")]
    NotFound,
    /// There is no such folder.
    #[error("folder not found")]
    NoFolder,
    /// There is no such resumable upload, or it is void.
    #[error("upload not found")]
    NoUpload,
    /// Another stream of the upload goes on.
    #[error("another request goes on with the upload")]
    Busy,
    /// Another stream of the upload has begun.
    #[error("another request has taken the upload over")]
    TakenOver,
    /// What came is not what its checksum is of.
    #[error("what came does not have the checksum that was told")]
    Checksum,
    /// A folder is where a file is expected.
    #[error("{0} is a folder")]
    IsFolder(String),
    /// A file and a folder cannot have one name.
    #[error("{0}")]
    Conflict(String),
    /// A folder has other entries than those that may be deleted.
    #[error("the folder was changed meanwhile, try again")]
    Changed,
    /// The folder above is not there. The text is known to clients of earlier servers.
    #[error("Local: Provided path is not a directory")]
    NoParent,
    /// The file that is there is not the one that the caller expects.
    #[error("the file is not as the condition of the request says")]
    Precondition,
    /// The file is over the limit of its bucket.
    #[error("the file is over the limit of {0} bytes of its bucket")]
    TooLarge(u64),
    /// The bucket does not take files of this type.
    #[error("the bucket takes no files of type {0}")]
    UnsupportedType(String),
    /// The disk is full or cannot be written.
    #[error("the bucket has no room, or cannot be written")]
    Full(String),
    /// There is no room in a quota.
    #[error("{whose} has no room: over the limit of {limit} {what}")]
    Quota {
        /// What there would be too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// Whose quota it is.
        whose: String,
    },
    /// What a bucket with a quota has is not counted yet.
    #[error("the files of the bucket are being counted, try again")]
    Uncounted,
    /// A path has too many resumable uploads that are not published.
    #[error("the file has too many unfinished uploads: go on with one of them, or delete some")]
    TooManyUploads,
    /// A bucket has too many resumable uploads that are not published.
    #[error("the bucket has too many unfinished uploads: end some, or wait until they are void")]
    ManyUnfinished,
    /// Uploads hold too many bytes.
    #[error("too many uploads at once, try again later")]
    Overloaded,
    /// The bucket makes no images of its files.
    #[error("bucket {0} makes no images of its files: it has no images in its document")]
    NoImages(String),
    /// The file is no image of a kind that its bucket takes.
    #[error("the file is no image that can be changed: expected {0}")]
    NoImage(String),
    /// The file is an image that cannot be read.
    #[error("the image cannot be read: it is damaged, or not as it claims to be")]
    BrokenImage,
    /// The image is over a limit of this node.
    #[error("the image is over the limit of {limit} {what}: it has {found}")]
    ImageTooLarge {
        /// What it has too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What it has.
        found: u64,
    },
    /// Too many images are asked for.
    #[error("too many images at once, try again later")]
    TooManyImages,
    /// An image takes too long.
    #[error("the image could not be made in time")]
    ImageTime,
    /// What was read is not what was written.
    #[error("the file is damaged")]
    Damaged(String),
    /// The backend failed.
    #[error("the backend of the bucket failed")]
    Backend(String),
}

impl From<Errno> for Error {
    /// The error of a system call on a local bucket.
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Error::NotFound,
            Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::FBIG => {
                Error::Full(errno.to_string())
            }
            Errno::NAMETOOLONG => Error::Malformed("the path is too long for the file system of the bucket".to_owned()),
            other => Error::Backend(other.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Error::Backend(error.to_string()),
        }
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as Store;
        match error {
            Store::NotFound { .. } => Error::NotFound,
            Store::Precondition { .. } | Store::AlreadyExists { .. } | Store::NotModified { .. } => Error::Precondition,
            Store::Generic { source, .. } if source.is::<NoRoom>() => Error::Full(source.to_string()),
            other => Error::Backend(other.to_string()),
        }
    }
}

impl From<query::Error> for Error {
    fn from(error: query::Error) -> Self {
        Error::Malformed(error.to_string())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let code = match error {
            Error::UnknownBucket(_) => Code::UnknownBucket,
            Error::Unreachable(_) | Error::Overloaded | Error::Uncounted => Code::Unavailable,
            Error::Malformed(_) | Error::BrokenOff | Error::IsFolder(_) | Error::NoImages(_) => Code::BadRequest,
            Error::NotFound | Error::NoFolder | Error::NoUpload => Code::NotFound,
            Error::Conflict(_) | Error::NoParent | Error::Changed => Code::Conflict,
            Error::TooManyUploads | Error::ManyUnfinished | Error::TooManyImages => Code::TooMany,
            Error::ImageTime => Code::Deadline,
            Error::Checksum => return Fault::new(Code::BadRequest, text).with(CHECKSUM, "mismatch"),
            Error::Busy | Error::TakenOver => return Fault::new(Code::Conflict, text).with(BUSY, "upload"),
            Error::Precondition => Code::Precondition,
            Error::TooLarge(_) | Error::ImageTooLarge { .. } => Code::TooLarge,
            Error::UnsupportedType(_) | Error::NoImage(_) | Error::BrokenImage => Code::UnsupportedType,
            Error::Quota { .. } => Code::Full,
            Error::Full(cause) => {
                tracing::error!(cause, "a file could not be kept");
                Code::Full
            }
            Error::Ungranted(cause) => return Fault::internal("the request could not be authorised", cause),
            Error::WrongGrant(_) => return Fault::internal("the request could not be authorised", text),
            Error::Damaged(cause) | Error::Backend(cause) => return Fault::internal(text, cause),
        };
        Fault::new(code, text)
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Fault::from(error).into()
    }
}
