//! An image that is decoded, resized and encoded, on a thread that may take its time.

use std::{io::Cursor, sync::Arc};

use bytes::Bytes;
use fast_image_resize::{ResizeOptions, Resizer};
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, Limits, Rgb, RgbImage,
    codecs::{
        jpeg::{JpegDecoder, JpegEncoder},
        png::{CompressionType, FilterType, PngDecoder, PngEncoder},
        webp::{WebPDecoder, WebPEncoder},
    },
    metadata::Orientation,
};
use mesh::config::ImageLimits;
use query::resources::ImageKind;
use tracing::debug;

use super::{
    MadeImage,
    geometry::{self, PixelSize},
    inspection,
    stop::{StopFlag, Stoppable},
    wanted::{ImageFit, WantedImage},
};
use crate::Error;

/// Most bytes of a colour profile that is kept: those of cameras and screens have a few thousand.
const PROFILE_BYTES: usize = 64 * 1024;
/// Bytes that a decoded pixel may take: those with more have to be fewer.
const PIXEL_BYTES: u64 = 4;
/// Where the header of a colour profile tells its colours. Source: ICC.1:2022, section 7.2.
const PROFILE_COLOURS: std::ops::Range<usize> = 16..20;

/// An image that is made.
pub struct Rendering {
    /// The file.
    pub content: Vec<u8>,
    /// What is made of it.
    pub wanted: WantedImage,
    /// Kinds that the file may have.
    pub kinds: Vec<ImageKind>,
    /// Limits of the node.
    pub limits: Arc<ImageLimits>,
    /// Ends the work.
    pub stop: StopFlag,
}

/// A source of which the header was read.
struct Decoding<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    size: PixelSize,
    orientation: Orientation,
    profile: Option<Vec<u8>>,
}

impl Rendering {
    /// Makes the image.
    pub fn run(self) -> Result<MadeImage, Error> {
        self.stop.check()?;
        let source = inspection::kind(&self.content, &self.kinds)?;
        let Decoding { decoder, size, orientation, profile } = self.opened(source)?;
        let image = DynamicImage::from_decoder(decoder).map_err(|error| self.broken(error))?;
        self.stop.check()?;
        let is_turned = turns(orientation);
        let shown = if is_turned { (size.1, size.0) } else { size };
        let wanted = geometry::size(shown, &self.wanted, self.limits.side);
        let mut image = self.resized(image, if is_turned { (wanted.1, wanted.0) } else { wanted })?;
        image.apply_orientation(orientation);
        self.stop.check()?;
        let kind = self.wanted.kind.unwrap_or(source);
        let bytes = self.encoded(&image, kind, profile)?;
        Ok(MadeImage { bytes, source, kind })
    }

