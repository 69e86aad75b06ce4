//! What crud promises, on every engine: SQLite always, PostgreSQL where `TEST_POSTGRES_URL` is its URL.

mod budgets;
mod compile;
mod engines;
mod grants;
mod reads;
mod refusals;
mod service;
mod support;
mod writes;

use mesh::resources::{Kind, plain};
use query::resources::{Project, ProjectMeta};

/// The kinds of the resources that tests are written in.
pub const KINDS: [Kind; 2] =
    [Kind { name: "project", parse: plain::<ProjectMeta, Project>, check: |_| Vec::new() }, crate::DATABASE];
