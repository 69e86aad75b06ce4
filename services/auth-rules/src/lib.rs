//! Who may do what: tokens become claims, rules become grants, and nothing is allowed that no rule allows.
//!
//! A rule is parsed once, into closed types, when it is loaded. Asked about a request it answers with a filter that the
//! database applies, or with a denial; claims and requests are data on the way, never evaluated and never text of SQL.

#[cfg(test)]
mod cases;
mod check;
mod columns;
mod condition;
mod config;
mod date;
mod error;
mod eval;
mod facts;
mod grant;
mod key;
mod number;
mod operand;
mod path;
mod rule;
mod service;
mod state;
mod table;
mod token;

pub use check::check;
pub use config::Config;
pub use error::Error;
pub use key::sign;
pub use service::Service;
