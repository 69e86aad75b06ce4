//! Events between services: at most once, to whoever listens now.

use bytes::Bytes;

/// Where events travel.
#[derive(Debug, Clone)]
pub enum Bus {
    /// In this process.
    Memory(Memory),
}

/// A bus in this process.
#[derive(Debug, Clone)]
pub struct Memory {}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Dot-separated words of `[A-Za-z0-9_-]`.
    pub subject: String,
    /// What happened.
    pub payload: Bytes,
}
