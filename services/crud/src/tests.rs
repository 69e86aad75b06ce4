//! What crud promises, on every engine: SQLite always, PostgreSQL where `TEST_POSTGRES_URL` is its URL.

mod budgets;
mod compile;
mod engines;
mod grants;
mod links;
mod pooled;
mod reads;
mod refusals;
mod relations;
mod returned;
mod service;
mod stored;
mod support;
mod triggers;
mod writes;

use mesh::resources::{Kind, parse_typed, schema_typed};
use query::resources::{Project, ProjectMeta};

/// The kinds of the resources that tests are written in.
pub const KINDS: [Kind; 2] = [
    Kind {
        name: "project",
        parse: parse_typed::<ProjectMeta, Project>,
        check: |_| Vec::new(),
        schema: schema_typed::<ProjectMeta, Project>,
    },
    crate::DATABASE,
];
