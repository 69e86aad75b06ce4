//! Several ranges of a file as one body, `multipart/byteranges`. Source: RFC 9110, section 14.6.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use mesh::Fault;
use proto::storage::Part;

use super::missing_part;

/// Ranges of a file, and what stands between them.
pub struct MultipartRanges {
    boundary: String,
    /// What comes before each range, and its bytes.
    parts: VecDeque<(Bytes, u64)>,
    end: Bytes,
}

/// The body on its way.
struct Framing {
    ranges: MultipartRanges,
    data: BoxStream<'static, Result<Bytes, Fault>>,
    /// What was read beyond the range.
    rest: Bytes,
    /// Bytes of the range that are still to come.
    left: u64,
    is_over: bool,
}

impl MultipartRanges {
    /// Ranges of a file of `size` bytes.
    pub fn new(parts: &[Part], content_type: &str, size: u64) -> Self {
        // Long and of its own for each answer, so that no file has it in it.
        let boundary = format!("{:032x}", rand::random::<u128>());
        let before = |(index, part): (usize, &Part)| {
            let (first, last) = (part.start, part.start + part.size - 1);
            let line = if index == 0 { "" } else { "\r\n" };
            let head = format!(
                "{line}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            );
            (Bytes::from(head), part.size)
        };
        let parts = parts.iter().enumerate().map(before).collect();
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        Self { boundary, parts, end }
    }

    /// The media type of the body.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Bytes of the body.
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|(head, size)| head.len() as u64 + size).sum::<u64>() + self.end.len() as u64
    }

    /// The body, of the bytes of the ranges one after the other.
    pub fn framed(self, data: BoxStream<'static, Result<Bytes, Fault>>) -> impl Stream<Item = Result<Bytes, Fault>> {
        let framing = Framing { ranges: self, data, rest: Bytes::new(), left: 0, is_over: false };
        stream::try_unfold(framing, |mut framing| async { Ok(framing.next().await?.map(|piece| (piece, framing))) })
    }
}

impl Framing {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        if self.left == 0 {
            return Ok(match self.ranges.parts.pop_front() {
                Some((head, size)) => {
                    self.left = size;
                    Some(head)
                }
                None if self.is_over => None,
                None => {
                    self.is_over = true;
                    Some(self.ranges.end.clone())
                }
            });
        }
        if self.rest.is_empty() {
            self.rest = self.data.next().await.ok_or_else(|| missing_part("fewer bytes than the ranges have"))??;
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.rest.len());
        self.left -= length as u64;
        Ok(Some(self.rest.split_to(length)))
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn ranges_are_framed_and_counted() {
        let parts = [Part { start: 0, size: 3 }, Part { start: 5, size: 2 }];
        let ranges = MultipartRanges::new(&parts, "text/plain", 10);
        let (boundary, size) = (ranges.boundary.clone(), ranges.size());
        for pieces in [vec!["abcfg"], vec!["a", "bcf", "g"]] {
            let data = stream::iter(pieces).map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).boxed();
            let ranges =
                MultipartRanges { boundary: boundary.clone(), parts: ranges.parts.clone(), end: ranges.end.clone() };
            let body: Vec<Bytes> = ranges.framed(data).try_collect().await.expect("the data is sound");
            let body = String::from_utf8(body.concat()).expect("it is a text");
            assert_eq!(body.len() as u64, size);
            let expected = format!(
                "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-2/10\r\n\r\nabc\r\n\
                 --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-6/10\r\n\r\nfg\r\n--{boundary}--\r\n"
            );
            assert_eq!(body, expected);
        }
    }
}
