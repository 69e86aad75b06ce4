//! Messages as services hold them, and the codec that converts them where they cross a wire.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Decoder, EncodeBuf, Encoder},
};

/// Bytes of the largest message between services: the largest answer that a node can be configured to give, and its
/// envelope.
///
/// An answer at its limit must travel, so that it is the limit that refuses a larger one, near and far alike.
pub const MESSAGE_BYTES: usize = ANSWER_BYTES_MAX + (16 << 20);
/// The most that the limit of an answer may be.
pub const ANSWER_BYTES_MAX: usize = 128 << 20;

/// A message that services pass to each other. Within a process it passes as it is.
pub trait Carried: Send + Sync + Sized + 'static {
    /// Its form in the contract.
    type Wire: Message + Default + Send + 'static;

    /// Converts to the message of the contract.
    fn into_wire(self) -> Self::Wire;

    /// Converts from the message of the contract.
    ///
    /// Errors: `INVALID_ARGUMENT` where it lacks something or says what the model cannot hold.
    fn from_wire(wire: Self::Wire) -> Result<Self, Status>;

    /// Bytes that count against the limit of a message where it passes without a wire: those of the encoded message, or
    /// those of the payloads where the rest of it is bounded otherwise.
    fn bytes(&self) -> usize;
}

/// Messages that hold nothing of the model are their own form.
#[doc(hidden)]
#[macro_export]
macro_rules! carries_itself {
    ($message:ty) => {
        impl ::proto::carried::Carried for $message {
            type Wire = Self;

            fn into_wire(self) -> Self {
                self
            }

            fn from_wire(wire: Self) -> Result<Self, tonic::Status> {
                Ok(wire)
            }

            fn bytes(&self) -> usize {
                ::proto::carried::encoded_len(self)
            }
        }
    };
}

pub use carries_itself;

/// Bytes of the encoded message.
pub fn encoded_len(message: &impl Message) -> usize {
    message.encoded_len()
}

/// Refuses a message over the limit in tonic's words, so that it is refused alike near and far.
pub fn check_size(message: &impl Carried) -> Result<(), Status> {
    check_bytes(message.bytes())
}

/// As [`check_size`], for a message of `size` bytes.
pub fn check_bytes(size: usize) -> Result<(), Status> {
    match size > MESSAGE_BYTES {
        true => Err(Status::out_of_range(format!(
            "Error, encoded message length too large: found {size} bytes, the limit is: {MESSAGE_BYTES} bytes"
        ))),
        false => Ok(()),
    }
}

/// Encodes `T` and decodes `U`.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

/// Encodes `T`.
#[derive(Debug, Clone)]
pub struct CarriedEncoder<T>(PhantomData<T>);

/// Decodes `U`.
#[derive(Debug, Clone)]
pub struct CarriedDecoder<U>(PhantomData<U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Carried, U: Carried> tonic::codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = CarriedEncoder<T>;
    type Decoder = CarriedDecoder<U>;

    fn encoder(&mut self) -> CarriedEncoder<T> {
        CarriedEncoder(PhantomData)
    }

    fn decoder(&mut self) -> CarriedDecoder<U> {
        CarriedDecoder(PhantomData)
    }
}

impl<T: Carried> Encoder for CarriedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.into_wire().encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl<U> Default for CarriedDecoder<U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U: Carried> Decoder for CarriedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let wire = U::Wire::decode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        U::from_wire(wire).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
