//! Bodies in chunks, as they go to the protocol's library, which holds a whole chunk in memory.
//!
//! Chunks without a signature are cut into the pieces in which they come: some clients send a whole file as one. A chunk
//! with a signature can only be judged as a whole, and has a limit.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::HttpBody;
use bytes::{Buf, Bytes};
use hyper::body::Frame;
use s3s::StdError;

/// Most bytes of a chunk that is signed.
const CHUNK_BYTES: u32 = 16 << 20;
/// Most bytes of the line before a chunk.
const LINE_BYTES: usize = 1024;
/// The error of a chunk that is over the limit.
pub const CHUNK_TOO_LARGE: &str = "ChunkTooLarge";
const MALFORMED: &str = "FormatError";

/// Where in the body the next byte is.
enum ChunkPlace {
    /// In the line before a chunk, of which this has come.
    Line(Vec<u8>),
    /// In a chunk, before so many bytes of it; and whether it is cut.
    Data(u32, bool),
    /// In the end of a line after a chunk, before so many bytes of it; and whether the chunk was cut.
    LineEnd(usize, bool),
    /// After the last chunk.
    Trailers,
}

/// A body in chunks, none of which takes much memory.
pub struct Chunks<B> {
    inner: B,
    place: ChunkPlace,
    ready: VecDeque<Bytes>,
}

impl<B> Chunks<B> {
    /// Cuts the chunks of `inner`.
    pub fn new(inner: B) -> Self {
        Self { inner, place: ChunkPlace::Line(Vec::new()), ready: VecDeque::new() }
    }

    fn take(&mut self, mut data: Bytes) -> Result<(), &'static str> {
        while data.has_remaining() {
            match &mut self.place {
                ChunkPlace::Line(line) => {
                    let end = data.iter().position(|byte| *byte == b'\n');
                    let piece = data.split_to(end.map_or(data.len(), |end| end + 1));
                    if line.len() + piece.len() > LINE_BYTES {
                        return Err(MALFORMED);
                    }
                    line.extend_from_slice(&piece);
                    if end.is_some() {
                        let line = std::mem::take(line);
                        self.begin(line)?;
                    }
                }
                ChunkPlace::Data(left, is_cut) => {
                    let (is_cut, piece) = (*is_cut, data.split_to(data.len().min(*left as usize)));
                    *left -= u32::try_from(piece.len()).map_err(|_| MALFORMED)?;
                    if *left == 0 {
                        self.place = ChunkPlace::LineEnd(2, is_cut);
                    }
                    match is_cut {
                        true => self.ready.extend([size_line(piece.len()), piece, Bytes::from_static(b"\r\n")]),
                        false => self.ready.push_back(piece),
                    }
                }
                ChunkPlace::LineEnd(left, is_cut) => {
                    let (is_cut, piece) = (*is_cut, data.split_to(data.len().min(*left)));
                    if !b"\r\n"[2 - *left..].starts_with(&piece) {
                        return Err(MALFORMED);
                    }
                    *left -= piece.len();
                    if *left == 0 {
                        self.place = ChunkPlace::Line(Vec::new());
                    }
                    if !is_cut {
                        self.ready.push_back(piece);
                    }
                }
                ChunkPlace::Trailers => self.ready.push_back(std::mem::take(&mut data)),
            }
        }
        Ok(())
    }

    /// Goes on after the line before a chunk.
    fn begin(&mut self, line: Vec<u8>) -> Result<(), &'static str> {
        let digits = line.split(|byte| matches!(byte, b';' | b'\r')).next().unwrap_or_default();
        let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_number).ok_or(MALFORMED)?;
        let size = u32::from_str_radix(digits, 16).map_err(|_| MALFORMED)?;
        let is_signed = line.contains(&b';');
        if is_signed && size > CHUNK_BYTES {
            return Err(CHUNK_TOO_LARGE);
        }
        self.place = if size == 0 { ChunkPlace::Trailers } else { ChunkPlace::Data(size, !is_signed) };
        if is_signed || size == 0 {
            self.ready.push_back(Bytes::from(line));
        }
        Ok(())
    }
}

fn size_line(size: usize) -> Bytes {
    Bytes::from(format!("{size:x}\r\n"))
}

impl<B: HttpBody<Data = Bytes, Error: Into<StdError>> + Unpin> HttpBody for Chunks<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(frame) => frame.map_err(Into::into)?,
            };
            if let Ok(data) = frame.into_data() {
                self.take(data).map_err(std::io::Error::other)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a body whose frames have so many bytes, and the bytes of its largest piece.
    fn cut(body: &str, frame: usize) -> Result<(String, usize), &'static str> {
        let mut chunks = Chunks::new(());
        for data in body.as_bytes().chunks(frame) {
            chunks.take(Bytes::copy_from_slice(data))?;
        }
        let largest = chunks.ready.iter().map(Bytes::len).max().unwrap_or_default();
        let bytes: Vec<u8> = chunks.ready.into_iter().flatten().collect();
        Ok((String::from_utf8(bytes).expect("it was text"), largest))
    }

    #[test]
    fn chunks_without_a_signature_are_cut() {
        let body = "b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:a\r\n\r\n";
        assert_eq!(cut(body, body.len()).map(|(text, _)| text).as_deref(), Ok(body));
        let expected = "1\r\nh\r\n4\r\nello\r\n4\r\n wor\r\n2\r\nld\r\n0\r\nx-amz-checksum-crc32:a\r\n\r\n";
        assert_eq!(cut(body, 4).map(|(text, _)| text).as_deref(), Ok(expected));
        let large = format!("ffffffff\r\n{}", "x".repeat(1 << 20));
        assert_eq!(cut(&large, 1 << 10).map(|(_, largest)| largest), Ok(1 << 10));
    }

    #[test]
    fn chunks_with_a_signature_are_whole_and_limited() {
        let signed = "5;chunk-signature=a\r\nhello\r\n0;chunk-signature=b\r\n\r\n";
        for frame in [1, 3, 100] {
            assert_eq!(cut(signed, frame).map(|(text, _)| text).as_deref(), Ok(signed), "{frame}");
        }
        assert_eq!(cut("1000001;chunk-signature=a\r\n", 5), Err(CHUNK_TOO_LARGE));
        assert!(cut("1000000;chunk-signature=a\r\n", 5).is_ok());
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let long = "1".repeat(LINE_BYTES + 1);
        for wrong in ["\r\n", "+1\r\na\r\n", "123456789\r\n", "x\r\n", "1\r\nab\r\n", "1\r\na\rb", &long] {
            for frame in [1, 100_000] {
                assert_eq!(cut(wrong, frame), Err(MALFORMED), "{wrong}");
            }
        }
    }
}
