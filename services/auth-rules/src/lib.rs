//! Authentication and authorization: tokens are verified, and rules are evaluated to grants. The default is to deny.
//!
//! A rule is parsed once, when it is loaded. Its verdict on a request is a filter that the database applies, or a denial.
//! Claims and requests are data: never evaluated, and never SQL text.

mod bucket;
mod call_grant;
#[cfg(test)]
mod cases;
mod check;
mod column_path;
mod config;
mod constraint;
mod context;
mod date;
mod error;
mod eval;
mod event;
mod event_grant;
mod explain;
mod file_grant;
mod file_policy;
mod function;
mod grant;
mod grant_cache;
mod json_schema;
mod key;
mod names;
mod operand;
mod overview;
mod path;
mod policy_set;
mod questions;
mod rule;
mod service;
mod table;
mod token;

pub use bucket::BUCKET;
pub use check::TABLE;
pub use config::{Config, Development};
pub use error::Error;
pub use event::EVENT;
pub use function::SERVICE;
pub use key::{dev_key, sign};
pub use overview::{AllowedRead, Overview};
pub use service::Service;
