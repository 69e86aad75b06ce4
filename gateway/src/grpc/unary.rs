//! Unary calls whose message comes in one piece, as nearly all do.
//!
//! They are spared the layers that tonic has for compression and streams: buffers for messages in pieces, and for
//! several of them. What is not in one piece, and what is no message, is left to tonic.

use std::convert::Infallible;

use axum::{body::Body, response::Response};
use bytes::{BufMut, Bytes};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Frame;
use mesh::{Code, Fault, fault::answer_too_large};
use prost::Message;

/// How messages are compressed.
pub const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Bytes before a message: whether it is compressed, and its length. Source: gRPC over HTTP/2, "Length-Prefixed-Message".
const PREFIX_BYTES: usize = 5;

/// The message of `body`, which ends after it; otherwise a body of the same frames.
pub async fn message<M: Message + Default>(mut body: Body, limit: usize) -> Result<M, Body> {
    let first = body.frame().await;
    let data = first.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
    let Some(message) = data.and_then(|data| decoded(data, limit)) else {
        return Err(with_frames([first, None], body));
    };
    match body.frame().await {
        None => Ok(message),
        more => Err(with_frames([first, more], body)),
    }
}

/// The message that `data` is, with its prefix.
fn decoded<M: Message + Default>(data: &Bytes, limit: usize) -> Option<M> {
    let ([is_compressed, length @ ..], message) = data.split_first_chunk::<PREFIX_BYTES>()?;
    let is_whole = u32::from_be_bytes(*length) as usize == message.len() && message.len() <= limit;
    if *is_compressed != 0 || !is_whole {
        return None;
    }
    // Fields of type `bytes` share the memory of a slice of these.
    M::decode(data.slice(PREFIX_BYTES..)).ok()
}

/// `body` with the frames that were taken of it.
fn with_frames(taken: [Option<Result<Frame<Bytes>, axum::Error>>; 2], body: Body) -> Body {
    let taken = stream::iter(taken.into_iter().flatten());
    Body::new(StreamBody::new(taken.chain(BodyStream::new(body))))
}

/// The answer of a call that succeeds with `message`. Errors: `TOO_LARGE` for what no gRPC message can hold.
pub fn response(message: &impl Message) -> Result<Response, Fault> {
    let size = message.encoded_len();
    let Ok(length) = u32::try_from(size) else {
        return Err(Fault::new(Code::TooLarge, answer_too_large(u32::MAX.into())));
    };
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + size);
    bytes.put_u8(0);
    bytes.put_u32(length);
    message.encode(&mut bytes).expect("there is room for its size");
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from(bytes)), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Text = String;

    /// A message that is a text, with its prefix.
    fn framed(text: &str) -> Vec<u8> {
        let message = text.to_owned().encode_to_vec();
        let length = u32::try_from(message.len()).expect("the test's message is small");
        [&[0][..], &length.to_be_bytes(), &message].concat()
    }

    fn in_pieces(pieces: &[&[u8]]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
    }

    #[tokio::test]
    async fn a_message_in_one_piece_is_decoded() {
        let message = message::<Text>(in_pieces(&[&framed("hello")]), 7).await;
        assert_eq!(message.ok().as_deref(), Some("hello"));
    }

    #[tokio::test]
    async fn any_other_body_stays_as_it_is() {
        let whole = framed("hello");
        let compressed = [&[1], &whole[1..]].concat();
        let no_text = [0, 0, 0, 0, 1, 0xff];
        for pieces in [
            &[][..],
            &[&whole[..3]],
            &[&whole[..8]],
            &[&whole[..8], &whole[8..]],
            &[&whole, &whole],
            &[&whole, &whole, &whole],
            &[&[&whole[..], b"x"].concat()],
            &[&compressed],
            &[&no_text],
        ] {
            let Err(body) = message::<Text>(in_pieces(pieces), 7).await else { panic!("{pieces:?} is left alone") };
            let bytes = body.collect().await.expect("it is sound").to_bytes();
            assert_eq!(bytes, pieces.concat(), "{pieces:?}");
        }
        assert!(message::<Text>(in_pieces(&[&whole]), 6).await.is_err(), "it is over the limit");
    }

    #[tokio::test]
    async fn an_answer_is_a_message_and_its_status() {
        let response = response(&"hello".to_owned()).expect("it is small");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc");
        let body = response.into_body().collect().await.expect("it is sound");
        assert_eq!(body.trailers().expect("it has trailers")[STATUS], "0");
        assert_eq!(body.to_bytes(), framed("hello"));
    }
}
