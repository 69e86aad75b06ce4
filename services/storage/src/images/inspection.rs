//! What an image claims to be, looked at before any of it is decoded.

use query::resources::ImageKind;

use crate::Error;

/// Scans that a JPEG may have: each goes over all of its pixels. Usual ones have up to a dozen.
const SCANS_MAX: usize = 64;
/// Bytes of the header of a chunk: its name and its size.
const CHUNK_HEADER_BYTES: usize = 8;

/// The kind that the content tells, if it is one of `kinds`.
pub fn kind(content: &[u8], kinds: &[ImageKind]) -> Result<ImageKind, Error> {
    let media_type = infer::get(content).map(|found| found.mime_type());
    let found = ImageKind::ALL.into_iter().find(|kind| Some(kind.media_type()) == media_type);
    let found = found.ok_or_else(|| no_image(kinds))?;
    check_kind(found, kinds)?;
    match found {
        ImageKind::Jpeg => check_jpeg(content)?,
        ImageKind::Webp => check_webp(content)?,
        // Its decoder takes no more data than its header announces.
        ImageKind::Png => {}
    }
    Ok(found)
}

/// Refuses a kind that a bucket does not take.
pub fn check_kind(found: ImageKind, kinds: &[ImageKind]) -> Result<(), Error> {
    if kinds.contains(&found) { Ok(()) } else { Err(no_image(kinds)) }
}

fn no_image(kinds: &[ImageKind]) -> Error {
    Error::NoImage(kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "))
}

/// Refuses a JPEG with several frames, or with so many scans that it takes unduly long. Source: ITU-T T.81, annex B.
fn check_jpeg(content: &[u8]) -> Result<(), Error> {
    let (mut frames, mut scans) = (0, 0);
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == 0xff) {
        let Some((marker, after)) = rest[at + 1..].split_first() else { break };
        rest = match marker {
            // The end; other programs keep further images behind it.
            0xd9 => break,
            // A fill byte may be the beginning of a marker.
            0xff => &rest[at + 1..],
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                frames += 1;
                after_segment(after)
            }
            0xda => {
                scans += 1;
                after_segment(after)
            }
            // Tables, applications' data (which may have an image in it) and comments.
            0xc4 | 0xcc | 0xdb..=0xfe => after_segment(after),
            _ => after,
        };
        if scans > SCANS_MAX || frames > 1 {
            return Err(Error::BrokenImage);
        }
    }
    if frames == 1 { Ok(()) } else { Err(Error::BrokenImage) }
}

/// What follows a segment whose length `rest` begins with.
fn after_segment(rest: &[u8]) -> &[u8] {
    let length = rest.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
    rest.get(length..).unwrap_or_default()
}

/// Refuses a WebP with a frame that is larger than it claims to be. Source: RFC 9649, section 2.
fn check_webp(content: &[u8]) -> Result<(), Error> {
    // Before the first chunk are RIFF, a size and WEBP.
    let chunks = content.get(12..).unwrap_or_default();
    let Some((b"VP8X", header)) = Chunks(chunks).next() else { return Ok(()) };
    let side = |at: usize| {
        let bytes = header.get(at..at + 3)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) + 1)
    };
    let (Some(width), Some(height)) = (side(4), side(7)) else { return Err(Error::BrokenImage) };
    let is_within = |data: &[u8]| lossy_size(data).is_none_or(|(w, h)| w <= width && h <= height);
    for (name, data) in Chunks(chunks) {
        let is_sound = match name {
            // A picture of an animation: chunks of its own after 16 bytes.
            b"ANMF" => Chunks(data.get(16..).unwrap_or_default()).all(|(_, data)| is_within(data)),
            _ => is_within(data),
        };
        if !is_sound {
            return Err(Error::BrokenImage);
        }
    }
    Ok(())
}

/// Bytes of the largest lossless part of a WebP: a picture, or the transparency of one. Sources: RFC 9649, sections 2 and 3.
pub fn lossless_bytes(content: &[u8]) -> u64 {
    let of = |name: &[u8; 4], data: &[u8]| match name {
        b"VP8L" => data.len(),
        // Its first byte tells how it is compressed: 0 is not at all.
        b"ALPH" if data.first().is_some_and(|header| header & 3 != 0) => data.len(),
        _ => 0,
    };
    let chunks = Chunks(content.get(12..).unwrap_or_default()).map(|(name, data)| match name {
        b"ANMF" => {
            let chunks = Chunks(data.get(16..).unwrap_or_default());
            chunks.map(|(name, data)| of(name, data)).max().unwrap_or_default()
        }
        _ => of(name, data),
    });
    chunks.max().unwrap_or_default() as u64
}

/// The size of the lossy picture that `data` begins with, if it does. Source: RFC 6386, section 9.1.
fn lossy_size(data: &[u8]) -> Option<(u32, u32)> {
    let header: &[u8; 10] = data.first_chunk()?;
    let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    (header[3..6] == [0x9d, 0x01, 0x2a]).then(|| (side(header[6], header[7]), side(header[8], header[9])))
}

