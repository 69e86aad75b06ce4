//! What crud promises, on every engine: SQLite always, PostgreSQL where `TEST_POSTGRES_URL` is its URL, MariaDB where
//! `TEST_MYSQL_URL` is.

mod budgets;
mod compile;
mod declared;
mod engines;
mod grants;
mod links;
mod log;
mod matching;
mod merged;
mod pooled;
mod prepared_inserts;
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

/// The URL of PostgreSQL's test server; `None`, and a word about it, where there is none and none is demanded.
pub fn postgres_url() -> Option<String> {
    server("TEST_POSTGRES_URL", "PostgreSQL")
}

/// As [`postgres_url`], of MariaDB's.
pub fn mysql_url() -> Option<String> {
    server("TEST_MYSQL_URL", "MariaDB")
}

fn server(variable: &str, engine: &str) -> Option<String> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} names no server");
        eprintln!("skipped on {engine}: {variable} names no server");
    }
    url
}

/// The URL of the bus of tests, as [`postgres_url`].
pub fn nats_url() -> Option<String> {
    let url = std::env::var("TEST_NATS_URL").ok();
    if url.is_none() {
        assert!(std::env::var_os("CI").is_none(), "TEST_NATS_URL names no server");
        eprintln!("skipped over NATS: TEST_NATS_URL names no server");
    }
    url
}

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