    /// The source, with its header read and found within the limits.
    fn opened(&self, kind: ImageKind) -> Result<Decoding<'_>, Error> {
        let content = Stoppable { inner: Cursor::new(self.content.as_slice()), stop: self.stop.clone() };
        let mut limits = Limits::default();
        limits.max_alloc = Some(self.limits.pixels.saturating_mul(PIXEL_BYTES));
        let decoder: Result<Box<dyn ImageDecoder + '_>, ImageError> = match kind {
            ImageKind::Jpeg => JpegDecoder::new(content).map(|decoder| Box::new(decoder) as _),
            ImageKind::Png => PngDecoder::with_limits(content, limits.clone()).map(|decoder| Box::new(decoder) as _),
            ImageKind::Webp => WebPDecoder::new(content).map(|decoder| Box::new(decoder) as _),
        };
        let mut decoder = decoder.map_err(|error| self.broken(error))?;
        let size = decoder.dimensions();
        let (limit, found) = (self.limits.pixels, u64::from(size.0) * u64::from(size.1));
        // A wide pixel counts as several.
        let found = found.max(decoder.total_bytes() / PIXEL_BYTES);
        if found > limit {
            return Err(Error::ImageTooLarge { what: "pixels", limit, found });
        }
        decoder.set_limits(limits).map_err(|error| self.broken(error))?;
        // Without them it is shown all the same.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let colours: &[u8] = if decoder.color_type().has_color() { b"RGB " } else { b"GRAY" };
        let profile = decoder.icc_profile().ok().flatten().filter(|profile| {
            profile.len() <= PROFILE_BYTES && profile.get(PROFILE_COLOURS).is_some_and(|found| found == colours)
        });
        Ok(Decoding { decoder, size, orientation, profile })
    }

    fn resized(&self, image: DynamicImage, size: PixelSize) -> Result<DynamicImage, Error> {
        if (image.width(), image.height()) == size {
            return Ok(image);
        }
        let options = match self.wanted.fit {
            ImageFit::Cover => ResizeOptions::new().fit_into_destination(None),
            ImageFit::Contain | ImageFit::Fill => ResizeOptions::new(),
        };
        let mut resized = DynamicImage::new(size.0, size.1, image.color());
        let done = Resizer::new().resize(&image, &mut resized, &options);
        done.map_err(|error| Error::Backend(format!("an image could not be resized: {error}")))?;
        Ok(resized)
    }

    fn encoded(&self, image: &DynamicImage, kind: ImageKind, profile: Option<Vec<u8>>) -> Result<Bytes, Error> {
        let mut output = Stoppable { inner: Vec::new(), stop: self.stop.clone() };
        let written = match kind {
            ImageKind::Jpeg => {
                let encoder = JpegEncoder::new_with_quality(&mut output, self.wanted.quality);
                write(encoder, &opaque(image), profile)
            }
            ImageKind::Png => {
                let encoder = PngEncoder::new_with_quality(&mut output, CompressionType::Default, FilterType::Adaptive);
                write(encoder, &narrow(image), profile)
            }
            ImageKind::Webp => write(WebPEncoder::new_lossless(&mut output), &narrow(image), profile),
        };
        self.stop.check()?;
        written.map_err(|error| Error::Backend(format!("an image could not be written: {error}")))?;
        Ok(output.inner.into())
    }

    /// The error of a source that cannot be decoded, or of work that was ended.
    fn broken(&self, error: ImageError) -> Error {
        if let Err(error) = self.stop.check() {
            return error;
        }
        debug!(%error, "an image cannot be read");
        match error {
            ImageError::Limits(_) => {
                let limit = self.limits.pixels.saturating_mul(PIXEL_BYTES);
                Error::ImageTooLarge { what: "bytes of decoded pixels", limit, found: limit.saturating_add(1) }
            }
            _ => Error::BrokenImage,
        }
    }
}

fn write(mut encoder: impl ImageEncoder, image: &DynamicImage, profile: Option<Vec<u8>>) -> Result<(), ImageError> {
    if let Some(profile) = profile {
        // A format that keeps none shows it in the colours that are usual.
        let _ = encoder.set_icc_profile(profile);
    }
    let colours = ExtendedColorType::from(image.color());
    encoder.write_image(image.as_bytes(), image.width(), image.height(), colours)
}

/// Whether what is shown has the sides of the image the other way round.
fn turns(orientation: Orientation) -> bool {
    match orientation {
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => false,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH => {
            true
        }
    }
}

/// The image with 8 bits for each of its colours.
fn narrow(image: &DynamicImage) -> DynamicImage {
    let colours = image.color();
    match (colours.has_color(), colours.has_alpha()) {
        (true, true) => DynamicImage::ImageRgba8(image.to_rgba8()),
        (true, false) => DynamicImage::ImageRgb8(image.to_rgb8()),
        (false, true) => DynamicImage::ImageLumaA8(image.to_luma_alpha8()),
        (false, false) => DynamicImage::ImageLuma8(image.to_luma8()),
    }
}

/// The image on white, as a format has it that knows no transparency.
fn opaque(image: &DynamicImage) -> DynamicImage {
    let colours = image.color();
    if !colours.has_alpha() {
        return narrow(image);
    }
    let image = image.to_rgba8();
    let mut shown = RgbImage::new(image.width(), image.height());
    for (pixel, shown) in image.pixels().zip(shown.pixels_mut()) {
        let [red, green, blue, alpha] = pixel.0.map(u32::from);
        let on_white = |colour: u32| {
            let mixed = (colour * alpha + 255 * (255 - alpha) + 127) / 255;
            u8::try_from(mixed).expect("a mean of two bytes is a byte")
        };
        *shown = Rgb([on_white(red), on_white(green), on_white(blue)]);
    }
    DynamicImage::ImageRgb8(shown)
}
