//! What of an image is wanted.

use proto::storage::{ImageRequest, image_request};
use query::resources::ImageKind;

use crate::Error;

/// Quality of JPEG that is not said.
const QUALITY: u8 = 80;
/// Part of entity tags: another one where the same request makes other bytes.
const REVISION: &str = "perigee image 1";
/// Characters of an entity tag.
const ETAG_CHARS: usize = 32;

/// What is made of an image, checked. Requests that make the same are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WantedImage {
    /// Pixels; `None`: as the other side says.
    pub width: Option<u32>,
    /// Pixels; `None`: as the other side says.
    pub height: Option<u32>,
    /// How the two are meant.
    pub fit: ImageFit,
    /// `None`: as the image is.
    pub kind: Option<ImageKind>,
    /// Of JPEG, 1 to 100.
    pub quality: u8,
}

/// How an image fits into a width and a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFit {
    /// All of it, as large as fits.
    Contain,
    /// Its middle, with the proportions that are wanted.
    Cover,
    /// All of it, with the proportions that are wanted.
    Fill,
}

impl WantedImage {
    /// What `request` asks for, no side of which is longer than `side`.
    pub fn new(request: &ImageRequest, side: u32) -> Result<Self, Error> {
        let wrong = |field: &str, expected: String, found: u32| {
            Err(Error::Malformed(format!("invalid {field}: expected {expected}, found {found}")))
        };
        for (field, found) in [("w", request.width), ("h", request.height)] {
            if found > side {
                return wrong(field, format!("1 to {side} pixels"), found);
            }
        }
        if request.quality > 100 {
            return wrong("q", "1 to 100".to_owned(), request.quality);
        }
        let kind = match request.format() {
            image_request::Format::Unspecified => None,
            image_request::Format::Jpeg => Some(ImageKind::Jpeg),
            image_request::Format::Png => Some(ImageKind::Png),
            image_request::Format::Webp => Some(ImageKind::Webp),
        };
        let width = Some(request.width).filter(|width| *width > 0);
        let height = Some(request.height).filter(|height| *height > 0);
        let fit = match request.fit() {
            // With one side there is nothing to fit.
            _ if width.is_none() || height.is_none() => ImageFit::Contain,
            image_request::Fit::Unspecified | image_request::Fit::Contain => ImageFit::Contain,
            image_request::Fit::Cover => ImageFit::Cover,
            image_request::Fit::Fill => ImageFit::Fill,
        };
        let quality = match kind {
            Some(ImageKind::Png | ImageKind::Webp) => 0,
            Some(ImageKind::Jpeg) | None => u8::try_from(request.quality).ok().filter(|q| *q > 0).unwrap_or(QUALITY),
        };
        Ok(Self { width, height, fit, kind, quality })
    }

    /// The entity tag of what is made of a file with the entity tag `of` and so many bytes.
    pub fn etag(&self, of: &str, size: u64) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{REVISION} {self:?} {size} ").as_bytes()).update(of.as_bytes());
        hasher.finalize().to_hex().chars().take(ETAG_CHARS).collect()
    }
}

#[cfg(test)]
mod tests {
    use image_request::{Fit, Format};

    use super::*;

    fn request(width: u32, height: u32) -> ImageRequest {
        ImageRequest { width, height, ..ImageRequest::default() }
    }

    fn wanted(request: &ImageRequest) -> Result<WantedImage, String> {
        WantedImage::new(request, 100).map_err(|error| error.to_string())
    }

    #[test]
    fn requests_that_make_the_same_are_equal() {
        let png = |quality| ImageRequest { format: Format::Png.into(), quality, ..request(10, 0) };
        assert_eq!(wanted(&png(10)), wanted(&png(20)));
        let jpeg = |quality| ImageRequest { format: Format::Jpeg.into(), quality, ..request(10, 0) };
        assert_ne!(wanted(&jpeg(10)), wanted(&jpeg(20)));
        assert_eq!(wanted(&jpeg(0)), wanted(&jpeg(u32::from(QUALITY))));
        let covered = ImageRequest { fit: Fit::Cover.into(), ..request(10, 0) };
        assert_eq!(wanted(&covered), wanted(&request(10, 0)), "one side alone is not fitted");
    }

    #[test]
    fn limits_are_told() {
        assert!(wanted(&request(100, 100)).is_ok());
        assert_eq!(wanted(&request(101, 0)).unwrap_err(), "invalid w: expected 1 to 100 pixels, found 101");
        assert_eq!(wanted(&request(0, 101)).unwrap_err(), "invalid h: expected 1 to 100 pixels, found 101");
        let quality = ImageRequest { quality: 101, ..request(0, 0) };
        assert_eq!(wanted(&quality).unwrap_err(), "invalid q: expected 1 to 100, found 101");
    }

    #[test]
    fn an_entity_tag_is_of_a_file_and_of_what_is_made() {
        let small = wanted(&request(10, 0)).expect("it is sound");
        let large = wanted(&request(20, 0)).expect("it is sound");
        let tags = [small.etag("a", 1), small.etag("b", 1), small.etag("a", 2), large.etag("a", 1)];
        assert!(
            tags.iter().enumerate().all(|(index, tag)| tag.len() == 32 && !tags[..index].contains(tag)),
            "{tags:?}"
        );
        assert_eq!(small.etag("a", 1), tags[0]);
    }
}