/// Chunks of RIFF: their names and their data, as far as they are there.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*rest.first_chunk()?) as usize;
        let data = &self.0[CHUNK_HEADER_BYTES..];
        let padded = size.saturating_add(size % 2);
        self.0 = data.get(padded..).unwrap_or_default();
        Some((name, &data[..size.min(data.len())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A JPEG with these markers, each with a segment of two bytes, and entropy-coded data behind.
    fn jpeg(markers: &[u8]) -> Vec<u8> {
        let mut content = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xda];
        for marker in markers {
            content.extend([0xff, *marker, 0, 2, 1, 0xff, 0, 0xff, 0xd0, 2]);
        }
        content.extend([0xff, 0xd9]);
        content
    }

    #[test]
    fn a_jpeg_has_one_frame_and_not_too_many_scans() {
        let is_sound = |markers: &[u8]| check_jpeg(&jpeg(markers)).is_ok();
        assert!(is_sound(&[0xc0, 0xc4, 0xda]));
        assert!(is_sound(&[&[0xc2][..], &[0xda; SCANS_MAX]].concat()));
        assert!(!is_sound(&[&[0xc2][..], &[0xda; SCANS_MAX + 1]].concat()));
        assert!(!is_sound(&[0xc0, 0xda, 0xc0, 0xda]));
        assert!(!is_sound(&[0xda]));
        let mut two = jpeg(&[0xc0, 0xda]);
        two.extend(jpeg(&[0xc0, 0xda]));
        assert!(check_jpeg(&two).is_ok(), "another image may follow its end");
        for cut in 0..two.len() {
            let _ = check_jpeg(&two[..cut]);
        }
    }

    fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(data.len()).expect("a small chunk").to_le_bytes();
        let padding = vec![0; data.len() % 2];
        [&name[..], &size, data, &padding].concat()
    }

    fn lossy(width: u16, height: u16) -> Vec<u8> {
        [&[0, 0, 0, 0x9d, 0x01, 0x2a][..], &width.to_le_bytes(), &height.to_le_bytes(), &[0; 3]].concat()
    }

    #[test]
    fn a_webp_has_no_larger_picture_than_it_claims() {
        let canvas = chunk(b"VP8X", &[0, 0, 0, 0, 9, 0, 0, 19, 0, 0]);
        let of = |chunks: &[u8]| check_webp(&[b"RIFF\0\0\0\0WEBP", &canvas[..], chunks].concat());
        assert!(of(&chunk(b"VP8 ", &lossy(10, 20))).is_ok());
        assert!(of(&chunk(b"VP8 ", &lossy(10, 21))).is_err());
        assert!(of(&[chunk(b"EXIF", b"abc"), chunk(b"VP8 ", &lossy(11, 20))].concat()).is_err());
        let picture = |data: Vec<u8>| [vec![0; 16], chunk(b"ALPH", b"a"), chunk(b"VP8 ", &data)].concat();
        assert!(of(&chunk(b"ANMF", &picture(lossy(10, 20)))).is_ok());
        assert!(of(&chunk(b"ANMF", &picture(lossy(16383, 16383)))).is_err());
        assert!(check_webp(b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0").is_err());
    }

    #[test]
    fn lossless_parts_of_a_webp_are_found_wherever_they_are() {
        let of = |chunks: &[u8]| lossless_bytes(&[b"RIFF\0\0\0\0WEBP", chunks].concat());
        let canvas = chunk(b"VP8X", &[0; 10]);
        let frame = |chunks: &[u8]| chunk(b"ANMF", &[&[0; 16][..], chunks].concat());
        assert_eq!(of(&chunk(b"VP8L", &[1; 9])), 9);
        assert_eq!(of(&chunk(b"VP8 ", &lossy(10, 20))), 0);
        assert_eq!(of(&[canvas.clone(), chunk(b"EXIF", b"abc"), chunk(b"VP8L", &[1; 7])].concat()), 7);
        assert_eq!(of(&[canvas.clone(), chunk(b"ALPH", &[1; 5]), chunk(b"VP8 ", &lossy(1, 1))].concat()), 5);
        assert_eq!(of(&[canvas.clone(), chunk(b"ALPH", &[0; 5]), chunk(b"VP8 ", &lossy(1, 1))].concat()), 0);
        let frames = [frame(&chunk(b"VP8L", &[1; 3])), frame(&chunk(b"ALPH", &[0xfd; 11]))].concat();
        assert_eq!(of(&[canvas, frames].concat()), 11);
        // One that claims more than there is.
        assert_eq!(of(b"VP8L\xff\xff\xff\xffabc"), 3);
        assert_eq!(lossless_bytes(b"RIFF"), 0);
    }

    #[test]
    fn a_kind_is_told_by_the_content_alone() {
        let all = ImageKind::ALL;
        assert!(matches!(kind(b"\x89PNG\r\n\x1a\n", &all), Ok(ImageKind::Png)));
        assert!(matches!(kind(b"\x89PNG\r\n\x1a\n", &[ImageKind::Jpeg]), Err(Error::NoImage(_))));
        for content in [&b""[..], b"GIF89a", b"<svg/>", b"\xff\xd8"] {
            let error = kind(content, &all).expect_err("it is none").to_string();
            assert!(error.contains("jpeg, png, webp"), "{error}");
        }
    }
}
