//! Perigee, the binary: arguments, configuration, one node of the mesh, and the commands around it.
//!
//! [`node`] starts a node in this process; [`cli`] is everything a user types. The crate decides nothing else: what a
//! service does, it does in its own crate.

pub mod cli;
pub mod failure;
pub mod node;

mod check;
mod dev;
mod doctor;
mod events;
mod health;
mod init;
mod output;
mod progress;
mod serve;
mod token;
mod version;

pub use check::KINDS;
