//! Sizes of images that are made. None is larger than its source.

use super::wanted::{ImageFit, WantedImage};

/// Width and height in pixels.
pub type PixelSize = (u32, u32);

/// The size of what is made of an image of the size `source`, no side of which is longer than `side`.
pub fn size(source: PixelSize, wanted: &WantedImage, side: u32) -> PixelSize {
    let within = (wanted.width.unwrap_or(side).min(side), wanted.height.unwrap_or(side).min(side));
    match wanted.fit {
        ImageFit::Contain => contained(source, within),
        // As large as the proportions that are wanted fit into the image.
        ImageFit::Cover => contained(within, source),
        ImageFit::Fill => (source.0.min(within.0), source.1.min(within.1)),
    }
}

/// The largest size with the proportions of `size` that is no larger than it, nor than `within`.
fn contained((width, height): PixelSize, within: PixelSize) -> PixelSize {
    if width <= within.0 && height <= within.1 {
        return (width, height);
    }
    let is_wide = u64::from(width) * u64::from(within.1) >= u64::from(within.0) * u64::from(height);
    match is_wide {
        true => (within.0, scaled(height, within.0, width)),
        false => (scaled(width, within.1, height), within.1),
    }
}

/// `length` times `numerator` by `denominator`, rounded, at least one.
fn scaled(length: u32, numerator: u32, denominator: u32) -> u32 {
    let (length, numerator, denominator) = (u64::from(length), u64::from(numerator), u64::from(denominator));
    let scaled = (length * numerator * 2 + denominator) / (denominator * 2);
    u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(source: PixelSize, sides: (u32, u32), fit: ImageFit) -> PixelSize {
        let side = |side: u32| Some(side).filter(|side| *side > 0);
        size(source, &WantedImage { width: side(sides.0), height: side(sides.1), fit, kind: None, quality: 80 }, 4096)
    }

    #[test]
    fn no_image_is_larger_than_its_source_or_the_limit() {
        use ImageFit::{Contain, Cover, Fill};
        for (source, sides, fit, expected) in [
            ((400, 200), (100, 0), Contain, (100, 50)),
            ((400, 200), (0, 100), Contain, (200, 100)),
            ((400, 200), (100, 100), Contain, (100, 50)),
            ((400, 200), (4000, 4000), Contain, (400, 200)),
            ((400, 200), (0, 0), Contain, (400, 200)),
            ((10_000, 1000), (0, 0), Contain, (4096, 410)),
            ((1, 60_000), (0, 10), Contain, (1, 10)),
            ((60_000, 1), (100, 100), Contain, (100, 1)),
            ((400, 200), (100, 100), Cover, (100, 100)),
            ((400, 200), (1000, 1000), Cover, (200, 200)),
            ((400, 200), (4000, 1000), Cover, (400, 100)),
            ((400, 200), (100, 150), Fill, (100, 150)),
            ((400, 200), (4000, 150), Fill, (400, 150)),
        ] {
            assert_eq!(made(source, sides, fit), expected, "{source:?} {sides:?} {fit:?}");
        }
    }
}
