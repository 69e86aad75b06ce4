//! Workers of Perigee: processes that dial in and take calls of functions.
//!
//! ```no_run
//! # async fn run() -> Result<(), perigee_client::Error> {
//! use perigee_client::{Call, Client};
//! use serde_json::{Value, json};
//!
//! let worker = Client::new("http://localhost:4122", "shop")?.worker("mail").function("send", |call: Call| async move {
//!     let params: Value = call.params()?;
//!     Ok::<_, serde_json::Error>(json!({ "sent": params["to"] }))
//! });
//! worker.run(std::future::pending()).await
//! # }
//! ```

mod client;
mod error;
#[allow(missing_docs, clippy::allow_attributes_without_reason, clippy::pedantic, reason = "generated from a commented contract")]
#[rustfmt::skip]
mod generated;
mod session;
mod worker;

pub use client::Client;
pub use error::Error;
pub use worker::{Call, Worker};

#[cfg(test)]
mod tests;
