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
/// Pixels that a side of a source may have: what resizing computes for each of them is not bounded by their product.
const SIDE_MAX: u32 = 65_535;
/// Bytes of memory that an image takes while it is made, for each pixel that a source may have.
const WORK_PIXEL_BYTES: u64 = 20;
/// Of these, bytes for a pixel of lossless WebP that is decoded: twice the image, its transforms and its entropy image.
const LOSSLESS_PIXEL_BYTES: u64 = 10;
/// Bytes of memory that one of lossless WebP may take: 66 bits describe a prefix code, whose table and tree take 70,000
/// bytes. A picture may have 65,536 groups of codes, however small it is.
const LOSSLESS_FACTOR: u64 = 16 * 1024;
/// Bytes of the coefficients with which a pixel of a side is resized: up to 9 of 8 bytes, their bounds, and copies.
const COEFFICIENT_BYTES: u64 = 128;
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
        let is_turned = turns(orientation);
        let shown = if is_turned { (size.1, size.0) } else { size };
        let wanted = geometry::size(shown, &self.wanted, self.limits.side);
        let made = if is_turned { (wanted.1, wanted.0) } else { wanted };
        let pixel_bytes = u64::from(decoder.color_type().bytes_per_pixel());
        self.check_resizing(resizing_bytes(size, made, pixel_bytes))?;
        let image = DynamicImage::from_decoder(decoder).map_err(|error| self.broken(error))?;
        self.stop.check()?;
        let mut image = self.resized(image, made)?;
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
        let longest = size.0.max(size.1);
        if longest > SIDE_MAX {
            let (limit, found) = (SIDE_MAX.into(), longest.into());
            return Err(Error::ImageTooLarge { what: "pixels of a side", limit, found });
        }
        let (limit, found) = (self.limits.pixels, u64::from(size.0) * u64::from(size.1));
        // A wide pixel counts as several.
        let found = found.max(decoder.total_bytes() / PIXEL_BYTES);
        if found > limit {
            return Err(Error::ImageTooLarge { what: "pixels", limit, found });
        }
        if kind == ImageKind::Webp {
            self.check_lossless(found)?;
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

    /// Refuses lossless WebP that could take more memory than an image may. Its decoder has no limit of its own.
    fn check_lossless(&self, pixels: u64) -> Result<(), Error> {
        let found = inspection::lossless_bytes(&self.content);
        let left = self.work_bytes().saturating_sub(pixels.saturating_mul(LOSSLESS_PIXEL_BYTES));
        let limit = left / LOSSLESS_FACTOR;
        match found > limit {
            true => Err(Error::ImageTooLarge { what: "bytes of lossless WebP data", limit, found }),
            false => Ok(()),
        }
    }

    fn check_resizing(&self, found: u64) -> Result<(), Error> {
        let limit = self.work_bytes();
        match found > limit {
            true => Err(Error::ImageTooLarge { what: "bytes of memory to resize it", limit, found }),
            false => Ok(()),
        }
    }

    /// Bytes of memory that an image may take while it is made.
    fn work_bytes(&self) -> u64 {
        self.limits.pixels.saturating_mul(WORK_PIXEL_BYTES)
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

/// Bytes of memory that it takes at most to resize an image of the size `source` to the size `made`: the image, a copy of it
/// that is multiplied by its transparency, what is resized in one direction, what is made, and the coefficients.
fn resizing_bytes(source: PixelSize, made: PixelSize, pixel_bytes: u64) -> u64 {
    if source == made {
        return 0;
    }
    let (width, height) = (u64::from(source.0), u64::from(source.1));
    let (made_width, made_height) = (u64::from(made.0), u64::from(made.1));
    let between = (width * made_height).max(made_width * height);
    let pixels = 2 * width * height + between + made_width * made_height;
    pixels * pixel_bytes + COEFFICIENT_BYTES * (width + height)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use image::GrayImage;

    use super::*;

    fn rendering(content: Vec<u8>, pixels: u64) -> Rendering {
        let limits = ImageLimits {
            workers: 1,
            queue: 1,
            wait: Duration::from_secs(60),
            time: Duration::from_secs(60),
            pixels,
            source_bytes: 1 << 25,
            side: 4096,
            cache_bytes: 0,
        };
        let wanted = WantedImage { width: Some(10), height: None, fit: ImageFit::Contain, kind: None, quality: 80 };
        let stop = StopFlag::after(Duration::from_secs(60));
        Rendering { content, wanted, kinds: ImageKind::ALL.to_vec(), limits: Arc::new(limits), stop }
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut content = Vec::new();
        let encoder = PngEncoder::new_with_quality(&mut content, CompressionType::Fast, FilterType::NoFilter);
        write(encoder, &DynamicImage::ImageLuma8(GrayImage::new(width, height)), None).expect("it can be written");
        content
    }

    fn refused(content: Vec<u8>, pixels: u64) -> String {
        rendering(content, pixels).run().map(drop).expect_err("it is refused").to_string()
    }

    #[test]
    fn long_images_are_refused() {
        for (width, height) in [(25_000_000, 1), (1, 25_000_000), (65_536, 1)] {
            let told = refused(png(width, height), 25_000_000);
            assert!(told.contains("over the limit of 65535 pixels of a side"), "{told}");
        }
        assert!(rendering(png(65_535, 1), 25_000_000).run().is_ok());
        assert!(rendering(png(1, 65_535), 25_000_000).run().is_ok());
        // Within the pixels of a node that takes small ones only, but not within its memory.
        let told = refused(png(65_535, 1), 100_000);
        assert!(told.contains("over the limit of 2000000 bytes of memory"), "{told}");
    }

    #[test]
    fn an_image_of_as_many_pixels_as_a_node_takes_is_resized_to_any_size() {
        for side in [1000, 5000] {
            let limit = u64::from(side * side) * WORK_PIXEL_BYTES;
            for made in [1, 10, side / 2, side - 1] {
                assert!(resizing_bytes((side, side), (made, made), PIXEL_BYTES) <= limit, "{side} to {made}");
            }
        }
    }

    #[test]
    fn lossless_webp_is_bounded_by_the_memory_that_it_may_take() {
        let mut content = Vec::new();
        let encoder = WebPEncoder::new_lossless(&mut content);
        write(encoder, &DynamicImage::new_rgba8(40, 40), None).expect("it can be written");
        assert!(rendering(content.clone(), 25_000_000).run().is_ok());
        let told = refused(content, 1600);
        assert!(told.contains("bytes of lossless WebP data"), "{told}");
    }
}
